/* text - prints a message as protobuf's own printers do, by its descriptor. */
#include "wire/text.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "wire/field.h"

static void print_quoted(FILE *out, const uint8_t *data, size_t len)
{
    fputc('"', out);
    for (size_t i = 0; i < len; i++) {
        uint8_t c = data[i];

        if (c == '\n')
            fputs("\\n", out);
        else if (c == '\r')
            fputs("\\r", out);
        else if (c == '\t')
            fputs("\\t", out);
        else if (c == '"' || c == '\'' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fprintf(out, "\\%03o", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void print_string(FILE *out, const char *text)
{
    print_quoted(out, (const uint8_t *)text, text ? strlen(text) : 0);
}

static void print_enum(FILE *out, const ProtobufCEnumDescriptor *descriptor, int number)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(descriptor, number);

    if (value)
        fputs(value->name, out);
    else
        fprintf(out, "%d", number);
}

static void print_scalar(FILE *out, const ProtobufCFieldDescriptor *field, const void *at)
{
    const ProtobufCBinaryData *bytes = at;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        fprintf(out, "%" PRId32, *(const int32_t *)at);
        return;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        fprintf(out, "%" PRId64, *(const int64_t *)at);
        return;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        fprintf(out, "%" PRIu32, *(const uint32_t *)at);
        return;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        fprintf(out, "%" PRIu64, *(const uint64_t *)at);
        return;
    case PROTOBUF_C_TYPE_BOOL:
        fputs(*(const protobuf_c_boolean *)at ? "true" : "false", out);
        return;
    case PROTOBUF_C_TYPE_ENUM:
        print_enum(out, field->descriptor, *(const int *)at);
        return;
    case PROTOBUF_C_TYPE_STRING:
        print_string(out, *(char *const *)at);
        return;
    case PROTOBUF_C_TYPE_BYTES:
        print_quoted(out, bytes->data, bytes->len);
        return;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_MESSAGE:
        break;
    }
    abort(); /* a message is print_message's, and mesh.proto has no fractions */
}

static bool is_default(const ProtobufCFieldDescriptor *field, const void *at)
{
    static const uint64_t zero = 0;
    const char *text;

    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        text = *(char *const *)at;
        return !text || !text[0];
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)at)->len == 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return !*(ProtobufCMessage *const *)at;
    default:
        return memcmp(at, &zero, field_size(field)) == 0;
    }
}

static void print_message(FILE *out, const ProtobufCMessage *message, int depth);

static void print_field(FILE *out, const ProtobufCFieldDescriptor *field, const void *at, int depth)
{
    fprintf(out, "%*s%s", 2 * depth, "", field->name);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        fputs(" {\n", out);
        print_message(out, *(ProtobufCMessage *const *)at, depth + 1);
        fprintf(out, "%*s}\n", 2 * depth, "");
        return;
    }
    fputs(": ", out);
    print_scalar(out, field, at);
    fputc('\n', out);
}

/* As deep as the descriptor goes: nothing in it is recursive. */
static void print_message(FILE *out, const ProtobufCMessage *message, int depth)
{
    const char *base = (const char *)message;

    /* protoc-c keeps the fields sorted by number. */
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *at = base + field->offset;
        size_t count = 1;

        assert(!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)); /* mesh.proto has none */
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            count = *(const size_t *)(base + field->quantifier_offset);
            at = *(const char *const *)at;
        } else if (is_default(field, at)) {
            continue;
        }
        for (size_t k = 0; k < count; k++)
            print_field(out, field, at + k * field_size(field), depth);
    }
}

int text_print(const ProtobufCMessage *message, char **out_text, size_t *out_len)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    bool failed;

    if (!out)
        return -ENOMEM;
    print_message(out, message, 0);
    failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return -ENOMEM;
    }
    *out_text = text;
    if (out_len)
        *out_len = len;
    return 0;
}
