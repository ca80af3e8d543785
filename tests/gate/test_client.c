/* REQ clients: requests through the lanes and back. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "support.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }

static void teardown(void) { rig_stop(&rig); }

static void echo(int fd, enum sp_framing framing, uint32_t id, size_t len)
{
    static uint8_t out[2u << 20], in[2u << 20];
    size_t n = make_request(out, id, len);

    cr_assert(send_message(fd, framing, out, n));
    cr_assert_eq(recv_message(fd, framing, in, sizeof(in)), (ssize_t)n);
    cr_assert_arr_eq(in, out, n);
}

Test(client, a_request_comes_back_as_its_reply, .init = setup, .fini = teardown)
{
    int fd;

    rig_start(&rig);
    fd = req_client(&rig);
    cr_assert_geq(fd, 0);
    for (uint32_t id = 1; id < 100; id++)
        echo(fd, SP_TCP, id, id * 3);
    echo(fd, SP_TCP, 1000, 1048576);
    echo(fd, SP_TCP, 1001, 0);
    close(fd);
    RIG_WAIT(&rig, c.connections == 0 && c.buffer_bytes < 2u << 20);
    cr_assert_eq(rig_count(&rig).requests, 101);
    cr_assert_eq(rig_count(&rig).replies, 101);
}

Test(client, the_unix_socket_speaks_ipc_framing, .init = setup, .fini = teardown)
{
    int fd;

    rig_start(&rig);
    fd = dial_unix(rig.unix_path);
    cr_assert_geq(fd, 0);
    cr_assert(send_hello(fd, SP_REQ0) && recv_hello(fd, SP_REP0));
    for (uint32_t id = 1; id < 20; id++)
        echo(fd, SP_IPC, id, id * 100);
    close(fd);
}

/* Hops in front of the id, as devices put them there, come back too. */
Test(client, seven_hops_pass_and_eight_do_not, .init = setup, .fini = teardown)
{
    uint8_t out[64] = {0}, in[64];
    int fd;

    rig_start(&rig);
    fd = req_client(&rig);
    memset(out, 1, sizeof(out));
    out[28] = 0x80;
    cr_assert(send_message(fd, SP_TCP, out, sizeof(out)));
    cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), sizeof(out));
    cr_assert_arr_eq(in, out, sizeof(out));
    out[28] = 1;
    out[32] = 0x80;
    cr_assert(send_message(fd, SP_TCP, out, sizeof(out)));
    cr_assert(closed_by_gate(fd));
    RIG_WAIT(&rig, c.closed_bad_message == 1);
    close(fd);
}

/* --- any split and interleaving of bytes gives the same messages --- */

#define PROPERTY_CLIENTS 12
#define PROPERTY_REQUESTS 60

struct chopped { /* what a client still has to say, and what it has heard */
    int fd;
    uint8_t *out, *in;
    size_t out_len, out_at, in_len, in_at;
};

static size_t put_message(uint8_t *out, enum sp_framing framing, uint32_t id, size_t len)
{
    size_t head = sp_head_len(framing), n = make_request(out + head, id, len);

    sp_head_pack(framing, n, out);
    return head + n;
}

/* All requests of a client as one stream; an echo answers in the same order on one lane. */
static void prepare_client(struct chopped *client, unsigned index, unsigned *seed)
{
    bool local = index % 4 == 3;
    enum sp_framing framing = local ? SP_IPC : SP_TCP;
    size_t cap = PROPERTY_REQUESTS * 20100;

    client->fd = local ? dial_unix(rig.unix_path) : dial_gate(&rig);
    cr_assert_geq(client->fd, 0);
    client->out = malloc(cap);
    client->in = malloc(cap);
    sp_hello_pack(SP_REQ0, client->out);
    client->out_len = SP_HELLO_LEN;
    for (uint32_t i = 0; i < PROPERTY_REQUESTS; i++) {
        size_t len = (size_t)rand_r(seed) % (rand_r(seed) % 5 ? 300 : 20000);

        client->out_len +=
            put_message(client->out + client->out_len, framing, index * 1000 + i, len);
    }
    client->in_len = client->out_len; /* the echo; the hello's answer is as long as the hello */
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
}

