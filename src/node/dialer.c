/* dialer - one attempt after another: resolve, Register, open the link to the very address that
 * answered. Whatever fails leads back to waiting.
 */
#include "node/dialer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "node/inside.h"
#include "wire/name.h"

#define METHOD_REGISTER "/meshd.v1.Registry/RegisterServices"
#define RESOLVE_MS 500u     /* then the last good answer does */
#define CALL_SLACK_MS 1000u /* the port answers within the deadline and a little */
#define NOT_AT_ONCE_MS 50u  /* between the end of an attempt and the next one */
#define SETTLED_MS 10000u   /* live for that long: the next loss is a new story */
#define LIST_BUDGET 921600u /* of a Register's list; a larger one comes by Sync */
#define MESSAGE_ROOM 8192u

void dialer_text(const struct node_dial *dial, char *out, size_t size)
{
    snprintf(out, size, strchr(dial->host, ':') ? "[%s]:%u" : "%s:%u", dial->host, dial->port);
}

int dialer_new(const struct node_dial *dial, struct dialer **out_dialer)
{
    const char *expected = dial->peer_id ? dial->peer_id : "";
    struct dialer *d;

    if (!dial->host[0] || strlen(dial->host) > LIMIT_NAME || dial->port == 0 ||
        strlen(expected) > LIMIT_PEER_ID)
        return -EINVAL;
    d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->port = dial->port;
    d->wake_ms = UINT64_MAX;
    text_copy(d->host, sizeof(d->host), dial->host);
    text_copy(d->expected, sizeof(d->expected), expected);
    dialer_text(dial, d->configured, sizeof(d->configured));
    backoff_init(&d->backoff, DIALER_MIN_MS, DIALER_MAX_MS);
    *out_dialer = d;
    return 0;
}

static void set_state(struct node *n, struct dialer *d, enum dialer_state state)
{
    d->state = state;
    d->since_ms = n->now_ms;
}

static void wake_at(struct node *n, struct dialer *d, uint64_t at_ms)
{
    d->wake_ms = at_ms;
    node_due(n, at_ms);
}

static void wait_for(struct node *n, struct dialer *d, uint32_t wait_ms)
{
    uint64_t at = n->now_ms + wait_ms;

    if (at > d->begun_ms + DIALER_ROUND_MS)
        at = d->begun_ms + DIALER_ROUND_MS;
    if (at < n->now_ms + NOT_AT_ONCE_MS)
        at = n->now_ms + NOT_AT_ONCE_MS;
    set_state(n, d, DIALER_WAITING);
    wake_at(n, d, at);
}

/* Refused: who is there will not think otherwise soon, so it is tried at the slowest pace. */
static void fail(struct node *n, struct dialer *d, const char *why, bool refused)
{
    char text[LIMIT_STATUS_TEXT + 1];

    text_copy(text, sizeof(text), why);
    n->counters.dials_failed++;
    d->call = 0;
    d->next_addr++;
    d->refused = refused;
    if (refused)
        d->backoff.next_ms = d->backoff.max_ms;
    text_copy(d->last_error, sizeof(d->last_error), text);
    if (strcmp(d->told_error, text) != 0) {
        enum node_event_kind kind = refused ? NODE_LINK_REFUSED : NODE_DIAL_FAILED;

        text_copy(d->told_error, sizeof(d->told_error), text);
        if (d->addr.ip[0])
            node_event(n, kind, d->met, &d->addr, text);
        else /* its name has no address yet */
            node_event_at(n, kind, d->met, d->configured, text);
    }
    wait_for(n, d, backoff_next(&d->backoff, node_random(n)));
}

void dialer_stop(struct dialer *d)
{
    d->state = DIALER_STOPPED;
    d->ask = d->call = 0;
    d->wake_ms = UINT64_MAX;
}

void dialer_stop_for_ever(struct node *n, struct dialer *d)
{
    dialer_stop(d);
    d->since_ms = n->now_ms;
    d->refused = true;
    text_copy(d->last_error, sizeof(d->last_error),
              "the peer id there is this node's own: it is this node, or PEER_NAME was given "
              "twice; not dialled any more");
    node_event(n, NODE_LINK_REFUSED, n->peer_id, &d->addr, d->last_error);
}

/* ---- parking ---- */

