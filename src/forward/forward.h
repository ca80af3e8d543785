/* forward - clients to backends: ingress ports, the way through a peer, the bytes.
 *
 *   client ─▶ ingress ─▶ name ─▶ route ─▶ local backend                        one hop
 *                                     └─▶ Forward on the owner's link, DATA ─▶ its backend
 *
 * Each client's connection lives on one worker, a libuv loop on a thread of its own, from accept to
 * its end; so does the owner's half of a Forward. Nothing here touches the maps but to read them.
 *
 * Threads:   forward_new, _start, _stop, _free and the functions about sessions: the owner's (main)
 * thread. forward_message, forward_data: any. forward_explain, forward_counters: any. What ops
 * holds is called on workers' threads and must not block. Numbers:   of links are the daemon's.
 */
#ifndef FORWARD_FORWARD_H
#define FORWARD_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <protobuf-c/protobuf-c.h>
#include "base/histogram.h"
#include "base/limits.h"
#include "forward/end.h"
#include "gate/gate.h"
#include "registry/snapshot.h"
#include "wire/frame.h"

struct forward;

enum proxy_version { PROXY_OFF = 0, PROXY_V1 = 1, PROXY_V2 = 2 };

struct forward_network { /* an address and how many of its bits count */
    uint8_t ip[16];      /* v4 mapped */
    uint8_t bits;        /* of 128 */
};

struct forward_ingress {  /* one port where clients connect */
    const char *host;     /* canonical text of an address; "": all, v4 and v6 */
    uint16_t port;        /* 0: any free one (tests) */
    const char *name;     /* not "": everything goes to this service (mapped) */
    const char *fallback; /* not "": for what names no service; not when mapped */
    bool accept_bare_lf;  /* in HTTP heads */
    const struct forward_network *proxy_from; /* who must send a PROXY header; nobody else may */
    size_t n_proxy_from;
};

struct forward_record;

struct forward_ops {
    void *ctx;
    /* Sends body (Forwards, ForwardReplies or Cancel) on the link of `line`, in the session. 0;
     * -EPIPE: the session is over; -EAGAIN: its queue is full. */
    int (*send)(void *ctx, void *line, int kind, const uint8_t session_id[SESSION_ID_LEN],
                const ProtobufCMessage *body);
    /* A client of a local service, or a peer's, did not reach the backend (error, negative:
     * -ECONNREFUSED, -ETIMEDOUT, -ENOENT: it does not resolve ...): each such client is told of. Or
     * one did (0), and was the first since. Those of one service's backend come in their order.
     * NULL: nobody wants to know. */
    void (*backend_seen)(void *ctx, const char *name, const char *backend, int error);
    /* Of forward_check: error 0 or as above, -EPROTO: no HTTP, or a status that is none of 200 to
     * 399; text: half a sentence for people, "answered 503". */
    void (*checked)(void *ctx, uint64_t check, int error, const char *text);
    /* A client's way has ended, or a peer's client's here, and forward_set_records wants such ends.
     * record is borrowed for the call. */
    void (*ended)(void *ctx, const struct forward_record *record);
};

#define FORWARD_RECORD_TEXT (LIMIT_STATUS_TEXT + 32u)

/* One line of a log: a client, or a peer's client whose backend is here. */
struct forward_record {
    uint8_t id[FORWARD_ID_LEN];           /* the same on both nodes; one hop: a random one */
    bool owner;                           /* the half at the owner's */
    const char *name;                     /* as it was routed; "": none was said */
    const char *peer_id;                  /* the other node; "": one hop */
    const char *backend;                  /* "": at the owner's, or none was dialled */
    const char *text;                     /* of the end, more than forward_ends has; "": no more */
    struct sockaddr_storage client, port; /* where it came from, and to */
    enum forward_end end;
    uint64_t bytes_up, bytes_down;
    uint64_t name_us, open_us,
        total_us; /* until the name was known, then joined, then all; 0: not */
};

