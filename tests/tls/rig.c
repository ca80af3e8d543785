#include "tls/rig.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS 30000

void sockets(int fds[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

void pair_open(struct pair *pair, struct tls_keeper *accepting, struct tls_keeper *dialling,
               const char *expect, bool resume)
{
    int fds[2];

    sockets(fds);
    *pair = (struct pair){.accept = {fds[0], NULL, -EAGAIN}, .dial = {fds[1], NULL, -EAGAIN}};
    cr_assert_eq(tls_new(accepting, TLS_ACCEPT, fds[0], "", resume, &pair->accept.tls), 0);
    cr_assert_eq(tls_new(dialling, TLS_CONNECT, fds[1], expect, resume, &pair->dial.tls), 0);
}

static void shake(struct end *end)
{
    if (end->result == -EAGAIN)
        end->result = tls_handshake(end->tls);
    if (end->result == -EAGAIN)
        cr_assert_neq(tls_wants(end->tls), 0);
    else if (end->result < 0)
        shutdown(end->fd, SHUT_WR); /* what its owner would do: the other end is not left waiting */
}

void pair_shake(struct pair *pair)
{
    for (int i = 0; i < 1000; i++) {
        shake(&pair->dial);
        shake(&pair->accept);
        if (pair->accept.result != -EAGAIN && pair->dial.result != -EAGAIN)
            return;
    }
    cr_assert_fail("a handshake stands still");
}

void pair_up(struct pair *pair, struct tls_keeper *accepting, struct tls_keeper *dialling,
             const char *expect, bool resume)
{
    pair_open(pair, accepting, dialling, expect, resume);
    pair_shake(pair);
    cr_assert_eq(pair->accept.result, 0, "%s", tls_why(pair->accept.tls));
    cr_assert_eq(pair->dial.result, 0, "%s", tls_why(pair->dial.tls));
}

void pair_close(struct pair *pair)
{
    tls_free(pair->accept.tls);
    tls_free(pair->dial.tls);
    close(pair->accept.fd);
    close(pair->dial.fd);
}

void end_wait(const struct end *end)
{
    struct pollfd pfd = {.fd = end->fd,
                         .events = tls_wants(end->tls) == TLS_WRITABLE ? POLLOUT : POLLIN};

    cr_assert_eq(poll(&pfd, 1, WAIT_MS), 1, "nothing happens");
}

ssize_t end_read(struct end *end, void *data, size_t len)
{
    ssize_t n;

    while ((n = tls_read(end->tls, data, len)) == -EAGAIN) {
        struct pollfd pfd = {.fd = end->fd, .events = POLLIN};

        if (poll(&pfd, 1, 0) == 0)
            return -EAGAIN;
    }
    return n;
}

void end_write(struct end *end, const void *data, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = tls_write(end->tls, (const char *)data + done, len - done);

        if (n == -EAGAIN)
            end_wait(end);
        else
            cr_assert_gt(n, 0, "%s", tls_why(end->tls));
        done += n > 0 ? (size_t)n : 0;
    }
}

static void say(struct end *from, struct end *to)
{
    char got[8] = "";

    end_write(from, "hello", 5);
    cr_assert_eq(end_read(to, got, sizeof(got)), 5);
    cr_assert_str_eq(got, "hello");
}

void pair_talk(struct pair *pair)
{
    say(&pair->dial, &pair->accept);
    say(&pair->accept, &pair->dial);
}

void raw_open(struct raw *raw, struct tls_keeper *keeper, enum tls_role ours,
              const struct issued *own, const char *alpn)
{
    int fds[2];

    sockets(fds);
    *raw = (struct raw){.fd = fds[1], .ours = {fds[0], NULL, -EAGAIN}};
    cr_assert_eq(tls_new(keeper, ours, fds[0], "", false, &raw->ours.tls), 0);
    raw->ctx = SSL_CTX_new(TLS_method());
    cr_assert_not_null(raw->ctx);
    SSL_CTX_set_cert_store(raw->ctx, X509_STORE_new());
    if (own) {
        cr_assert_eq(SSL_CTX_use_certificate(raw->ctx, own->cert), 1);
        cr_assert_eq(SSL_CTX_use_PrivateKey(raw->ctx, own->key), 1);
    }
    raw->ssl = SSL_new(raw->ctx);
    cr_assert_not_null(raw->ssl);
    SSL_set_fd(raw->ssl, raw->fd);
    if (ours == TLS_ACCEPT)
        SSL_set_connect_state(raw->ssl);
    else
        SSL_set_accept_state(raw->ssl);
    if (alpn)
        cr_assert_eq(
            SSL_set_alpn_protos(raw->ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn)), 0);
}

int raw_shake(struct raw *raw)
{
    int theirs = 0;

    for (int i = 0; i < 1000; i++) {
        int ret = theirs == 0 ? SSL_do_handshake(raw->ssl) : 1, error;

        error = SSL_get_error(raw->ssl, ret);
        if (theirs == 0 && ret == 1)
            theirs = 1;
        else if (theirs == 0 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            theirs = -error;
        shake(&raw->ours);
        if (raw->ours.result != -EAGAIN && theirs != 0)
            return theirs;
    }
    cr_assert_fail("a handshake stands still");
    return 0;
}

void raw_close(struct raw *raw)
{
    tls_free(raw->ours.tls);
    SSL_free(raw->ssl);
    SSL_CTX_free(raw->ctx);
    close(raw->fd);
    close(raw->ours.fd);
}

int raw_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
             unsigned in_len, void *arg)
{
    *out = in + 1; /* the first that is offered */
    *out_len = in[0];
    return SSL_TLSEXT_ERR_OK;
}
