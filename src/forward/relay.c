/* relay - see relay.h.
 *
 * A relay is two sides and two flows; flow d comes from side d and goes to side !d. What a flow has
 * read is written at once; only what the kernel did not take is held, on the heap or in the pipe
 * that it came through, and a flow that holds something does not read. So nothing of a relay waits
 * but what its receiver does not take.
 */
#include "forward/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "forward/inside.h"
#include "forward/pipes.h"
#include "forward/recheck.h"
#include "tls/tls.h"

#define BUDGET 1048576u   /* bytes that one flow may move before others have their turn */
#define COPY_COST 65536u  /* a copy counts as so many at least: records may be small */
#define LOOK_MS 5000u     /* most are over before that, and need no keep-alive */
#define SILENT_MS 30000u  /* a side that acknowledges nothing for so long is gone */
#define BULK_READ 16384u  /* a read of less is no bulk ... */
#define BULK_BYTES 65536u /* ... and so much in such reads in a row is */

enum { CLIENT, BACKEND, N_SIDES };
enum { UP = CLIENT, DOWN = BACKEND }; /* flows are named after where they come from */

enum flow_state {
    FLOWING,
    ENDING, /* the FIN was read; what came before it is still held */
    ENDED,  /* all was delivered, and the FIN passed on */
    LOST,   /* there is nobody to deliver to, or no end that could be passed on */
};

struct flow {
    struct bytes held; /* or in the pipe; never both */
    struct pipe *pipe; /* NULL, or not empty */
    uint64_t delivered;
    uint32_t bulk;     /* bytes of large reads in a row */
    uint8_t state;     /* enum flow_state */
    bool fin_waits;    /* seen, not read: what is held comes first */
    bool fin_came;     /* behind what is read now: it leaves with the last bytes */
    bool never_splice; /* of a session, or into one that the kernel does not encrypt for; or the
                          kernel cannot, with these sockets */
};

struct relay {
    struct ring ring; /* worker->relays */
    struct worker *worker;
    struct leg *legs[N_SIDES];
    struct flow flows[N_SIDES];
    int errors[N_SIDES];  /* negative errno: the side is broken ... */
    bool broken[N_SIDES]; /* ... and what follows from that was done */
    bool steady;          /* older than LOOK_MS */
    bool under_way;       /* bytes, maybe, not acknowledged yet: looked for every LOOK_MS */
    enum forward_end end;
    struct alarm alarm;
    uint64_t active_ms; /* the last byte */
    void *ctx;
    bool (*may)(void *ctx);
    void (*ended)(void *ctx, enum forward_end end, uint64_t up, uint64_t down);
};

/* ---- the end ---- */

static void drop_held(struct relay *relay, struct flow *flow)
{
    bytes_free(&flow->held);
    pipes_give(relay->worker, TAKE(&flow->pipe));
}

/* Where the FIN was passed on the side has had everything: it is closed. Input that nobody reads
 * would make an RST of that, and of the FIN before it. */
static void end_side(struct relay *relay, int side)
{
    struct leg *leg = relay->legs[side];

    if (relay->flows[!side].state != ENDED) {
        leg_reset(leg);
        return;
    }
    if (relay->flows[side].state != ENDED || leg->tls)
        recv(leg->fd, NULL, INT_MAX, MSG_DONTWAIT | MSG_TRUNC);
    leg_close(leg);
}

static void finish(struct relay *relay, enum forward_end end)
{
    void (*ended)(void *, enum forward_end, uint64_t, uint64_t) = relay->ended;
    uint64_t up = relay->flows[UP].delivered, down = relay->flows[DOWN].delivered;
    void *ctx = relay->ctx;

    for (int side = 0; side < N_SIDES; side++) {
        end_side(relay, side);
        drop_held(relay, &relay->flows[side]);
    }
    ring_drop(&relay->ring);
    alarm_clear(relay->worker, &relay->alarm);
    COUNT(relay->worker, relayed, -1);
    free(relay);
    ended(ctx, end, up, down);
}

/* ---- bytes ---- */