/* A link to the peer met that would stay beside one of this dialer's. */
static bool has_survivor(struct node *n, const struct dialer *d)
{
    const struct peer *p = d->met[0] ? peer_find(n, d->met) : NULL;

    for (const struct link *l = p ? p->links : NULL; l; l = l->next)
        if (l->state == LINK_LIVE && l != d->link && (l->dialer || strcmp(p->id, n->peer_id) < 0))
            return true;
    /* Two addresses of one peer: the first that got through does. */
    for (size_t i = 0; d->met[0] && i < n->n_dialers; i++) {
        const struct dialer *other = n->dialers[i];

        if (other != d && other->state == DIALER_LINKED && strcmp(other->met, d->met) == 0)
            return true;
    }
    return false;
}

bool dialer_park(struct node *n, struct dialer *d)
{
    if (!has_survivor(n, d))
        return false;
    if (d->link)
        d->link->dialer = NULL;
    d->link = NULL;
    d->refused = false;
    d->call = 0;
    set_state(n, d, DIALER_PARKED);
    d->wake_ms = UINT64_MAX;
    node_event(n, NODE_LINK_PARKED, d->met, &d->addr, "another link to the same peer stays");
    return true;
}

void dialer_unpark_all(struct node *n)
{
    for (size_t i = 0; i < n->n_dialers; i++) {
        struct dialer *d = n->dialers[i];

        if (d->state == DIALER_PARKED && !has_survivor(n, d))
            wait_for(n, d, 0);
    }
}

void dialer_restart_all(struct node *n)
{
    for (size_t i = 0; i < n->n_dialers; i++) {
        struct dialer *d = n->dialers[i];

        if (d->state == DIALER_CALLING || d->state == DIALER_PROBING) {
            d->call = 0;
            peer_probe_forget(n, d);
            wait_for(n, d, 0);
        } else if (d->state == DIALER_LINKED && !link_in_session(d->link)) {
            struct link *l = d->link;

            l->dialer = NULL;
            d->link = NULL;
            wait_for(n, d, 0);
            link_end(n, l, "begun under an older incarnation");
        }
    }
}

void dialer_retry_all(struct node *n)
{
    for (size_t i = 0; i < n->n_dialers; i++) {
        struct dialer *d = n->dialers[i];

        if (d->state != DIALER_WAITING)
            continue;
        backoff_reset(&d->backoff);
        wait_for(n, d, 0);
    }
}

/* ---- one attempt ---- */

static void call(struct node *n, struct dialer *d)
{
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;
    uint64_t end_ms = d->begun_ms + DIALER_ROUND_MS - CALL_SLACK_MS;
    uint32_t deadline_ms = n->call_timeout_ms;
    size_t budget = n->limits.message_bytes - MESSAGE_ROOM;

    if (n->now_ms + deadline_ms > end_ms)
        deadline_ms = end_ms > n->now_ms + 1 ? (uint32_t)(end_ms - n->now_ms) : 1;
    d->addr = d->addrs[d->next_addr % d->n_addrs];
    request.peer_id = n->peer_id;
    request.incarnation = n->incarnation;
    request.version = n->local.version;
    request.count = (uint32_t)list_count(n->local.list);
    request.digest = list_digest(n->local.list);
    request.has_list =
        !d->list_later && sync_whole_list(n, budget < LIST_BUDGET ? budget : LIST_BUDGET,
                                          &request.n_services, &request.services);
    request.wire_version_min = WIRE_VERSION_MIN;
    request.wire_version_max = WIRE_VERSION_MAX;
    request.draining = n->draining;
    d->call = node_number(n);
    set_state(n, d, DIALER_CALLING);
    wake_at(n, d, n->now_ms + deadline_ms + CALL_SLACK_MS);
    n->port->call(n->port->ctx, d->call, &d->addr, d->expected, METHOD_REGISTER, &request.base,
                  deadline_ms);
}

static void begin(struct node *n, struct dialer *d)
{
    d->begun_ms = n->now_ms;
    if (dialer_park(n, d))
        return;
    d->attempts++;
    n->counters.dials++;
    if (d->ask != 0 && d->n_addrs > 0) {
        call(n, d); /* the resolver has not answered since the last attempt */
        return;
    }
    set_state(n, d, DIALER_RESOLVING);
    wake_at(n, d, n->now_ms + (d->n_addrs > 0 ? RESOLVE_MS : DIALER_ROUND_MS));
    if (d->ask == 0) {
        d->ask = node_number(n);
        n->port->resolve(n->port->ctx, d->ask, d->host, d->port);
    }
}

void dialer_start(struct node *n, struct dialer *d) { begin(n, d); }

