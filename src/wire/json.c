/* json - walks a message by its descriptor. */
#include "wire/json.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "wire/check.h"
#include "wire/field.h"

/* U+FFFD for every byte that does not belong to a well-formed character. */
static json_t *repaired_string(const char *text)
{
    static const char mark[] = "\xef\xbf\xbd";
    size_t len = strlen(text), used = 0, n;
    char *out = malloc(len * 3 + 1);
    json_t *json;

    if (!out)
        return NULL;
    for (size_t at = 0; at < len; at += n) {
        for (n = 1; n <= 4 && at + n <= len; n++) {
            if (utf8_valid((const uint8_t *)text + at, n))
                break;
        }
        if (n <= 4 && at + n <= len) {
            memcpy(out + used, text + at, n);
            used += n;
        } else {
            n = 1;
            memcpy(out + used, mark, 3);
            used += 3;
        }
    }
    json = json_stringn(out, used);
    free(out);
    return json;
}

static json_t *string_json(const char *text)
{
    if (!text)
        return json_string("");
    if (utf8_valid((const uint8_t *)text, strlen(text)))
        return json_string_nocheck(text);
    return repaired_string(text);
}

static json_t *hex_json(const ProtobufCBinaryData *bytes)
{
    static const char digits[] = "0123456789abcdef";
    char *out = malloc(bytes->len * 2 + 1);
    json_t *json;

    if (!out)
        return NULL;
    for (size_t i = 0; i < bytes->len; i++) {
        out[2 * i] = digits[bytes->data[i] >> 4];
        out[2 * i + 1] = digits[bytes->data[i] & 15];
    }
    json = json_stringn_nocheck(out, bytes->len * 2);
    free(out);
    return json;
}

static json_t *u64_json(uint64_t value)
{
    /* jansson's integers are signed. */
    return value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value);
}

/* These use all of their bits, and most readers of JSON have 53 for a number. */
static json_t *fixed64_json(uint64_t value) { return json_sprintf("%" PRIu64, value); }

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

/* "ROW_STATE_ANY" of enum RowState: the prefix is the enum's name, word by word. */
static json_t *enum_json(const ProtobufCEnumDescriptor *descriptor, int number)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(descriptor, number);
    const char *name, *rest;
    char out[64];
    size_t len;

    if (!value) /* newer than this program */
        return json_integer(number);
    name = rest = value->name;
    for (const char *c = descriptor->short_name; *c; c++) {
        if (c != descriptor->short_name && *c >= 'A' && *c <= 'Z' && *rest == '_')
            rest++;
        if (lower(*rest) != lower(*c))
            break;
        rest++;
    }
    if (*rest == '_')
        name = rest + 1;
    for (len = 0; name[len] && len < sizeof(out) - 1; len++)
        out[len] = lower(name[len]);
    return json_stringn_nocheck(out, len);
}

static json_t *value_json(const ProtobufCFieldDescriptor *field, const void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_integer(*(const int64_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
        return u64_json(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FIXED64:
        return fixed64_json(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FLOAT:
        return json_real((double)*(const float *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return json_real(*(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)at);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_json(field->descriptor, *(const int *)at);
    case PROTOBUF_C_TYPE_STRING:
        return string_json(*(char *const *)at);
    case PROTOBUF_C_TYPE_BYTES:
        return hex_json(at);
    case PROTOBUF_C_TYPE_MESSAGE:
        if (!*(ProtobufCMessage *const *)at)
            return json_null();
        return wire_json(*(ProtobufCMessage *const *)at);
    }
    abort(); /* no such type */
}

static json_t *list_json(const ProtobufCFieldDescriptor *field, const char *at, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < count; i++) {
        if (json_array_append_new(list, value_json(field, at + i * field_size(field))) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *wire_json(const ProtobufCMessage *message)
{
    const char *base = (const char *)message;
    json_t *object = json_object(), *value;

    /* protoc-c keeps the fields sorted by number, and jansson the order in which they are set. */
    for (unsigned i = 0; object && i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];

        assert(!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)); /* mesh.proto has none */
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            value = list_json(field, *(const char *const *)(base + field->offset),
                              *(const size_t *)(base + field->quantifier_offset));
        else
            value = value_json(field, base + field->offset);
        if (json_object_set_new_nocheck(object, field->name, value) < 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}
