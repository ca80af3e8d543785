/* sync - what to tell whom: the own list, or what changed in it, in parts, on each link; and the
 * receiving half, which stages what the peer tells and answers each part.
 *
 * One Sync at a time is under way on a link; what changes meanwhile goes in the next. Lists are
 * unchanging, so a link remembers what it told last by a reference, and the difference is exact.
 */
#ifndef NODE_SYNC_H
#define NODE_SYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/backoff.h"
#include "node/staging.h"
#include "registry/list.h"

struct link;
struct peer;

struct sync_change {
    struct row *row; /* a reference */
    bool gone;
};

struct sync_out {
    /* What the other side has, as far as it was acknowledged. NULL: nothing yet. */
    struct list *base;
    uint64_t base_incarnation, base_version;
    /* Under way; NULL: nothing. */
    struct list *target;
    uint64_t incarnation, version;
    bool full, sent_all, draining;
    struct list_iter iter;       /* full: what comes next, */
    struct row *held;            /* and the row that did not fit the last part */
    struct sync_change *changes; /* a change: all of it */
    size_t n_changes, cap_changes, at;
    uint32_t next_part, acked;
    uint64_t sent_ms[LIMIT_SYNC_IN_FLIGHT]; /* of the parts under way, by their number */
    uint32_t part_bytes;                    /* what a part may have now: the wire decides */
    /* The other side wants everything again: at once the first time, later with back-off. */
    bool want_full;
    uint64_t not_before_ms, wanted_ms;
    struct backoff repair;
    uint32_t refused_told;
    /* To measure: when the oldest change was made that is under way, and that waits; 0: none. */
    uint64_t made_us, changed_us, noted_version;
};

struct sync_in {
    bool under_way;
    bool repeat;   /* the pair is known: the entries are not looked at */
    bool ignoring; /* everything was asked for anew: the rest of what came is of no use */
    uint64_t incarnation, version, base;
    uint32_t next_part;
    struct staging staging;
    /* Asking for everything again backs off too. */
    struct backoff repair;
    uint64_t not_before_ms;
    unsigned behind; /* heartbeats in a row that spoke of another pair */
};

void sync_init(struct link *l);
void sync_fini(struct node *n, struct link *l);

/* Sends what there is to send, as far as the window allows. */
void sync_run(struct node *n, struct link *l);
void sync_run_all(struct node *n);
/* The incarnation grew: everybody is told everything under the new one. */
void sync_restart_all(struct node *n);

void sync_on_part(struct node *n, struct link *l, const Meshd__V1__Sync *sync);
void sync_on_ack(struct node *n, struct link *l, const Meshd__V1__SyncAck *ack);
void sync_on_wanted(struct node *n, struct link *l, const Meshd__V1__SyncWanted *wanted);
/* Compares what the heartbeat says of the peer's list with what is known, and asks if it differs.
 */
void sync_on_heartbeat(struct node *n, struct link *l, const Meshd__V1__Heartbeat *beat);

/* Asks the peer for everything again, on each session. */
void sync_ask_all(struct node *n, struct peer *p, const char *why);

/* The own list as messages, in the node's scratch space: valid until its next use. False when they
 * would not fit budget bytes. */
bool sync_whole_list(struct node *n, size_t budget, size_t *out_n, Meshd__V1__Service ***out_at);

#endif
