/* TLS at the door: who is let in and who is not, what is counted, who speaks for whom, and what
 * happens to all of them when the material changes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "gate/bridge.h"
#include "gate/stock.h"
#include "gate/support.h"
#include "wire/status.h"

static struct rig rig;
static struct issued *ca, *own, *n7, *n8;
static struct tls_settings settings;
static char path[2][128];
static int nng[2];

static void setup(void)
{
    rig_init(&rig);
    ca = issue_ca(NULL, "mesh");
    own = issue_node(ca, "n1");
    n7 = issue(ca, &(struct wanted){.names = "DNS:n7"});
    n8 = issue(ca, &(struct wanted){.names = "DNS:n8,DNS:n8.example"});
    settings = node_settings("n1", ca, own);
    settings.crl = write_crl("crl.pem", false, ca, DAY, NULL);
    rig.tls = keep(&settings);
    rig.limits.control_connections = 4096;
    rig.limits.connections_per_source = 4096;
    rig.limits.half_open = 4096;
    rig.limits.half_open_per_source = 4096;
}

static void start(void)
{
    rig_start(&rig);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/nng%d", rig.dir, i);
        nng[i] = listen_unix(path[i]);
    }
}

static void setup_and_start(void)
{
    setup();
    start();
}

static void teardown(void)
{
    for (int i = 0; i < 2; i++) {
        if (nng[i] > 0)
            close(nng[i]);
        unlink(path[i]);
    }
    rig_stop(&rig);
}

/* The gate's keeper reads that those are revoked. */
static void revoke_and_check(const struct issued *one, const struct issued *other)
{
    char why[TLS_WHY] = "";

    write_crl("crl.pem", false, ca, DAY, one, other, NULL);
    cr_assert_eq(tls_keeper_reload(rig.tls, why), 0, "%s", why);
    gate_check_again(rig.gate);
}

static void connect_as(struct stock *stock, const struct issued *who)
{
    stock_open(stock, dial_plain(&rig), TLS_CONNECT, who);
    cr_assert(stock_shake(stock));
}

static size_t preamble_of(enum preamble_kind kind, const char *peer_id, uint8_t *out)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = kind};

    preamble.has_token = kind == PREAMBLE_LINK || kind == PREAMBLE_DATA;
    preamble.first = DATA_FIRST_DIALLER;
    snprintf(preamble.peer_id, sizeof(preamble.peer_id), "%s", peer_id);
    return preamble_pack(&preamble, out);
}

static void say_preamble(struct stock *stock, enum preamble_kind kind, const char *peer_id)
{
    uint8_t bytes[PREAMBLE_MAX];

    cr_assert(stock_write(stock, bytes, preamble_of(kind, peer_id, bytes)));
}

static void as_client(struct stock *stock, const struct issued *who)
{
    uint8_t hello[SP_HELLO_LEN];

    connect_as(stock, who);
    sp_hello_pack(SP_REQ0, hello);
    cr_assert(stock_write(stock, hello, sizeof(hello)));
    cr_assert(stock_read(stock, hello, sizeof(hello)));
}

static bool echo(struct stock *stock, uint32_t id, size_t len)
{
    static uint8_t out[2u << 20], in[2u << 20];
    size_t n = make_request(out + 8, id, len);

    sp_head_pack(SP_TCP, n, out);
    return stock_write(stock, out, n + 8) && stock_read(stock, in, n + 8) &&
           memcmp(in, out, n + 8) == 0;
}

/* --- who is let in --- */

Test(tls_gate, plaintext_is_closed_at_its_first_byte, .init = setup_and_start, .fini = teardown)
{
    static const char *said[] = {"M", "MSHD\1\1\2\0n7", "GET / HTTP/1.1\r\n\r\n", "\x15\3\1",
                                 "\x17"};

    for (size_t i = 0; i < sizeof(said) / sizeof(*said); i++) {
        int fd = dial_plain(&rig);

        cr_assert(send_all(fd, said[i], strlen(said[i])));
        cr_assert(closed_by_gate(fd));
        close(fd);
    }
    int fd = dial_plain(&rig);
    cr_assert(send_hello(fd, SP_REQ0));
    cr_assert(closed_by_gate(fd));
    close(fd);
    RIG_WAIT(&rig, c.connections == 0);
    cr_assert_eq(rig_count(&rig).closed_plaintext, 6);
    cr_assert_eq(rig_count(&rig).closed_bad_first_bytes, 0);
    cr_assert_eq(rig_count(&rig).tls_handshakes, 0);
}

