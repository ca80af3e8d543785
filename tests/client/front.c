/* front - see front.h. */
#include "client/front.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NEED(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            perror(#what);                                                                         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct way { /* what is on its way in one direction */
    uint8_t bytes[65536];
    size_t at, len;
};

static short events_of(int wants)
{
    return (short)((wants & TLS_READABLE ? POLLIN : 0) | (wants & TLS_WRITABLE ? POLLOUT : 0));
}

static void wait_for(int fd, short events)
{
    struct pollfd at = {.fd = fd, .events = events};

    poll(&at, 1, -1);
}

/* Small records are to leave at once. */
static void no_delay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static bool let_in(struct front *front, int fd, struct tls *tls)
{
    int r;

    while ((r = tls_handshake(tls)) == -EAGAIN)
        wait_for(fd, events_of(tls_wants(tls)));
    atomic_fetch_add(r == 0 ? &front->let_in : &front->refused, 1);
    if (r < 0)
        return false;
    mutex_lock(&front->lock);
    strcpy(front->held.fingerprint, tls_peer(tls)->fingerprint);
    mutex_unlock(&front->lock);
    return true;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    NEED(fd >= 0);
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    no_delay(fd);
    return fd;
}

/* All that can be carried now in one direction; what to wait for goes to net and inner. False: that
 * is the end. */
static bool carry_in(struct front *front, struct tls *tls, int back, struct way *way, short *net,
                     short *inner)
{
    for (;;) {
        ssize_t n;

        if (way->len == 0) {
            n = tls_read(tls, way->bytes, sizeof(way->bytes));
            if (n == 0)
                atomic_fetch_add(&front->ended, 1);
            if (n <= 0) {
                *net |= events_of(tls_wants(tls));
                return n == -EAGAIN;
            }
            way->at = 0;
            way->len = (size_t)n;
        }
        n = send(back, way->bytes + way->at, way->len, MSG_NOSIGNAL);
        if (n < 0) {
            *inner |= POLLOUT;
            return errno == EAGAIN;
        }
        way->at += (size_t)n;
        way->len -= (size_t)n;
    }
}

static bool carry_out(struct front *front, struct tls *tls, int back, struct way *way, short *net,
                      short *inner)
{
    for (;;) {
        ssize_t n;

        if (way->len == 0) {
            n = recv(back, way->bytes, sizeof(way->bytes), 0);
            if (n <= 0) {
                *inner |= POLLIN;
                return n < 0 && errno == EAGAIN;
            }
            way->at = 0;
            way->len = (size_t)n;
        }
        n = tls_write(tls, way->bytes + way->at,
                      front->step && front->step < way->len ? front->step : way->len);
        if (n < 0) {
            *net |= events_of(tls_wants(tls));
            return n == -EAGAIN;
        }
        atomic_fetch_add(&front->sent, (size_t)n);
        way->at += (size_t)n;
        way->len -= (size_t)n;
    }
}

static void carry(struct front *front, int fd, struct tls *tls)
{
    int back = connect_to(front->to);
    struct way *in = calloc(1, sizeof(*in)), *out = calloc(1, sizeof(*out));

    NEED(in && out);
    while (back >= 0) {
        struct pollfd at[2] = {{.fd = fd}, {.fd = back}};

        if (!carry_in(front, tls, back, in, &at[0].events, &at[1].events) ||
            !carry_out(front, tls, back, out, &at[0].events, &at[1].events))
            break;
        poll(at, 2, -1);
    }
    tls_end(tls);
    if (back >= 0)
        close(back);
    free(in);
    free(out);
}

static void *run_one(void *arg)
{
    struct front_conn *conn = arg;
    struct tls *tls;

    no_delay(conn->fd);
    NEED(tls_new(conn->front->keeper, TLS_ACCEPT, conn->fd, "", false, &tls) == 0);
    if (let_in(conn->front, conn->fd, tls))
        carry(conn->front, conn->fd, tls);
    shutdown(conn->fd, SHUT_RDWR); /* front_stop closes it, so that its number is not used again */
    tls_free(tls);
    return NULL;
}

static void *run(void *arg)
{
    struct front *front = arg;

    for (;;) {
        int fd = accept4(front->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct front_conn *conn;

        if (fd < 0)
            return NULL; /* front_stop shut it */
        mutex_lock(&front->lock);
        NEED(front->held.n < FRONT_MANY);
        conn = &front->held.conns[front->held.n];
        conn->front = front;
        conn->fd = fd;
        NEED(pthread_create(&conn->thread, NULL, run_one, conn) == 0);
        front->held.n++;
        mutex_unlock(&front->lock);
    }
}

void front_start(struct front *front, const struct tls_settings *settings, uint16_t to)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char why[TLS_WHY] = "";
    socklen_t len = sizeof(at);

    memset(front, 0, sizeof(*front));
    signal(SIGPIPE, SIG_DFL); /* the library is to do without */
    mutex_init(&front->lock);
    front->to = to;
    if (tls_keeper_new(settings, why, &front->keeper) < 0) {
        fprintf(stderr, "front: %s\n", why);
        abort();
    }
    NEED((front->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
    NEED(bind(front->fd, (struct sockaddr *)&at, len) == 0);
    NEED(listen(front->fd, 64) == 0);
    NEED(getsockname(front->fd, (struct sockaddr *)&at, &len) == 0);
    snprintf(front->url, sizeof(front->url), "tls://127.0.0.1:%u", (unsigned)ntohs(at.sin_port));
    NEED(pthread_create(&front->thread, NULL, run, front) == 0);
}

void front_cut(struct front *front)
{
    mutex_lock(&front->lock);
    for (size_t i = 0; i < front->held.n; i++)
        shutdown(front->held.conns[i].fd, SHUT_RDWR);
    mutex_unlock(&front->lock);
}

void front_stop(struct front *front)
{
    shutdown(front->fd, SHUT_RDWR);
    pthread_join(front->thread, NULL);
    front_cut(front);
    for (size_t i = 0; i < front->held.n; i++) {
        pthread_join(front->held.conns[i].thread, NULL);
        close(front->held.conns[i].fd);
    }
    close(front->fd);
    tls_keeper_free(front->keeper);
    mutex_fini(&front->lock);
}

void front_fingerprint(struct front *front, char out_fingerprint[65])
{
    mutex_lock(&front->lock);
    strcpy(out_fingerprint, front->held.fingerprint);
    mutex_unlock(&front->lock);
}
