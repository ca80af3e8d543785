/* carry - candidates in turn: dial, or Forward and DATA; what may be tried again and what may not.
 */
#include "forward/carry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/random.h"
#include "forward/backend.h"
#include "forward/data.h"
#include "forward/outbox.h"
#include "forward/passage.h"
#include "forward/route.h"
#include "forward/seen.h"
#include "forward/service.h"

/* DATA broke, but why may be on its way over the link. */
#define LIMBO_MS 1000u
/* The owner has the Forward and not the header on a warm connection, which was quicker: it is lost,
 * or it is slow, as many are when many clients come at once. */
#define DOUBT_MS 300u

struct candidate {
    struct row *row;         /* a reference */
    struct session *session; /* a reference; NULL: local */
    char peer_id[LIMIT_PEER_ID + 1];
};

struct carry {
    struct worker *worker;
    struct ring all; /* worker->carries */
    struct alarm alarm;
    struct tuple tuple;
    const uint8_t *first;
    size_t first_len;
    uint64_t deadline_ms, begun_us;
    void *ctx;
    void (*done)(void *ctx, struct carry_result *result);
    unsigned n, at;
    unsigned tries; /* attempts begun, the last of them with candidates[last] */
    unsigned last;
    uint64_t named_us; /* when the first of them began */
    struct candidate candidates[CARRY_TRIES];
    /* the attempt: */
    struct service *service;
    struct backend_try *dial;
    uint32_t dial_ms;
    struct waiter waiter; /* its session is set while the Forward is pending */
    struct outbox_item out;
    uint64_t until_ms; /* the owner's answer */
    struct data *data;
    struct data *doubted;             /* the one before it, which the owner may take all the same */
    bool told;                        /* the owner was sent the Forward, once at least */
    size_t sent;                      /* bytes of first in it */
    bool warm, retried, limbo, doubt; /* of data */
    /* the last failure: */
    enum forward_end end;
    char text[LIMIT_STATUS_TEXT + 1];
    char name[LIMIT_NAME + 1]; /* of the entry */
};

static void on_alarm(struct alarm *alarm);

/* The kernel is asked for many ids at once. */
static void new_id(uint8_t id[FORWARD_ID_LEN])
{
    static _Thread_local struct {
        uint8_t bytes[64 * FORWARD_ID_LEN];
        size_t left;
    } stock;

    if (stock.left == 0) {
        random_bytes(stock.bytes, sizeof(stock.bytes));
        stock.left = sizeof(stock.bytes);
    }
    stock.left -= FORWARD_ID_LEN;
    memcpy(id, stock.bytes + stock.left, FORWARD_ID_LEN);
}

/* ---- its end ---- */

void carry_way(const struct carry *c, struct way *out)
{
    const struct candidate *candidate = c->tries > 0 ? &c->candidates[c->last] : NULL;
    bool remote = candidate && candidate->session;

    *out = (struct way){.name = c->name,
                        .peer_id = remote ? candidate->peer_id : NULL,
                        .backend = candidate && !remote ? candidate->row->backend : NULL,
                        .id = remote ? c->waiter.id : NULL,
                        .tries = c->tries,
                        .named_us = c->named_us};
}

/* The Forward is not pending any more; the peer still counts as carrying it. */
static void settle(struct carry *c)
{
    waiter_leave(c->worker->forward, &c->waiter);
    atomic_fetch_sub(&c->waiter.session->pending, 1);
    atomic_fetch_sub(&c->worker->forward->pending, 1);
    c->waiter.session = NULL;
}

static void end_attempt(struct carry *c, bool cancel)
{
    struct session *session = c->waiter.session;

    alarm_clear(c->worker, &c->alarm);
    outbox_remove(&c->out);
    if (c->dial)
        backend_cancel(TAKE(&c->dial));
    service_leave(c->worker->forward->services, TAKE(&c->service));
    if (session) {
        if (cancel && c->told)
            session_cancel(session, c->waiter.id);
        settle(c);
        atomic_fetch_sub(&session->carried->active, 1);
    }
    data_drop(TAKE(&c->data));
    data_drop(TAKE(&c->doubted));
    c->warm = c->retried = c->limbo = c->doubt = false;
    c->told = false;
    c->sent = 0;
}

