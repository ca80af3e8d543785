/* staging - a list is believed whole or not at all: checked entry by entry, applied in one change.
 */
#include "node/staging.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/array.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "node/inside.h"
#include "wire/name.h"

#define FIRST 16u /* room of a list */

/* ---- gathering ---- */

void staging_init(struct staging *st, bool full) { *st = (struct staging){.full = full}; }

void staging_fini(struct node *n, struct staging *st)
{
    for (size_t i = 0; i < st->n_puts; i++)
        row_unref(st->puts[i]);
    for (size_t i = 0; i < st->n_removed; i++)
        free(st->removed[i]);
    free(st->puts);
    free(st->removed);
    refused_set_fini(&st->refused);
    n->staged_rows -= st->rows;
    *st = (struct staging){0};
}

/* All stagings together hold no more than the map could, and what is there already may be told
 * again: a limit that was lowered, or reached by others, turns away what is new. */
static bool is_over(const struct node *n, const struct staging *st, const struct peer *p,
                    const char *name, size_t name_len)
{
    const struct list *known = p->known.offered;

    if (st->n_puts < n->limits.services_per_peer && n->staged_rows < n->limits.services_total)
        return false;
    return !known || st->n_puts >= n->limits.services_per_peer + list_count(known) ||
           !list_find(known, name, name_len);
}

static int check_entry(struct node *n, struct staging *st, const struct peer *p, const char *name,
                       size_t name_len, const char *backend, size_t backend_len)
{
    char canon[LIMIT_BACKEND + 1], rule[POLICY_RULE_TEXT];

    if (!name_is_canon(name, name_len))
        return REASON(BAD_NAME);
    if (backend_len > LIMIT_BACKEND || backend_canon(backend, backend_len, canon) != 0)
        return REASON(BAD_ADDRESS);
    if (is_over(n, st, p, name, name_len))
        return REASON(LIMIT);
    if (!policy_allows(n->policy, POLICY_REGISTER, p->id, name, rule)) {
        /* Kept like the others, and no more of them. */
        if (n->denied_rows + st->denied >= n->limits.services_total)
            return REASON(POLICY);
        st->denied++;
    }
    return 0;
}

int staging_add(struct node *n, struct staging *st, const struct peer *p,
                Meshd__V1__Service *const *entries, size_t n_entries)
{
    int r =
        array_room(&st->puts, &st->cap_puts, st->n_puts + n_entries, sizeof(struct row *), FIRST);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n_entries; i++) {
        const char *name = entries[i]->name, *backend = entries[i]->backend_addr;
        size_t name_len = strlen(name), backend_len = strlen(backend);
        unsigned flags = (entries[i]->unhealthy ? ROW_UNHEALTHY : 0u) |
                         (entries[i]->draining ? ROW_DRAINING : 0u);
        uint64_t hash = hash_entry(name, name_len, backend, backend_len, flags);
        int reason = check_entry(n, st, p, name, name_len, backend, backend_len);

        if (reason == 0) {
            struct row *row = row_new(name, name_len, backend, backend_len, p->label, flags);

            if (!row)
                return -ENOMEM;
            st->puts[st->n_puts++] = row;
            st->rows++;
            n->staged_rows++;
        } else {
            r = refused_set_add(&st->refused, name, hash, reason);
            if (r < 0)
                return r;
        }
        st->digest += hash;
        st->count++;
    }
    return 0;
}

int staging_remove(struct node *n, struct staging *st, char *const *names, size_t n_names)
{
    int r;

    /* More names than a list can have are not all in it: the digest will tell. */
    if (st->n_removed + n_names > n->limits.services_per_peer)
        n_names = n->limits.services_per_peer > st->n_removed
                      ? n->limits.services_per_peer - st->n_removed
                      : 0;
    r = array_room(&st->removed, &st->cap_removed, st->n_removed + n_names, sizeof(char *), FIRST);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n_names; i++) {
        char *copy = strndup(names[i], LIMIT_NAME);

        if (!copy)
            return -ENOMEM;
        st->removed[st->n_removed++] = copy;
    }
    return 0;
}

