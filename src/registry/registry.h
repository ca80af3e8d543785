/* registry - who offers what, as far as this node has been told: the two maps.
 *
 *   services       keyed name@source; from name to every owner, for routing
 *   peer_services  keyed by source label (an ip, or ip#peer_id); each peer whole
 *
 * Threads:   one writer, the main loop: every function under "Changes" is called by it alone. The
 *            functions under "Reading" may be called by any thread.
 * Locks:     services_lock, then peer_services_lock, never the other way. A change takes both, so
 *            no reader sees the maps disagree; nothing is sent or called back meanwhile, and one
 *            hold touches at most LIMIT_ROWS_PER_HOLD rows. A larger change is several holds, each
 *            with a revision of its own, after each of which the maps agree; a peer that goes is
 *            detached in one step. Nothing is allocated either, but in a hold of its own before
 *            the change, when a part of an index has to grow.
 * Identity:  a peer is its id. Its label is fixed when its record is made and lives as long as it.
 * Pure:      no clock, no I/O, no log. Times come in as arguments, what changed goes out.
 * Failure:   0, a negative errno (-ENOMEM: nothing has changed), or a REGISTRY_E_... outcome.
 */
#ifndef REGISTRY_REGISTRY_H
#define REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"
#include "registry/list.h"

struct registry;
struct snapshot; /* registry/snapshot.h */

enum registry_outcome {
    REGISTRY_E_STALE = 1, /* (incarnation, version) is not above the one known */
    REGISTRY_E_FULL,      /* no room for one more peer */
    REGISTRY_E_UNKNOWN,   /* no such peer or name */
};

struct registry_settings {
    const char *peer_id;         /* copied */
    uint64_t epoch;              /* boot id; never 0 */
    const struct limits *limits; /* copied */
};

int registry_new(const struct registry_settings *settings, struct registry **out_registry);
void registry_free(struct registry *reg); /* accepts NULL; nobody else may be using it */
/* The writer's thread. */
void registry_set_limits(struct registry *reg, const struct limits *limits);

/* ---- Changes: the writer only ---- */

/* What one call did to the maps. Zero but for revision when it repeated what was known. Wherever
 * one is asked for it may be NULL, and so may out_refusals. */
struct registry_change {
    uint64_t revision;                /* after it */
    uint32_t added, changed, removed; /* rows */
    bool any;                         /* something to print: rows, peers or their states */
};

/* Entries that were left out. */
struct registry_refused {
    const char *name;  /* borrowed from the row handed in */
    const char *limit; /* "services_per_peer" or "services_total" */
};
struct registry_refusals {
    struct registry_refused *at; /* free with registry_refusals_fini */
    size_t n;
};
void registry_refusals_fini(struct registry_refusals *refusals);

/* Makes the peer's record, not connected, if there is none; otherwise changes nothing. *out_label
 * is borrowed until the record goes. REGISTRY_E_FULL; -EINVAL: an id or ip that is empty or too
 * long. Counts as a change (a peer without services is shown too). now_ms is for last_seen_ms. */
int registry_peer_open(struct registry *reg, const char *peer_id, const char *ip, uint64_t now_ms,
                       const char **out_label, struct registry_change *out_change);

/* The peer's list becomes `list` (rows made with the peer's label, or -EINVAL; borrowed). An
 * (incarnation, version) not above the known pair is REGISTRY_E_STALE and changes nothing; a list
 * equal to the one known moves only the pair and last_sync (now_s: unix seconds). Over a limit the
 * rows that come last in order of names are left out and named in out_refusals; rows known before
 * stay before new ones come. Rows that go leave tombstones: "withdrawn". REGISTRY_E_UNKNOWN. */
int registry_put_list(struct registry *reg, const char *peer_id, uint64_t incarnation,
                      uint64_t version, struct list *list, uint64_t now_s,
                      struct registry_refusals *out_refusals, struct registry_change *out_change);

/* The list of the pair known becomes another part of what the peer offered: as registry_put_list,
 * but neither the pair nor last_sync moves, and tombstones say why, a constant. */
int registry_put_part(struct registry *reg, const char *peer_id, struct list *list, const char *why,
                      uint64_t now_s, struct registry_refusals *out_refusals,
                      struct registry_change *out_change);

