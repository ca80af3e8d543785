/* staging - a list is believed whole or not at all: checked entry by entry, applied in one change.
 */
#include "node/staging.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/hash.h"
#include "node/inside.h"
#include "wire/name.h"

/* ---- refused entries ---- */

static void refused_set_clear(struct refused_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        free(set->at[i].name);
    set->n = 0;
    set->total = 0;
}

void refused_set_fini(struct refused_set *set)
{
    refused_set_clear(set);
    free(set->at);
    *set = (struct refused_set){0};
}

static int refused_set_add(struct refused_set *set, const char *name, uint64_t hash, int reason)
{
    struct refused *at;
    size_t cap;
    char *copy;

    if (set->n >= REFUSED_MAX) {
        set->total++;
        return 0;
    }
    if (set->n == set->cap) {
        cap = set->cap ? set->cap * 2 : 4;
        at = realloc(set->at, cap * sizeof(*at));
        if (!at)
            return -ENOMEM;
        set->at = at;
        set->cap = cap;
    }
    copy = strndup(name, LIMIT_NAME);
    if (!copy)
        return -ENOMEM;
    set->at[set->n++] = (struct refused){.name = copy, .hash = hash, .reason = reason};
    set->total++;
    return 0;
}

static struct refused *refused_set_find(const struct refused_set *set, const char *name)
{
    /* What is remembered was cut at LIMIT_NAME bytes; what is longer is a bad name anyway. */
    for (size_t i = 0; i < set->n; i++)
        if (strncmp(set->at[i].name, name, LIMIT_NAME) == 0)
            return &set->at[i];
    return NULL;
}

static void refused_set_drop(struct refused_set *set, struct refused *entry)
{
    free(entry->name);
    *entry = set->at[--set->n];
    set->total--;
}

const char *refused_text(int reason)
{
    switch (reason) {
    case REASON(BAD_NAME):
        return "not a canonical name";
    case REASON(BAD_ADDRESS):
        return "not a backend address";
    case REASON(DUPLICATE):
        return "the same name twice in one list";
    default:
        return "over the limit of services";
    }
}

int refused_set_messages(const struct refused_set *set, size_t *out_n, Meshd__V1__Refused ***out_at)
{
    size_t n = set->n < REFUSED_NAMED_MAX ? set->n : REFUSED_NAMED_MAX;
    Meshd__V1__Refused **at, *messages;

    if (n == 0) {
        *out_n = 0;
        *out_at = NULL;
        return 0;
    }
    at = malloc(n * (sizeof(*at) + sizeof(*messages)));
    if (!at)
        return -ENOMEM;
    messages = (Meshd__V1__Refused *)(void *)(at + n);
    for (size_t i = 0; i < n; i++) {
        meshd__v1__refused__init(&messages[i]);
        messages[i].name = set->at[i].name;
        messages[i].reason = (Meshd__V1__Reason)set->at[i].reason;
        messages[i].text = (char *)refused_text(set->at[i].reason);
        at[i] = &messages[i];
    }
    *out_n = n;
    *out_at = at;
    return 0;
}

void known_list_fini(struct known_list *known)
{
    list_unref(known->list);
    refused_set_fini(&known->refused);
    *known = (struct known_list){0};
}

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

static int grow(void *array_at, size_t *cap, size_t count, size_t size)
{
    void **array = array_at, *grown;
    size_t want = *cap ? *cap : 16;

    while (want < count)
        want *= 2;
    if (want == *cap)
        return 0;
    grown = realloc(*array, want * size);
    if (!grown)
        return -ENOMEM;
    *array = grown;
    *cap = want;
    return 0;
}

static int check_entry(const struct node *n, const struct staging *st, const char *name,
                       size_t name_len, const char *backend, size_t backend_len)
{
    char canon[LIMIT_BACKEND + 1];

    if (!name_is_canon(name, name_len))
        return REASON(BAD_NAME);
    if (backend_len > LIMIT_BACKEND || backend_canon(backend, backend_len, canon) != 0)
        return REASON(BAD_ADDRESS);
    /* All stagings together hold no more than the map could. */
    if (st->n_puts >= n->limits.services_per_peer || n->staged_rows >= n->limits.services_total)
        return REASON(LIMIT);
    return 0;
}