Test(tls_gate, the_unix_socket_is_plaintext_all_the_same, .init = setup_and_start, .fini = teardown)
{
    int fd = dial_unix(rig.unix_path);

    cr_assert(send_hello(fd, SP_REQ0) && recv_hello(fd, SP_REP0));
    close(fd);
    fd = dial_unix(rig.unix_path);
    cr_assert(send_all(fd, "\x16\3\1", 3)); /* and nothing else */
    cr_assert(closed_by_gate(fd));
    close(fd);
    RIG_WAIT(&rig, c.connections == 0 && c.closed_bad_first_bytes == 1);
    cr_assert_eq(rig_count(&rig).closed_plaintext, 0);
}

Test(tls_gate, a_client_of_the_mesh_is_served_and_known_by_name, .init = setup_and_start,
     .fini = teardown)
{
    struct gate_peer peer = {0};
    struct stock stock;

    as_client(&stock, n8);
    for (uint32_t id = 1; id < 30; id++)
        cr_assert(echo(&stock, id, id * 900));
    cr_assert(echo(&stock, 30, 1048576));
    cr_assert_eq(rig_count(&rig).tls_handshakes, 1);
    for (uint32_t number = 1; number < 1u << 22 && !peer.secure; number++)
        gate_who(rig.gate, number, &peer);
    cr_assert(peer.secure);
    cr_assert_str_eq(peer.names[0], "n8");
    cr_assert_str_eq(peer.names[1], "n8.example");
    cr_assert_str_eq(peer.peer_id, "");
    cr_assert(gate_peer_proves(&peer, "n8") && !gate_peer_proves(&peer, "n7"));
    /* An end in order, said in one and heard in the other. */
    cr_assert_geq(SSL_shutdown(stock.ssl), 0);
    cr_assert_eq(stock_over(&stock), 0);
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0);
}

/* Whoever is not let in learns why from an alert on its first read, and is counted by why. */
static void expect_turned_away(const struct issued *who, enum tls_failure why, uint64_t times)
{
    struct stock stock;

    stock_open(&stock, dial_plain(&rig), TLS_CONNECT, who);
    if (stock_shake(&stock)) {
        stock_write(&stock, "MSHD\1\1\2\0n7", 10); /* in the same breath, as diallers do */
        cr_assert_eq(stock_over(&stock), SSL_ERROR_SSL);
        cr_assert_gt(ERR_GET_REASON(ERR_peek_last_error()), SSL_AD_REASON_OFFSET, "no alert");
    }
    RIG_WAIT(&rig, c.tls_failed[why] == times);
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(tls_gate, who_is_not_of_the_mesh_is_turned_away_and_counted, .init = setup, .fini = teardown)
{
    struct issued *other = issue_ca(NULL, "mesh");
    struct issued *late =
        issue(ca, &(struct wanted){.names = "DNS:n7", .from = -2 * DAY, .until = -DAY});
    struct issued *server = issue(ca, &(struct wanted){.names = "DNS:n7", .usage = "serverAuth"});
    struct stock stock;

    start();
    expect_turned_away(NULL, TLS_NO_CERTIFICATE, 1);
    revoke_and_check(n8, NULL);
    for (uint64_t i = 1; i <= 5; i++) {
        expect_turned_away(issue_node(other, "n7"), TLS_UNTRUSTED, 2 * i - 1);
        expect_turned_away(server, TLS_UNTRUSTED, 2 * i);
        expect_turned_away(late, TLS_EXPIRED, i);
        expect_turned_away(n8, TLS_REVOKED, i);
    }
    stock_open(&stock, dial_plain(&rig), TLS_CONNECT, n7); /* TLS 1.2 */
    SSL_set_max_proto_version(stock.ssl, TLS1_2_VERSION);
    cr_assert_not(stock_shake(&stock));
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0 && c.tls_failed[TLS_BROKEN] == 1);
    cr_assert_eq(rig_count(&rig).tls_handshakes, 0);
    as_client(&stock, n7);
    cr_assert(echo(&stock, 1, 10));
    stock_close(&stock);
}

