/* lanes - the few long-lived connections to the REP socket, with SP-over-IPC framing.
 *
 * Each request carries the connection's number twice (wire/frame.h, 4): on the backtrace, for nng
 * to bring back, and in front of the call, for rpc to know who asks. Lanes are always read, so that
 * nng can always finish a reply; what nobody wants any more is dropped.
 */
#include "gate/inside.h"
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "base/random.h"

#define NUMBER_LEN 4u
#define RETRY_MIN_MS 10u
#define RETRY_MAX_MS 1000u

static void on_retry(uv_timer_t *timer);

static void lane_lost(struct lane *lane)
{
    struct gate *gate = lane->gate;
    bool was_up = lane->up;

    lane->up = lane->hello = false;
    stream_close(&lane->stream);
    if (lane->shut)
        return;
    if (was_up)
        COUNT(gate, lanes_lost, 1);
    uv_timer_start(&lane->timer, on_retry, backoff_next(&lane->backoff, random_u64()), 0);
    for (struct ring *at = gate->conns.next, *next; at != &gate->conns; at = next) {
        struct conn *conn = CONTAINER_OF(at, struct conn, all);

        next = at->next;
        if (conn->role == ROLE_CLIENT)
            client_lane_lost(conn, lane->index);
    }
}

/* conn number, backtrace, conn number, the rest. -EBADMSG: not so; then it is dropped. */
static int reply(struct lane *lane, const uint8_t *payload, size_t len)
{
    struct gate *gate = lane->gate;
    uint32_t number, again;
    size_t backtrace;
    struct conn *conn;

    if (len < NUMBER_LEN || sp_backtrace(payload + NUMBER_LEN, len - NUMBER_LEN, &backtrace) < 0 ||
        len < 2 * NUMBER_LEN + backtrace)
        return -EBADMSG;
    memcpy(&number, payload, NUMBER_LEN);
    memcpy(&again, payload + NUMBER_LEN + backtrace, NUMBER_LEN);
    if (number != again)
        return -EBADMSG;
    conn = conn_find(gate, be32toh(number));
    if (!conn || conn->role != ROLE_CLIENT)
        return -ENOENT;
    size_t skip = 2 * NUMBER_LEN + backtrace;
    struct iovec parts[2] = {
        {(void *)(payload + NUMBER_LEN), backtrace},
        {(void *)(payload + skip), len - skip},
    };
    client_reply(conn, lane->index, parts, 2);
    return 0;
}

/* The bytes taken, or -EBADMSG. */
static ssize_t take_replies(struct lane *lane, const struct view *view)
{
    struct gate *gate = lane->gate;
    uint64_t max = gate->limits.message_bytes + 2 * NNG_ROOM, n;
    size_t at = 0, head = sp_head_len(SP_IPC);

    if (!lane->hello) {
        uint16_t protocol;

        if (view->len < SP_HELLO_LEN)
            return 0;
        if (sp_hello_parse(view->data, &protocol) < 0 || protocol != SP_REP0)
            return -EBADMSG;
        at = SP_HELLO_LEN;
        lane->hello = lane->up = true;
        backoff_reset(&lane->backoff);
    }
    for (;;) {
        int r = sp_head_parse(SP_IPC, view->data + at, view->len - at, max, &n);

        if (r == -EAGAIN || (r == 0 && view->len - at - head < n))
            return (ssize_t)at;
        if (r < 0)
            return -EBADMSG;
        if (reply(lane, view->data + at + head, n) < 0)
            COUNT(gate, replies_dropped, 1);
        at += head + n;
    }
}

static void lane_readable(struct stream *stream)
{
    struct lane *lane = CONTAINER_OF(stream, struct lane, stream);
    struct view view;
    ssize_t n = stream_fill(stream, SCRATCH_BYTES, &view);

    if (n == -EAGAIN)
        return;
    if (n > 0)
        n = take_replies(lane, &view);
    else if (n == 0)
        n = -ECONNRESET;
    if (n < 0 || stream_keep(stream, &view, (size_t)n) < 0)
        lane_lost(lane);
}

