/* The first bytes: what they are, cut at every point; what is not ours is closed and counted. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "support.h"
#include "wire/status.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }

static void teardown(void) { rig_stop(&rig); }

static size_t preamble_of(enum preamble_kind kind, uint8_t *out)
{
    struct preamble preamble = {
        .version = PREAMBLE_VERSION, .kind = kind, .peer_id = "n7", .has_token = 0};

    preamble.has_token = kind == PREAMBLE_LINK || kind == PREAMBLE_DATA;
    preamble.first = DATA_FIRST_DIALLER;
    return preamble_pack(&preamble, out);
}

static void send_cut(int fd, const uint8_t *data, size_t len, size_t cut)
{
    cr_assert(send_all(fd, data, cut));
    if (cut > 0 && cut < len)
        nap(); /* so that the parts mostly arrive as such */
    cr_assert(send_all(fd, data + cut, len - cut));
}

/* A request behind the first bytes belongs to the client that they announce. */
static void expect_client(const uint8_t *first, size_t len, size_t cut, size_t answer)
{
    uint8_t bytes[256], in[256], head[SP_HEAD_MAX];
    size_t n = make_request(bytes + len + 8, 5, 20);
    int fd = dial_gate(&rig);

    memcpy(bytes, first, len);
    sp_head_pack(SP_TCP, n, head);
    memcpy(bytes + len, head, 8);
    send_cut(fd, bytes, len + 8 + n, cut);
    cr_assert(recv_all(fd, in, answer));
    cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), (ssize_t)n, "cut at %zu", cut);
    cr_assert_arr_eq(in, bytes + len + 8, n);
    close(fd);
}

Test(sniff, a_hello_or_a_preamble_is_known_however_it_is_cut, .init = setup, .fini = teardown)
{
    uint8_t first[PREAMBLE_MAX];
    size_t len;

    rig_start(&rig);
    sp_hello_pack(SP_REQ0, first);
    for (size_t cut = 0; cut <= SP_HELLO_LEN + 32; cut++)
        expect_client(first, SP_HELLO_LEN, cut, SP_HELLO_LEN);
    len = preamble_of(PREAMBLE_RPC, first);
    for (size_t cut = 0; cut <= len + 32; cut++)
        expect_client(first, len, cut, PREAMBLE_HEAD);
    RIG_WAIT(&rig, c.connections == 0);
    cr_assert_eq(rig_count(&rig).closed_bad_first_bytes, 0);
}

Test(sniff, a_preamble_names_the_peer_to_gate_who, .init = setup, .fini = teardown)
{
    uint8_t first[PREAMBLE_MAX];
    size_t len = preamble_of(PREAMBLE_LINK, first);
    struct told_event asked;

    rig_start(&rig);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t reply[PREAMBLE_REPLY_MAX];
        struct preamble_reply said;
        struct gate_peer peer;
        int fd = dial_gate(&rig);

        send_cut(fd, first, len, cut);
        cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
        cr_assert(gate_who(rig.gate, asked.conn, &peer));
        cr_assert_str_eq(peer.peer_id, "n7");
        cr_assert_str_eq(peer.ip, "127.0.0.1");
        gate_refuse(rig.gate, asked.conn, STATUS_UNAUTHENTICATED, MESHD__V1__REASON__REASON_TOKEN,
                    "unknown token");
        cr_assert(recv_all(fd, reply, PREAMBLE_HEAD + 13));
        cr_assert_eq(preamble_reply_parse(reply, PREAMBLE_HEAD + 13, &said), PREAMBLE_HEAD + 13);
        cr_assert_eq(said.status, STATUS_UNAUTHENTICATED);
        cr_assert_eq(said.reason, MESHD__V1__REASON__REASON_TOKEN);
        cr_assert_str_eq(said.text, "unknown token");
        cr_assert_eq(recv(fd, reply, 1, 0), 0);
        close(fd);
        cr_assert(rig_told(&rig, TOLD_ENDED, asked.conn, NULL));
        cr_assert_not(gate_who(rig.gate, asked.conn, &peer));
    }
}

