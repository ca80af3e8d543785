/* The writer gives each of a few peers list after list; all rows of one list have the same backend
 * (its version), so a reader that sees two in one picture has seen a change half made. One peer has
 * so many rows that its changes take several holds; there only counts and order are asserted. */
#include "registry/threads_body.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "registry/help.h"

#define PEERS 5
#define READERS 3
#define ROUNDS 150
#define LARGE 24000u

struct shared {
    struct registry *reg;
    unsigned stop, wrong, pictures; /* atomic */
};

static void wrong(struct shared *sh, const char *what)
{
    fprintf(stderr, "# not as it must be: %s\n", what);
    __atomic_add_fetch(&sh->wrong, 1, __ATOMIC_RELAXED);
}

static bool one_version(const struct list *list)
{
    struct list_iter it;
    const struct row *first, *row;

    list_iter_init(&it, list);
    first = list_iter_next(&it);
    while ((row = list_iter_next(&it)) != NULL)
        if (strcmp(row->backend, first->backend) != 0)
            return false;
    return true;
}

static void look_at_picture(struct shared *sh, uint64_t *revision)
{
    struct snapshot *snap = NULL;
    size_t total;

    if (registry_snapshot(sh->reg, &snap) != 0) {
        wrong(sh, "no snapshot");
        return;
    }
    total = list_count(snap->local);
    for (size_t i = 0; i < snap->n_peers; i++) {
        const struct snapshot_peer *peer = &snap->peers[i];
        total += list_count(peer->list);
        if (strcmp(peer->peer_id, "large") == 0)
            continue;
        if (list_check(peer->list) != 0)
            wrong(sh, "a list");
        if (!one_version(peer->list))
            wrong(sh, "half a change");
    }
    if (total != snap->services_total)
        wrong(sh, "the maps' sizes differ");
    if (snap->revision < *revision)
        wrong(sh, "the revision went back");
    *revision = snap->revision;
    snapshot_unref(snap);
    __atomic_add_fetch(&sh->pictures, 1, __ATOMIC_RELAXED);
}

static void look_up(struct shared *sh, unsigned i)
{
    struct registry_route at[4];
    struct registry_routes routes = {.at = at, .cap = 4};
    char key[64];
    struct row *row;

    snprintf(key, sizeof(key), "svc-%06u", i % 200);
    registry_lookup(sh->reg, key, strlen(key), &routes);
    for (size_t r = 0; r < routes.n; r++)
        if (strcmp(at[r].row->name, key) != 0 || strcmp(at[r].row->key + 11, at[r].label) != 0)
            wrong(sh, "a route");
    registry_routes_fini(&routes);
    snprintf(key, sizeof(key), "svc-%06u@10.0.0.%u", i % 200, i % PEERS);
    row = registry_find(sh->reg, key);
    if (row && strcmp(row->key, key) != 0)
        wrong(sh, "a row");
    row_unref(row);
}

static void *read_on(void *arg)
{
    struct shared *sh = arg;
    struct registry_counters counters;
    struct registry_tombstone *stones = NULL;
    uint64_t revision = 0;

    for (unsigned i = 0; !__atomic_load_n(&sh->stop, __ATOMIC_RELAXED); i++) {
        look_at_picture(sh, &revision);
        for (unsigned k = 0; k < 50; k++)
            look_up(sh, i * 50 + k);
        registry_counters(sh->reg, &counters);
        if (i % 16 == 0 && registry_check(sh->reg) != 0)
            wrong(sh, "registry_check");
        if (registry_tombstones(sh->reg, 50, &stones) >= 0)
            free(stones);
    }
    return NULL;
}

static void put_many(struct shared *sh, const char *id, const char *ip, unsigned version,
                     unsigned first, unsigned n)
{
    struct list *list;
    const char *label;
    char backend[32];

    if (registry_peer_open(sh->reg, id, ip, version, &label, NULL) != 0)
        wrong(sh, "open");
    snprintf(backend, sizeof(backend), "h:%u", version);
    list = list_of_many(label, first, n, backend);
    if (registry_put_list(sh->reg, id, 1, version, list, version, NULL, NULL) != 0)
        wrong(sh, "put");
    list_unref(list);
}

static void write_on(struct shared *sh)
{
    struct registry_state state = {.connected = true};

    for (unsigned v = 1; v <= ROUNDS; v++) {
        char id[16], ip[32];
        unsigned p = v % PEERS;
        snprintf(id, sizeof(id), "p%u", p);
        snprintf(ip, sizeof(ip), "10.0.0.%u", p);
        put_many(sh, id, ip, v, v % 7 * 10, 100 + v % 50);
        state.stale = v % 3 == 0;
        state.last_seen_ms = v;
        registry_peer_state(sh->reg, id, &state, NULL);
        if (v % 11 == 0)
            registry_peer_gone(sh->reg, id, "left", v, NULL);
        if (v % 40 == 0)
            put_many(sh, "large", "10.0.9.9", v, v % 80 * 100, LARGE);
        if (v % 70 == 0)
            registry_peer_gone(sh->reg, "large", "left", v, NULL);
    }
}

int threads_body(void)
{
    struct shared sh = {.reg = registry_for("n1", NULL)};
    pthread_t readers[READERS];

    for (int i = 0; i < READERS; i++)
        if (pthread_create(&readers[i], NULL, read_on, &sh) != 0)
            abort();
    write_on(&sh);
    /* On a busy machine the writer may end before a reader began. */
    while (__atomic_load_n(&sh.pictures, __ATOMIC_RELAXED) < 3)
        sched_yield();
    __atomic_store_n(&sh.stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    if (registry_check(sh.reg) != 0)
        wrong(&sh, "registry_check at the end");
    fprintf(stderr, "# %u pictures\n", sh.pictures);
    registry_free(sh.reg);
    return (int)sh.wrong;
}
