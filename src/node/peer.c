/* peer - records, which sessions speak for them, tokens and probes. */
#include "node/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/secret.h"
#include "node/inside.h"
#include "node/register.h"

/* Both ends of a new session are live by then, so that the duplicate goes without a gap. */
#define SETTLE_MS 500u
#define BUSY_MS 200u /* a duplicate over which forwards are being opened is looked at again */

struct peer *peer_find(struct node *n, const char *id)
{
    struct peer *p;

    HASH_FIND_STR(n->peers, id, p);
    return p;
}

int peer_open(struct node *n, const char *id, const char *ip, struct peer **out_peer)
{
    struct registry_change change = {0};
    struct peer *p = peer_find(n, id);
    int r;

    if (p) {
        *out_peer = p;
        return 0;
    }
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    text_copy(p->id, sizeof(p->id), id);
    text_copy(p->ip, sizeof(p->ip), ip);
    p->life_ms = n->now_ms;
    HASH_ADD_STR(n->peers, id, p);
    if (!p->hh.tbl) {
        free(p);
        return -ENOMEM;
    }
    r = registry_peer_open(n->registry, id, ip, p->life_ms, &p->label, &change);
    if (r != 0) {
        HASH_DEL(n->peers, p);
        free(p);
        return r;
    }
    node_changed(n, &change);
    node_due(n, p->life_ms + n->peer_timeout_ms);
    *out_peer = p;
    return 0;
}

static void peer_free(struct node *n, struct peer *p)
{
    HASH_DEL(n->peers, p);
    known_list_fini(n, &p->known);
    free(p);
}

void peer_free_all(struct node *n)
{
    struct peer *p, *next;

    HASH_ITER(hh, n->peers, p, next)
    peer_free(n, p);
}

static void tell_probed(struct node *n, const struct probe *probe, const char *id, bool in_use,
                        const char *where)
{
    if (probe->echo == 0)
        return;
    if (probe->dialer)
        dialer_on_probed(n, probe->dialer, in_use, where);
    else
        register_on_probed(n, id, probe, in_use, where);
}

/* The probe ends: whoever waits is told. in_use: the older session is alive. */
static void probe_end(struct node *n, struct peer *p, bool in_use)
{
    struct probe probe = p->probe;

    p->probe = (struct probe){0};
    tell_probed(n, &probe, p->id, in_use, p->ip);
}

void peer_gone(struct node *n, struct peer *p, const char *why)
{
    struct registry_change change = {0};
    struct probe probe = p->probe;
    char id[LIMIT_PEER_ID + 1];

    p->probe = (struct probe){0};
    text_copy(id, sizeof(id), p->id);
    while (p->links)
        link_end(n, p->links, why);
    node_event(n, NODE_PEER_GONE, p->id, NULL, why);
    if (registry_peer_gone(n->registry, p->id, why, node_wall_s(n), &change) == 0)
        node_changed(n, &change);
    peer_free(n, p);
    tell_probed(n, &probe, id, false, "");
}

static void turn_away(struct node *n, struct peer *p, const char *text)
{
    node_event(n, NODE_LINK_REFUSED, p->id, NULL, text);
    while (p->links) {
        struct link *l = p->links;

        if (link_in_session(l))
            link_goodbye(n, l, GOODBYE(POLICY), text);
        else
            link_end(n, l, text);
    }
    peer_gone(n, p, "not allowed");
}

void peer_policy_changed(struct node *n, struct peer *p)
{
    char text[LIMIT_STATUS_TEXT + 1];

    if (!node_may(n, POLICY_LINK, p->id, "", text)) {
        turn_away(n, p, text);
        return;
    }
    if (staging_policy_changed(n, p) < 0 || known_list_has_forgotten(&p->known))
        sync_ask_all(n, p, "other rules are in force");
}

/* ---- which session speaks ---- */

/* Of two links between the same two peers the one stays that the lower id dialled. */
static bool stays(const struct node *n, const struct peer *p, const struct link *l)
{
    return (strcmp(n->peer_id, p->id) < 0) == (l->dialer != NULL);
}

struct link *peer_live(const struct node *n, const struct peer *p)
{
    struct link *best = NULL;

    for (struct link *l = p->links; l; l = l->next)
        if (l->state == LINK_LIVE && (!best || (stays(n, p, l) && !stays(n, p, best))))
            best = l;
    return best;
}

void peer_show(struct node *n, struct peer *p)
{
    const struct link *live = peer_live(n, p);
    struct registry_state state = {.last_seen_ms = p->life_ms, .draining = p->draining};
    struct registry_change change = {0};

    if (live) {
        p->was_live = true;
        state.connected = true;
        state.link_id = live->number;
        memcpy(state.session_id, live->session, SESSION_ID_LEN);
    }
    state.stale = !live && p->was_live;
    if (registry_peer_state(n->registry, p->id, &state, &change) == 0)
        node_changed(n, &change);
}