/* Says and hears a little; false: nothing more is to come. */
static bool chop(struct chopped *client, unsigned *seed)
{
    size_t most = rand_r(seed) % 3 ? 1 + (size_t)rand_r(seed) % 7 : 1 + (size_t)rand_r(seed) % 9000;
    size_t left = client->out_len - client->out_at;
    ssize_t n;

    if (left > 0) {
        n = send(client->fd, client->out + client->out_at, most < left ? most : left, MSG_NOSIGNAL);
        client->out_at += n > 0 ? (size_t)n : 0;
    }
    if (client->in_at < client->in_len && rand_r(seed) % 4) {
        most = client->in_len - client->in_at < most ? client->in_len - client->in_at : most;
        n = recv(client->fd, client->in + client->in_at, most, 0);
        cr_assert_neq(n, 0);
        client->in_at += n > 0 ? (size_t)n : 0;
    }
    return client->in_at < client->in_len;
}

Test(client, any_split_and_interleaving_gives_the_same_messages, .init = setup, .fini = teardown)
{
    struct chopped client[PROPERTY_CLIENTS] = {0};
    unsigned seed = test_seed(), left = PROPERTY_CLIENTS;
    uint64_t until = now_ms() + 3 * WAIT_MS;

    rig.lanes = 1; /* so that replies keep the order of the requests */
    rig_start(&rig);
    for (unsigned i = 0; i < PROPERTY_CLIENTS; i++)
        prepare_client(&client[i], i, &seed);
    while (left > 0 && now_ms() < until) {
        struct chopped *one = &client[(unsigned)rand_r(&seed) % PROPERTY_CLIENTS];

        if (one->in_at == one->in_len)
            continue;
        if (!chop(one, &seed))
            left--;
    }
    cr_assert_eq(left, 0);
    for (unsigned i = 0; i < PROPERTY_CLIENTS; i++) {
        cr_assert_arr_eq(client[i].in + SP_HELLO_LEN, client[i].out + SP_HELLO_LEN,
                         client[i].in_len - SP_HELLO_LEN);
        close(client[i].fd);
        free(client[i].in);
        free(client[i].out);
    }
    RIG_WAIT(&rig, c.connections == 0);
    cr_assert_eq(rig_count(&rig).requests, PROPERTY_CLIENTS * PROPERTY_REQUESTS);
}

/* --- limits --- */

static size_t flood(int fd, uint32_t requests, size_t len, size_t most)
{
    static uint8_t out[1u << 20];
    size_t sent = 0;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (uint32_t id = 1; id <= requests && sent < most; id++) {
        size_t n = put_message(out, SP_TCP, id, len), at = 0;

        for (int tries = 0; at < n && tries < 200;) {
            ssize_t w = send(fd, out + at, n - at, MSG_NOSIGNAL);

            if (w > 0)
                at += (size_t)w;
            else
                nap(), tries++;
        }
        sent += at;
        if (at < n)
            break;
    }
    fcntl(fd, F_SETFL, 0);
    return sent;
}

Test(client, only_so_many_requests_are_in_flight_and_the_rest_is_not_read, .init = setup,
     .fini = teardown)
{
    static uint8_t in[20000];
    size_t sent;
    int fd, other;

    rig.limits.requests_in_flight = 8;
    rig_start(&rig);
    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == 2);
    atomic_store(&rig.rep.hold, true);
    fd = req_client(&rig);
    sent = flood(fd, 4000, 10000, 64u << 20);
    cr_assert_lt(sent, 30u << 20); /* the kernel's buffers, and one read of ours */
    RIG_WAIT(&rig, c.requests == 8);
    cr_expect_eq(rig_count(&rig).most_in_flight, 8);
    cr_assert_lt(rig_count(&rig).buffer_bytes, 2u << 20);
    /* Others are served as before, once REP takes something again. */
    other = req_client(&rig);
    atomic_store(&rig.rep.hold, false);
    echo(other, SP_TCP, 7, 100);
    for (size_t i = 0; i < sent / 10012; i++)
        cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), 10004);
    close(fd);
    close(other);
}

