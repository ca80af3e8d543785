/* Links and calls: dialled and accepted, joined, ended. nng's sockets are played by plain ones. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "support.h"
#include "wire/status.h"

static struct rig rig;
static char path[2][128]; /* of the sockets to be joined: dialler's, listener's */
static int nng[2];        /* listening there */

static void start(void)
{
    rig_start(&rig);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/nng%d", rig.dir, i);
        nng[i] = listen_unix(path[i]);
    }
}

static void setup(void)
{
    rig_init(&rig);
    start();
}

static void setup_few(void)
{
    rig_init(&rig);
    rig.limits.connections_per_source = 4;
    rig.limits.control_connections = 60;
    start();
}

static void setup_silent(void)
{
    rig_init(&rig);
    rig.limits.control_connections = 60;
    rig.limits.half_open_per_source = 2;
    rig.limits.half_open = 24;
    start();
}

static void teardown(void)
{
    for (int i = 0; i < 2; i++) {
        if (nng[i] >= 0)
            close(nng[i]);
        unlink(path[i]);
    }
    rig_stop(&rig);
}

static uint32_t dial(enum preamble_kind kind, const char *ipc_path)
{
    struct gate_target target = {
        .to = rig.at,
        .preamble = {.version = PREAMBLE_VERSION, .kind = kind, .peer_id = "n7"},
        .ipc_path = ipc_path,
    };
    int64_t conn;

    if (kind == PREAMBLE_LINK) {
        target.preamble.has_token = 1;
        memset(target.preamble.token, 0xa5, TOKEN_LEN);
    }
    conn = gate_dial(rig.gate, &target);
    cr_assert_gt(conn, 0);
    return (uint32_t)conn;
}

/* The gate joins: what nng would do at once. */
static int join(int listener, enum sp_protocol mine, enum sp_protocol theirs)
{
    int fd = accept_within(listener);

    cr_assert_geq(fd, 0);
    cr_assert(send_hello(fd, mine) && recv_hello(fd, theirs));
    return fd;
}

struct link {
    uint32_t conn[2];
    int nng[2];
};

static struct link open_link(void)
{
    struct link link;
    struct told_event asked, up;

    link.conn[0] = dial(PREAMBLE_LINK, path[0]);
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    cr_assert_str_eq(asked.peer.peer_id, "n7");
    cr_assert_str_eq(asked.peer.ip, "127.0.0.1");
    cr_assert_eq(asked.preamble.token[15], 0xa5);
    link.conn[1] = asked.conn;
    gate_accept(rig.gate, asked.conn, path[1]);
    link.nng[1] = join(nng[1], SP_PAIR1, SP_PAIR1);
    cr_assert(rig_told(&rig, TOLD_UP, link.conn[1], &up));
    cr_assert_str_eq(up.peer.peer_id, "n7");
    link.nng[0] = join(nng[0], SP_PAIR1, SP_PAIR1);
    cr_assert(rig_told(&rig, TOLD_UP, link.conn[0], &up));
    return link;
}

/* A PAIR1 payload: hop word, then bytes that follow from n. */
static size_t pair_message(uint8_t *out, unsigned n, size_t len)
{
    memcpy(out, "\0\0\0\1", 4);
    for (size_t i = 0; i < len; i++)
        out[4 + i] = (uint8_t)(n + i * 13);
    return 4 + len;
}

static uint8_t out[2u << 20], in[2u << 20];

static void expect_pair(int from, int to, unsigned n, size_t len)
{
    size_t whole = pair_message(out, n, len);

    cr_assert(send_message(from, SP_IPC, out, whole));
    cr_assert_eq(recv_message(to, SP_IPC, in, sizeof(in)), (ssize_t)whole);
    cr_assert_arr_eq(in, out, whole);
}

