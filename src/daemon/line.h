/* line - inside ports: one connection of the gate and the nng socket it is joined with.
 *
 * Main loop only, except where a field says otherwise.
 *
 *   begin ──▶ gate `up` and nng's pipe up ──▶ in use ──▶ quiet (no new sends) ──▶ gate_end
 *                                                                     ──▶ gate `ended`, nng `gone`
 * A socket is used again only after both; one whose joining was given up half-way rests 2 s first,
 * because nng may still be taking the pipe down.
 */
#ifndef DAEMON_LINE_H
#define DAEMON_LINE_H

#include <stdatomic.h>
#define HASH_FUNCTION(ptr, len, out) ((out) = hash_keyed(ptr, len))
#include <uthash.h>
#include "base/hash.h"
#include "daemon/ports.h"
#include "rpc/client.h"
#include "rpc/pair.h"

#define REST_MS 2000u

struct line;

struct slot { /* one nng socket: REQ or PAIR1 */
    struct ports *ports;
    struct slot *next; /* in the pool */
    struct line *line; /* who uses it, or NULL */
    struct rpc_client *client;
    struct rpc_pair *pair;
    uint64_t rest_until_ms;
    atomic_ulong waiting_bytes; /* received, not read by the main loop yet; any thread */
    atomic_bool overflowed;     /* any thread */
    char path[192];             /* rpc refuses what does not fit a sun_path */
};

struct line {
    UT_hash_handle by_conn, by_number;
    struct ports *ports;
    uint32_t conn;   /* the gate's */
    uint64_t number; /* the node's link number; a call's number has a table of its own */
    bool is_call;
    struct slot *slot; /* NULL until accepted */
    bool gate_up, pipe_up, told_up;
    bool left;                /* the node has ended it, or was told that it is down */
    bool quieting, gate_told; /* rpc was told to begin no send; gate_end was called */
    bool lost;                /* the node hears that it is down when nng has delivered the rest */
    bool ended, gone, done;   /* by the gate; nng's pipe; a call's answer was handed on */
    struct gate_end end;
};

struct ports {
    struct ports_settings settings;
    struct limits limits;
    struct gate *gate;
    struct node *node;
    struct sockaddr_storage from;
    struct line *lines_by_conn, *links_by_number;
    struct slot *free_clients, *free_pairs;
    size_t resolving; /* names */
    unsigned next_slot;
    struct ports_counters counters;
    char dir[160];
    char peer_id[LIMIT_PEER_ID + 1];
};

/* Both NULL without memory, a descriptor or a path: *out_error is a negative errno then. */
struct slot *slot_take_client(struct ports *ports, int *out_error);
struct slot *slot_take_pair(struct ports *ports, int *out_error);
void slot_give_back(struct slot *slot, bool rested);

/* Dials `to` with a preamble of kind; joins slot. A negative errno: nothing was begun. */
int line_dial(struct line *line, enum preamble_kind kind, const struct node_addr *to,
              const uint8_t *token);
void line_add(struct line *line);
/* Frees line and gives its socket back when nothing of it is left. */
void line_settle(struct line *line);

/* A joined link: no message is sent any more; flush: but those that are queued. Idempotent. */
void line_quiet(struct line *line, bool flush);
/* The node hears that its link is down, unless it has ended it or heard so before. */
void line_tell_down(struct line *line, const struct gate_end *why);

/* Calls (ports_call.c). */
void call_begin(void *ctx, uint64_t number, const struct node_addr *to, const char *method,
                const ProtobufCMessage *request, uint32_t deadline_ms);
void call_ended(struct line *line); /* the gate let go, or the network is lost */

void resolve_begin(void *ctx, uint64_t ask, const char *host, uint16_t port);

#endif
