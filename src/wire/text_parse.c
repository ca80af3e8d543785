/* text - reads a message from protobuf's text format, by its descriptor.
 *
 * One pass, one byte at a time, nothing looked at twice but numbers. Messages within messages are
 * read by functions that call each other, as deep as the descriptor goes. What a string says is
 * gathered in a buffer as long as the whole text and copied from there.
 */
#include "wire/text.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "wire/field.h"

#define FIELDS_MAX 64u /* of one message: a bit each */
#define SHOWN_MAX 40   /* bytes of a wrong word in an error */

struct input {
    const char *text;
    size_t at, len;
    uint8_t *scratch; /* len bytes, for strings */
    struct arena *arena;
    struct text_error *error;
};

/* ---- words ---- */

/* Notes what is wrong at `at`. Returns -EBADMSG. */
static int __attribute__((format(printf, 3, 4)))
wrong(struct input *in, size_t at, const char *format, ...)
{
    va_list ap;

    in->error->line = in->error->column = 1;
    for (size_t i = 0; i < at; i++) {
        in->error->column++;
        if (in->text[i] == '\n') {
            in->error->line++;
            in->error->column = 1;
        }
    }
    va_start(ap, format);
    vsnprintf(in->error->text, sizeof(in->error->text), format, ap);
    va_end(ap);
    return -EBADMSG;
}

/* The next byte; -1: the end. */
static int peek(const struct input *in)
{
    return in->at < in->len ? (unsigned char)in->text[in->at] : -1;
}

static void skip_blank(struct input *in)
{
    for (;; in->at++) {
        int c = peek(in);

        if (c == '#') {
            while (in->at < in->len && in->text[in->at] != '\n')
                in->at++;
            c = peek(in);
        }
        if (c < 0 || !strchr(" \t\r\n\v\f", c) || c == 0)
            return;
    }
}

/* Whether c is next, after blanks; it is then passed over. */
static bool accept(struct input *in, int c)
{
    skip_blank(in);
    if (peek(in) != c)
        return false;
    in->at++;
    return true;
}

static bool is_word(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

struct word {
    const char *text;
    size_t len, at;
};

/* Letters, digits and _; empty when something else is next. */
static struct word read_word(struct input *in)
{
    struct word word;

    skip_blank(in);
    word = (struct word){.text = in->text + in->at, .at = in->at};
    while (is_word(peek(in)))
        in->at++;
    word.len = in->at - word.at;
    return word;
}

static int shown(const struct word *word)
{
    return word->len < SHOWN_MAX ? (int)word->len : SHOWN_MAX;
}

static bool word_is(const struct word *word, const char *text)
{
    return strlen(text) == word->len && memcmp(word->text, text, word->len) == 0;
}

/* ---- numbers, enums, bools ---- */

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 16;
}

/* Decimal, 0x or 0 octal. False: no such number, or more than 64 bits. */
static bool number_of(const struct word *word, uint64_t *out_value)
{
    unsigned base = 10;
    size_t i = 0;
    uint64_t v = 0;

    if (word->len > 2 && word->text[0] == '0' && (word->text[1] | 0x20) == 'x') {
        base = 16;
        i = 2;
    } else if (word->len > 1 && word->text[0] == '0') {
        base = 8;
        i = 1;
    }
    if (i == word->len)
        return false;
    for (; i < word->len; i++) {
        unsigned d = (unsigned)digit(word->text[i]);

        if (d >= base || __builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)d, &v))
            return false;
    }
    *out_value = v;
    return true;
}

