/* Bytes: in the smallest pieces, against a full buffer, and with keys that change. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/rig.h"

static struct issued *ca, *n1, *n2;
static struct tls_keeper *k1, *k2;

static void setup(void)
{
    struct tls_settings settings;

    ca = issue_ca(NULL, "ca");
    n1 = issue_node(ca, "n1");
    n2 = issue_node(ca, "n2");
    settings = node_settings("n1", ca, n1);
    k1 = keep(&settings);
    settings = node_settings("n2", ca, n2);
    k2 = keep(&settings);
}

static void teardown(void)
{
    tls_keeper_free(k1);
    tls_keeper_free(k2);
}

TestSuite(tls_bytes, .init = setup, .fini = teardown);

/* At most `piece` bytes from one to the other. */
static void carry(int from, int to, size_t piece)
{
    char bytes[8];
    ssize_t n = recv(from, bytes, piece, 0);

    if (n > 0)
        cr_assert_eq(send(to, bytes, (size_t)n, 0), n);
}

Test(tls_bytes, a_handshake_in_pieces_of_1_2_3_and_7_bytes)
{
    static const size_t pieces[] = {1, 2, 3, 7};

    for (unsigned i = 0; i < 4; i++) {
        int left[2], right[2], steps = 0;
        struct end a = {.result = -EAGAIN}, b = a;

        sockets(left);
        sockets(right);
        cr_assert_eq(tls_new(k1, TLS_ACCEPT, left[0], "", true, &a.tls), 0);
        cr_assert_eq(tls_new(k2, TLS_CONNECT, right[0], "n1", true, &b.tls), 0);
        while ((a.result == -EAGAIN || b.result == -EAGAIN) && ++steps < 100000) {
            a.result = tls_handshake(a.tls);
            b.result = tls_handshake(b.tls);
            carry(left[1], right[1], pieces[i]);
            carry(right[1], left[1], pieces[i]);
        }
        cr_expect_eq(a.result, 0, "%s", tls_why(a.tls));
        cr_expect_eq(b.result, 0, "%s", tls_why(b.tls));
        tls_free(a.tls);
        tls_free(b.tls);
        for (int j = 0; j < 2; j++) {
            close(left[j]);
            close(right[j]);
        }
    }
}

#define PLENTY (4u << 20)