struct forward_settings { /* all copied, but what is said to be borrowed */
    const char *peer_id;
    const struct limits *limits;
    struct registry *registry; /* borrowed until forward_free */
    unsigned workers;          /* 0: one per core */
    const struct forward_ingress *ingress;
    size_t n_ingress;
    uint32_t route_ms;            /* from accept to joined: 10000 */
    uint32_t dial_ms;             /* of a backend: 5000 */
    uint32_t open_ms;             /* of a Forward, at most; 10000 */
    uint32_t idle_ms;             /* 600000 */
    uint32_t half_close_ms;       /* 300000 */
    struct tls_keeper *tls;       /* of DATA; NULL: plaintext; borrowed until forward_free */
    struct policy_keeper *policy; /* who may be forwarded to what; NULL: all; likewise */
    struct forward_ops ops;
};

/* Starts no thread yet. */
int forward_new(const struct forward_settings *settings, struct forward **out_forward);
/* Binds ingress port `index`. The bound address is written as text ("127.0.0.1:8080"). -EADDRINUSE
 * ... Before forward_start. */
int forward_listen(struct forward *forward, size_t index, char *out_text, size_t size);
int forward_start(struct forward *forward);
/* New clients are turned away, Forwards refused after a moment; what runs goes on. Once. */
void forward_drain(struct forward *forward);
/* Clients and owner's halves that run, pending ones included. */
size_t forward_active(struct forward *forward);
/* Everything that still runs is reset. */
void forward_stop(struct forward *forward);
void forward_set_limits(struct forward *forward, const struct limits *limits); /* copied */
void forward_free(struct forward *forward); /* accepts NULL; after forward_stop, or never started */

/* The picture after a change of the maps: the hosts of local backends are resolved ahead of need.
 * Takes its own reference. */
void forward_show(struct forward *forward, struct snapshot *snap);

/* ---- sessions of links ---- */

struct forward_session_info {
    uint64_t link; /* number */
    void *line;    /* for ops.send; stays valid until forward_free */
    uint8_t session_id[SESSION_ID_LEN];
    char peer_id[LIMIT_PEER_ID + 1];
    bool dialled;                     /* by this node: then it dials DATA, too, */
    struct sockaddr_storage to, from; /* ... there; from.ss_family AF_UNSPEC: the kernel chooses */
};
/* After Hello, before anything else of the session. */
int forward_session_begin(struct forward *forward, const struct forward_session_info *info);
/* Pending Forwards of it are answered at once; joined ones do not notice. Unknown: nothing. */
void forward_session_end(struct forward *forward, uint64_t link);
/* The keepers have other material: what would not be let in any more is cut off, joined streams
 * too, and counted. Any thread. */
void forward_check_again(struct forward *forward);
/* Forwards of it that are pending here, both ways. 0 if unknown. */
size_t forward_session_pending(struct forward *forward, uint64_t link);
/* How many warm DATA connections this side would like the dialling peer to keep open for it ... */
uint32_t forward_data_wanted(struct forward *forward, uint64_t link);
/* ... and what a peer said of that. */
void forward_data_wish(struct forward *forward, uint64_t link, uint32_t wanted);

/* A message of kind FORWARDS, FORWARD_REPLIES or CANCEL; those of one session one after another, on
 * whichever thread. False: no such session (yet); nothing was done. One that cannot be read is
 * counted and dropped. */
bool forward_message(struct forward *forward, uint64_t link,
                     const uint8_t session_id[SESSION_ID_LEN], int kind, const uint8_t *body,
                     size_t len);
/* For gate_ops.data: as there. */
int forward_data(void *forward, int fd, struct tls *tls, const struct gate_peer *from,
                 const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                 const char **out_text);

