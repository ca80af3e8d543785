/* gate - the one port: everything that touches the network, on a libuv thread of its own.
 *
 * It accepts and dials, with a keeper by TLS on every TCP connection and never without, reads the
 * first bytes, and joins what belongs to nng with nng's own ipc sockets, message by message, so
 * that nng never sees a broken connection:
 *
 *   strangers' REQ, peers' rpc ──▶ a few long-lived lanes ──▶ the REP socket    (frame.h, 4)
 *   a link asked for or dialled ──▶ one session ──▶ the PAIR1 socket of that link
 *   a call dialled ──▶ one session ──▶ the REQ socket of that call
 *   DATA (frame.h, 5) ──▶ handed on, descriptor and all, to who carries clients
 *   a watcher ──▶ pictures and news, from here itself                           (watch.h)
 *
 * Sessions end in order, never by a reset. Whichever side begins, the owner of the nng socket
 * starts no new send and says how many messages it handed to nng since `up` (gate_end); the gate
 * reads on until it has had that many whole messages, so that no send of nng is in flight; it
 * finishes the message it has begun to write to nng, shuts that write side and drains until nng
 * closes (`ended`). If nng has not closed after 5 s the descriptor is parked and counted.
 *
 * Threads:   gate_new, gate_listen_..., gate_start, gate_stop, gate_free: the owner's thread, in
 * that order. All others: any thread, at any time between start and stop. Callbacks run on the
 * gate's thread, must not block, and may call what any thread may. Numbers:   a connection has a
 * number (1 to 2^31 - 1), not used again while the process could still mean the old one. Calls that
 * name a connection that has ended do nothing. Limits:    base/limits.h; what is over one is closed
 * and counted.
 */
#ifndef GATE_GATE_H
#define GATE_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include "base/limits.h"
#include "gate/watch.h"
#include "tls/tls.h"
#include "wire/frame.h"

struct gate;

/* Who is at the other end. */
struct gate_peer {
    char ip[LIMIT_IP_TEXT]; /* canonical text, v4-mapped as v4; "" on the Unix socket */
    uint16_t port;
    bool local;                      /* on the Unix socket */
    uint32_t uid;                    /* there: SO_PEERCRED */
    char peer_id[LIMIT_PEER_ID + 1]; /* named by its preamble; "" for anybody else. Under TLS its
                                        certificate names it, too */
    bool secure;                     /* TLS, with a certificate of the mesh; names: as tls_peer */
    char names[LIMIT_CERT_NAMES][LIMIT_PEER_ID + 1];
};
/* Whether who is there may speak for that peer: it always may where there is no TLS. */
bool gate_peer_proves(const struct gate_peer *peer, const char *peer_id);

/* Why a connection or a session ended. */
struct gate_end {
    int error;      /* 0, or a negative errno: -ECONNREFUSED, -ETIMEDOUT, -EPROTO, -EBUSY ... */
    uint8_t status; /* of the other gate's preamble reply, when it refused */
    uint8_t reason;
    char text[LIMIT_STATUS_TEXT + 1]; /* one clause, for people */
};

struct gate_ops {
    void *ctx;
    /* A peer's preamble asks for a link. Answer with gate_accept or gate_refuse within 5 s. */
    void (*link_asked)(void *ctx, uint32_t conn, const struct gate_peer *from,
                       const struct preamble *preamble);
    /* Both sides are joined: the nng socket may be used. Once per connection at most. */
    void (*up)(void *ctx, uint32_t conn, const struct gate_peer *peer);
    /* The network side of a joined connection is gone, or (why says nothing) shall go: answer with
     * gate_end. Once at most. */
    void (*ending)(void *ctx, uint32_t conn, const struct gate_end *why);
    /* Nothing of the connection is left; its ipc path may be joined again. Exactly once for each
     * connection that was dialled or handed to link_asked, and never for the others. */
    void (*ended)(void *ctx, uint32_t conn, const struct gate_end *why);
    /* The preamble of a DATA connection came, and rest behind it (borrowed). 0: fd, non-blocking
     * and with the options of tcp.h, and tls (NULL: plaintext) are the callee's, who also answers
     * the preamble; the gate forgets the connection. More may be pending in tls. Else a gRPC status
     * with which the gate refuses, for REASON_TOKEN, and *out_text, a constant. NULL: no such
     * connection is served. */
    int (*data)(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                const char **out_text);
};

