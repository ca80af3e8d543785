/* registry - the whole: making and ending it, the peers' records, what is known of them.
 *
 * How a list gets into the maps is in put.c, the services map and its readers in routes.c.
 */
#include "registry/registry.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/hash.h"
#include "registry/inside.h"

/* 512 shards: at the largest services_total that can be set, the growth of one of them stays below
 * LIMIT_ROWS_PER_HOLD; 4 do the same for peers. */
#define ROW_INDEX_BITS 9
#define PEER_INDEX_BITS 2

void registry_write(struct registry *reg)
{
    rwlock_write(&reg->services_lock);
    rwlock_write(&reg->peer_services_lock);
}

void registry_write_done(struct registry *reg)
{
    rwlock_write_done(&reg->peer_services_lock);
    rwlock_write_done(&reg->services_lock);
}

void registry_read(struct registry *reg)
{
    rwlock_read(&reg->services_lock);
    rwlock_read(&reg->peer_services_lock);
}

void registry_read_done(struct registry *reg)
{
    rwlock_read_done(&reg->peer_services_lock);
    rwlock_read_done(&reg->services_lock);
}

/* ---- Records ---- */

void peer_unref(struct peer *peer)
{
    if (peer && --peer->refs == 0) {
        list_unref(peer->list);
        free(peer);
    }
}

static void peer_unrefp(struct peer **peer) { peer_unref(*peer); }

/* What is no address sorts behind those that are, by its text. */
static void address_key(const char *ip, uint8_t out_key[ADDRESS_KEY])
{
    char plain[LIMIT_IP_TEXT];
    size_t len = strcspn(ip, "%"); /* the zone of a link-local address */

    memset(out_key, 0, ADDRESS_KEY);
    memcpy(plain, ip, len);
    plain[len] = '\0';
    if (inet_pton(AF_INET, plain, out_key + 1) == 1)
        out_key[0] = 4;
    else if (inet_pton(AF_INET6, plain, out_key + 1) == 1)
        out_key[0] = 6;
    else
        out_key[0] = 255;
}

static int peer_cmp(const struct peer *a, const struct peer *b)
{
    int r = memcmp(a->address, b->address, ADDRESS_KEY);

    if (r == 0)
        r = strcmp(a->ip, b->ip);
    return r != 0 ? r : strcmp(a->id, b->id);
}

/* The lengths were checked. id becomes part of the label if the ip alone is taken. */
static struct peer *peer_new(const char *id, const char *ip, const char *label, bool with_id)
{
    struct peer *peer = calloc(1, sizeof(*peer));

    if (!peer)
        return NULL;
    peer->refs = 1;
    peer->id_len = strlen(id);
    memcpy(peer->id, id, peer->id_len);
    memcpy(peer->ip, ip, strlen(ip));
    peer->label_len = strlen(label);
    memcpy(peer->label, label, peer->label_len);
    if (with_id) {
        peer->label[peer->label_len++] = '#';
        memcpy(peer->label + peer->label_len, id, peer->id_len);
        peer->label_len += peer->id_len;
    }
    address_key(ip, peer->address);
    peer->tie = hash_entry(id, peer->id_len, "", 0, 0);
    peer->list = list_empty();
    index_node_init(&peer->by_id, peer->id, peer->id_len);
    index_node_init(&peer->by_label, peer->label, peer->label_len);
    return peer;
}

struct peer *registry_find_peer(const struct registry *reg, const char *peer_id)
{
    size_t len = strlen(peer_id);
    struct index_node *node =
        index_find(&reg->peer_services.by_id, peer_id, len, hash_keyed(peer_id, len));

    return node ? CONTAINER_OF(node, struct peer, by_id) : NULL;
}

static bool label_taken(const struct registry *reg, const char *label)
{
    size_t len = strlen(label);

    return index_find(&reg->peer_services.by_label, label, len, hash_keyed(label, len)) != NULL;
}

/* ---- The whole ---- */

static void registry_freep(struct registry **reg) { registry_free(*reg); }

