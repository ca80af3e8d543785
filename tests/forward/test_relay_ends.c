/* relay: how it ends. FINs and RSTs are passed on in their turn; limits; what is cut off. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "relay_rig.h"

#define MIB 1048576u

static struct rig rig;
static struct joined joined;
static struct talk talks[2];

static void setup(void) { rig_start(&rig, 600000, 300000); }
static void teardown(void)
{
    joined_fini(&joined);
    rig_stop(&rig);
}

TestSuite(forward_relay_ends, .init = setup, .fini = teardown, .timeout = 100);

static void start(int buffer, size_t up, size_t down)
{
    joined_start(&joined, &rig, buffer);
    joined_talks(&joined, up, down, talks);
}

static void expect_end(enum forward_end end)
{
    cr_assert(joined_ended(&joined));
    cr_expect_eq(joined.end, end, "%s", forward_ends[joined.end].word);
}

static void expect_reset(struct talk *talk)
{
    cr_assert(drain(talk));
    cr_expect_not(talk->eof);
    cr_expect_eq(talk->error, ECONNRESET);
}

/* One side has ended; the other has much to say still. */
static void half_close(int first)
{
    struct talk pair[2] = {talks[first], talks[!first]};

    pair[1].keep_open = true;
    while (!pair[1].eof) /* it sees the end while its own direction is open */
        cr_assert(pump(pair, 2, pair[0].send) && drain(&pair[1]));
    cr_expect_eq(pair[1].received, pair[0].send);
    pair[1].send = 3 * MIB;
    pair[1].keep_open = false;
    cr_assert(pump(pair, 2, 0));
    cr_expect(pair[0].eof);
    cr_expect_eq(pair[0].received, 3 * MIB);
    expect_end(FORWARD_DONE);
}

Test(forward_relay_ends, a_client_that_has_ended_gets_its_long_answer)
{
    start(0, 100000, 0);
    half_close(0);
    cr_expect_eq(joined.down_bytes, 3 * MIB);
}

Test(forward_relay_ends, a_backend_that_has_ended_gets_the_rest_of_a_long_request)
{
    start(0, 0, 100000);
    half_close(1);
    cr_expect_eq(joined.up_bytes, 3 * MIB);
}

Test(forward_relay_ends, a_reset_of_the_client_is_one_to_the_backend)
{
    start(0, 1000, 0);
    talks[0].keep_open = talks[1].keep_open = true;
    cr_assert(pump(talks, 2, 1000));
    reset(&joined.client);
    expect_reset(&talks[1]);
    expect_end(FORWARD_CLIENT_RESET);
    cr_expect_eq(joined.up_bytes, 1000);
}

Test(forward_relay_ends, a_reset_of_the_backend_is_one_to_the_client)
{
    start(0, 1000, 0);
    talks[0].keep_open = talks[1].keep_open = true;
    cr_assert(pump(talks, 2, 1000));
    reset(&joined.backend);
    expect_reset(&talks[0]);
    expect_end(FORWARD_BACKEND_RESET);
}

Test(forward_relay_ends, what_was_said_before_a_reset_is_tried_first)
{
    struct talk *client = &talks[0];

    start(0, 50000, 0);
    client->keep_open = true;
    while (client->sent < client->send)
        cr_assert_gt(send_until_blocked(client, 0), 0);
    reset(&joined.client);
    cr_assert(joined_ended(&joined));
    cr_expect_eq(joined.end, FORWARD_CLIENT_RESET);
    cr_expect_eq(joined.up_bytes, 50000);
}

/* The backend does not read, so that the client is not read either. */
static void reset_while_held(int buffer)
{
    start(buffer, 64 * MIB, 0);
    send_until_blocked(&talks[0], 300);
    reset(&joined.client);
    expect_end(FORWARD_CLIENT_RESET); /* although nobody has read */
    cr_expect_gt(joined.up_bytes, 0);
    cr_assert(drain(&talks[1]));
    cr_expect_eq(talks[1].error, ECONNRESET);
}

Test(forward_relay_ends, a_reset_is_noticed_while_copies_are_held) { reset_while_held(8192); }

