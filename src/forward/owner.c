/* owner - a Forward from its message to the relay: dial, answer, meet DATA. */
#include "forward/owner.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "forward/backend.h"
#include "forward/pool.h"
#include "forward/record.h"
#include "forward/relay.h"
#include "forward/seen.h"
#include "forward/service.h"
#include "forward/tuple.h"
#include "policy/policy.h"
#include "wire/name.h"

#define ANSWER_MS                                                                                  \
    500u /* of the time that the other side waits, so that the answer arrives in it                \
          */
#define REMAINING_MAX 600000u

struct served {
    struct mail start;
    struct worker *worker; /* NULL until start was read: known by its id, but not begun */
    struct ring all;       /* worker->served */
    struct alarm alarm;
    struct waiter waiter; /* its session is a reference, as long as this lives */
    struct tuple tuple;
    uint32_t remaining_ms;
    bool pending, dial_data;
    bool given_up; /* before it began */
    bool dials;    /* data is of this side's dialling, */
    bool again;    /* ... once more, as it was asked */
    struct service *service;
    struct backend_try *dial;
    struct leg *backend; /* connected, not joined yet */
    struct data *data;
    struct relay *relay;
    struct row *row; /* of the service, once it was looked up; a reference */
    uint32_t dial_ms;
    uint64_t begun_us, joined_us;
    struct bytes first; /* of the client: what the backend has not taken */
    size_t first_len, first_sent;
    char name[LIMIT_NAME + 1];
};

/* ---- answers and ends ---- */

static void reply(struct session *session, const uint8_t *id, Meshd__V1__Refusal refusal,
                  const char *text)
{
    Meshd__V1__ForwardReply answer = MESHD__V1__FORWARD_REPLY__INIT, *list = &answer;
    Meshd__V1__ForwardReplies replies = MESHD__V1__FORWARD_REPLIES__INIT;

    answer.forward_id = (ProtobufCBinaryData){.len = FORWARD_ID_LEN, .data = (uint8_t *)id};
    answer.refusal = refusal;
    answer.text = (char *)text;
    replies.n_replies = 1;
    replies.replies = &list;
    session_send(session, MESHD__V1__LINK_KIND__LINK_KIND_FORWARD_REPLIES, &replies.base);
}

#define REFUSAL(name) MESHD__V1__REFUSAL__REFUSAL_##name

/* Not pending any more: joined, or over. */
static void settle(struct served *s)
{
    struct forward *forward = s->worker->forward;

    if (!s->pending)
        return;
    s->pending = false;
    waiter_leave(forward, &s->waiter);
    atomic_fetch_sub(&s->waiter.session->pending, 1);
    atomic_fetch_sub(&forward->pending, 1);
}

static void served_free(struct served *s)
{
    struct worker *worker = s->worker;

    settle(s);
    alarm_clear(worker, &s->alarm);
    if (s->dial)
        backend_cancel(s->dial);
    leg_reset(s->backend);
    data_drop(s->data);
    service_leave(worker->forward->services, s->service);
    row_unref(s->row);
    bytes_free(&s->first);
    ring_drop(&s->all);
    atomic_fetch_sub(&worker->forward->served, 1);
    session_unref(s->waiter.session);
    free(s);
}

static void end_with(struct served *s, const struct record_end *end)
{
    struct forward *forward = s->worker->forward;
    const struct way way = {.name = s->name,
                            .peer_id = s->waiter.session->info.peer_id,
                            .backend = s->row ? s->row->backend : NULL,
                            .id = s->waiter.id,
                            .joined_us = s->joined_us};

    if (record_wanted(forward, end->end))
        record_tell(forward, &s->tuple, s->begun_us, true, &way, end);
    served_free(s);
}

static void end(struct served *s, enum forward_end how, const char *text)
{
    end_with(s, &(struct record_end){.end = how, .text = text});
}

