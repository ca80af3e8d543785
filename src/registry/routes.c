/* routes - the services map: its index, and the answers read from it.
 *
 * by_key has every row. by_name has the first row of each name, in whose chain the others hang, in
 * no order: an answer is ranked when it is asked for, since peers' states change without their
 * rows.
 */
#include "registry/registry.h"
#include <errno.h>
#include <string.h>
#include "base/hash.h"
#include "base/rank.h"
#include "registry/inside.h"

/* ---- The index ---- */

static int reserve(struct registry *reg, struct index *index, const unsigned *by_shard)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < index_shards(index); i++) {
        if (by_shard[i] == 0 || !index_must_grow(index, i, by_shard[i]))
            continue;
        rwlock_write(&reg->services_lock);
        r = index_reserve(index, i, by_shard[i]);
        rwlock_write_done(&reg->services_lock);
    }
    return r;
}

int registry_reserve_rows(struct registry *reg, const unsigned *by_key, const unsigned *by_name)
{
    int r = reserve(reg, &reg->services.by_key, by_key);

    return r < 0 ? r : reserve(reg, &reg->services.by_name, by_name);
}

static struct entry *first_of_name(const struct registry *reg, const char *name, size_t len,
                                   unsigned hash)
{
    struct index_node *node = index_find(&reg->services.by_name, name, len, hash);

    return node ? CONTAINER_OF(node, struct entry, by_name) : NULL;
}

void registry_warm_row(const struct registry *reg, const struct entry *entry)
{
    index_warm(&reg->services.by_key, &entry->by_key);
    index_warm(&reg->services.by_name, &entry->by_name);
}

void registry_warm_row_next(const struct registry *reg, const struct entry *entry)
{
    index_warm_next(&reg->services.by_key, &entry->by_key);
    index_warm_next(&reg->services.by_name, &entry->by_name);
}

void registry_index_row(struct registry *reg, struct entry *entry, struct peer *owner)
{
    struct entry *first =
        first_of_name(reg, entry->row.name, entry->row.name_len, entry->by_name.hh.hashv);

    entry->owner = owner;
    entry->prev = first;
    entry->next = NULL;
    index_add(&reg->services.by_key, &entry->by_key);
    if (!first) {
        index_add(&reg->services.by_name, &entry->by_name);
        return;
    }
    entry->next = first->next;
    if (entry->next)
        entry->next->prev = entry;
    first->next = entry;
}

void registry_unindex_row(struct registry *reg, struct entry *entry)
{
    index_remove(&reg->services.by_key, &entry->by_key);
    if (entry->next)
        entry->next->prev = entry->prev;
    if (entry->prev) {
        entry->prev->next = entry->next;
    } else {
        index_remove(&reg->services.by_name, &entry->by_name);
        if (entry->next)
            index_add(&reg->services.by_name, &entry->next->by_name);
    }
    entry->prev = entry->next = NULL;
    entry->owner = NULL;
}

struct row *registry_find(struct registry *reg, const char *key)
{
    size_t len = strlen(key);
    unsigned hash = hash_keyed(key, len);
    struct index_node *node;
    struct row *row = NULL;

    rwlock_read(&reg->services_lock);
    node = index_find(&reg->services.by_key, key, len, hash);
    if (node) {
        struct entry *entry = CONTAINER_OF(node, struct entry, by_key);
        if (!entry->owner->detached)
            row = row_ref(&entry->row);
    }
    rwlock_read_done(&reg->services_lock);
    return row;
}

/* ---- Ranking ---- */

/* While routes are chosen, they hold no more than this, in fields that are filled in at the end. */
#define ROUTE_RANK link_id
#define ROUTE_TIE last_seen_ms

static bool worse(const struct registry_route *a, const struct registry_route *b)
{
    if (a->ROUTE_RANK != b->ROUTE_RANK)
        return a->ROUTE_RANK > b->ROUTE_RANK;
    return a->ROUTE_TIE > b->ROUTE_TIE;
}