/* Which ends ops.ended is told of, from now on; off to begin with. Any thread. */
enum forward_records { FORWARD_RECORDS_OFF, FORWARD_RECORDS_ERRORS, FORWARD_RECORDS_ALL };
void forward_set_records(struct forward *forward, enum forward_records records);
/* False: it ended in order, or because the client wanted so. */
bool forward_end_is_error(enum forward_end end);

/* Looks once whether backend answers, dialled as for clients; http_path NULL: it accepts a
 * connection, and nothing is said; else it answers GET with a status of 200 to 399, and where it
 * wants a PROXY header it is told first that there is no client. Told by ops.checked, once, unless
 * forward_stop comes first. 0; -ENOMEM; -EINVAL: no address, or a path that is not "/" and visible
 * ASCII. Any thread. */
int forward_check(struct forward *forward, uint64_t check, const char *backend,
                  enum proxy_version proxy, const char *http_path, uint32_t timeout_ms);

/* ---- what it says of itself ---- */

struct forward_candidate {
    const struct registry_route *route; /* of routes, in the order of choice */
    /* Forwards of this node to that owner now; of a local one: of this name, those of peers too. */
    uint32_t active;
    bool chosen;
    char why[200]; /* it was chosen, or why another came before it */
    /* The last failure of this name at this owner, if it is remembered. */
    enum forward_end failed;
    bool has_failed;
    uint64_t failed_ms_ago;
    char failed_text[LIMIT_STATUS_TEXT + 1];
};
struct forward_explained {
    struct registry_routes routes; /* at and cap are the caller's; registry_routes_fini */
    struct forward_candidate *at;  /* caller's storage, as many as routes.cap */
    char matched[LIMIT_NAME + 1];  /* the entry's name: the one asked for, or a wildcard */
    char verdict[320];             /* one sentence */
};
/* How the canonical name would be carried now, by the very function that carries it. */
void forward_explain(struct forward *forward, const char *name, size_t name_len,
                     struct forward_explained *out);

enum forward_phase {
    FORWARD_PHASE_NAME,    /* accept until the name is known */
    FORWARD_PHASE_CONNECT, /* a local backend, or the owner's dialling of its own */
    FORWARD_PHASE_OPEN,    /* Forward sent until joined with the owner */
    N_FORWARD_PHASES
};
struct forward_counters { /* gauges say what is now, counters only grow */
    uint64_t clients, unrouted, pending, relayed, served; /* gauges; served: the owner's halves */
    uint64_t warm, data_waiting, pipes, largest_source, largest_source_unrouted; /* gauges */
    uint64_t largest_service, largest_head, largest_warm; /* gauges; warm: with one peer, one way */
    /* accepted: each has one of ends, or one closed_..., or is there still; who is told why it was
     * not joined has its end before it is gone. */
    uint64_t accepted, accepted_http, accepted_tls, accepted_connect, accepted_h2, accepted_mapped;
    uint64_t accepted_other;
    uint64_t closed_over_limit, closed_no_descriptor, closed_no_memory; /* before a word */
    uint64_t local, forwarded, forward_retries, forwards_received, forwards_refused;
    uint64_t data_dialled, data_accepted, data_dead, data_unexpected, data_late;
    uint64_t data_tls_resumed, data_tls_failed; /* of those that were dialled */
    uint64_t data_revoked;                      /* cut off by forward_check_again */
    uint64_t bytes_up, bytes_down; /* of clients and of owners' halves; up: towards the backend */
    uint64_t spliced;              /* of them, without a copy */
    uint64_t messages_bad, resolves, resolves_failed;
    uint64_t ends[N_FORWARD_ENDS]; /* clients */
    struct histogram phases[N_FORWARD_PHASES];
};
void forward_counters(struct forward *forward, struct forward_counters *out_counters);
/* The upper bound in us of the bucket in which that share (0.5, 0.99) of a phase lies; 0: nothing
 * yet. */
uint64_t forward_phase_us(const struct forward_counters *counters, enum forward_phase phase,
                          double share);

#endif