/* Says the bytes and expects the preamble's answer. */
static void expect_refusal(const uint8_t *first, size_t len, uint8_t status, uint8_t reason)
{
    struct preamble_reply said = {0};
    uint8_t reply[PREAMBLE_REPLY_MAX];
    size_t have = 0;
    int fd = dial_gate(&rig);

    cr_assert(send_all(fd, first, len));
    for (ssize_t n; (n = recv(fd, reply + have, sizeof(reply) - have, 0)) > 0;)
        have += (size_t)n;
    cr_assert_gt(preamble_reply_parse(reply, have, &said), 0);
    cr_assert_eq(said.status, status);
    cr_assert_eq(said.reason, reason);
    cr_assert_gt(strlen(said.text), 0);
    close(fd);
}

Test(sniff, what_is_not_served_is_refused_with_a_status, .init = setup, .fini = teardown)
{
    uint8_t first[PREAMBLE_MAX];
    size_t len = preamble_of(PREAMBLE_DATA, first);

    rig_start(&rig);
    expect_refusal(first, len, STATUS_UNIMPLEMENTED, 0);
    len = preamble_of(PREAMBLE_WATCH, first);
    expect_refusal(first, len, STATUS_UNIMPLEMENTED, 0);
    len = preamble_of(PREAMBLE_RPC, first);
    first[4] = 2;
    expect_refusal(first, len, STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION);
    RIG_WAIT(&rig, c.connections == 0 && c.closed_bad_first_bytes == 1);
}

Test(sniff, anything_else_is_closed_at_its_first_wrong_byte, .init = setup, .fini = teardown)
{
    static const struct {
        const char *bytes;
        size_t len;
    } wrong[] = {
        {"\x16\x03\x01\x02", 4}, /* TLS */
        {"GET / HTTP/1.1\r\n", 16},
        {"PRI * HTTP/2.0\r\n", 16},
        {"\0SP\1", 4},
        {"\0SP\0\0\x31\0\0", 8}, /* REP */
        {"\0SP\0\0\x10\0\0", 8},
        {"\0SP\0\0\x30\0\1", 8},
        {"MSHX", 4},
        {"MSHD\1\5", 6},
        {"MSHD\1\1\0\0", 8},
        {"MSHD\1\1\x41\0", 8},
        {"MSHD\1\1\2\0n/", 10},
        {"\xff", 1},
        {"PING\r\n", 6},
        {"MSHD\1\2\2\0n7", 10},
        {"MSHD\1\3\2\20n7", 10}, /* DATA with a link's token */
        {"MSHD\1\3\2\21n7"
         "0123456789abcdef\0",
         27}, /* ... of nobody's turn */
    };
    size_t n = sizeof(wrong) / sizeof(*wrong);

    rig_start(&rig);
    for (size_t i = 0; i < n; i++) {
        for (size_t cut = 0; cut < wrong[i].len; cut++) {
            int fd = dial_gate(&rig);

            /* The second part may meet a closed connection. */
            send_all(fd, wrong[i].bytes, cut);
            if (cut > 0)
                nap();
            send_all(fd, wrong[i].bytes + cut, wrong[i].len - cut);
            cr_assert(closed_by_gate(fd), "entry %zu", i);
            close(fd);
        }
    }
    RIG_WAIT(&rig, c.connections == 0 && c.sources == 0 && c.buffer_bytes < 1u << 20);
    cr_assert_geq(rig_count(&rig).closed_bad_first_bytes, n);
}

static int take_all(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                    const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                    const char **out_text)
{
    close(fd);
    return 0;
}