static void fail(struct relay *relay, int side, int error)
{
    if (!relay->errors[side])
        relay->errors[side] = error;
}

static void set_alarm(struct relay *relay);

static void count(struct relay *relay, int d, size_t n)
{
    relay->flows[d].delivered += n;
    relay->active_ms = worker_now(relay->worker);
    if (!relay->under_way) {
        relay->under_way = true;
        set_alarm(relay);
    }
    if (d == UP)
        COUNT(relay->worker, bytes_up, n);
    else
        COUNT(relay->worker, bytes_down, n);
}

/* How many bytes the receiver of flow d took: 0, maybe for ever, if it fails. */
static size_t give(struct relay *relay, int d, const uint8_t *data, size_t len, bool held)
{
    ssize_t n = leg_send(relay->legs[!d], data, len, held);

    if (n < 0) {
        if (n != -EAGAIN)
            fail(relay, !d, (int)n);
        return 0;
    }
    count(relay, d, (size_t)n);
    return (size_t)n;
}

static void flush_pipe(struct relay *relay, int d)
{
    struct flow *flow = &relay->flows[d];

    while (flow->pipe->n > 0) {
        ssize_t n = splice(flow->pipe->out, NULL, relay->legs[!d]->fd, NULL, flow->pipe->n,
                           SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

        if (n <= 0) {
            if (n < 0 && errno != EAGAIN)
                fail(relay, !d, -errno);
            return;
        }
        flow->pipe->n -= (size_t)n;
        leg_sent(relay->legs[!d]);
        count(relay, d, (size_t)n);
        COUNT(relay->worker, spliced, n);
    }
    pipes_give(relay->worker, TAKE(&flow->pipe));
}

static bool holds(const struct flow *flow) { return flow->pipe || flow->held.data; }

static void flush(struct relay *relay, int d)
{
    struct flow *flow = &relay->flows[d];

    if (flow->held.data) {
        flow->held.head +=
            give(relay, d, flow->held.data + flow->held.head, bytes_left(&flow->held), false);
        if (bytes_left(&flow->held) == 0)
            bytes_free(&flow->held);
    }
    if (flow->pipe)
        flush_pipe(relay, d);
}

/* leg_recv gave n <= 0. */
static void no_more(struct relay *relay, int d, ssize_t n)
{
    if (n == 0) {
        relay->flows[d].state = ENDING;
        relay->active_ms = worker_now(relay->worker);
        set_alarm(relay);
    } else if (n != -EAGAIN) {
        fail(relay, d, (int)n);
        if (relay->broken[d]) /* a FIN was expected, but the session's end was not said before it */
            relay->flows[d].state = LOST;
    }
}

static void spend(size_t *budget, size_t n) { *budget -= n < *budget ? n : *budget; }

/* Each reads once. True: there may be more. */
static bool copy(struct relay *relay, int d, size_t *budget)
{
    struct flow *flow = &relay->flows[d];
    uint8_t *scratch = relay->worker->scratch;
    ssize_t n = leg_recv(relay->legs[d], scratch, SCRATCH_BYTES);
    size_t given;

    if (n <= 0) {
        no_more(relay, d, n);
        return false;
    }
    if ((size_t)n < BULK_READ)
        flow->bulk = 0;
    else if (flow->bulk < BULK_BYTES)
        flow->bulk += (uint32_t)n;
    given = give(relay, d, scratch, (size_t)n, flow->fin_came);
    if (given < (size_t)n && !bytes_copy(&flow->held, scratch + given, (size_t)n - given)) {
        /* A hole in the stream is no stream: nothing that comes behind it is read any more. */
        flow->state = LOST;
        relay->end = FORWARD_NO_MEMORY;
        fail(relay, d, -ENOMEM);
        return false;
    }
    spend(budget, (size_t)n < COPY_COST ? COPY_COST : (size_t)n);
    return (size_t)n == SCRATCH_BYTES || flow->fin_came || leg_has_more(relay->legs[d]);
}

/* Was a read into the pipe so long that another one is worth the call? */
static bool much(const struct pipe *pipe, size_t n) { return n >= pipe->size / 4; }

/* One splice gives at most a page for each free slot of the pipe, though a slot holds more: where
 * there was much it is asked again. Long writes are what makes bulk cheap: filled to 2 MiB a pipe
 * of one moved 1.3 to 2 times as much for the same CPU time as when read into once, and that nearly
 * twice as much as with 256 KiB at a time. */
static void fill(struct relay *relay, int d, struct pipe *pipe)
{
    ssize_t n;

    do {
        n = splice(relay->legs[d]->fd, NULL, pipe->in, NULL, pipe->size,
                   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n > 0)
            pipe->n += (size_t)n;
        else if (n < 0 && errno == EINVAL)
            relay->flows[d].never_splice = true;
        else if (n < 0 && errno != EAGAIN)
            fail(relay, d, -errno);
    } while (n > 0 && much(pipe, (size_t)n) && pipe->n < 2 * pipe->size);
}

static bool move(struct relay *relay, int d, size_t *budget)
{
    struct flow *flow = &relay->flows[d];
    struct pipe *pipe = pipes_take(relay->worker);
    size_t n;
    bool more;

    if (!pipe)
        return copy(relay, d, budget);
    fill(relay, d, pipe);
    n = pipe->n;
    if (n == 0) {
        pipes_give(relay->worker, pipe);
        /* A byte marked urgent ends what splice sees, like a FIN or like nothing there. Only recv
         * tells which it is. */
        return !relay->errors[d] && copy(relay, d, budget);
    }
    if (n < BULK_READ)
        flow->bulk = 0;
    spend(budget, n);
    more = much(pipe, n);
    flow->pipe = pipe;
    flush_pipe(relay, d);
    /* Held back: what the pipe can take still is taken now, and the next write is a long one. */
    if (flow->pipe && !relay->errors[!d])
        fill(relay, d, pipe);
    return more;
}

/* True: only the budget is at its end. */
static bool run(struct relay *relay, int d)
{
    struct flow *flow = &relay->flows[d];
    size_t budget = BUDGET;
    bool more = true;

    flush(relay, d);
    while (more && budget > 0) {
        if (holds(flow) || flow->state != FLOWING || relay->errors[!d])
            return false;
        if (flow->bulk >= BULK_BYTES && !flow->never_splice)
            more = move(relay, d, &budget);
        else
            more = copy(relay, d, &budget);
    }
    return more;
}

/* ---- what follows from it ---- */

/* That side takes nothing any more. What it had said before is tried still; whether that ends with
 * a FIN or an RST is as it was with the side itself. */
static void break_off(struct relay *relay, int side)
{
    struct flow *from = &relay->flows[side], *to = &relay->flows[!side];

    relay->broken[side] = true;
    if (relay->end == FORWARD_DONE)
        relay->end = side == CLIENT ? FORWARD_CLIENT_RESET : FORWARD_BACKEND_RESET;
    drop_held(relay, to);
    if (to->state != ENDED)
        to->state = LOST;
    /* EPIPE: its FIN had arrived before the RST did, and will be read in its turn. */
    if (from->state != FLOWING || relay->errors[side] == -EPIPE)
        return;
    while (run(relay, side))
        ;
    from->state = LOST;
}

static bool over(const struct flow *flow) { return flow->state == ENDED || flow->state == LOST; }

static int wants(struct relay *relay, int side)
{
    const struct flow *from = &relay->flows[side], *to = &relay->flows[!side];
    int events = 0;

    if (from->state == FLOWING && !holds(from))
        events |= UV_READABLE;
    if (relay->broken[side])
        return events;
    if (from->state == FLOWING && holds(from) && !from->fin_waits)
        events |= UV_DISCONNECT;
    if (holds(to) || to->state == ENDING)
        events |= UV_WRITABLE;
    /* Its FIN was read: readable and disconnected for ever. A reset is told with any other. */
    if (from->state != FLOWING && !over(to))
        events |= UV_PRIORITIZED;
    return events;
}

static bool newly_broken(const struct relay *relay, int side)
{
    return relay->errors[side] && !relay->broken[side];
}

/* Once its receiver has had everything. */
static void pass_end_on(struct relay *relay, int d)
{
    struct flow *flow = &relay->flows[d];
    int r;

    if (flow->state != ENDING || holds(flow))
        return;
    r = leg_end(relay->legs[!d], over(&relay->flows[!d]));
    if (r == 0)
        flow->state = ENDED;
    else if (r != -EAGAIN)
        fail(relay, !d, r);
}

/* After anything has happened; the relay may be gone afterwards. */
static void settle(struct relay *relay)
{
    do {
        while (newly_broken(relay, CLIENT) || newly_broken(relay, BACKEND))
            break_off(relay, newly_broken(relay, CLIENT) ? CLIENT : BACKEND);
        pass_end_on(relay, UP);
        pass_end_on(relay, DOWN);
    } while (newly_broken(relay, CLIENT) || newly_broken(relay, BACKEND));
    if (over(&relay->flows[UP]) && over(&relay->flows[DOWN])) {
        finish(relay, relay->end);
        return;
    }
    for (int side = 0; side < N_SIDES; side++)
        leg_want(relay->legs[side], wants(relay, side));
}

static void on_ready(struct leg *leg, int events)
{
    struct relay *relay = leg->owner;
    int side = leg == relay->legs[CLIENT] ? CLIENT : BACKEND;

    if (newly_broken(relay, side)) {
        /* It broke in relay_begin. */
    } else if (events & UV_READABLE) {
        relay->flows[side].fin_came = events & UV_DISCONNECT;
        run(relay, side);
    } else if (events & (UV_DISCONNECT | UV_PRIORITIZED)) {
        int error = leg_error(leg);

        if (error < 0)
            fail(relay, side, error);
        else if (events & UV_PRIORITIZED)
            fail(relay, side, -ECONNRESET); /* hung up, and the error was told already */
        else
            relay->flows[side].fin_waits = true;
    }
    if (events & UV_WRITABLE)
        run(relay, !side);
    settle(relay);
}

/* ---- limits ---- */

static bool half_closed(const struct relay *relay)
{
    return relay->flows[UP].state != FLOWING || relay->flows[DOWN].state != FLOWING;
}

/* A byte only notes the time. The alarm is set for the earliest end, and again when it comes. */
static void set_alarm(struct relay *relay)
{
    const struct forward *forward = relay->worker->forward;
    uint64_t limit = forward->idle_ms, quiet = worker_now(relay->worker) - relay->active_ms;

    if (half_closed(relay) && forward->half_close_ms < limit)
        limit = forward->half_close_ms;
    limit = limit > quiet ? limit - quiet : 0;
    if (relay->under_way && limit > LOOK_MS)
        limit = LOOK_MS;
    alarm_set(relay->worker, &relay->alarm, limit);
}

/* An end that is silently gone while it is idle is noticed within 30 s, by the kernel. With bytes
 * under way that would be TCP_USER_TIMEOUT, which DATA has from the gate: but tcp(7) has it end
 * also who is there and does not read for so long. */
static void keep_alive(int fd)
{
    const int on = 1, idle_s = 15, every_s = 5, probes = 3, unacked_ms = 0;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof(unacked_ms));
}

