/* A connection's life under TLS: how it ends, keys that are renewed, and what becomes of everybody
 * when the material changes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "gate/tls_world.h"
#include "wire/status.h"

/* --- what waits --- */

/* One record, of which sniffing takes a part: no event tells of the rest. */
Test(tls_life, what_waits_inside_a_session_is_read, .init = world_start, .fini = world_stop)
{
    static const size_t lens[] = {5000, 8184, 12000, 16000};

    for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
        uint8_t out[16384], in[16384];
        size_t n = make_request(out + SP_HELLO_LEN + 8, 1, lens[i]);
        struct stock stock;

        sp_hello_pack(SP_REQ0, out);
        sp_head_pack(SP_TCP, n, out + SP_HELLO_LEN);
        connect_as(&stock, n7);
        cr_assert(stock_write(&stock, out, SP_HELLO_LEN + 8 + n));
        cr_assert(stock_read(&stock, in, SP_HELLO_LEN + 8 + n));
        cr_assert_arr_eq(in + SP_HELLO_LEN, out + SP_HELLO_LEN, 8 + n);
        stock_close(&stock);
    }
}

/* --- how it ends --- */

Test(tls_life, a_connection_that_is_cut_off_is_no_half_close, .init = world_start,
     .fini = world_stop)
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

Test(tls_life, an_end_that_comes_with_a_request_is_not_lost, .init = world_start,
     .fini = world_stop)
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

Test(tls_life, a_link_whose_bytes_are_forged_is_ended, .init = world_start, .fini = world_stop)
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
Test(tls_life, keys_may_be_renewed_at_any_time, .init = world_start, .fini = world_stop)
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
Test(tls_life, answers_that_are_not_taken_hold_up_reading_only, .init = world_start,
     .fini = world_stop)
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

Test(tls_life, a_revoked_peer_is_ended_and_nobody_else, .init = world_start, .fini = world_stop)
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

    revoke_and_check(n7);
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
    cr_assert_eq(stock_over(&client[0]), 0);
    cr_assert_eq(stock_over(&asks), 0);
    stock_close(&asks);
    cr_assert(rig_told(&rig, TOLD_ENDED, asked.conn, &ended));
    cr_assert_eq(ended.why.reason, MESHD__V1__REASON__REASON_IDENTITY);
    cr_assert_eq(stock_over(&silent), 0);
    RIG_WAIT(&rig, c.tls_revoked == 4 && c.connections <= 4);
    expect_message(&link[1], local[1]);
    cr_assert(echo(&client[1], 2, 100));
    cr_assert_eq(rig_count(&rig).parked, 0);
    for (int i = 0; i < 2; i++) {
        stock_close(&link[i]);
        stock_close(&client[i]);
    }
    stock_close(&silent);
    cr_assert(rig_told(&rig, TOLD_ENDING, conn[1], NULL));
    gate_end(rig.gate, conn[1], 1);
    close(local[1]);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn[1], NULL));
}

/* Its session was made of what there was when it began. */
Test(tls_life, a_handshake_that_runs_meanwhile_does_not_slip_through, .init = world_start,
     .fini = world_stop)
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
    revoke_and_check(n7);
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
