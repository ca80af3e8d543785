/* check - from a stranger's bytes to a message, within limits that are checked before unpacking.
 *
 * protobuf-c allocates up to 60 times the bytes it is given and validates neither UTF-8 nor enum
 * values. So a scan over the descriptor comes first (fields counted, lengths against what is there,
 * wire types, UTF-8 and NUL in strings), and unpacking allocates from an arena with a cap.
 */
#ifndef WIRE_CHECK_H
#define WIRE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

/* A bump allocator. Messages unpacked from it live until arena_reset; protobuf-c's free_unpacked is
 * never called on them. One thread at a time. It stays where arena_init found it. */
struct arena {
    struct arena_block *blocks; /* the newest first */
    size_t used, cap;           /* bytes handed out, and the most that may be: SIZE_MAX at first */
    int error;                  /* of the last allocation that failed: -E2BIG or -ENOMEM */
    ProtobufCAllocator allocator;
};

void arena_init(struct arena *arena);
void arena_fini(struct arena *arena);
/* Keeps one block of up to 64 KiB, so that a busy arena stops calling malloc. */
void arena_reset(struct arena *arena);
/* 16-byte aligned, or NULL: over the cap, or no memory. */
void *arena_alloc(struct arena *arena, size_t size);
/* Not aligned. NULL as above. */
char *arena_strdup(struct arena *arena, const char *text);

/* Unpacks data as a message of descriptor, into at most 10 * len + 64 KiB of the arena (and never
 * above its own cap). 0 and *out_message (owned by the arena); -EBADMSG: not such a message;
 * -E2BIG: it would need more than that; -ENOMEM. Unknown fields are skipped, an enum's unknown
 * value stays as it is, and a sub-message that is not repeated may come only once. Nothing may be
 * recursive in the descriptor, and no message in it may have more than 64 fields. */
int wire_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t len,
                struct arena *arena, ProtobufCMessage **out_message);

/* True for well-formed UTF-8 without NUL (RFC 3629). */
bool utf8_valid(const uint8_t *data, size_t len);

#endif
