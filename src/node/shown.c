/* shown - what a node says of itself: its links, its counters, and whom it waits for. */
#include "node/node.h"

#include "node/inside.h"

const char *const node_link_states[N_NODE_LINK_STATES] = {
    [NODE_DIALLING] = "dialling", [NODE_OPENING] = "opening", [NODE_SYNCING] = "syncing",
    [NODE_LIVE] = "live",         [NODE_SUSPECT] = "suspect", [NODE_PARKED] = "parked",
    [NODE_REFUSED] = "refused",
};

static void describe_link(const struct node *n, const struct link *l, struct node_link_info *out)
{
    text_copy(out->peer_id, sizeof(out->peer_id), l->peer ? l->peer->id : "");
    out->address = l->addr;
    out->state = node_link_states[link_shown(l)];
    memcpy(out->session_id, l->session, SESSION_ID_LEN);
    out->has_session = l->has_session;
    out->silent_ms = n->now_ms - l->life_ms;
    out->since_ms = l->since_ms;
    out->rtt_us = l->measure.rtt_us;
    out->neighbours = l->neighbours.at;
    out->n_neighbours = l->neighbours.n;
    out->neighbours_total = l->neighbours.total;
}

static void describe_dialer(const struct node *n, const struct dialer *d,
                            struct node_link_info *out)
{
    out->address = d->addr;
    out->state = node_link_states[dialer_shown(d)];
    out->since_ms = d->since_ms;
    if (d->link)
        describe_link(n, d->link, out);
    text_copy(out->peer_id, sizeof(out->peer_id), d->met[0] ? d->met : d->expected);
    text_copy(out->configured, sizeof(out->configured), d->configured);
    text_copy(out->last_error, sizeof(out->last_error), d->last_error);
    out->attempts = d->attempts;
}

size_t node_links(const struct node *n, struct node_link_info *out_links, size_t max)
{
    const struct link *l;
    size_t count = 0;

    for (size_t i = 0; i < n->n_dialers; i++, count++) {
        if (count >= max)
            continue;
        out_links[count] = (struct node_link_info){0};
        describe_dialer(n, n->dialers[i], &out_links[count]);
    }
    for (l = n->links; l; l = l->hh.next) {
        if (l->dialer)
            continue;
        if (count < max) {
            out_links[count] = (struct node_link_info){0};
            describe_link(n, l, &out_links[count]);
        }
        count++;
    }
    return count;
}

size_t node_rtts(const struct node *n, struct node_rtt *out_rtts, size_t max)
{
    size_t count = 0;

    for (const struct peer *p = n->peers; p && count < max; p = p->hh.next) {
        const struct link *l = peer_live(n, p);

        if (!l || !l->measure.rtt_us)
            continue;
        memcpy(out_rtts[count].peer_id, p->id, sizeof(p->id));
        out_rtts[count++].us = l->measure.rtt_us;
    }
    return count;
}

void node_counters(const struct node *n, struct node_counters *out_counters)
{
    const struct link *l;

    *out_counters = n->counters;
    out_counters->leases = n->local.n_leases;
    out_counters->peers = HASH_COUNT(n->peers);
    out_counters->services_draining = n->local.n_draining;
    out_counters->backends_unhealthy = local_unhealthy(n);
    for (size_t i = 0; i < n->n_dialers; i++)
        out_counters->links[dialer_shown(n->dialers[i])]++;
    for (l = n->links; l; l = l->hh.next) {
        out_counters->links_live += l->state == LINK_LIVE;
        if (!l->dialer)
            out_counters->links[link_shown(l)]++;
    }
}

uint64_t node_incarnation(const struct node *n) { return n->incarnation; }

uint64_t node_version(const struct node *n) { return n->local.version; }

const char *node_waits_for(const struct node *n, size_t *out_count)
{
    const char *first = NULL;

    *out_count = 0;
    for (size_t i = 0; i < n->n_dialers; i++) {
        const struct dialer *d = n->dialers[i];

        if (d->was_live || d->state == DIALER_PARKED || d->state == DIALER_STOPPED)
            continue;
        if (!first)
            first = d->configured;
        ++*out_count;
    }
    return first;
}