static void carry_free(struct carry *c)
{
    ring_drop(&c->all);
    for (unsigned i = 0; i < c->n; i++) {
        row_unref(c->candidates[i].row);
        session_unref(c->candidates[i].session);
    }
    free(c);
}

static void finish(struct carry *c, struct carry_result *result)
{
    ring_drop(&c->all);
    carry_way(c, &result->way);
    c->done(c->ctx, result);
    carry_free(c);
}

static struct candidate *current(struct carry *c) { return &c->candidates[c->at]; }

static void finish_joined(struct carry *c, struct leg *leg, struct bytes early, uint64_t now_us)
{
    struct carry_result result = {.leg = leg, .early = early, .delivered = c->sent};
    struct session *session = c->waiter.session;

    alarm_clear(c->worker, &c->alarm);
    outbox_remove(&c->out); /* it may be about to be asked once more */
    result.passage = calloc(1, sizeof(*result.passage));
    if (!result.passage) {
        leg_reset(leg);
        bytes_free(&early);
        end_attempt(c, false);
        result = (struct carry_result){.end = FORWARD_NO_MEMORY};
        finish(c, &result);
        return;
    }
    result.passage->service = TAKE(&c->service);
    result.passage->row = row_ref(current(c)->row);
    result.passage->tries = c->tries;
    result.passage->named_us = c->named_us;
    result.passage->joined_us = now_us;
    if (session) {
        memcpy(result.passage->id, c->waiter.id, FORWARD_ID_LEN);
        settle(c);
        result.passage->session = session_ref(session);
    }
    finish(c, &result);
}

/* ---- one attempt ---- */

static enum forward_end next(struct carry *c);

static void note(struct carry *c, enum forward_end end, const char *text)
{
    const struct candidate *candidate = current(c);

    c->end = end;
    snprintf(c->text, sizeof(c->text), "%.120s at %s: %.60s", c->name, candidate->peer_id, text);
    failure_note(c->worker->forward, c->name, candidate->peer_id, end, text);
}

static void fail(struct carry *c, enum forward_end end, const char *text, bool another, bool cancel)
{
    struct carry_result result;

    note(c, end, text);
    end_attempt(c, cancel);
    c->at++;
    if (another && c->at < c->n) {
        COUNT(c->worker, forward_retries, 1);
        if (next(c) == FORWARD_DONE)
            return;
    }
    result = (struct carry_result){.end = c->end};
    memcpy(result.text, c->text, sizeof(result.text));
    finish(c, &result);
}

/* What each that is left may have of what is left. */
static uint64_t share_ms(const struct carry *c)
{
    uint64_t now = worker_now(c->worker);
    uint64_t left = c->deadline_ms > now ? c->deadline_ms - now : 0;

    return left / (c->n - c->at);
}

static void on_backend(void *ctx, int error, struct leg *leg)
{
    struct carry *c = ctx;
    uint64_t now_us;

    c->dial = NULL;
    if (error == 0 && !forward_introduce(leg, current(c)->row->flags, &c->tuple)) {
        error = -ECONNRESET;
        leg_reset(leg);
    }
    seen_dialled(c->worker->forward, c->name, current(c)->row->backend, c->dial_ms, error);
    if (error < 0) {
        fail(c, forward_end_of_error(error), backend_error_text(error), true, false);
        return;
    }
    now_us = worker_phase(c->worker, FORWARD_PHASE_CONNECT, c->begun_us);
    COUNT(c->worker, local, 1);
    finish_joined(c, leg, (struct bytes){0}, now_us);
}

static enum forward_end begin_local(struct carry *c)
{
    struct forward *forward = c->worker->forward;
    uint64_t ms = share_ms(c);
    int r;

