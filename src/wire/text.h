/* text - a message in protobuf's text format, by its descriptor, both ways.
 *
 * Printing: a line per field, two blanks of indentation per message, fields in the order of their
 * numbers, those with their default (zero, false, empty) left out, as protobuf's own printers do in
 * proto3; enums by name, or as a number when they have none here. Strings and bytes are quoted;
 * \n \r \t \" \' \\ are written so, every other byte that is not printable ASCII as an octal
 * escape. Unknown fields are left out. Numbers with fractions and oneofs are in no message that
 * this is for.
 *
 * Parsing: fields as `name: value` or `name { ... }` (also `name: { ... }`, or with < and >), in
 * any order, separated by blanks, commas or semicolons; repeated ones again and again or as a list
 * `[a, b]`; comments from # to the end of the line; numbers decimal, 0x hexadecimal or 0 octal;
 * adjacent strings joined; escapes \n \r \t \a \b \f \v \\ \' \" \? \ooo \xhh. A field that
 * is not repeated may come only once.
 *
 * Source: protobuf.dev/reference/protobuf/textformat-spec
 */
#ifndef WIRE_TEXT_H
#define WIRE_TEXT_H

#include <stddef.h>
#include <protobuf-c/protobuf-c.h>
#include "wire/check.h"

/* A NUL-terminated string in *out_text, to be freed; its length in *out_len, which may be NULL. 0
 * or -ENOMEM. */
int text_print(const ProtobufCMessage *message, char **out_text, size_t *out_len);

struct text_error {
    size_t line, column; /* from 1 */
    char text[160];      /* one clause: what is wrong, and what would be right */
};
/* Parses text as a message of descriptor, allocated in the arena (and never above its cap, nor
 * deeper than the descriptor goes, which is not recursive). 0 and *out_message; -EBADMSG with
 * *out_error filled in; -ENOMEM, -E2BIG. Strings must be UTF-8 without NUL. */
int text_parse(const ProtobufCMessageDescriptor *descriptor, const char *text, size_t len,
               struct arena *arena, ProtobufCMessage **out_message, struct text_error *out_error);

#endif