static void lane_flushed(struct stream *stream, int error)
{
    struct lane *lane = CONTAINER_OF(stream, struct lane, stream);

    if (error < 0)
        lane_lost(lane);
    else if (lane->shut && buffer_used(&stream->out) == 0)
        shutdown(stream->fd, SHUT_WR);
}

static void connect_lane(struct lane *lane)
{
    struct gate *gate = lane->gate;
    uint8_t hello[SP_HELLO_LEN];
    int fd = unix_connect(gate->rep_path);

    if (fd < 0 || stream_open(&lane->stream, fd, SP_IPC) < 0) {
        lane_lost(lane);
        return;
    }
    sp_hello_pack(SP_REQ0, hello);
    if (stream_bytes(&lane->stream, hello, sizeof(hello)) < 0)
        lane_lost(lane);
    else
        stream_read(&lane->stream, true);
}

static void on_retry(uv_timer_t *timer)
{
    struct lane *lane = CONTAINER_OF(timer, struct lane, timer);

    if (!lane->shut)
        connect_lane(lane);
}

void lanes_start(struct gate *gate)
{
    for (unsigned i = 0; i < gate->n_lanes; i++) {
        struct lane *lane = &gate->lanes[i];

        lane->gate = gate;
        lane->index = i;
        backoff_init(&lane->backoff, RETRY_MIN_MS, RETRY_MAX_MS);
        stream_init(&lane->stream, gate, NULL);
        lane->stream.readable = lane_readable;
        lane->stream.flushed = lane_flushed;
        uv_timer_init(&gate->loop, &lane->timer);
        connect_lane(lane);
    }
}

struct lane *lanes_pick(struct gate *gate, unsigned home)
{
    for (unsigned i = 0; i < gate->n_lanes; i++) {
        struct lane *lane = &gate->lanes[(home + i) % gate->n_lanes];

        if (lane->up && !lane->shut && buffer_used(&lane->stream.out) < HIGH_WATER)
            return lane;
    }
    return NULL;
}

int lanes_send(struct lane *lane, struct conn *conn, const uint8_t *payload, size_t len,
               size_t backtrace)
{
    uint32_t number = htobe32(conn->number);
    struct iovec parts[4] = {
        {&number, NUMBER_LEN},
        {(void *)payload, backtrace},
        {&number, NUMBER_LEN},
        {(void *)(payload + backtrace), len - backtrace},
    };

    return stream_message(&lane->stream, parts, 4);
}

void lanes_feed(struct gate *gate)
{
    while (!ring_empty(&gate->ready) && lanes_pick(gate, 0)) {
        struct ring *first = gate->ready.next;

        ring_drop(first);
        COUNT(gate, requests_waiting, -1);
        client_step(CONTAINER_OF(first, struct conn, client.ready));
    }
}

void lanes_shut(struct gate *gate)
{
    for (unsigned i = 0; i < gate->n_lanes; i++) {
        struct lane *lane = &gate->lanes[i];

        if (lane->shut)
            continue;
        lane->shut = true;
        uv_timer_stop(&lane->timer);
        if (lane->stream.fd >= 0)
            stream_dirty(&lane->stream);
    }
}

bool lanes_ended(struct gate *gate)
{
    for (unsigned i = 0; i < gate->n_lanes; i++)
        if (gate->lanes[i].stream.fd >= 0)
            return false;
    return true;
}

void lanes_close(struct gate *gate)
{
    for (unsigned i = 0; i < gate->n_lanes; i++) {
        struct lane *lane = &gate->lanes[i];

        if (lane->stream.fd >= 0) {
            COUNT(gate, parked, 1);
            stream_park(&lane->stream);
        }
        uv_close((uv_handle_t *)&lane->timer, NULL);
    }
}
