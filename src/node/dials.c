/* dials - the peers that are configured, and others in their place while the node runs.
 *
 * A dial that stays keeps its dialer, and with it its link, its back-off and what it has met. One
 * that goes tells its peer so, unless there is another way to that peer: then only the link goes.
 */
#include <errno.h>
#include <stdlib.h>
#include "node/inside.h"

static const char let_go_text[] = "not dialled any more";

/* Another link than l, or another dial that leads there. */
static bool has_other_way(const struct node *n, const struct peer *p, const struct link *l)
{
    for (const struct link *other = p->links; other; other = other->next)
        if (other != l)
            return true;
    for (size_t i = 0; i < n->n_dialers; i++)
        if (strcmp(n->dialers[i]->met, p->id) == 0 || strcmp(n->dialers[i]->expected, p->id) == 0)
            return true;
    return false;
}

/* d is none of the node's any more. */
static void let_go(struct node *n, struct dialer *d)
{
    struct link *l = d->link;
    struct peer *p = l && l->peer ? l->peer : peer_find(n, d->met);
    bool stays = p && has_other_way(n, p, l);

    peer_probe_forget(n, d);
    if (l)
        l->dialer = NULL;
    if (l && link_in_session(l))
        link_goodbye(n, l, stays ? GOODBYE(DUPLICATE) : GOODBYE(LEAVING), let_go_text);
    else if (l)
        link_end(n, l, let_go_text);
    if (p && !stays)
        peer_gone(n, p, let_go_text);
    free(d);
}

/* Whoever answers there is whom the dial means. */
static bool is_for(const struct dialer *d, const char *expected)
{
    return strcmp(d->expected, expected) == 0 ||
           (d->state == DIALER_LINKED && (!expected[0] || strcmp(d->met, expected) == 0));
}

static const char *expected_of(const struct node_dial *dial)
{
    return dial->peer_id ? dial->peer_id : "";
}

/* Fills fresh with the old dialers that stay, which are marked, and new ones. */
static int gather(struct node *n, const struct node_dial *dials, size_t count,
                  struct dialer **fresh)
{
    struct dialer *old = NULL, *d;
    char configured[sizeof(d->configured)];
    int r = 0;

    for (size_t i = 0; r == 0 && i < n->n_dialers; i++) {
        d = n->dialers[i];
        HASH_ADD_STR(old, configured, d);
        r = d->hh.tbl ? 0 : -ENOMEM;
    }
    for (size_t i = 0; r == 0 && i < count; i++) {
        dialer_text(&dials[i], configured, sizeof(configured));
        HASH_FIND_STR(old, configured, d);
        if (d && is_for(d, expected_of(&dials[i]))) {
            HASH_DEL(old, d);
            d->stays = true;
            fresh[i] = d;
        } else {
            r = dialer_new(&dials[i], &fresh[i]);
        }
    }
    HASH_CLEAR(hh, old);
    return r;
}

static void drop_new(struct dialer **fresh, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fresh[i] && !fresh[i]->stays)
            free(fresh[i]);
    free(fresh);
}

int dials_set(struct node *n, const struct node_dial *dials, size_t count)
{
    struct dialer **fresh, **old = n->dialers;
    size_t n_old = n->n_dialers;
    int r;

    if (count > n->limits.peers)
        return -ENOSPC;
    fresh = calloc(count + 1, sizeof(*fresh));
    if (!fresh)
        return -ENOMEM;
    r = gather(n, dials, count, fresh);
    if (r < 0) {
        drop_new(fresh, count);
        for (size_t i = 0; i < n_old; i++)
            old[i]->stays = false;
        return r;
    }
    n->dialers = fresh;
    n->n_dialers = count;
    for (size_t i = 0; i < count; i++)
        text_copy(fresh[i]->expected, sizeof(fresh[i]->expected), expected_of(&dials[i]));
    for (size_t i = 0; i < n_old; i++)
        if (!old[i]->stays)
            let_go(n, old[i]);
    free(old);
    for (size_t i = 0; i < count; i++) {
        if (!fresh[i]->stays && n->started && !n->stopped)
            dialer_start(n, fresh[i]);
        fresh[i]->stays = false;
    }
    return 0;
}

void dials_free(struct node *n)
{
    for (size_t i = 0; i < n->n_dialers; i++)
        free(n->dialers[i]);
    free(n->dialers);
}
