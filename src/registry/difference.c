/* difference - both snapshots have their peers in one order, so that walks pass both once. */
#include "registry/difference.h"

#include <string.h>

struct walk {
    const struct difference_visit *visit;
    bool all_changed; /* the owner's state is another */
};

/* How an owner introduces clients to its backend is not told. */
static bool told_differs(const struct row *before, const struct row *after)
{
    return (before->flags & ROW_TOLD) != (after->flags & ROW_TOLD) ||
           strcmp(before->backend, after->backend) != 0;
}

static int on_row(void *ctx, struct row *before, struct row *after)
{
    const struct walk *walk = ctx;

    if (before && after && (walk->all_changed || !told_differs(before, after)))
        return 0; /* told with all the others, or nobody's business */
    return walk->visit->row(walk->visit->ctx, before, after);
}

/* Rows that were there and still are, of an owner whose state is another now. */
static int visit_changed(const struct walk *walk, const struct list *before,
                         const struct list *after)
{
    struct list_iter it;
    struct row *row;
    int r = 0;

    list_iter_init(&it, after);
    while (r == 0 && (row = list_iter_next(&it)) != NULL)
        if (list_find(before, row->name, row->name_len))
            r = walk->visit->row(walk->visit->ctx, row, row);
    return r;
}

static bool state_differs(const struct registry_state *a, const struct registry_state *b)
{
    return a->connected != b->connected || a->stale != b->stale || a->draining != b->draining;
}

/* One owner; before or after is NULL for a peer that came or went. */
static int diff_owner(struct walk *walk, const struct snapshot_peer *before, const struct list *old,
                      const struct snapshot_peer *after, const struct list *new)
{
    bool went = before && !after;
    struct difference_owner owner = {
        .before = before,
        .after = after,
        .why = !went                 ? "withdrawn"
               : before->state.stale ? "timed out"
                                     : "left",
    };
    int r;

    walk->all_changed = before && after && state_differs(&before->state, &after->state);
    if (old == new && !walk->all_changed && !before == !after)
        return 0;
    r = walk->visit->owner(walk->visit->ctx, &owner);
    if (r == 0)
        r = list_diff(old, new, on_row, walk);
    if (r == 0 && walk->all_changed)
        r = visit_changed(walk, old, new);
    return r;
}

static bool same_peer(const struct snapshot_peer *a, const struct snapshot_peer *b)
{
    return strcmp(a->peer_id, b->peer_id) == 0 && strcmp(a->label, b->label) == 0;
}

/* The place of peer in snap, from place `first` on; n_peers: it is not there. */
static size_t find_peer(const struct snapshot *snap, size_t first, const struct snapshot_peer *peer)
{
    while (first < snap->n_peers && !same_peer(peer, &snap->peers[first]))
        first++;
    return first;
}

/* Those of from that are not in to any more. */
static int diff_gone(struct walk *walk, const struct snapshot *from, const struct snapshot *to,
                     const struct list *none)
{
    size_t t = 0, at;
    int r = 0;

    for (size_t f = 0; r == 0 && f < from->n_peers; f++) {
        at = find_peer(to, t, &from->peers[f]);
        if (at == to->n_peers)
            r = diff_owner(walk, &from->peers[f], from->peers[f].list, NULL, none);
        else
            t = at + 1;
    }
    return r;
}

/* Those of to, whether they are new or not. */
static int diff_there(struct walk *walk, const struct snapshot *from, const struct snapshot *to,
                      const struct list *none)
{
    size_t f = 0, at;
    int r = 0;

    for (size_t t = 0; r == 0 && t < to->n_peers; t++) {
        const struct snapshot_peer *after = &to->peers[t];

        at = find_peer(from, f, after);
        if (at == from->n_peers) {
            r = diff_owner(walk, NULL, none, after, after->list);
        } else {
            r = diff_owner(walk, &from->peers[at], from->peers[at].list, after, after->list);
            f = at + 1;
        }
    }
    return r;
}

int snapshot_diff(const struct snapshot *from, const struct snapshot *to,
                  const struct difference_visit *visit)
{
    struct walk walk = {.visit = visit};
    struct list *none = list_empty();
    int r = diff_owner(&walk, NULL, from->local, NULL, to->local);

    if (r == 0)
        r = diff_gone(&walk, from, to, none);
    if (r == 0)
        r = diff_there(&walk, from, to, none);
    list_unref(none);
    return r;
}
