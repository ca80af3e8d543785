#include "forward/net.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "base/clock.h"
#include "forward/must.h"

void net_set_timeouts(int fd)
{
    const struct timeval limit = {.tv_sec = WAIT_MS / 1000};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int bound(struct sockaddr_in *out_at)
{
    socklen_t len = sizeof *out_at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *out_at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    MUST(fd >= 0);
    MUST(bind(fd, (struct sockaddr *)out_at, sizeof *out_at) == 0);
    getsockname(fd, (struct sockaddr *)out_at, &len);
    return fd;
}

int net_listen_at(struct sockaddr_in *out_at)
{
    int fd = bound(out_at);

    MUST(listen(fd, 1024) == 0);
    net_set_timeouts(fd);
    return fd;
}

static void print_addr(const struct sockaddr_in *at, char out_addr[32])
{
    snprintf(out_addr, 32, "127.0.0.1:%u", ntohs(at->sin_port));
}

int net_listen(char out_addr[32])
{
    struct sockaddr_in at;
    int fd = net_listen_at(&at);

    print_addr(&at, out_addr);
    return fd;
}

int net_refuse(char out_addr[32])
{
    struct sockaddr_in at;
    int fd = bound(&at);

    print_addr(&at, out_addr);
    return fd;
}

int net_accept(int listener)
{
    int fd;

    do
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    MUST(fd >= 0);
    net_set_timeouts(fd);
    return fd;
}

bool net_nobody_comes(int listener)
{
    struct pollfd one = {.fd = listener, .events = POLLIN};

    return poll(&one, 1, 0) == 0;
}

/* Interrupted, it goes on by itself, connect(2). */
static bool connects(int fd, const struct sockaddr_in *to)
{
    struct pollfd done = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t len = sizeof error;

    if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0)
        return true;
    if (errno != EINTR)
        return false;
    while (poll(&done, 1, WAIT_MS) < 0 && errno == EINTR)
        ;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
}

int net_connect(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    net_set_timeouts(fd);
    MUST(connects(fd, &to));
    return fd;
}

void net_send(int fd, const void *data, size_t len)
{
    MUST(send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* As recv(2), which a signal interrupts, since the socket has a time-out: signal(7). */
static ssize_t receive(int fd, void *out, size_t size)
{
    ssize_t n;

    do
        n = recv(fd, out, size, 0);
    while (n < 0 && errno == EINTR);
    return n;
}

void net_expect(int fd, const void *data, size_t len)
{
    char *got = malloc(len + 1);
    size_t n = 0;

    while (n < len) {
        ssize_t r = receive(fd, got + n, len - n);

        MUST(r > 0);
        n += (size_t)r;
    }
    MUST(memcmp(got, data, len) == 0);
    free(got);
}

size_t net_read_all(int fd, char *out, size_t size)
{
    size_t n = 0;
    ssize_t r;

    while ((r = receive(fd, out + n, size - 1 - n)) > 0)
        n += (size_t)r;
    MUST(r == 0);
    out[n] = '\0';
    return n;
}

static ssize_t read_to_end(int fd)
{
    char bytes[4096];
    ssize_t r;

    while ((r = receive(fd, bytes, sizeof bytes)) > 0)
        ;
    return r;
}

bool net_has_ended(int fd) { return read_to_end(fd) == 0 || errno == ECONNRESET; }

bool net_is_reset(int fd) { return read_to_end(fd) < 0 && errno == ECONNRESET; }

void net_reset(int fd)
{
    const struct linger zero = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof zero);
    close(fd);
}

size_t net_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    MUST(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

void wait_until(bool (*is)(void *ctx), void *ctx)
{
    uint64_t until = clock_ms() + WAIT_MS;

    while (!is(ctx)) {
        MUST(clock_ms() < until);
        poll(NULL, 0, 1);
    }
}
