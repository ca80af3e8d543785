/* check - an arena, and a scan that knows what unpacking will cost before it begins.
 *
 * The scan follows protobuf-c 1.4 allocation by allocation: it adds up the structs, strings, arrays
 * and the table of fields (32 bytes each, in slabs that double) that unpacking will ask for, and
 * stops at the cap. So a message that is refused for its size has cost one pass and no memory.
 * Nothing else bounds the number of fields: an unknown one is legal however often it comes. */
#include "wire/check.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_FIRST 4096u  /* bytes of the first block; each next one is twice as large ... */
#define ARENA_KEPT 65536u  /* ... up to this, and arena_reset keeps none that is larger */
#define SLACK 65536u       /* of wire_unpack's cap, for messages of few bytes */
#define FACTOR 10u         /* of wire_unpack's cap: bytes in memory for a byte of the wire */
#define SCANNED_MEMBER 32u /* protobuf-c's record of one field on the wire */
#define FIRST_SLAB 16u     /* of these it keeps on its stack */
#define DEPTH_MAX 8u       /* of messages in messages; mesh.proto has 4 */

struct arena_block {
    struct arena_block *next;
    size_t size, used; /* of data */
    _Alignas(16) uint8_t data[];
};

static size_t round_up(size_t size, size_t align) { return (size + align - 1) & ~(align - 1); }

/* A new first block with room for size bytes, whatever the cap. */
static struct arena_block *grow(struct arena *arena, size_t size)
{
    size_t whole = ARENA_FIRST;
    struct arena_block *block;

    if (arena->blocks) {
        whole = 2 * (sizeof(*block) + arena->blocks->size);
        if (whole > ARENA_KEPT)
            whole = ARENA_KEPT;
    }
    if (whole < sizeof(*block) + size)
        whole = sizeof(*block) + size;
    block = malloc(whole);
    if (!block) {
        arena->error = -ENOMEM;
        return NULL;
    }
    block->next = arena->blocks;
    block->size = whole - sizeof(*block);
    block->used = 0;
    arena->blocks = block;
    return block;
}

static void *take(struct arena *arena, size_t size, size_t align)
{
    struct arena_block *block = arena->blocks;
    size_t at;

    if (arena->used > arena->cap || size > arena->cap - arena->used || size > SIZE_MAX / 4 ||
        round_up(size, align) > arena->cap - arena->used) {
        arena->error = -E2BIG;
        return NULL;
    }
    size = round_up(size, align);
    at = block ? round_up(block->used, align) : 0;
    if (!block || at > block->size || size > block->size - at) {
        block = grow(arena, size);
        if (!block)
            return NULL;
        at = 0;
    }
    block->used = at + size;
    arena->used += size;
    return block->data + at;
}

/* Nothing that protobuf-c allocates is aligned to more than 8. */
static void *unpack_alloc(void *arena, size_t size) { return take(arena, size, 8); }

static void unpack_free(void *arena, void *pointer) {}

void arena_init(struct arena *arena)
{
    *arena = (struct arena){
        .cap = SIZE_MAX,
        .allocator = {.alloc = unpack_alloc, .free = unpack_free, .allocator_data = arena},
    };
}

void arena_fini(struct arena *arena)
{
    struct arena_block *next;

    for (struct arena_block *block = arena->blocks; block; block = next) {
        next = block->next;
        free(block);
    }
    arena->blocks = NULL;
    arena->used = 0;
}

void arena_reset(struct arena *arena)
{
    struct arena_block *kept = NULL, *next;

    for (struct arena_block *block = arena->blocks; block; block = next) {
        next = block->next;
        if (sizeof(*block) + block->size > ARENA_KEPT || (kept && kept->size >= block->size)) {
            free(block);
        } else {
            free(kept);
            kept = block;
        }
    }
    if (kept) {
        kept->next = NULL;
        kept->used = 0;
    }
    arena->blocks = kept;
    arena->used = 0;
}

void *arena_alloc(struct arena *arena, size_t size) { return take(arena, size, 16); }

