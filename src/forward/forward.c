/* forward - the whole: made, started, drained, stopped; messages of links to whom they concern. */
#include "forward/forward.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "forward/backend.h"
#include "forward/carry.h"
#include "forward/check.h"
#include "forward/data.h"
#include "forward/doubt.h"
#include "forward/ingress.h"
#include "forward/outbox.h"
#include "forward/owner.h"
#include "forward/proxy_header.h"
#include "forward/recheck.h"
#include "forward/relay.h"
#include "forward/route.h"
#include "forward/seen.h"
#include "forward/service.h"
#include "forward/source.h"
#include "wire/check.h"

#define WORKERS_MAX 256u
#define ON_THE_WAY_MS 500u /* Forwards that were sent before their senders heard of draining */

/* ---- made and unmade ---- */

static void read_check(struct worker *worker, struct mail *mail);

static int make_workers(struct forward *forward, unsigned n)
{
    int r = 0;

    if (n == 0)
        n = uv_available_parallelism();
    if (n > WORKERS_MAX)
        n = WORKERS_MAX;
    forward->workers = calloc(n, sizeof(*forward->workers));
    if (!forward->workers)
        return -ENOMEM;
    for (; r == 0 && forward->n_workers < n; forward->n_workers += r == 0) {
        r = worker_init(&forward->workers[forward->n_workers], forward, forward->n_workers);
        forward->workers[forward->n_workers].check.read = read_check;
    }
    return r;
}

static int make_parts(struct forward *forward, const struct forward_settings *settings)
{
    int r = sources_new(&forward->limits, &forward->sources);

    if (r == 0)
        r = services_new(&forward->limits, &forward->services);
    if (r == 0)
        r = seen_new(&forward->limits, &forward->seen);
    if (r == 0)
        r = sessions_new(&forward->sessions);
    if (r == 0)
        r = meeting_new(&forward->meeting);
    if (r == 0)
        r = failures_new(&forward->failures);
    if (r == 0)
        r = names_new(forward, &forward->names);
    if (r == 0)
        r = make_workers(forward, settings->workers);
    if (r == 0)
        r = ingress_new(forward, settings->ingress, settings->n_ingress);
    return r;
}

int forward_new(const struct forward_settings *settings, struct forward **out_forward)
{
    struct forward *forward = calloc(1, sizeof(*forward));
    int r;

    if (!forward)
        return -ENOMEM;
    snprintf(forward->peer_id, sizeof(forward->peer_id), "%s", settings->peer_id);
    forward->limits = *settings->limits;
    forward->registry = settings->registry;
    forward->route_ms = settings->route_ms;
    forward->dial_ms = settings->dial_ms;
    forward->open_ms = settings->open_ms;
    forward->idle_ms = settings->idle_ms;
    forward->half_close_ms = settings->half_close_ms;
    forward->ops = settings->ops;
    forward->tls = settings->tls;
    forward->policy = settings->policy;
    r = make_parts(forward, settings);
    if (r < 0) {
        forward_free(forward);
        return r;
    }
    *out_forward = forward;
    return 0;
}

void forward_set_limits(struct forward *forward, const struct limits *limits)
{
    limits_put(&forward->limits, limits);
}

void forward_free(struct forward *forward)
{
    if (!forward)
        return;
    ingress_free(forward);
    names_free(forward->names);
    for (unsigned i = 0; i < forward->n_workers; i++)
        worker_fini(&forward->workers[i]);
    free(forward->workers);
    failures_free(forward->failures);
    sessions_free(forward->sessions);
    meeting_free(forward->meeting);
    seen_free(forward->seen);
    services_free(forward->services);
    sources_free(forward->sources);
    free(forward);
}

int forward_listen(struct forward *forward, size_t index, char *out_text, size_t size)
{
    return ingress_listen(forward, index, out_text, size);
}

void forward_show(struct forward *forward, struct snapshot *snap)
{
    names_show(forward->names, snap);
}

/* ---- workers ---- */

struct worker *forward_next_worker(struct forward *forward)
{
    return &forward->workers[atomic_fetch_add(&forward->next_worker, 1) % forward->n_workers];
}

static void begin(struct worker *worker)
{
    if (ingress_worker_start(worker) < 0)
        abort(); /* no memory, before the first client */
}

static void end(struct worker *worker)
{
    ingress_worker_stop(worker);
    carry_worker_stop(worker);
    relay_cut_all(worker, FORWARD_DRAINED);
    doubts_worker_stop(worker);
    owner_worker_stop(worker);
    checks_worker_stop(worker);
    data_worker_stop(worker);
    relay_worker_fini(worker);
}

