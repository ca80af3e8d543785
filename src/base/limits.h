/* limits - every size that a stranger decides, with its name, default and range, in one table.
 *
 * Each is a setting (`limits:` in the YAML file) and a row of Introspect's `limits`, there beside
 * its use where one is measured. Sizes that are part of the wire contract are constants: both ends
 * must agree on them.
 *
 * While a node runs: each room has a copy of its own, and a ..._set_limits that puts others into it
 * with limits_put. Its threads read the fields as they come, so none of them is compared with what
 * another one said a moment before. A limit that is now below its use cuts nothing off: what is
 * new is turned away until the use has fallen. (Of half_open and gate_buffer_bytes, the oldest or
 * the largest stranger goes, as always, and of watch_log_bytes and tombstones the oldest.)
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- constants of the wire contract --- */
#define LIMIT_NAME 253u         /* bytes of a canonical service name (RFC 1035 2.3.4) */
#define LIMIT_LABEL 63u         /* bytes of one label of it */
#define LIMIT_BACKEND 261u      /* bytes of "host:port": 253 + ":" + 5, with room for "[" and "]" */
#define LIMIT_PEER_ID 64u       /* bytes of a peer id */
#define LIMIT_LABEL_TEXT 112u   /* a source label: ip (45) + "#" + peer id, with its NUL */
#define LIMIT_IP_TEXT 46u       /* canonical text of an address with its NUL (INET6_ADDRSTRLEN) */
#define LIMIT_STATUS_TEXT 255u  /* bytes of the text beside a status code */
#define LIMIT_SYNC_PART 65536u  /* bytes of one packed Sync */
#define LIMIT_SYNC_IN_FLIGHT 2u /* Sync parts sent and not yet acknowledged */
#define LIMIT_SP_HOPS 7u        /* words of an SP backtrace in front of the request id */
#define LIMIT_ROWS_PER_HOLD 20000u /* rows touched while the maps' locks are held once */
#define LIMIT_LOOKUP_NAMES 1000u   /* names in one Lookup */
#define LIMIT_PAGE_ROWS 20000u     /* rows in one page of Introspect */
#define LIMIT_FIRST_BYTES 16384u   /* of a client, in one Forward */
#define LIMIT_FORWARDS 262144u     /* bytes of one message of Forwards */
#define LIMIT_CHECK_PATH 256u      /* bytes of the path that a check asks for */
#define LIMIT_NEIGHBOURS 64u       /* links that a peer tells of; links over which that is asked */

/* --- constants of this node --- */
#define LIMIT_CERT_NAMES 8u      /* names of one certificate that are looked at */
#define LIMIT_CERT_FILE 1048576u /* bytes of one PEM file */
#define LIMIT_CERT_CHAIN 65536u  /* bytes of the certificates that the other side shows */
#define LIMIT_CERT_DEPTH 8u      /* certificates between its own and a trusted one */
#define LIMIT_CERT_BETWEEN 64u   /* such certificates kept, to look at old sessions again */
#define LIMIT_TLS_HELLO 16380u   /* bytes of the other side's first word */
#define LIMIT_TLS_EXTRAS 32u     /* its tickets and new keys, without bytes between them */
#define LIMIT_TLS_TICKETS 4096u  /* peers for which a session to resume is kept */
#define LIMIT_POLICY_RULES 256u  /* rules of the policy ... */
#define LIMIT_POLICY_GLOBS 256u  /* ... and globs of one kind in each */
#define LIMIT_DOUBTS 1024u       /* ends of streams that a worker thinks about for a second */

/* "One address" is one of IPv4, or a /64 of IPv6 (base/origin.h). While a peer has a link from
 * there, it may have a quarter of control_connections and half of half_open, if that is more.
 * A connection is half open from accept until its first bytes have said what it is. Of one address
 * the newest above its limit is closed; in all the oldest is, so that strangers who say nothing
 * cannot keep out who speaks. Those of the Unix socket are not among them. */