char *arena_strdup(struct arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = take(arena, size, 1);

    return copy ? memcpy(copy, text, size) : NULL;
}

/* The length of the character at data, or 0. Second bytes are narrower after e0, ed, f0 and f4: no
 * overlong forms, no surrogates, nothing above U+10FFFF. */
static size_t utf8_char(const uint8_t *data, size_t len)
{
    uint8_t first = data[0], low = 0x80, high = 0xbf;
    size_t n;

    if (first < 0x80)
        return first != 0;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    n = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (len < n)
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (data[1] < low || data[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if (data[i] < 0x80 || data[i] > 0xbf)
            return 0;
    }
    return n;
}

bool utf8_valid(const uint8_t *data, size_t len)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    size_t at = 0, n;
    uint64_t word;

    while (at < len) {
        if (len - at >= 8) {
            memcpy(&word, data + at, 8);
            /* No top bit, and no byte from which taking 1 borrows: eight characters of ASCII. */
            if (((word | (word - ones)) & tops) == 0) {
                at += 8;
                continue;
            }
        }
        n = utf8_char(data + at, len - at);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LEN = 2, WIRE_32 = 5 };

struct scan {
    const uint8_t *at, *end; /* of the present message */
    size_t need, cap;        /* bytes of arena: so far, and at most */
};

static int add(struct scan *s, size_t size)
{
    s->need += round_up(size, 8);
    return s->need <= s->cap ? 0 : -E2BIG;
}

/* At most 10 bytes and 64 bits, as every implementation has it. */
static int read_varint(struct scan *s, uint64_t *out)
{
    uint64_t value = 0;

    if (s->at < s->end && *s->at < 0x80) {
        *out = *s->at++;
        return 0;
    }
    for (unsigned shift = 0; s->at < s->end && shift < 64; shift += 7) {
        uint8_t byte = *s->at++;

        if (shift == 63 && byte > 1)
            return -EBADMSG;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return 0;
        }
    }
    return -EBADMSG;
}

/* A key or a length. Longer forms of a small number are legal as values only: protobuf-c has no
 * patience with them here. */
static int read_varint32(struct scan *s, uint64_t *out)
{
    const uint8_t *start = s->at;
    int r = read_varint(s, out);

    return r < 0 || (s->at - start <= 5 && *out <= UINT32_MAX) ? r : -EBADMSG;
}

static int skip(struct scan *s, size_t n)
{
    if ((size_t)(s->end - s->at) < n)
        return -EBADMSG;
    s->at += n;
    return 0;
}

static int wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_LEN;
    default:
        return WIRE_VARINT;
    }
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *descriptor,
                                                  uint64_t number)
{
    /* Numbers mostly count from 1 without gaps. */
    if (number <= descriptor->n_fields && descriptor->fields[number - 1].id == number)
        return &descriptor->fields[number - 1];
    return protobuf_c_message_descriptor_get_field(descriptor, (unsigned)number);
}

/* One value that is not length-delimited. */
static int skip_value(struct scan *s, int wire_type)
{
    uint64_t unused;

    switch (wire_type) {
    case WIRE_VARINT:
        return read_varint(s, &unused);
    case WIRE_32:
        return skip(s, 4);
    case WIRE_64:
        return skip(s, 8);
    default: /* groups, which proto3 does not have, and what never was a type */
        return -EBADMSG;
    }
}

static int scan_message(struct scan *s, const ProtobufCMessageDescriptor *descriptor,
                        unsigned depth);

/* A list of numbers in one length-delimited field. */
static int scan_packed(struct scan *s, ProtobufCType type)
{
    int r = 0;

    while (r == 0 && s->at < s->end) {
        r = skip_value(s, wire_type_of(type));
        if (r == 0)
            r = add(s, 8);
    }
    return r;
}

