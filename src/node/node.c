/* node - the whole: calls in, the clock's round, and what its files need of each other.
 *
 * Every call of node.h goes through enter and leave: the time is read once, and what changed in the
 * maps is told once, however much one message changed.
 */
#include "node/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "node/inside.h"
#include "node/offer.h"
#include "node/register.h"
#include "wire/name.h"

#define LATE_MS 2000u /* the loop was late by that much: stopped, or a jump of the clock */
#define STEP_MS                                                                                    \
    10u /* node_tick looks at everything; not oftener than this for what is due later              \
         */

static void enter(struct node *n)
{
    n->now_ms = n->port->now_ms(n->port->ctx);
    n->now_us = measure_now_us(n);
}

static void leave(struct node *n)
{
    if (!n->maps_changed)
        return;
    n->maps_changed = false;
    node_event(n, NODE_MAPS_CHANGED, "", NULL, "");
}

/* ---- life ---- */

static int init(struct node *n, const struct node_settings *settings)
{
    int r;

    if (!peer_id_valid(settings->peer_id, strlen(settings->peer_id)) ||
        settings->incarnation == 0 || settings->incarnation >= INCARNATION_MAX ||
        settings->heartbeat_ms == 0)
        return -EINVAL;
    text_copy(n->peer_id, sizeof(n->peer_id), settings->peer_id);
    n->incarnation = settings->incarnation;
    n->heartbeat_ms = settings->heartbeat_ms;
    n->peer_timeout_ms = settings->peer_timeout_ms;
    n->open_timeout_ms = settings->open_timeout_ms;
    n->call_timeout_ms = settings->call_timeout_ms;
    n->limits = *settings->limits;
    r = dials_set(n, settings->dials, settings->n_dials);
    return r < 0 ? r : local_init(n, settings->services, settings->n_services);
}

int node_new(const struct node_settings *settings, struct registry *registry,
             const struct node_port *port, struct node **out_node)
{
    struct node *n = calloc(1, sizeof(*n));
    int r;

    if (!n)
        return -ENOMEM;
    arena_init(&n->arena);
    n->registry = registry;
    n->port = port;
    n->policy = settings->policy;
    n->next_ms = UINT64_MAX;
    enter(n);
    n->began_us = n->now_us;
    r = init(n, settings);
    if (r < 0) {
        node_free(n);
        return r;
    }
    leave(n);
    *out_node = n;
    return 0;
}

void node_free(struct node *n)
{
    struct link *l, *next;

    if (!n)
        return;
    HASH_ITER(hh, n->links, l, next)
    {
        HASH_DEL(n->links, l);
        sync_fini(n, l);
        neighbours_forget(l);
        free(l);
    }
    peer_free_all(n);
    local_fini(n);
    dials_free(n);
    free(n->scratch);
    free(n->scratch_at);
    free(n->scratch_names);
    arena_fini(&n->arena);
    free(n);
}

void node_start(struct node *n)
{
    enter(n);
    n->started = true;
    for (size_t i = 0; i < n->n_dialers; i++)
        dialer_start(n, n->dialers[i]);
    leave(n);
}

uint64_t node_next_ms(const struct node *n) { return n->next_ms; }

/* What is due after a round is waited for a little, so that many timers share one round. */
static uint64_t not_too_soon(const struct node *n)
{
    uint64_t soon_ms = n->now_ms + STEP_MS;

    return n->next_ms < soon_ms ? soon_ms : n->next_ms;
}