Test(client, one_that_does_not_read_its_replies_is_read_no_further, .init = setup, .fini = teardown)
{
    static uint8_t in[70000];
    size_t sent;
    int fd, other;

    rig.limits.unsent_reply_bytes = 65536;
    rig_start(&rig);
    fd = req_client(&rig);
    sent = flood(fd, 2000, 60000, 200u << 20);
    cr_assert_lt(sent, 60u << 20);
    cr_assert_lt(rig_count(&rig).buffer_bytes, 16u << 20);
    cr_expect_gt(rig_count(&rig).most_unsent, 65536);
    other = req_client(&rig);
    echo(other, SP_TCP, 7, 100);
    for (size_t i = 0; i < sent / 60012; i++)
        cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), 60004);
    close(fd);
    close(other);
}

Test(client, lanes_are_fed_in_turn, .init = setup, .fini = teardown)
{
    int greedy[4], modest;
    uint8_t in[64], out[64];
    size_t n = make_request(out, 3, 16);
    uint64_t before;

    rig_start(&rig);
    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == 2);
    atomic_store(&rig.rep.hold, true);
    for (int i = 0; i < 4; i++) {
        greedy[i] = req_client(&rig);
        flood(greedy[i], 60, 50000, 3u << 20);
    }
    modest = req_client(&rig);
    cr_assert(send_message(modest, SP_TCP, out, n));
    RIG_WAIT(&rig, c.requests_waiting >= 4);
    before = rig_count(&rig).requests;
    atomic_store(&rig.rep.hold, false);
    cr_assert_eq(recv_message(modest, SP_TCP, in, sizeof(in)), (ssize_t)n);
    /* It did not wait for all that stood there before it. */
    cr_assert_lt(before, 4 * 60);
    for (int i = 0; i < 4; i++)
        close(greedy[i]);
    close(modest);
    RIG_WAIT(&rig, c.connections == 0 && c.requests_waiting == 0);
}

Test(client, a_message_too_big_or_malformed_ends_the_connection, .init = setup, .fini = teardown)
{
    const uint64_t lengths[] = {1048576 + 33, 1u << 30, UINT64_MAX, UINT64_MAX - 31,
                                UINT64_C(1) << 63};
    uint8_t head[SP_HEAD_MAX];
    int fd;

    rig_start(&rig);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        fd = req_client(&rig);
        sp_head_pack(SP_TCP, lengths[i], head);
        cr_assert(send_all(fd, head, 8));
        cr_assert(closed_by_gate(fd));
        close(fd);
    }
    RIG_WAIT(&rig, c.closed_too_big == 5);
    fd = req_client(&rig);
    cr_assert(send_message(fd, SP_TCP, "", 0));
    cr_assert(closed_by_gate(fd));
    close(fd);
    fd = req_client(&rig);
    cr_assert(send_message(fd, SP_TCP, "abcdefg", 7));
    cr_assert(closed_by_gate(fd));
    close(fd);
    fd = dial_unix(rig.unix_path);
    cr_assert(send_hello(fd, SP_REQ0) && recv_hello(fd, SP_REP0));
    cr_assert(send_all(fd, "\0\0\0\0\0\0\0\0\5", 9)); /* not an ipc message */
    cr_assert(closed_by_gate(fd));
    close(fd);
    RIG_WAIT(&rig, c.closed_bad_message == 3 && c.connections == 0);
}