/* A number of -least to most. */
static int read_number(struct input *in, const ProtobufCFieldDescriptor *field, uint64_t least,
                       uint64_t most, bool *out_negative, uint64_t *out_value)
{
    bool negative = accept(in, '-');
    struct word word = read_word(in);
    uint64_t v;

    if (!number_of(&word, &v) || peek(in) == '.')
        return wrong(in, word.at, "%s takes a number, not '%.*s'", field->name, shown(&word),
                     word.text);
    if (v > (negative ? least : most))
        return wrong(in, word.at, "%s%.*s does not fit into %s; it takes %s%" PRIu64 " to %" PRIu64,
                     negative ? "-" : "", shown(&word), word.text, field->name, least ? "-" : "",
                     least, most);
    *out_negative = negative;
    *out_value = v;
    return 0;
}

static int read_u64(struct input *in, const ProtobufCFieldDescriptor *field, uint64_t most,
                    uint64_t *out)
{
    bool negative;

    return read_number(in, field, 0, most, &negative, out);
}

static int read_i64(struct input *in, const ProtobufCFieldDescriptor *field, uint64_t most,
                    int64_t *out)
{
    bool negative;
    uint64_t v;
    int r = read_number(in, field, most + 1, most, &negative, &v);

    if (r == 0)
        *out = (int64_t)(negative ? 0 - v : v); /* the two's complement, also of the least */
    return r;
}

static int read_enum(struct input *in, const ProtobufCFieldDescriptor *field, int *out)
{
    const ProtobufCEnumDescriptor *descriptor = field->descriptor;
    size_t began;
    struct word word;
    int64_t number;
    int c;

    skip_blank(in);
    began = in->at;
    c = peek(in);
    if (c == '-' || (c >= '0' && c <= '9')) {
        int r = read_i64(in, field, INT32_MAX, &number);

        *out = r == 0 ? (int)number : 0;
        return r;
    }
    word = read_word(in);
    for (unsigned i = 0; i < descriptor->n_values; i++) {
        if (word_is(&word, descriptor->values[i].name)) {
            *out = descriptor->values[i].value;
            return 0;
        }
    }
    return wrong(in, began, "'%.*s' is no %s; write one such as %s", shown(&word), word.text,
                 descriptor->short_name, descriptor->values[descriptor->n_values > 1].name);
}

static int read_bool(struct input *in, const ProtobufCFieldDescriptor *field,
                     protobuf_c_boolean *out)
{
    static const char *const yes[] = {"true", "True", "t", "1"};
    static const char *const no[] = {"false", "False", "f", "0"};
    struct word word = read_word(in);

    for (size_t i = 0; i < 4; i++) {
        if (word_is(&word, yes[i]) || word_is(&word, no[i])) {
            *out = word_is(&word, yes[i]);
            return 0;
        }
    }
    return wrong(in, word.at, "%s takes true or false, not '%.*s'", field->name, shown(&word),
                 word.text);
}

/* ---- strings ---- */

/* Behind a backslash: one byte. */
static int read_escape(struct input *in, uint8_t *out)
{
    static const char letters[] = "nrtabfv\\'\"?", bytes[] = "\n\r\t\a\b\f\v\\'\"?";
    size_t began = in->at - 1;
    int c = peek(in);
    const char *letter = c > 0 ? strchr(letters, c) : NULL;
    unsigned v = 0, base = 8, most = 3, n = 0;

    if (letter) {
        *out = (uint8_t)bytes[letter - letters];
        in->at++;
        return 0;
    }
    if (c == 'x' || c == 'X') {
        base = 16;
        most = 2;
        in->at++;
    }
    for (; n < most && in->at < in->len; n++, in->at++) {
        unsigned d = (unsigned)digit(in->text[in->at]);

        if (d >= base)
            break;
        v = v * base + d;
    }
    if (n == 0 || v > 255)
        return wrong(
            in, began,
            "no such escape; there are \\n \\r \\t \\a \\b \\f \\v \\\\ \\' \\\" \\? \\ooo "
            "\\xhh");
    *out = (uint8_t)v;
    return 0;
}