Test(tls_gate, there_is_no_tls_inside_tls, .init = setup_and_start, .fini = teardown)
{
    struct stock stock;

    connect_as(&stock, n7);
    cr_assert(stock_write(&stock, "\x16\3\1\0\x20", 5));
    cr_assert_eq(stock_over(&stock), 0);
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0 && c.closed_bad_first_bytes == 1);
}

Test(tls_gate, who_takes_too_long_is_closed_wherever_it_stands, .init = setup, .fini = teardown)
{
    struct stock stock[3];
    int silent, half;

    rig.first_bytes_ms = 300;
    start();
    silent = dial_plain(&rig);
    half = dial_plain(&rig);
    cr_assert(send_all(half, "\x16\3\1\0\xf0\1\0", 7));
    for (int i = 0; i < 3; i++) {
        connect_as(&stock[i], n7);
        cr_assert(i == 0 || stock_write(&stock[i], "MSHD\1\1\2", i == 1 ? 1 : 7));
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(stock_over(&stock[i]), 0);
        stock_close(&stock[i]);
    }
    cr_assert(closed_by_gate(silent) && closed_by_gate(half));
    close(silent);
    close(half);
    RIG_WAIT(&rig, c.connections == 0 && c.closed_first_bytes_late == 5);
}

/* --- who speaks for whom --- */

Test(tls_gate, a_preamble_names_only_who_its_certificate_names, .init = setup_and_start,
     .fini = teardown)
{
    static const enum preamble_kind kinds[] = {PREAMBLE_RPC, PREAMBLE_LINK, PREAMBLE_DATA,
                                               PREAMBLE_WATCH};
    struct issued *nobody = issue(ca, &(struct wanted){.names = NULL});

    for (size_t i = 0; i < 8; i++) {
        struct preamble_reply said = {0};
        uint8_t reply[PREAMBLE_REPLY_MAX];
        const char *text =
            i < 4 ? "its certificate names n7, not n8" : "its certificate names no peer, not n8";
        size_t len = PREAMBLE_HEAD + strlen(text);
        struct stock stock;

        connect_as(&stock, i < 4 ? n7 : nobody);
        say_preamble(&stock, kinds[i % 4], "n8");
        cr_assert(stock_read(&stock, reply, len));
        cr_assert_eq(preamble_reply_parse(reply, len, &said), (int)len);
        cr_assert_eq(said.status, STATUS_PERMISSION_DENIED);
        cr_assert_eq(said.reason, MESHD__V1__REASON__REASON_IDENTITY);
        cr_assert_str_eq(said.text, text);
        cr_assert_eq(stock_over(&stock), 0);
        stock_close(&stock);
    }
    RIG_WAIT(&rig, c.connections == 0 && c.tls_failed[TLS_IDENTITY] == 8);
    cr_assert_eq(rig_told_count(&rig, TOLD_ASKED), 0);
}

Test(tls_gate, any_of_its_names_will_do, .init = setup_and_start, .fini = teardown)
{
    struct told_event asked;
    struct stock stock;

    connect_as(&stock, n8);
    say_preamble(&stock, PREAMBLE_LINK, "n8.example");
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    cr_assert(asked.peer.secure);
    cr_assert_str_eq(asked.peer.peer_id, "n8.example");
    cr_assert_str_eq(asked.peer.names[0], "n8");
    stock_close(&stock);
    gate_refuse(rig.gate, asked.conn, STATUS_UNAVAILABLE, 0, "no");
    cr_assert(rig_told(&rig, TOLD_ENDED, asked.conn, NULL));
}

/* --- how it is cut --- */

/* The first k bytes of what a client says until its request is answered, and then no more. False:
 * that was all of it. */
static bool cut_after(size_t k, bool reset)
{
    struct stock stock;
    uint8_t bytes[4096];
    size_t said = 0;
    int fd = dial_plain(&rig);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    bool all = false;

    stock_open(&stock, fd, TLS_CONNECT, n7);
    SSL_set_bio(stock.ssl, in, out);
    while (said < k && !all) {
        int n = SSL_do_handshake(stock.ssl);

        if (n == 1) {
            uint8_t hello[SP_HELLO_LEN];

            sp_hello_pack(SP_REQ0, hello);
            SSL_write(stock.ssl, hello, sizeof(hello));
            all = true;
        }
        n = BIO_read(out, bytes, (int)(k - said < sizeof(bytes) ? k - said : sizeof(bytes)));
        if (n > 0) {
            cr_assert(send_all(fd, bytes, (size_t)n));
            said += (size_t)n;
        } else {
            ssize_t got = recv(fd, bytes, sizeof(bytes), 0);

            cr_assert_gt(got, 0);
            BIO_write(in, bytes, (int)got);
        }
        all = all && BIO_pending(out) == 0;
    }
    SSL_free(stock.ssl);
    SSL_CTX_free(stock.ctx);
    if (reset)
        reset_and_close(fd);
    else
        close(fd);
    return !all;
}

