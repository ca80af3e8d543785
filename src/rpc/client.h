/* client - calls to a peer: one REQ socket that the gate joins with a connection it dialled.
 *
 * The socket listens on an ipc path of its own and is used for one session at a time: the gate
 * joins it, calls are posted while its pipe is up, the session ends in order (gate.h), and when the
 * pipe is gone the client may be joined again. nng never re-sends: NNG_OPT_REQ_RESENDTIME is
 * infinite.
 *
 * Threads: any. done runs on an nng thread, exactly once per call that was begun, and must not
 * block.
 */
#ifndef RPC_CLIENT_H
#define RPC_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

struct rpc_client;

struct rpc_result {
    int error; /* 0: an answer came; -ETIMEDOUT, -ECONNRESET, -EBADMSG, -ECANCELED */
    uint32_t status, reason;
    const char *text;    /* borrowed, as the body, until done returns; never NULL */
    const uint8_t *body; /* the reply message, packed; may be empty */
    size_t body_len;
};
typedef void rpc_done(void *ctx, const struct rpc_result *result);

struct rpc_client_settings {
    const char *path;
    uint64_t message_bytes;
    void *ctx;
    /* Nothing of a session's pipe is left: may be joined again. Once for each time it was joined.
     */
    void (*gone)(void *ctx);
};

int rpc_client_open(const struct rpc_client_settings *settings, struct rpc_client **out_client);
/* Only when no session is on. */
void rpc_client_close(struct rpc_client *client);

/* Posts one call: waits for the pipe at most deadline_ms (1 to 600000, else -EINVAL), then for the
 * answer at most what is left. One at a time: -EBUSY. -EMSGSIZE: larger than message_bytes. -EPIPE:
 * the session is quiet and its pipe not gone yet. When it returns an error, done is not called. */
int rpc_client_call(struct rpc_client *client, const char *method, const ProtobufCMessage *request,
                    uint32_t deadline_ms, rpc_done *done, void *ctx);
/* No new send will be begun in this session; the call under way is given up (done: -ECANCELED).
 * Returns how many messages nng was handed since the pipe came up: what gate_end wants. Waits for
 * the callback of a send that it has just cancelled: microseconds. */
uint64_t rpc_client_quiet(struct rpc_client *client);

#endif
