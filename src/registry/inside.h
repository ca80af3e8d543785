/* inside - the registry's own structures, for the files of this room only.
 *
 * services.* is written with services_lock held, peer_services.* and what a peer's record holds
 * with both held: so either lock, held for reading, is enough to read a record. The writer, being
 * alone, reads without them. A record out of the maps may still be named by rows that are about to
 * leave the index (detached: readers pass over them) and by tombstones.
 */
#ifndef REGISTRY_INSIDE_H
#define REGISTRY_INSIDE_H

#include "base/lock.h"
#include "registry/registry.h"
#include "registry/row.h"

#define ADDRESS_KEY 17 /* family, then the address in network order */

struct peer {
    struct index_node by_id, by_label;
    unsigned refs; /* the registry's and the tombstones'; the writer alone touches them */
    bool local, detached;
    size_t id_len, label_len;
    char id[LIMIT_PEER_ID + 1], ip[LIMIT_IP_TEXT], label[LIMIT_LABEL_TEXT];
    uint8_t address[ADDRESS_KEY]; /* sorts v4 before v6, numerically */
    uint64_t tie;                 /* hash of the id */
    struct list *list;
    struct registry_state state;
    uint64_t incarnation, version, last_sync_s;
};

struct tombstone {
    struct row *row; /* a reference, and one to peer */
    struct peer *peer;
    const char *why;
    uint64_t when_s;
};

struct registry {
    uint64_t epoch;              /* set before the first thread starts, then read only */
    struct limits limits;        /* the writer's */
    struct rwlock services_lock; /* taken before peer_services_lock, never after */
    struct rwlock peer_services_lock;
    struct {                          /* only with services_lock held */
        struct index by_key;          /* every row */
        struct index by_name;         /* the first row of each name; the others behind it */
        struct tombstone *tombstones; /* a ring */
        size_t ring_cap, ring_first, ring_n;
        size_t leaving; /* rows of a detached peer that are still in the index */
    } services;
    struct { /* only with peer_services_lock held */
        struct index by_id, by_label;
        struct peer **sorted; /* by address, then id */
        size_t n, cap;
        struct peer *local;
    } peer_services;
    struct { /* written with both held */
        uint64_t revision;
        size_t services; /* rows of all lists */
    } both;
    struct registry_counters counters; /* atomic; some are made up when asked for */
    struct {                           /* atomic; on a cache line that only readers write */
        char apart[64];
        uint64_t lookups, missed, snapshots;
    } reads;
};

static inline void count_up(uint64_t *counter, uint64_t by)
{
    __atomic_add_fetch(counter, by, __ATOMIC_RELAXED);
}

/* registry.c */
void registry_write(struct registry *reg) ACQUIRE(reg->services_lock, reg->peer_services_lock);
void registry_write_done(struct registry *reg) RELEASE(reg->services_lock, reg->peer_services_lock);
void registry_read(struct registry *reg)
    ACQUIRE_SHARED(reg->services_lock, reg->peer_services_lock);
void registry_read_done(struct registry *reg)
    RELEASE_SHARED(reg->services_lock, reg->peer_services_lock);
struct peer *registry_find_peer(const struct registry *reg, const char *peer_id);
void peer_unref(struct peer *peer);

/* routes.c. Room in both indexes was made by registry_reserve_rows. */
int registry_reserve_rows(struct registry *reg, const unsigned *by_key, const unsigned *by_name);
void registry_warm_row(const struct registry *reg, const struct entry *entry);
void registry_warm_row_next(const struct registry *reg, const struct entry *entry);
void registry_index_row(struct registry *reg, struct entry *entry, struct peer *owner)
    REQUIRES(reg->services_lock);
void registry_unindex_row(struct registry *reg, struct entry *entry) REQUIRES(reg->services_lock);

/* tombstones.c */
int tombstones_resize(struct registry *reg, size_t cap);
void tombstones_make_room(struct registry *reg, size_t n); /* with no lock held */
void tombstones_add(struct registry *reg, struct row *row, struct peer *peer, const char *why,
                    uint64_t when_s) REQUIRES(reg->services_lock);
void tombstones_fini(struct registry *reg);

#endif