void dialer_on_resolved(struct node *n, struct dialer *d, int error, const struct node_addr *addrs,
                        size_t n_addrs)
{
    char text[128] = "its name has no address";

    d->ask = 0;
    if (error == 0 && n_addrs > 0) {
        d->n_addrs = n_addrs < DIALER_ADDRS_MAX ? n_addrs : DIALER_ADDRS_MAX;
        memcpy(d->addrs, addrs, d->n_addrs * sizeof(*addrs));
    }
    if (d->state != DIALER_RESOLVING)
        return;
    if (d->n_addrs > 0) {
        call(n, d);
        return;
    }
    if (error == -EAGAIN)
        snprintf(text, sizeof(text), "its name cannot be looked up now: no name server answers");
    else if (error < 0 && error != -ENOENT)
        snprintf(text, sizeof(text), "its name cannot be looked up: %s", strerror(-error));
    fail(n, d, text, false);
}

static void open_link(struct node *n, struct dialer *d)
{
    struct link *l = link_new(n, node_number(n), d, NULL, &d->addr);

    if (!l) {
        fail(n, d, "out of memory", false);
        return;
    }
    d->link = l;
    d->refused = false;
    set_state(n, d, DIALER_LINKED);
    d->wake_ms = UINT64_MAX;
    n->port->link_dial(n->port->ctx, l->number, &d->addr, d->met, d->token);
}

void dialer_on_probed(struct node *n, struct dialer *d, bool in_use, const char *where)
{
    char text[LIMIT_STATUS_TEXT + 1];

    if (d->state != DIALER_PROBING)
        return;
    if (in_use) {
        snprintf(text, sizeof(text), "the peer id is in use by another live node at %s", where);
        fail(n, d, text, true);
    } else {
        open_link(n, d);
    }
}

static bool proves(const struct node_call_result *result, const char *peer_id)
{
    for (size_t i = 0; result->secure && i < LIMIT_CERT_NAMES && result->names[i][0]; i++)
        if (strcmp(result->names[i], peer_id) == 0)
            return true;
    return !result->secure;
}

static void fail_unproved(struct node *n, struct dialer *d, const struct node_call_result *result,
                          const char *peer_id)
{
    char text[LIMIT_STATUS_TEXT + 1];

    snprintf(text, sizeof(text), "its certificate names %s, but it says that it is %s",
             result->names[0][0] ? result->names[0] : "no peer", peer_id);
    fail(n, d, text, true);
}

/* Somebody answered who is willing: is it who we look for, and do we need this link? */
static void meet(struct node *n, struct dialer *d, const struct node_call_result *result,
                 const Meshd__V1__RegisterReply *reply)
{
    char text[LIMIT_STATUS_TEXT + 1];
    struct peer *p;

    if (reply->token.len != TOKEN_LEN || !peer_id_valid(reply->peer_id, strlen(reply->peer_id)) ||
        reply->incarnation == 0 || reply->incarnation > INCARNATION_MAX) {
        fail(n, d, "the answer to Register makes no sense", true);
        return;
    }
    if (!proves(result, reply->peer_id)) {
        fail_unproved(n, d, result, reply->peer_id);
        return;
    }
    text_copy(d->met, sizeof(d->met), reply->peer_id);
    d->met_incarnation = reply->incarnation;
    memcpy(d->token, reply->token.data, TOKEN_LEN);
    if (strcmp(d->met, n->peer_id) == 0) {
        dialer_stop_for_ever(n, d);
        return;
    }
    if (d->expected[0] && strcmp(d->met, d->expected) != 0) {
        snprintf(text, sizeof(text),
                 "peer %s is expected there, but %s answers: check REMOTE_PEER_ADDR", d->expected,
                 d->met);
        fail(n, d, text, true);
        return;
    }
    if (!node_may(n, POLICY_LINK, d->met, "", text)) {
        fail(n, d, text, true);
        return;
    }
    if (dialer_park(n, d))
        return;
    p = peer_find(n, d->met);
    switch (p ? peer_probe(n, p, reply->incarnation) : PEER_PROBE_NONE) {
    case PEER_PROBE_NONE:
        open_link(n, d);
        break;
    case PEER_PROBE_ASKED:
        p->probe.dialer = d;
        set_state(n, d, DIALER_PROBING);
        d->wake_ms = UINT64_MAX;
        break;
    case PEER_PROBE_BUSY:
        fail(n, d, "another instance of the peer is being looked at", false);
        break;
    }
}

/* A peer that will take us answered: the cut that has made the back-off long is over. Once until a
 * link is live, or it could keep us at the quickest pace. */