Test(tls_gate, a_handshake_may_be_cut_after_any_byte, .init = setup_and_start, .fini = teardown)
{
    size_t k = 1, descriptors;

    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == (int)rig.lanes);
    descriptors = open_descriptors();
    while (cut_after(k, k % 2))
        k += 1 + k % 3;
    cr_assert_gt(k, 700);
    RIG_WAIT(&rig, c.connections == 0 && c.sources == 0 && c.buffer_bytes < 100000);
    cr_assert_eq(rig_count(&rig).closed_plaintext, 0);
    cr_assert_eq(open_descriptors(), descriptors);
}

/* --- many handshakes --- */

/* A link of n7 that was let in; *out_nng plays nng. */
static uint32_t open_link(struct stock *stock, const struct issued *who, const char *peer_id,
                          int index, int *out_nng)
{
    struct told_event asked;
    uint8_t reply[PREAMBLE_HEAD];

    connect_as(stock, who);
    say_preamble(stock, PREAMBLE_LINK, peer_id);
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    gate_accept(rig.gate, asked.conn, path[index]);
    *out_nng = accept_within(nng[index]);
    cr_assert(send_hello(*out_nng, SP_PAIR1) && recv_hello(*out_nng, SP_PAIR1));
    cr_assert(stock_read(stock, reply, sizeof(reply)));
    cr_assert_eq(reply[5], 0);
    cr_assert(rig_told(&rig, TOLD_UP, asked.conn, NULL));
    return asked.conn;
}

static void expect_message(struct stock *stock, int local)
{
    static const uint8_t message[12] = {0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1};
    uint8_t in[64];

    cr_assert(stock_write(stock, message, sizeof(message)));
    cr_assert_eq(recv_message(local, SP_IPC, in, sizeof(in)), 4);
    cr_assert(send_message(local, SP_IPC, message + 8, 4));
    cr_assert(stock_read(stock, in, sizeof(message)));
}

/* What a client begins with: the same for all, as a flood would have it. */
static size_t client_hello(uint8_t *out, size_t cap)
{
    struct stock stock;
    BIO *mem = BIO_new(BIO_s_mem());
    int n;

    stock_open(&stock, dup(0), TLS_CONNECT, NULL);
    SSL_set_bio(stock.ssl, BIO_new(BIO_s_mem()), mem);
    stock_shake(&stock);
    n = BIO_read(mem, out, (int)cap);
    stock_close(&stock);
    cr_assert_gt(n, 100);
    return (size_t)n;
}

Test(tls_gate, a_flood_of_handshakes_does_not_hold_up_a_link, .init = setup_and_start,
     .fini = teardown)
{
    enum { FLOOD = 1000, AT_ONCE = 250 };
    static int fd[AT_ONCE];
    uint64_t longest = 0, begun;
    uint8_t hello[1024];
    size_t len = client_hello(hello, sizeof(hello)), descriptors;
    struct stock stock;
    int local;
    uint32_t conn = open_link(&stock, n7, "n7", 0, &local);

    descriptors = open_descriptors();
    for (int round = 0; round < FLOOD / AT_ONCE; round++) {
        for (int i = 0; i < AT_ONCE; i++) {
            fd[i] = dial_plain(&rig);
            cr_assert(send_all(fd[i], hello, len));
        }
        for (int i = 0; i < 5; i++) {
            begun = now_ms();
            expect_message(&stock, local);
            longest = now_ms() - begun > longest ? now_ms() - begun : longest;
        }
        for (int i = 0; i < AT_ONCE; i++)
            reset_and_close(fd[i]);
    }
    cr_expect_lt(longest, 1000, "%zu ms", (size_t)longest);
    RIG_WAIT(&rig, c.connections == 1);
    cr_assert_eq(open_descriptors(), descriptors);
    stock_close(&stock);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    gate_end(rig.gate, conn, 5 * FLOOD / AT_ONCE);
    close(local);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
}

