/* bridge - see bridge.h. */
#include "gate/bridge.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "gate/support.h"

struct way { /* one direction */
    uint8_t data[16384];
    size_t at, len;
    bool over; /* nothing more comes */
    bool said; /* ... which the other side was told */
};

struct bridge {
    struct tls *tls;
    int net, app;
    struct way in, out; /* in: from the network */
    bool broken;
};

static atomic_int n_bridges;
static int n_users;
static int stop[2]; /* a pipe; its end ends all of them */

static bool is_again(ssize_t n) { return n == -EAGAIN || n == -EINTR; }

static void read_in(struct bridge *b)
{
    ssize_t n;

    if (b->in.over || b->in.len > 0)
        return;
    n = tls_read(b->tls, b->in.data, sizeof(b->in.data));
    if (n > 0)
        b->in.len = (size_t)n;
    else if (n == 0)
        b->in.over = true;
    else
        b->broken = b->broken || !is_again(n);
}

static void write_in(struct bridge *b)
{
    ssize_t n;

    while (b->in.at < b->in.len) {
        n = send(b->app, b->in.data + b->in.at, b->in.len - b->in.at, MSG_NOSIGNAL);
        if (n < 0) {
            b->broken = b->broken || !is_again(-errno);
            return;
        }
        b->in.at += (size_t)n;
    }
    b->in.at = b->in.len = 0;
    if (b->in.over && !b->in.said) {
        b->in.said = true;
        shutdown(b->app, SHUT_WR);
    }
}

static void read_out(struct bridge *b)
{
    ssize_t n;

    if (b->out.over || b->out.len > 0)
        return;
    n = recv(b->app, b->out.data, sizeof(b->out.data), 0);
    if (n > 0)
        b->out.len = (size_t)n;
    else if (n == 0)
        b->out.over = true;
    else
        b->broken = b->broken || !is_again(-errno);
}

static void write_out(struct bridge *b)
{
    ssize_t n;

    while (b->out.at < b->out.len) {
        n = tls_write(b->tls, b->out.data + b->out.at, b->out.len - b->out.at);
        if (n < 0) {
            /* What came before is still read. */
            if (!is_again(n))
                b->out.over = b->out.said = true;
            return;
        }
        b->out.at += (size_t)n;
    }
    b->out.at = b->out.len = 0;
    if (b->out.over && !b->out.said && tls_end(b->tls) != -EAGAIN) {
        b->out.said = true;
        shutdown(b->net, SHUT_WR);
    }
}

static void wait_for(struct bridge *b)
{
    struct pollfd fds[3] = {{.fd = b->net}, {.fd = b->app}, {.fd = stop[0]}};

    if (!b->in.over && b->in.len == 0)
        fds[0].events |= POLLIN;
    if (b->out.len > 0 || (b->out.over && !b->out.said))
        fds[0].events |= POLLOUT;
    if (!b->out.over && b->out.len == 0)
        fds[1].events |= POLLIN;
    if (b->in.len > 0)
        fds[1].events |= POLLOUT;
    for (int i = 0; i < 2; i++)
        if (fds[i].events == 0)
            fds[i].fd = -1;
    if (fds[0].events & POLLIN && tls_pending(b->tls))
        return;
    poll(fds, 3, -1);
    b->broken = b->broken || fds[2].revents;
}

static void run(struct bridge *b)
{
    int r;

    while ((r = tls_handshake(b->tls)) == -EAGAIN) {
        struct pollfd fds[2] = {
            {.fd = b->net, .events = tls_wants(b->tls) & TLS_WRITABLE ? POLLOUT : POLLIN},
            {.fd = stop[0]}};

        poll(fds, 2, -1);
        if (fds[1].revents)
            break;
    }
    b->broken = r < 0;
    while (!b->broken) {
        read_in(b);
        write_in(b);
        read_out(b);
        write_out(b);
        if (b->broken || (b->in.said && b->out.said))
            break;
        wait_for(b);
    }
}

static void *bridge_main(void *arg)
{
    struct bridge *b = arg;

    run(b);
    tls_free(b->tls);
    if (b->broken) {
        reset_and_close(b->net);
        reset_and_close(b->app);
    } else {
        close(b->net);
        close(b->app);
    }
    free(b);
    atomic_fetch_sub(&n_bridges, 1);
    return NULL;
}

/* TCP, and not a socketpair: a reset must pass. */
static void tcp_pair(int out_fd[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    const int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) < 0)
        abort();
    out_fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(out_fd[0], (struct sockaddr *)&at, len) < 0)
        abort();
    out_fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    for (int i = 0; i < 2; i++)
        setsockopt(out_fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int bridge(struct tls_keeper *keeper, int fd)
{
    struct bridge *b = calloc(1, sizeof(*b));
    pthread_t thread;
    int pair[2];

    tcp_pair(pair);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    b->net = fd;
    b->app = pair[1];
    if (tls_new(keeper, TLS_CONNECT, fd, "", false, &b->tls) < 0)
        abort();
    atomic_fetch_add(&n_bridges, 1);
    if (pthread_create(&thread, NULL, bridge_main, b) != 0)
        abort();
    pthread_detach(thread);
    return pair[0];
}

struct tls_keeper *keeper_of(const char *name, const struct issued *ca, const char *names)
{
    struct issued *own = issue(ca, &(struct wanted){.names = names});
    struct tls_settings settings = node_settings(name, ca, own);

    return keep(&settings);
}

void bridges_start(void)
{
    if (n_users++ == 0 && pipe2(stop, O_CLOEXEC) < 0)
        abort();
}

void bridges_stop(void)
{
    if (--n_users > 0)
        return;
    close(stop[1]);
    while (atomic_load(&n_bridges) > 0)
        nap();
    close(stop[0]);
}
