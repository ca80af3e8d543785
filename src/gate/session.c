/* session - a connection joined with a listening PAIR1 or REQ socket of nng, message by message.
 *
 * What nng 1.5.2 does not survive never reaches it: a message begun towards it is always finished,
 * its own output is always read, and the descriptor is shut only when it has no send in flight.
 *
 *   joining: connect, exchange the SP hello, wait a moment for a refusal ──▶ up
 *   up:      whole messages both ways; a side that does not take more stops the other being read
 *   ending:  the network side is gone, or gate_end was called. What nng still sends goes to the
 *            network while that takes it, else nowhere; when `sent` messages were seen and what was
 *            queued towards nng is written, the write side is shut, and nng's end is awaited.
 */
#include "gate/inside.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "wire/status.h"

#define JOIN_MS 5000u    /* a pipe that is still being removed makes nng refuse the next */
#define SETTLE_MS 2u     /* that refusal comes right after the hello */
#define REFUSED_MS 1000u /* ... or, on a busy machine, a little later */
#define RETRY_MIN_MS 2u
#define RETRY_MAX_MS 100u
#define TICK_MS 20u
#define FINISH_MS 2000u  /* messages queued towards nng, but not begun, are dropped then */
#define DELIVER_MS 5000u /* the network takes what nng sent, or not */
#define PARK_MS 5000u    /* nng has closed, or its descriptor is parked */
#define NET_LINGER_MS 1000u

static void step(struct conn *conn);
static void connect_ipc(struct conn *conn);

struct session *session_new(struct conn *conn, const char *path)
{
    struct session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->conn = conn;
    memcpy(s->path, path, strlen(path) + 1);
    stream_init(&s->ipc, conn->gate, conn);
    backoff_init(&s->backoff, RETRY_MIN_MS, RETRY_MAX_MS);
    return s;
}

void session_free(struct session *session)
{
    if (!session)
        return;
    stream_close(&session->ipc);
    free(session);
}

/* --- joining --- */

static void join_failed(struct conn *conn, int error)
{
    struct session *s = conn->session;

    conn_why(conn, error, "nng's socket could not be joined");
    if (s->up) { /* refused late: its owner must be heard first */
        s->ipc_gone = true;
        step(conn);
    } else if (s->dialled) {
        conn_close(conn);
    } else {
        sniff_refuse(conn, STATUS_UNAVAILABLE, 0, "the link cannot be opened now");
    }
}

static void retry_join(struct conn *conn, int error)
{
    struct session *s = conn->session;

    stream_close(&s->ipc);
    s->hello = false;
    if (gate_now(conn->gate) >= s->join_until_ms)
        join_failed(conn, error);
    else
        conn_timer(conn, backoff_next(&s->backoff, random_u64()));
}

/* Both hellos are said and nng has not refused. */
static void joined(struct conn *conn)
{
    struct gate *gate = conn->gate;
    struct session *s = conn->session;

    s->joined = true;
    conn->net.watch_end = true;
    conn_timer(conn, 0);
    if (!s->up) {
        struct gate_peer peer = conn->peer;

        if (!s->dialled)
            sniff_answer(conn, STATUS_OK, 0, "");
        if (conn->dead)
            return;
        s->up = true;
        COUNT(gate, sessions_begun, 1);
        COUNT(gate, sessions, 1);
        gate->ops.up(gate->ops.ctx, conn->number, &peer);
    }
    step(conn);
}

/* --- messages --- */

/* nng closes the pipe of a message that it finds malformed, at a moment that is not ours. */
static bool fit_for_nng(const struct session *s, const uint8_t *payload, size_t len)
{
    size_t backtrace;

    if (s->expect == SP_PAIR1)
        return len >= 4 && payload[0] == 0 && payload[1] == 0 && payload[2] == 0;
    return sp_backtrace(payload, len, &backtrace) == 0 && backtrace == 4;
}

/* Whole messages from the network towards nng, while `most` bytes or less wait there. *out_taken is
 * right also when it fails: -EMSGSIZE, -EBADMSG, -ENOBUFS. */
static int to_nng(struct conn *conn, const uint8_t *data, size_t len, size_t most,
                  size_t *out_taken)
{
    struct session *s = conn->session;
    uint64_t max = conn->gate->limits.message_bytes + SP_ROOM, n = 0;
    size_t at = 0, head = sp_head_len(SP_TCP);
    int r = 0;

    while (r == 0 && buffer_used(&s->ipc.out) <= most) {
        struct iovec part;

        r = sp_head_parse(SP_TCP, data + at, len - at, max, &n);
        if (r < 0 || len - at - head < n)
            break;
        part = (struct iovec){(void *)(data + at + head), n};
        r = fit_for_nng(s, part.iov_base, n) ? stream_message(&s->ipc, &part, 1) : -EBADMSG;
        if (r == 0)
            at += head + n;
    }
    *out_taken = at;
    return r == -EAGAIN ? 0 : r;
}