void peer_alive(struct node *n, struct peer *p) { p->life_ms = n->now_ms; }

/* The link that is one too many, once both are live for a moment and nobody waits for an answer
 * over it; NULL: none. */
static struct link *find_duplicate(struct node *n, const struct peer *p)
{
    struct link *keep = peer_live(n, p);

    for (struct link *l = p->links; keep && l; l = l->next) {
        uint64_t both_ms;

        if (l == keep || l->state != LINK_LIVE || l->incarnation != keep->incarnation)
            continue;
        both_ms = (l->live_ms > keep->live_ms ? l->live_ms : keep->live_ms) + SETTLE_MS;
        if (n->now_ms < both_ms)
            node_due(n, both_ms);
        else if (n->now_ms < both_ms + n->open_timeout_ms &&
                 n->port->link_busy(n->port->ctx, l->number))
            node_due(n, n->now_ms + BUSY_MS);
        else
            return l;
    }
    return NULL;
}

static void end_duplicate(struct node *n, struct link *l)
{
    struct dialer *d = l->dialer;

    if (d)
        dialer_park(n, d);
    link_goodbye(n, l, GOODBYE(DUPLICATE), "another link to the same peer stays");
}

void peer_tick(struct node *n, struct peer *p)
{
    struct link *duplicate;
    uint64_t gone_ms = p->life_ms + n->peer_timeout_ms;

    if (p->probe.echo != 0 && n->now_ms >= p->probe.until_ms) {
        struct link *l = p->links, *next;

        /* Nobody answered: the older sessions are over, the newcomer may come. */
        for (; l; l = next) {
            next = l->next;
            if (link_in_session(l) && l->incarnation != p->probe.incarnation)
                link_end(n, l, "no answer to a probe; another instance of the peer came");
        }
        probe_end(n, p, false);
    } else if (p->probe.echo != 0) {
        node_due(n, p->probe.until_ms);
    }
    while ((duplicate = find_duplicate(n, p)))
        end_duplicate(n, duplicate);
    if (gone_ms < n->grace_ms)
        gone_ms = n->grace_ms;
    if (n->now_ms >= gone_ms)
        peer_gone(n, p, "timed out");
    else
        node_due(n, gone_ms);
}

/* ---- tokens ---- */

bool peer_token_take(struct node *n, struct peer *p, const uint8_t token[TOKEN_LEN])
{
    if (!secret_equal(p->token, token, TOKEN_LEN) || p->token_until_ms == 0 ||
        n->now_ms > p->token_until_ms)
        return false;
    p->token_until_ms = 0;
    return true;
}

/* ---- probes ---- */

enum peer_probed peer_probe(struct node *n, struct peer *p, uint64_t incarnation)
{
    bool asked = false;
    uint64_t echo;

    if (p->probe.echo != 0)
        return PEER_PROBE_BUSY;
    echo = node_random(n) | 1;
    for (struct link *l = p->links; l; l = l->next) {
        if (!link_in_session(l) || l->incarnation == incarnation)
            continue;
        link_send_heartbeat(n, l, echo, 0);
        asked = true;
    }
    if (!asked)
        return PEER_PROBE_NONE;
    n->counters.probes++;
    p->probe =
        (struct probe){.echo = echo, .until_ms = n->now_ms + PROBE_MS, .incarnation = incarnation};
    node_due(n, p->probe.until_ms);
    return PEER_PROBE_ASKED;
}

void peer_probe_forget(struct node *n, struct dialer *d)
{
    struct peer *p, *next;

    HASH_ITER(hh, n->peers, p, next)
    if (p->probe.dialer == d)
        p->probe = (struct probe){0};
}

void peer_drop_probes(struct node *n)
{
    struct peer *p, *next;

    HASH_ITER(hh, n->peers, p, next)
    probe_end(n, p, false);
}

void peer_probe_answered(struct node *n, struct peer *p, struct link *l, uint64_t echo,
                         uint64_t incarnation)
{
    if (p->probe.echo == 0 || p->probe.echo != echo)
        return;
    /* The same instance, which has raised its incarnation meanwhile, is no second one. */
    probe_end(n, p, incarnation != p->probe.incarnation);
}

void peer_tell_refused(struct node *n, struct peer *p)
{
    size_t total = known_list_refused(&p->known), named = 0;
    char text[LIMIT_STATUS_TEXT + 1];
    Meshd__V1__Refused **refused = NULL;

    if (total != 0 && total != p->refused_told &&
        known_list_refused_messages(n, p, &named, &refused) == 0) {
        snprintf(text, sizeof(text), "%zu of its services were left out, %.80s: %.100s", total,
                 named ? refused[0]->name : "", named ? refused[0]->text : "");
        node_event(n, NODE_ENTRIES_REFUSED, p->id, NULL, text);
        free(refused);
    }
    p->refused_told = total;
}
