/* node - one peer of the mesh: its links, what it tells whom, what it believes, its own services.
 *
 * Threads:   one, the main loop, for everything here. The registry it writes may be read by others.
 * Pure:      opens no socket, starts no thread, reads no clock: the world is node/port.h.
 * Time:      call node_tick when node_next_ms() (monotonic, as port->now_ms) has come; early is
 * fine. Ownership: what is passed in is borrowed for the call, unless it says otherwise.
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/histogram.h"
#include "node/port.h"
#include "registry/registry.h"

struct node;
struct policy_keeper;

struct node_dial {    /* one REMOTE_PEER_ADDR */
    const char *host; /* name or literal */
    uint16_t port;
    const char *peer_id; /* expected there; "" or NULL: any */
};

/* How to find out whether a backend answers. A field that is 0 has its default, in brackets. */
struct node_check {
    int kind;                         /* a Meshd__V1__CheckKind */
    char path[LIMIT_CHECK_PATH + 1];  /* of CHECK_KIND_HTTP */
    uint32_t interval_ms, timeout_ms; /* [5000], [2000] */
    uint32_t rise, fall;              /* looks in a row [2], [3] */
};
struct node_service {
    const char *name, *backend; /* canonical both */
    int proxy_protocol;         /* a Meshd__V1__ProxyProtocol */
    struct node_check check;
    bool draining; /* it takes no new clients, whatever node_drain_service says */
};

struct node_settings {
    const char *peer_id;
    uint64_t incarnation;     /* unix time of the start in us */
    uint32_t heartbeat_ms;    /* 3000 */
    uint32_t peer_timeout_ms; /* 30000 */
    uint32_t open_timeout_ms; /* 10000: token, Hello, first Sync */
    uint32_t call_timeout_ms; /* 5000: one Register */
    const struct limits *limits;
    const struct node_dial *dials;
    size_t n_dials;
    const struct node_service *services; /* of the configuration */
    size_t n_services;
    struct policy_keeper *policy; /* borrowed until node_free; NULL: no rule */
};

/* Copies the settings; borrows registry and port until node_free. Local services enter the registry
 * before it returns. 0, -ENOMEM, -EINVAL. */
int node_new(const struct node_settings *settings, struct registry *registry,
             const struct node_port *port, struct node **out_node);
void node_free(struct node *node); /* accepts NULL */

void node_start(struct node *node); /* begins to dial */
uint64_t node_next_ms(const struct node *node);
void node_tick(struct node *node);
/* What was in the way of links may be gone: who waits to dial again does so now. */
void node_retry(struct node *node);

/* Other settings, while links and streams go on. Both copy, and change all or nothing: 0, -ENOMEM,
 * -EINVAL (a name twice, or one that is not canonical), -ENOSPC (over a limit).
 * Services of the configuration become these, in one change. A name that a lease holds stays the
 * lease's until that ends; then the configuration's, if it has it, comes back. */
int node_set_services(struct node *node, const struct node_service *services, size_t n);
/* Peers that are not among them any more are told Goodbye and dialled no more; their rows go. Links
 * of those that stay, and of peers that dialled here, do not notice. */
int node_set_dials(struct node *node, const struct node_dial *dials, size_t n);
/* Copies them; after the registry's. What was left out, and who was turned away, for want of room
 * may come where there is more now. */
void node_set_limits(struct node *node, const struct limits *limits);

/* SIGTERM: draining is told to all who are linked, at once, and to whoever comes. Links stay, are
 * dialled anew when they break, and calls are answered, but no name is offered that was not: who is
 * offered stays so until it withdraws, or its lease ends. */
void node_drain(struct node *node);
/* The end: draining is told to all, then Goodbye(leaving) as the last message, links end flushed.
 * Afterwards nothing is dialled and every call is refused as draining. */
void node_stop(struct node *node);

/* The keeper has other rules. Links of peers that may have none any more end and their rows go;
 * names that are not allowed any more leave the maps, and those that are come back. */
void node_policy_changed(struct node *node);

/* ---- answers of the port ---- */
void node_resolved(struct node *node, uint64_t ask, int error, const struct node_addr *addrs,
                   size_t n);
struct node_call_result {
    int error; /* 0: answered, by status; -EACCES: its certificate will not do */
    uint32_t status, reason;
    const char *text;
    const uint8_t *body; /* the reply message, packed */
    size_t body_len;
    /* Who answered showed a certificate of the mesh, which names these peers ("" ends, else
     * LIMIT_CERT_NAMES) and nobody else. False: plaintext, where nothing is shown. */
    bool secure;
    const char (*names)[LIMIT_PEER_ID + 1];
};
void node_call_done(struct node *node, uint64_t call, const struct node_call_result *result);
void node_link_up(struct node *node, uint64_t link);
/* status and reason: of a preamble that was refused, else 0. */
void node_link_down(struct node *node, uint64_t link, uint32_t status, uint32_t reason,
                    const char *text);
/* data: LinkHeader and message as on the wire (frame.h, 3). */
void node_link_message(struct node *node, uint64_t link, const uint8_t *data, size_t len);

/* Of port->check. error 0: it answered as it should; else text says what it did. What this node
 * itself had not (-EMFILE, -ENFILE, -ENOMEM, -ENOBUFS, -EADDRNOTAVAIL) says nothing of it. */