int registry_new(const struct registry_settings *settings, struct registry **out_registry)
{
    CLEANUP(registry_freep) struct registry *reg = NULL;
    int r;

    if (strlen(settings->peer_id) > LIMIT_PEER_ID)
        return -EINVAL;
    reg = calloc(1, sizeof(*reg));
    if (!reg)
        return -ENOMEM;
    rwlock_init(&reg->services_lock);
    rwlock_init(&reg->peer_services_lock);
    reg->epoch = settings->epoch;
    reg->both.revision = 1; /* 0 means none to whoever is told */
    reg->limits = *settings->limits;

    reg->peer_services.local = peer_new(settings->peer_id, "", "local", false);
    if (!reg->peer_services.local)
        return -ENOMEM;
    reg->peer_services.local->local = true;
    reg->peer_services.local->state.connected = true;
    r = index_init(&reg->services.by_key, ROW_INDEX_BITS);
    if (r == 0)
        r = index_init(&reg->services.by_name, ROW_INDEX_BITS);
    if (r == 0)
        r = index_init(&reg->peer_services.by_id, PEER_INDEX_BITS);
    if (r == 0)
        r = index_init(&reg->peer_services.by_label, PEER_INDEX_BITS);
    if (r == 0)
        r = tombstones_resize(reg, reg->limits.tombstones);
    if (r == 0)
        *out_registry = TAKE(&reg);
    return r;
}

void registry_free(struct registry *reg)
{
    if (!reg)
        return;
    index_fini(&reg->services.by_key);
    index_fini(&reg->services.by_name);
    index_fini(&reg->peer_services.by_id);
    index_fini(&reg->peer_services.by_label);
    tombstones_fini(reg);
    for (size_t i = 0; i < reg->peer_services.n; i++)
        peer_unref(reg->peer_services.sorted[i]);
    free(reg->peer_services.sorted);
    peer_unref(reg->peer_services.local);
    rwlock_fini(&reg->peer_services_lock);
    rwlock_fini(&reg->services_lock);
    free(reg);
}

void registry_set_limits(struct registry *reg, const struct limits *limits)
{
    limits_put(&reg->limits, limits);
    /* Without memory for a longer ring the present one goes on. */
    tombstones_resize(reg, limits->tombstones);
}

/* ---- Changes of records ---- */

static void tell_change(const struct registry *reg, bool any, struct registry_change *out_change)
{
    if (out_change)
        *out_change = (struct registry_change){.revision = reg->both.revision, .any = any};
}

static int reserve_peer(struct registry *reg, struct index *index, const struct index_node *node)
{
    size_t shard = index_shard_of(index, node);
    int r;

    if (!index_must_grow(index, shard, 1))
        return 0;
    rwlock_write(&reg->peer_services_lock);
    r = index_reserve(index, shard, 1);
    rwlock_write_done(&reg->peer_services_lock);
    return r;
}

