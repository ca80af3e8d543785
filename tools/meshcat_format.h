/* meshcat_format - messages as they are, and JSON, on stdout. */
#ifndef MESHCAT_FORMAT_H
#define MESHCAT_FORMAT_H

#include <jansson.h>
#include "meshcat.h"

/* JSON or JSONL: then errors are JSON too. */
bool format_is_json(const struct meshcat_opts *opts);
/* Those that show messages, not what they mean. */
bool format_is_message(const struct meshcat_opts *opts);

/* In one of the formats of messages; data[0..len) is the message as it came. Nothing if silent. */
void format_message(const struct meshcat_opts *opts, const ProtobufCMessage *message,
                    const uint8_t *data, size_t len);

/* A message as JSON, a new reference; ends the program without memory. */
json_t *format_json(const ProtobufCMessage *message);
/* One line. flags of jansson: beside the usual ones. */
void format_line(const json_t *json, size_t flags);

#endif
