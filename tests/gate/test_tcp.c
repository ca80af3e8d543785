/* Connects between nodes: their options, where they come from, how they fail. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>
#include "gate/tcp.h"

static const struct sockaddr_storage anywhere = {.ss_family = AF_UNSPEC};

static struct sockaddr_storage loopback(const char *ip)
{
    struct sockaddr_storage out = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&out;

    in->sin_family = AF_INET;
    cr_assert_eq(inet_pton(AF_INET, ip, &in->sin_addr), 1);
    return out;
}

/* A socket bound to a free port of 127.0.0.1. */
static int bound(struct sockaddr_storage *out_at)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(struct sockaddr_in);

    *out_at = loopback("127.0.0.1");
    cr_assert_eq(bind(fd, (struct sockaddr *)out_at, len), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)out_at, &len), 0);
    return fd;
}

static int error_of(int fd)
{
    struct pollfd waits = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t len = sizeof(error);

    cr_assert_eq(poll(&waits, 1, 10000), 1);
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    return error;
}

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);

    cr_assert_eq(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

Test(tcp, a_connect_does_not_block_and_the_options_end_what_is_silent)
{
    struct sockaddr_storage at;
    int listener = bound(&at), fd;

    cr_assert_eq(listen(listener, 1), 0);
    fd = tcp_dial(&at, &anywhere);
    cr_assert_geq(fd, 0);
    cr_expect_eq(error_of(fd), 0);
    cr_expect_neq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    cr_expect_neq(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    tcp_options(fd);
    cr_expect_neq(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
    cr_expect_neq(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    cr_expect_lt(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 10000);
    cr_expect_not(tcp_met_itself(fd));
    close(fd);
    close(listener);
}

Test(tcp, a_connect_comes_from_the_address_that_was_chosen)
{
    struct sockaddr_storage at, from = loopback("127.0.0.9");
    int listener = bound(&at), fd, accepted;
    struct sockaddr_in there;
    socklen_t len = sizeof(there);

    cr_assert_eq(listen(listener, 1), 0);
    fd = tcp_dial(&at, &from);
    cr_assert_geq(fd, 0);
    accepted = accept(listener, (struct sockaddr *)&there, &len);
    cr_assert_geq(accepted, 0);
    cr_expect_eq(ntohl(there.sin_addr.s_addr), 0x7f000009);
    close(accepted);
    close(fd);
    close(listener);
}

Test(tcp, what_cannot_be_is_told_at_once_or_by_the_socket)
{
    struct sockaddr_storage at, foreign = loopback("192.0.2.1");
    int taken = bound(&at), fd;

    cr_expect_eq(tcp_dial(&at, &foreign), -EADDRNOTAVAIL);
    cr_expect_eq(tcp_dial(&(struct sockaddr_storage){.ss_family = 0xff}, &anywhere), -EAFNOSUPPORT);
    fd = tcp_dial(&at, &anywhere); /* bound, but nobody listens */
    cr_assert_geq(fd, 0);
    cr_expect_eq(error_of(fd), ECONNREFUSED);
    close(fd);
    close(taken);
}

Test(tcp, a_socket_that_met_itself_is_known)
{
    struct sockaddr_storage at;
    int fd = bound(&at);

    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof(struct sockaddr_in)), 0);
    cr_expect(tcp_met_itself(fd));
    close(fd);
}