/* ---- applying ---- */

static int row_cmp(const struct row *a, const struct row *b)
{
    return list_name_cmp(a->name, a->name_len, b->name, b->name_len);
}

struct ordered {
    struct row *row;
    size_t order;
};

static int ordered_cmp(const void *a_at, const void *b_at)
{
    const struct ordered *a = a_at, *b = b_at;
    int r = row_cmp(a->row, b->row);

    return r ? r : a->order < b->order ? -1 : 1;
}

static bool in_order(const struct staging *st)
{
    for (size_t i = 1; i < st->n_puts; i++)
        if (row_cmp(st->puts[i - 1], st->puts[i]) >= 0)
            return false;
    return true;
}

/* Puts in order of names; of the same name the first stays, the others are refused. Owners send
 * them in order, so the sort is for others. */
static int sort_puts(struct staging *st)
{
    struct ordered *ordered;
    size_t kept = 0;
    int r = 0;

    if (in_order(st))
        return 0;
    ordered = malloc(st->n_puts * sizeof(*ordered));
    if (!ordered)
        return -ENOMEM;
    for (size_t i = 0; i < st->n_puts; i++)
        ordered[i] = (struct ordered){.row = st->puts[i], .order = i};
    qsort(ordered, st->n_puts, sizeof(*ordered), ordered_cmp);
    for (size_t i = 0; i < st->n_puts; i++) {
        struct row *row = ordered[i].row;

        if (kept > 0 && row_cmp(st->puts[kept - 1], row) == 0) {
            if (r == 0)
                r = refused_set_add(&st->refused, row->name, row->hash, REASON(DUPLICATE));
            row_unref(row);
        } else {
            st->puts[kept++] = row;
        }
    }
    st->n_puts = kept;
    free(ordered);
    return r;
}

/* What the peer's list will have been told to be, after the change. */
struct offer {
    uint64_t digest, count;
    struct refused_set refused;
    const char **removed; /* for list_apply; borrowed names */
    size_t n_removed, cap_removed;
};

static void offer_fini(struct offer *offer)
{
    refused_set_fini(&offer->refused);
    free(offer->removed);
}

static int offer_remove_row(struct offer *offer, const char *name)
{
    int r = array_room(&offer->removed, &offer->cap_removed, offer->n_removed + 1, sizeof(char *),
                       FIRST);

    if (r == 0)
        offer->removed[offer->n_removed++] = name;
    return r;
}

static int copy_refused(struct refused_set *to, const struct refused_set *from)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < from->n; i++)
        r = refused_set_add(to, from->at[i].name, from->at[i].hash, from->at[i].reason);
    to->total += from->total - from->n;
    return r;
}

/* Takes what was offered under name before out of the sums. */
static void forget_offer(const struct known_list *known, struct offer *offer, const char *name)
{
    const struct row *row = known->offered ? list_find(known->offered, name, strlen(name)) : NULL;
    struct refused *refused = refused_set_find(&offer->refused, name);

    if (row) {
        offer->digest -= row->hash;
        offer->count--;
    }
    if (refused) {
        offer->digest -= refused->hash;
        offer->count--;
        refused_set_drop(&offer->refused, refused);
    }
}

static int offer_change(const struct known_list *known, const struct staging *st,
                        struct offer *offer)
{
    int r = copy_refused(&offer->refused, &known->refused);

