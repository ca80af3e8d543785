/* put - how an owner's new list gets into both maps.
 *
 * First a plan, made with no lock held, in which everything that can fail happens: what fits the
 * limits, what differs, the list to keep, the lists in between if it takes several holds, room in
 * the indexes. Then the holds, which only move pointers.
 *
 * Always true: a row in an owner's list and the row in the index under its key are one object.
 */
#include "registry/registry.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "registry/inside.h"

struct row_change {
    struct row *before, *after; /* borrowed from the lists; one of them may be NULL */
};

struct step {
    size_t end;        /* of its part of the changes */
    struct list *list; /* the owner's after it; once it is made, the one before it */
};

struct plan {
    struct registry *reg;
    struct peer *owner;
    const char *why;        /* rows go */
    struct list *fit, *old; /* what of the offered list fits; the owner's list */
    struct registry_refusals refused;
    struct row_change *at;
    size_t n, cap, twins; /* twins: rows of equal content in both lists that are two objects */
    size_t added, changed, removed;
    struct step *steps;
    size_t n_steps;
};

static void plan_fini(struct plan *plan)
{
    for (size_t i = 0; i < plan->n_steps; i++)
        list_unref(plan->steps[i].list);
    free(plan->steps);
    free(plan->at);
    list_unref(plan->old);
    list_unref(plan->fit);
    registry_refusals_fini(&plan->refused);
}

void registry_refusals_fini(struct registry_refusals *refusals)
{
    free(refusals->at);
    refusals->at = NULL;
    refusals->n = 0;
}

/* ---- What fits ---- */

static void ptr_free(void *p) { free(*(void **)p); }

/* For each row of list, whether old has its name; returns how many it has. */
static size_t mark_known(const struct list *old, const struct list *list, bool *known)
{
    struct list_iter o, l;
    const struct row *before, *row;
    size_t n_known = 0;

    list_iter_init(&o, old);
    list_iter_init(&l, list);
    before = list_iter_next(&o);
    for (size_t i = 0; (row = list_iter_next(&l)) != NULL; i++) {
        int cmp = -1;
        while (before &&
               (cmp = list_name_cmp(before->name, before->name_len, row->name, row->name_len)) < 0)
            before = list_iter_next(&o);
        known[i] = before && cmp == 0;
        n_known += known[i];
    }
    return n_known;
}

/* Leaves out rows of list beyond room, but none that is there already: a limit that was lowered
 * turns away what is new. */
static int cut(struct plan *plan, struct list *list, size_t room, const char *limit)
{
    CLEANUP(ptr_free) bool *known = malloc(list_count(list));
    CLEANUP(ptr_free) const char **names = NULL;
    size_t n = list_count(list) - room, n_known, new_room, i = 0;
    struct list_iter it;
    struct row *row;

    names = malloc(n * sizeof(*names));
    plan->refused.at = malloc(n * sizeof(*plan->refused.at));
    if (!known || !names || !plan->refused.at)
        return -ENOMEM;
    n_known = mark_known(plan->old, list, known);
    new_room = room > n_known ? room - n_known : 0;

    list_iter_init(&it, list);
    while ((row = list_iter_next(&it)) != NULL) {
        if (known[i++])
            continue;
        if (new_room > 0) {
            new_room--;
            continue;
        }
        names[plan->refused.n] = row->name;
        plan->refused.at[plan->refused.n++] = (struct registry_refused){row->name, limit};
    }
    return list_apply(list, NULL, 0, names, plan->refused.n, &plan->fit);
}

static int plan_fit(struct plan *plan, struct list *list)
{
    const struct limits *limits = &plan->reg->limits;
    size_t others = plan->reg->both.services - list_count(plan->old);
    size_t room = limits->services_total > others ? limits->services_total - others : 0;
    const char *limit = "services_total";

    if (limits->services_per_peer <= room) {
        room = limits->services_per_peer;
        limit = "services_per_peer";
    }
    if (list_count(list) > room)
        return cut(plan, list, room, limit);
    plan->fit = list_ref(list);
    return 0;
}

/* ---- What differs ---- */

static bool is_of(const struct row *row, const struct peer *owner)
{
    return row->key_len == row->name_len + 1u + owner->label_len &&
           memcmp(row->key + row->name_len + 1, owner->label, owner->label_len) == 0;
}

