/* client - a connection whose other end is a REQ: requests to the lanes, replies back.
 *
 * A request goes on when all of it has arrived, while the connection has few enough requests in
 * flight and has read enough of its replies. One that may not go on yet waits in net.in and the
 * connection is not read; one that may, but finds no lane, stands in the ready ring, of which each
 * connection gets one request in turn.
 *
 * A request that has begun must be whole in time: three times as long as the first bytes may take
 * (30 s), and a second for each 16 KiB that it announces. Time in which it is not read is not
 * counted.
 */
#include "gate/inside.h"
#include <errno.h>

/* No deadline is longer (mesh.proto), so an answer still owed after it was lost on the way. */
#define ANSWERED_MS 610000u
/* Who has said its last word and then waits longer than this for an answer is probably gone: an end
 * looks the same as half of one. */
#define HALF_CLOSED_MS 30000u
#define BYTES_PER_MS 16u /* of a request that has begun, at least */

static bool admissible(const struct conn *conn)
{
    const struct limits *limits = &conn->gate->limits;

    return conn->client.in_flight < limits->requests_in_flight &&
           buffer_used(&conn->net.out) <= limits->unsent_reply_bytes && !conn->gate->stopping;
}

static void make_ready(struct conn *conn)
{
    if (!conn->client.stalled || !ring_empty(&conn->client.ready) || !admissible(conn))
        return;
    ring_push(&conn->gate->ready, &conn->client.ready);
    COUNT(conn->gate, requests_waiting, 1);
}

/* Closes a connection that has said all and heard all. */
static void close_if_done(struct conn *conn)
{
    bool over = conn->gate->stopping || (conn->said_eof && !conn->client.stalled);

    if (!over || conn->dead || conn->client.in_flight > 0 || buffer_used(&conn->net.out) > 0)
        return;
    if (conn->said_eof)
        conn_close(conn);
    else
        conn_linger(conn, LINGER_MS / 4);
}

static void bad_message(struct conn *conn, int error)
{
    if (error == -EMSGSIZE)
        COUNT(conn->gate, closed_too_big, 1);
    else
        COUNT(conn->gate, closed_bad_message, 1);
    conn_close(conn);
}

/* 0: on its way. -EAGAIN: it waits. -EBADMSG, -ENOBUFS. */
static int admit(struct conn *conn, const uint8_t *payload, size_t len, bool in_turn)
{
    struct gate *gate = conn->gate;
    struct lane *lane = NULL;
    size_t backtrace;
    int r = sp_backtrace(payload, len, &backtrace);

    if (r < 0)
        return r;
    if (admissible(conn) && (in_turn || ring_empty(&gate->ready)))
        lane = lanes_pick(gate, conn->number);
    if (!lane)
        return -EAGAIN;
    r = lanes_send(lane, conn, payload, len, backtrace);
    if (r < 0)
        return r;
    conn->client.in_flight++;
    if (conn->client.in_flight > gate->count.most_in_flight)
        COUNT(gate, most_in_flight, 1);
    conn->client.by_lane[lane->index]++;
    conn->client.active_ms = gate_now(gate);
    COUNT(gate, requests, 1);
    return 0;
}

/* Takes at most `most` requests off data. The bytes taken, or -1: the connection was closed. After
 * it client.stalled says whether a whole request is left. */
static ssize_t take(struct conn *conn, const uint8_t *data, size_t len, unsigned most, bool in_turn)
{
    size_t at = 0, head = sp_head_len(conn->net.framing);

    for (;;) {
        uint64_t max = conn->gate->limits.message_bytes + SP_ROOM, n = 0;
        int r = sp_head_parse(conn->net.framing, data + at, len - at, max, &n);

        if (r == -EAGAIN || (r == 0 && len - at - head < n)) {
            conn->client.stalled = false;
            return (ssize_t)at;
        }
        if (r == 0)
            r = most > 0 ? admit(conn, data + at + head, n, in_turn) : -EAGAIN;
        if (r == -EAGAIN) {
            conn->client.stalled = true;
            return (ssize_t)at;
        }
        if (r < 0) {
            bad_message(conn, r);
            return -1;
        }
        at += head + n;
        most--;
    }
}

/* What follows from what was taken: who waits, who reads on. */
static void settle(struct conn *conn)
{
    make_ready(conn);
    stream_read(&conn->net, !conn->client.stalled && !conn->said_eof && !conn->gate->stopping);
    close_if_done(conn);
}

/* Bytes of a request that is not whole are left, of which consumed were not a part. */
static void note_begun(struct conn *conn, size_t consumed)
{
    if (conn->client.stalled || buffer_used(&conn->net.in) == 0)
        conn->client.begun_ms = 0;
    else if (conn->client.begun_ms == 0 || consumed > 0)
        conn->client.begun_ms = gate_now(conn->gate);
}

static uint64_t slack_ms(const struct conn *conn)
{
    return 3 * (uint64_t)conn->gate->first_bytes_ms;
}