/* Nothing was acknowledged for long, though bytes were sent again, and for longer than it takes
 * until they are once more; or though the side was asked for room three times. Who only has no room
 * answers each, but may be asked once in two minutes. */
static bool is_silent(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return false;
    return info.tcpi_last_ack_recv >= SILENT_MS &&
           (info.tcpi_probes >= 3 ||
            (info.tcpi_retransmits > 0 && info.tcpi_last_ack_recv > info.tcpi_rto / 1000));
}

static void look_for_silence(struct relay *relay)
{
    relay->under_way = false;
    for (int side = 0; side < N_SIDES; side++) {
        int fd = relay->legs[side]->fd, unacked;

        if (ioctl(fd, SIOCOUTQ, &unacked) < 0 || unacked == 0)
            continue;
        relay->under_way = true;
        if (is_silent(fd))
            fail(relay, side, -ETIMEDOUT);
    }
}

static void on_alarm(struct alarm *alarm)
{
    struct relay *relay = CONTAINER_OF(alarm, struct relay, alarm);
    const struct forward *forward = relay->worker->forward;
    uint64_t quiet = worker_now(relay->worker) - relay->active_ms;

    if (!relay->steady) {
        relay->steady = true;
        keep_alive(relay->legs[CLIENT]->fd);
        keep_alive(relay->legs[BACKEND]->fd);
    }
    if (relay->under_way)
        look_for_silence(relay);
    if (half_closed(relay) && quiet >= forward->half_close_ms) {
        finish(relay, FORWARD_HALF_CLOSED);
    } else if (quiet >= forward->idle_ms) {
        finish(relay, FORWARD_IDLE);
    } else {
        set_alarm(relay);
        settle(relay);
    }
}