/* --- how it ends --- */

Test(tls_gate, a_connection_that_is_cut_off_is_no_half_close, .init = setup_and_start,
     .fini = teardown)
{
    uint8_t out[64];
    size_t n = make_request(out + 8, 1, 20);
    struct stock stock;

    atomic_store(&rig.rep.hold, true);
    as_client(&stock, n7);
    sp_head_pack(SP_TCP, n, out);
    cr_assert(stock_write(&stock, out, n + 8));
    RIG_WAIT(&rig, c.requests == 1);
    shutdown(stock.fd, SHUT_WR); /* a half-close on plain TCP; here nobody has said so */
    cr_assert_neq(stock_over(&stock), 0);
    RIG_WAIT(&rig, c.connections == 0);
    stock_close(&stock);
    atomic_store(&rig.rep.hold, false);
    RIG_WAIT(&rig, c.replies_dropped == 1);
}

Test(tls_gate, an_end_that_comes_with_a_request_is_not_lost, .init = setup_and_start,
     .fini = teardown)
{
    static uint8_t out[70000], packet[80000];
    BIO *wire = BIO_new(BIO_s_mem());
    struct stock stock;

    as_client(&stock, n7);
    SSL_set0_wbio(stock.ssl, wire);
    for (size_t n, len = 10; len < 70000; len *= 4) {
        sp_head_pack(SP_TCP, n = make_request(out + 8, 1, len), out);
        cr_assert(stock_write(&stock, out, n + 8));
        if (len * 4 >= 70000)
            SSL_shutdown(stock.ssl); /* half-closed: the answers are still wanted; without a FIN */
        n = (size_t)BIO_read(wire, packet, sizeof(packet));
        cr_assert(send_all(stock.fd, packet, n));
    }
    cr_assert_eq(stock_over(&stock), 0);
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0);
    cr_assert_eq(rig_count(&rig).replies, 7);
}

Test(tls_gate, a_link_whose_bytes_are_forged_is_ended, .init = setup_and_start, .fini = teardown)
{
    static const uint8_t record[] = {0x17, 3, 3, 0, 32, [36] = 9};
    struct told_event ended;
    struct stock stock;
    int local;
    uint32_t conn = open_link(&stock, n7, "n7", 0, &local);

    cr_assert(send_all(stock.fd, record, sizeof(record)));
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    gate_end(rig.gate, conn, 0);
    close(local);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, &ended));
    cr_assert_eq(ended.why.error, -EPROTO);
    cr_assert_gt(strlen(ended.why.text), 0);
    stock_close(&stock);
}

/* --- keys that change --- */

/* The answer to such a wish has to be written by whoever reads. */
Test(tls_gate, keys_may_be_renewed_at_any_time, .init = setup_and_start, .fini = teardown)
{
    struct stock stock;

    as_client(&stock, n7);
    for (uint32_t id = 1; id <= 60; id++) {
        cr_assert_eq(SSL_key_update(stock.ssl, id % 2 ? SSL_KEY_UPDATE_REQUESTED
                                                      : SSL_KEY_UPDATE_NOT_REQUESTED),
                     1);
        cr_assert(echo(&stock, id, id * 2000));
    }
    stock_close(&stock);
}

/* The gate's writes stand still while what it reads comes under one new key after another. (A new
 * key of its own, asked for just then, is more than OpenSSL can do: that ends the session.) */