Test(client, an_announced_length_costs_no_memory, .init = setup, .fini = teardown)
{
    uint8_t head[SP_HEAD_MAX];
    int fd[100];

    rig_start(&rig);
    sp_head_pack(SP_TCP, 1048576, head);
    for (int i = 0; i < 100; i++) {
        fd[i] = req_client(&rig);
        cr_assert(send_all(fd[i], head, 8) && send_all(fd[i], "abc", 3));
    }
    RIG_WAIT(&rig, c.connections == 100 && c.bytes_in == 100 * 19);
    cr_assert_lt(rig_count(&rig).buffer_bytes, 100 * 4096 + (1u << 20));
    for (int i = 0; i < 100; i++)
        close(fd[i]);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(client, over_the_buffers_of_the_gate_the_greediest_stranger_goes, .init = setup,
     .fini = teardown)
{
    static uint8_t part[900000];
    uint8_t head[SP_HEAD_MAX];
    int fd[8], small;

    rig.limits.gate_buffer_bytes = 4u << 20;
    rig_start(&rig);
    small = req_client(&rig);
    sp_head_pack(SP_TCP, 1000, head);
    cr_assert(send_all(small, head, 8) && send_all(small, part, 10));
    RIG_WAIT(&rig, c.bytes_in == 26);
    sp_head_pack(SP_TCP, 1048576, head);
    for (int i = 0; i < 8; i++) {
        fd[i] = req_client(&rig);
        send_all(fd[i], head, 8);
        send_all(fd[i], part, sizeof(part));
    }
    RIG_WAIT(&rig, c.closed_over_buffers > 0);
    cr_assert_leq(rig_count(&rig).buffer_bytes, 4u << 20);
    /* The one that holds little is still there. */
    part[0] = 0x80;
    memset(part + 10, 0, 990);
    cr_assert(send_all(small, part, 990));
    close(small);
    for (int i = 0; i < 8; i++)
        close(fd[i]);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(client, an_idle_stranger_is_closed_and_a_local_one_is_not, .init = setup, .fini = teardown)
{
    int fd, local;

    rig.idle_ms = 60;
    rig.first_bytes_ms = 3000; /* thrice as long passes if it is not answered within 60 ms */
    rig_start(&rig);
    local = dial_unix(rig.unix_path);
    cr_assert(send_hello(local, SP_REQ0) && recv_hello(local, SP_REP0));
    fd = req_client(&rig);
    echo(fd, SP_TCP, 1, 10);
    /* Bytes that never become a request are no sign of life. */
    for (int i = 0; i < 6; i++)
        send_all(fd, "\0", 1), nap();
    cr_assert(closed_by_gate(fd));
    close(fd);
    RIG_WAIT(&rig, c.closed_idle == 1 && c.connections == 1);
    echo(local, SP_IPC, 2, 10);
    close(local);
}

/* --- ends --- */

/* Byte after byte of one request for ever, until the gate has had enough. */
static void trickle(int fd, const uint8_t *bytes, size_t len)
{
    cr_assert(send_all(fd, bytes, 8));
    for (size_t i = 8; i < len && send(fd, bytes + i, 1, MSG_NOSIGNAL) == 1; i++)
        nap();
    cr_assert(closed_by_gate(fd));
    close(fd);
}

Test(client, a_request_that_comes_too_slowly_ends_the_connection, .init = setup, .fini = teardown,
     .disabled = GATE_TLS) /* no handshake is done in so short a time everywhere */
{
    uint8_t bytes[65536] = {0}, out[64], in[64];
    size_t n = make_request(out, 1, 20);
    int slow, good;

    rig.first_bytes_ms = 500;
    rig_start(&rig);
    good = req_client(&rig);
    slow = req_client(&rig);
    cr_assert(good >= 0 && slow >= 0);
    /* A request before it, and its answer, are no excuse. */
    cr_assert(send_message(slow, SP_TCP, out, n));
    cr_assert_eq(recv_message(slow, SP_TCP, in, sizeof(in)), (ssize_t)n);
    sp_head_pack(SP_TCP, 4800, bytes); /* another 300 ms */
    trickle(slow, bytes, 4808);
    RIG_WAIT(&rig, c.closed_message_late == 1 && c.connections == 1);
    slow = dial_unix(rig.unix_path);
    cr_assert(send_hello(slow, SP_REQ0) && recv_hello(slow, SP_REP0));
    sp_head_pack(SP_IPC, 4800, bytes);
    trickle(slow, bytes, 4809);
    RIG_WAIT(&rig, c.closed_message_late == 2 && c.connections == 1);
    /* Who has begun nothing may rest. */
    cr_assert(send_message(good, SP_TCP, out, n));
    cr_assert_eq(recv_message(good, SP_TCP, in, sizeof(in)), (ssize_t)n);
    close(good);
}

/* What the gate does not read is not late. */
Test(client, a_request_that_waits_behind_others_is_not_late, .init = setup, .fini = teardown,
     .disabled = GATE_TLS) /* no handshake is done in so short a time everywhere */
{
    uint8_t bytes[1024], in[64], head[SP_HEAD_MAX];
    size_t n, len = 0;
    int fd;

    rig.first_bytes_ms = 500;
    rig.limits.requests_in_flight = 1;
    rig_start(&rig);
    atomic_store(&rig.rep.hold, true);
    fd = req_client(&rig);
    for (uint32_t i = 1; i <= 3; i++) {
        n = make_request(bytes + len + 8, i, 20);
        sp_head_pack(SP_TCP, n, head);
        memcpy(bytes + len, head, 8);
        len += 8 + n;
    }
    cr_assert(send_all(fd, bytes, len));
    RIG_WAIT(&rig, c.requests == 1);
    for (uint64_t until = now_ms() + 1700; now_ms() < until;)
        nap();
    atomic_store(&rig.rep.hold, false);
    for (uint32_t i = 1; i <= 3; i++)
        cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), (ssize_t)n);
    close(fd);
    RIG_WAIT(&rig, c.connections == 0);
    cr_assert_eq(rig_count(&rig).closed_message_late, 0);
}

