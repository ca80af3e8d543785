/* data - one DATA connection: dialled or arrived, its two headers, its end. */
#include "forward/data.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/pool.h"
#include "gate/tcp.h"
#include "wire/status.h"

#define CLAIM_MS 15000u /* a warm one is claimed no later, */
#define WARM_MS 20000u  /* ... and kept no longer by the other side */
#define SPENT_MS 5000u  /* for the other side to hear that its Forward was refused */

static void on_ready(struct leg *leg, int events);
static void on_alarm(struct alarm *alarm);

struct data *data_new(struct worker *worker, struct session *session, int fd)
{
    struct data *data = calloc(1, sizeof(*data));

    if (!data) {
        close(fd);
        return NULL;
    }
    data->leg = leg_new(worker, fd);
    if (!data->leg) {
        free(data);
        return NULL;
    }
    data->leg->owner = data;
    data->leg->ready = on_ready;
    data->worker = worker;
    data->session = session_ref(session);
    ring_init(&data->pool);
    ring_init(&data->all);
    ring_push(&worker->data, &data->all);
    alarm_init(&data->alarm, on_alarm);
    return data;
}

void data_unpool(struct data *data)
{
    if (!data->pooled)
        return;
    ring_drop(&data->pool);
    --*data->pooled;
    data->pooled = NULL;
    COUNT(data->worker, warm, -1);
}

/* Of those that nobody here waits for; the others are bounded as Forwards. */
static void count_out(struct data *data)
{
    if (data->counted)
        atomic_fetch_sub(&data->session->nobodys, 1);
    data->counted = false;
}

void data_free(struct data *data)
{
    data_unpool(data);
    count_out(data);
    alarm_clear(data->worker, &data->alarm);
    ring_drop(&data->all);
    bytes_free(&data->out);
    bytes_free(&data->early);
    session_unref(data->session);
    free(data);
}

/* It waits for its Forward no more. True: an owner has taken it, whose mail is on the way to this
 * worker. */
static bool stop_waiting(struct data *data)
{
    bool taken;

    if (data->waiter.kind != WAITER_DATA)
        return false;
    taken = waiter_leave_data(data->worker->forward, data);
    data->waiter.kind = WAITER_NOBODY;
    COUNT(data->worker, data_waiting, -1);
    return taken;
}

static void leave_dead(struct data *data)
{
    data->dead = true;
    leg_want(data->leg, 0);
    alarm_clear(data->worker, &data->alarm);
}

/* Who has heard our header may take it for joined already: that would be an end in order. */
static void close_and_free(struct data *data)
{
    if (data->said)
        leg_reset(data->leg);
    else
        leg_close(data->leg);
    data_free(data);
}

void data_drop(struct data *data)
{
    if (data && stop_waiting(data))
        leave_dead(data);
    else if (data)
        close_and_free(data);
}

struct leg *data_take(struct data *data, struct bytes *out_early)
{
    struct leg *leg = data->leg;

    *out_early = data->early;
    data->early = (struct bytes){0};
    leg_want(leg, 0);
    data_free(data);
    return leg;
}

/* Broken, or no good any more. */
static void die(struct data *data)
{
    void (*event)(void *ctx, enum data_event event) = data->event;
    void *ctx = data->ctx;

    if (stop_waiting(data)) {
        leave_dead(data);
        return;
    }
    if (data->pooled && data->connecting)
        pool_dial_failed(data->worker, data->session);
    else if (data->pooled)
        COUNT(data->worker, data_dead, 1);
    close_and_free(data);
    if (event)
        event(ctx, DATA_DEAD);
}

static void on_alarm(struct alarm *alarm)
{
    struct data *data = CONTAINER_OF(alarm, struct data, alarm);

    if (data->waiter.kind == WAITER_DATA)
        COUNT(data->worker, data_late, 1);
    if (data->pooled && !data->connecting) /* too old, not dead */
        close_and_free(data);
    else
        die(data);
}

/* ---- writing ---- */

static void want(struct data *data)
{
    int wants = UV_READABLE;

    if (data->connecting)
        wants = UV_WRITABLE;
    else if (data->out.data)
        wants |= UV_WRITABLE;
    leg_want(data->leg, wants);
}

