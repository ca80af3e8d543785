/* stream - a descriptor under the loop, with what waits in both directions.
 *
 * bytes_in and bytes_out are the only places that read and write a network descriptor. A TLS
 * session stands between them and the kernel. What nothing else has to know of it: bytes that wait
 * inside the session make no event, so a stream that has some and is read is put on the pending
 * ring (secure.c); and either direction may have to wait for the descriptor's other one.
 */
#include "gate/inside.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_PLACE 4096u /* a read is spread over the buffer and scratch when this much is free */
/* The most of one TLS record: who has sent as much has likely sent more. */
#define RECORD_BYTES 16384u
#define RECORDS_PER_READ 32u /* at most, however small they are: each costs the same */
#define TLS_WRITE 262144u    /* encrypted in one turn at most */

/* The loop's handle lives longer than the stream's descriptor. */
struct watch {
    uv_poll_t poll;
    struct stream *stream; /* NULL: closed */
};

/* A session gives one record's bytes at a time, and more are looked for when there are likely some.
 * As long as it is not known who is there less than a record is asked for, so that a session that
 * is handed on has all that came behind, and its end. */
_Static_assert(SNIFF_BYTES < RECORD_BYTES, "the end would be read here");
static ssize_t tls_in(struct stream *s, const struct iovec *parts, int n_parts)
{
    size_t all = 0, at = 0;
    unsigned reads = 0;
    ssize_t n = 0;
    int i = 0;

    if (s->over) {
        s->over = false;
        return s->last;
    }
    while (i < n_parts) {
        if (at == parts[i].iov_len) {
            at = 0;
            i++;
            continue;
        }
        n = tls_read(s->tls, (uint8_t *)parts[i].iov_base + at, parts[i].iov_len - at);
        if (n <= 0)
            break;
        all += (size_t)n;
        at += (size_t)n;
        if (++reads == RECORDS_PER_READ || (all < RECORD_BYTES && !tls_pending(s->tls)))
            break;
    }
    s->dry = n == -EAGAIN;
    s->in_on = s->dry && tls_wants(s->tls) == TLS_WRITABLE ? UV_WRITABLE : UV_READABLE;
    if (all == 0)
        return n;
    if (n <= 0 && !s->dry) { /* told when these are taken */
        s->over = true;
        s->last = n;
    }
    return (ssize_t)all;
}

static ssize_t tls_out(struct stream *s, const uint8_t *data, size_t len)
{
    size_t all = 0;
    ssize_t n = 0;

    while (all < len && all < TLS_WRITE) {
        n = tls_write(s->tls, data + all, len - all);
        if (n <= 0)
            break;
        all += (size_t)n;
    }
    s->out_on = n == -EAGAIN && tls_wants(s->tls) == TLS_READABLE ? UV_READABLE : UV_WRITABLE;
    return all > 0 ? (ssize_t)all : n;
}

