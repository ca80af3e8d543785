/* pair - a queue in front of a PAIR1 socket, and sessions that end with everything accounted for.
 *
 * nng takes a message from us exactly when the pipe begins to write it (its own buffer is 0), so
 * the sends that succeeded since the pipe came up are the messages that the other end of the pipe
 * will see, each of them whole.
 *
 * A session is over when its pipe is taken down, the send is back, and the receive that was posted
 * during it is back too: it is cancelled for that, so that a last message on its way through nng's
 * threads is delivered before `gone`.
 */
#include "rpc/pair.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <nng/nng.h>
#include <nng/protocol/pair1/pair.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/lock.h"
#include "rpc/socket.h"
#include "wire/frame.h"

#define SEND_MS 2000u /* then a send is posted again, or given up when the session is quiet */

struct item { /* one queued message */
    struct item *next;
    nng_msg *msg;
    size_t mergeable; /* RPC_MERGE: bytes of msg in front of the body; else 0 */
};

struct queue {
    struct item *first, **last;
};

struct rpc_pair {
    struct rpc_pair_settings settings;
    nng_socket sock;
    nng_aio *send, *recv;
    struct mutex lock;
    /* with lock held: */
    uint32_t pipe;   /* of the session; 0: none */
    bool removed;    /* its REM_POST came: nothing more is sent */
    bool taken_down; /* nothing of it is left in nng ... */
    bool drained;    /* ... nor on the way to us */
    bool quiet;      /* no send is begun, but what is queued until flush_until_ms */
    uint64_t flush_until_ms;
    unsigned quiet_asked; /* answers that are owed */
    bool sending;         /* the aio is nng's */
    unsigned telling;     /* events of this session being told right now */
    uint64_t sent;        /* since the pipe came up */
    struct queue urgent, bulk;
    struct rpc_pair_counters counters;
};

/* ---- messages ---- */

/* A received message is nng's, under another name. */
static nng_msg *as_nng(const struct rpc_msg *msg) { return (nng_msg *)msg; }

const uint8_t *rpc_msg_data(const struct rpc_msg *msg) { return nng_msg_body(as_nng(msg)); }

size_t rpc_msg_len(const struct rpc_msg *msg) { return nng_msg_len(as_nng(msg)); }

void rpc_msg_free(struct rpc_msg *msg)
{
    if (msg)
        nng_msg_free(as_nng(msg));
}

/* ---- the queue ---- */

