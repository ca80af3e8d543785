/* pipeline - see pipeline.h.
 *
 * Nobody works but who waits: of the threads that wait for an answer one is the reader. It
 * connects, sends what is to be sent, receives, and hands each reply to its call by the request's
 * id; when it has its own answer, or its time is up, another one goes on. The others sleep on their
 * calls. Requests are collected until somebody waits whose answer is not there yet, so that a
 * thread with many calls under way sends and receives many at once. Small lookups that leave
 * together travel as one Lookup of all their names, and each gets its part of the answer: a node
 * spends much more on a message than on a name. If such a request is turned down, each is asked
 * once more alone.
 *
 * A call stays on the list until its answer has come or nobody wants it any more; a reply that no
 * call waits for is passed over. When the connection is lost, the calls stay: whoever waits first
 * connects again and asks all of them once more.
 */
#include "client/pipeline.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"
#include "wire/frame.h"

#define REQUEST_ID_LEN 4u     /* the only word of a client's backtrace */
#define LAST_WORD 0x80000000u /* marks it */
#define ATTEMPT_MS 5000u      /* to connect and be greeted; then another one is made */
#define OUT_FIRST 16384u
#define JOIN_NAMES 64u /* of lookups that travel together; their answer stays far below 1 MiB */

/* ---- calls under way; all with the lock held ---- */

void pipeline_enlist(struct mesh_client *client, struct mesh_call *call)
{
    call->held.prev = client->held.last;
    call->held.next = NULL;
    if (client->held.last)
        client->held.last->held.next = call;
    else
        client->held.first = call;
    client->held.last = call;
    call->held.under_way = true;
}

void pipeline_delist(struct mesh_client *client, struct mesh_call *call)
{
    if (!call->held.under_way)
        return;
    if (call->held.prev)
        call->held.prev->held.next = call->held.next;
    else
        client->held.first = call->held.next;
    if (call->held.next)
        call->held.next->held.prev = call->held.prev;
    else
        client->held.last = call->held.prev;
    call->held.under_way = false;
}

static void finish(struct mesh_client *client, struct mesh_call *call, int error)
    REQUIRES(client->lock)
{
    pipeline_delist(client, call);
    call->held.done = true;
    call->held.error = error;
    if (call->held.waiting)
        pthread_cond_signal(&call->woken);
}

/* Somebody else is to be the reader now. */
static void hand_over(struct mesh_client *client) REQUIRES(client->lock)
{
    if (!client->held.waiting || client->held.reading)
        return;
    for (struct mesh_call *call = client->held.first; call; call = call->held.next)
        if (call->held.waiting) {
            pthread_cond_signal(&call->woken);
            return;
        }
}

/* ---- sending ---- */

/* Room for len more bytes behind what is to be sent. */
static int out_room(struct mesh_client *client, size_t len) REQUIRES(client->lock)
{
    size_t cap = client->held.out_cap ? client->held.out_cap : OUT_FIRST;
    uint8_t *out;

    if (client->held.out_off) {
        memmove(client->held.out, client->held.out + client->held.out_off, client->held.out_len);
        client->held.out_off = 0;
    }
    while (cap < client->held.out_len + len)
        cap *= 2;
    if (cap == client->held.out_cap)
        return 0;
    out = realloc(client->held.out, cap);
    if (!out)
        return -ENOMEM;
    client->held.out = out;
    client->held.out_cap = cap;
    return 0;
}

void pipeline_leave(struct mesh_client *client, struct mesh_call *call)
{
    struct request *request = TAKE(&call->held.request);

    if (!request || --request->refs > 0)
        return;
    if (client->held.open == request)
        client->held.open = NULL;
    free(request->answer);
    free(request);
}

static bool can_join(const struct mesh_client *client, const struct mesh_call *call)
    REQUIRES(client->lock)
{
    const struct request *open = client->held.open;

    return open && call->names && !call->alone && open->names + call->names <= JOIN_NAMES;
}

/* The call's names go behind those of the open request: messages of one type that stand one behind
 * the other are one message (protobuf.dev/programming-guides/encoding, "Last One Wins"). */
static int join_request(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock)
{
    enum sp_framing framing = client->stream.framing;
    struct request *open = client->held.open;
    int r = out_room(client, call->body_len);
    uint8_t *at;

    if (r < 0)
        return r;
    at = client->held.out + client->held.out_off;
    memcpy(at + client->held.out_len, call->body, call->body_len);
    client->held.out_len += call->body_len;
    sp_head_pack(framing, client->held.out_len - client->held.open_at - sp_head_len(framing),
                 at + client->held.open_at);
    call->held.request = open;
    call->held.first = open->names;
    open->refs++;
    open->calls++;
    open->names += call->names;
    return 0;
}

