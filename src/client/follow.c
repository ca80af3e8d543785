/* follow - a connection of kind watch, step by step; nothing in it waits but follow_next.
 *
 * A step does what can be done now: connect on, send on, read, or give up what took too long. When
 * there is nothing to do, the timer stands at the next time that matters, so that the one epoll
 * descriptor says everything: bytes, an end, or a time that has come. The timer is never read, only
 * set; one that stands too early costs one idle step.
 */
#include "client/follow.h"
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "base/backoff.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"
#include "client/call.h"
#include "client/channel.h"
#include "client/connect.h"
#include "client/follow_wire.h"
#include "wire/check.h"
#include "wire/frame.h"

#define ATTEMPT_MS 5000u /* to connect, and to be answered */
#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 5000u
#define HEARTBEAT_MS 3000u  /* the node's usual */
#define BEATS_MISSED 3u     /* until a node is lost, ... */
#define BEATS_SLACK_MS 500u /* ... and what a busy machine may be late */
#define LIFE_BYTES 4096u    /* of a long message are a sign of life too */
#define READ_STEP 16384u    /* the first buffer; it doubles as it fills */
#define READ_KEPT 262144u   /* the longest buffer that is kept without need */

enum phase { IDLE, CONNECTING, HANDSHAKE, PREAMBLE, STREAM, ENDED };

struct follow {
    char *url, *name_glob, *peer;
    struct trust *trust;
    uint32_t heartbeat_ms;
    enum phase phase;
    int epoll, timer;
    struct channel channel; /* closed outside of HANDSHAKE, PREAMBLE and STREAM */
    uint32_t events;        /* that its descriptor is in epoll for */
    enum sp_framing framing;
    uint64_t timer_ms; /* what the timer stands at; 0: it stands at no time */
    uint64_t until_ms; /* IDLE: the next attempt; before STREAM: the attempt's end */
    uint64_t alive_ms; /* STREAM: the last sign of life */
    struct backoff backoff;
    struct connecting *connecting;
    uint64_t call_id;
    uint8_t *out; /* preamble and request, until they are sent */
    size_t out_len, out_sent;
    uint8_t *in; /* received from in[in_at] on, in_len bytes */
    size_t in_at, in_len, in_cap;
    size_t told_len;   /* of in: the message that the caller holds */
    size_t life_bytes; /* since the last sign of life */
    const uint8_t *raw;
    size_t raw_len;
    struct arena arena;
    char text[LIMIT_STATUS_TEXT + 1], why[TLS_WHY];
    struct follow_status status;
};

/* ---- beginning and end ---- */

static int copy(const char *text, char **out_copy)
{
    if (!text)
        return 0;
    *out_copy = strdup(text);
    return *out_copy ? 0 : -ENOMEM;
}

/* The timer fires at when_ms, or at once if that is over. */
static void set_timer(struct follow *f, uint64_t when_ms)
{
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(when_ms / 1000),
                                         .tv_nsec = (long)(when_ms % 1000) * 1000000L}};

    if (f->timer_ms == when_ms)
        return;
    if (when_ms == UINT64_MAX)
        at = (struct itimerspec){.it_value.tv_sec = 0};
    timerfd_settime(f->timer, TFD_TIMER_ABSTIME, &at, NULL);
    f->timer_ms = when_ms;
}

/* There is something to do without waiting: 1 ms after the machine began is always over. */
void follow_ring(struct follow *f) { set_timer(f, 1); }

static int open_descriptors(struct follow *f)
{
    struct epoll_event event = {.events = EPOLLIN};

    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (f->epoll < 0)
        return -errno;
    f->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (f->timer < 0 || epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->timer, &event) < 0)
        return -errno;
    return 0;
}