static void queue_init(struct queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

static void queue_add(struct queue *queue, struct item *item)
{
    item->next = NULL;
    *queue->last = item;
    queue->last = &item->next;
}

static struct item *queue_last(const struct queue *queue)
{
    return queue->first ? CONTAINER_OF(queue->last, struct item, next) : NULL;
}

static struct item *queue_take(struct queue *queue)
{
    struct item *item = queue->first;

    if (item) {
        queue->first = item->next;
        if (!queue->first)
            queue->last = &queue->first;
    }
    return item;
}

/* The next message to send, taken out of the queue, or NULL. */
static nng_msg *take_locked(struct rpc_pair *pair) REQUIRES(pair->lock)
{
    struct item *item = queue_take(&pair->urgent);
    nng_msg *msg;

    if (!item)
        item = queue_take(&pair->bulk);
    if (!item)
        return NULL;
    msg = item->msg;
    free(item);
    pair->counters.queued--;
    pair->counters.queued_bytes -= nng_msg_len(msg);
    return msg;
}

static void drop_queue_locked(struct rpc_pair *pair) REQUIRES(pair->lock)
{
    nng_msg *msg;

    while ((msg = take_locked(pair)) != NULL)
        nng_msg_free(msg);
}

/* ---- sending, and the ends of things ---- */

/* Milliseconds for one send; 0: none may be begun. */
static uint64_t send_time_locked(const struct rpc_pair *pair) REQUIRES(pair->lock)
{
    uint64_t now, left;

    if (!pair->pipe || pair->removed)
        return 0;
    if (!pair->quiet)
        return SEND_MS;
    now = clock_ms();
    left = pair->flush_until_ms > now ? pair->flush_until_ms - now : 0;
    return left < SEND_MS ? left : SEND_MS;
}

/* Takes msg. With the lock held, so that a send is cancellable once it is seen: nng never calls
 * back from in here. */
static void post_locked(struct rpc_pair *pair, nng_msg *msg, uint64_t ms) REQUIRES(pair->lock)
{
    pair->sending = true;
    nng_aio_set_msg(pair->send, msg);
    nng_aio_set_timeout(pair->send, (nng_duration)ms);
    nng_send_aio(pair->sock, pair->send);
}

struct news { /* to be told without the lock */
    unsigned quiet;
    bool gone;
    uint64_t sent;
};

/* What follows from a change of state. Begins a send if one may begin. */
static struct news settle_locked(struct rpc_pair *pair) REQUIRES(pair->lock)
{
    struct news news = {.sent = pair->sent};
    uint64_t ms = send_time_locked(pair);
    nng_msg *msg;

    if (ms == 0)
        drop_queue_locked(pair);
    if (pair->sending)
        return news;
    msg = take_locked(pair);
    if (msg) {
        post_locked(pair, msg, ms);
        return news;
    }
    if (pair->quiet_asked && (pair->quiet || pair->removed || !pair->pipe)) {
        news.quiet = pair->quiet_asked;
        pair->quiet_asked = 0;
        pair->telling++;
        return news;
    }
    if (pair->pipe && pair->taken_down && pair->drained && !pair->telling) {
        pair->pipe = 0;
        news.gone = true;
    }
    return news;
}

/* Without the lock; the answers to rpc_pair_quiet come before `gone`. */
static void tell(struct rpc_pair *pair, struct news news)
{
    while (news.quiet > 0) {
        while (news.quiet-- > 0)
            pair->settings.quiet(pair->settings.ctx, news.sent);
        mutex_lock(&pair->lock);
        pair->telling--;
        news = settle_locked(pair);
        mutex_unlock(&pair->lock);
    }
    if (news.gone)
        pair->settings.gone(pair->settings.ctx);
}

static void on_sent(void *arg)
{
    struct rpc_pair *pair = arg;
    int rv = nng_aio_result(pair->send);
    struct news news;
    uint64_t ms;

    mutex_lock(&pair->lock);
    pair->sending = false;
    if (rv == 0) {
        pair->sent++;
        pair->counters.sent++;
    } else {
        nng_msg *msg = nng_aio_get_msg(pair->send);

        ms = rv == NNG_ETIMEDOUT ? send_time_locked(pair) : 0;
        if (ms > 0)
            post_locked(pair, msg, ms);
        else
            nng_msg_free(msg);
    }
    news = settle_locked(pair);
    mutex_unlock(&pair->lock);
    tell(pair, news);
}

static int pack(const struct rpc_pair *pair, enum rpc_urgency urgency,
                const ProtobufCMessage *header, const ProtobufCMessage *body,
                struct item **out_item)
{
    size_t size = frame_size(header, body);
    struct item *item;

    if (size > pair->settings.message_bytes)
        return -EMSGSIZE;
    item = malloc(sizeof(*item));
    if (!item)
        return -ENOMEM;
    if (nng_msg_alloc(&item->msg, size) != 0) {
        free(item);
        return -ENOMEM;
    }
    frame_pack(header, body, nng_msg_body(item->msg));
    item->mergeable = urgency == RPC_MERGE ? frame_size(header, NULL) : 0;
    *out_item = item;
    return 0;
}

static int refuse_locked(struct rpc_pair *pair, size_t size) REQUIRES(pair->lock)
{
    if (!pair->pipe || pair->removed || pair->quiet)
        return -EPIPE;
    if (pair->counters.queued > 0 &&
        pair->counters.queued_bytes + size > pair->settings.queue_bytes) {
        pair->counters.dropped_full++;
        return -EAGAIN;
    }
    return 0;
}

/* Puts the body of item behind that of the last urgent message. False: not to be. */
static bool merge_locked(struct rpc_pair *pair, const struct item *item) REQUIRES(pair->lock)
{
    const struct item *last = queue_last(&pair->urgent);
    size_t head = item->mergeable, more = nng_msg_len(item->msg) - head, had;
    const uint8_t *data = nng_msg_body(item->msg);

    if (head == 0 || !last || last->mergeable != head ||
        memcmp(nng_msg_body(last->msg), data, head) != 0)
        return false;
    had = nng_msg_len(last->msg);
    if (had + more > LIMIT_FORWARDS || had + more > pair->settings.message_bytes)
        return false;
    /* nng_msg_append alone grows by no more than it needs, and copies all of it each time. */
    if (nng_msg_capacity(last->msg) < had + more &&
        nng_msg_reserve(last->msg, 2 * (had + more)) != 0)
        return false;
    if (nng_msg_append(last->msg, data + head, more) != 0)
        return false;
    pair->counters.queued_bytes += more;
    pair->counters.merged++;
    return true;
}

int rpc_pair_send(struct rpc_pair *pair, enum rpc_urgency urgency, const ProtobufCMessage *header,
                  const ProtobufCMessage *body)
{
    struct item *item = NULL;
    struct news news = {0};
    bool merged = false;
    size_t size;
    int r = pack(pair, urgency, header, body, &item);

    if (r < 0)
        return r;
    size = nng_msg_len(item->msg);
    mutex_lock(&pair->lock);
    r = refuse_locked(pair, size);
    merged = r == 0 && merge_locked(pair, item);
    if (r == 0 && !merged) {
        queue_add(urgency == RPC_BULK ? &pair->bulk : &pair->urgent, item);
        pair->counters.queued++;
        pair->counters.queued_bytes += size;
        news = settle_locked(pair);
    }
    mutex_unlock(&pair->lock);
    if (r < 0 || merged) {
        nng_msg_free(item->msg);
        free(item);
    }
    tell(pair, news);
    return r;
}

void rpc_pair_quiet(struct rpc_pair *pair, bool flush)
{
    struct news news;

    mutex_lock(&pair->lock);
    pair->quiet_asked++;
    if (!pair->quiet && pair->pipe) {
        pair->quiet = true;
        pair->flush_until_ms = flush ? clock_ms() + SEND_MS : 0;
    } else if (!flush) {
        pair->flush_until_ms = 0;
    }
    news = settle_locked(pair);
    mutex_unlock(&pair->lock);
    tell(pair, news);
}

/* ---- receiving ---- */

static void receive(struct rpc_pair *pair, nng_msg *msg)
{
    bool ours;

    mutex_lock(&pair->lock);
    ours = pair->pipe && pair->pipe == (uint32_t)nng_pipe_id(nng_msg_get_pipe(msg));
    if (ours) {
        pair->counters.received++;
        pair->telling++;
    } else {
        pair->counters.dropped_old++;
    }
    mutex_unlock(&pair->lock);
    if (!ours) {
        nng_msg_free(msg);
        return;
    }
    pair->settings.message(pair->settings.ctx, (struct rpc_msg *)msg);
    mutex_lock(&pair->lock);
    pair->telling--;
    mutex_unlock(&pair->lock);
}

static void on_received(void *arg)
{
    struct rpc_pair *pair = arg;
    int rv = nng_aio_result(pair->recv);
    struct news news;

    if (rv == 0) {
        nng_msg *msg = nng_aio_get_msg(pair->recv);

        nng_aio_set_msg(pair->recv, NULL);
        receive(pair, msg);
    }
    mutex_lock(&pair->lock);
    if (pair->taken_down)
        pair->drained = true;
    news = settle_locked(pair);
    if (rv != NNG_ECLOSED)
        nng_recv_aio(pair->sock, pair->recv); /* does nothing once the aio is stopped */
    mutex_unlock(&pair->lock);
    tell(pair, news);
}

/* ---- sessions ---- */

/* Before the protocol may send or receive on the pipe, so that `up` comes before all else. */
static void pipe_added(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct rpc_pair *pair = arg;
    struct news news;
    bool ours;

    mutex_lock(&pair->lock);
    pair->counters.pipes_added++;
    ours = pair->pipe == 0; /* else nng is about to refuse it */
    if (ours) {
        pair->pipe = (uint32_t)nng_pipe_id(pipe);
        pair->removed = pair->taken_down = pair->drained = pair->quiet = false;
        pair->sent = 0;
        pair->telling++;
    }
    mutex_unlock(&pair->lock);
    if (!ours)
        return;
    pair->settings.up(pair->settings.ctx);
    mutex_lock(&pair->lock);
    pair->telling--;
    news = settle_locked(pair);
    mutex_unlock(&pair->lock);
    tell(pair, news);
}

static void pipe_taken_down(void *arg)
{
    struct rpc_pair *pair = arg;

    mutex_lock(&pair->lock);
    pair->taken_down = true;
    nng_aio_cancel(pair->recv); /* its callback goes on from here, see on_received */
    mutex_unlock(&pair->lock);
}

static void pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct rpc_pair *pair = arg;
    struct news news;
    bool ours;

    mutex_lock(&pair->lock);
    pair->counters.pipes_removed++;
    ours = pair->pipe && pair->pipe == (uint32_t)nng_pipe_id(pipe);
    if (ours) {
        pair->removed = true;
        nng_aio_cancel(pair->send); /* or the next session would send it */
    }
    news = settle_locked(pair);
    mutex_unlock(&pair->lock);
    tell(pair, news);
    if (ours)
        rpc_after_pipe(pipe_taken_down, pair);
}