/* ---- the door ---- */

/* What is written to the descriptor itself reaches the other end as it is meant. */
static bool is_plain(const struct leg *leg) { return !leg->tls || tls_offloaded(leg->tls); }

struct relay *relay_begin(struct worker *worker, const struct relay_settings *settings)
{
    struct relay *relay = calloc(1, sizeof(*relay));
    struct bytes held[N_SIDES] = {[UP] = settings->up, [DOWN] = settings->down};

    if (!relay) {
        leg_reset(settings->client);
        leg_reset(settings->backend);
        bytes_free(&held[UP]);
        bytes_free(&held[DOWN]);
        return NULL;
    }
    relay->worker = worker;
    relay->legs[CLIENT] = settings->client;
    relay->legs[BACKEND] = settings->backend;
    relay->end = FORWARD_DONE;
    relay->active_ms = worker_now(worker);
    relay->ctx = settings->ctx;
    relay->may = settings->may;
    relay->ended = settings->ended;
    relay->under_way = true;
    alarm_init(&relay->alarm, on_alarm);
    set_alarm(relay);
    ring_push(&worker->relays, &relay->ring);
    COUNT(worker, relayed, 1);
    relay->flows[UP].delivered = settings->delivered;
    COUNT(worker, bytes_up, settings->delivered);
    for (int side = 0; side < N_SIDES; side++) {
        struct leg *leg = relay->legs[side];

        leg->owner = relay;
        leg->ready = on_ready;
        leg_fragile(leg);
        relay->flows[side].held = held[side];
        relay->flows[side].never_splice = leg->tls || !is_plain(relay->legs[!side]);
        relay->errors[side] = leg->failed;
    }
    /* What fails here is held still, so that it fails again, from the loop. */
    flush(relay, UP);
    flush(relay, DOWN);
    for (int side = 0; side < N_SIDES; side++)
        leg_want(relay->legs[side], wants(relay, side));
    return relay;
}

void relay_cut(struct relay *relay, enum forward_end end)
{
    relay->flows[UP].state = relay->flows[DOWN].state = LOST;
    finish(relay, end);
}

void relay_cut_all(struct worker *worker, enum forward_end end)
{
    while (!ring_empty(&worker->relays))
        relay_cut(CONTAINER_OF(worker->relays.next, struct relay, ring), end);
}

void relay_check_again(struct worker *worker, struct recheck *recheck)
{
    struct ring todo;

    ring_init(&todo);
    ring_move(&todo, &worker->relays);
    while (!ring_empty(&todo)) {
        struct relay *relay = CONTAINER_OF(todo.next, struct relay, ring);

        ring_drop(&relay->ring);
        ring_push(&worker->relays, &relay->ring);
        if (recheck_leg(recheck, relay->legs[CLIENT]) &&
            recheck_leg(recheck, relay->legs[BACKEND]) && (!relay->may || relay->may(relay->ctx)))
            continue;
        COUNT(worker, data_revoked, 1);
        relay_cut(relay, FORWARD_REVOKED);
    }
}

void relay_worker_fini(struct worker *worker) { pipes_fini(worker); }