static int collect(void *ctx, struct row *before, struct row *after)
{
    struct plan *plan = ctx;

    if (before && after && row_same(before, after)) {
        plan->twins++;
        return 0;
    }
    if (after && !is_of(after, plan->owner))
        return -EINVAL;
    if (plan->n == plan->cap) {
        size_t cap = plan->cap ? plan->cap * 2 : 64;
        struct row_change *at = realloc(plan->at, cap * sizeof(*at));
        if (!at)
            return -ENOMEM;
        plan->at = at;
        plan->cap = cap;
    }
    plan->at[plan->n++] = (struct row_change){before, after};
    if (!before)
        plan->added++;
    else if (!after)
        plan->removed++;
    else
        plan->changed++;
    return 0;
}

/* The list to keep: the one offered, if all that it shares with the old one are the same objects;
 * else the old one with the changes, so that no row is in memory twice. */
static int list_to_keep(const struct plan *plan, struct list **out_list)
{
    CLEANUP(ptr_free) struct row **puts = NULL;
    CLEANUP(ptr_free) const char **names = NULL;
    size_t n_puts = 0, n_names = 0;

    if (plan->twins == 0) {
        *out_list = list_ref(plan->fit);
        return 0;
    }
    puts = malloc((plan->added + plan->changed + 1) * sizeof(*puts));
    names = malloc((plan->removed + 1) * sizeof(*names));
    if (!puts || !names)
        return -ENOMEM;
    for (size_t i = 0; i < plan->n; i++)
        if (plan->at[i].after)
            puts[n_puts++] = plan->at[i].after;
        else
            names[n_names++] = plan->at[i].before->name;
    return list_apply(plan->old, puts, n_puts, names, n_names, out_list);
}

static int plan_steps(struct plan *plan)
{
    CLEANUP(list_unrefp) struct list *keep = NULL;
    size_t rows = 0;
    int r = list_to_keep(plan, &keep);

    if (r < 0)
        return r;
    plan->steps = malloc((2 * plan->n / (LIMIT_ROWS_PER_HOLD - 1) + 2) * sizeof(*plan->steps));
    if (!plan->steps)
        return -ENOMEM;
    for (size_t i = 0; i < plan->n; i++) {
        const struct row_change *change = &plan->at[i];
        size_t cost = (change->before != NULL) + (change->after != NULL);
        const struct row *row = change->after ? change->after : change->before;
        struct list *between;
        rows += cost;
        if (rows <= LIMIT_ROWS_PER_HOLD)
            continue;
        rows = cost;
        r = list_splice(keep, plan->old, row->name, row->name_len, &between);
        if (r < 0)
            return r;
        plan->steps[plan->n_steps++] = (struct step){i, between};
    }
    plan->steps[plan->n_steps++] = (struct step){plan->n, TAKE(&keep)};
    return 0;
}

static int plan_room(const struct plan *plan)
{
    struct registry *reg = plan->reg;
    size_t shards = index_shards(&reg->services.by_key);
    CLEANUP(ptr_free) unsigned *more = calloc(2 * shards, sizeof(*more));

    if (!more)
        return -ENOMEM;
    for (size_t i = 0; i < plan->n; i++) {
        const struct entry *entry = plan->at[i].after ? entry_of(plan->at[i].after) : NULL;
        if (!entry || plan->at[i].before)
            continue; /* a row that is replaced leaves its place to the new one */
        more[index_shard_of(&reg->services.by_key, &entry->by_key)]++;
        more[shards + index_shard_of(&reg->services.by_name, &entry->by_name)]++;
    }
    return registry_reserve_rows(reg, more, more + shards);
}

/* ---- The holds ---- */

/* Two distances: by the time the second is reached, what the first asked for has come. */
static void warm(const struct plan *plan, size_t i)
{
    if (i + 16 < plan->n && plan->at[i + 16].after)
        registry_warm_row(plan->reg, entry_of(plan->at[i + 16].after));
    if (i + 8 < plan->n && plan->at[i + 8].after)
        registry_warm_row_next(plan->reg, entry_of(plan->at[i + 8].after));
}

/* The changes from begin to step->end. skip of the rows that go leave no tombstone. */
static size_t make_step(struct registry *reg, const struct plan *plan, size_t begin,
                        struct step *step, size_t skip, uint64_t now_s)
    REQUIRES(reg->services_lock, reg->peer_services_lock)
{
    struct list *before = plan->owner->list;

    for (size_t i = begin; i < step->end; i++) {
        struct row_change *change = &plan->at[i];
        warm(plan, i);
        if (change->before)
            registry_unindex_row(reg, entry_of(change->before));
        if (change->after)
            registry_index_row(reg, entry_of(change->after), plan->owner);
        else if (skip > 0)
            skip--;
        else
            tombstones_add(reg, change->before, plan->owner, plan->why, now_s);
    }
    reg->both.services += list_count(step->list) - list_count(before);
    plan->owner->list = step->list;
    step->list = before; /* its last reference may go, which is for outside */
    reg->both.revision++;
    return skip;
}