    c->service = service_enter(forward->services, c->name);
    if (!c->service) {
        note(c, FORWARD_OVER_LIMIT, "over limits.forwards_per_service");
        return c->end;
    }
    c->dial_ms = (uint32_t)(ms < forward->dial_ms ? ms : forward->dial_ms);
    r = backend_dial(c->worker, current(c)->row->backend, c->dial_ms, c, on_backend, &c->dial);
    if (r == 0)
        return FORWARD_DONE;
    note(c, forward_end_of_error(r), backend_error_text(r));
    return c->end;
}

/* ---- through an owner ---- */

/* Until the owner has given up. */
static uint64_t left_ms(const struct carry *c)
{
    uint64_t now = worker_now(c->worker);

    return c->until_ms > now ? c->until_ms - now : 0;
}

static struct data_header header_of(const struct carry *c)
{
    struct data_header header = {.offset = c->sent};

    memcpy(header.forward_id, c->waiter.id, FORWARD_ID_LEN);
    return header;
}

static void joined(struct carry *c)
{
    struct bytes early;
    struct leg *leg = data_take(TAKE(&c->data), &early);
    uint64_t now_us;

    data_drop(TAKE(&c->doubted));
    now_us = worker_phase(c->worker, FORWARD_PHASE_OPEN, c->begun_us);
    outbox_opened(c->worker, c->waiter.session, now_us - c->begun_us);
    COUNT(c->worker, forwarded, 1);
    finish_joined(c, leg, early, now_us);
}

static ProtobufCBinaryData address_of(struct endpoint *endpoint)
{
    bool v4 = IN6_IS_ADDR_V4MAPPED(&endpoint->ip);

    return (ProtobufCBinaryData){.len = v4 ? 4 : 16, .data = endpoint->ip.s6_addr + (v4 ? 12 : 0)};
}

static void fill(struct outbox_item *item, Meshd__V1__Forward *forward)
{
    struct carry *c = CONTAINER_OF(item, struct carry, out);
    uint64_t left = left_ms(c);

    forward->forward_id = (ProtobufCBinaryData){.len = FORWARD_ID_LEN, .data = c->waiter.id};
    forward->name = c->name;
    forward->remaining_ms = left ? (uint32_t)left : 1;
    forward->client_ip = address_of(&c->tuple.client);
    forward->client_port = c->tuple.client.port;
    forward->server_ip = address_of(&c->tuple.server);
    forward->server_port = c->tuple.server.port;
    if (!c->told)
        forward->first_bytes = (ProtobufCBinaryData){.len = c->sent, .data = (uint8_t *)c->first};
    forward->dial_data = !c->data;
    c->told = true;
}

static void not_sent(struct outbox_item *item, int error)
{
    struct carry *c = CONTAINER_OF(item, struct carry, out);

    fail(c, error == -EAGAIN ? FORWARD_OVER_LIMIT : FORWARD_NO_OWNER,
         error == -EAGAIN ? "the link's queue is full" : "the link is gone", !c->retried, false);
}

static void on_data(void *ctx, enum data_event event);

/* A warm connection may have died unnoticed: the owner is asked once more, with the same id. */
static bool try_data_again(struct carry *c)
{
    struct session *session = c->waiter.session;
    struct data_header header = header_of(c);

    if (!c->warm || c->retried)
        return false;
    COUNT(c->worker, data_dead, 1);
    c->retried = true;
    if (!session->info.dialled) {
        outbox_remove(&c->out);
        outbox_add(c->worker, session, &c->out);
        return true;
    }
    c->data = data_dial(c->worker, session, &header, c, on_data);
    return c->data != NULL;
}

static void begin_limbo(struct carry *c)
{
    c->limbo = true;
    if (left_ms(c) > LIMBO_MS)
        alarm_set(c->worker, &c->alarm, LIMBO_MS);
}

static void on_data(void *ctx, enum data_event event)
{
    struct carry *c = ctx;

    if (event == DATA_JOINED) {
        joined(c);
        return;
    }
    c->data = NULL;
    c->doubt = false;
    if (try_data_again(c))
        alarm_set(c->worker, &c->alarm, left_ms(c));
    else if (!c->doubted)
        begin_limbo(c);
}

