/* Sessions whose bytes the kernel encrypts (kTLS). Where the kernel has no TLS all of this holds as
 * well, and proves nothing new. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/rig.h"

static struct issued *ca, *n1;
static struct tls_keeper *keeper;

static void setup(void)
{
    struct tls_settings settings;

    alarm(120); /* an end that is never told must not hold up the rest */
    ca = issue_ca(NULL, "ca");
    n1 = issue_node(ca, "n1");
    settings = node_settings("n1", ca, n1);
    settings.offload = true;
    keeper = keep(&settings);
    if (!kernel_has_tls())
        fprintf(stderr, "SKIP kTLS: the kernel's tls module is not loaded\n");
}

static void teardown(void) { tls_keeper_free(keeper); }

TestSuite(tls_offload, .init = setup, .fini = teardown);

/* The kernel encrypts for TCP only. Room in the buffers for so many bytes, or 0. */
static void connected(int fds[2], int room)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (room) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)); /* inherited */
        setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    }
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&addr, len) == 0 && listen(fd, 1) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    cr_assert_eq(connect(fds[1], (struct sockaddr *)&addr, len), 0);
    fds[0] = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert(fds[0] >= 0 && fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0);
    close(fd);
}

static void open_of(struct pair *pair, struct tls_keeper *accepting, struct tls_keeper *dialling,
                    int room)
{
    int fds[2];

    connected(fds, room);
    *pair = (struct pair){.accept = {fds[0], NULL, -EAGAIN}, .dial = {fds[1], NULL, -EAGAIN}};
    cr_assert_eq(tls_new(accepting, TLS_ACCEPT, fds[0], "", false, &pair->accept.tls), 0);
    cr_assert_eq(tls_new(dialling, TLS_CONNECT, fds[1], "n1", false, &pair->dial.tls), 0);
    while (pair->accept.result == -EAGAIN || pair->dial.result == -EAGAIN) {
        pair->accept.result = tls_handshake(pair->accept.tls);
        pair->dial.result = tls_handshake(pair->dial.tls);
    }
}

static void up(struct pair *pair, int room)
{
    open_of(pair, keeper, keeper, room);
    cr_assert_eq(pair->accept.result, 0, "%s", tls_why(pair->accept.tls));
    cr_assert_eq(pair->dial.result, 0, "%s", tls_why(pair->dial.tls));
    cr_assert_eq(tls_offloaded(pair->accept.tls), kernel_has_tls());
    cr_assert_eq(tls_offloaded(pair->dial.tls), kernel_has_tls());
}

/* As tls_read, but it waits. */
static ssize_t hear(struct end *end, void *got, size_t size)
{
    ssize_t n;

    while ((n = tls_read(end->tls, got, size)) == -EAGAIN)
        end_wait(end);
    return n;
}

static int end_of(struct end *end)
{
    int r;

    while ((r = tls_end(end->tls)) == -EAGAIN)
        end_wait(end);
    return r;
}

Test(tls_offload, only_where_it_may)
{
    struct tls_settings settings = node_settings("n2", ca, issue_node(ca, "n1"));
    struct tls_keeper *own;
    struct pair pair;
    char got[8];

    settings.offload = false;
    own = keep(&settings);
    open_of(&pair, own, keeper, 0);
    cr_assert(pair.accept.result == 0 && pair.dial.result == 0);
    cr_expect_not(tls_offloaded(pair.accept.tls));
    end_write(&pair.accept, "hello", 5);
    cr_expect_eq(hear(&pair.dial, got, sizeof(got)), 5);
    pair_close(&pair);
    tls_keeper_free(own);
}

Test(tls_offload, plain_bytes_into_the_descriptor_are_encrypted)
{
    struct pair pair;
    char got[8];

    up(&pair, 0);
    if (tls_offloaded(pair.accept.tls))
        cr_expect_eq(send(pair.accept.fd, "plain", 5, MSG_NOSIGNAL), 5);
    else
        end_write(&pair.accept, "plain", 5);
    cr_expect_eq(hear(&pair.dial, got, sizeof(got)), 5);
    cr_expect_eq(memcmp(got, "plain", 5), 0);
    cr_expect_eq(end_of(&pair.accept), 0);
    cr_expect_eq(hear(&pair.dial, got, sizeof(got)), 0);
    end_write(&pair.dial, "after", 5);
    cr_expect_eq(hear(&pair.accept, got, sizeof(got)), 5);
    pair_close(&pair);
}