struct registry_state {
    bool connected, stale, draining;
    uint64_t last_seen_ms; /* on clock_ms(), whatever becomes of the wall clock; 0: as it was */
    uint64_t link_id;      /* 0: no session to forward on */
    uint8_t session_id[16];
};
/* last_seen_ms alone is no change: it moves without a new revision. REGISTRY_E_UNKNOWN. */
int registry_peer_state(struct registry *reg, const char *peer_id,
                        const struct registry_state *state, struct registry_change *out_change);
/* The list was confirmed whole (digest equal): moves last_sync and nothing else. */
void registry_peer_confirmed(struct registry *reg, const char *peer_id, uint64_t now_s);

/* Record and rows go in one step, leaving tombstones with why, a constant ("left", "timed out",
 * "replaced"). REGISTRY_E_UNKNOWN is all that can go wrong. */
int registry_peer_gone(struct registry *reg, const char *peer_id, const char *why, uint64_t now_s,
                       struct registry_change *out_change);

/* The node's own list (rows made with label "local"). version is the node's own. */
int registry_put_local(struct registry *reg, uint64_t version, struct list *list, uint64_t now_s,
                       struct registry_refusals *out_refusals, struct registry_change *out_change);

/* ---- Reading: any thread ---- */

struct registry_route {
    struct row *row;              /* a reference; registry_routes_fini drops it */
    char label[LIMIT_LABEL_TEXT]; /* "local", ip or ip#peer_id */
    char peer_id[LIMIT_PEER_ID + 1];
    bool local, connected, stale, healthy, draining;
    uint64_t last_seen_ms, link_id;
    uint8_t session_id[16];
};
struct registry_routes {
    struct registry_route *at; /* caller's storage */
    size_t cap, n;             /* n <= cap were written */
    uint64_t revision;
};

/* Everyone who offers the canonical name, best first (base/rank.h). healthy is the row's, draining
 * the row's or its owner's. */
void registry_lookup(struct registry *reg, const char *name, size_t name_len,
                     struct registry_routes *out_routes);
void registry_routes_fini(struct registry_routes *routes);

/* The entry of the services map under key "name@label", with a reference, or NULL. */
struct row *registry_find(struct registry *reg, const char *key);

/* An unchanging picture of both maps; snapshot_unref ends it. O(peers). -ENOMEM. */
int registry_snapshot(struct registry *reg, struct snapshot **out_snapshot);

struct registry_peer_info {
    char label[LIMIT_LABEL_TEXT];
    uint64_t incarnation, version;
    uint64_t digest; /* of the rows kept here: those refused are not in it */
    size_t count;    /* likewise */
    struct registry_state state;
};
int registry_peer_get(struct registry *reg, const char *peer_id,
                      struct registry_peer_info *out_info);

uint64_t registry_epoch(const struct registry *reg);
uint64_t registry_revision(struct registry *reg); /* 1 before the first change; never 0 */

struct registry_tombstone {
    const char *key, *peer_id; /* in the one allocation of registry_tombstones */
    const char *why;           /* a constant */
    uint64_t when_s;
};
/* The newest first, at most max; free(*out_tombstones) frees all. Returns how many, or -ENOMEM. */
long registry_tombstones(struct registry *reg, size_t max,
                         struct registry_tombstone **out_tombstones);

/* Gauges are read off the maps when asked for, O(peers); counters are kept at every change. */
struct registry_counters {
    uint64_t services, services_local, peers, peers_connected, peers_stale; /* gauges */
    uint64_t tombstones, largest_list;                                      /* gauges */
    uint64_t changes, rows_added, rows_changed, rows_removed;               /* counters */
    uint64_t puts_repeated, puts_stale, rows_refused, peers_refused;        /* counters */
    uint64_t lookups, lookups_missed, snapshots;                            /* counters */
};
void registry_counters(struct registry *reg, struct registry_counters *out_counters);

/* Proves that the maps agree with each other (every row of one is in the other, counts, digests,
 * order of lists). 0, or -EUCLEAN. For tests and debug builds; touches everything. */
int registry_check(struct registry *reg);

#endif