Test(session, a_link_carries_whole_messages_both_ways_and_ends_in_order, .init = setup,
     .fini = teardown)
{
    struct link link = open_link();
    struct told_event ended;

    for (unsigned n = 0; n < 50; n++) {
        expect_pair(link.nng[0], link.nng[1], n, n * 700);
        expect_pair(link.nng[1], link.nng[0], n, 50000 - n * 900);
    }
    expect_pair(link.nng[0], link.nng[1], 1, 1048576);
    cr_assert_gt(gate_received(rig.gate, link.conn[1]), 1048576);
    cr_assert_eq(rig_count(&rig).sessions, 2);
    /* The dialler says how many it sent; its last one is still on the way. */
    cr_assert(send_message(link.nng[0], SP_IPC, out, pair_message(out, 9, 1000)));
    gate_end(rig.gate, link.conn[0], 52);
    cr_assert_eq(recv(link.nng[0], in, 1, 0), 0); /* shut towards nng */
    close(link.nng[0]);
    cr_assert_eq(recv_message(link.nng[1], SP_IPC, in, sizeof(in)), 1004);
    cr_assert(rig_told(&rig, TOLD_ENDING, link.conn[1], NULL));
    gate_end(rig.gate, link.conn[1], 50);
    cr_assert_eq(recv(link.nng[1], in, 1, 0), 0);
    close(link.nng[1]);
    cr_assert(rig_told(&rig, TOLD_ENDED, link.conn[0], &ended));
    cr_assert_eq(ended.why.error, 0);
    cr_assert(rig_told(&rig, TOLD_ENDED, link.conn[1], &ended));
    cr_assert_eq(ended.why.error, 0);
    cr_assert_eq(rig_count(&rig).parked, 0);
    cr_assert_eq(rig_count(&rig).sessions, 0);
}

Test(session, a_call_is_joined_as_rep_and_answered_through_the_lanes, .init = setup,
     .fini = teardown)
{
    uint32_t conn = dial(PREAMBLE_RPC, path[0]);
    int req = join(nng[0], SP_REQ0, SP_REP0);
    size_t n;

    cr_assert(rig_told(&rig, TOLD_UP, conn, NULL));
    for (uint32_t id = 1; id < 30; id++) {
        n = make_request(out, id, id * 1000);
        cr_assert(send_message(req, SP_IPC, out, n));
        cr_assert_eq(recv_message(req, SP_IPC, in, sizeof(in)), (ssize_t)n);
        cr_assert_arr_eq(in, out, n);
    }
    gate_end(rig.gate, conn, 29);
    cr_assert_eq(recv(req, in, 1, 0), 0);
    close(req);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
}

/* --- a peer of our own making, on TCP --- */

/* It asks for a link and is let in; *out_nng is what plays nng. */
static int peer_link(uint32_t *out_conn, int *out_nng)
{
    struct preamble preamble = {
        .version = PREAMBLE_VERSION, .kind = PREAMBLE_LINK, .peer_id = "n8", .has_token = 1};
    uint8_t bytes[PREAMBLE_MAX], reply[PREAMBLE_HEAD];
    struct told_event asked;
    int fd = dial_gate(&rig);

    cr_assert(send_all(fd, bytes, preamble_pack(&preamble, bytes)));
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    gate_accept(rig.gate, asked.conn, path[1]);
    *out_nng = join(nng[1], SP_PAIR1, SP_PAIR1);
    cr_assert(recv_all(fd, reply, sizeof(reply)));
    cr_assert_eq(reply[5], 0);
    cr_assert(rig_told(&rig, TOLD_UP, asked.conn, NULL));
    *out_conn = asked.conn;
    return fd;
}

/* The orderly end of it, from the moment the network is gone. */
static struct gate_end finish(uint32_t conn, int fd, uint64_t sent)
{
    struct told_event ended;

    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    gate_end(rig.gate, conn, sent);
    cr_assert_eq(recv(fd, in, 1, 0), 0);
    close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, &ended));
    return ended.why;
}

static void dial_many(int *fd, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fd[i] = dial_gate(&rig);
        cr_assert_geq(fd[i], 0);
    }
}

static void close_many(const int *fd, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(fd[i]);
}