void node_tick(struct node *n)
{
    uint64_t due_ms = n->next_ms;
    struct link *l, *next_link;
    struct peer *p, *next_peer;

    enter(n);
    if (n->stopped) {
        n->next_ms = UINT64_MAX;
        return;
    }
    /* We were away, not they: what they said meanwhile is about to be read. */
    if (due_ms != UINT64_MAX && n->now_ms > due_ms + LATE_MS)
        n->grace_ms = n->now_ms + n->heartbeat_ms;
    n->next_ms = UINT64_MAX;
    if (n->now_ms < n->grace_ms)
        node_due(n, n->grace_ms);
    /* Heartbeats come first. */
    HASH_ITER(hh, n->links, l, next_link)
    link_tick(n, l);
    HASH_ITER(hh, n->peers, p, next_peer)
    peer_tick(n, p);
    for (size_t i = 0; n->started && i < n->n_dialers; i++)
        dialer_tick(n, n->dialers[i]);
    local_tick(n);
    n->next_ms = not_too_soon(n);
    leave(n);
}

void node_retry(struct node *n)
{
    if (n->stopped)
        return;
    enter(n);
    dialer_retry_all(n);
    leave(n);
}

void node_look_at_mesh(struct node *n)
{
    enter(n);
    neighbours_look(n);
    leave(n);
}

int node_set_dials(struct node *n, const struct node_dial *dials, size_t count)
{
    int r;

    enter(n);
    r = dials_set(n, dials, count);
    leave(n);
    return r;
}

void node_set_limits(struct node *n, const struct limits *limits)
{
    bool more = limits->services_per_peer > n->limits.services_per_peer ||
                limits->services_total > n->limits.services_total ||
                limits->peers > n->limits.peers;
    struct peer *p, *next;

    limits_put(&n->limits, limits);
    if (!more || n->stopped)
        return;
    enter(n);
    HASH_ITER(hh, n->peers, p, next)
    if (known_list_refused(&p->known) > 0)
        sync_ask_all(n, p, "other limits are in force");
    dialer_retry_all(n);
    leave(n);
}

void node_drain(struct node *n)
{
    struct link *l;

    if (n->draining)
        return;
    enter(n);
    n->draining = true;
    for (l = n->links; l; l = l->hh.next)
        if (link_in_session(l))
            link_send_heartbeat(n, l, 0, 0);
    leave(n);
}

void node_stop(struct node *n)
{
    struct link *l, *next;

    if (n->stopped)
        return;
    enter(n);
    n->draining = n->stopped = true;
    for (size_t i = 0; i < n->n_dialers; i++)
        dialer_stop(n->dialers[i]);
    HASH_ITER(hh, n->links, l, next)
    {
        if (link_in_session(l)) {
            link_send_heartbeat(n, l, 0, 0);
            link_goodbye(n, l, GOODBYE(LEAVING), "the node ends");
        } else {
            link_end(n, l, "the node ends");
        }
    }
    peer_drop_probes(n);
    n->next_ms = UINT64_MAX;
    leave(n);
}

/* ---- answers of the port ---- */

void node_resolved(struct node *n, uint64_t ask, int error, const struct node_addr *addrs,
                   size_t n_addrs)
{
    enter(n);
    for (size_t i = 0; i < n->n_dialers; i++)
        if (n->dialers[i]->ask == ask)
            dialer_on_resolved(n, n->dialers[i], error, addrs, n_addrs);
    leave(n);
}

void node_call_done(struct node *n, uint64_t call, const struct node_call_result *result)
{
    enter(n);
    for (size_t i = 0; i < n->n_dialers; i++)
        if (n->dialers[i]->call == call)
            dialer_on_answer(n, n->dialers[i], result);
    leave(n);
}

void node_link_up(struct node *n, uint64_t link)
{
    struct link *l = link_find(n, link);

    enter(n);
    if (l)
        link_on_up(n, l);
    leave(n);
}

void node_link_down(struct node *n, uint64_t link, uint32_t status, uint32_t reason,
                    const char *text)
{
    struct link *l = link_find(n, link);
    char why[LIMIT_STATUS_TEXT + 1];

    enter(n);
    if (l) {
        snprintf(why, sizeof(why),
                 status && !l->has_session ? "the link was refused: %.200s" : "closed: %.200s",
                 text ? text : "");
        l->refused = status && reason != REASON(TOKEN) && reason != REASON(DRAINING);
        link_gone(n, l, why);
    }
    leave(n);
}