void node_checked(struct node *node, uint64_t check, int error, const char *text);
/* A client of a service of this node did not reach its backend: text says why. Each time, for so
 * many in a row make it unhealthy; that one did reach it is told only after that. */
void node_backend_seen(struct node *node, const char *name, const char *backend, bool ok,
                       const char *text);

/* ---- what peers and programs ask ---- */
/* A peer asks for a link (preamble kind link): accepted or refused through the port. */
void node_link_asked(struct node *node, uint64_t link, const char *peer_id,
                     const struct node_addr *from, const uint8_t token[TOKEN_LEN]);

struct node_caller {
    const char *peer_id; /* named by the connection's preamble; "": a stranger */
    const char *subject; /* whom rules of the policy are about; NULL: as local and peer_id say */
    const char *ip;
    bool local;  /* through the Unix socket */
    bool secure; /* a certificate says who it is */
};
/* Each is answered through port->reply with the same call number, now or later (a Register may wait
 * for a probe of an older session). */
void node_register(struct node *node, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__RegisterRequest *request);
void node_deregister(struct node *node, uint64_t call, const struct node_caller *caller,
                     const Meshd__V1__DeregisterRequest *request);
void node_offer(struct node *node, uint64_t call, const struct node_caller *caller,
                const Meshd__V1__OfferRequest *request);
void node_withdraw(struct node *node, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__WithdrawRequest *request);
/* For programs on the Unix socket, where the policy lets them offer the name. */
void node_drain_service(struct node *node, uint64_t call, const struct node_caller *caller,
                        const Meshd__V1__DrainRequest *request);

/* ---- what it says of itself ---- */
enum node_link_state {
    NODE_DIALLING,
    NODE_OPENING,
    NODE_SYNCING,
    NODE_LIVE,
    NODE_SUSPECT,
    NODE_PARKED,
    NODE_REFUSED,
    N_NODE_LINK_STATES
};
extern const char *const node_link_states[N_NODE_LINK_STATES]; /* dialling, opening, ... */

struct node_neighbour {
    char peer_id[LIMIT_PEER_ID + 1];
    enum node_link_state state;
    uint64_t rtt_us; /* 0: not known */
};

struct node_link_info {
    char peer_id[LIMIT_PEER_ID + 1], configured[LIMIT_NAME + 8];
    struct node_addr address;
    const char *state; /* of node_link_states */
    uint8_t session_id[SESSION_ID_LEN];
    bool has_session;
    uint64_t silent_ms, since_ms; /* since_ms: on port->now_ms */
    char last_error[LIMIT_STATUS_TEXT + 1];
    uint32_t attempts;
    uint64_t rtt_us; /* the way there and back; 0: not known yet */
    /* What the peer has links with, as it said last. Borrowed until the next call of node that may
     * change something. */
    const struct node_neighbour *neighbours;
    size_t n_neighbours;
    uint32_t neighbours_total; /* how many it has */
};
/* Somebody looks at the whole mesh: for the next ten seconds peers are asked for what they have
 * links with, where they are LIMIT_NEIGHBOURS at most. */
void node_look_at_mesh(struct node *node);
/* Writes at most max rows; returns how many there are. */
size_t node_links(const struct node *node, struct node_link_info *out_links, size_t max);

struct node_rtt {
    char peer_id[LIMIT_PEER_ID + 1];
    uint64_t us;
};
/* Of the session that is used with each peer, where it is known: at most max. How many it wrote. */
size_t node_rtts(const struct node *node, struct node_rtt *out_rtts, size_t max);

/* What is known of a backend of this node. Pointers are borrowed until the next call of node that
 * may change something. */
struct node_check_info {
    const char *name, *backend, *why; /* why: of the last answer that was bad; "": none */
    const struct node_check *check;   /* as it is in force; NULL: only clients tell */
    bool healthy, draining;
    uint64_t since_s; /* unix time; when healthy was last another; 0: never */
    uint32_t streak;  /* answers in a row that speak against healthy */
};
/* Of those services that have a check, that clients did not reach once, or that drain: unhealthy
 * ones first, else in order of names. Writes at most max; returns how many there are. */
size_t node_checks(const struct node *node, struct node_check_info *out_checks, size_t max);

struct node_counters {
    uint64_t links_live, leases, peers, backends_unhealthy, services_draining; /* gauges */
    uint64_t links[N_NODE_LINK_STATES]; /* gauges: rows of node_links by state */
    uint64_t checks, checks_failed, backend_downs, backend_ups;
    uint64_t registers, registers_refused, hellos, links_live_total, links_lost, syncs_sent;
    uint64_t syncs_applied, syncs_wanted, sync_parts_sent, heartbeats_sent, heartbeats_received;
    uint64_t messages_other_session, messages_bad, tokens_refused, digests_differed, goodbyes;
    uint64_t dials, dials_failed, probes;
    /* From the call that made a change at its owner to the maps here, as far as it was measured. */
    struct histogram visible;
};
void node_counters(const struct node *node, struct node_counters *out_counters);
uint64_t node_incarnation(const struct node *node); /* may have been raised */
uint64_t node_version(const struct node *node);     /* of its own list */
/* The first of the configured peers that were not live yet (nor are this node itself, or parked
 * behind a live link), as it was configured, or NULL; and how many they are. */
const char *node_waits_for(const struct node *node, size_t *out_count);

#endif