/* The name was never registered here, as far as this node can say. */
static enum forward_end end_of(Meshd__V1__Refusal refusal)
{
    return refusal == REFUSAL(NO_SUCH_NAME) ? FORWARD_NO_SUCH_NAME
                                            : forward_end_of_refusal((int)refusal);
}

static void refuse(struct served *s, Meshd__V1__Refusal refusal, const char *text)
{
    COUNT(s->worker, forwards_refused, 1);
    reply(s->waiter.session, s->waiter.id, refusal, text);
    if (s->data && s->data->has_header)
        data_spent(TAKE(&s->data));
    end(s, end_of(refusal), text);
}

/* Whether the peer may have a link, and that service of this node. Else out_text says why not. */
static bool may(const struct served *s, char out_text[LIMIT_STATUS_TEXT + 1])
{
    struct policy_keeper *policy = s->worker->forward->policy;
    const char *peer_id = s->waiter.session->info.peer_id;
    char rule[POLICY_RULE_TEXT];
    enum policy_action action = POLICY_LINK;

    if (policy_allows(policy, action, peer_id, "", rule)) {
        action = POLICY_FORWARD;
        if (policy_allows(policy, action, peer_id, s->name, rule))
            return true;
    }
    policy_refusal_text(action, peer_id, "", rule, out_text, LIMIT_STATUS_TEXT + 1);
    return false;
}

static bool may_go_on(void *ctx)
{
    char text[LIMIT_STATUS_TEXT + 1];

    return may(ctx, text);
}

static void on_relay_ended(void *ctx, enum forward_end how, uint64_t up, uint64_t down)
{
    struct served *s = ctx;

    s->relay = NULL;
    end_with(s, &(struct record_end){.end = how, .bytes_up = up, .bytes_down = down});
}

/* ---- joining ---- */

/* The client's first bytes that the backend has not taken, and what came behind the header. */
static bool join_bytes(struct served *s, struct bytes *early, struct bytes *out_up)
{
    size_t n = bytes_left(&s->first), m = bytes_left(early);

    if (n == 0 || m == 0) {
        *out_up = n ? s->first : *early;
        *(n ? &s->first : early) = (struct bytes){0};
        return true;
    }
    *out_up = (struct bytes){.data = malloc(n + m), .len = n + m};
    if (!out_up->data)
        return false;
    memcpy(out_up->data, s->first.data + s->first.head, n);
    memcpy(out_up->data + n, early->data + early->head, m);
    bytes_free(early);
    bytes_free(&s->first);
    return true;
}

static void join(struct served *s)
{
    struct relay_settings settings = {.ctx = s, .may = may_go_on, .ended = on_relay_ended};
    struct bytes early;

    if (s->data->header.offset != s->first_len) {
        atomic_fetch_add(&s->worker->forward->count.messages_bad, 1);
        end(s, FORWARD_BAD_REQUEST, "the DATA header and the Forward disagree");
        return;
    }
    settings.client = data_take(TAKE(&s->data), &early);
    settings.backend = TAKE(&s->backend);
    settings.delivered = s->first_sent;
    if (!join_bytes(s, &early, &settings.up)) {
        bytes_free(&early);
        leg_reset(settings.client);
        leg_reset(settings.backend);
        end(s, FORWARD_NO_MEMORY, NULL);
        return;
    }
    waiter_joined(s->worker->forward, &s->waiter);
    settle(s);
    alarm_clear(s->worker, &s->alarm);
    s->joined_us = record_clock(s->worker->forward);
    s->relay = relay_begin(s->worker, &settings);
    if (!s->relay)
        end(s, FORWARD_NO_MEMORY, NULL);
}

static void say_header(struct served *s)
{
    struct data_header header = {.offset = 0};

    memcpy(header.forward_id, s->waiter.id, FORWARD_ID_LEN);
    /* Who has sent something first is answered soon, mostly. */
    data_say(s->data, &header, s->data->has_header && s->first_len > 0);
}

static void meet(struct served *s)
{
    if (!s->backend || !s->data)
        return;
    if (!s->data->said)
        say_header(s);
    if (s->data->has_header)
        join(s);
}

