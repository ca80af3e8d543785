/* Random operations against a naive model: both maps, lookups and pictures agree after each. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "registry/help.h"

#define PEERS 8
#define NAMES 30
#define OPERATIONS 3000
#define BACKENDS 4
#define ALL_FLAGS 16

static const char *const ids[PEERS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
static const char *const ips[] = {"10.0.0.9", "10.0.0.10", "9.0.0.1", "fd00::1"};

struct model_owner {
    bool here;
    const char *ip;
    char label[64];
    int offered[NAMES], kept[NAMES]; /* the backend's number, and BACKENDS x flags; 0: not there */
    uint64_t incarnation, version;
    struct registry_state state;
    struct list *list; /* what was offered last */
};

static struct {
    struct registry *reg;
    struct limits limits;
    uint64_t seed;
    struct model_owner owners[PEERS + 1]; /* the last is local */
    uint64_t revision;
} m;

static struct model_owner *const local = &m.owners[PEERS];

static unsigned pick(unsigned n) { return (unsigned)(test_random(&m.seed) % n); }

static size_t count(const int *rows)
{
    size_t n = 0;

    for (int i = 0; i < NAMES; i++)
        n += rows[i] > 0;
    return n;
}

static size_t total(void)
{
    size_t n = 0;

    for (int p = 0; p <= PEERS; p++)
        n += count(m.owners[p].kept);
    return n;
}

static int backend_of(int number) { return number % BACKENDS; }

static unsigned flags_of(int number) { return (unsigned)(number / BACKENDS); }

/* ---- What must be there ---- */

static void expect_rows(const struct list *list, const struct model_owner *o)
{
    struct list_iter it;
    const struct row *row;
    uint64_t digest = 0;
    char name[8], backend[8], key[100];

    cr_assert_eq(list_check(list), 0);
    list_iter_init(&it, list);
    for (int i = 0; i < NAMES; i++) {
        struct row *found;
        sprintf(name, "s%02d", i);
        sprintf(backend, "h:%d", backend_of(o->kept[i]));
        snprintf(key, sizeof(key), "%s@%s", name, o->label);
        found = registry_find(m.reg, key);
        if (o->kept[i] == 0) {
            cr_assert_null(found, "%s is still there", key);
            continue;
        }
        row = list_iter_next(&it);
        cr_assert_eq(row, found, "%s differs between the maps", key);
        cr_assert_str_eq(row->name, name);
        cr_assert_str_eq(row->backend, backend);
        cr_assert_eq(row->flags, flags_of(o->kept[i]));
        digest += hash_entry(name, strlen(name), backend, strlen(backend), row->flags & ROW_TOLD);
        row_unref(found);
    }
    cr_assert_null(list_iter_next(&it));
    cr_assert_eq(list_digest(list), digest);
}

static int ip_cmp(const char *a, const char *b)
{
    unsigned char x[16], y[16];
    int v6 = strchr(a, ':') != NULL;

    if (v6 != (strchr(b, ':') != NULL))
        return v6 ? 1 : -1;
    inet_pton(v6 ? AF_INET6 : AF_INET, a, x);
    inet_pton(v6 ? AF_INET6 : AF_INET, b, y);
    return memcmp(x, y, v6 ? 16 : 4);
}

static struct model_owner *owner_of(const char *peer_id)
{
    for (int p = 0; p < PEERS; p++)
        if (strcmp(ids[p], peer_id) == 0)
            return &m.owners[p];
    return NULL;
}

static void expect_snapshot(void)
{
    struct snapshot *snap = NULL;
    size_t here = 0;

    cr_assert_eq(registry_snapshot(m.reg, &snap), 0);
    for (int p = 0; p < PEERS; p++)
        here += m.owners[p].here;
    cr_assert_eq(snap->n_peers, here);
    cr_assert_eq(snap->services_total, total());
    cr_assert_eq(snap->revision, m.revision);
    expect_rows(snap->local, local);
    for (size_t i = 0; i < snap->n_peers; i++) {
        const struct snapshot_peer *peer = &snap->peers[i], *last = i > 0 ? peer - 1 : NULL;
        const struct model_owner *o = owner_of(peer->peer_id);
        cr_assert(o->here);
        cr_assert_str_eq(peer->label, o->label);
        cr_assert_str_eq(peer->ip, o->ip);
        cr_assert_eq(peer->incarnation, o->incarnation);
        cr_assert_eq(peer->version, o->version);
        cr_assert_eq(peer->state.connected, o->state.connected);
        cr_assert_eq(peer->state.stale, o->state.stale);
        cr_assert_eq(peer->state.draining, o->state.draining);
        expect_rows(peer->list, o);
        if (last) {
            int cmp = ip_cmp(last->ip, peer->ip);
            cr_assert(cmp < 0 || (cmp == 0 && strcmp(last->peer_id, peer->peer_id) < 0));
        }
    }
    snapshot_unref(snap);
}