Test(forward_relay_ends, a_reset_is_noticed_while_a_pipe_is_full)
{
    reset_while_held(0);
    cr_expect_eq(rig.worker.count.spliced > 0, trust_splices_to("backend"));
}

Test(forward_relay_ends, a_reset_of_who_is_written_to_is_noticed_while_bytes_are_held)
{
    start(8192, 64 * MIB, 0);
    send_until_blocked(&talks[0], 300);
    reset(&joined.backend);
    expect_end(FORWARD_BACKEND_RESET);
    expect_reset(&talks[0]);
}

Test(forward_relay_ends, a_client_that_is_reset_after_its_end_leaves_the_backend_its_end)
{
    start(0, 1000, 0);
    talks[1].keep_open = true;
    cr_assert(pump(talks, 2, 1000));
    cr_assert(drain(&talks[1]));
    cr_expect(talks[1].eof);
    reset(&joined.client); /* nothing is read or written there just now */
    expect_end(FORWARD_CLIENT_RESET);
    talks[1].eof = false;
    cr_assert(drain(&talks[1]));
    cr_expect(talks[1].eof);
    cr_expect_eq(talks[1].error, 0);
}

/* A server that answers without having read all, closes, and so resets. */
Test(forward_relay_ends, a_whole_answer_reaches_the_client_although_the_backend_then_resets)
{
    start(0, 5000, 10000); /* so little is all in the relay's socket at once */
    talks[0].keep_open = true;
    while (talks[0].sent < talks[0].send)
        send_until_blocked(&talks[0], 0);
    cr_assert(readable(joined.backend));
    while (talks[1].sent < talks[1].send)
        send_until_blocked(&talks[1], 0);
    shutdown(joined.backend, SHUT_WR);
    close(joined.backend); /* unread bytes there: an RST */
    joined.backend = -1;
    cr_assert(drain(&talks[0]));
    cr_expect_eq(talks[0].received, 10000);
    cr_expect(talks[0].eof);
    expect_end(FORWARD_BACKEND_RESET);
}

