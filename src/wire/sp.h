/* sp - SP ("scalability protocols") framing over a stream, as nng and nanomsg speak it.
 *
 *   Both sides first send 8 bytes:  00 'S' 'P' 00  protocol (2, big-endian)  00 00
 *   TCP: then messages, each        length (8, big-endian)  payload
 *   IPC: then messages, each        01  length (8, big-endian)  payload
 *
 * A REQ/REP payload begins with a backtrace of 4-byte big-endian words; the last has its top bit
 * set (the request id), and at most LIMIT_SP_HOPS others stand before it. A PAIR1 payload begins
 * with one word, its hop count. Pure; nothing is copied. Sources: the SP-over-TCP and SP-over-IPC
 * mappings of nanomsg (rfc/sp-tcp-mapping-01, sp-request-reply-01) and nng 1.5.2.
 */
#ifndef WIRE_SP_H
#define WIRE_SP_H

#include <stddef.h>
#include <stdint.h>

enum sp_framing { SP_TCP, SP_IPC };
enum sp_protocol { SP_PAIR1 = 0x11, SP_REQ0 = 0x30, SP_REP0 = 0x31 };

#define SP_HELLO_LEN 8u
#define SP_HEAD_MAX 9u /* SP_IPC; 8 for SP_TCP */

void sp_hello_pack(enum sp_protocol protocol, uint8_t out[SP_HELLO_LEN]);
/* 0 and the protocol, or -EBADMSG. Needs all 8 bytes. */
int sp_hello_parse(const uint8_t in[SP_HELLO_LEN], uint16_t *out_protocol);

static inline size_t sp_head_len(enum sp_framing framing) { return framing == SP_TCP ? 8 : 9; }
void sp_head_pack(enum sp_framing framing, uint64_t payload_len, uint8_t *out);

/* The message at the beginning of data[0..len). Returns 0 and its payload's length when the head is
 * there (the payload may not be); -EAGAIN: give more bytes; -EBADMSG: not SP; -EMSGSIZE: longer
 * than max. The payload begins at sp_head_len(framing). */
int sp_head_parse(enum sp_framing framing, const uint8_t *data, size_t len, uint64_t max,
                  uint64_t *out_payload_len);

/* The length of a REQ/REP payload's backtrace, request id included (4 to 4 * (LIMIT_SP_HOPS + 1)).
 * 0 and *out_len, or -EBADMSG: no word with the top bit within the hops allowed. */
int sp_backtrace(const uint8_t *payload, size_t len, size_t *out_len);

#endif