int forward_start(struct forward *forward)
{
    static const struct worker_body body = {.begin = begin, .end = end, .turn = outboxes_flush};
    int r = names_start(forward->names);

    for (unsigned i = 0; r == 0 && i < forward->n_workers; i++)
        r = worker_start(&forward->workers[i], &body);
    return r;
}

static void end_sessions(struct forward *forward)
{
    uint64_t link;

    while (sessions_any(forward->sessions, &link))
        forward_session_end(forward, link);
}

void forward_stop(struct forward *forward)
{
    names_stop(forward->names);
    end_sessions(forward);
    for (unsigned i = 0; i < forward->n_workers; i++)
        if (forward->workers[i].started)
            worker_stop(&forward->workers[i]);
    ingress_close(forward);
}

static void read_drain(struct worker *worker, struct mail *mail)
{
    if (!worker->stopping)
        ingress_worker_drain(worker);
    free(mail);
}

void forward_drain(struct forward *forward)
{
    atomic_store(&forward->drain_ms, clock_ms());
    atomic_store(&forward->draining, true);
    for (unsigned i = 0; i < forward->n_workers; i++) {
        struct mail *mail = calloc(1, sizeof(*mail));

        if (!mail)
            continue; /* its clients are turned away when it stops */
        mail->read = read_drain;
        worker_post(&forward->workers[i], mail);
    }
}

bool forward_refuses(const struct forward *forward)
{
    return atomic_load(&forward->draining) &&
           clock_ms() >= atomic_load(&forward->drain_ms) + ON_THE_WAY_MS;
}

size_t forward_active(struct forward *forward)
{
    return atomic_load(&forward->clients) + atomic_load(&forward->served);
}

/* ---- let in again ---- */

static void read_check(struct worker *worker, struct mail *mail)
{
    struct recheck recheck = {.n = 0};

    /* First: what changes from now on is looked at once more. */
    atomic_store(&worker->check_posted, false);
    if (worker->stopping)
        return;
    relay_check_again(worker, &recheck);
    data_check_again(worker, &recheck);
    owner_check_again(worker);
}

void forward_check_again(struct forward *forward)
{
    atomic_store(&forward->changed_ms, clock_ms());
    for (unsigned i = 0; i < forward->n_workers; i++) {
        struct worker *worker = &forward->workers[i];

        if (!atomic_exchange(&worker->check_posted, true))
            worker_post(worker, &worker->check);
    }
}

/* ---- backends ---- */

