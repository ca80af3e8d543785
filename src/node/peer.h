/* peer - one peer by its id: what is known of it, its token, and the probe of its older session.
 *
 * Lives exactly as long as its record in the registry: from the first accepted Register or Hello to
 * Goodbye(leaving), or peer_timeout after the last sign of life on a session.
 */
#ifndef NODE_PEER_H
#define NODE_PEER_H

#include "node/table.h"
#include "node/node.h"
#include "node/staging.h"

struct dialer;
struct link;

#define TOKEN_MS 10000u
#define PROBE_MS 1500u
/* Above this nobody could go on with known + 1 for long: such an incarnation is refused. */
#define INCARNATION_MAX (UINT64_MAX / 2)

/* Who waits for the answer of a session of another incarnation. */
struct probe {
    uint64_t echo, until_ms; /* echo 0: none */
    uint64_t incarnation;    /* of the newcomer */
    struct dialer *dialer;   /* the newcomer is at its other end; or a call waits: */
    uint64_t call;
    char ip[LIMIT_IP_TEXT];
    uint64_t version;
    bool draining;
};

struct peer {
    char id[LIMIT_PEER_ID + 1], ip[LIMIT_IP_TEXT];
    const char *label;    /* the registry's */
    uint64_t incarnation; /* the highest accepted */
    struct known_list known;
    uint64_t life_ms; /* last sign of life on a session, or when the record was made */
    bool was_live, draining;
    uint64_t refused_told;
    uint8_t token[TOKEN_LEN];
    uint64_t token_incarnation, token_until_ms; /* 0: no token */
    struct probe probe;
    struct link *links; /* asked for or in session, newest first */
    UT_hash_handle hh;
};

struct peer *peer_find(struct node *n, const char *id);
/* Makes the record if there is none. REGISTRY_E_FULL, -ENOMEM. */
int peer_open(struct node *n, const char *id, const char *ip, struct peer **out_peer);
/* Other rules are in force: it goes, or what it offered is looked at again. */
void peer_policy_changed(struct node *n, struct peer *p);
/* Record, rows and links go. why is a constant. */
void peer_gone(struct node *n, struct peer *p, const char *why);
void peer_free_all(struct node *n);
/* Brings the registry up to date with the peer's sessions, settling on one. */
void peer_show(struct node *n, struct peer *p);
struct link *peer_live(const struct node *n,
                       const struct peer *p); /* the session to use, or NULL */
void peer_alive(struct node *n, struct peer *p);
void peer_tick(struct node *n, struct peer *p);

/* True when token opens a link now; it is used up by that. */
bool peer_token_take(struct node *n, struct peer *p, const uint8_t token[TOKEN_LEN]);
enum peer_probed {
    PEER_PROBE_NONE,  /* no other instance has a session */
    PEER_PROBE_ASKED, /* who waits for the answer is then put into p->probe */
    PEER_PROBE_BUSY,  /* another newcomer is being looked at */
};
/* Asks all sessions of other incarnations than this one for a sign of life. */
enum peer_probed peer_probe(struct node *n, struct peer *p, uint64_t incarnation);
void peer_probe_forget(struct node *n, struct dialer *d);
void peer_drop_probes(struct node *n); /* the node ends: who waits is told so */
/* A session answered. */
void peer_probe_answered(struct node *n, struct peer *p, struct link *l, uint64_t echo,
                         uint64_t incarnation);
/* An entry refused, or the refusals gone: tells it once. */
void peer_tell_refused(struct node *n, struct peer *p);

#endif