/* As DATA connections do, before their first bytes. */
Test(session, an_address_with_a_link_may_have_more_connections_than_a_strangers, .init = setup_few,
     .fini = teardown)
{
    int fd[20], link, local;
    uint32_t conn;

    link = peer_link(&conn, &local);
    dial_many(fd, 20); /* 15 and the link are a quarter */
    RIG_WAIT(&rig, c.closed_over_source == 6 && c.connections == 15);
    close_many(fd, 20);
    RIG_WAIT(&rig, c.connections == 1);
    close(link);
    finish(conn, local, 0);
    dial_many(fd, 10);
    RIG_WAIT(&rig, c.closed_over_source == 12 && c.connections == 4);
    close_many(fd, 10);
}

Test(session, an_address_with_a_link_may_have_more_that_are_nobody_yet, .init = setup_silent,
     .fini = teardown)
{
    int fd[20], link, local;
    uint32_t conn;

    dial_many(fd, 4);
    RIG_WAIT(&rig, c.closed_over_half_open == 2 && c.half_open == 2);
    close_many(fd, 4);
    RIG_WAIT(&rig, c.connections == 0);
    link = peer_link(&conn, &local);
    dial_many(fd, 14); /* of which half of all may */
    RIG_WAIT(&rig, c.closed_over_half_open == 4 && c.half_open == 12);
    close_many(fd, 14);
    close(link);
    finish(conn, local, 0);
}

Test(session, any_split_gives_nng_the_same_messages, .init = setup, .fini = teardown)
{
    unsigned seed = test_seed();
    size_t len = 0, at = 0, sizes[80];
    uint32_t conn;
    int fd, local;

    fd = peer_link(&conn, &local);
    for (unsigned n = 0; n < 80; n++) {
        sizes[n] = (size_t)rand_r(&seed) % (n % 5 ? 40 : 20000);
        sp_head_pack(SP_TCP, sizes[n] + 4, out + len);
        pair_message(out + len + 8, n, sizes[n]);
        len += 12 + sizes[n];
    }
    while (at < len) {
        size_t part = 1 + (size_t)rand_r(&seed) % (rand_r(&seed) % 3 ? 9 : 3000);

        part = part < len - at ? part : len - at;
        cr_assert(send_all(fd, out + at, part));
        at += part;
    }
    at = 0;
    for (unsigned n = 0; n < 80; n++) {
        cr_assert_eq(recv_message(local, SP_IPC, in, sizeof(in)), (ssize_t)sizes[n] + 4);
        cr_assert_arr_eq(in, out + at + 8, sizes[n] + 4);
        at += 12 + sizes[n];
    }
    close(fd);
    cr_assert_eq(finish(conn, local, 0).error, 0);
}

/* The gate never gives nng a message that it may not be able to finish. */
Test(session, a_death_inside_a_message_shows_nng_whole_messages_only, .init = setup,
     .fini = teardown)
{
    for (int how = 0; how < 3; how++) {
        uint8_t head[SP_HEAD_MAX];
        uint32_t conn;
        int local, fd = peer_link(&conn, &local);
        struct gate_end why;

        cr_assert(send_message(fd, SP_TCP, out, pair_message(out, 1, 5000)));
        sp_head_pack(SP_TCP, 100000, head);
        cr_assert(send_all(fd, head, 8) && send_all(fd, out, 50000));
        cr_assert_eq(recv_message(local, SP_IPC, in, sizeof(in)), 5004);
        if (how == 0)
            close(fd);
        else if (how == 1)
            reset_and_close(fd);
        else
            shutdown(fd, SHUT_WR);
        why = finish(conn, local, 0);
        cr_assert(how == 1 ? why.error == -ECONNRESET : why.error == 0);
        cr_assert_gt(strlen(why.text), 0);
        if (how == 2)
            close(fd);
    }
    cr_assert_eq(rig_count(&rig).parked, 0);
}

Test(session, a_message_begun_towards_nng_is_finished_after_the_peer_died, .init = setup,
     .fini = teardown)
{
    uint32_t conn;
    int local, fd = peer_link(&conn, &local);
    size_t n = pair_message(out, 1, 1000000);

    cr_assert(send_message(fd, SP_TCP, out, n)); /* nng's socket does not take that at once */
    RIG_WAIT(&rig, c.bytes_in > n);
    reset_and_close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    gate_end(rig.gate, conn, 0);
    nap();
    cr_assert_eq(recv_message(local, SP_IPC, in, sizeof(in)), (ssize_t)n);
    cr_assert_arr_eq(in, out, n);
    cr_assert_eq(recv(local, in, 1, 0), 0);
    close(local);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
}

