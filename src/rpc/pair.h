/* pair - a link's messages: one PAIR1 socket that the gate joins with the peer's connection.
 *
 * The socket listens on an ipc path of its own; its own send and receive buffers are 0. The queue
 * is here, per session, bounded in bytes and thrown away at the session's end; urgent messages
 * overtake the others in it. A receive is always posted. Messages of an earlier session of the same
 * socket are dropped by their pipe id.
 *
 * A session: the gate joins ── up ──▶ send, message ── rpc_pair_quiet ──▶ quiet(sent) ──▶ gate_end
 * ──▶ nng's pipe goes ── gone ──▶ the socket may be joined again (only then).
 *
 * `up` is nng's half of it: send only when the gate, too, has said that both sides are joined, or
 * its count may be off. A second connection to a socket in use is refused and tells nothing.
 *
 * Threads: functions any; the sending side has a mutex of its own. Events run on nng threads, must
 * not block and may call rpc_pair_send and rpc_pair_quiet. `up` comes before the first message of
 * a session; messages come in order, one at a time, and the last of them before `gone`, as does
 * the answer to rpc_pair_quiet.
 */
#ifndef RPC_PAIR_H
#define RPC_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

struct rpc_pair;
struct rpc_msg; /* one message received; its reader owns it */

const uint8_t *rpc_msg_data(const struct rpc_msg *msg);
size_t rpc_msg_len(const struct rpc_msg *msg);
void rpc_msg_free(struct rpc_msg *msg);

struct rpc_pair_settings {
    const char *path;
    uint64_t message_bytes; /* the most one message may have */
    uint64_t queue_bytes;   /* the most that may wait to be sent */
    void *ctx;
    void (*up)(void *ctx);
    void (*message)(void *ctx, struct rpc_msg *msg); /* takes msg */
    void (*quiet)(void *ctx, uint64_t sent);         /* answers each rpc_pair_quiet once */
    void (*gone)(void *ctx); /* nothing of the session is left in nng, or on its way */
};

int rpc_pair_open(const struct rpc_pair_settings *settings, struct rpc_pair **out_pair);
/* Only when no session is on. Keep sockets for reuse rather than closing them. */
void rpc_pair_close(struct rpc_pair *pair);

/* RPC_MERGE: urgent, and its body may be put behind that of the message before it in the queue when
 * both were sent so under equal headers, up to LIMIT_FORWARDS: for messages of nothing but repeated
 * fields, where the bytes of two behind one another are one with the elements of both. */
enum rpc_urgency { RPC_BULK, RPC_URGENT, RPC_MERGE };
/* Packs and queues. -EPIPE: no session, or quiet; -EAGAIN: the queue is full (an empty one takes
 * any message); -EMSGSIZE; -ENOMEM. */
int rpc_pair_send(struct rpc_pair *pair, enum rpc_urgency urgency, const ProtobufCMessage *header,
                  const ProtobufCMessage *body);
/* No send is begun after this. flush: what is queued is handed to nng first (at most 2 s),
 * otherwise thrown away. The send under way completes, or is cancelled after 2 s: the gate must go
 * on reading. Then `quiet` with the number of messages nng was handed since the pipe came up, on
 * whichever thread finishes, which may be this one. Without a session: 0, at once. */
void rpc_pair_quiet(struct rpc_pair *pair, bool flush);

struct rpc_pair_counters {
    uint64_t queued_bytes, queued; /* gauges */
    uint64_t sent, merged, received, dropped_full, dropped_old, pipes_added, pipes_removed;
};
void rpc_pair_counters(struct rpc_pair *pair, struct rpc_pair_counters *out_counters);

#endif