/* The same from nng, which may send what it likes; when the network is gone its messages are only
 * counted. */
static int to_net(struct conn *conn, const uint8_t *data, size_t len, size_t *out_taken)
{
    struct session *s = conn->session;
    size_t at = 0, head = sp_head_len(SP_IPC);
    uint64_t n = 0;
    int r = 0;

    while (r == 0 && (s->net_gone || buffer_used(&conn->net.out) <= HIGH_WATER)) {
        struct iovec part;

        r = sp_head_parse(SP_IPC, data + at, len - at, SIZE_MAX / 2, &n);
        if (r < 0 || len - at - head < n)
            break;
        part = (struct iovec){(void *)(data + at + head), n};
        if (!s->net_gone && !s->net_shut_ms)
            r = stream_message(&conn->net, &part, 1);
        if (r == 0) {
            s->seen++;
            at += head + n;
        }
    }
    *out_taken = at;
    return r == -EAGAIN ? 0 : r;
}

/* Where the message that nng is being given ends: heads stand at known places of what is written.
 */
static void ipc_wrote(struct stream *stream, const uint8_t *data, size_t len)
{
    struct session *s = stream->owner->session;

    while (len > 0) {
        size_t n;

        if (s->begun_left == 0) {
            uint64_t payload = 0;

            sp_head_parse(SP_IPC, data, SP_HEAD_MAX, UINT64_MAX, &payload);
            s->begun_left = SP_HEAD_MAX + payload;
            s->begun++;
        }
        n = len < s->begun_left ? len : s->begun_left;
        s->begun_left -= n;
        data += n;
        len -= n;
    }
}

static void drop_not_begun(struct session *s)
{
    struct buffer *out = &s->ipc.out;

    if (s->begun_left == 0)
        buffer_clear(s->ipc.gate, out);
    else if (buffer_used(out) > s->begun_left)
        out->tail = out->head + s->begun_left;
}

/* Nothing more is taken from the network: what it sent cannot be passed on. */
static void bad_from_net(struct conn *conn, int error)
{
    buffer_clear(conn->gate, &conn->net.in);
    if (error == -ENOBUFS) {
        COUNT(conn->gate, closed_over_buffers, 1);
        session_net_lost(conn, error, "over gate_buffer_bytes");
    } else if (error == -EMSGSIZE) {
        COUNT(conn->gate, closed_too_big, 1);
        session_net_lost(conn, error, "a message was too big");
    } else {
        COUNT(conn->gate, closed_bad_message, 1);
        session_net_lost(conn, -EPROTO, "a message was malformed");
    }
}

void session_net_readable(struct conn *conn)
{
    struct session *s = conn->session;
    struct view view;
    ssize_t n = stream_fill(&conn->net, SCRATCH_BYTES, &view);
    size_t taken = 0;
    int r = 0;

    if (n == -EAGAIN)
        return;
    if (n == -ENOBUFS) {
        bad_from_net(conn, -ENOBUFS);
        return;
    }
    if (n <= 0) {
        session_net_lost(conn, (int)n,
                         n == 0 ? "closed by the other side" : stream_why(&conn->net));
        return;
    }
    if (s->end_asked) { /* nobody wants it any more, but the other side must be able to finish */
        buffer_clear(conn->gate, &conn->net.in);
        return;
    }
    if (s->joined && !s->ipc_gone)
        r = to_nng(conn, view.data, view.len, HIGH_WATER, &taken);
    if (r == 0)
        r = stream_keep(&conn->net, &view, taken);
    if (r < 0)
        bad_from_net(conn, r);
    else
        step(conn);
}

void session_net_flushed(struct conn *conn) { step(conn); }