/* When the request that has begun must be whole; UINT64_MAX: none has. */
static uint64_t whole_by_ms(const struct conn *conn)
{
    const struct buffer *in = &conn->net.in;
    uint64_t len = 0;

    if (conn->client.begun_ms == 0)
        return UINT64_MAX;
    sp_head_parse(conn->net.framing, in->data + in->head, buffer_used(in), UINT64_MAX, &len);
    return conn->client.begun_ms + slack_ms(conn) + len / BYTES_PER_MS;
}

static void look_again(struct conn *conn, uint64_t ms)
{
    conn_timer(conn, ms < slack_ms(conn) ? ms : slack_ms(conn));
}

static void take_view(struct conn *conn, const struct view *view)
{
    ssize_t n = take(conn, view->data, view->len, UINT32_MAX, false);

    if (n < 0)
        return;
    if (stream_keep(&conn->net, view, (size_t)n) < 0) {
        COUNT(conn->gate, closed_over_buffers, 1);
        conn_close(conn);
        return;
    }
    note_begun(conn, (size_t)n);
    settle(conn);
}

int client_begin(struct conn *conn, const struct view *rest, size_t consumed)
{
    int r = stream_keep(&conn->net, rest, consumed);
    struct view view = {conn->net.in.data, 0, false};

    if (r < 0)
        return r;
    conn_become(conn, ROLE_CLIENT);
    conn->client.active_ms = gate_now(conn->gate);
    conn->net.watch_end = true;
    look_again(conn, conn->peer.local ? ANSWERED_MS : conn->gate->idle_ms);
    view.len = buffer_used(&conn->net.in);
    if (view.len > 0) {
        view.data += conn->net.in.head;
        take_view(conn, &view);
    }
    return 0;
}

void client_readable(struct conn *conn)
{
    struct view view;
    ssize_t n = stream_fill(&conn->net, SCRATCH_BYTES, &view);

    if (n == -EAGAIN)
        return;
    if (n == -ENOBUFS) {
        COUNT(conn->gate, closed_over_buffers, 1);
        conn_close(conn);
    } else if (n < 0) {
        conn_fail(conn, (int)n, "the connection broke");
    } else if (n == 0) {
        /* It may still want its answers: half-closed clients are legal. */
        conn->said_eof = true;
        conn_timer(conn, HALF_CLOSED_MS);
        settle(conn);
    } else {
        take_view(conn, &view);
    }
}

void client_flushed(struct conn *conn)
{
    make_ready(conn);
    close_if_done(conn);
}

void client_step(struct conn *conn)
{
    struct buffer *in = &conn->net.in;
    ssize_t n = take(conn, in->data + in->head, buffer_used(in), 1, true);

    if (n < 0)
        return;
    buffer_consume(conn->gate, conn, in, (size_t)n);
    note_begun(conn, (size_t)n);
    settle(conn);
}

void client_reply(struct conn *conn, unsigned lane, const struct iovec *parts, int n_parts)
{
    struct gate *gate = conn->gate;

    if (conn->client.by_lane[lane] > 0) {
        conn->client.by_lane[lane]--;
        conn->client.in_flight--;
    }
    conn->client.active_ms = gate_now(gate);
    if (stream_message(&conn->net, parts, n_parts) < 0) {
        COUNT(gate, closed_over_buffers, 1);
        COUNT(gate, replies_dropped, 1);
        conn_close(conn);
        return;
    }
    COUNT(gate, replies, 1);
    if (buffer_used(&conn->net.out) > gate->count.most_unsent)
        COUNT(gate, most_unsent, buffer_used(&conn->net.out) - gate->count.most_unsent);
    make_ready(conn);
}

void client_lane_lost(struct conn *conn, unsigned lane)
{
    COUNT(conn->gate, replies_dropped, conn->client.by_lane[lane]);
    conn->client.in_flight -= conn->client.by_lane[lane];
    conn->client.by_lane[lane] = 0;
    make_ready(conn);
    close_if_done(conn);
}

void client_timeout(struct conn *conn)
{
    uint64_t idle = gate_now(conn->gate) - conn->client.active_ms, most = conn->gate->idle_ms;

    if (conn->client.in_flight > 0 && most < ANSWERED_MS)
        most = ANSWERED_MS;
    if (conn->peer.local && conn->client.in_flight == 0)
        most = idle + ANSWERED_MS;
    if (conn->said_eof && most > HALF_CLOSED_MS)
        most = HALF_CLOSED_MS;
    if (gate_now(conn->gate) >= whole_by_ms(conn)) {
        COUNT(conn->gate, closed_message_late, 1);
        conn_close(conn);
        return;
    }
    if (idle < most) {
        look_again(conn, most - idle);
        return;
    }
    COUNT(conn->gate, closed_idle, 1);
    conn_close(conn);
}

void client_drain(struct conn *conn)
{
    conn->client.stalled = false;
    if (!ring_empty(&conn->client.ready)) {
        ring_drop(&conn->client.ready);
        COUNT(conn->gate, requests_waiting, -1);
    }
    settle(conn);
}