Test(tls_offload, who_is_refused_is_told)
{
    struct tls_settings settings =
        node_settings("n2", ca, issue_node(issue_ca(NULL, "other"), "n2"));
    struct tls_keeper *stranger;
    struct pair pair;
    char got[8];

    stranger = keep(&settings);
    open_of(&pair, keeper, stranger, 0);
    cr_expect_eq(pair.accept.result, -EACCES);
    cr_expect_eq(pair.dial.result, 0); /* it learns of it by reading */
    cr_expect_eq(hear(&pair.dial, got, sizeof(got)), -EPROTO);
    cr_expect_eq(tls_failure(pair.dial.tls), TLS_REFUSED);
    pair_close(&pair);
    tls_keeper_free(stranger);
}

/* OpenSSL at the other end. */
static void stock_open(struct raw *raw)
{
    int fds[2];

    connected(fds, 0);
    *raw = (struct raw){.fd = fds[1], .ours = {fds[0], NULL, -EAGAIN}};
    cr_assert_eq(tls_new(keeper, TLS_ACCEPT, fds[0], "", false, &raw->ours.tls), 0);
    raw->ctx = SSL_CTX_new(TLS_method());
    cr_assert_eq(SSL_CTX_use_certificate(raw->ctx, n1->cert), 1);
    cr_assert_eq(SSL_CTX_use_PrivateKey(raw->ctx, n1->key), 1);
    raw->ssl = SSL_new(raw->ctx);
    SSL_set_fd(raw->ssl, raw->fd);
    SSL_set_connect_state(raw->ssl);
    cr_assert_eq(SSL_set_alpn_protos(raw->ssl, (const unsigned char *)"\007meshd/1", 8), 0);
    while (raw->ours.result == -EAGAIN) {
        SSL_do_handshake(raw->ssl);
        raw->ours.result = tls_handshake(raw->ours.tls);
    }
    cr_assert_eq(raw->ours.result, 0, "%s", tls_why(raw->ours.tls));
    fcntl(raw->fd, F_SETFL, 0);
}

Test(tls_offload, a_wish_for_new_keys_ends_nothing)
{
    struct raw raw;
    char got[8];

    stock_open(&raw);
    cr_assert_eq(tls_offloaded(raw.ours.tls), kernel_has_tls());
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(SSL_key_update(raw.ssl, i % 2 ? SSL_KEY_UPDATE_NOT_REQUESTED
                                                   : SSL_KEY_UPDATE_REQUESTED),
                     1);
        cr_assert_eq(SSL_write(raw.ssl, "hello", 5), 5);
        cr_assert_eq(hear(&raw.ours, got, sizeof(got)), 5, "%s", tls_why(raw.ours.tls));
        end_write(&raw.ours, "answer", 6);
        cr_assert_eq(SSL_read(raw.ssl, got, sizeof(got)), 6);
    }
    cr_expect_eq(end_of(&raw.ours), 0);
    cr_expect_eq(SSL_read(raw.ssl, got, sizeof(got)), 0);
    cr_expect_eq(SSL_get_shutdown(raw.ssl), SSL_RECEIVED_SHUTDOWN);
    raw_close(&raw);
}

Test(tls_offload, writing_to_who_is_gone_raises_no_signal)
{
    struct pair pair;
    ssize_t n;

    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 2; i++) {
        up(&pair, 0);
        close(pair.accept.fd);
        pair.accept.fd = -1;
        while ((n = tls_write(pair.dial.tls, "x", 1)) == 1)
            ; /* until the first is answered by a reset */
        cr_expect(n == -EPIPE || n == -ECONNRESET, "%zd", n);
        pair_close(&pair);
    }
    up(&pair, 0);
    shutdown(pair.dial.fd, SHUT_WR); /* what says the end has a way of its own to the kernel */
    end_of(&pair.dial);
    pair_close(&pair);
}

#define MOST (4u << 20)