Test(sniff, the_unix_socket_takes_no_preamble_and_shows_who_asks, .init = setup, .fini = teardown)
{
    uint8_t first[PREAMBLE_MAX];
    size_t len = preamble_of(PREAMBLE_RPC, first);
    struct stat st;
    int fd;

    rig.data = take_all;
    rig_start(&rig);
    cr_assert_eq(lstat(rig.unix_path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    fd = dial_unix(rig.unix_path);
    send_all(fd, first, len);
    cr_assert(closed_by_gate(fd));
    close(fd);
    RIG_WAIT(&rig, c.closed_bad_first_bytes == 1);
    len = preamble_of(PREAMBLE_DATA, first);
    fd = dial_unix(rig.unix_path);
    send_all(fd, first, len);
    cr_assert(closed_by_gate(fd));
    close(fd);
    RIG_WAIT(&rig, c.closed_bad_first_bytes == 2);
    cr_assert_eq(rig_count(&rig).data_handed, 0);
}

Test(sniff, a_stale_socket_file_is_replaced_and_a_live_one_is_not, .init = setup, .fini = teardown)
{
    char path[160];
    struct stat st;
    struct gate *idle; /* never started */
    int other;

    rig_start(&rig);
    struct gate_settings settings = {.limits = &rig.limits, .rep_path = rig.rep.path, .lanes = 1};
    cr_assert_eq(gate_new(&settings, &idle), 0);
    snprintf(path, sizeof(path), "%s/other", rig.dir);
    other = listen_unix(path);
    cr_assert_eq(gate_listen_unix(idle, path, 0600), -EADDRINUSE);
    close(other);
    cr_assert_eq(lstat(path, &st), 0);
    cr_assert_eq(gate_listen_unix(idle, path, 0640), 0);
    cr_assert_eq(lstat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0640);
    /* Another's file under the same name is not removed. */
    unlink(path);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    cr_assert_eq(gate_listen_unix(idle, path, 0600), -EADDRINUSE);
    gate_free(idle);
    cr_assert_eq(unlink(path), 0);
}

Test(sniff, who_says_too_little_for_too_long_is_closed, .init = setup, .fini = teardown)
{
    const char *little[] = {"", "M", "MSHD\1\1\2", "\0SP\0\0\x30"};
    size_t len[] = {0, 1, 7, 6};
    int fd[4];

    rig.first_bytes_ms = 50;
    rig_start(&rig);
    for (int i = 0; i < 4; i++) {
        fd[i] = dial_gate(&rig);
        send_all(fd[i], little[i], len[i]);
    }
    for (int i = 0; i < 4; i++) {
        cr_assert(closed_by_gate(fd[i]));
        close(fd[i]);
    }
    RIG_WAIT(&rig, c.closed_first_bytes_late == 4 && c.connections == 0);
}

Test(sniff, a_byte_now_and_then_buys_no_time, .init = setup, .fini = teardown)
{
    const uint8_t first[] =
        "MSHD\1\1\100\0nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";
    int fd;

    rig.first_bytes_ms = 100;
    rig_start(&rig);
    fd = dial_gate(&rig);
    for (size_t i = 0; i < sizeof(first) - 1 && send(fd, first + i, 1, MSG_NOSIGNAL) == 1; i++)
        for (int n = 0; n < 3; n++)
            nap();
    cr_assert(closed_by_gate(fd));
    close(fd);
    RIG_WAIT(&rig, c.closed_first_bytes_late == 1 && c.connections == 0);
}

Test(sniff, a_probe_that_says_nothing_is_no_offence, .init = setup, .fini = teardown)
{
    rig_start(&rig);
    for (int i = 0; i < 10; i++)
        close(dial_gate(&rig));
    RIG_WAIT(&rig, c.accepted == 10 && c.connections == 0);
    cr_assert_eq(rig_count(&rig).closed_bad_first_bytes, 0);
}

Test(sniff, more_than_connections_per_source_are_closed, .init = setup, .fini = teardown)
{
    int fd[12], local;

    rig.limits.connections_per_source = 8;
    rig_start(&rig);
    for (int i = 0; i < 12; i++)
        fd[i] = dial_gate(&rig);
    RIG_WAIT(&rig, c.closed_over_source == 4 && c.connections == 8 && c.sources == 1);
    local = dial_unix(rig.unix_path);
    cr_assert(send_hello(local, SP_REQ0) && recv_hello(local, SP_REP0));
    close(local);
    for (int i = 0; i < 12; i++)
        close(fd[i]);
    RIG_WAIT(&rig, c.connections == 0 && c.sources == 0);
    fd[0] = req_client(&rig);
    cr_assert_geq(fd[0], 0);
    close(fd[0]);
}

Test(sniff, who_is_nobody_yet_is_counted_and_the_newest_of_an_address_over_its_limit_is_closed,
     .init = setup, .fini = teardown)
{
    int fd[8], client, local;

    rig.limits.half_open_per_source = 4;
    rig_start(&rig);
    for (int i = 0; i < 4; i++) {
        fd[i] = dial_gate(&rig);
        cr_assert(send_all(fd[i], "MSHD", (size_t)i));
    }
    RIG_WAIT(&rig, c.half_open == 4 && c.largest_half_open == 4 && c.largest_source == 4);
    for (int i = 4; i < 8; i++) {
        fd[i] = dial_gate(&rig);
        cr_assert(closed_by_gate(fd[i]));
    }
    RIG_WAIT(&rig, c.closed_over_half_open == 4 && c.connections == 4);
    /* The local socket's own are not among them. */
    local = dial_unix(rig.unix_path);
    RIG_WAIT(&rig, c.connections == 5);
    cr_assert_eq(rig_count(&rig).half_open, 4);
    /* Who says what it is makes room, and so does who goes. */
    for (int i = 0; i < 2; i++) {
        close(fd[i]);
        RIG_WAIT(&rig, c.half_open == 3);
        client = req_client(&rig);
        cr_assert_geq(client, 0);
        RIG_WAIT(&rig, c.half_open == 3);
        fd[i] = dial_gate(&rig);
        RIG_WAIT(&rig, c.half_open == 4);
        close(client);
    }
    for (int i = 0; i < 8; i++)
        close(fd[i]);
    close(local);
    RIG_WAIT(&rig, c.connections == 0 && c.half_open == 0 && c.largest_half_open == 0 &&
                       c.largest_source == 0);
}

Test(sniff, of_all_who_are_nobody_yet_the_oldest_over_the_limit_is_closed, .init = setup,
     .fini = teardown)
{
    int fd[12];

    rig.limits.half_open = 8;
    rig_start(&rig);
    for (int i = 0; i < 12; i++) {
        fd[i] = dial_gate(&rig);
        RIG_WAIT(&rig, c.accepted == (uint64_t)i + 1);
    }
    RIG_WAIT(&rig, c.closed_over_half_open == 4 && c.half_open == 8);
    for (int i = 0; i < 4; i++)
        cr_assert(closed_by_gate(fd[i]));
    cr_assert(send_hello(fd[4], SP_REQ0) && recv_hello(fd[4], SP_REP0));
    for (int i = 0; i < 12; i++)
        close(fd[i]);
    RIG_WAIT(&rig, c.connections == 0 && c.half_open == 0);
}

Test(sniff, more_than_control_connections_are_closed, .init = setup, .fini = teardown)
{
    int fd[12];

    rig.limits.control_connections = 8;
    rig_start(&rig);
    for (int i = 0; i < 12; i++)
        fd[i] = dial_gate(&rig);
    RIG_WAIT(&rig, c.closed_over_connections == 4 && c.connections == 8);
    for (int i = 0; i < 12; i++)
        close(fd[i]);
    RIG_WAIT(&rig, c.connections == 0);
}

/* Descriptors run out: the queue is emptied all the same, and the loop does not spin. */
Test(sniff, without_descriptors_connections_are_turned_away, .init = setup, .fini = teardown,
     .disabled = GATE_TLS) /* that is decided before any byte */
{
    struct rlimit old, low;
    int fd[8], filler[1024], n = 0;
    struct timespec before, after;
    uint64_t began;

    rig_start(&rig);
    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == 2);
    for (int i = 0; i < 8; i++)
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = 200;
    setrlimit(RLIMIT_NOFILE, &low);
    while (n < 1024 && (filler[n] = dup(fd[0])) >= 0)
        n++;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(connect(fd[i], (struct sockaddr *)&rig.at, sizeof(struct sockaddr_in)), 0);
    RIG_WAIT(&rig, c.closed_no_descriptor == 8);
    began = clock_ms();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    for (int i = 0; i < 300; i++)
        nap();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    cr_expect_lt((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000,
                 (long)(clock_ms() - began) / 3);
    while (n > 0)
        close(filler[--n]);
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < 8; i++)
        close(fd[i]);
    /* The next is turned away, too, if the gate had found no descriptor just before. */
    fd[0] = req_client(&rig);
    if (fd[0] < 0 && rig_count(&rig).closed_no_descriptor == 9)
        fd[0] = req_client(&rig);
    cr_assert_geq(fd[0], 0);
    close(fd[0]);
}
