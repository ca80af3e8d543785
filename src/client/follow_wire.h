/* follow_wire - the bytes of a Watch: what is asked, and what a message says first. Pure. */
#ifndef CLIENT_FOLLOW_WIRE_H
#define CLIENT_FOLLOW_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include "client/follow.h"
#include "wire/check.h"
#include "wire/frame.h"

/* What may be asked for: 0, or within the bounds of mesh.proto. */
uint32_t follow_wire_heartbeat(uint32_t ms);

/* Preamble and request, in a buffer that is the caller's. The URL is not looked at. 0, -ENOMEM. */
int follow_wire_request(const struct follow_settings *settings, enum sp_framing framing,
                        uint64_t call_id, uint8_t **out_data, size_t *out_len);

/* A message's payload: its header, in the arena, and its body, still packed. 0; -EBADMSG: no reply
 * to that call; as wire_unpack. */
int follow_wire_open(const uint8_t *payload, size_t len, uint64_t call_id, struct arena *arena,
                     const Meshd__V1__ReplyHeader **out_header, struct frame_parts *out_parts);

#endif
