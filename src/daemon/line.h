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
#include "base/lock.h"
#include "daemon/ports.h"
#include "rpc/client.h"
#include "rpc/pair.h"

#define REST_MS 2000u

struct line;

/* Which way a message goes. */
enum slot_way {
    WAY_OTHERS, /* through the mailbox, to the node */
    WAY_LONG,   /* a Forward, likewise */
    WAY_SHORT,  /* it went */
};

struct slot { /* one nng socket: REQ or PAIR1 */
    struct ports *ports;
    struct slot *next; /* in the pool */
    struct line *line; /* who uses it, or NULL */
    struct rpc_client *client;
    struct rpc_pair *pair;
    uint64_t rest_until_ms;
    atomic_ulong waiting_bytes;   /* received, not read by the main loop yet; any thread */
    atomic_bool overflowed;       /* any thread */
    atomic_bool spoke;            /* any thread: a Forward took the short way */
    atomic_uint waiting_forwards; /* any thread: such that went the long way, not read yet */
    /* passing: held while a Forward takes the short way, so that none does after the end; sending:
     * while one is queued. The first before the second. */
    struct mutex passing, sending;
    struct {           /* written by the main loop with both held; read there, or with either */
        uint64_t link; /* the node's number; 0: no session, or none that forward knows */
        uint8_t id[SESSION_ID_LEN];
    } session;
    char path[192]; /* rpc refuses what does not fit a sun_path */
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
    struct sockaddr_storage to, from; /* dialled */
    struct gate_peer peer;            /* of a call, once it is up */
};

struct ports {
    struct ports_settings settings;
    struct limits limits;
    struct gate *gate;
    struct node *node;
    struct forward *forward;
    struct sockaddr_storage from;
    struct line *lines_by_conn, *links_by_number;
    struct slot *free_clients, *free_pairs;
    struct mutex seen_lock;
    struct seen_backend *seen; /* with it held: letters that were not read yet (ports_backends.c) */
    size_t resolving;          /* names */
    unsigned next_slot;
    struct ports_counters counters;
    char dir[160];
    char peer_id[LIMIT_PEER_ID + 1];
};

/* Both NULL without memory, a descriptor or a path: *out_error is a negative errno then. */
struct slot *slot_take_client(struct ports *ports, int *out_error);
struct slot *slot_take_pair(struct ports *ports, int *out_error);
void slot_give_back(struct slot *slot, bool rested);
void slot_free(struct slot *slot);

/* Dials `to`, where expect must be met ("": anybody), with a preamble of kind; joins slot. A
 * negative errno: nothing was begun; -EPERM: plaintext may not go there. */
int line_dial(struct line *line, enum preamble_kind kind, const struct node_addr *to,
              const char *expect, const uint8_t *token);
void line_add(struct line *line);
/* Frees line and gives its socket back when nothing of it is left. */
void line_settle(struct line *line);

/* A link that the node still knows, or NULL. */
struct line *line_of_link(struct ports *ports, uint64_t number);

/* A joined link: no message is sent any more; flush: but those that are queued. Idempotent. */
void line_quiet(struct line *line, bool flush);
/* The node hears that its link is down, unless it has ended it or heard so before. */
void line_tell_down(struct line *line, const struct gate_end *why);

/* Calls (ports_call.c). */
void call_begin(void *ctx, uint64_t number, const struct node_addr *to, const char *expect,
                const char *method, const ProtobufCMessage *request, uint32_t deadline_ms);
void call_ended(struct line *line); /* the gate let go, or the network is lost */

/* Who carries clients (ports_forward.c). slot_pass: nng's threads. */
enum slot_way slot_pass(struct slot *slot, const uint8_t *data, size_t len);
void slot_session_end(struct slot *slot); /* if one is on */
void link_session(void *ctx, uint64_t number, const uint8_t session_id[SESSION_ID_LEN],
                  const char *peer_id, bool dialled);
void link_forward(void *ctx, uint64_t number, int kind, const uint8_t *body, size_t len);
bool link_spoke(void *ctx, uint64_t number);
uint32_t link_data_wanted(void *ctx, uint64_t number);
void link_data_wish(void *ctx, uint64_t number, uint32_t wanted);
bool link_busy(void *ctx, uint64_t number);
int ports_data(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
               const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
               const char **out_text);

/* Backends, as looks and clients find them (ports_backends.c); the last two: any thread. */
void check_begin(void *ctx, uint64_t number, const struct node_service *service);

void backend_checked(void *ctx, uint64_t number, int error, const char *text);
void backend_seen(void *ctx, const char *name, const char *backend, int error);

void resolve_begin(void *ctx, uint64_t ask, const char *host, uint16_t port);

#endif