static struct request *new_request(struct mesh_client *client, const struct mesh_call *call)
    REQUIRES(client->lock)
{
    struct request *request = calloc(1, sizeof(*request));

    if (!request)
        return NULL;
    request->refs = request->calls = 1;
    request->names = call->names;
    request->id = client->held.next_id++ | LAST_WORD;
    request->number = client->held.next_call++;
    return request;
}

/* The time it still has is told anew each time. */
int pipeline_put(struct mesh_client *client, struct mesh_call *call)
{
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    enum sp_framing framing = client->stream.framing;
    size_t head = sp_head_len(framing), frame, payload;
    uint64_t now = clock_ms();
    struct request *request;
    uint32_t word;
    uint8_t *at;
    int r;

    pipeline_leave(client, call);
    if (can_join(client, call))
        return join_request(client, call);
    request = new_request(client, call);
    if (!request)
        return -ENOMEM;
    header.method = (char *)call->method;
    header.call_id = request->number;
    header.deadline_ms = now < call->deadline_ms ? (uint32_t)(call->deadline_ms - now) : 1;
    header.wire_version = WIRE_VERSION_MAX;
    frame = frame_size(&header.base, NULL);
    payload = REQUEST_ID_LEN + frame + call->body_len;
    r = out_room(client, head + payload);
    if (r < 0) {
        free(request);
        return r;
    }
    client->held.open_at = client->held.out_len;
    client->held.open = call->names && !call->alone ? request : NULL;
    at = client->held.out + client->held.out_off + client->held.out_len;
    word = htobe32(request->id);
    sp_head_pack(framing, payload, at);
    memcpy(at + head, &word, REQUEST_ID_LEN);
    frame_pack(&header.base, NULL, at + head + REQUEST_ID_LEN);
    memcpy(at + head + REQUEST_ID_LEN + frame, call->body, call->body_len);
    client->held.out_len += head + payload;
    call->held.request = request;
    call->held.first = 0;
    return 0;
}

/* Sends what the kernel takes at once: it never waits, so the lock may be held meanwhile. */
static int send_some(struct mesh_client *client) REQUIRES(client->lock)
{
    if (!client->held.connected || !client->held.out_len)
        return 0;
    while (client->held.out_len) {
        ssize_t n = channel_send(&client->stream.channel, client->held.out + client->held.out_off,
                                 client->held.out_len);

        client->held.open = NULL;
        if (n == -EAGAIN)
            return 0;
        if (n < 0)
            return (int)n;
        client->held.out_off += (size_t)n;
        client->held.out_len -= (size_t)n;
    }
    client->held.out_off = 0;
    return 0;
}