/* What it was asked to dial cannot be, or broke: the other side would wait for nothing. */
static void give_up(struct served *s)
{
    session_cancel(s->waiter.session, s->waiter.id);
    end(s, FORWARD_OWNER_LOST, "no DATA connection could be opened");
}

static void on_data(void *ctx, enum data_event event)
{
    struct served *s = ctx;

    if (event == DATA_JOINED) {
        meet(s);
        return;
    }
    s->data = NULL;
    if (s->dials)
        give_up(s);
    /* Else the other side says its header on another one, asks for one, or gives up. */
}

void owner_data(struct waiter *waiter, struct data *data)
{
    struct served *s = CONTAINER_OF(waiter, struct served, waiter);

    if (s->data && s->dials) { /* late: the other side was told of the one dialled in its place */
        data_drop(data);
        return;
    }
    if (s->data) /* maybe taken by the Forward, whose mail is on the way */
        data_own(s->data, s, on_data);
    data_drop(TAKE(&s->data));
    data_own(data, s, on_data);
    s->data = data;
    s->dials = false;
    meet(s);
}

/* False: given up. */
static bool dial_data(struct served *s)
{
    data_drop(TAKE(&s->data));
    s->data = data_dial(s->worker, s->waiter.session, NULL, s, on_data);
    s->dials = true;
    if (!s->data) {
        give_up(s);
        return false;
    }
    meet(s);
    return true;
}

/* ---- the backend ---- */