int follow_new(const struct follow_settings *settings, struct follow **out_follow)
{
    CLEANUP(connecting_freep) struct connecting *probe = NULL;
    CLEANUP(follow_freep) struct follow *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return -ENOMEM;
    f->epoll = f->timer = f->channel.fd = -1;
    f->trust = trust_ref(settings->trust);
    f->call_id = random_u64() >> 1;
    f->heartbeat_ms = follow_wire_heartbeat(settings->heartbeat_ms);
    f->status.epoch = settings->from_epoch;
    f->status.revision = settings->from_revision;
    f->status.text = f->text;
    f->status.why = f->why;
    backoff_init(&f->backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS);
    arena_init(&f->arena);
    r = connecting_new(settings->url, &probe); /* is there such a URL? */
    if (r == 0 && trust_wanted(settings->url) != (settings->trust != NULL))
        r = -EINVAL; /* plaintext by mistake must not be */
    if (r == 0)
        r = copy(settings->url, &f->url);
    if (r == 0)
        r = copy(settings->name_glob, &f->name_glob);
    if (r == 0)
        r = copy(settings->peer, &f->peer);
    if (r == 0)
        r = open_descriptors(f);
    if (r < 0)
        return r;
    follow_ring(f);
    *out_follow = TAKE(&f);
    return 0;
}

/* Descriptors are taken out of the epoll by hand: closing them would not do it while a child that
 * this process has forked holds copies. */
static void stop_connecting(struct follow *f)
{
    if (!f->connecting)
        return;
    epoll_ctl(f->epoll, EPOLL_CTL_DEL, connecting_fd(f->connecting), NULL);
    connecting_free(TAKE(&f->connecting));
}

/* Whatever belongs to one connection, or one attempt. */
static void disconnect(struct follow *f)
{
    stop_connecting(f);
    if (f->channel.fd >= 0)
        epoll_ctl(f->epoll, EPOLL_CTL_DEL, f->channel.fd, NULL);
    channel_close(&f->channel);
    f->events = 0;
    free(TAKE(&f->out));
    f->out_len = f->out_sent = 0;
    if (f->in_cap > READ_KEPT) {
        free(TAKE(&f->in));
        f->in_cap = 0;
    }
    f->in_at = f->in_len = f->told_len = f->life_bytes = 0;
    f->raw = NULL;
    f->raw_len = 0;
    f->status.connected = 0;
}

void follow_free(struct follow *f)
{
    if (!f)
        return;
    disconnect(f);
    free(f->in);
    if (f->timer >= 0)
        close(f->timer);
    if (f->epoll >= 0)
        close(f->epoll);
    arena_fini(&f->arena);
    trust_unref(f->trust);
    free(f->url);
    free(f->name_glob);
    free(f->peer);
    free(f);
}

void follow_freep(struct follow **follow) { follow_free(*follow); }

/* ---- losses and refusals ---- */

static void forget_refusal(struct follow *f)
{
    f->status.error = 0;
    f->status.status = STATUS_OK;
    f->status.reason = MESHD__V1__REASON__REASON_NONE;
    f->text[0] = f->why[0] = '\0';
}

/* What status says of a refusal stays as the caller has set it. */
static int go_idle(struct follow *f, int error)
{
    disconnect(f);
    f->status.error = error;
    f->phase = IDLE;
    f->until_ms = clock_ms() + backoff_next(&f->backoff, random_u64());
    set_timer(f, f->until_ms);
    return FOLLOW_LOST;
}

static int lost(struct follow *f, int error)
{
    forget_refusal(f);
    if (f->channel.fd >= 0)
        channel_why(&f->channel, error, f->phase == STREAM || f->in_len > 0, f->why);
    return go_idle(f, error);
}

/* The node has said no, with a status other than OK. */
static int refused(struct follow *f, unsigned status, Meshd__V1__Reason reason, const char *text)
{
    forget_refusal(f);
    f->status.status = status;
    f->status.reason = reason;
    snprintf(f->text, sizeof(f->text), "%s", text);
    if (status == STATUS_UNAVAILABLE || status == STATUS_RESOURCE_EXHAUSTED)
        return go_idle(f, -EBUSY);
    disconnect(f);
    f->phase = ENDED;
    follow_ring(f);
    return FOLLOW_ENDED;
}