/* A length-delimited field: its content becomes the scan's message for a while. */
static int scan_content(struct scan *s, const ProtobufCFieldDescriptor *field, unsigned depth)
{
    const uint8_t *end = s->end, *start;
    uint64_t len;
    int r = read_varint32(s, &len);

    if (r < 0)
        return r;
    if (len > (uint64_t)(end - s->at))
        return -EBADMSG;
    start = s->at;
    s->end = start + len;
    if (!field) {
        r = add(s, (size_t)len + 10); /* kept with its length in front */
    } else if (field->type == PROTOBUF_C_TYPE_STRING) {
        r = utf8_valid(start, (size_t)len) ? add(s, (size_t)len + 1) : -EBADMSG;
    } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
        r = add(s, (size_t)len);
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        r = scan_message(s, field->descriptor, depth + 1);
    } else {
        r = scan_packed(s, field->type);
    }
    s->at = start + len;
    s->end = end;
    return r;
}

static int scan_field(struct scan *s, const ProtobufCFieldDescriptor *field, int wire_type,
                      unsigned depth)
{
    bool repeated = field && field->label == PROTOBUF_C_LABEL_REPEATED;
    int r = 0;

    if (!field) {
        r = add(s, sizeof(ProtobufCMessageUnknownField));
    } else if (wire_type != wire_type_of(field->type)) {
        if (!repeated || wire_type != WIRE_LEN)
            return -EBADMSG;
        return scan_content(s, field, depth); /* packed: it counts its elements itself */
    } else if (repeated) {
        r = add(s, field->type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : 8);
    }
    if (r < 0)
        return r;
    if (wire_type == WIRE_LEN)
        return scan_content(s, field, depth);
    r = skip_value(s, wire_type);
    return r < 0 || field ? r : add(s, 10); /* an unknown number is kept as its bytes */
}

static int scan_message(struct scan *s, const ProtobufCMessageDescriptor *descriptor,
                        unsigned depth)
{
    size_t slab = FIRST_SLAB, slab_left = FIRST_SLAB;
    uint64_t key, seen = 0; /* singular sub-messages that were there, by index */
    int r = add(s, descriptor->sizeof_message);

    assert(depth < DEPTH_MAX && descriptor->n_fields <= 64);
    while (r == 0 && s->at < s->end) {
        const ProtobufCFieldDescriptor *field;

        r = read_varint32(s, &key);
        if (r < 0)
            return r;
        if (key >> 3 == 0)
            return -EBADMSG;
        field = find_field(descriptor, key >> 3);
        /* Twice is legal and would be merged, at a price that the scan cannot tell. Nobody's
         * serialiser writes it. */
        if (field && field->type == PROTOBUF_C_TYPE_MESSAGE &&
            field->label != PROTOBUF_C_LABEL_REPEATED) {
            uint64_t bit = UINT64_C(1) << (field - descriptor->fields);

            if (seen & bit)
                return -EBADMSG;
            seen |= bit;
        }
        if (slab_left == 0) {
            slab *= 2;
            slab_left = slab;
            r = add(s, slab * SCANNED_MEMBER);
            if (r < 0)
                return r;
        }
        slab_left--;
        r = scan_field(s, field, (int)(key & 7), depth);
    }
    return r;
}

int wire_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t len,
                struct arena *arena, ProtobufCMessage **out_message)
{
    size_t owners_cap = arena->cap, room = arena->cap > arena->used ? arena->cap - arena->used : 0;
    struct scan s = {.cap = FACTOR * len + SLACK};
    struct arena_block *block = arena->blocks;
    ProtobufCMessage *message;
    int r;

    if (len == 0)
        data = (const uint8_t *)""; /* nothing may come as NULL */
    s.at = data;
    s.end = data + len;
    if (s.cap > room)
        s.cap = room;
    r = scan_message(&s, descriptor, 0);
    if (r < 0)
        return r;
    arena->error = 0;
    /* One block for all of it, as its size is known. */
    if ((!block || block->size - block->used < s.need + 8) && !grow(arena, s.need))
        return arena->error;
    arena->cap = arena->used + s.cap;
    message = protobuf_c_message_unpack(descriptor, &arena->allocator, len, data);
    arena->cap = owners_cap;
    if (!message)
        return arena->error < 0 ? arena->error : -EBADMSG;
    *out_message = message;
    return 0;
}
