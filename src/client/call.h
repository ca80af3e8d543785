/* call - one call of the service Registry over a socket, without nng.
 *
 * A connection speaks SP REQ0 (wire/sp.h) and carries frames of CallHeader and request one way, of
 * ReplyHeader and reply the other (wire/frame.h). Calls go one after the other.
 *
 * Threads:   one at a time per connection. None of its own.
 * Ownership: what arrives through out_... is the caller's; end it with its _close or _free, which
 *            accept NULL. Requests are borrowed for the time of the call.
 * Time:      one deadline, on clock_ms(), bounds everything a function does.
 * Failure:   a negative errno, and no out_... was written. What the node itself answers, refusals
 *            included, is a reply with a status and not a failure.
 */
#ifndef CLIENT_CALL_H
#define CLIENT_CALL_H

#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "client/trust.h"
#include "wire/sp.h"
#include "wire/status.h"

/* The longest message that is taken: the most that a node's message_bytes may be set to. Buffers
 * grow as bytes arrive and never by an announced length. */
#define CALL_MESSAGE_MAX 16777216u

struct call_conn; /* one connection to one node */

/* Connects and greets; trust, failures and out_why as of stream_open (client/stream.h); besides,
 * -ECONNRESET: closed before it greeted. */
int call_open(const char *url, struct trust *trust, uint64_t deadline_ms, char out_why[TLS_WHY],
              struct call_conn **out_conn);
/* The same on a connected stream socket, which is taken, also on failure, and made non-blocking. */
int call_adopt(int fd, enum sp_framing framing, uint64_t deadline_ms, struct call_conn **out_conn);
void call_close(struct call_conn *conn);
void call_closep(struct call_conn **conn);
/* For poll(2): readable between calls means that call_idle may have something to say. */
int call_fd(const struct call_conn *conn);
/* Between calls: 0: it stands; -ECONNRESET ...: the node has closed it, or broken the rules. */
int call_idle(struct call_conn *conn);

struct call_reply {
    unsigned status; /* enum status, or a number that this version does not know */
    Meshd__V1__Reason reason;
    const char *text; /* why, for people; never NULL; not to be trusted with control bytes */
    uint32_t wire_version_min, wire_version_max; /* spoken there */
    /* The reply message of the method; NULL when the node sent none beside a status other than OK.
     * Lives as long as the reply, as its bytes do. */
    const ProtobufCMessage *message;
    const uint8_t *packed; /* the same as it came */
    size_t packed_len;
};

/* Calls a method of the service by its name in the .proto, e.g. "Lookup", with its request message.
 * Replies to earlier calls, given up by then, are passed over.
 * -ETIMEDOUT: the connection can be used again unless the request was sent in part only.
 * -EMSGSIZE: request or reply longer than CALL_MESSAGE_MAX; -EPROTO, -EBADMSG: not SP, not a reply;
 * -E2BIG: more elements than a message may have; -ECONNRESET: closed before the whole reply was
 * there. After all of these, except a request too long, the connection is of no more use:
 * -ENOTCONN. */
int call_invoke(struct call_conn *conn, const char *method, const ProtobufCMessage *request,
                uint64_t deadline_ms, struct call_reply **out_reply);
void call_reply_free(struct call_reply *reply);
void call_reply_freep(struct call_reply **reply);

#endif