static void swap(struct registry_route *a, struct registry_route *b)
{
    struct row *row = a->row;
    uint64_t rank = a->ROUTE_RANK, tie = a->ROUTE_TIE;

    a->row = b->row;
    a->ROUTE_RANK = b->ROUTE_RANK;
    a->ROUTE_TIE = b->ROUTE_TIE;
    b->row = row;
    b->ROUTE_RANK = rank;
    b->ROUTE_TIE = tie;
}

static void sift_up(struct registry_route *at, size_t i)
{
    for (; i > 0 && worse(&at[i], &at[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&at[i], &at[(i - 1) / 2]);
}

static void sift_down(struct registry_route *at, size_t n)
{
    for (size_t i = 0, child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && worse(&at[child + 1], &at[child]))
            child++;
        if (!worse(&at[child], &at[i]))
            return;
        swap(&at[child], &at[i]);
    }
}

/* Keeps the best: a heap with the worst of them on top, as a name may have thousands of owners. */
static void consider(struct registry_routes *routes, struct registry_route *candidate)
{
    if (routes->n < routes->cap) {
        struct registry_route *last = &routes->at[routes->n++];
        last->row = candidate->row;
        last->ROUTE_RANK = candidate->ROUTE_RANK;
        last->ROUTE_TIE = candidate->ROUTE_TIE;
        sift_up(routes->at, routes->n - 1);
    } else if (routes->cap > 0 && worse(&routes->at[0], candidate)) {
        swap(&routes->at[0], candidate);
        sift_down(routes->at, routes->n);
    }
}

static void fill(struct registry_route *route)
{
    const struct entry *entry = entry_of(route->row);
    const struct peer *peer = entry->owner;

    row_ref(route->row);
    memcpy(route->label, peer->label, peer->label_len + 1);
    memcpy(route->peer_id, peer->id, peer->id_len + 1);
    route->local = peer->local;
    route->connected = peer->state.connected;
    route->stale = peer->state.stale;
    route->healthy = !(entry->flags & ROW_UNHEALTHY);
    route->draining = peer->state.draining || entry->flags & ROW_DRAINING;
    route->last_seen_ms = peer->state.last_seen_ms;
    route->link_id = peer->state.link_id;
    memcpy(route->session_id, peer->state.session_id, sizeof(route->session_id));
}

static unsigned rank_entry(const struct entry *entry)
{
    const struct peer *peer = entry->owner;
    unsigned flags = entry->flags;

    return rank_of(peer->local, peer->state.connected, peer->state.stale, !(flags & ROW_UNHEALTHY),
                   peer->state.draining || flags & ROW_DRAINING);
}

/* services_lock is enough: the records are written with both locks held. */
void registry_lookup(struct registry *reg, const char *name, size_t name_len,
                     struct registry_routes *out_routes)
{
    unsigned hash = hash_keyed(name, name_len);
    struct entry *entry;
    uint64_t name_hash = 0;
    bool found = false;

    out_routes->n = 0;
    rwlock_read(&reg->services_lock);
    out_routes->revision = reg->both.revision;
    entry = first_of_name(reg, name, name_len, hash);
    if (entry && entry->next)
        name_hash = hash_entry(name, name_len, "", 0, 0);
    for (; entry; entry = entry->next) {
        struct registry_route candidate;
        if (entry->owner->detached)
            continue;
        found = true;
        candidate.row = &entry->row;
        candidate.ROUTE_RANK = rank_entry(entry);
        candidate.ROUTE_TIE = rank_tie(name_hash, entry->owner->tie);
        consider(out_routes, &candidate);
    }
    for (size_t n = out_routes->n; n > 1; n--) {
        swap(&out_routes->at[0], &out_routes->at[n - 1]);
        sift_down(out_routes->at, n - 1);
    }
    for (size_t i = 0; i < out_routes->n; i++)
        fill(&out_routes->at[i]);
    rwlock_read_done(&reg->services_lock);

    count_up(&reg->reads.lookups, 1);
    if (!found)
        count_up(&reg->reads.missed, 1);
}

void registry_routes_fini(struct registry_routes *routes)
{
    for (size_t i = 0; i < routes->n; i++)
        row_unref(routes->at[i].row);
    routes->n = 0;
}
