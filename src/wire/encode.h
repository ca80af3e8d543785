/* encode - the few pieces of protobuf's encoding that those write by hand for whom descriptors are
 * too slow (rows.h, routes.h, libmeshd's lookups). Room is the caller's to have. Source:
 * protobuf.dev/programming-guides/encoding.
 */
#ifndef WIRE_ENCODE_H
#define WIRE_ENCODE_H

#include <stddef.h>
#include <stdint.h>

enum encode_type { ENCODE_VARINT = 0, ENCODE_PART = 2 }; /* a part: text, bytes or a message */

static inline size_t encode_varint_len(uint64_t value)
{
    size_t n = 1;

    while (value >>= 7)
        n++;
    return n;
}

static inline uint8_t *encode_varint(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

/* number: of the field, below 16. */
static inline uint8_t *encode_tag(uint8_t *at, unsigned number, enum encode_type type)
{
    *at++ = (uint8_t)(number << 3 | type);
    return at;
}

/* A part of len bytes, with its tag and length; and what stands in front of it. */
static inline size_t encode_part_len(size_t len) { return 1 + encode_varint_len(len) + len; }

static inline uint8_t *encode_part_head(uint8_t *at, unsigned number, size_t len)
{
    return encode_varint(encode_tag(at, number, ENCODE_PART), len);
}

static inline uint8_t *encode_part(uint8_t *at, unsigned number, const void *part, size_t len)
{
    at = encode_part_head(at, number, len);
    __builtin_memcpy(at, part, len);
    return at + len;
}

#endif