static int pair_listen(struct rpc_pair *pair)
{
    int rv = nng_aio_alloc(&pair->send, on_sent, pair);

    if (rv == 0)
        rv = nng_aio_alloc(&pair->recv, on_received, pair);
    if (rv == 0)
        rv = nng_socket_set_int(pair->sock, NNG_OPT_SENDBUF, 0);
    if (rv == 0)
        rv = nng_socket_set_int(pair->sock, NNG_OPT_RECVBUF, 0);
    if (rv == 0)
        rv = nng_pipe_notify(pair->sock, NNG_PIPE_EV_ADD_PRE, pipe_added, pair);
    if (rv == 0)
        rv = nng_pipe_notify(pair->sock, NNG_PIPE_EV_REM_POST, pipe_removed, pair);
    if (rv != 0)
        return rpc_errno(rv);
    nng_recv_aio(pair->sock, pair->recv);
    return rpc_listen(pair->sock, pair->settings.path, pair->settings.message_bytes);
}

int rpc_pair_open(const struct rpc_pair_settings *settings, struct rpc_pair **out_pair)
{
    struct rpc_pair *pair = calloc(1, sizeof(*pair));
    int r;

    if (!pair)
        return -ENOMEM;
    pair->settings = *settings;
    queue_init(&pair->urgent);
    queue_init(&pair->bulk);
    r = rpc_errno(nng_pair1_open(&pair->sock));
    if (r < 0) {
        free(pair);
        return r;
    }
    mutex_init(&pair->lock);
    r = pair_listen(pair);
    pair->settings.path = NULL; /* the caller's, and not needed again */
    if (r < 0) {
        rpc_pair_close(pair);
        return r;
    }
    *out_pair = pair;
    return 0;
}

void rpc_pair_close(struct rpc_pair *pair)
{
    if (!pair)
        return;
    nng_aio_stop(pair->send);
    nng_aio_stop(pair->recv);
    nng_close(pair->sock);
    nng_aio_free(pair->send);
    nng_aio_free(pair->recv);
    mutex_lock(&pair->lock);
    drop_queue_locked(pair);
    mutex_unlock(&pair->lock);
    mutex_fini(&pair->lock);
    free(pair);
}

void rpc_pair_counters(struct rpc_pair *pair, struct rpc_pair_counters *out_counters)
{
    mutex_lock(&pair->lock);
    *out_counters = pair->counters;
    mutex_unlock(&pair->lock);
}