Test(client, a_half_closed_client_still_gets_its_replies, .init = setup, .fini = teardown)
{
    static uint8_t in[70000];
    int fd;

    rig_start(&rig);
    fd = req_client(&rig);
    flood(fd, 50, 5000, 1u << 20);
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), 5004);
    cr_assert_eq(recv(fd, in, 1, 0), 0);
    close(fd);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(client, replies_of_a_dead_client_are_dropped_and_nothing_else, .init = setup, .fini = teardown)
{
    int fd, other;

    rig_start(&rig);
    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == 2);
    other = req_client(&rig);
    atomic_store(&rig.rep.hold, true);
    fd = req_client(&rig);
    flood(fd, 20, 100, 1u << 20);
    RIG_WAIT(&rig, c.requests == 20);
    reset_and_close(fd);
    RIG_WAIT(&rig, c.connections == 1);
    atomic_store(&rig.rep.hold, false);
    RIG_WAIT(&rig, c.replies_dropped == 20);
    echo(other, SP_TCP, 1, 10);
    close(other);
    cr_assert_eq(rig_count(&rig).lanes_lost, 0);
}

Test(client, a_lost_lane_comes_back_and_waiting_requests_are_kept, .init = setup, .fini = teardown)
{
    static uint8_t in[70000];
    int fd;

    rig.lanes = 1;
    rig.limits.requests_in_flight = 4;
    rig_start(&rig);
    fd = req_client(&rig);
    echo(fd, SP_TCP, 1, 10);
    atomic_store(&rig.rep.hold, true);
    flood(fd, 12, 100, 1u << 20);
    RIG_WAIT(&rig, c.requests == 5);
    atomic_store(&rig.rep.kick, 1);
    atomic_store(&rig.rep.hold, false);
    /* Four were on the lane that went; eight are answered by the next. */
    for (int i = 0; i < 8; i++)
        cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), 104);
    close(fd);
    RIG_WAIT(&rig, c.lanes_lost == 1 && c.connections == 0);
}

Test(client, gate_stop_answers_what_was_admitted_and_ends_lanes_in_order)
{
    static uint8_t in[70000];
    int fd;

    rig_init(&rig);
    rig_start(&rig);
    fd = req_client(&rig);
    flood(fd, 60, 20000, 4u << 20);
    RIG_WAIT(&rig, c.requests == 60);
    gate_stop(rig.gate, 3000);
    for (int i = 0; i < 60; i++)
        cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), 20004);
    close(fd);
    cr_assert_eq(rig_count(&rig).parked, 0);
    cr_assert_eq(atomic_load(&rig.rep.unclean), 0);
    cr_assert_eq(access(rig.unix_path, F_OK), -1);
    rig_stop(&rig);
}