/* One or more quoted pieces, joined, in scratch. */
static int read_quoted(struct input *in, const ProtobufCFieldDescriptor *field, size_t *out_len)
{
    size_t len = 0;
    bool any = false;

    for (;; any = true) {
        size_t began;
        int quote, c;

        skip_blank(in);
        began = in->at;
        quote = peek(in);
        if (quote != '"' && quote != '\'') {
            *out_len = len;
            return any ? 0 : wrong(in, began, "%s takes a text in quotes", field->name);
        }
        in->at++;
        while ((c = peek(in)) != quote) {
            int r = 0;

            if (c < 0 || c == '\n')
                return wrong(in, began, "this text has no end; close it with %c on its line",
                             quote);
            in->at++;
            if (c == '\\')
                r = read_escape(in, &in->scratch[len]);
            else
                in->scratch[len] = (uint8_t)c;
            if (r < 0)
                return r;
            len++;
        }
        in->at++;
    }
}

static int read_string(struct input *in, const ProtobufCFieldDescriptor *field, char **out)
{
    size_t began, len;
    char *text;
    int r;

    skip_blank(in);
    began = in->at;
    r = read_quoted(in, field, &len);
    if (r < 0)
        return r;
    if (!utf8_valid(in->scratch, len))
        return wrong(in, began, "%s is a text: UTF-8 without NUL", field->name);
    text = arena_alloc(in->arena, len + 1);
    if (!text)
        return in->arena->error;
    memcpy(text, in->scratch, len);
    text[len] = '\0';
    *out = text;
    return 0;
}

static int read_bytes(struct input *in, const ProtobufCFieldDescriptor *field,
                      ProtobufCBinaryData *out)
{
    size_t len;
    int r = read_quoted(in, field, &len);

    if (r < 0 || len == 0)
        return r;
    out->data = arena_alloc(in->arena, len);
    if (!out->data)
        return in->arena->error;
    memcpy(out->data, in->scratch, len);
    out->len = len;
    return 0;
}

/* ---- fields and messages ---- */

static int read_message(struct input *in, const ProtobufCMessageDescriptor *descriptor, int end,
                        ProtobufCMessage **out);

static int read_braces(struct input *in, const ProtobufCFieldDescriptor *field,
                       ProtobufCMessage **out)
{
    if (accept(in, '{'))
        return read_message(in, field->descriptor, '}', out);
    if (accept(in, '<'))
        return read_message(in, field->descriptor, '>', out);
    return wrong(in, in->at, "%s is a message: write %s { ... }", field->name, field->name);
}

static int read_value(struct input *in, const ProtobufCFieldDescriptor *field, void *at)
{
    uint64_t u = 0;
    int64_t i = 0;
    int r;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        r = read_i64(in, field, INT32_MAX, &i);
        *(int32_t *)at = (int32_t)i;
        return r;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return read_i64(in, field, INT64_MAX, at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        r = read_u64(in, field, UINT32_MAX, &u);
        *(uint32_t *)at = (uint32_t)u;
        return r;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return read_u64(in, field, UINT64_MAX, at);
    case PROTOBUF_C_TYPE_BOOL:
        return read_bool(in, field, at);
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(in, field, at);
    case PROTOBUF_C_TYPE_STRING:
        return read_string(in, field, at);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(in, field, at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_braces(in, field, at);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        break;
    }
    abort(); /* mesh.proto has no fractions */
}

/* Room for one more element of a repeated field, zeroed; NULL: see the arena. The capacity is the
 * next power of two, so it needs no place of its own. */
static void *one_more(struct input *in, const ProtobufCFieldDescriptor *field, char *base)
{
    size_t *n = (size_t *)(base + field->quantifier_offset), size = field_size(field);
    char **list = (char **)(base + field->offset);

    if ((*n & (*n - 1)) == 0) {
        char *grown = arena_alloc(in->arena, (*n ? 2 * *n : 1) * size);

        if (!grown)
            return NULL;
        if (*n)
            memcpy(grown, *list, *n * size);
        *list = grown;
    }
    memset(*list + *n * size, 0, size);
    return *list + (*n)++ * size;
}

static int read_element(struct input *in, const ProtobufCFieldDescriptor *field, char *base)
{
    void *at = one_more(in, field, base);

    return at ? read_value(in, field, at) : in->arena->error;
}

static int read_list(struct input *in, const ProtobufCFieldDescriptor *field, char *base)
{
    size_t began = in->at - 1; /* of the bracket */

    if (accept(in, ']'))
        return 0;
    do {
        int r = read_element(in, field, base);

        if (r < 0)
            return r;
    } while (accept(in, ','));
    if (!accept(in, ']'))
        return wrong(in, peek(in) < 0 ? began : in->at, "a list goes on with , or ends with ]");
    return 0;
}

/* A name that is no field's: which ones there are, as far as there is room. */
static int no_such_field(struct input *in, const ProtobufCMessageDescriptor *descriptor,
                         const struct word *word)
{
    char names[80] = "";
    size_t at = 0;

    if (word->len == 0)
        return wrong(in, word->at, "the name of a field is missing here");
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const char *name = descriptor->fields[i].name;

        if (at + strlen(name) + 6 > sizeof(names)) {
            at += (size_t)snprintf(names + at, sizeof(names) - at, " ...");
            break;
        }
        at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", at ? " " : "", name);
    }
    return wrong(in, word->at, "%s has no field '%.*s'; it has %s", descriptor->short_name,
                 shown(word), word->text, names);
}