bool forward_introduce(struct leg *leg, unsigned row_flags, const struct tuple *tuple)
{
    uint8_t bytes[PROXY_PACK_MAX];
    size_t len;

    if (!(row_flags & (ROW_PROXY_V1 | ROW_PROXY_V2)))
        return true;
    len = proxy_header_pack(row_flags & ROW_PROXY_V2 ? PROXY_V2 : PROXY_V1, tuple, bytes);
    /* The first bytes of a connection: there is room for them. */
    return send(leg->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

/* ---- messages of links ---- */

struct note_mail {
    struct mail mail;
    uint8_t id[FORWARD_ID_LEN];
    bool cancel;
    int refusal;
    char text[LIMIT_STATUS_TEXT + 1];
};

static void read_note(struct worker *worker, struct mail *mail)
{
    struct note_mail *m = CONTAINER_OF(mail, struct note_mail, mail);
    struct waiter *waiter = worker->stopping ? NULL : waiter_find(worker, m->id);

    if (waiter && waiter->kind == WAITER_CARRY && m->cancel)
        carry_given_up(waiter);
    else if (waiter && waiter->kind == WAITER_CARRY)
        carry_reply(waiter, m->refusal, m->text);
    else if (waiter && waiter->kind == WAITER_OWNER && m->cancel)
        owner_given_up(waiter);
    free(m);
}

static struct note_mail *note_new(struct forward *forward, const ProtobufCBinaryData *id)
{
    struct note_mail *m;

    if (id->len != FORWARD_ID_LEN) {
        atomic_fetch_add(&forward->count.messages_bad, 1);
        return NULL;
    }
    m = calloc(1, sizeof(*m));
    if (!m)
        return NULL; /* the time-out of its Forward ends it */
    m->mail.read = read_note;
    memcpy(m->id, id->data, FORWARD_ID_LEN);
    return m;
}

static void on_replies(struct session *session, const Meshd__V1__ForwardReplies *replies)
{
    for (size_t i = 0; i < replies->n_replies; i++) {
        const Meshd__V1__ForwardReply *reply = replies->replies[i];
        struct note_mail *m = note_new(session->forward, &reply->forward_id);

        if (!m)
            continue;
        m->refusal = reply->refusal;
        snprintf(m->text, sizeof(m->text), "%s", reply->text);
        if (!waiter_post(session->forward, session, WAITER_CARRY, m->id, &m->mail))
            free(m);
    }
}

static void on_cancel(struct session *session, const Meshd__V1__Cancel *cancel)
{
    for (size_t i = 0; i < cancel->n_forward_ids; i++) {
        struct note_mail *m = note_new(session->forward, &cancel->forward_ids[i]);

        if (!m)
            continue;
        m->cancel = true;
        if (!waiter_post(session->forward, session, WAITER_OWNER, m->id, &m->mail) &&
            !waiter_post(session->forward, session, WAITER_CARRY, m->id, &m->mail))
            free(m);
    }
}

static void handle(struct session *session, int kind, const ProtobufCMessage *message)
{
    if (kind == MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS) {
        const Meshd__V1__Forwards *forwards = (const Meshd__V1__Forwards *)message;

        for (size_t i = 0; i < forwards->n_forwards; i++)
            owner_forward(session, forwards->forwards[i]);
    } else if (kind == MESHD__V1__LINK_KIND__LINK_KIND_FORWARD_REPLIES) {
        on_replies(session, (const Meshd__V1__ForwardReplies *)message);
    } else {
        on_cancel(session, (const Meshd__V1__Cancel *)message);
    }
}

static const ProtobufCMessageDescriptor *descriptor_of(int kind)
{
    switch (kind) {
    case MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS:
        return &meshd__v1__forwards__descriptor;
    case MESHD__V1__LINK_KIND__LINK_KIND_FORWARD_REPLIES:
        return &meshd__v1__forward_replies__descriptor;
    case MESHD__V1__LINK_KIND__LINK_KIND_CANCEL:
        return &meshd__v1__cancel__descriptor;
    default:
        return NULL;
    }
}

bool forward_message(struct forward *forward, uint64_t link,
                     const uint8_t session_id[SESSION_ID_LEN], int kind, const uint8_t *body,
                     size_t len)
{
    const ProtobufCMessageDescriptor *descriptor = descriptor_of(kind);
    struct session *session = session_by_link(forward, link, session_id);
    ProtobufCMessage *message;
    struct arena arena;

    if (!session)
        return false;
    arena_init(&arena);
    if (descriptor && len <= LIMIT_FORWARDS &&
        wire_unpack(descriptor, body, len, &arena, &message) == 0)
        handle(session, kind, message);
    else
        atomic_fetch_add(&forward->count.messages_bad, 1);
    arena_fini(&arena);
    session_unref(session);
    return true;
}

/* ---- counters ---- */

/* struct forward_counters is uint64_t all through. */
static void add_worker(const struct worker *worker, struct forward_counters *out)
{
    const uint64_t *from = (const uint64_t *)&worker->count;
    uint64_t *to = (uint64_t *)out, largest_head = out->largest_head;

    for (size_t i = 0; i < sizeof(*out) / sizeof(uint64_t); i++)
        to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    out->largest_head -= largest_head;
    if (out->largest_head < largest_head)
        out->largest_head = largest_head;
}

void forward_counters(struct forward *forward, struct forward_counters *out)
{
    *out = (struct forward_counters){0};
    for (unsigned i = 0; i < forward->n_workers; i++)
        add_worker(&forward->workers[i], out);
    out->pending = atomic_load(&forward->pending);
    out->served = atomic_load(&forward->served);
    source_largest(forward->sources, &out->largest_source, &out->largest_source_unrouted);
    out->largest_service = services_largest(forward->services);
    out->largest_warm = sessions_most_warm(forward->sessions);
    out->messages_bad = atomic_load(&forward->count.messages_bad);
    out->forwards_received = atomic_load(&forward->count.forwards_received);
    out->data_accepted = atomic_load(&forward->count.data_accepted);
    out->data_unexpected = atomic_load(&forward->count.data_unexpected);
    out->resolves = atomic_load(&forward->count.resolves);
    out->resolves_failed = atomic_load(&forward->count.resolves_failed);
}

uint64_t forward_phase_us(const struct forward_counters *counters, enum forward_phase phase,
                          double share)
{
    return histogram_share_us(&counters->phases[phase], share);
}