static int rank(const struct model_owner *o, int name)
{
    unsigned flags = flags_of(o->kept[name]);
    bool draining = o->state.draining || flags & ROW_DRAINING;

    if (o->state.stale)
        return 9;
    if (o != local && !o->state.connected)
        return 8;
    return (flags & ROW_UNHEALTHY ? 4 : 0) + (draining ? 2 : 0) + (o == local ? 0 : 1);
}

static void expect_lookup(int name)
{
    struct registry_route at[PEERS + 1];
    struct registry_routes routes = {.at = at, .cap = PEERS + 1};
    size_t owners = 0;
    int last = 0;
    char text[8];

    registry_lookup(m.reg, text, (size_t)sprintf(text, "s%02d", name), &routes);
    for (int p = 0; p <= PEERS; p++)
        owners += m.owners[p].kept[name] > 0;
    cr_assert_eq(routes.n, owners);
    for (size_t i = 0; i < routes.n; i++) {
        const struct model_owner *o = at[i].local ? local : owner_of(at[i].peer_id);
        cr_assert_gt(o->kept[name], 0);
        cr_assert_eq(atoi(at[i].row->backend + 2), backend_of(o->kept[name]));
        cr_assert_str_eq(at[i].label, o->label);
        cr_assert_eq(at[i].healthy, !(flags_of(o->kept[name]) & ROW_UNHEALTHY));
        cr_assert_eq(at[i].draining, o->state.draining || flags_of(o->kept[name]) & ROW_DRAINING);
        cr_assert_geq(rank(o, name), last);
        last = rank(o, name);
    }
    registry_routes_fini(&routes);
}

static void expect_model(void)
{
    cr_assert_eq(registry_check(m.reg), 0);
    expect_snapshot();
    for (int i = 0; i < NAMES; i++)
        expect_lookup(i);
}

static void expect_change(const struct registry_change *change, bool any)
{
    cr_assert_eq(change->any, any);
    m.revision += any;
    cr_assert_eq(change->revision, m.revision);
    cr_assert_eq(registry_revision(m.reg), m.revision);
}

/* ---- Operations ---- */

static void forget(struct model_owner *o)
{
    list_unref(o->list);
    *o = (struct model_owner){.here = false};
}

static void open_peer(int p)
{
    struct model_owner *o = &m.owners[p];
    const char *ip = ips[pick(4)], *label;
    struct registry_change change;
    size_t here = 0;
    bool taken = false;
    int r = registry_peer_open(m.reg, ids[p], ip, 5, &label, &change);

    for (int i = 0; i < PEERS; i++) {
        here += m.owners[i].here;
        taken |= m.owners[i].here && strcmp(m.owners[i].label, ip) == 0;
    }
    if (!o->here && here >= m.limits.peers) {
        cr_assert_eq(r, REGISTRY_E_FULL);
        return;
    }
    cr_assert_eq(r, 0);
    expect_change(&change, !o->here);
    if (!o->here) {
        *o = (struct model_owner){.here = true, .ip = ip, .list = list_empty()};
        snprintf(o->label, sizeof(o->label), taken ? "%s#%s" : "%s", ip, ids[p]);
    }
    cr_assert_str_eq(label, o->label);
}

/* What of offered is kept, beside what others have. Returns how many are not. */
static size_t limited(const struct model_owner *o, int *out_kept)
{
    size_t others = total() - count(o->kept), room = m.limits.services_per_peer, known = 0, n = 0;

    if (others + room > m.limits.services_total)
        room = m.limits.services_total > others ? m.limits.services_total - others : 0;
    for (int i = 0; i < NAMES; i++)
        known += o->offered[i] && o->kept[i];
    memset(out_kept, 0, NAMES * sizeof(*out_kept));
    room = room > known ? room - known : 0; /* known ones stay, however low the limit is now */
    for (int i = 0; i < NAMES; i++) {
        if (o->offered[i] == 0)
            continue;
        if (!o->kept[i] && room == 0) {
            n++;
            continue;
        }
        room -= !o->kept[i];
        out_kept[i] = o->offered[i];
    }
    return n;
}

/* A new list: changed here and there from the last, or (whole) made from nothing. */
static struct list *offer(struct model_owner *o, bool whole)
{
    struct row *puts[NAMES];
    const char *gone[NAMES];
    static char names[NAMES][8];
    size_t n_puts = 0, n_gone = 0;
    struct list *none = list_empty(), *list = NULL;
    unsigned much = pick(4);