static void has_answered(struct dialer *d)
{
    if (!d->answered)
        backoff_reset(&d->backoff);
    d->answered = true;
}

static void refused(struct node *n, struct dialer *d, const struct node_call_result *result)
{
    const Meshd__V1__RegisterReply *reply;
    ProtobufCMessage *message;
    char text[LIMIT_STATUS_TEXT + 1];
    bool for_long = result->reason == REASON(ID_IN_USE) || result->reason == REASON(WIRE_VERSION) ||
                    result->status == STATUS_PERMISSION_DENIED;

    /* For ever: not on the word of somebody else. */
    if (result->reason == REASON(SELF)) {
        if (proves(result, n->peer_id))
            dialer_stop_for_ever(n, d);
        else
            fail_unproved(n, d, result, n->peer_id);
        return;
    }
    if (result->reason == REASON(INCARNATION) &&
        wire_unpack(&meshd__v1__register_reply__descriptor, result->body, result->body_len,
                    &n->arena, &message) == 0) {
        reply = (const Meshd__V1__RegisterReply *)message;
        if (reply->known_incarnation >= n->incarnation &&
            reply->known_incarnation < INCARNATION_MAX) {
            /* Not at once: who answers this way again and again must not make us run. */
            has_answered(d);
            wait_for(n, d, backoff_next(&d->backoff, node_random(n)));
            node_raise(n, reply->known_incarnation, d->addr.ip);
            return;
        }
    }
    snprintf(text, sizeof(text), "refused: %.150s (%s)%s", result->text ? result->text : "",
             status_name(result->status),
             result->reason == REASON(ID_IN_USE) ? "; give one of the two another PEER_NAME" : "");
    fail(n, d, text, for_long);
}

void dialer_on_answer(struct node *n, struct dialer *d, const struct node_call_result *result)
{
    ProtobufCMessage *message;

    d->call = 0;
    if (d->state != DIALER_CALLING)
        return;
    arena_reset(&n->arena);
    if (result->error == -ETIMEDOUT)
        d->list_later = true;
    if (result->error != 0)
        fail(n, d, result->text && result->text[0] ? result->text : strerror(-result->error),
             result->error == -EACCES);
    else if (result->status != STATUS_OK)
        refused(n, d, result);
    else if (wire_unpack(&meshd__v1__register_reply__descriptor, result->body, result->body_len,
                         &n->arena, &message) != 0)
        fail(n, d, "the answer to Register cannot be read", true);
    else
        meet(n, d, result, (const Meshd__V1__RegisterReply *)message);
}

void dialer_on_live(struct node *n, struct dialer *d)
{
    d->was_live = true;
    d->list_later = d->answered = false;
    d->attempts = 0;
    d->last_error[0] = d->told_error[0] = '\0';
    d->since_ms = n->now_ms;
}

void dialer_on_link_end(struct node *n, struct dialer *d, const struct link *l, const char *why)
{
    d->link = NULL;
    if (d->state != DIALER_LINKED)
        return;
    if (l->live_ms == 0) {
        /* Its record of us timed out in between, or what it had to say before broke off. */
        if (!l->refused)
            has_answered(d);
        fail(n, d, why, l->refused);
        return;
    }
    if (n->now_ms - l->live_ms > SETTLED_MS)
        backoff_reset(&d->backoff);
    text_copy(d->last_error, sizeof(d->last_error), why);
    wait_for(n, d, backoff_next(&d->backoff, node_random(n)));
}

void dialer_tick(struct node *n, struct dialer *d)
{
    if (n->now_ms < d->wake_ms) {
        if (d->wake_ms != UINT64_MAX)
            node_due(n, d->wake_ms);
        return;
    }
    switch (d->state) {
    case DIALER_WAITING:
        begin(n, d);
        break;
    case DIALER_RESOLVING:
        if (d->n_addrs > 0)
            call(n, d);
        else
            fail(n, d, "the resolver does not answer", false);
        break;
    case DIALER_CALLING:
        fail(n, d, "no answer to Register", false);
        break;
    case DIALER_PROBING:
    case DIALER_LINKED:
    case DIALER_PARKED:
    case DIALER_STOPPED:
        break;
    }
}

enum node_link_state dialer_shown(const struct dialer *d)
{
    if (d->state == DIALER_LINKED)
        return link_shown(d->link);
    if (d->state == DIALER_PARKED)
        return NODE_PARKED;
    return d->refused ? NODE_REFUSED : NODE_DIALLING;
}
