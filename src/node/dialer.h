/* dialer - one configured peer address, dialled for ever: name, Register, link; back-off; parked
 * while another link to the same peer stays.
 */
#ifndef NODE_DIALER_H
#define NODE_DIALER_H

#include "base/backoff.h"
#include "node/table.h"
#include "node/node.h"

struct link;

/* From the beginning of one attempt to that of the next at most: with 10 s promised, what an
 * attempt needs to get through (a probe, a slow name) still leaves the link live within 12 s. */
#define DIALER_ROUND_MS 9000u
#define DIALER_MIN_MS 100u
#define DIALER_MAX_MS 10000u
#define DIALER_ADDRS_MAX 16u

enum dialer_state {
    DIALER_WAITING, /* for wake_ms */
    DIALER_RESOLVING,
    DIALER_CALLING,
    DIALER_PROBING, /* an older session of the peer met: is it alive? */
    DIALER_LINKED,
    DIALER_PARKED,
    DIALER_STOPPED, /* the node met itself */
};

struct dialer {
    char host[LIMIT_NAME + 1], expected[LIMIT_PEER_ID + 1], configured[LIMIT_NAME + 8];
    uint16_t port;
    enum dialer_state state;
    bool refused; /* shown: the other side, or we, turned it down */
    struct backoff backoff;
    uint64_t begun_ms, wake_ms, since_ms;
    uint64_t ask, call; /* under way; 0: none */
    struct node_addr addrs[DIALER_ADDRS_MAX], addr;
    size_t n_addrs, next_addr;
    char met[LIMIT_PEER_ID + 1]; /* who answered last */
    uint64_t met_incarnation;
    uint8_t token[TOKEN_LEN];
    struct link *link;
    bool was_live;
    bool answered;     /* since it was last live: the back-off was begun anew for it */
    bool list_later;   /* a Register with its list took too long: Sync brings it, part by part */
    uint32_t attempts; /* since it was last live */
    char last_error[LIMIT_STATUS_TEXT + 1], told_error[LIMIT_STATUS_TEXT + 1];
    /* While others are set: by what is configured; whether it is among them. */
    UT_hash_handle hh;
    bool stays;
};

/* What is configured, "host:port". */
void dialer_text(const struct node_dial *dial, char *out, size_t size);
int dialer_new(const struct node_dial *dial, struct dialer **out_dialer); /* -EINVAL, -ENOMEM */
void dialer_start(struct node *n, struct dialer *d);
void dialer_stop(struct dialer *d);
void dialer_tick(struct node *n, struct dialer *d);
enum node_link_state dialer_shown(const struct dialer *d);

void dialer_on_resolved(struct node *n, struct dialer *d, int error, const struct node_addr *addrs,
                        size_t n_addrs);
void dialer_on_answer(struct node *n, struct dialer *d, const struct node_call_result *result);
/* The probe of an older session of the peer met ended. */
void dialer_on_probed(struct node *n, struct dialer *d, bool in_use, const char *where);
/* Its link ended; the link is still readable. */
void dialer_on_link_end(struct node *n, struct dialer *d, const struct link *l, const char *why);
void dialer_on_live(struct node *n, struct dialer *d);
/* Another link to the peer met stays: waits while it does, and lets go of its own. False when there
 * is none. */
bool dialer_park(struct node *n, struct dialer *d);
void dialer_stop_for_ever(struct node *n, struct dialer *d); /* it met the node itself */
/* A session ended or fell silent: those parked behind it go on. The own incarnation grew: attempts
 * under the old one begin anew. */
void dialer_unpark_all(struct node *n);
void dialer_restart_all(struct node *n);
/* Who was turned down may be welcome now: none waits any longer. */
void dialer_retry_all(struct node *n);

/* As node_set_dials; new ones begin to dial if the node has started. (dials.c) */
int dials_set(struct node *n, const struct node_dial *dials, size_t count);
void dials_free(struct node *n);

#endif
