/* bytes - protobuf's fields, one after the other, straight from a stranger's bytes. Nothing is
 * copied and no memory is needed. */
#ifndef CLIENT_BYTES_H
#define CLIENT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    const uint8_t *at, *end;
    bool bad; /* it was cut, or made no sense; nothing more comes */
};

enum bytes_type { BYTES_VARINT = 0, BYTES_FIXED64 = 1, BYTES_TEXT = 2, BYTES_FIXED32 = 5 };

struct bytes_field {
    uint32_t number;
    enum bytes_type type;
    uint64_t value;     /* BYTES_VARINT */
    struct bytes inner; /* BYTES_TEXT: a string, or a message */
};

static inline struct bytes bytes_of(const uint8_t *data, size_t len)
{
    return (struct bytes){.at = data, .end = data + len};
}

static inline size_t bytes_len(const struct bytes *bytes)
{
    return (size_t)(bytes->end - bytes->at);
}

/* At most 64 bits, hence 10 bytes of which the last is 0 or 1. */
static inline uint64_t bytes_varint(struct bytes *bytes)
{
    uint64_t value = 0;

    for (unsigned shift = 0; bytes->at < bytes->end && shift < 70; shift += 7) {
        uint8_t byte = *bytes->at++;

        if (shift == 63 && byte > 1)
            break;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    bytes->bad = true;
    return 0;
}

static inline bool bytes_skip(struct bytes *bytes, uint64_t len)
{
    if (len > bytes_len(bytes)) {
        bytes->bad = true;
        return false;
    }
    bytes->at += len;
    return true;
}

/* The next field; false at the end, or with bad set. */
static inline bool bytes_next(struct bytes *bytes, struct bytes_field *out)
{
    const uint8_t *begin = bytes->at;
    uint64_t tag, len;

    *out = (struct bytes_field){.number = 0};
    if (bytes->bad || bytes->at == bytes->end)
        return false;
    tag = bytes_varint(bytes);
    *out = (struct bytes_field){
        .number = (uint32_t)(tag >> 3),
        .type = (enum bytes_type)(tag & 7),
    };
    if (bytes->bad || tag >> 32 || !out->number || bytes->at - begin > 5) {
        bytes->bad = true;
        return false;
    }
    switch (out->type) {
    case BYTES_VARINT:
        out->value = bytes_varint(bytes);
        return !bytes->bad;
    case BYTES_FIXED64:
        return bytes_skip(bytes, 8);
    case BYTES_FIXED32:
        return bytes_skip(bytes, 4);
    case BYTES_TEXT:
        len = bytes_varint(bytes);
        out->inner = (struct bytes){.at = bytes->at};
        if (bytes->bad || !bytes_skip(bytes, len))
            return false;
        out->inner.end = bytes->at;
        return true;
    default:
        bytes->bad = true;
        return false;
    }
}

#endif