static ssize_t bytes_in(struct stream *s, struct iovec *parts, int n_parts)
{
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = (size_t)n_parts};
    ssize_t n;

    if (s->tls)
        return tls_in(s, parts, n_parts);
    do
        n = recvmsg(s->fd, &msg, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t bytes_out(struct stream *s, const uint8_t *data, size_t len)
{
    ssize_t n;

    if (s->tls)
        return tls_out(s, data, len);
    do
        n = send(s->fd, data, len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* Whose limits bound what is read: nobody's for what nng sends, because a message of nng must be
 * taken to its end. */
static struct conn *reads_for(const struct stream *s)
{
    return s->owner && s == &s->owner->net ? s->owner : NULL;
}

void stream_init(struct stream *s, struct gate *gate, struct conn *owner)
{
    *s = (struct stream){.gate = gate, .owner = owner, .fd = -1};
    ring_init(&s->dirty);
    ring_init(&s->again);
}

static void update(struct stream *s);

/* Something happened to a descriptor that is not read: a reset, or urgent data, which nobody here
 * sends. A mere end is not told; it is read in its time, after what was said before. */
static void broken(struct stream *s)
{
    int error = 0;
    socklen_t len = sizeof(error);

    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    s->broken(s, error ? -error : -ECONNRESET);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    struct stream *s = CONTAINER_OF(poll, struct watch, poll)->stream;
    bool out;

    if (!s)
        return;
    /* The loop stops the handle when the descriptor is in error; what the error is, reading or
     * writing will tell. */
    if (status < 0) {
        events = s->events;
        s->events = 0;
    }
    if (s->handshaking) {
        if (ring_empty(&s->again))
            ring_push(&s->gate->handshakes, &s->again);
        return;
    }
    out = s->blocked && (events & s->out_on);
    if (out && ring_empty(&s->dirty))
        ring_push(&s->gate->dirty, &s->dirty);
    if (s->connecting || ((events & s->in_on) && s->reading)) {
        s->dry = false;
        s->readable(s);
    } else if (s->watch_end && !s->reading && !out) {
        broken(s);
    }
    s = CONTAINER_OF(poll, struct watch, poll)->stream;
    if (s)
        update(s);
}

static int events_wanted(const struct stream *s)
{
    int events = 0;

    if (s->handshaking) {
        int wants = tls_wants(s->tls);

        return (wants & TLS_WRITABLE ? UV_WRITABLE : 0) | (wants != TLS_WRITABLE ? UV_READABLE : 0);
    }
    if (s->reading)
        events = s->in_on;
    else if (s->watch_end)
        events = UV_PRIORITIZED;
    return events | (s->blocked ? s->out_on : 0);
}

/* Something is to be read of which the descriptor will not tell. */
static bool has_pending(const struct stream *s)
{
    return s->tls && !s->handshaking && (s->over || (!s->dry && tls_pending(s->tls)));
}

/* Puts the descriptor under the loop for what is wanted now. */
static void update(struct stream *s)
{
    int events;

    if (!s->watch)
        return;
    if (s->reading && ring_empty(&s->again) && has_pending(s))
        ring_push(&s->gate->pending, &s->again);
    events = events_wanted(s);
    if (events == s->events)
        return;
    s->events = events;
    if (events)
        uv_poll_start(&s->watch->poll, events, on_event);
    else
        uv_poll_stop(&s->watch->poll);
}

void stream_take(struct stream *s, int fd, enum sp_framing framing)
{
    s->fd = fd;
    s->framing = framing;
    s->tls = NULL;
    s->events = 0;
    s->in_on = UV_READABLE;
    s->out_on = UV_WRITABLE;
    s->reading = s->blocked = s->connecting = s->watch_end = false;
    s->handshaking = s->dry = s->over = s->ending = s->ended = false;
}

int stream_watch(struct stream *s)
{
    struct watch *watch;
    int r;

    if (s->fd < 0 || s->watch)
        return 0;
    watch = calloc(1, sizeof(*watch));
    r = watch ? uv_poll_init(&s->gate->loop, &watch->poll, s->fd) : -ENOMEM;
    if (r < 0) {
        free(watch);
        return r;
    }
    watch->stream = s;
    s->watch = watch;
    update(s);
    return 0;
}

int stream_open(struct stream *s, int fd, enum sp_framing framing)
{
    int r;

    stream_take(s, fd, framing);
    r = stream_watch(s);
    if (r < 0)
        stream_close(s);
    return r;
}

static void watch_closed(uv_handle_t *handle) { free(CONTAINER_OF(handle, struct watch, poll)); }

int stream_lift(struct stream *s, struct tls **out_tls)
{
    int fd = s->fd;

    *out_tls = TAKE(&s->tls);
    if (s->watch) {
        s->watch->stream = NULL;
        uv_close((uv_handle_t *)&s->watch->poll, watch_closed);
        s->watch = NULL;
    }
    s->fd = -1;
    s->reading = s->blocked = s->connecting = s->watch_end = false;
    ring_drop(&s->dirty);
    ring_drop(&s->again);
    return fd;
}

static int let_go(struct stream *s)
{
    struct tls *tls;
    int fd = stream_lift(s, &tls);

    tls_free(tls);
    buffer_clear(s->gate, &s->in);
    buffer_clear(s->gate, &s->out);
    return fd;
}

void stream_park(struct stream *s)
{
    if (s->fd >= 0)
        let_go(s);
}

void stream_close(struct stream *s)
{
    if (s->fd < 0)
        return;
    /* Whoever says less than it wanted is cut off, and the other side sees that it was. */
    if (s->tls && !s->handshaking && !s->ended && buffer_used(&s->out) == 0)
        tls_end(s->tls);
    close(let_go(s));
}

void stream_end(struct stream *s)
{
    int r = 0;

    if (s->fd < 0 || s->ended)
        return;
    if (s->tls)
        r = tls_end(s->tls);
    if (r == -EAGAIN) {
        s->ending = s->blocked = true;
        s->out_on = tls_wants(s->tls) == TLS_READABLE ? UV_READABLE : UV_WRITABLE;
        update(s);
        return;
    }
    s->ending = false;
    s->ended = true;
    shutdown(s->fd, SHUT_WR);
}

void stream_secure(struct stream *s, struct tls *tls)
{
    s->tls = tls;
    s->handshaking = true;
    ring_push(&s->gate->handshakes, &s->again);
    update(s);
}

void stream_secured(struct stream *s)
{
    s->handshaking = false;
    update(s);
}

void stream_waits(struct stream *s) { update(s); }

void stream_plain(struct stream *s)
{
    tls_free(TAKE(&s->tls));
    s->handshaking = false;
    s->in_on = UV_READABLE;
    s->out_on = UV_WRITABLE;
    update(s);
}

void stream_again(struct stream *s)
{
    if (s->reading) {
        s->readable(s);
        update(s);
    }
}

const char *stream_why(const struct stream *s)
{
    const char *why = s->tls ? tls_why(s->tls) : "";

    return why[0] ? why : "the connection broke";
}

void stream_read(struct stream *s, bool wanted)
{
    s->reading = wanted;
    update(s);
}

void stream_dirty(struct stream *s)
{
    if (ring_empty(&s->dirty) && !s->blocked)
        ring_push(&s->gate->dirty, &s->dirty);
}

int stream_flush(struct stream *s)
{
    size_t len = buffer_used(&s->out);
    ssize_t n = 0;

    if (s->fd < 0 || s->connecting || s->handshaking)
        return 0;
    if (len > 0) {
        n = bytes_out(s, s->out.data + s->out.head, len);
        if (n < 0 && n != -EAGAIN)
            return (int)n;
        if (n > 0) {
            if (s->wrote)
                s->wrote(s, s->out.data + s->out.head, (size_t)n);
            buffer_consume(s->gate, s->owner, &s->out, (size_t)n);
            if (reads_for(s))
                COUNT(s->gate, bytes_out, (uint64_t)n);
        }
    }
    s->blocked = buffer_used(&s->out) > 0;
    if (s->ending && !s->blocked)
        stream_end(s);
    update(s);
    return 0;
}

ssize_t stream_fill(struct stream *s, size_t max, struct view *out)
{
    struct gate *gate = s->gate;
    size_t room = s->in.cap - s->in.tail;
    struct iovec parts[2] = {{NULL, 0}, {gate->scratch, max}};
    bool fresh = buffer_used(&s->in) == 0;
    ssize_t n;
    int r;

    if (fresh || room < IN_PLACE) {
        room = 0;
        n = bytes_in(s, parts + 1, 1);
    } else {
        room = room < max ? room : max;
        parts[0] = (struct iovec){s->in.data + s->in.tail, room};
        parts[1].iov_len = max - room;
        n = bytes_in(s, parts, 2);
    }
    if (n <= 0)
        return n;
    if (reads_for(s)) {
        COUNT(gate, bytes_in, (uint64_t)n);
        __atomic_store_n(&s->owner->received, s->owner->received + (uint64_t)n, __ATOMIC_RELAXED);
    }
    if (fresh) {
        *out = (struct view){gate->scratch, (size_t)n, true};
        return n;
    }
    s->in.tail += (size_t)n < room ? (size_t)n : room;
    if ((size_t)n > room) {
        r = buffer_reserve(gate, reads_for(s), &s->in, (size_t)n - room);
        if (r < 0)
            return r;
        buffer_add(&s->in, gate->scratch, (size_t)n - room);
    }
    *out = (struct view){s->in.data + s->in.head, buffer_used(&s->in), false};
    return n;
}

int stream_keep(struct stream *s, const struct view *view, size_t consumed)
{
    int r;

    if (!view->scratch) {
        buffer_consume(s->gate, s->owner, &s->in, consumed);
        return 0;
    }
    if (consumed == view->len)
        return 0;
    r = buffer_reserve(s->gate, reads_for(s), &s->in, view->len - consumed);
    if (r == 0)
        buffer_add(&s->in, view->data + consumed, view->len - consumed);
    return r;
}

int stream_message(struct stream *s, const struct iovec *parts, int n_parts)
{
    size_t len = 0;
    uint8_t head[SP_HEAD_MAX];
    int r;

    for (int i = 0; i < n_parts; i++)
        len += parts[i].iov_len;
    r = buffer_reserve(s->gate, s->owner, &s->out, sp_head_len(s->framing) + len);
    if (r < 0)
        return r;
    sp_head_pack(s->framing, len, head);
    buffer_add(&s->out, head, sp_head_len(s->framing));
    for (int i = 0; i < n_parts; i++)
        buffer_add(&s->out, parts[i].iov_base, parts[i].iov_len);
    stream_dirty(s);
    return 0;
}

int stream_bytes(struct stream *s, const void *data, size_t len)
{
    int r = buffer_reserve(s->gate, s->owner, &s->out, len);

    if (r == 0) {
        buffer_add(&s->out, data, len);
        stream_dirty(s);
    }
    return r;
}

int unix_connect(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

    if (fd < 0)
        return -errno;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
        return fd;
    r = -errno;
    close(fd);
    return r;
}