Test(tls_gate, answers_that_are_not_taken_hold_up_reading_only, .init = setup_and_start,
     .fini = teardown)
{
    static uint8_t out[200008], in[200008];
    size_t n = make_request(out + 8, 7, 200000 - 4);
    struct timeval quick = {.tv_usec = 200000};
    struct stock stock;
    int sent = 0;

    sp_head_pack(SP_TCP, n, out);
    as_client(&stock, n7);
    SSL_set_mode(stock.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
    setsockopt(stock.fd, SOL_SOCKET, SO_SNDTIMEO, &quick, sizeof(quick));
    for (size_t at = 0; sent < 400; sent++, at = 0) {
        while (at < n + 8) {
            int r = SSL_write(stock.ssl, out + at, (int)(n + 8 - at));

            if (r <= 0)
                break;
            at += (size_t)r;
        }
        if (at < n + 8)
            break;
        SSL_key_update(stock.ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    }
    cr_assert_lt(sent, 400);
    cr_assert_gt(sent, 5);
    for (int i = 0; i < sent; i++) {
        cr_assert(stock_read(&stock, in, n + 8), "answer %d of %d", i, sent);
        cr_assert_arr_eq(in, out, n + 8);
    }
    stock_close(&stock);
}

/* --- once more --- */

Test(tls_gate, a_revoked_peer_is_ended_and_nobody_else, .init = setup_and_start, .fini = teardown)
{
    struct stock link[2], client[2], asks, silent;
    int local[2];
    uint32_t conn[2];
    struct told_event asked, ended;

    conn[0] = open_link(&link[0], n7, "n7", 0, &local[0]);
    conn[1] = open_link(&link[1], n8, "n8", 1, &local[1]);
    as_client(&client[0], n7);
    as_client(&client[1], n8);
    connect_as(&asks, n7);
    say_preamble(&asks, PREAMBLE_LINK, "n7");
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    connect_as(&silent, n7);
    RIG_WAIT(&rig, c.tls_handshakes == 6);
    gate_check_again(rig.gate); /* nothing has changed */
    cr_assert(echo(&client[0], 1, 100) && echo(&client[1], 1, 100));
    cr_assert_eq(rig_count(&rig).tls_revoked, 0);

    revoke_and_check(n7, NULL);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn[0], NULL));
    cr_assert_eq(stock_over(&link[0]), 0);
    cr_assert_eq(recv(local[0], &(char){0}, 1, MSG_DONTWAIT), -1); /* in order: nng may yet send */
    cr_assert(send_message(local[0], SP_IPC, "\0\0\0\1", 4));
    gate_end(rig.gate, conn[0], 1);
    cr_assert_eq(recv(local[0], &(char){0}, 1, 0), 0);
    close(local[0]);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn[0], &ended));
    cr_assert_eq(ended.why.error, -EACCES);
    cr_assert_eq(ended.why.status, STATUS_PERMISSION_DENIED);
    cr_assert_eq(ended.why.reason, MESHD__V1__REASON__REASON_IDENTITY);
    cr_assert_str_eq(ended.why.text, "its certificate was revoked");
    cr_assert(rig_told(&rig, TOLD_ENDED, asked.conn, &ended));
    cr_assert_eq(ended.why.reason, MESHD__V1__REASON__REASON_IDENTITY);
    cr_assert_eq(stock_over(&client[0]), 0);
    cr_assert_eq(stock_over(&asks), 0);
    cr_assert_eq(stock_over(&silent), 0);
    RIG_WAIT(&rig, c.tls_revoked == 4 && c.connections <= 4);
    expect_message(&link[1], local[1]);
    cr_assert(echo(&client[1], 2, 100));
    cr_assert_eq(rig_count(&rig).parked, 0);
    for (int i = 0; i < 2; i++) {
        stock_close(&link[i]);
        stock_close(&client[i]);
    }
    stock_close(&asks);
    stock_close(&silent);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn[1], NULL));
    gate_end(rig.gate, conn[1], 1);
    close(local[1]);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn[1], NULL));
}

/* Its session was made of what there was when it began. */
Test(tls_gate, a_handshake_that_runs_meanwhile_does_not_slip_through, .init = setup_and_start,
     .fini = teardown)
{
    struct stock stock;
    uint8_t bytes[4096];
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    int fd = dial_plain(&rig), n;

    stock_open(&stock, fd, TLS_CONNECT, n7);
    SSL_set_bio(stock.ssl, in, out);
    stock_shake(&stock);
    n = BIO_read(out, bytes, sizeof(bytes));
    cr_assert(send_all(fd, bytes, (size_t)n));
    n = (int)recv(fd, bytes, sizeof(bytes), 0); /* it has begun */
    revoke_and_check(n7, NULL);
    RIG_WAIT(&rig, c.connections == 1);
    do {
        cr_assert_gt(n, 0);
        BIO_write(in, bytes, n);
        if (stock_shake(&stock))
            break;
        n = (int)recv(fd, bytes, sizeof(bytes), 0);
    } while (true);
    while ((n = BIO_read(out, bytes, sizeof(bytes))) > 0)
        cr_assert(send_all(fd, bytes, (size_t)n));
    cr_assert(closed_by_gate(fd));
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0 && c.tls_revoked == 1);
    cr_assert_eq(rig_count(&rig).tls_handshakes, 1);
}