static char *pattern(void)
{
    char *bytes = malloc(MOST);

    cr_assert_not_null(bytes);
    for (size_t i = 0; i < MOST; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    return bytes;
}

struct reading {
    struct end *end;
    const char *expected;
    size_t len, piece;
    bool good; /* all of it came, and its end */
};

static void *read_all(void *arg)
{
    struct reading *r = arg;
    char got[16384];
    size_t at = 0;
    ssize_t n;

    for (;;) {
        struct pollfd pfd = {.fd = r->end->fd, .events = POLLIN};

        n = tls_read(r->end->tls, got, r->piece);
        if (n == -EAGAIN && poll(&pfd, 1, 20000) == 1)
            continue;
        if (n <= 0 || at + (size_t)n > r->len || memcmp(got, r->expected + at, (size_t)n) != 0)
            break;
        at += (size_t)n;
    }
    r->good = n == 0 && at == r->len;
    return NULL;
}

/* Each time from another place, as who had to keep what was not taken. */
static void write_moving(struct end *end, const char *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t n_piece = len - at < 50000 ? len - at : 50000;
        char *piece = malloc(n_piece);
        ssize_t n;

        cr_assert_not_null(piece);
        memcpy(piece, data + at, n_piece);
        n = tls_write(end->tls, piece, n_piece);
        memset(piece, 0, n_piece);
        free(piece);
        cr_assert(n > 0 || n == -EAGAIN, "%s", tls_why(end->tls));
        if (n > 0)
            at += (size_t)n;
        else
            end_wait(end);
    }
}

/* Read by another thread than the one that made the session, while it is written. */
Test(tls_offload, bytes_may_move_between_two_writes_and_sessions_between_threads)
{
    char *all = pattern();

    for (unsigned i = 0; i < 20; i++) {
        struct pair pair;
        struct reading r = {&pair.dial, all, 100000u + i * 12370u, 500 + i * 970u % 15000u, false};
        pthread_t reader;

        up(&pair, 16384 + (int)(i % 7) * 4096);
        cr_assert_eq(pthread_create(&reader, NULL, read_all, &r), 0);
        write_moving(&pair.accept, all, r.len);
        cr_assert_eq(end_of(&pair.accept), 0);
        pthread_join(reader, NULL);
        cr_expect(r.good, "%zu bytes, %zu at a time: %s", r.len, r.piece, tls_why(pair.dial.tls));
        pair_close(&pair);
    }
    free(all);
}

/* The buffers are full when the end is first said, and they are emptied in small steps: as soon as
 * it is taken there is a FIN, or a close, which nothing may be left behind. */
static void arrives_before(bool fin)
{
    char *all = pattern(), *got = malloc(MOST);

    cr_assert_not_null(got);
    for (unsigned i = 0; i < 60; i++) {
        size_t sent = 0, received = 0, step = 300 + i * 531u % 9000u;
        struct pair pair;
        ssize_t n;
        int r;

        up(&pair, 32768 + (int)(i % 7) * 4096);
        while ((n = tls_write(pair.accept.tls, all + sent, 1 + i * 977u % 20000u)) > 0)
            sent += (size_t)n;
        cr_assert_eq(n, -EAGAIN);
        /* As its owner would: other bytes than the same may not follow. */
        while ((n = tls_write(pair.accept.tls, all + sent, 1 + i * 977u % 20000u)) == -EAGAIN) {
            n = tls_read(pair.dial.tls, got + received, step);
            cr_assert(n > 0 || n == -EAGAIN, "%s", tls_why(pair.dial.tls));
            received += n > 0 ? (size_t)n : 0;
        }
        cr_assert_gt(n, 0);
        sent += (size_t)n;
        while ((r = tls_end(pair.accept.tls)) == -EAGAIN) {
            cr_assert_eq(tls_wants(pair.accept.tls), TLS_WRITABLE);
            n = tls_read(pair.dial.tls, got + received, step);
            cr_assert(n > 0 || n == -EAGAIN, "%s", tls_why(pair.dial.tls));
            received += n > 0 ? (size_t)n : 0;
        }
        cr_assert_eq(r, 0);
        if (fin)
            shutdown(pair.accept.fd, SHUT_WR);
        else
            close(pair.accept.fd);
        while ((n = hear(&pair.dial, got + received, MOST - received)) > 0)
            received += (size_t)n;
        cr_expect_eq(n, 0, "%s", tls_why(pair.dial.tls));
        cr_expect_eq(received, sent);
        cr_expect_eq(memcmp(got, all, received), 0);
        if (!fin)
            pair.accept.fd = -1;
        pair_close(&pair);
    }
    free(all);
    free(got);
}

Test(tls_offload, all_arrives_before_a_fin) { arrives_before(true); }
Test(tls_offload, all_arrives_before_a_close) { arrives_before(false); }