static void make_change(const struct plan *plan, uint64_t incarnation, uint64_t version,
                        uint64_t now_s)
{
    struct registry *reg = plan->reg;
    struct peer *owner = plan->owner;
    size_t cap = reg->services.ring_cap, begin = 0;
    size_t skip = plan->removed > cap ? plan->removed - cap : 0;

    tombstones_make_room(reg, plan->removed);
    for (size_t s = 0; s == 0 || s < plan->n_steps; s++) {
        registry_write(reg);
        if (s < plan->n_steps) {
            skip = make_step(reg, plan, begin, &plan->steps[s], skip, now_s);
            begin = plan->steps[s].end;
        }
        if (s + 1 >= plan->n_steps &&
            (owner->incarnation != incarnation || owner->version != version)) {
            owner->incarnation = incarnation;
            owner->version = version;
            owner->last_sync_s = now_s;
        }
        registry_write_done(reg);
    }
}

static void count_change(struct registry *reg, const struct plan *plan)
{
    count_up(&reg->counters.rows_refused, plan->refused.n);
    if (plan->n == 0) {
        count_up(&reg->counters.puts_repeated, 1);
        return;
    }
    count_up(&reg->counters.changes, 1);
    count_up(&reg->counters.rows_added, plan->added);
    count_up(&reg->counters.rows_changed, plan->changed);
    count_up(&reg->counters.rows_removed, plan->removed);
}

static int put(struct registry *reg, struct peer *owner, uint64_t incarnation, uint64_t version,
               struct list *list, const char *why, uint64_t now_s,
               struct registry_refusals *out_refusals, struct registry_change *out_change)
{
    CLEANUP(plan_fini) struct plan plan = {.reg = reg, .owner = owner, .why = why};
    int r;

    plan.old = list_ref(owner->list);
    r = plan_fit(&plan, list);
    if (r == 0)
        r = list_diff_objects(plan.old, plan.fit, collect, &plan);
    if (r == 0 && plan.n > 0)
        r = plan_steps(&plan);
    if (r == 0 && plan.n > 0)
        r = plan_room(&plan);
    if (r < 0)
        return r;

    make_change(&plan, incarnation, version, now_s);
    count_change(reg, &plan);
    if (out_change)
        *out_change = (struct registry_change){
            .revision = reg->both.revision,
            .added = (uint32_t)plan.added,
            .changed = (uint32_t)plan.changed,
            .removed = (uint32_t)plan.removed,
            .any = plan.n > 0,
        };
    if (out_refusals) {
        *out_refusals = plan.refused;
        plan.refused = (struct registry_refusals){.at = NULL};
    }
    return 0;
}

int registry_put_list(struct registry *reg, const char *peer_id, uint64_t incarnation,
                      uint64_t version, struct list *list, uint64_t now_s,
                      struct registry_refusals *out_refusals, struct registry_change *out_change)
{
    struct peer *peer = registry_find_peer(reg, peer_id);

    if (!peer)
        return REGISTRY_E_UNKNOWN;
    if (incarnation < peer->incarnation ||
        (incarnation == peer->incarnation && version <= peer->version)) {
        count_up(&reg->counters.puts_stale, 1);
        return REGISTRY_E_STALE;
    }
    return put(reg, peer, incarnation, version, list, "withdrawn", now_s, out_refusals, out_change);
}

int registry_put_part(struct registry *reg, const char *peer_id, struct list *list, const char *why,
                      uint64_t now_s, struct registry_refusals *out_refusals,
                      struct registry_change *out_change)
{
    struct peer *peer = registry_find_peer(reg, peer_id);

    if (!peer)
        return REGISTRY_E_UNKNOWN;
    return put(reg, peer, peer->incarnation, peer->version, list, why, now_s, out_refusals,
               out_change);
}

int registry_put_local(struct registry *reg, uint64_t version, struct list *list, uint64_t now_s,
                       struct registry_refusals *out_refusals, struct registry_change *out_change)
{
    return put(reg, reg->peer_services.local, 0, version, list, "withdrawn", now_s, out_refusals,
               out_change);
}
