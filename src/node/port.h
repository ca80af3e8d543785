/* port - what node asks of the world. daemon/ports.c answers with sockets, tests/sim with a fake
 * network and fake time.
 *
 * All of it is called on the node's one thread. Nothing here calls back into node before it
 * returns: answers come later, as calls of node.h. Numbers (ask, call, link) are the node's, unless
 * a contract says otherwise; links that a peer opened get theirs from the port, with the top bit
 * set.
 */
#ifndef NODE_PORT_H
#define NODE_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>
#include "base/limits.h"
#include "wire/frame.h"
#include "wire/status.h"

struct node_service;

struct node_addr {
    char ip[LIMIT_IP_TEXT]; /* canonical text */
    uint16_t port;
};

enum node_urgency { NODE_BULK, NODE_URGENT };

#define NODE_LINK_ACCEPTED (UINT64_C(1) << 63)

enum node_event_kind {
    NODE_MAPS_CHANGED,    /* print both maps, update the metrics */
    NODE_LINK_LIVE,       /* peer_id, address */
    NODE_LINK_SUSPECT,    /* silence */
    NODE_LINK_LOST,       /* text says why */
    NODE_LINK_REFUSED,    /* by the other side, or by us: text says why and what to do */
    NODE_LINK_PARKED,     /* duplicate of a link that stays */
    NODE_PEER_GONE,       /* its rows went: text says why */
    NODE_DIAL_FAILED,     /* text says why; comes once per streak of the same error */
    NODE_INCARNATION,     /* ours was raised above the one known elsewhere */
    NODE_ENTRIES_REFUSED, /* some of a peer's entries were left out, or some of ours elsewhere */
    NODE_LEASE_EXPIRED,   /* text names the service */
    NODE_BACKEND_DOWN,    /* text names the service and says why */
    NODE_BACKEND_UP,      /* text names the service */
    NODE_SERVICE_DRAINED, /* likewise: a service of this node's takes no new clients */
    NODE_SERVICE_ENABLED, /* likewise */
};
#define NODE_EVENTS (NODE_SERVICE_ENABLED + 1)
struct node_event {
    enum node_event_kind kind;
    const char *peer_id, *address, *text; /* borrowed; may be "" */
};

struct node_port {
    void *ctx;
    uint64_t (*now_ms)(void *ctx); /* monotonic */
    uint64_t (*now_us)(void *ctx); /* the same clock, to measure short times; NULL: there is none */
    uint64_t (*wall_us)(void *ctx); /* unix time; may go back */
    void (*random)(void *ctx, void *out, size_t len);

    /* host to addresses, in the background; answer: node_resolved. Literals are answered too. */
    void (*resolve)(void *ctx, uint64_t ask, const char *host, uint16_t port);

    /* One call to the peer at `to`, on a connection of its own whose preamble names this node;
     * answer: node_call_done, exactly once, within deadline_ms and a little. expect: where there is
     * TLS, a peer id that the certificate there must name; "": any. */
    void (*call)(void *ctx, uint64_t call, const struct node_addr *to, const char *expect,
                 const char *method, const ProtobufCMessage *request, uint32_t deadline_ms);

    /* Opens a link; answer: node_link_up, or node_link_down at once. expect: as above. */
    void (*link_dial)(void *ctx, uint64_t link, const struct node_addr *to, const char *expect,
                      const uint8_t token[TOKEN_LEN]);
    /* Answers node_link_asked. After accept: node_link_up, or node_link_down. After refuse the
     * link's number is not heard of again. */
    void (*link_accept)(void *ctx, uint64_t link);
    void (*link_refuse)(void *ctx, uint64_t link, enum status status, int reason, const char *text);
    /* Queues a message; packs before it returns. 0, -EAGAIN (full), -EPIPE (not up), -EMSGSIZE. */
    int (*link_send)(void *ctx, uint64_t link, enum node_urgency urgency,
                     const ProtobufCMessage *header, const ProtobufCMessage *body);
    /* Bytes received on the link so far, those of a message not yet whole included. */
    uint64_t (*link_received)(void *ctx, uint64_t link);
    /* Whether the port took messages of the link's session on a shorter way than through
     * node_link_message since this was asked last: signs of life too. */
    bool (*link_spoke)(void *ctx, uint64_t link);
    /* Ends the link. flush: what was queued is still delivered, if the other side takes it. The
     * number is not heard of again: no node_link_down follows. */
    void (*link_end)(void *ctx, uint64_t link, bool flush);

    /* Clients of services travel over links too, past the node: it only says when. Hello is done;
     * comes before anything else of the session. It lasts until link_end, or the port's own
     * node_link_down. */
    void (*link_session)(void *ctx, uint64_t link, const uint8_t session_id[SESSION_ID_LEN],
                         const char *peer_id, bool dialled);
    /* A message of the session, of kind FORWARDS, FORWARD_REPLIES or CANCEL; body as it came. */
    void (*link_forward)(void *ctx, uint64_t link, int kind, const uint8_t *body, size_t len);
    /* For a heartbeat on a link that the peer dialled; and of one on a link that this node did. */
    uint32_t (*link_data_wanted)(void *ctx, uint64_t link);
    void (*link_data_wish)(void *ctx, uint64_t link, uint32_t wanted);
    /* Whether forwards are being opened over it: then a duplicate stays a little longer. */
    bool (*link_busy)(void *ctx, uint64_t link);

    /* Looks once whether the backend of a service answers, as its check says, which has a kind and
     * no field that is 0; answer: node_checked, exactly once, within timeout_ms and a little. */
    void (*check)(void *ctx, uint64_t number, const struct node_service *service);

    /* Answers a call handed to node_register etc. The number is the port's. message may be NULL. */
    void (*reply)(void *ctx, uint64_t call, enum status status, int reason, const char *text,
                  const ProtobufCMessage *message);

    void (*event)(void *ctx, const struct node_event *event);
};

#endif