static int read_field(struct input *in, const ProtobufCMessageDescriptor *descriptor, char *base,
                      uint64_t *seen)
{
    const ProtobufCFieldDescriptor *field = NULL;
    struct word word = read_word(in);
    bool colon, repeated;
    uint64_t bit = 0;

    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (word_is(&word, descriptor->fields[i].name)) {
            field = &descriptor->fields[i];
            bit = UINT64_C(1) << i;
        }
    }
    if (!field)
        return no_such_field(in, descriptor, &word);
    assert(!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)); /* mesh.proto has none */
    repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    if (!repeated && (*seen & bit))
        return wrong(in, word.at, "%s came already, and it is not repeated", field->name);
    *seen |= bit;
    colon = accept(in, ':');
    if (!colon && field->type != PROTOBUF_C_TYPE_MESSAGE)
        return wrong(in, in->at, "a colon is missing: write %s: value", field->name);
    if (!repeated)
        return read_value(in, field, base + field->offset);
    if (accept(in, '['))
        return read_list(in, field, base);
    return read_element(in, field, base);
}

/* end: what closes it; -1: the end of the text. */
static int read_message(struct input *in, const ProtobufCMessageDescriptor *descriptor, int end,
                        ProtobufCMessage **out)
{
    ProtobufCMessage *message = arena_alloc(in->arena, descriptor->sizeof_message);
    size_t began = in->at;
    uint64_t seen = 0;

    assert(descriptor->n_fields <= FIELDS_MAX);
    if (!message)
        return in->arena->error;
    protobuf_c_message_init(descriptor, message);
    for (;;) {
        int r;

        skip_blank(in);
        if (peek(in) == end) {
            in->at += end >= 0;
            *out = message;
            return 0;
        }
        if (peek(in) < 0)
            return wrong(in, began - 1, "this has no end; close it with %c", end);
        r = read_field(in, descriptor, (char *)message, &seen);
        if (r < 0)
            return r;
        if (!accept(in, ','))
            accept(in, ';');
    }
}

int text_parse(const ProtobufCMessageDescriptor *descriptor, const char *text, size_t len,
               struct arena *arena, ProtobufCMessage **out_message, struct text_error *out_error)
{
    struct input in = {.text = text, .len = len, .arena = arena, .error = out_error};
    int r;

    in.scratch = malloc(len + 1);
    if (!in.scratch)
        return -ENOMEM;
    r = read_message(&in, descriptor, -1, out_message);
    free(in.scratch);
    return r;
}