static void on_doubted(void *ctx, enum data_event event)
{
    struct carry *c = ctx;

    if (event == DATA_JOINED) {
        data_drop(TAKE(&c->data));
        c->data = TAKE(&c->doubted);
        joined(c);
        return;
    }
    c->doubted = NULL;
    if (!c->data && c->waiter.session->info.dialled)
        begin_limbo(c);
}

/* Another one is opened. This one is kept: the owner joins the first whose header it reads. */
static void doubt(struct carry *c)
{
    c->doubt = false;
    c->doubted = TAKE(&c->data);
    data_own(c->doubted, c, on_doubted);
    alarm_set(c->worker, &c->alarm, left_ms(c));
    try_data_again(c);
}

static enum forward_end begin_remote(struct carry *c)
{
    struct worker *worker = c->worker;
    struct forward *forward = worker->forward;
    struct session *session = current(c)->session;
    uint64_t ms = share_ms(c);
    struct data_header header;

    c->waiter = (struct waiter){.kind = WAITER_CARRY, .worker = worker};
    new_id(c->waiter.id);
    if (atomic_load(&session->over)) {
        note(c, FORWARD_NO_OWNER, "the link is gone");
        return c->end;
    }
    if (atomic_fetch_add(&forward->pending, 1) >= forward->limits.forwards_pending) {
        atomic_fetch_sub(&forward->pending, 1);
        note(c, FORWARD_OVER_LIMIT, "over limits.forwards_pending");
        return c->end;
    }
    c->waiter.session = session;
    atomic_fetch_add(&session->pending, 1);
    atomic_fetch_add(&session->carried->active, 1);
    if (waiter_enter(forward, &c->waiter) < 0) {
        note(c, FORWARD_NO_MEMORY, "out of memory");
        return c->end;
    }
    c->sent = c->first_len < LIMIT_FIRST_BYTES ? c->first_len : LIMIT_FIRST_BYTES;
    header = header_of(c);
    c->data = data_claim(worker, session, &header, c, on_data);
    c->warm = c->data != NULL;
    if (!c->data && session->info.dialled) {
        c->data = data_dial(worker, session, &header, c, on_data);
        if (!c->data) {
            note(c, FORWARD_OWNER_LOST, "its mesh port cannot be dialled");
            return c->end;
        }
    }
    if (ms > forward->open_ms)
        ms = forward->open_ms;
    c->until_ms = worker_now(worker) + ms;
    outbox_add(worker, session, &c->out);
    alarm_set(worker, &c->alarm, ms);
    pool_opened(worker, session);
    return FORWARD_DONE;
}

static enum forward_end next(struct carry *c)
{
    for (; c->at < c->n; c->at++) {
        c->begun_us = uv_hrtime() / 1000;
        if (c->tries++ == 0)
            c->named_us = c->begun_us;
        c->last = c->at;
        if ((current(c)->session ? begin_remote(c) : begin_local(c)) == FORWARD_DONE)
            return FORWARD_DONE;
        end_attempt(c, false);
    }
    return c->end;
}

static void on_alarm(struct alarm *alarm)
{
    struct carry *c = CONTAINER_OF(alarm, struct carry, alarm);

    if (c->doubt)
        doubt(c);
    else if (c->limbo)
        fail(c, FORWARD_OWNER_LOST, "the DATA connection broke", c->sent == 0, true);
    else
        fail(c, FORWARD_OWNER_SILENT, "no answer in time", c->sent == 0, true);
}

/* ---- what the owner says ---- */

void carry_data(struct waiter *waiter, struct data *data)
{
    struct carry *c = CONTAINER_OF(waiter, struct carry, waiter);
    struct data_header header = header_of(c);

    data_drop(TAKE(&c->data));
    data_own(data, c, on_data);
    c->data = data;
    data_say(data, &header, false);
    if (data->leg->failed) {
        data_drop(data);
        on_data(c, DATA_DEAD);
    } else {
        joined(c);
    }
}

