/* link - one connection with a peer, dialled or accepted, from its opening to its end. */
#ifndef NODE_LINK_H
#define NODE_LINK_H

#include "node/table.h"
#include "node/node.h"
#include "node/measure.h"
#include "node/neighbours.h"
#include "node/sync.h"

struct dialer;
struct peer;

enum link_state { LINK_DIALLED, LINK_OPENING, LINK_SYNCING, LINK_LIVE, LINK_SUSPECT };

struct link {
    uint64_t number;
    struct dialer *dialer; /* NULL: the peer dialled */
    struct peer *peer;     /* NULL: not known before its Hello */
    struct link *next;     /* of the same peer */
    struct node_addr addr;
    enum link_state state;
    uint64_t incarnation; /* of the peer: its token's, then the newest it spoke of */
    uint64_t nonce;       /* ours */
    uint8_t session[SESSION_ID_LEN];
    bool has_session;
    bool own_applied, other_applied; /* the lists of this session; both: live */
    bool broken;                     /* an answer found no room in its queue */
    bool quiet;                      /* its end is no loss */
    bool refused;                    /* trying again soon would change nothing */
    uint64_t begun_ms, since_ms;     /* of the link, of its state */
    uint64_t life_ms;                /* last sign of life */
    uint64_t progress_ms;            /* while syncing: last part that came or was acknowledged */
    uint64_t live_ms;                /* when it became live */
    uint64_t bytes, bytes_ms;        /* received so far, and when that was looked at */
    uint64_t beat_ms;                /* next heartbeat */
    struct measure measure;
    struct neighbours neighbours;
    struct sync_out out;
    struct sync_in in;
    UT_hash_handle hh;
};

struct link *link_find(struct node *n, uint64_t number);
/* NULL: no memory. peer or dialer may be NULL. Goes into the node's table and the peer's chain. */
struct link *link_new(struct node *n, uint64_t number, struct dialer *d, struct peer *p,
                      const struct node_addr *addr);
enum node_link_state link_shown(const struct link *l);
bool link_in_session(const struct link *l); /* Hello is done */

int link_send(struct node *n, struct link *l, enum node_urgency urgency, Meshd__V1__LinkKind kind,
              const ProtobufCMessage *body);
void link_send_heartbeat(struct node *n, struct link *l, uint64_t probe, uint64_t echo);

/* Ends it from this side and frees it. why: what its dialer and the log are told. */
void link_end(struct node *n, struct link *l, const char *why);
/* The same after a Goodbye. */
void link_goodbye(struct node *n, struct link *l, Meshd__V1__GoodbyeReason reason,
                  const char *text);
/* Frees it; the port knows it no more. */
void link_gone(struct node *n, struct link *l, const char *why);

void link_settle(struct node *n, struct link *l); /* live, once both lists are in */
void link_on_up(struct node *n, struct link *l);
void link_on_message(struct node *n, struct link *l, const uint8_t *data, size_t len);
void link_tick(struct node *n, struct link *l);

#endif