Test(session, what_nng_still_sends_after_a_loss_is_drained_and_counted, .init = setup,
     .fini = teardown)
{
    uint32_t conn;
    int local, fd = peer_link(&conn, &local);
    size_t n = pair_message(out, 1, 900000);

    reset_and_close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    for (int i = 0; i < 5; i++)
        cr_assert(send_message(local, SP_IPC, out, n));
    gate_end(rig.gate, conn, 7);
    for (int i = 0; i < 50; i++)
        nap();
    /* Two sends are still in flight, so nothing was shut. */
    fcntl(local, F_SETFL, O_NONBLOCK);
    cr_assert_eq(recv(local, in, 1, 0), -1);
    fcntl(local, F_SETFL, 0);
    cr_assert(send_message(local, SP_IPC, out, n));
    cr_assert(send_message(local, SP_IPC, out, 100));
    cr_assert_eq(recv(local, in, 1, 0), 0);
    close(local);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
    cr_assert_eq(rig_count(&rig).parked, 0);
}

Test(session, a_side_that_takes_nothing_stops_the_other_being_read, .init = setup, .fini = teardown)
{
    uint32_t conn;
    int local, fd = peer_link(&conn, &local), sent = 0, back = 0;
    size_t n = pair_message(out, 1, 100000);

    for (int dir = 0; dir < 2; dir++) {
        int from = dir ? local : fd, *count = dir ? &back : &sent;
        uint8_t head[SP_HEAD_MAX];
        size_t head_len = sp_head_len(dir ? SP_IPC : SP_TCP);
        struct timeval quick = {.tv_usec = 100000};

        setsockopt(from, SOL_SOCKET, SO_SNDTIMEO, &quick, sizeof(quick));
        sp_head_pack(dir ? SP_IPC : SP_TCP, n, head);
        while (*count < 1000 && send_all(from, head, head_len) && send_all(from, out, n))
            ++*count;
        cr_assert_lt(*count, 300);
    }
    cr_assert_lt(rig_count(&rig).buffer_bytes, 4u << 20);
    for (int i = 0; i < sent; i++)
        cr_assert_eq(recv_message(local, SP_IPC, in, sizeof(in)), (ssize_t)n);
    for (int i = 0; i < back; i++)
        cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), (ssize_t)n);
    reset_and_close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    close(local);
    gate_end(rig.gate, conn, 0);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
}

Test(session, messages_that_nng_would_choke_on_do_not_reach_it, .init = setup, .fini = teardown)
{
    static const struct {
        const char *bytes;
        size_t len;
        int error;
    } bad[] = {
        {"\0\0\0\0\0\0\0\0", 8, -EPROTO},          /* no hop word */
        {"\0\0\0\0\0\0\0\3\0\0\1", 11, -EPROTO},   /* cut */
        {"\0\0\0\0\0\0\0\4\0\0\1\1", 12, -EPROTO}, /* more than 255 hops */
        {"\0\0\0\0\0\x20\0\0", 8, -EMSGSIZE},      {"\xff\0\0\0\0\0\0\0", 8, -EMSGSIZE},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        uint32_t conn;
        int local, fd = peer_link(&conn, &local);

        cr_assert(send_all(fd, bad[i].bytes, bad[i].len));
        cr_assert(closed_by_gate(fd));
        close(fd);
        cr_assert_eq(finish(conn, local, 0).error, bad[i].error);
    }
    cr_assert_eq(rig_count(&rig).closed_bad_message, 3);
    cr_assert_eq(rig_count(&rig).closed_too_big, 2);
}

