/* neighbours - see neighbours.h. */
#include "node/neighbours.h"

#include <stdlib.h>
#include "node/inside.h"
#include "wire/name.h"

#define LOOK_MS 10000u /* somebody who looks says so more often */
#define TELL_MS 1000u

bool neighbours_wanted(const struct node *n)
{
    return n->now_ms < n->mesh_ms && HASH_COUNT(n->links) <= LIMIT_NEIGHBOURS;
}

void neighbours_look(struct node *n)
{
    bool before = neighbours_wanted(n);
    struct link *l, *next;

    n->mesh_ms = n->now_ms + LOOK_MS;
    if (before || !neighbours_wanted(n))
        return;
    HASH_ITER(hh, n->links, l, next)
    {
        if (l->state == LINK_LIVE)
            link_send_heartbeat(n, l, 0, 0);
    }
}

/* ---- ours ---- */

struct told {
    Meshd__V1__Neighbours all;
    Meshd__V1__Neighbour rows[LIMIT_NEIGHBOURS], *at[LIMIT_NEIGHBOURS];
};

static void put(struct told *told, const struct link *to, const char *peer_id,
                enum node_link_state state, const struct link *l)
{
    Meshd__V1__Neighbour *row = &told->rows[told->all.n_neighbours];

    if (!peer_id[0] || strcmp(peer_id, to->peer->id) == 0)
        return;
    told->all.total++;
    if (told->all.n_neighbours == LIMIT_NEIGHBOURS)
        return;
    meshd__v1__neighbour__init(row);
    row->peer_id = (char *)peer_id;
    row->state = (char *)node_link_states[state];
    row->rtt_us = l ? l->measure.rtt_us : 0;
    told->at[told->all.n_neighbours++] = row;
}

void neighbours_tell(struct node *n, struct link *l)
{
    char rule[POLICY_RULE_TEXT];
    struct told told;

    if (l->neighbours.told_ms && n->now_ms < l->neighbours.told_ms + TELL_MS)
        return;
    if (!policy_would(n->policy, POLICY_INTROSPECT, l->peer->id, "", rule))
        return;
    l->neighbours.told_ms = n->now_ms;
    meshd__v1__neighbours__init(&told.all);
    told.all.neighbours = told.at;
    for (size_t i = 0; i < n->n_dialers; i++) {
        const struct dialer *d = n->dialers[i];

        if (d->state != DIALER_PARKED && d->state != DIALER_STOPPED)
            put(&told, l, d->met[0] ? d->met : d->expected, dialer_shown(d), d->link);
    }
    for (const struct link *other = n->links; other; other = other->hh.next)
        if (!other->dialer && other->peer)
            put(&told, l, other->peer->id, link_shown(other), other);
    link_send(n, l, NODE_BULK, KIND(NEIGHBOURS), &told.all.base);
}

/* ---- theirs ---- */

static bool state_of(const char *word, enum node_link_state *out_state)
{
    for (int i = 0; i < N_NODE_LINK_STATES; i++) {
        if (strcmp(word, node_link_states[i]) == 0) {
            *out_state = (enum node_link_state)i;
            return true;
        }
    }
    return false;
}

static bool take(const Meshd__V1__Neighbour *from, struct node_neighbour *out)
{
    size_t len = strlen(from->peer_id);

    if (!peer_id_valid(from->peer_id, len) || !state_of(from->state, &out->state))
        return false;
    memcpy(out->peer_id, from->peer_id, len + 1);
    out->rtt_us = from->rtt_us;
    return true;
}

bool neighbours_on_message(struct node *n, struct link *l, const Meshd__V1__Neighbours *said)
{
    struct node_neighbour *at;

    if (said->n_neighbours > LIMIT_NEIGHBOURS || said->total < said->n_neighbours)
        return false;
    at = calloc(said->n_neighbours + 1, sizeof(*at));
    for (size_t i = 0; at && i < said->n_neighbours; i++) {
        if (!take(said->neighbours[i], &at[i])) {
            free(at);
            return false;
        }
    }
    if (!at || !neighbours_wanted(n)) { /* without memory it is not shown */
        free(at);
        return true;
    }
    neighbours_forget(l);
    l->neighbours.at = at;
    l->neighbours.n = said->n_neighbours;
    l->neighbours.total = said->total;
    l->neighbours.came_ms = n->now_ms;
    return true;
}

void neighbours_tick(struct node *n, struct link *l)
{
    uint64_t good_ms = LOOK_MS + 3 * (uint64_t)n->heartbeat_ms;

    if (l->neighbours.at && (!neighbours_wanted(n) || n->now_ms > l->neighbours.came_ms + good_ms))
        neighbours_forget(l);
}

void neighbours_forget(struct link *l)
{
    free(l->neighbours.at);
    l->neighbours.at = NULL;
    l->neighbours.n = 0;
    l->neighbours.total = 0;
}