    offer->digest = known->digest + st->digest;
    offer->count = known->count + st->count;
    for (size_t i = 0; r == 0 && i < st->n_removed; i++) {
        forget_offer(known, offer, st->removed[i]);
        r = offer_remove_row(offer, st->removed[i]);
    }
    for (size_t i = 0; r == 0 && i < st->n_puts; i++)
        forget_offer(known, offer, st->puts[i]->name);
    /* An entry that is not acceptable any more is not offered as it was either. */
    for (size_t i = 0; r == 0 && i < st->refused.n; i++) {
        const struct refused *refused = &st->refused.at[i];

        if (refused->reason != REASON(DUPLICATE)) {
            forget_offer(known, offer, refused->name);
            r = offer_remove_row(offer, refused->name);
        }
        if (r == 0)
            r = refused_set_add(&offer->refused, refused->name, refused->hash, refused->reason);
    }
    offer->refused.total += st->refused.total - st->refused.n;
    return r;
}

/* A full list is the known one without what is missing in it, so that what did not change keeps its
 * rows: one pass over both, which are in order. */
static int offer_full(const struct known_list *known, const struct staging *st, struct offer *offer)
{
    struct list_iter iter;
    const struct row *row;
    size_t at = 0;
    int r = copy_refused(&offer->refused, &st->refused);

    offer->digest = st->digest;
    offer->count = st->count;
    if (r < 0 || !known->offered)
        return r;
    list_iter_init(&iter, known->offered);
    while (r == 0 && (row = list_iter_next(&iter))) {
        while (at < st->n_puts && row_cmp(st->puts[at], row) < 0)
            at++;
        if (at == st->n_puts || row_cmp(st->puts[at], row) != 0)
            r = offer_remove_row(offer, row->name);
    }
    return r;
}

/* The lists after the change. */
struct lists {
    struct list *offered, *list;
};

static void lists_fini(struct lists *lists)
{
    list_unref(lists->offered);
    list_unref(lists->list);
}

static bool may_show(const struct node *n, const struct peer *p, const struct row *row)
{
    char rule[POLICY_RULE_TEXT];

    return policy_would(n->policy, POLICY_REGISTER, p->id, row->name, rule);
}

/* Of the known list, what changes: without the puts that the policy keeps out. */
static int narrow(const struct node *n, const struct peer *p, const struct staging *st,
                  struct offer *offer, struct lists *lists)
{
    struct row **puts = malloc((st->n_puts + 1) * sizeof(*puts));
    size_t n_puts = 0;
    int r = puts ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < st->n_puts; i++) {
        if (may_show(n, p, st->puts[i]))
            puts[n_puts++] = st->puts[i];
        else
            r = offer_remove_row(offer, st->puts[i]->name);
    }
    if (r == 0 && n_puts == st->n_puts && p->known.list == p->known.offered)
        lists->list = list_ref(lists->offered); /* nothing is kept out */
    else if (r == 0)
        r = list_apply(p->known.list, puts, n_puts, offer->removed, offer->n_removed, &lists->list);
    free(puts);
    return r;
}

static int make_lists(const struct node *n, struct peer *p, const struct staging *st,
                      struct offer *offer, struct lists *lists)
{
    struct known_list *known = &p->known;
    int r;

    if (!known->offered) {
        known->offered = list_empty();
        known->list = list_empty();
    }
    r = list_apply(known->offered, st->puts, st->n_puts, offer->removed, offer->n_removed,
                   &lists->offered);
    return r < 0 ? r : narrow(n, p, st, offer, lists);
}

static int drop_names(struct list **list, const char *const *names, size_t n_names)
{
    struct list *rest;
    int r = list_apply(*list, NULL, 0, names, n_names, &rest);

    if (r < 0)
        return r;
    list_unref(*list);
    *list = rest;
    return 0;
}

/* What the registry had no room for is not kept here either. */
static int drop_unplaced(struct lists *lists, struct refused_set *refused,
                         const struct registry_refusals *refusals)
{
    bool all = lists->list == lists->offered;
    const char **names;
    int r = 0;

    if (refusals->n == 0)
        return 0;
    names = malloc(refusals->n * sizeof(*names));
    if (!names)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < refusals->n; i++) {
        const char *name = refusals->at[i].name;
        const struct row *row = list_find(lists->list, name, strlen(name));

        names[i] = name;
        r = refused_set_add(refused, name, row ? row->hash : 0, REASON(LIMIT));
    }
    if (r == 0)
        r = drop_names(&lists->list, names, refusals->n);
    if (r == 0 && all) {
        list_unref(lists->offered);
        lists->offered = list_ref(lists->list);
    } else if (r == 0) {
        r = drop_names(&lists->offered, names, refusals->n);
    }
    free(names);
    return r;
}

