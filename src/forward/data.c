/* data - one DATA connection: its two headers, its end. */
#include "forward/data.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/pool.h"
#include "forward/recheck.h"
#include "tls/tls.h"
#include "wire/status.h"

#define SPENT_MS 5000u /* for the other side to hear that its Forward was refused */

static void on_ready(struct leg *leg, int events);
static void on_alarm(struct alarm *alarm);

struct data *data_new(struct worker *worker, struct session *session, int fd, struct tls *tls,
                      bool known)
{
    struct data *data = calloc(1, sizeof(*data));

    if (!data) {
        tls_free(tls);
        close(fd);
        return NULL;
    }
    data->leg = leg_new(worker, fd);
    if (!data->leg) {
        tls_free(tls);
        free(data);
        return NULL;
    }
    leg_secure(data->leg, tls, known);
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
    atomic_fetch_sub(&data->session->warm[data->ours], 1);
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
    if (data->said || data->revoked) {
        leg_reset(data->leg);
    } else {
        if (!data->connecting)
            leg_end(data->leg, true);
        leg_close(data->leg);
    }
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

    if (data->out.data) /* it answers what it was not told yet; and that may be half said */
        leg->failed = -EPROTO;
    *out_early = data->early;
    data->early = (struct bytes){0};
    leg_want(leg, 0);
    data_free(data);
    return leg;
}

/* Broken, or no good any more. */
void data_die(struct data *data)
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
        data_die(data);
}

/* ---- writing ---- */

void data_want(struct data *data)
{
    int wants = UV_READABLE;

    if (data->connecting) /* a handshake waits as if it read */
        wants = data->leg->tls ? UV_READABLE : UV_WRITABLE;
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
    n = leg_send(data->leg, data->out.data + data->out.head, bytes_left(&data->out), false);
    if (n > 0)
        data->out.head += (size_t)n;
    else if (n < 0 && n != -EAGAIN)
        note_failure(data, (int)n);
    if (bytes_left(&data->out) == 0 || data->leg->failed)
        bytes_free(&data->out);
}

void data_send(struct data *data, const void *bytes, size_t len, bool held)
{
    size_t left = bytes_left(&data->out);
    struct bytes more = {.len = left + len};

    if (!data->connecting && left == 0) {
        ssize_t n = leg_send(data->leg, bytes, len, held);

        if (n == (ssize_t)len)
            return;
        if (n < 0 && n != -EAGAIN) {
            note_failure(data, (int)n);
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
    data_want(data);
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
    data_send(data, bytes, n + DATA_HEADER_LEN, held);
}

/* ---- reading ---- */

void data_heard(struct data *data)
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
        n = leg_recv(data->leg, data->in + data->n_in, room(data));
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            if (n == -EACCES ||
                n == -EPROTO) /* so late does who dialled hear of its being refused */
                COUNT(data->worker, data_tls_failed, 1);
            data_die(data);
            return;
        }
        data->n_in += (size_t)n;
        r = take_answer(data);
        if (r < 0 && r != -EAGAIN) {
            data_die(data);
            return;
        }
        if (r == 0 && data->n_in == DATA_HEADER_LEN) {
            data_heard(data);
            return;
        }
    } while (r == -EAGAIN && data->n_in >= PREAMBLE_HEAD);
}

static void on_ready(struct leg *leg, int events)
{
    struct data *data = leg->owner;

    if (data->dead)
        return;
    if (data->waiter.kind == WAITER_DATA) {
        COUNT(data->worker, data_late, 1);
        data_die(data);
        return;
    }
    if (data->connecting) {
        int r = data_open(data);

        if (r == -EAGAIN) {
            data_want(data);
            return;
        }
        if (r < 0) {
            data_die(data);
            return;
        }
    }
    flush(data);
    if (!data->has_header) {
        data_want(data);
        if (events & UV_READABLE)
            on_readable(data);
    } else {
        leg_want(leg, data->out.data ? UV_WRITABLE : 0);
    }
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
    data_want(data);
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

void data_check_again(struct worker *worker, struct recheck *recheck)
{
    struct ring todo;

    ring_init(&todo);
    ring_move(&todo, &worker->data);
    while (!ring_empty(&todo)) {
        struct data *data = CONTAINER_OF(todo.next, struct data, all);

        ring_drop(&data->all);
        ring_push(&worker->data, &data->all);
        /* Those that are not through yet are asked then (recheck_late). */
        if (data->connecting || data->dead || recheck_leg(recheck, data->leg))
            continue;
        COUNT(worker, data_revoked, 1);
        data->revoked = true;
        data_die(data);
    }
}

void data_worker_stop(struct worker *worker)
{
    while (!ring_empty(&worker->data)) {
        struct data *data = CONTAINER_OF(worker->data.next, struct data, all);

        stop_waiting(data);
        close_and_free(data);
    }
}
