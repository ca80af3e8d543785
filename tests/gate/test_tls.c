/* TLS at the door: who is let in and who is not, what is counted, and who speaks for whom. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "gate/tls_world.h"
#include "wire/status.h"

/* --- who is let in --- */

Test(tls_gate, plaintext_is_closed_at_its_first_byte, .init = world_start, .fini = world_stop)
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

Test(tls_gate, the_unix_socket_is_plaintext_all_the_same, .init = world_start, .fini = world_stop)
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

Test(tls_gate, a_client_of_the_mesh_is_served_and_known_by_name, .init = world_start,
     .fini = world_stop)
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

Test(tls_gate, who_is_not_of_the_mesh_is_turned_away_and_counted, .init = world_setup,
     .fini = world_stop)
{
    struct issued *other = issue_ca(NULL, "mesh");
    struct issued *late =
        issue(ca, &(struct wanted){.names = "DNS:n7", .from = -2 * DAY, .until = -DAY});
    struct issued *server = issue(ca, &(struct wanted){.names = "DNS:n7", .usage = "serverAuth"});
    struct stock stock;

    world_run();
    expect_turned_away(NULL, TLS_NO_CERTIFICATE, 1);
    revoke_and_check(n8);
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

Test(tls_gate, there_is_no_tls_inside_tls, .init = world_start, .fini = world_stop)
{
    struct stock stock;

    connect_as(&stock, n7);
    cr_assert(stock_write(&stock, "\x16\3\1\0\x20", 5));
    cr_assert_eq(stock_over(&stock), 0);
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0 && c.closed_bad_first_bytes == 1);
}

Test(tls_gate, who_takes_too_long_is_closed_wherever_it_stands, .init = world_setup,
     .fini = world_stop)
{
    struct stock stock[3];
    int silent, half;

    rig.first_bytes_ms = 2500; /* in which a handshake is done on any machine */
    world_run();
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

Test(tls_gate, a_preamble_names_only_who_its_certificate_names, .init = world_start,
     .fini = world_stop)
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

Test(tls_gate, any_of_its_names_will_do, .init = world_start, .fini = world_stop)
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

/* Without a certificate being shown again, it is who it was. */
Test(tls_gate, who_resumes_its_session_is_known_as_well, .init = world_start, .fini = world_stop)
{
    struct told_event asked;
    struct stock stock;
    SSL_SESSION *session;

    as_client(&stock, n8);
    cr_assert(echo(&stock, 1, 10)); /* the ticket came before it */
    session = SSL_get1_session(stock.ssl);
    cr_assert(SSL_SESSION_is_resumable(session));
    SSL_shutdown(stock.ssl);
    cr_assert_eq(stock_over(&stock), 0);
    stock_close(&stock);
    stock_open(&stock, dial_plain(&rig), TLS_CONNECT, n8);
    cr_assert_eq(SSL_set_session(stock.ssl, session), 1);
    cr_assert(stock_shake(&stock));
    cr_assert(SSL_session_reused(stock.ssl));
    say_preamble(&stock, PREAMBLE_LINK, "n8");
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    cr_assert(asked.peer.secure);
    cr_assert_str_eq(asked.peer.names[1], "n8.example");
    cr_assert_eq(rig_count(&rig).tls_resumed, 1);
    cr_assert_eq(rig_count(&rig).tls_handshakes, 2);
    revoke_and_check(n8);
    RIG_WAIT(&rig, c.tls_revoked == 1);
    stock_close(&stock);
    cr_assert(rig_told(&rig, TOLD_ENDED, asked.conn, NULL));
    SSL_SESSION_free(session);
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

Test(tls_gate, a_handshake_may_be_cut_after_any_byte, .init = world_start, .fini = world_stop)
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

Test(tls_gate, a_link_is_heard_during_a_flood_of_handshakes, .init = world_start,
     .fini = world_stop)
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
    cr_expect_lt(longest, 5000, "%zu ms", (size_t)longest);
    RIG_WAIT(&rig, c.connections == 1);
    cr_assert_eq(open_descriptors(), descriptors);
    stock_close(&stock);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn, NULL));
    gate_end(rig.gate, conn, 5 * FLOOD / AT_ONCE);
    close(local);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
}

/* Nine bytes: a record that holds only the head of a hello, which announces nearly 128 KiB. */
Test(tls_gate, a_hello_takes_no_memory_by_what_it_announces, .init = world_start,
     .fini = world_stop)
{
    static const uint8_t head[] = {0x16, 3, 1, 0, 4, 1, 1, 0xff, 0};
    enum { N = 100 };
    size_t before;
    int fds[N];

    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == 2); /* which have memory of their own */
    before = heap_bytes();
    for (int i = 0; i < N; i++) {
        fds[i] = dial_plain(&rig);
        cr_assert(send_all(fds[i], head, sizeof(head)));
    }
    RIG_WAIT(&rig, c.tls_failed[TLS_BROKEN] == N && c.connections == 0); /* none is waited for */
    cr_assert_lt(heap_bytes(), before + N * 65536u, "%zu, %zu before", heap_bytes(), before);
    for (int i = 0; i < N; i++)
        close(fds[i]);
}