/* ---- connecting and asking ---- */

/* Before each wait, as it is the channel that knows. */
static int watch_socket(struct follow *f)
{
    bool sending = f->phase != HANDSHAKE && f->out;
    short wanted =
        channel_events(&f->channel, sending ? CHANNEL_RECEIVE | CHANNEL_SEND : CHANNEL_RECEIVE);
    struct epoll_event event = {.events = (wanted & POLLIN ? (uint32_t)EPOLLIN : 0) |
                                          (wanted & POLLOUT ? (uint32_t)EPOLLOUT : 0)};

    if (event.events == f->events)
        return 0;
    if (epoll_ctl(f->epoll, f->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, f->channel.fd, &event) < 0)
        return -errno;
    f->events = event.events;
    return 0;
}

/* Takes fd. */
static int connected(struct follow *f, int fd, enum sp_framing framing, struct trust *trust)
{
    struct follow_settings request;
    int r;

    stop_connecting(f);
    f->framing = framing;
    request = (struct follow_settings){
        .name_glob = f->name_glob,
        .peer = f->peer,
        .heartbeat_ms = f->heartbeat_ms,
        .from_epoch = f->status.epoch,
        .from_revision = f->status.revision,
    };
    f->out_sent = 0;
    f->phase = HANDSHAKE;
    r = channel_open(&f->channel, fd, trust);
    if (r == 0)
        r = follow_wire_request(&request, framing, ++f->call_id, &f->out, &f->out_len);
    if (r == 0)
        r = watch_socket(f);
    if (r == 0)
        return 0;
    if (r != -ENOMEM)
        return lost(f, r);
    disconnect(f);
    f->phase = IDLE;
    f->until_ms = 1; /* at once again: it is no fault of the node */
    return r;
}

int follow_adopt(struct follow *f, int fd, enum sp_framing framing)
{
    disconnect(f);
    f->until_ms = clock_ms() + ATTEMPT_MS;
    follow_ring(f);
    return connected(f, fd, framing, NULL);
}

static int begin(struct follow *f)
{
    struct epoll_event event = {.events = EPOLLIN};
    int r = connecting_new(f->url, &f->connecting);

    if (r == -ENOMEM)
        return r;
    if (r == 0 && epoll_ctl(f->epoll, EPOLL_CTL_ADD, connecting_fd(f->connecting), &event) < 0)
        r = -errno;
    if (r < 0)
        return lost(f, r);
    f->phase = CONNECTING;
    f->until_ms = clock_ms() + ATTEMPT_MS;
    return 0;
}

static int connect_on(struct follow *f)
{
    enum sp_framing framing;
    int fd, r = connecting_step(f->connecting, &framing, &fd);

    if (r == -EINPROGRESS)
        return -EAGAIN;
    return r < 0 ? lost(f, r) : connected(f, fd, framing, f->trust);
}

static int shake_hands(struct follow *f)
{
    int r = channel_handshake(&f->channel);

    if (r == 0)
        f->phase = PREAMBLE;
    return r == 0 || r == -EAGAIN ? r : lost(f, r);
}

/* An error is not told here: what the node said before it went is still to be read. */
static void send_on(struct follow *f)
{
    ssize_t n = channel_send(&f->channel, f->out + f->out_sent, f->out_len - f->out_sent);

    if (n == -EAGAIN)
        return;
    if (n > 0)
        f->out_sent += (size_t)n;
    if (n < 0 || f->out_sent == f->out_len)
        free(TAKE(&f->out));
}

/* ---- reading ---- */

static void consume(struct follow *f, size_t len)
{
    f->in_at += len;
    f->in_len -= len;
    if (f->in_len > 0)
        return;
    f->in_at = 0;
    if (f->in_cap > READ_KEPT) {
        free(TAKE(&f->in));
        f->in_cap = 0;
    }
}