/* Where peer belongs among the sorted; peer itself if it is there. */
static size_t sorted_place(const struct registry *reg, const struct peer *peer)
{
    size_t lo = 0, hi = reg->peer_services.n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (peer_cmp(reg->peer_services.sorted[mid], peer) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Takes peer. Room was made. */
static void attach(struct registry *reg, struct peer *peer)
    REQUIRES(reg->services_lock, reg->peer_services_lock)
{
    struct peer **sorted = reg->peer_services.sorted;
    size_t at = sorted_place(reg, peer);

    memmove(sorted + at + 1, sorted + at, (reg->peer_services.n - at) * sizeof(*sorted));
    sorted[at] = peer;
    reg->peer_services.n++;
    index_add(&reg->peer_services.by_id, &peer->by_id);
    index_add(&reg->peer_services.by_label, &peer->by_label);
    reg->both.revision++;
}

static void detach(struct registry *reg, struct peer *peer)
    REQUIRES(reg->services_lock, reg->peer_services_lock)
{
    struct peer **sorted = reg->peer_services.sorted;
    size_t at = sorted_place(reg, peer);

    reg->peer_services.n--;
    memmove(sorted + at, sorted + at + 1, (reg->peer_services.n - at) * sizeof(*sorted));
    index_remove(&reg->peer_services.by_id, &peer->by_id);
    index_remove(&reg->peer_services.by_label, &peer->by_label);
    peer->detached = true;
    reg->services.leaving = list_count(peer->list);
    reg->both.services -= list_count(peer->list);
    reg->both.revision++;
}

static int reserve_sorted(struct registry *reg)
{
    size_t cap = reg->peer_services.cap * 2 + 8;
    struct peer **grown, **old = reg->peer_services.sorted;

    if (reg->peer_services.n < reg->peer_services.cap)
        return 0;
    grown = malloc(cap * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    if (old)
        memcpy(grown, old, reg->peer_services.n * sizeof(*grown));
    rwlock_write(&reg->peer_services_lock);
    reg->peer_services.sorted = grown;
    reg->peer_services.cap = cap;
    rwlock_write_done(&reg->peer_services_lock);
    free(old);
    return 0;
}

int registry_peer_open(struct registry *reg, const char *peer_id, const char *ip, uint64_t now_ms,
                       const char **out_label, struct registry_change *out_change)
{
    CLEANUP(peer_unrefp) struct peer *peer = NULL;
    struct peer *known = registry_find_peer(reg, peer_id);
    int r;

    if (known) {
        *out_label = known->label;
        tell_change(reg, false, out_change);
        return 0;
    }
    if (!*peer_id || strlen(peer_id) > LIMIT_PEER_ID || !*ip || strlen(ip) >= LIMIT_IP_TEXT)
        return -EINVAL;
    if (reg->peer_services.n >= reg->limits.peers) {
        count_up(&reg->counters.peers_refused, 1);
        return REGISTRY_E_FULL;
    }
    peer = peer_new(peer_id, ip, ip, label_taken(reg, ip));
    if (!peer)
        return -ENOMEM;
    peer->state.last_seen_ms = now_ms;
    r = reserve_sorted(reg);
    if (r == 0)
        r = reserve_peer(reg, &reg->peer_services.by_id, &peer->by_id);
    if (r == 0)
        r = reserve_peer(reg, &reg->peer_services.by_label, &peer->by_label);
    if (r < 0)
        return r;

    *out_label = peer->label;
    registry_write(reg);
    attach(reg, TAKE(&peer));
    registry_write_done(reg);
    count_up(&reg->counters.changes, 1);
    tell_change(reg, true, out_change);
    return 0;
}

int registry_peer_state(struct registry *reg, const char *peer_id,
                        const struct registry_state *state, struct registry_change *out_change)
{
    struct peer *peer = registry_find_peer(reg, peer_id);
    struct registry_state *was;
    bool any;

    if (!peer)
        return REGISTRY_E_UNKNOWN;
    was = &peer->state;
    any = was->connected != state->connected || was->stale != state->stale ||
          was->draining != state->draining || was->link_id != state->link_id ||
          memcmp(was->session_id, state->session_id, sizeof(was->session_id)) != 0;
    registry_write(reg);
    if (any) {
        uint64_t last_seen_ms = was->last_seen_ms;
        *was = *state;
        was->last_seen_ms = last_seen_ms;
        reg->both.revision++;
    }
    if (state->last_seen_ms > 0)
        was->last_seen_ms = state->last_seen_ms;
    registry_write_done(reg);
    if (any)
        count_up(&reg->counters.changes, 1);
    tell_change(reg, any, out_change);
    return 0;
}

void registry_peer_confirmed(struct registry *reg, const char *peer_id, uint64_t now_s)
{
    struct peer *peer = registry_find_peer(reg, peer_id);

    if (!peer)
        return;
    registry_write(reg);
    peer->last_sync_s = now_s;
    registry_write_done(reg);
}

/* The rows of a detached peer leave the index. Readers pass over them already, so a batch may be as
 * small as is good for those who wait. */
static void clean_up(struct registry *reg, struct peer *peer, const char *why, uint64_t now_s)
{
    size_t left = list_count(peer->list), batch;
    struct list_iter it;

    tombstones_make_room(reg, left);
    for (list_iter_init(&it, peer->list); left > 0;) {
        rwlock_write(&reg->services_lock);
        for (batch = left < 1000 ? left : 1000; batch > 0; batch--, left--) {
            struct row *row = list_iter_next(&it);
            registry_unindex_row(reg, entry_of(row));
            reg->services.leaving--;
            if (left <= reg->services.ring_cap)
                tombstones_add(reg, row, peer, why, now_s);
        }
        rwlock_write_done(&reg->services_lock);
    }
}

int registry_peer_gone(struct registry *reg, const char *peer_id, const char *why, uint64_t now_s,
                       struct registry_change *out_change)
{
    struct peer *peer = registry_find_peer(reg, peer_id);
    struct list *rows;

    if (!peer)
        return REGISTRY_E_UNKNOWN;
    registry_write(reg);
    detach(reg, peer);
    registry_write_done(reg);
    clean_up(reg, peer, why, now_s);

    count_up(&reg->counters.changes, 1);
    count_up(&reg->counters.rows_removed, list_count(peer->list));
    tell_change(reg, true, out_change);
    if (out_change)
        out_change->removed = (uint32_t)list_count(peer->list);
    rows = peer->list; /* tombstones may keep the record, but not its rows */
    peer->list = list_empty();
    list_unref(rows);
    peer_unref(peer);
    return 0;
}

/* ---- Reading ---- */

int registry_peer_get(struct registry *reg, const char *peer_id,
                      struct registry_peer_info *out_info)
{
    const struct peer *peer;

    rwlock_read(&reg->peer_services_lock);
    peer = registry_find_peer(reg, peer_id);
    if (peer) {
        memcpy(out_info->label, peer->label, sizeof(out_info->label));
        out_info->incarnation = peer->incarnation;
        out_info->version = peer->version;
        out_info->digest = list_digest(peer->list);
        out_info->count = list_count(peer->list);
        out_info->state = peer->state;
    }
    rwlock_read_done(&reg->peer_services_lock);
    return peer ? 0 : REGISTRY_E_UNKNOWN;
}

uint64_t registry_epoch(const struct registry *reg) { return reg->epoch; }

uint64_t registry_revision(struct registry *reg)
{
    uint64_t revision;

    rwlock_read(&reg->peer_services_lock);
    revision = reg->both.revision;
    rwlock_read_done(&reg->peer_services_lock);
    return revision;
}

static uint64_t counter_get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void registry_counters(struct registry *reg, struct registry_counters *out_counters)
{
    struct registry_counters c = {
        .changes = counter_get(&reg->counters.changes),
        .rows_added = counter_get(&reg->counters.rows_added),
        .rows_changed = counter_get(&reg->counters.rows_changed),
        .rows_removed = counter_get(&reg->counters.rows_removed),
        .puts_repeated = counter_get(&reg->counters.puts_repeated),
        .puts_stale = counter_get(&reg->counters.puts_stale),
        .rows_refused = counter_get(&reg->counters.rows_refused),
        .peers_refused = counter_get(&reg->counters.peers_refused),
        .lookups = counter_get(&reg->reads.lookups),
        .lookups_missed = counter_get(&reg->reads.missed),
        .snapshots = counter_get(&reg->reads.snapshots),
    };

    registry_read(reg);
    c.services = reg->both.services;
    c.services_local = list_count(reg->peer_services.local->list);
    c.tombstones = reg->services.ring_n;
    c.peers = reg->peer_services.n;
    c.largest_list = c.services_local;
    for (size_t i = 0; i < reg->peer_services.n; i++) {
        const struct peer *peer = reg->peer_services.sorted[i];
        c.peers_connected += peer->state.connected;
        c.peers_stale += peer->state.stale;
        if (list_count(peer->list) > c.largest_list)
            c.largest_list = list_count(peer->list);
    }
    registry_read_done(reg);
    *out_counters = c;
}
