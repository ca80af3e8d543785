/* reply - what a client is told that was not joined, in the words of its protocol. Pure.
 *
 * HTTP/1.x: a status with a short text that names the reason and this node. TLS: a fatal alert.
 * HTTP/2 with prior knowledge: SETTINGS and GOAWAY (RFC 9113 3.4, 6.8; HTTP_1_1_REQUIRED where no
 * route was found). Anything else: nothing; the connection is reset, so that it is not taken for an
 * empty answer.
 */
#ifndef FORWARD_REPLY_H
#define FORWARD_REPLY_H

#include "forward/end.h"
#include "forward/first.h"

#define REPLY_MAX 1024u

/* The length, 0: nothing is to be said. bodiless: the answer to a HEAD, which ends with its head
 * (RFC 9110 9.3.2). text: why, for people; peer_id: this node. */
size_t reply_pack(enum first_kind kind, bool bodiless, enum forward_end end, const char *text,
                  const char *peer_id, uint8_t out[REPLY_MAX]);
/* "HTTP/1.1 200 ..." to a CONNECT whose backend is up (RFC 9110 9.3.6: no length). */
extern const char reply_connected[];

#endif