void session_net_lost(struct conn *conn, int error, const char *text)
{
    struct gate *gate = conn->gate;
    struct session *s = conn->session;
    struct buffer *in = &conn->net.in;
    size_t taken;

    if (s->net_gone)
        return;
    conn_why(conn, error, text);
    s->net_gone = true;
    /* What had arrived whole is still delivered, a Goodbye above all; a bad rest is not news. */
    if (s->joined && !s->ipc_gone && !s->end_asked && buffer_used(in) > 0)
        to_nng(conn, in->data + in->head, buffer_used(in), SIZE_MAX, &taken);
    stream_close(&conn->net);
    if (!s->up) {
        s->end_asked = true;
        s->end_ms = gate_now(gate);
        s->ipc_gone = s->ipc.fd < 0;
    } else if (!s->ending_said && !s->end_asked) {
        s->ending_said = true;
        gate->ops.ending(gate->ops.ctx, conn->number, &conn->why);
    }
    step(conn);
}

/* --- nng's side --- */

static void ipc_lost(struct conn *conn, int error)
{
    struct gate *gate = conn->gate;
    struct session *s = conn->session;
    bool refused =
        !s->joined || (s->seen == 0 && s->begun == 0 && gate_now(gate) - s->hello_ms < REFUSED_MS);

    if (refused && !s->end_asked && !s->net_gone) {
        s->joined = false;
        stream_read(&conn->net, false);
        retry_join(conn, error ? error : -EBUSY);
        return;
    }
    stream_close(&s->ipc);
    s->ipc_gone = true;
    step(conn);
}

static void ipc_readable(struct stream *stream)
{
    struct conn *conn = stream->owner;
    struct session *s = conn->session;
    struct view view;
    size_t hello = 0, taken = 0;
    ssize_t n = stream_fill(stream, SCRATCH_BYTES, &view);
    int r = 0;

    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        ipc_lost(conn, (int)n);
        return;
    }
    if (!s->hello && view.len >= SP_HELLO_LEN) {
        uint16_t protocol;

        if (sp_hello_parse(view.data, &protocol) < 0 || protocol != s->expect) {
            ipc_lost(conn, -EPROTO);
            return;
        }
        hello = SP_HELLO_LEN;
        s->hello = true;
        s->hello_ms = gate_now(conn->gate);
        if (!s->end_asked)
            conn_timer(conn, SETTLE_MS);
    }
    if (s->hello && (s->joined || s->end_asked))
        r = to_net(conn, view.data + hello, view.len - hello, &taken);
    if (stream_keep(stream, &view, hello + taken) < 0)
        ipc_lost(conn, -ENOBUFS);
    else if (r < 0)
        bad_from_net(conn, r);
    else
        step(conn);
}

static void ipc_flushed(struct stream *stream, int error)
{
    if (error < 0)
        ipc_lost(stream->owner, error);
    else
        step(stream->owner);
}

static void connect_ipc(struct conn *conn)
{
    struct session *s = conn->session;
    uint8_t hello[SP_HELLO_LEN];
    int fd = unix_connect(s->path);
    int r = fd < 0 ? fd : stream_open(&s->ipc, fd, SP_IPC);

    if (r < 0) {
        retry_join(conn, r);
        return;
    }
    s->ipc.readable = ipc_readable;
    s->ipc.flushed = ipc_flushed;
    s->ipc.wrote = ipc_wrote;
    s->seen = s->begun = 0;
    s->begun_left = SP_HELLO_LEN;
    sp_hello_pack(s->speak, hello);
    r = stream_bytes(&s->ipc, hello, sizeof(hello));
    if (r < 0) {
        retry_join(conn, r);
        return;
    }
    stream_read(&s->ipc, true);
    conn_timer(conn, JOIN_MS);
}

void session_join(struct conn *conn)
{
    struct session *s = conn->session;
    bool calls = s->target.preamble.kind == PREAMBLE_RPC;

    conn->role = ROLE_SESSION;
    s->expect = calls ? SP_REQ0 : SP_PAIR1;
    s->speak = calls ? SP_REP0 : SP_PAIR1;
    s->join_until_ms = gate_now(conn->gate) + JOIN_MS;
    stream_read(&conn->net, false);
    connect_ipc(conn);
}

/* --- what follows from the state, after every event --- */

/* What waits in the in-buffers goes on where there is room again. */
static int move_waiting(struct conn *conn)
{
    struct session *s = conn->session;
    struct buffer *in = &conn->net.in;
    size_t taken;
    int r;

    if (!s->end_asked && !s->net_gone && !s->ipc_gone && buffer_used(in) > 0) {
        r = to_nng(conn, in->data + in->head, buffer_used(in), HIGH_WATER, &taken);
        buffer_consume(conn->gate, conn, in, taken);
        if (r < 0)
            return r;
    }
    in = &s->ipc.in;
    if (s->hello && !s->ipc_gone && buffer_used(in) > 0) {
        r = to_net(conn, in->data + in->head, buffer_used(in), &taken);
        buffer_consume(conn->gate, conn, in, taken);
        if (r < 0)
            return r;
    }
    return 0;
}