static void send_first(struct served *s)
{
    ssize_t n;

    if (!s->first.data)
        return;
    n = send(s->backend->fd, s->first.data + s->first.head, bytes_left(&s->first),
             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        s->first_sent = s->first.head += (size_t)n;
    else if (n < 0 && errno != EAGAIN)
        s->backend->failed = -errno;
    if (bytes_left(&s->first) == 0)
        bytes_free(&s->first);
}

static Meshd__V1__Refusal refusal_of(int error)
{
    switch (-error) {
    case ETIMEDOUT:
        return REFUSAL(BACKEND_TIMED_OUT);
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case EADDRNOTAVAIL:
        return REFUSAL(OVER_LIMIT);
    default:
        return REFUSAL(BACKEND_REFUSED);
    }
}

static void on_backend(void *ctx, int error, struct leg *leg)
{
    struct served *s = ctx;

    s->dial = NULL;
    if (error == 0 && !forward_introduce(leg, s->row->flags, &s->tuple)) {
        error = -ECONNRESET;
        leg_reset(leg);
    }
    seen_dialled(s->worker->forward, s->name, s->row->backend, s->dial_ms, error);
    if (error < 0) {
        refuse(s, refusal_of(error), backend_error_text(error));
        return;
    }
    worker_phase(s->worker, FORWARD_PHASE_CONNECT, s->begun_us);
    leg_want(leg, 0);
    leg_fragile(leg); /* half a request is not a whole one because this process was killed */
    s->backend = leg;
    send_first(s);
    if (!s->data)
        reply(s->waiter.session, s->waiter.id, REFUSAL(NONE), "");
    meet(s);
}

static struct row *find_local(const struct served *s)
{
    char key[LIMIT_NAME + sizeof("@local")];

    snprintf(key, sizeof(key), "%s@local", s->name);
    return registry_find(s->worker->forward->registry, key);
}

static void dial_backend(struct served *s)
{
    struct forward *forward = s->worker->forward;
    uint32_t ms =
        s->remaining_ms > 2 * ANSWER_MS ? s->remaining_ms - ANSWER_MS : s->remaining_ms / 2 + 1;
    int r;

    s->row = find_local(s);
    if (!s->row) {
        refuse(s, REFUSAL(NO_SUCH_NAME), "not registered here any more");
        return;
    }
    if (s->row->flags & ROW_DRAINING) {
        refuse(s, REFUSAL(DRAINING), "draining: the service takes no new clients");
        return;
    }
    s->service = service_enter(forward->services, s->name);
    if (!s->service) {
        refuse(s, REFUSAL(OVER_LIMIT), "over limits.forwards_per_service");
        return;
    }
    s->dial_ms = ms < forward->dial_ms ? ms : forward->dial_ms;
    r = backend_dial(s->worker, s->row->backend, s->dial_ms, s, on_backend, &s->dial);
    if (r < 0)
        refuse(s, refusal_of(r), backend_error_text(r));
}

/* ---- begin ---- */

static void on_alarm(struct alarm *alarm)
{
    struct served *s = CONTAINER_OF(alarm, struct served, alarm);

    if (s->backend)
        end(s, FORWARD_OWNER_LOST, "no DATA connection came in time"); /* nor does one any more */
    else
        refuse(s, REFUSAL(BACKEND_TIMED_OUT), "no connection in time");
}

static void read_start(struct worker *worker, struct mail *mail)
{
    struct served *s = CONTAINER_OF(mail, struct served, start);
    char text[LIMIT_STATUS_TEXT + 1];

    s->worker = worker;
    s->begun_us = uv_hrtime() / 1000;
    ring_push(&worker->served, &s->all);
    if (worker->stopping) {
        s->data = NULL; /* closed already, with all that lived here */
        end(s, FORWARD_DRAINED, NULL);
        return;
    }
    if (s->data) {
        data_own(s->data, s, on_data);
        if (s->data->dead)
            data_drop(TAKE(&s->data));
    }
    if (s->given_up) {
        end(s, FORWARD_CLIENT_GONE, NULL);
        return;
    }
    if (atomic_load(&s->waiter.session->over)) { /* told before this came */
        end(s, FORWARD_OWNER_LOST, "the link broke");
        return;
    }
    alarm_set(worker, &s->alarm, s->remaining_ms);
    pool_asked(worker, s->waiter.session);
    if (forward_refuses(worker->forward)) {
        refuse(s, REFUSAL(DRAINING), "the node is about to leave");
        return;
    }
    if (!may(s, text)) {
        refuse(s, REFUSAL(NOT_ALLOWED), text);
        return;
    }
    if (!s->dial_data || dial_data(s))
        dial_backend(s);
}

/* Once: who asks on would have us dial without end. What has not begun yet will dial anyway. */
static void dial_again(struct served *s)
{
    if (s->again || !s->worker)
        return;
    s->again = true;
    dial_data(s);
}

struct again_mail {
    struct mail mail;
    uint8_t id[FORWARD_ID_LEN];
};

static void read_again(struct worker *worker, struct mail *mail)
{
    struct again_mail *m = CONTAINER_OF(mail, struct again_mail, mail);
    struct waiter *waiter = worker->stopping ? NULL : waiter_find(worker, m->id);

    if (waiter && waiter->kind == WAITER_OWNER)
        dial_again(CONTAINER_OF(waiter, struct served, waiter));
    free(m);
}

static void post_again(struct session *session, const uint8_t *id)
{
    struct again_mail *m = calloc(1, sizeof(*m));

    if (!m)
        return;
    m->mail.read = read_again;
    memcpy(m->id, id, FORWARD_ID_LEN);
    if (!waiter_post(session->forward, session, WAITER_OWNER, id, &m->mail))
        free(m);
}

static bool fill(struct served *s, const Meshd__V1__Forward *forward)
{
    size_t name_len = strlen(forward->name);

    if (!name_is_canon(forward->name, name_len) || forward->remaining_ms == 0 ||
        forward->remaining_ms > REMAINING_MAX || forward->first_bytes.len > LIMIT_FIRST_BYTES ||
        forward->client_port > UINT16_MAX || forward->server_port > UINT16_MAX ||
        !endpoint_of_bytes(forward->client_ip.data, forward->client_ip.len,
                           (uint16_t)forward->client_port, &s->tuple.client) ||
        !endpoint_of_bytes(forward->server_ip.data, forward->server_ip.len,
                           (uint16_t)forward->server_port, &s->tuple.server))
        return false;
    memcpy(s->name, forward->name, name_len + 1);
    s->remaining_ms = forward->remaining_ms;
    s->dial_data = forward->dial_data;
    s->first_len = forward->first_bytes.len;
    return bytes_copy(&s->first, forward->first_bytes.data, forward->first_bytes.len);
}

static void enter(struct served *s, struct session *session)
{
    struct forward *forward = session->forward;
    int r;

    s->start.read = read_start;
    ring_init(&s->all);
    alarm_init(&s->alarm, on_alarm);
    s->waiter.kind = WAITER_OWNER;
    s->waiter.session = session_ref(session);
    s->waiter.worker = forward_next_worker(forward);
    r = waiter_enter_owner(forward, &s->waiter, s->dial_data && s->first_len == 0, &s->data);
    if (r == 0) {
        s->pending = true;
        atomic_fetch_add(&session->pending, 1);
        atomic_fetch_add(&forward->served, 1);
        worker_post(s->waiter.worker, &s->start);
        return;
    }
    atomic_fetch_sub(&forward->pending, 1);
    if (r == -EEXIST && s->dial_data)
        post_again(session, s->waiter.id);
    else if (r == -EALREADY) /* in doubt for too long, or it has lost what was joined */
        session_cancel(session, s->waiter.id);
    else if (r == -ENOMEM)
        reply(session, s->waiter.id, REFUSAL(OVER_LIMIT), "out of memory");
    session_unref(session);
    bytes_free(&s->first);
    free(s);
}

void owner_forward(struct session *session, const Meshd__V1__Forward *message)
{
    struct forward *forward = session->forward;
    const uint8_t *id = message->forward_id.data;
    struct served *s;

    if (message->forward_id.len != FORWARD_ID_LEN ||
        (message->dial_data && !session->info.dialled)) {
        atomic_fetch_add(&forward->count.messages_bad, 1);
        return;
    }
    atomic_fetch_add(&forward->count.forwards_received, 1);
    if (atomic_fetch_add(&forward->pending, 1) >= forward->limits.forwards_pending) {
        atomic_fetch_sub(&forward->pending, 1);
        reply(session, id, REFUSAL(OVER_LIMIT), "over limits.forwards_pending");
        return;
    }
    s = calloc(1, sizeof(*s));
    if (!s || !fill(s, message)) {
        atomic_fetch_sub(&forward->pending, 1);
        reply(session, id, s ? REFUSAL(NOT_ALLOWED) : REFUSAL(OVER_LIMIT),
              s ? "a Forward that makes no sense" : "out of memory");
        free(s);
        return;
    }
    memcpy(s->waiter.id, id, FORWARD_ID_LEN);
    enter(s, session);
}

void owner_given_up(struct waiter *waiter)
{
    struct served *s = CONTAINER_OF(waiter, struct served, waiter);

    /* Said once too often of an earlier Forward with the same id, and read only now. */
    if (!s->worker)
        s->given_up = true;
    else
        end(s, FORWARD_CLIENT_GONE, NULL);
}

void owner_session_over(struct worker *worker, struct session *session)
{
    struct ring *all = &worker->served;

    for (struct ring *r = all->next, *next; r != all; r = next) {
        struct served *s = CONTAINER_OF(r, struct served, all);

        next = r->next;
        if (s->waiter.session == session && s->pending)
            end(s, FORWARD_OWNER_LOST, "the link broke");
    }
}

void owner_check_again(struct worker *worker)
{
    struct ring *all = &worker->served;
    char text[LIMIT_STATUS_TEXT + 1];

    for (struct ring *r = all->next, *next; r != all; r = next) {
        struct served *s = CONTAINER_OF(r, struct served, all);

        next = r->next;
        if (s->pending && !may(s, text))
            refuse(s, REFUSAL(NOT_ALLOWED), text);
    }
}

void owner_worker_stop(struct worker *worker)
{
    while (!ring_empty(&worker->served))
        end(CONTAINER_OF(worker->served.next, struct served, all), FORWARD_DRAINED, NULL);
}