void node_link_message(struct node *n, uint64_t link, const uint8_t *data, size_t len)
{
    struct link *l = link_find(n, link);

    enter(n);
    if (l)
        link_on_message(n, l, data, len);
    leave(n);
}

void node_checked(struct node *n, uint64_t check, int error, const char *text)
{
    enter(n);
    local_checked(n, check, error, text);
    leave(n);
}

void node_backend_seen(struct node *n, const char *name, const char *backend, bool ok,
                       const char *text)
{
    enter(n);
    local_seen(n, name, backend, ok, text);
    leave(n);
}

/* ---- what peers and programs ask ---- */

/* A link asked for earlier by the same peer that never said Hello gives way: there is one at most.
 */
static void end_unopened(struct node *n, struct peer *p)
{
    struct link *l = p->links, *next;

    for (; l; l = next) {
        next = l->next;
        if (!l->dialer && !link_in_session(l))
            link_end(n, l, "a newer link was asked for");
    }
}

void node_link_asked(struct node *n, uint64_t link, const char *peer_id,
                     const struct node_addr *from, const uint8_t token[TOKEN_LEN])
{
    struct peer *p = peer_find(n, peer_id);
    char text[LIMIT_STATUS_TEXT + 1];
    struct link *l;

    enter(n);
    if (n->stopped) {
        n->port->link_refuse(n->port->ctx, link, STATUS_UNAVAILABLE, REASON(DRAINING),
                             "the node is about to leave");
        return;
    }
    if (!node_may(n, POLICY_LINK, peer_id, "", text)) {
        n->port->link_refuse(n->port->ctx, link, STATUS_PERMISSION_DENIED, REASON(POLICY), text);
        return;
    }
    if (!p || !peer_token_take(n, p, token)) {
        n->counters.tokens_refused++;
        n->port->link_refuse(n->port->ctx, link, STATUS_UNAUTHENTICATED, REASON(TOKEN),
                             "the token is unknown, used, expired or another's");
        return;
    }
    end_unopened(n, p);
    l = link_new(n, link, NULL, p, from);
    if (!l) {
        n->port->link_refuse(n->port->ctx, link, STATUS_RESOURCE_EXHAUSTED, 0, "out of memory");
        return;
    }
    l->incarnation = p->token_incarnation;
    n->port->link_accept(n->port->ctx, link);
    leave(n);
}

void node_policy_changed(struct node *n)
{
    struct peer *p, *next;

    enter(n);
    HASH_ITER(hh, n->peers, p, next)
    peer_policy_changed(n, p);
    dialer_retry_all(n);
    leave(n);
}

void node_register(struct node *n, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__RegisterRequest *request)
{
    enter(n);
    register_peer(n, call, caller, request);
    leave(n);
}

void node_deregister(struct node *n, uint64_t call, const struct node_caller *caller,
                     const Meshd__V1__DeregisterRequest *request)
{
    enter(n);
    deregister_peer(n, call, caller, request);
    leave(n);
}

void node_offer(struct node *n, uint64_t call, const struct node_caller *caller,
                const Meshd__V1__OfferRequest *request)
{
    enter(n);
    offer_service(n, call, caller, request);
    leave(n);
}

void node_withdraw(struct node *n, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__WithdrawRequest *request)
{
    enter(n);
    offer_withdraw(n, call, caller, request);
    leave(n);
}

void node_drain_service(struct node *n, uint64_t call, const struct node_caller *caller,
                        const Meshd__V1__DrainRequest *request)
{
    enter(n);
    offer_drain(n, call, caller, request);
    leave(n);
}

int node_set_services(struct node *n, const struct node_service *services, size_t n_services)
{
    int r;

    enter(n);
    r = local_set(n, services, n_services);
    leave(n);
    return r;
}