static char *pattern(void)
{
    char *bytes = malloc(PLENTY);

    cr_assert_not_null(bytes);
    for (size_t i = 0; i < PLENTY; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    return bytes;
}

Test(tls_bytes, a_full_buffer_takes_part_and_the_rest_may_lie_elsewhere)
{
    char *all = pattern(), *got = malloc(PLENTY), *moved = NULL;
    size_t sent = 0, received = 0;
    unsigned full = 0;
    struct pair pair;

    cr_assert_not_null(got);
    pair_up(&pair, k1, k2, "n1", false);
    while (received < PLENTY) {
        size_t len = PLENTY - sent > 100000 ? 100000 : PLENTY - sent;
        ssize_t n;

        if (len > 0) {
            /* Offered again it lies at another place, and more may be behind it. */
            free(moved);
            moved = malloc(len);
            cr_assert_not_null(moved);
            memcpy(moved, all + sent, len);
            n = tls_write(pair.dial.tls, moved, len);
            sent += n > 0 ? (size_t)n : 0;
            if (n > 0)
                continue;
            cr_assert_eq(n, -EAGAIN);
            cr_assert_eq(tls_wants(pair.dial.tls), TLS_WRITABLE);
            cr_assert_eq(tls_end(pair.dial.tls), -EBUSY);
            full++;
        }
        n = end_read(&pair.accept, got + received, PLENTY - received);
        cr_assert(n > 0 || n == -EAGAIN);
        received += n > 0 ? (size_t)n : 0;
    }
    cr_expect_gt(full, 1);
    cr_expect_eq(memcmp(all, got, PLENTY), 0);
    free(all);
    free(got);
    free(moved);
    pair_close(&pair);
}

Test(tls_bytes, what_was_decrypted_and_not_read_is_pending)
{
    struct pair pair;
    char got[4];

    pair_up(&pair, k1, k2, "n1", false);
    end_write(&pair.dial, "abcdefgh", 8);
    cr_expect_not(tls_pending(pair.accept.tls));
    cr_expect_eq(end_read(&pair.accept, got, 4), 4);
    cr_expect(tls_pending(pair.accept.tls));
    cr_expect_eq(tls_read(pair.accept.tls, got, 4), 4);
    cr_expect_eq(memcmp(got, "efgh", 4), 0);
    cr_expect_not(tls_pending(pair.accept.tls));
    pair_close(&pair);
}

/* What was said to one end is taken off its wire, which is another one from now on. */
static size_t take_off_wire(struct end *end, char *bytes, size_t size, int *out_wire)
{
    ssize_t n = recv(end->fd, bytes, size, 0);
    int fds[2];

    cr_assert_gt(n, 10);
    sockets(fds);
    cr_assert_eq(dup3(fds[0], end->fd, O_CLOEXEC), end->fd);
    close(fds[0]);
    *out_wire = fds[1];
    return (size_t)n;
}

Test(tls_bytes, half_a_record_is_pending_until_it_was_looked_for)
{
    struct pair pair;
    char got[8], wire[64];
    size_t len;
    int fd;

    pair_up(&pair, k1, k2, "n1", false);
    end_write(&pair.dial, "abc", 3);
    len = take_off_wire(&pair.accept, wire, sizeof(wire), &fd);
    cr_assert_eq(send(fd, wire, len - 5, 0), (ssize_t)len - 5);
    cr_expect_eq(tls_read(pair.accept.tls, got, sizeof(got)), -EAGAIN);
    cr_expect_not(tls_pending(pair.accept.tls));
    cr_assert_eq(send(fd, wire + len - 5, 5, 0), 5);
    cr_expect_eq(tls_read(pair.accept.tls, got, sizeof(got)), 3);
    cr_expect_eq(memcmp(got, "abc", 3), 0);
    close(fd);
    pair_close(&pair);
}

Test(tls_bytes, keys_change_when_the_other_side_wants_it)
{
    struct raw raw;
    char got[8];

    for (int role = TLS_ACCEPT; role <= TLS_CONNECT; role++) {
        raw_open(&raw, k1, role, n2, role == TLS_ACCEPT ? "\007meshd/1" : NULL);
        if (role == TLS_CONNECT)
            SSL_CTX_set_alpn_select_cb(raw.ctx, raw_alpn, NULL);
        cr_assert_eq(raw_shake(&raw), 1);
        cr_assert_eq(raw.ours.result, 0, "%s", tls_why(raw.ours.tls));
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(SSL_key_update(raw.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
            cr_assert_eq(SSL_write(raw.ssl, "hello", 5), 5);
            cr_expect_eq(end_read(&raw.ours, got, sizeof(got)), 5);
            end_write(&raw.ours, "answer", 6);
            cr_expect_eq(SSL_read(raw.ssl, got, sizeof(got)), 6);
        }
        raw_close(&raw);
    }
}

/* A record of `len` bytes, all of them of a message that begins there and is to be `whole` long. */
static bool says_too_much(enum tls_role role, uint8_t message, size_t whole, size_t len,
                          size_t piece)
{
    uint8_t bytes[64] = {22, 3, 3, (uint8_t)(len >> 8), (uint8_t)len};
    struct tls *tls;
    int fds[2], r = -EAGAIN;
    bool told;

    bytes[5] = message;
    for (unsigned i = 0; i < 3; i++)
        bytes[6 + i] = (uint8_t)(whole >> (8 * (2 - i)));
    sockets(fds);
    cr_assert_eq(tls_new(k1, role, fds[0], "", false, &tls), 0);
    cr_assert_eq(tls_handshake(tls), -EAGAIN);
    for (size_t at = 0, n; at < 5 + len && r == -EAGAIN; at += n) {
        n = 5 + len - at < piece ? 5 + len - at : piece;
        cr_assert_eq(send(fds[1], bytes + at, n, 0), (ssize_t)n);
        r = tls_handshake(tls);
    }
    told = r == -EPROTO && strstr(tls_why(tls), "too long");
    cr_assert(r == -EAGAIN || r == -EPROTO);
    tls_free(tls);
    close(fds[0]);
    close(fds[1]);
    return told;
}

Test(tls_bytes, a_hello_that_is_announced_as_too_long_ends_the_session)
{
    for (size_t piece = 1; piece <= 9; piece++) {
        cr_expect(says_too_much(TLS_ACCEPT, 1, 130816, 4, piece));
        cr_expect(says_too_much(TLS_ACCEPT, 1, LIMIT_TLS_HELLO + 1, 40, piece));
        cr_expect_not(says_too_much(TLS_ACCEPT, 1, LIMIT_TLS_HELLO, 40, piece));
        cr_expect(says_too_much(TLS_CONNECT, 2, LIMIT_TLS_HELLO + 1, 4, piece));
        cr_expect_not(says_too_much(TLS_CONNECT, 2, LIMIT_TLS_HELLO, 4, piece));
    }
}

static void renew(struct raw *raw, int times)
{
    for (int i = 0; i < times; i++) {
        cr_assert_eq(SSL_key_update(raw->ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        cr_assert_eq(SSL_do_handshake(raw->ssl), 1);
    }
}

/* Each costs more to read than to send: who reads them would not get to anything else. */
Test(tls_bytes, keys_that_change_all_the_time_end_the_session)
{
    struct raw raw;
    char got[8];
    ssize_t n = -EAGAIN;

    raw_open(&raw, k1, TLS_ACCEPT, n2, "\007meshd/1");
    cr_assert_eq(raw_shake(&raw), 1);
    cr_assert_eq(raw.ours.result, 0, "%s", tls_why(raw.ours.tls));
    for (int i = 0; i < 5; i++) { /* with something between them it may say as many as it likes */
        renew(&raw, LIMIT_TLS_EXTRAS);
        cr_assert_eq(SSL_write(raw.ssl, "hello", 5), 5);
        cr_assert_eq(end_read(&raw.ours, got, sizeof(got)), 5);
    }
    for (int i = 0; i < 10 && n == -EAGAIN; i++) {
        renew(&raw, LIMIT_TLS_EXTRAS / 2);
        n = tls_read(raw.ours.tls, got, sizeof(got));
    }
    cr_expect_eq(n, -EPROTO);
    cr_expect_not_null(strstr(tls_why(raw.ours.tls), "new keys"));
    cr_expect_eq(tls_read(raw.ours.tls, got, sizeof(got)), -EPROTO);
    raw_close(&raw);
}

Test(tls_bytes, damage_on_the_way_ends_the_session)
{
    struct pair pair;
    char got[8], wire[64];
    size_t len;
    int fd;

    pair_up(&pair, k1, k2, "n1", false);
    end_write(&pair.dial, "abc", 3);
    /* Put back with one bit changed. */
    len = take_off_wire(&pair.accept, wire, sizeof(wire), &fd);
    wire[len - 1] ^= 1;
    cr_assert_eq(send(fd, wire, len, 0), (ssize_t)len);
    cr_expect_eq(tls_read(pair.accept.tls, got, sizeof(got)), -EPROTO);
    cr_expect_eq(tls_failure(pair.accept.tls), TLS_BROKEN);
    cr_expect_gt(strlen(tls_why(pair.accept.tls)), 0);
    close(fd);
    pair_close(&pair);
}