/* The client reads slowly, and all that the backend says waits in the relay's socket. */
static void start_behind_slow_client(size_t up, size_t down)
{
    const int room = 1048576;

    joined_init(&joined, &rig, 8192);
    setsockopt(joined.backend_leg, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    joined_begin(&joined);
    joined_talks(&joined, up, down, talks);
    talks[0].keep_open = true;
    send_until_blocked(&talks[0], 0);
    send_until_blocked(&talks[1], 300);
    cr_assert_eq(talks[1].sent, down);
}

static void backend_ends(void *arg) { shutdown(joined.backend, SHUT_WR); }

/* On the worker's thread, so that it finds both at once. */
static void backend_ends_and_resets(void *arg)
{
    shutdown(joined.backend, SHUT_WR);
    close(joined.backend); /* unread bytes there: an RST */
    joined.backend = -1;
}

Test(forward_relay_ends, an_end_behind_what_is_held_costs_nothing_until_its_turn)
{
    start_behind_slow_client(0, 50000);
    rig_do(&rig, backend_ends, NULL);
    cr_expect_lt(turns_in(&rig, joined.backend, 300), 30);
    cr_assert(drain(&talks[0]));
    cr_expect_eq(talks[0].received, 50000);
    cr_expect(talks[0].eof);
}

Test(forward_relay_ends, an_end_that_came_before_a_reset_counts)
{
    if (trust_wanted_of("backend"))
        cr_skip_test("a wrapper's reset overtakes what waits in it; test_relay_tls.c has this");
    start_behind_slow_client(1000, 50000);
    cr_assert(readable(joined.backend));
    rig_do(&rig, backend_ends_and_resets, NULL);
    cr_assert(drain(&talks[0]));
    cr_expect_eq(talks[0].received, 50000);
    cr_expect(talks[0].eof);
    expect_end(FORWARD_BACKEND_RESET);
}

static int unread(int fd)
{
    int n = 0;

    cr_assert_eq(ioctl(fd, FIONREAD, &n), 0);
    return n;
}

static bool unacknowledged(int fd)
{
    int n = 0;

    cr_assert_eq(ioctl(fd, TIOCOUTQ, &n), 0);
    return n > 0;
}

Test(forward_relay_ends, an_answer_that_nobody_takes_makes_no_reset_of_the_backends_end)
{
    int error = -1;
    socklen_t len = sizeof(error);

    if (trust_wanted_of("backend"))
        cr_skip_test("what a wrapper has not passed on yet would be reset");
    start_behind_slow_client(0, 50000);
    shutdown(joined.client, SHUT_WR);
    cr_assert(drain(&talks[1]));
    talks[1].send += 100000; /* not all is read, as what came before it is held */
    while (talks[1].sent < talks[1].send)
        send_until_blocked(&talks[1], 0);
    while (unacknowledged(joined.backend)) /* what comes after the close is reset */
        poll(NULL, 0, 1);
    cr_assert_gt(unread(joined.backend_leg), 0);
    reset(&joined.client);
    expect_end(FORWARD_CLIENT_RESET);
    cr_assert_eq(getsockopt(joined.backend, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    cr_expect_eq(error, 0);
}

static void client_speaks_and_backend_resets(void *arg)
{
    uint8_t data[1000];

    fill(data, sizeof(data), talks[1].seed, 0);
    cr_assert_eq(send(joined.client, data, 1, 0), 1); /* its turn comes first */
    cr_assert_eq(send(joined.backend, data, sizeof(data), 0), (ssize_t)sizeof(data));
    reset(&joined.backend);
}

Test(forward_relay_ends, last_words_reach_the_client_although_the_backend_is_found_dead_by_a_write)
{
    if (trust_wanted_of("backend"))
        cr_skip_test("a wrapper is not found dead at once");
    start(0, 0, 0);
    rig_do(&rig, client_speaks_and_backend_resets, NULL);
    expect_end(FORWARD_BACKEND_RESET);
    cr_expect_eq(joined.up_bytes, 0);
    cr_expect_eq(joined.down_bytes, 1000);
    expect_reset(&talks[0]);
}

Test(forward_relay_ends, an_end_is_never_told_from_within_the_beginning)
{
    uint8_t data[1000] = {0};
    struct pollfd hung_up;

    joined_init(&joined, &rig, 0);
    cr_assert(bytes_copy(&joined.up, data, sizeof(data)));
    reset(&joined.backend);
    hung_up = (struct pollfd){.fd = joined.backend_leg};
    cr_assert_eq(poll(&hung_up, 1, WAIT_MS), 1);
    joined_begin(&joined);
    expect_end(FORWARD_BACKEND_RESET);
    cr_expect_not(joined.ended_inside);
    cr_expect_eq(joined.up_bytes, 0);
    joined_talks(&joined, 0, 0, talks);
    expect_reset(&talks[0]);
}

Test(forward_relay_ends, if_this_process_dies_both_sides_are_reset)
{
    start(0, 0, 0);
    for (int side = 0; side < 2; side++) {
        struct linger linger = {0};
        socklen_t len = sizeof(linger);
        int fd = side ? joined.backend_leg : joined.client_leg;

        cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len), 0);
        cr_expect(linger.l_onoff && linger.l_linger == 0);
    }
}

/* ---- limits ---- */

/* One byte to the backend; false: it did not arrive. */
static bool say_a_byte(void)
{
    struct pollfd p = {.fd = joined.backend, .events = POLLIN};
    char byte = 1;

    return send(joined.client, &byte, 1, MSG_NOSIGNAL) == 1 && poll(&p, 1, WAIT_MS) == 1 &&
           recv(joined.backend, &byte, 1, 0) == 1;
}

/* A byte at every moment; *last: when it was active before, and is now. False: on a busy machine a
 * moment was longer than the limit, and the relay was cut off. */
static bool talk_for(uint64_t ms, uint64_t limit_ms, uint64_t *last)
{
    uint64_t until = *last + ms;
    bool runs;

    do {
        uint64_t said = now_ms();

        runs = say_a_byte();
        if (runs)
            *last = said;
    } while (runs && *last < until);
    runs = runs && joined_runs(&joined);
    if (!runs)
        cr_assert_geq(now_ms() - *last, limit_ms - 10, "it was not idle");
    return runs;
}

Test(forward_relay_ends, who_is_idle_is_cut_off_and_who_is_not_is_not)
{
    uint64_t last;

    rig.forward.idle_ms = 200;
    for (;;) {
        last = now_ms();
        start(0, 0, 0);
        if (talk_for(700, 200, &last))
            break;
        joined_fini(&joined);
    }
    expect_end(FORWARD_IDLE);
    cr_expect_geq(now_ms() - last, 190);
    expect_reset(&talks[0]);
    expect_reset(&talks[1]);
}

Test(forward_relay_ends, half_closed_and_silent_it_is_cut_off_sooner)
{
    uint64_t last;

    rig.forward.half_close_ms = 200;
    for (;;) {
        last = now_ms();
        start(0, 0, 0);
        cr_assert(talk_for(500, rig.forward.idle_ms, &last));
        shutdown(joined.backend, SHUT_WR);
        if (talk_for(500, 200, &last)) /* the other direction */
            break;
        joined_fini(&joined);
    }
    expect_end(FORWARD_HALF_CLOSED);
    cr_expect_geq(now_ms() - last, 190);
    expect_reset(&talks[1]);
}

/* ---- cut ---- */

static void cut(void *arg)
{
    relay_cut(joined.relay, FORWARD_OWNER_LOST);
    cr_expect(joined.ended);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    getsockopt(fd, level, name, &value, &len);
    return value;
}

Test(forward_relay_ends, who_stays_for_some_seconds_is_kept_alive_from_then_on)
{
    const int gates_ms = 9000;
    uint64_t begun_ms = now_ms();

    if (trust_wanted())
        cr_skip_test("options of the sockets, which a session does not know of");
    start(0, 0, 0);
    setsockopt(joined.backend_leg, IPPROTO_TCP, TCP_USER_TIMEOUT, &gates_ms, sizeof(gates_ms));
    cr_expect_eq(option(joined.client_leg, SOL_SOCKET, SO_KEEPALIVE), 0);
    while (now_ms() - begun_ms < WAIT_MS &&
           option(joined.backend_leg, SOL_SOCKET, SO_KEEPALIVE) == 0)
        quiet(joined.client, 50);
    for (int i = 0; i < 2; i++) {
        int fd = i ? joined.backend_leg : joined.client_leg;

        cr_expect_eq(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
        cr_expect_eq(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 15);
        cr_expect_eq(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 5);
        cr_expect_eq(option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
        cr_expect_eq(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 0); /* DATA comes with another */
    }
    cr_expect(joined_runs(&joined));
}

Test(forward_relay_ends, both_sides_of_what_is_cut_are_reset)
{
    start(0, 1000, 0);
    talks[0].keep_open = talks[1].keep_open = true;
    cr_assert(pump(talks, 2, 1000));
    rig_do(&rig, cut, NULL);
    expect_end(FORWARD_OWNER_LOST);
    expect_reset(&talks[0]);
    expect_reset(&talks[1]);
}

static void cut_all(void *arg) { relay_cut_all(&rig.worker, FORWARD_DRAINED); }

Test(forward_relay_ends, cutting_all_leaves_none)
{
    static struct joined many[20];

    start(0, 0, 0);
    for (size_t i = 0; i < 20; i++)
        joined_start(&many[i], &rig, 0);
    send_until_blocked(&(struct talk){.fd = many[3].client, .send = 64 * MIB}, 300);
    rig_do(&rig, cut_all, NULL);
    expect_end(FORWARD_DRAINED);
    for (size_t i = 0; i < 20; i++) {
        cr_expect_not(joined_runs(&many[i]));
        cr_expect_eq(many[i].end, FORWARD_DRAINED);
        joined_fini(&many[i]);
    }
    cr_expect_eq(rig.worker.count.relayed, 0);
}