static void refusals_fini(struct registry_refusals *refusals) { registry_refusals_fini(refusals); }

int staging_apply(struct node *n, struct peer *p, struct staging *st, uint64_t incarnation,
                  uint64_t version, const struct staging_told *told)
{
    struct known_list *known = &p->known;
    CLEANUP(offer_fini) struct offer offer = {0};
    CLEANUP(lists_fini) struct lists lists = {0};
    CLEANUP(refusals_fini) struct registry_refusals refusals = {0};
    struct registry_change change = {0};
    int r = sort_puts(st);

    if (r == 0)
        r = st->full ? offer_full(known, st, &offer) : offer_change(known, st, &offer);
    if (r < 0)
        return r;
    if (told->checked && (told->digest != offer.digest || told->count != offer.count))
        return STAGING_E_DIFFERS;
    r = make_lists(n, p, st, &offer, &lists);
    if (r < 0)
        return r;
    r = registry_put_list(n->registry, p->id, incarnation, version, lists.list, node_wall_s(n),
                          &refusals, &change);
    if (r == REGISTRY_E_STALE)
        return STAGING_E_STALE;
    if (r != 0)
        return r < 0 ? r : -ENOENT;
    node_changed(n, &change);
    /* Without memory for the names the entries stay in our list; the registry leaves them out again
     * at the next change. */
    drop_unplaced(&lists, &offer.refused, &refusals);
    known_list_set(n, known, TAKE(&lists.offered), TAKE(&lists.list));
    refused_set_fini(&known->refused);
    known->refused = offer.refused;
    offer.refused = (struct refused_set){0};
    known->digest = offer.digest;
    known->count = offer.count;
    known->incarnation = incarnation;
    known->version = version;
    peer_tell_refused(n, p);
    return 0;
}

/* ---- other rules ---- */

/* The names in offered that may not be shown now; those shown until now are counted as refused. */
static int names_denied(struct node *n, const struct peer *p, struct offer *out)
{
    char rule[POLICY_RULE_TEXT];
    struct list_iter iter;
    const struct row *row;
    int r = 0;

    list_iter_init(&iter, p->known.offered);
    while (r == 0 && (row = list_iter_next(&iter))) {
        if (may_show(n, p, row))
            continue;
        if (list_find(p->known.list, row->name, row->name_len))
            policy_allows(n->policy, POLICY_REGISTER, p->id, row->name, rule);
        r = offer_remove_row(out, row->name);
    }
    return r;
}

int staging_policy_changed(struct node *n, struct peer *p)
{
    CLEANUP(offer_fini) struct offer denied = {0};
    CLEANUP(lists_fini) struct lists lists = {0};
    CLEANUP(refusals_fini) struct registry_refusals refusals = {0};
    struct registry_change change = {0};
    int r;

    if (!p->known.offered)
        return 0;
    r = names_denied(n, p, &denied);
    if (r < 0)
        return r;
    lists.offered = list_ref(p->known.offered);
    if (denied.n_removed == 0)
        lists.list = list_ref(lists.offered);
    else
        r = list_apply(lists.offered, NULL, 0, denied.removed, denied.n_removed, &lists.list);
    if (r == 0)
        r = registry_put_part(n->registry, p->id, lists.list, "not allowed", node_wall_s(n),
                              &refusals, &change);
    if (r != 0)
        return r < 0 ? r : 0;
    node_changed(n, &change);
    drop_unplaced(&lists, &p->known.refused, &refusals);
    known_list_set(n, &p->known, TAKE(&lists.offered), TAKE(&lists.list));
    peer_tell_refused(n, p);
    return 0;
}