/* Room for at least one byte more; the buffer never doubles before it is full. */
static int make_room(struct follow *f)
{
    size_t cap;
    uint8_t *in;

    if (f->in_at + f->in_len < f->in_cap)
        return 0;
    if (f->in_at > 0) {
        memmove(f->in, f->in + f->in_at, f->in_len);
        f->in_at = 0;
        return 0;
    }
    cap = f->in_cap ? f->in_cap * 2 : READ_STEP;
    in = realloc(f->in, cap);
    if (!in)
        return -ENOMEM;
    f->in = in;
    f->in_cap = cap;
    return 0;
}

/* 0: more has come; -EAGAIN; -ENOMEM; FOLLOW_LOST. */
static int receive(struct follow *f)
{
    ssize_t n;
    int r = make_room(f);

    if (r < 0)
        return r;
    n = channel_receive(&f->channel, f->in + f->in_at + f->in_len,
                        f->in_cap - f->in_at - f->in_len);
    if (n < 0)
        return n == -EAGAIN ? -EAGAIN : lost(f, (int)n);
    f->in_len += (size_t)n;
    f->life_bytes += (size_t)n;
    if (f->life_bytes >= LIFE_BYTES) {
        f->life_bytes = 0;
        f->alive_ms = clock_ms();
    }
    return 0;
}

static int read_preamble(struct follow *f)
{
    struct preamble_reply reply;
    int r = preamble_reply_parse(f->in + f->in_at, f->in_len, &reply);

    if (r == -EAGAIN)
        return r;
    if (r == -EPROTONOSUPPORT)
        return refused(f, STATUS_UNIMPLEMENTED, MESHD__V1__REASON__REASON_WIRE_VERSION,
                       "another version of the preamble is spoken there");
    if (r < 0)
        return lost(f, r);
    if (reply.status != STATUS_OK)
        return refused(f, reply.status, (Meshd__V1__Reason)reply.reason, reply.text);
    consume(f, (size_t)r);
    f->phase = STREAM;
    f->alive_ms = clock_ms();
    f->life_bytes = 0;
    return 0;
}

static void heard(struct follow *f, const Meshd__V1__WatchReply *reply)
{
    f->alive_ms = f->status.heard_ms = clock_ms();
    f->life_bytes = 0;
    if (!f->status.connected) {
        f->status.connected = 1;
        f->status.connects++;
        forget_refusal(f);
        backoff_reset(&f->backoff);
    }
    /* A picture that breaks off leaves nothing to go on from. */
    if (reply->resync)
        f->status.epoch = f->status.revision = 0;
    if (reply->revision != 0) {
        f->status.epoch = reply->epoch;
        f->status.revision = reply->revision;
    }
}

/* 0 and the next message, which is told; -EAGAIN: it is not whole yet. */
static int read_message(struct follow *f, const Meshd__V1__WatchReply **out_reply)
{
    const uint8_t *at = f->in + f->in_at;
    size_t head = sp_head_len(f->framing);
    const Meshd__V1__ReplyHeader *header = NULL;
    ProtobufCMessage *message = NULL;
    struct frame_parts parts;
    uint64_t len;
    int r =
        f->in_len == 0 ? -EAGAIN : sp_head_parse(f->framing, at, f->in_len, CALL_MESSAGE_MAX, &len);

    if (r == 0 && f->in_len - head < len)
        r = -EAGAIN;
    if (r == -EAGAIN)
        return r;
    if (r == 0)
        r = follow_wire_open(at + head, (size_t)len, f->call_id, &f->arena, &header, &parts);
    if (r == 0) {
        f->status.wire_version_min = header->wire_version_min;
        f->status.wire_version_max = header->wire_version_max;
        if (header->status != STATUS_OK)
            return refused(f, header->status, header->reason, header->text);
        r = wire_unpack(&meshd__v1__watch_reply__descriptor, parts.body, parts.body_len, &f->arena,
                        &message);
    }
    if (r == -ENOMEM)
        return r;
    if (r < 0)
        return lost(f, r);
    f->told_len = head + (size_t)len;
    f->raw = parts.body;
    f->raw_len = parts.body_len;
    *out_reply = (const Meshd__V1__WatchReply *)message;
    heard(f, *out_reply);
    return 0;
}

