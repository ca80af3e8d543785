/* server - the REP socket behind the gate: from a request's bytes to a method of the service that
 * protobuf-c generated, and back.
 *
 * Every request is checked first: connection number, header, wire version, method, deadline, then
 * the message (wire/check.h). What fails is answered by its status: an unknown method
 * UNIMPLEMENTED, undecodable bytes INVALID_ARGUMENT, no or too long a deadline INVALID_ARGUMENT,
 * another wire version FAILED_PRECONDITION with REASON_WIRE_VERSION.
 *
 * Threads:   methods run on nng's threads, several at once, and must not block. They answer exactly
 *            once, now or later, from any thread, with the generated closure (closure_data is the
 *            struct rpc_call) or with rpc_call_reply.
 * Ownership: the call, its input message and its arena live until it is answered.
 */
#ifndef RPC_SERVER_H
#define RPC_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/limits.h"
#include "wire/check.h"
#include "wire/status.h"

struct rpc_server;
struct rpc_call;

struct rpc_caller {
    char ip[LIMIT_IP_TEXT];
    char peer_id[LIMIT_PEER_ID + 1]; /* "" unless the connection's preamble named a peer */
    char subject[LIMIT_PEER_ID + 1]; /* whom rules of the policy are about */
    bool secure;                     /* a certificate says who it is */
    bool local;                      /* through the Unix socket */
    uint32_t uid;                    /* there */
    uint32_t conn;
};

struct rpc_server_settings {
    const char *path;       /* ipc path to listen on, in a private directory; no URL scheme */
    unsigned contexts;      /* requests being answered at once, e.g. 128 */
    uint64_t message_bytes; /* the most a request or a reply may have */
    Meshd__V1__Registry_Service *service; /* borrowed until close */
    /* Who is behind a connection number; false: gone, nothing is run. That too is answered (the
     * gate drops it), so that a lane has as many replies as requests. Any thread. */
    bool (*who)(void *ctx, uint32_t conn, struct rpc_caller *out_caller);
    void *ctx;
};

int rpc_server_open(const struct rpc_server_settings *settings, struct rpc_server **out_server);
/* The gate has stopped: no request is on its way. Waits at most 1 s for calls not yet answered;
 * what is left then is leaked on purpose, for the process ends. */
void rpc_server_close(struct rpc_server *server);

const struct rpc_caller *rpc_call_caller(const struct rpc_call *call);
uint64_t rpc_call_deadline_ms(const struct rpc_call *call); /* on clock_ms() */
struct arena *rpc_call_arena(struct rpc_call *call); /* to build the reply in; generous cap */
/* Answers; message may be NULL. A message too big for one reply is answered RESOURCE_EXHAUSTED. */
void rpc_call_reply(struct rpc_call *call, enum status status, Meshd__V1__Reason reason,
                    const char *text, const ProtobufCMessage *message);

struct rpc_server_counters {
    uint64_t in_progress; /* gauge */
    uint64_t calls, failed, bad_header, bad_message, bad_version, unknown_method, late, dropped;
    uint64_t largest_request, largest_reply;
};
void rpc_server_counters(struct rpc_server *server, struct rpc_server_counters *out_counters);

#endif