struct gate_settings {
    const struct limits *limits; /* copied */
    const char *rep_path;        /* the REP socket's ipc path; copied */
    unsigned lanes;              /* to it, e.g. 2 */
    uint32_t first_bytes_ms;     /* until the first bytes, TLS included, say what it is; 10000 */
    uint32_t dial_ms;            /* connect, TLS and the preamble's answer, e.g. 5000 */
    uint32_t idle_ms;            /* a stranger's connection without a request in flight; 600000 */
    struct gate_ops ops;
    /* NULL: plaintext. Else TLS on every TCP connection, accepted and dialled: what begins with
     * anything else is closed and counted. Borrowed until gate_free. */
    struct tls_keeper *tls;
    uint64_t epoch; /* of what is watched */
    struct gate_watch_ops watch_ops;
};

int gate_new(const struct gate_settings *settings, struct gate **out_gate);
void gate_set_limits(struct gate *gate, const struct limits *limits); /* copied */
/* Several may listen. The bound address (port 0 replaced) is written to *bound. -EADDRINUSE ... */
int gate_listen_tcp(struct gate *gate, const struct sockaddr *addr, socklen_t len,
                    struct sockaddr_storage *out_bound);
/* mode: permission bits of the socket file, which is replaced when nobody answers on it. */
int gate_listen_unix(struct gate *gate, const char *path, unsigned mode);
int gate_start(struct gate *gate);
/* Listeners close; every connection and the lanes end in order; at most grace_ms. */
void gate_stop(struct gate *gate, uint32_t grace_ms);
void gate_free(struct gate *gate); /* accepts NULL; after gate_stop, or never started */

struct gate_target {
    struct sockaddr_storage to, from; /* from.ss_family AF_UNSPEC: the kernel chooses */
    struct preamble preamble;         /* kind rpc or link */
    const char *ipc_path;             /* of the REQ or PAIR1 socket to join; copied */
    char expect[LIMIT_PEER_ID + 1];   /* under TLS its certificate must name that peer; "": any */
};
/* Connects, says the preamble, joins; then `up`, or only `ended`. Returns the connection's number,
 * or a negative errno when nothing was begun. */
int64_t gate_dial(struct gate *gate, const struct gate_target *target);
/* Answers link_asked: the connection is joined with the PAIR1 socket at ipc_path (copied). */
void gate_accept(struct gate *gate, uint32_t conn, const char *ipc_path);
void gate_refuse(struct gate *gate, uint32_t conn, uint8_t status, uint8_t reason,
                 const char *text);
/* No more messages will be sent on the joined socket; since `up`, sent were handed to nng. They are
 * still delivered as far as the network takes them (at most 5 s). Before `up`: given up. */
void gate_end(struct gate *gate, uint32_t conn, uint64_t sent);

/* Who is behind a connection number, as a request shows it. False: gone. */
bool gate_who(struct gate *gate, uint32_t conn, struct gate_peer *out_peer);
/* Bytes received from the network on that connection so far; 0 when it is gone. */
uint64_t gate_received(struct gate *gate, uint32_t conn);

/* The keeper has other material: connections whose certificate would not be let in any more are
 * ended (gate_end.status PERMISSION_DENIED, REASON_IDENTITY) and counted as revoked. Any thread.
 * Watchers are asked for once more, too (gate_watch_ops.may). */
void gate_check_again(struct gate *gate);

/* Gauges say what is now, counters only grow. */
struct gate_counters {
    uint64_t connections, sources, sessions, buffer_bytes, requests_waiting; /* gauges */
    uint64_t largest_source;               /* gauge: connections of the busiest address */
    uint64_t half_open, largest_half_open; /* gauges: that are nobody yet; of one address */
    uint64_t most_in_flight, most_unsent;  /* of one client since the start: requests, bytes */
    uint64_t parked;                       /* gauge */
    uint64_t watchers, watch_log_bytes, watch_pictures; /* gauges */
    uint64_t watches, watch_messages, watch_events, watch_resyncs;
    uint64_t closed_over_watchers, closed_unread;
    uint64_t accepted, dialled, dial_failed, sessions_begun, sessions_ended;
    uint64_t requests, replies, replies_dropped;
    uint64_t closed_bad_first_bytes, closed_first_bytes_late, closed_bad_message, closed_too_big;
    uint64_t closed_over_connections, closed_over_source, closed_over_buffers, closed_idle;
    uint64_t closed_over_half_open, closed_message_late;
    uint64_t closed_no_descriptor, lanes_lost;
    uint64_t data_handed, data_refused;
    uint64_t tls_handshakes, tls_resumed, tls_revoked, closed_plaintext;
    uint64_t tls_failed[N_TLS_FAILURES]; /* by why; both as who accepted and as who dialled. With
                                            those whose preamble named another, and those cut off
                                            in a handshake (TLS_BROKEN) */
    uint64_t bytes_in, bytes_out;
};
void gate_counters(struct gate *gate, struct gate_counters *out_counters);

#endif