void carry_reply(struct waiter *waiter, int refusal, const char *text)
{
    struct carry *c = CONTAINER_OF(waiter, struct carry, waiter);

    if (refusal != MESHD__V1__REFUSAL__REFUSAL_NONE) {
        fail(c, forward_end_of_refusal(refusal), text, true, false);
        return;
    }
    if (c->warm && !c->retried && !c->data->connecting && left_ms(c) > DOUBT_MS) {
        c->doubt = true;
        alarm_set(c->worker, &c->alarm, DOUBT_MS);
    }
}

void carry_given_up(struct waiter *waiter)
{
    struct carry *c = CONTAINER_OF(waiter, struct carry, waiter);

    if (c->doubted) /* maybe it was joined before the owner was asked again */
        begin_limbo(c);
    else
        fail(c, FORWARD_OWNER_LOST, "the owner gave up", c->sent == 0, false);
}

void carry_session_over(struct worker *worker, struct session *session)
{
    struct ring *all = &worker->carries, mine;

    ring_init(&mine);
    for (struct ring *r = all->next, *next; r != all; r = next) {
        next = r->next;
        if (CONTAINER_OF(r, struct carry, all)->waiter.session != session)
            continue;
        ring_drop(r);
        ring_push(&mine, r);
    }
    while (!ring_empty(&mine)) {
        struct carry *c = CONTAINER_OF(mine.next, struct carry, all);

        ring_drop(&c->all);
        ring_push(all, &c->all);
        fail(c, FORWARD_OWNER_LOST, "the link broke", c->sent == 0, false);
    }
}

/* ---- begin ---- */

static void choose(struct carry *c, struct route_list *list)
{
    for (size_t i = 0; i < list->routes.n && c->n < CARRY_TRIES; i++) {
        const struct registry_route *route = &list->at[i];
        struct candidate *candidate = &c->candidates[c->n];

        if (!route_usable(list, i))
            break; /* and none behind it */
        candidate->row = row_ref(route->row);
        candidate->session = list->sessions[i] ? session_ref(list->sessions[i]) : NULL;
        memcpy(candidate->peer_id, route->peer_id, sizeof(candidate->peer_id));
        c->n++;
    }
}

enum forward_end carry_begin(struct worker *worker, const struct carry_ask *ask,
                             struct carry **out_carry, char out_text[LIMIT_STATUS_TEXT + 1])
{
    struct route_list list;
    enum forward_end end;
    struct carry *c;

    if (!route_find(worker->forward, ask->name, ask->name_len, &list)) {
        snprintf(out_text, LIMIT_STATUS_TEXT + 1, "nobody offers %.180s", ask->name);
        return FORWARD_NO_SUCH_NAME;
    }
    c = calloc(1, sizeof(*c));
    if (!c) {
        route_list_fini(&list);
        snprintf(out_text, LIMIT_STATUS_TEXT + 1, "out of memory");
        return FORWARD_NO_MEMORY;
    }
    c->worker = worker;
    ring_init(&c->all);
    ring_push(&worker->carries, &c->all);
    alarm_init(&c->alarm, on_alarm);
    ring_init(&c->out.ring);
    c->out.fill = fill;
    c->out.failed = not_sent;
    c->tuple = ask->tuple;
    c->first = ask->first;
    c->first_len = ask->first_len;
    c->deadline_ms = ask->deadline_ms;
    c->ctx = ask->ctx;
    c->done = ask->done;
    memcpy(c->name, list.matched, sizeof(c->name));
    c->end = route_unusable(&list);
    snprintf(c->text, sizeof(c->text),
             c->end == FORWARD_DRAINING ? "%.140s is draining here, and no other owner is connected"
                                        : "no owner of %.180s is connected",
             c->name);
    choose(c, &list);
    route_list_fini(&list);
    if (next(c) == FORWARD_DONE) {
        *out_carry = c;
        return FORWARD_DONE;
    }
    memcpy(out_text, c->text, sizeof(c->text));
    end = c->end;
    carry_free(c);
    return end;
}

void carry_cancel(struct carry *carry)
{
    end_attempt(carry, true);
    carry_free(carry);
}

void carry_worker_stop(struct worker *worker)
{
    while (!ring_empty(&worker->carries))
        carry_cancel(CONTAINER_OF(worker->carries.next, struct carry, all));
}