/* nng's end is seen although the network side takes nothing more. */
Test(session, a_stalled_peer_does_not_get_nng_parked, .init = setup, .fini = teardown)
{
    uint32_t conn;
    int local, fd = peer_link(&conn, &local);
    size_t n = pair_message(out, 1, 400000);
    uint64_t sent = 0, begun;

    /* Until what waits for the network is more than the gate would add to. */
    while (rig_count(&rig).buffer_bytes <= n && sent < 100) {
        cr_assert(send_message(local, SP_IPC, out, n));
        sent++;
        for (int i = 0; i < 10; i++)
            nap();
    }
    begun = now_ms();
    gate_end(rig.gate, conn, sent);
    cr_assert_eq(recv(local, in, 1, 0), 0);
    close(local);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL)); /* after the 5 s that the network has */
    cr_assert_lt(now_ms() - begun, 8000);
    cr_assert_eq(rig_count(&rig).parked, 0);
    close(fd);
}

/* --- joining --- */

Test(session, a_busy_nng_is_asked_again, .init = setup, .fini = teardown)
{
    uint32_t conn = dial(PREAMBLE_RPC, path[0]);
    int fd = accept_within(nng[0]);

    close(fd);
    close(join(nng[0], SP_REQ0, SP_REP0)); /* refused after the hello, as nng does it */
    fd = join(nng[0], SP_REQ0, SP_REP0);
    cr_assert(rig_told(&rig, TOLD_UP, conn, NULL));
    cr_assert(send_message(fd, SP_IPC, out, make_request(out, 1, 50)));
    cr_assert_eq(recv_message(fd, SP_IPC, in, sizeof(in)), 54);
    gate_end(rig.gate, conn, 1);
    cr_assert_eq(recv(fd, in, 1, 0), 0);
    close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
    cr_assert_eq(rig_told_count(&rig, TOLD_UP), 1);
}

Test(session, nng_that_closes_by_itself_ends_the_session, .init = setup, .fini = teardown)
{
    uint32_t conn;
    int local, fd = peer_link(&conn, &local);

    cr_assert(send_message(local, SP_IPC, out, pair_message(out, 1, 10)));
    cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), 14);
    close(local);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    gate_end(rig.gate, conn, 1);
    cr_assert(closed_by_gate(fd));
    close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
}

Test(session, nng_that_never_closes_is_parked, .init = setup, .fini = teardown,
     .disabled = GATE_TLS)
{
    uint32_t conn;
    int local, fd = peer_link(&conn, &local);

    close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    gate_end(rig.gate, conn, 0);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
    cr_assert_eq(rig_count(&rig).parked, 1);
    close(local);
}

/* --- ended in mid-course --- */

Test(session, given_up_before_up_it_ends_without_up, .init = setup, .fini = teardown)
{
    uint32_t conn = dial(PREAMBLE_RPC, path[0]);
    struct told_event ended;
    int fd = accept_within(nng[0]); /* nng says no hello yet */

    gate_end(rig.gate, conn, 0);
    cr_assert(send_hello(fd, SP_REQ0) && recv_hello(fd, SP_REP0));
    cr_assert_eq(recv(fd, in, 1, 0), 0);
    close(fd);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, &ended));
    cr_assert_eq(ended.why.error, -ECANCELED);
    gate_end(rig.gate, conn, 0); /* nobody's by now */
    cr_assert_eq(gate_received(rig.gate, conn), 0);
    cr_assert_eq(rig_told_count(&rig, TOLD_UP), 0);
}

Test(session, gate_stop_ends_links_in_order, .init = setup)
{
    uint32_t conn;
    int local, fd = peer_link(&conn, &local), fd2;
    pthread_t thread;

    dial(PREAMBLE_RPC, path[0]); /* and one that is being joined */
    fd2 = accept_within(nng[0]); /* nng lets go of whatever is tried there from now on */
    close(nng[0]);
    close(fd2);
    nng[0] = -1;
    rig.end_at_once = true;
    pthread_create(&thread, NULL, rig_quit, &rig);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    cr_assert_eq(recv(local, in, 1, 0), 0);
    close(local);
    cr_assert(closed_by_gate(fd));
    close(fd);
    pthread_join(thread, NULL);
    cr_assert_eq(rig_told_count(&rig, TOLD_ENDED), 2);
    cr_assert_eq(rig_count(&rig).parked, 0);
    teardown();
}