void pipeline_send(struct mesh_client *client)
{
    uint64_t one = 1;

    if (send_some(client) < 0)
        shutdown(client->stream.channel.fd, SHUT_RDWR);
    else if (client->held.connected && client->held.out_len && client->held.reading &&
             write(client->wake_fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN); /* it was told often enough */
}

/* ---- the reader ---- */

/* Waits for bytes, or until some can be sent if want_out, or somebody woke it. */
static int receive(struct mesh_client *client, bool want_out, uint64_t deadline_ms)
{
    int directions = want_out ? CHANNEL_RECEIVE | CHANNEL_SEND : CHANNEL_RECEIVE;
    struct pollfd fds[2] = {
        {.fd = client->stream.channel.fd},
        {.fd = client->wake_fd, .events = POLLIN},
    };
    uint64_t now, told;
    int r = stream_receive(&client->stream);

    if (r != -EAGAIN)
        return r;
    now = clock_ms();
    if (now >= deadline_ms)
        return -ETIMEDOUT;
    fds[0].events = channel_events(&client->stream.channel, directions);
    r = poll(fds, 2, (int)(deadline_ms - now));
    if (r < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    if (r == 0)
        return -ETIMEDOUT;
    if (fds[1].revents && read(client->wake_fd, &told, sizeof(told)) < 0 && errno != EAGAIN)
        return -errno;
    return fds[0].revents & ~POLLOUT ? stream_receive(&client->stream) : -EAGAIN;
}

/* Hands a reply to the calls that it is for, as far as they still want it. */
static int deliver(struct mesh_client *client, const uint8_t *payload, size_t len)
    REQUIRES(client->lock)
{
    struct mesh_call *call = client->held.first, *next;
    struct request *request;
    size_t backtrace;
    uint32_t word;

    if (sp_backtrace(payload, len, &backtrace) < 0 || backtrace != REQUEST_ID_LEN)
        return -EBADMSG;
    memcpy(&word, payload, REQUEST_ID_LEN);
    /* Replies come about in the order of their requests, so it is found soon. */
    while (call && !(call->held.request && call->held.request->id == be32toh(word)))
        call = call->held.next;
    if (!call)
        return 0;
    request = call->held.request;
    if (request == client->held.open)
        return -EBADMSG; /* it has not left */
    request->answer_len = len - backtrace;
    request->answer = malloc(request->answer_len + 1);
    if (request->answer)
        memcpy(request->answer, payload + backtrace, request->answer_len);
    /* Those that left together stand together. */
    for (; call && call->held.request == request; call = next) {
        next = call->held.next;
        finish(client, call, request->answer ? 0 : -ENOMEM);
    }
    return 0;
}

static int deliver_all(struct mesh_client *client) REQUIRES(client->lock)
{
    const uint8_t *payload;
    size_t len;
    int r;

    while ((r = stream_next(&client->stream, &payload, &len)) == 0) {
        client->held.backoff.next_ms = 0;
        r = deliver(client, payload, len);
        if (r < 0)
            return r;
    }
    return r == -EAGAIN ? 0 : r;
}

/* The connection is gone, or an attempt has failed. */
static void lost(struct mesh_client *client, int error, const char *why) REQUIRES(client->lock)
{
    enum mesh_status status = error_status(error);
    /* One that has answered is looked for at once: it may only have been restarted, or was idle. */
    bool at_once = client->held.connected && !client->held.backoff.next_ms;
    uint32_t wait_ms = backoff_next(&client->held.backoff, random_u64());

    stream_close(&client->stream);
    client->held.connected = false;
    /* That the time of an attempt was over says less than what was there before. */
    if (error != -ETIMEDOUT || !client->held.error) {
        client->held.error = error;
        snprintf(client->held.why, sizeof(client->held.why), "%s", why);
    }
    client->held.out_off = client->held.out_len = 0;
    client->held.open = NULL;
    client->held.again_ms = clock_ms() + (at_once ? 0 : wait_ms);
    /* What makes no sense now will make none when it is asked again. */
    if (status == MESH_PROTOCOL || status == MESH_INVALID || status == MESH_REFUSED)
        while (client->held.first)
            finish(client, client->held.first, error);
}

static void sleep_locked(struct mesh_client *client, struct mesh_call *call, uint64_t until_ms)
    REQUIRES(client->lock)
{
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000L};

    call->held.waiting = true;
    client->held.waiting++;
    pthread_cond_clockwait(&call->woken, &client->lock.os, CLOCK_MONOTONIC, &until);
    client->held.waiting--;
    call->held.waiting = false;
}

/* One attempt, once it is time for it; then all calls are asked once more. */
static void connect_again(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock)
{
    char why[TLS_WHY] = "";
    struct stream stream;
    uint64_t until;
    int r;

    if (clock_ms() < client->held.again_ms) {
        sleep_locked(client, call,
                     client->held.again_ms < call->deadline_ms ? client->held.again_ms
                                                               : call->deadline_ms);
        return;
    }
    mutex_unlock(&client->lock);
    until = clock_ms() + ATTEMPT_MS;
    r = stream_open(&stream, client->url, client->trust,
                    until < call->deadline_ms ? until : call->deadline_ms, why);
    mutex_lock(&client->lock);
    if (r == 0) {
        client->stream = stream;
        client->held.connected = true;
        client->held.error = 0;
        for (struct mesh_call *c = client->held.first; c && r == 0; c = c->held.next)
            r = pipeline_put(client, c);
    }
    if (r < 0)
        lost(client, r, why);
}

/* What the reader does until something has happened. */
static void read_some(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock)
{
    char why[TLS_WHY];
    bool want_out;
    int r;

    if (!client->held.connected) {
        connect_again(client, call);
        return;
    }
    r = send_some(client);
    want_out = client->held.out_len != 0;
    if (r == 0) {
        mutex_unlock(&client->lock);
        r = receive(client, want_out, call->deadline_ms);
        mutex_lock(&client->lock);
    }
    if (r == 0)
        r = deliver_all(client);
    /* No memory for more bytes: this call has come to its end, the connection has not. */
    if (r == -ENOMEM)
        finish(client, call, r);
    else if (r < 0 && r != -EAGAIN && r != -ETIMEDOUT) {
        channel_why(&client->stream.channel, r, true, why);
        lost(client, r, why);
    }
}

/* Until the call is done or its time is up; what has come by then is looked at in any case. */
void pipeline_wait(struct mesh_client *client, struct mesh_call *call)
{
    bool last = false;

    while (!call->held.done && !last) {
        last = clock_ms() >= call->deadline_ms;
        if (client->held.reading) {
            pipeline_send(client);
            sleep_locked(client, call, call->deadline_ms);
            continue;
        }
        client->held.reading = true;
        read_some(client, call);
        client->held.reading = false;
    }
    if (!call->held.done)
        finish(client, call, client->held.connected ? -ETIMEDOUT : client->held.error);
    hand_over(client);
}