/* --- settings --- X(field, default, least, most, unit, what it bounds) */
#define LIMITS(X)                                                                                  \
    X(message_bytes, 1048576, 65536, 16777216, "bytes", "one message on any connection")           \
    X(services_per_peer, 100000, 1, 1000000, "services", "the list of one owner")                  \
    X(services_total, 1000000, 1, 10000000, "rows", "the services map")                            \
    X(peers, 4096, 1, 65536, "peers", "records of peers, connected or stale")                      \
    X(control_connections, 16384, 8, 1048576, "connections", "connections on the gate")            \
    X(connections_per_source, 256, 1, 1048576, "connections", "connections of one address")        \
    X(half_open, 4096, 8, 1048576, "connections",                                                  \
      "connections on the gate that have not said yet what they are")                              \
    X(half_open_per_source, 128, 1, 1048576, "connections", "of them, those of one address")       \
    X(gate_buffer_bytes, 268435456, 1048576, 17179869184, "bytes", "all buffers of the gate")      \
    X(requests_in_flight, 64, 1, 4096, "requests", "unanswered requests of one connection")        \
    X(unsent_reply_bytes, 1048576, 65536, 67108864, "bytes", "replies one client has not read")    \
    X(queued_calls, 4096, 16, 1048576, "calls", "calls waiting for the main loop")                 \
    X(link_queue_bytes, 8388608, 262144, 268435456, "bytes", "messages queued towards one peer")   \
    X(leases, 10000, 1, 1000000, "leases", "services offered by local programs")                   \
    X(tombstones, 10000, 16, 1000000, "tombstones", "what is remembered of rows that went")        \
    X(pinned_snapshots, 16, 1, 1024, "snapshots", "pictures kept for the next page of a reader")   \
    X(watchers, 10000, 1, 1048576, "watchers", "connections that are told every change")           \
    X(watch_log_bytes, 16777216, 65536, 1073741824, "bytes",                                       \
      "changes remembered for watchers that come back or read slowly")                             \
    X(ingress_connections, 100000, 1, 10000000, "connections", "clients of the ingress ports")     \
    X(ingress_per_source, 20000, 1, 10000000, "connections", "clients of one address")             \
    X(ingress_unrouted_per_source, 1024, 1, 1000000, "connections",                                \
      "clients of one address that have not said yet where to")                                    \
    X(ingress_head_bytes, 65536, 1024, 1048576, "bytes",                                           \
      "an HTTP head, a TLS ClientHello: what must be read before the name is known")               \
    X(forwards_pending, 65536, 1, 1000000, "forwards", "forwards that are being opened")           \
    X(forwards_per_service, 100000, 1, 10000000, "forwards", "forwards of one service here")       \
    X(admin_connections, 256, 8, 16384, "connections", "connections on the admin port")            \
    X(admin_per_source, 64, 1, 16384, "connections", "of them, those of one address")              \
    X(admin_followers, 64, 1, 4096, "connections", "of them, those that are told every change")    \
    X(data_warm_per_link, 64, 0, 4096, "connections",                                              \
      "DATA connections kept open ahead of need, to and from one peer each")

/* By these something is sized at the start: another value waits for the next one. */
#define LIMITS_OF_THE_START(X)                                                                     \
    X(message_bytes)       /* of each socket of nng */                                             \
    X(control_connections) /* the gate's tables */                                                 \
    X(link_queue_bytes)    /* of each link's socket */

struct limits { /* atomic: written on the main loop, read on any thread */
#define X(field, def, least, most, unit, what) _Atomic uint64_t field;
    LIMITS(X)
#undef X
};

struct limit_row {
    const char *name, *unit, *what;
    size_t offset; /* of the uint64_t in struct limits */
    uint64_t def, least, most;
};

extern const struct limit_row limit_rows[]; /* ends with name == NULL */
void limits_default(struct limits *out_limits);
uint64_t limits_get(const struct limits *limits, const struct limit_row *row);
bool limits_of_the_start(const struct limit_row *row);
/* All of from but those of the start. */
void limits_put(struct limits *limits, const struct limits *from);

#endif