static void end_net(struct conn *conn, bool counted)
{
    struct session *s = conn->session;
    uint64_t now = gate_now(conn->gate);

    if (s->net_gone)
        return;
    if (!s->net_shut_ms && counted && buffer_used(&conn->net.out) == 0) {
        stream_end(&conn->net);
        s->net_shut_ms = now;
    }
    if ((s->net_shut_ms && now - s->net_shut_ms >= NET_LINGER_MS) ||
        now - s->end_ms >= DELIVER_MS) {
        stream_close(&conn->net);
        s->net_gone = true;
    }
}

static void end_ipc(struct conn *conn, bool counted)
{
    struct session *s = conn->session;
    uint64_t now = gate_now(conn->gate);

    if (s->ipc_gone)
        return;
    if (counted && !s->shut_ms) {
        if (now - s->end_ms >= FINISH_MS)
            drop_not_begun(s);
        if (buffer_used(&s->ipc.out) == 0) {
            shutdown(s->ipc.fd, SHUT_WR);
            s->shut_ms = now;
        }
    }
    if ((s->shut_ms && now - s->shut_ms >= PARK_MS) || now - s->end_ms >= DELIVER_MS + PARK_MS) {
        COUNT(conn->gate, parked, 1);
        stream_park(&s->ipc);
        s->ipc_gone = true;
    }
}

static bool full(const struct stream *s) { return buffer_used(&s->out) > HIGH_WATER; }

static void step(struct conn *conn)
{
    struct gate *gate = conn->gate;
    struct session *s = conn->session;
    bool counted;
    int r;

    if (conn->dead || conn->role != ROLE_SESSION || (!s->joined && !s->end_asked && !s->ipc_gone))
        return;
    r = move_waiting(conn);
    if (r < 0 && !s->net_gone) {
        bad_from_net(conn, r);
        return;
    }
    counted = s->ipc_gone || (s->end_asked && s->seen >= s->sent);
    stream_read(&conn->net, !s->net_gone && (s->end_asked || (!s->ipc_gone && !full(&s->ipc))));
    /* When all is counted only nng's end is still to come, and that must be seen. */
    stream_read(&s->ipc, !s->ipc_gone && (s->net_gone || counted || !full(&conn->net)));
    if (s->ipc_gone && s->up && !s->ending_said && !s->end_asked) {
        s->ending_said = true;
        conn_why(conn, -EPIPE, "nng closed its side");
        gate->ops.ending(gate->ops.ctx, conn->number, &conn->why);
    }
    if (!s->end_asked)
        return;
    end_net(conn, counted);
    end_ipc(conn, counted);
    if (!s->net_gone || !s->ipc_gone) {
        conn_timer(conn, TICK_MS);
        return;
    }
    conn_close(conn);
}

void session_timeout(struct conn *conn)
{
    struct session *s = conn->session;

    if (s->end_asked)
        step(conn);
    else if (s->ipc.fd < 0)
        connect_ipc(conn);
    else if (s->hello)
        joined(conn);
    else
        retry_join(conn, -ETIMEDOUT);
}

void session_end(struct conn *conn, uint64_t sent)
{
    struct session *s = conn->session;

    if (s->end_asked)
        return;
    if (!s->up) {
        session_net_lost(conn, -ECANCELED, "given up");
        return;
    }
    s->end_asked = true;
    s->end_ms = gate_now(conn->gate);
    s->sent = sent;
    if (!s->joined) { /* refused after `up`, and being joined again */
        stream_close(&s->ipc);
        s->ipc_gone = true;
    }
    buffer_clear(conn->gate, &conn->net.in);
    step(conn);
}

void session_stop(struct conn *conn)
{
    struct gate *gate = conn->gate;
    struct session *s = conn->session;

    if (!s->up) {
        session_net_lost(conn, -ECANCELED, "the gate stops");
    } else if (!s->ending_said && !s->end_asked) {
        s->ending_said = true;
        gate->ops.ending(gate->ops.ctx, conn->number, &conn->why);
    }
}

void session_abandon(struct conn *conn)
{
    struct session *s = conn->session;

    if (s->ipc.fd >= 0) {
        COUNT(conn->gate, parked, 1);
        stream_park(&s->ipc);
    }
    conn_fail(conn, -ECANCELED, "the gate stopped");
}