    for (int i = 0; i < NAMES; i++) {
        char backend[8];
        bool touch = pick(10) < much;
        int len = sprintf(names[i], "s%02d", i);
        if (touch)
            o->offered[i] =
                pick(2) ? (int)(pick(BACKENDS - 1) + 1 + pick(ALL_FLAGS) * BACKENDS) : 0;
        if ((touch || whole) && o->offered[i])
            puts[n_puts++] = row_new(names[i], (size_t)len, backend,
                                     (size_t)sprintf(backend, "h:%d", backend_of(o->offered[i])),
                                     o->label, flags_of(o->offered[i]));
        else if (touch)
            gone[n_gone++] = names[i];
    }
    cr_assert_eq(list_apply(whole ? none : o->list, puts, n_puts, gone, n_gone, &list), 0);
    for (size_t i = 0; i < n_puts; i++)
        row_unref(puts[i]);
    list_unref(none);
    return list;
}

static void put(int p, bool whole)
{
    struct model_owner *o = &m.owners[p];
    struct registry_refusals refused;
    struct registry_change change;
    struct list *list;
    int kept[NAMES];
    size_t n_refused;
    uint32_t added = 0, changed = 0, removed = 0;

    if (!o->here)
        return;
    if (o != local && pick(10) == 0) {
        cr_assert_eq(registry_put_list(m.reg, ids[p], o->incarnation, o->version, o->list, 1,
                                       &refused, &change),
                     REGISTRY_E_STALE);
        return;
    }
    list = offer(o, whole);
    n_refused = limited(o, kept);
    for (int i = 0; i < NAMES; i++) {
        added += !o->kept[i] && kept[i];
        removed += o->kept[i] && !kept[i];
        changed += o->kept[i] && kept[i] && o->kept[i] != kept[i];
    }
    if (pick(5) == 0 && o != local) {
        o->incarnation++;
        o->version = 0;
    }
    o->version++;
    if (o == local)
        cr_assert_eq(registry_put_local(m.reg, o->version, list, 1, &refused, &change), 0);
    else
        cr_assert_eq(registry_put_list(m.reg, ids[p], o->incarnation, o->version, list, 1, &refused,
                                       &change),
                     0);
    expect_change(&change, added + changed + removed > 0);
    cr_assert_eq(change.added, added);
    cr_assert_eq(change.changed, changed);
    cr_assert_eq(change.removed, removed);
    cr_assert_eq(refused.n, n_refused);
    for (size_t i = 0; i < refused.n; i++) {
        int name = atoi(refused.at[i].name + 1);
        cr_assert(o->offered[name] && !kept[name]);
    }
    registry_refusals_fini(&refused);
    memcpy(o->kept, kept, sizeof(kept));
    list_unref(o->list);
    o->list = list;
}

static void set_state(int p)
{
    struct model_owner *o = &m.owners[p];
    struct registry_state state = {.connected = pick(2),
                                   .stale = pick(4) == 0,
                                   .draining = pick(4) == 0,
                                   .last_seen_ms = pick(3)};
    struct registry_change change;
    int r = registry_peer_state(m.reg, ids[p], &state, &change);

    if (!o->here) {
        cr_assert_eq(r, REGISTRY_E_UNKNOWN);
        return;
    }
    cr_assert_eq(r, 0);
    expect_change(&change, state.connected != o->state.connected || state.stale != o->state.stale ||
                               state.draining != o->state.draining);
    o->state = state;
}

static void gone(int p)
{
    struct model_owner *o = &m.owners[p];
    struct registry_change change;
    int r = registry_peer_gone(m.reg, ids[p], "left", 9, &change);

    if (!o->here) {
        cr_assert_eq(r, REGISTRY_E_UNKNOWN);
        return;
    }
    cr_assert_eq(r, 0);
    expect_change(&change, true);
    cr_assert_eq(change.removed, count(o->kept));
    forget(o);
}

static void new_limits(void)
{
    m.limits.services_per_peer = pick(2) ? NAMES : 1 + pick(NAMES);
    m.limits.services_total = pick(2) ? 1000 : 1 + pick(100);
    m.limits.peers = pick(2) ? PEERS : 1 + pick(PEERS);
    m.limits.tombstones = 16 + pick(40);
    registry_set_limits(m.reg, &m.limits);
}

static void operate(void)
{
    int p = (int)pick(PEERS);
    unsigned what = pick(100);

    if (what < 20)
        open_peer(p);
    else if (what < 60)
        put(p, pick(3) == 0);
    else if (what < 72)
        put(PEERS, pick(3) == 0);
    else if (what < 88)
        set_state(p);
    else if (what < 95)
        gone(p);
    else
        new_limits();
}

Test(registry_property, random_operations_agree_with_a_naive_model)
{
    m.seed = test_seed();
    limits_default(&m.limits);
    m.reg = registry_for("me", &m.limits);
    m.revision = registry_revision(m.reg);
    local->here = true;
    strcpy(local->label, "local");
    local->list = list_empty();
    for (int i = 0; i < OPERATIONS; i++) {
        operate();
        expect_model();
    }
    registry_free(m.reg);
    for (int p = 0; p <= PEERS; p++)
        forget(&m.owners[p]);
}