/* ---- the whole ---- */

static uint64_t silent_until(const struct follow *f)
{
    uint64_t beat = f->heartbeat_ms ? f->heartbeat_ms : HEARTBEAT_MS;

    return f->alive_ms + BEATS_MISSED * beat + BEATS_SLACK_MS;
}

/* When a step is due though nothing has come. */
static uint64_t due(const struct follow *f)
{
    uint64_t wake;

    if (f->phase == STREAM)
        return silent_until(f);
    if (f->phase != CONNECTING)
        return f->until_ms;
    wake = connecting_wake_ms(f->connecting);
    return wake < f->until_ms ? wake : f->until_ms;
}

/* One thing that can be done now; 0: go on. -EAGAIN: nothing. */
static int step(struct follow *f, const Meshd__V1__WatchReply **out_reply)
{
    uint64_t now = clock_ms();
    int r;

    switch (f->phase) {
    case ENDED:
        return FOLLOW_ENDED;
    case IDLE:
        return now < f->until_ms ? -EAGAIN : begin(f);
    case CONNECTING:
    case HANDSHAKE:
        r = f->phase == CONNECTING ? connect_on(f) : shake_hands(f);
        return r == -EAGAIN && now >= f->until_ms ? lost(f, -ETIMEDOUT) : r;
    case PREAMBLE:
    case STREAM:
        break;
    }
    if (f->out)
        send_on(f);
    if (f->phase == PREAMBLE)
        r = f->in_len > 0 ? read_preamble(f) : -EAGAIN;
    else
        r = read_message(f, out_reply);
    if (r == -EAGAIN)
        r = receive(f);
    if (r == -EAGAIN && now >= (f->phase == PREAMBLE ? f->until_ms : silent_until(f)))
        return lost(f, -ETIMEDOUT);
    return r;
}

/* Is there another message, which no descriptor knows of? */
static bool more_is_here(const struct follow *f)
{
    size_t head = sp_head_len(f->framing), left = f->in_len - f->told_len;
    uint64_t len;
    int r;

    if (channel_pending(&f->channel))
        return true; /* maybe not whole: looking costs little */
    if (left == 0)
        return false;
    r = sp_head_parse(f->framing, f->in + f->in_at + f->told_len, left, CALL_MESSAGE_MAX, &len);
    return r == 0 ? left - head >= len : r != -EAGAIN;
}

int follow_next(struct follow *f, uint64_t deadline_ms, const Meshd__V1__WatchReply **out_reply)
{
    const Meshd__V1__WatchReply *reply = NULL;
    int r;

    if (f->told_len > 0) {
        consume(f, f->told_len);
        f->told_len = f->raw_len = 0;
        f->raw = NULL;
    }
    arena_reset(&f->arena);
    for (;;) {
        r = step(f, &reply);
        if (r == 0 && !reply)
            continue;
        if (r == -EAGAIN) {
            uint64_t when = due(f);

            if (f->channel.fd >= 0)
                watch_socket(f);
            /* A later time waits until the timer has fired for the earlier one. */
            if (f->timer_ms > when || f->timer_ms <= clock_ms())
                set_timer(f, when);
            r = connect_wait(f->epoll, POLLIN, deadline_ms);
            if (r == 0)
                continue;
        } else if (r == 0 && more_is_here(f)) {
            follow_ring(f);
        }
        break;
    }
    if (r == 0)
        *out_reply = reply;
    return r;
}

void follow_raw(const struct follow *f, const uint8_t **out_data, size_t *out_len)
{
    *out_data = f->raw;
    *out_len = f->raw_len;
}

void follow_status(const struct follow *f, struct follow_status *out_status)
{
    *out_status = f->status;
}

int follow_fd(const struct follow *f) { return f->epoll; }