int staging_add(struct node *n, struct staging *st, const char *label,
                Meshd__V1__Service *const *entries, size_t n_entries)
{
    int r = grow(&st->puts, &st->cap_puts, st->n_puts + n_entries, sizeof(struct row *));

    if (r < 0)
        return r;
    for (size_t i = 0; i < n_entries; i++) {
        const char *name = entries[i]->name, *backend = entries[i]->backend_addr;
        size_t name_len = strlen(name), backend_len = strlen(backend);
        uint64_t hash = hash_entry(name, name_len, backend, backend_len);
        int reason = check_entry(n, st, name, name_len, backend, backend_len);

        if (reason == 0) {
            struct row *row = row_new(name, name_len, backend, backend_len, label);

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
    r = grow(&st->removed, &st->cap_removed, st->n_removed + n_names, sizeof(char *));
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
    int r = grow(&offer->removed, &offer->cap_removed, offer->n_removed + 1, sizeof(char *));

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
    const struct row *row = known->list ? list_find(known->list, name, strlen(name)) : NULL;
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
    if (r < 0 || !known->list)
        return r;
    list_iter_init(&iter, known->list);
    while (r == 0 && (row = list_iter_next(&iter))) {
        while (at < st->n_puts && row_cmp(st->puts[at], row) < 0)
            at++;
        if (at == st->n_puts || row_cmp(st->puts[at], row) != 0)
            r = offer_remove_row(offer, row->name);
    }
    return r;
}

/* What the registry had no room for is not kept here either. */
static int drop_unplaced(struct list **list, struct offer *offer,
                         const struct registry_refusals *refusals)
{
    const char **names;
    struct list *rest;
    int r = 0;

    if (refusals->n == 0)
        return 0;
    names = malloc(refusals->n * sizeof(*names));
    if (!names)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < refusals->n; i++) {
        const char *name = refusals->at[i].name;
        const struct row *row = list_find(*list, name, strlen(name));

        names[i] = name;
        r = refused_set_add(&offer->refused, name, row ? row->hash : 0, REASON(LIMIT));
    }
    if (r == 0)
        r = list_apply(*list, NULL, 0, names, refusals->n, &rest);
    free(names);
    if (r < 0)
        return r;
    list_unref(*list);
    *list = rest;
    return 0;
}

static void refusals_fini(struct registry_refusals *refusals) { registry_refusals_fini(refusals); }

int staging_apply(struct node *n, struct peer *p, struct staging *st, uint64_t incarnation,
                  uint64_t version, const struct staging_told *told)
{
    struct known_list *known = &p->known;
    CLEANUP(offer_fini) struct offer offer = {0};
    CLEANUP(list_unrefp) struct list *empty = list_empty();
    CLEANUP(list_unrefp) struct list *list = NULL;
    CLEANUP(refusals_fini) struct registry_refusals refusals = {0};
    struct registry_change change = {0};
    int r = sort_puts(st);

    if (r == 0)
        r = st->full ? offer_full(known, st, &offer) : offer_change(known, st, &offer);
    if (r < 0)
        return r;
    if (told->checked && (told->digest != offer.digest || told->count != offer.count))
        return STAGING_E_DIFFERS;
    r = list_apply(known->list ? known->list : empty, st->puts, st->n_puts, offer.removed,
                   offer.n_removed, &list);
    if (r < 0)
        return r;
    r = registry_put_list(n->registry, p->id, incarnation, version, list, node_wall_s(n), &refusals,
                          &change);
    if (r == REGISTRY_E_STALE)
        return STAGING_E_STALE;
    if (r != 0)
        return r < 0 ? r : -ENOENT;
    node_changed(n, &change);
    /* Without memory for the names the entries stay in our list; the registry leaves them out again
     * at the next change. */
    drop_unplaced(&list, &offer, &refusals);
    list_unref(known->list);
    refused_set_fini(&known->refused);
    known->list = TAKE(&list);
    known->refused = offer.refused;
    offer.refused = (struct refused_set){0};
    known->digest = offer.digest;
    known->count = offer.count;
    known->incarnation = incarnation;
    known->version = version;
    peer_tell_refused(n, p);
    return 0;
}