/* The first tells what it was; EPIPE comes after any. */
static void note_failure(struct data *data, int error)
{
    if (!data->leg->failed)
        data->leg->failed = error;
}

/* What fails shows when it is read, as an end. */
static void flush(struct data *data)
{
    ssize_t n;

    if (!data->out.data)
        return;
    n = send(data->leg->fd, data->out.data + data->out.head, bytes_left(&data->out),
             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        data->out.head += (size_t)n;
    else if (n < 0 && errno != EAGAIN)
        note_failure(data, -errno);
    if (bytes_left(&data->out) == 0 || data->leg->failed)
        bytes_free(&data->out);
}

static void say(struct data *data, const void *bytes, size_t len, bool held)
{
    size_t left = bytes_left(&data->out);
    struct bytes more = {.len = left + len};

    if (!data->connecting && left == 0) {
        ssize_t n =
            send(data->leg->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT | (held ? MSG_MORE : 0));

        if (n > 0 && held)
            leg_hold(data->leg);
        if (n == (ssize_t)len)
            return;
        if (n < 0 && errno != EAGAIN) {
            note_failure(data, -errno);
            return;
        }
        if (n > 0) {
            bytes = (const uint8_t *)bytes + n;
            more.len = len -= (size_t)n;
        }
    }
    more.data = malloc(more.len);
    if (!more.data) {
        shutdown(data->leg->fd, SHUT_RDWR); /* shows when it is read */
        return;
    }
    if (left)
        memcpy(more.data, data->out.data + data->out.head, left);
    memcpy(more.data + left, bytes, len);
    bytes_free(&data->out);
    data->out = more;
    want(data);
}

/* The answer to the preamble waits for it: one packet less, and who dialled needs none before. */
void data_say(struct data *data, const struct data_header *header, bool held)
{
    static const struct preamble_reply reply = {.version = PREAMBLE_VERSION, .status = STATUS_OK};
    uint8_t bytes[PREAMBLE_HEAD + DATA_HEADER_LEN];
    size_t n = 0;

    if (!data->dialled && !data->answered)
        n = preamble_reply_pack(&reply, bytes);
    data->answered |= !data->dialled;
    data->said = true;
    data_header_pack(header, bytes + n);
    say(data, bytes, n + DATA_HEADER_LEN, held);
}

/* ---- reading ---- */

static void on_header(struct data *data)
{
    struct worker *worker = data->worker;
    struct session *session = data->session;

    data_header_parse(data->in, &data->header);
    data->has_header = true;
    leg_want(data->leg, data->out.data ? UV_WRITABLE : 0);
    alarm_clear(worker, &data->alarm);
    if (data->event) {
        data->event(data->ctx, DATA_JOINED);
        return;
    }
    if (data->ours) { /* its turn had not come */
        atomic_fetch_add(&worker->forward->count.data_unexpected, 1);
        data_drop(data);
        return;
    }
    data_unpool(data);
    if (data->dialled) {
        session_ref(session);
        meeting_bring(data);
        pool_fill(worker, session);
        session_unref(session);
    } else {
        meeting_bring(data);
    }
}

/* The dialled side hears of its preamble first. Bytes that are there are all of in[]. */
static int take_answer(struct data *data)
{
    struct preamble_reply reply = {0};
    int n;

    if (!data->dialled || data->answered)
        return 0;
    n = preamble_reply_parse(data->in, data->n_in, &reply);
    if (n < 0)
        return n;
    if (reply.status != STATUS_OK)
        return -ECONNREFUSED;
    data->answered = true;
    data->n_in -= (size_t)n;
    memmove(data->in, data->in + n, data->n_in);
    return 0;
}

/* No byte of the stream: it is not ours to read. */
static size_t room(const struct data *data)
{
    size_t whole = DATA_HEADER_LEN;

    if (data->dialled && !data->answered)
        whole += PREAMBLE_HEAD + (data->n_in >= PREAMBLE_HEAD ? data->in[7] : 0u);
    return whole - data->n_in;
}

static void on_readable(struct data *data)
{
    ssize_t n;
    int r;

    do {
        n = recv(data->leg->fd, data->in + data->n_in, room(data), MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            die(data);
            return;
        }
        data->n_in += (size_t)n;
        r = take_answer(data);
        if (r < 0 && r != -EAGAIN) {
            die(data);
            return;
        }
        if (r == 0 && data->n_in == DATA_HEADER_LEN) {
            on_header(data);
            return;
        }
    } while (r == -EAGAIN && data->n_in >= PREAMBLE_HEAD);
}

static void connected(struct data *data)
{
    data->connecting = false;
    if (!data->event)
        alarm_set(data->worker, &data->alarm, data->ours ? CLAIM_MS : WARM_MS);
}

static void on_ready(struct leg *leg, int events)
{
    struct data *data = leg->owner;

    if (data->dead)
        return;
    if (data->waiter.kind == WAITER_DATA) {
        COUNT(data->worker, data_late, 1);
        die(data);
        return;
    }
    if (data->connecting) {
        if (leg_error(leg) != 0) {
            die(data);
            return;
        }
        connected(data);
    }
    flush(data);
    if (!data->has_header) {
        want(data);
        if (events & UV_READABLE)
            on_readable(data);
    } else {
        leg_want(leg, data->out.data ? UV_WRITABLE : 0);
    }
}

/* ---- dialled ---- */

/* What is said first, at once if the connect is through already, as it is on one host. Where nobody
 * listens it may have met itself (tcp_met_itself): then it reads its own preamble, which is no
 * answer to one. */
static bool open_with(struct data *data, const void *bytes, size_t len)
{
    ssize_t n = send(data->leg->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n == (ssize_t)len) {
        connected(data);
        want(data);
        return true;
    }
    if (n >= 0 || errno != EAGAIN)
        return false;
    say(data, bytes, len, false);
    return data->out.data != NULL;
}

struct data *data_begin(struct worker *worker, struct session *session, enum data_first first,
                        const struct data_header *header)
{
    const struct forward_session_info *info = &session->info;
    struct preamble preamble = {
        .version = PREAMBLE_VERSION, .kind = PREAMBLE_DATA, .has_token = 1, .first = first};
    uint8_t bytes[PREAMBLE_MAX + DATA_HEADER_LEN];
    const int on = 1;
    struct data *data;
    size_t len;
    int fd;

    if (!info->dialled || atomic_load(&session->over))
        return NULL;
    fd = tcp_dial(&info->to, &info->from);
    if (fd < 0)
        return NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    data = data_new(worker, session, fd);
    if (!data)
        return NULL;
    COUNT(worker, data_dialled, 1);
    data->dialled = data->connecting = true;
    data->ours = first == DATA_FIRST_DIALLER;
    data->said = header != NULL;
    memcpy(preamble.peer_id, worker->forward->peer_id, sizeof(preamble.peer_id));
    memcpy(preamble.token, info->session_id, TOKEN_LEN);
    len = preamble_pack(&preamble, bytes);
    if (header) {
        data_header_pack(header, bytes + len);
        len += DATA_HEADER_LEN;
    }
    alarm_set(worker, &data->alarm, worker->forward->dial_ms);
    if (open_with(data, bytes, len))
        return data;
    data_drop(data);
    return NULL;
}

void data_own(struct data *data, void *ctx, void (*event)(void *ctx, enum data_event event))
{
    data_unpool(data);
    stop_waiting(data);
    count_out(data);
    alarm_clear(data->worker, &data->alarm);
    data->ctx = ctx;
    data->event = event;
}

struct data *data_dial(struct worker *worker, struct session *session,
                       const struct data_header *header, void *ctx,
                       void (*event)(void *ctx, enum data_event event))
{
    struct data *data = data_begin(worker, session, DATA_FIRST_DIALLER, header);

    if (!data)
        return NULL;
    data_own(data, ctx, event);
    alarm_set(worker, &data->alarm, worker->forward->open_ms);
    return data;
}

/* ---- arrived ---- */

struct arrived_mail {
    struct mail mail;
    int fd;
    enum data_first first;
    struct session *session;
    size_t n_rest;
    uint8_t rest[];
};

static void arrive(struct worker *worker, const struct arrived_mail *m)
{
    struct data *data = data_new(worker, m->session, m->fd);

    if (!data) {
        atomic_fetch_sub(&m->session->nobodys, 1);
        return;
    }
    data->counted = true;
    data->ours = m->first == DATA_FIRST_OTHER;
    alarm_set(worker, &data->alarm, data->ours ? CLAIM_MS : WARM_MS);
    if (m->n_rest < DATA_HEADER_LEN) {
        memcpy(data->in, m->rest, m->n_rest);
        data->n_in = m->n_rest;
        pool_add(data);
        want(data);
        return;
    }
    memcpy(data->in, m->rest, DATA_HEADER_LEN);
    if (!bytes_copy(&data->early, m->rest + DATA_HEADER_LEN, m->n_rest - DATA_HEADER_LEN)) {
        data_drop(data);
        return;
    }
    on_header(data);
}

static void read_arrived(struct worker *worker, struct mail *mail)
{
    struct arrived_mail *m = CONTAINER_OF(mail, struct arrived_mail, mail);

    if (worker->stopping || atomic_load(&m->session->over)) {
        close(m->fd);
        atomic_fetch_sub(&m->session->nobodys, 1);
    } else {
        arrive(worker, m);
    }
    session_unref(m->session);
    free(m);
}

int forward_data(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                 const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                 const char **out_text)
{
    struct forward *forward = ctx;
    struct session *session = session_by_id(forward, preamble->token);
    struct arrived_mail *m;

    if (!session || session->info.dialled ||
        strcmp(session->info.peer_id, preamble->peer_id) != 0) {
        session_unref(session);
        atomic_fetch_add(&forward->count.data_unexpected, 1);
        *out_text = "no such session of a link that this peer dialled";
        return STATUS_UNAUTHENTICATED;
    }
    /* Two full pools, and those that are quicker than their Forwards, as all are when the link's
     * own connection waits for a packet that was lost. */
    if (atomic_fetch_add(&session->nobodys, 1) >=
        2 * forward->limits.data_warm_per_link + forward->limits.forwards_pending) {
        atomic_fetch_sub(&session->nobodys, 1);
        session_unref(session);
        *out_text = "too many DATA connections of this link that no Forward waits for";
        return STATUS_RESOURCE_EXHAUSTED;
    }
    m = calloc(1, sizeof(*m) + rest_len);
    if (!m) {
        atomic_fetch_sub(&session->nobodys, 1);
        session_unref(session);
        *out_text = "out of memory";
        return STATUS_RESOURCE_EXHAUSTED;
    }
    m->mail.read = read_arrived;
    m->fd = fd;
    m->first = preamble->first;
    m->session = session;
    m->n_rest = rest_len;
    if (rest_len)
        memcpy(m->rest, rest, rest_len);
    atomic_fetch_add(&forward->count.data_accepted, 1);
    worker_post(forward_next_worker(forward), &m->mail);
    return 0;
}

/* ---- ends ---- */

void data_spent(struct data *data)
{
    data_own(data, NULL, NULL);
    atomic_fetch_add(&data->session->nobodys, 1);
    data->counted = true;
    data->has_header = false; /* any byte, or the end, ends it */
    data->ours = true;
    data->n_in = 0;
    alarm_set(data->worker, &data->alarm, SPENT_MS);
    want(data);
}

void data_session_over(struct worker *worker, struct session *session)
{
    struct ring *all = &worker->data;

    for (struct ring *r = all->next, *next; r != all; r = next) {
        struct data *data = CONTAINER_OF(r, struct data, all);

        next = r->next;
        /* Claimed ones are ended by whoever waits for them. */
        if (data->session == session && !data->event && !data->dead)
            data_drop(data);
    }
    pool_close(worker, session);
}

void data_worker_stop(struct worker *worker)
{
    while (!ring_empty(&worker->data)) {
        struct data *data = CONTAINER_OF(worker->data.next, struct data, all);

        stop_waiting(data);
        close_and_free(data);
    }
}
