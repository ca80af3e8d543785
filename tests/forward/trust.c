#include "forward/trust.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/net.h"
#include "gate/tcp.h"
#include "tls/support.h"

#define NODES_MAX 16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { /* with the lock */
    struct issued *ca, *certs[NODES_MAX];
    struct tls_keeper *keepers[NODES_MAX];
    char ids[NODES_MAX][32];
    const char *crl; /* empty at first */
    size_t n;
} made;

bool trust_wanted(void)
{
    const char *wanted = getenv("MESHD_TEST_TLS");

    return wanted && *wanted;
}

bool trust_splices_to(const char *which)
{
    return !trust_wanted() || (trust_wanted_of(which) && kernel_has_tls());
}

bool trust_wanted_of(const char *which)
{
    return trust_wanted() && strcmp(getenv("MESHD_TEST_TLS"), which) == 0;
}

/* ---- certificates ---- */

static struct tls_keeper *make_locked(const char *peer_id)
{
    struct tls_settings settings;
    size_t i = made.n++;

    MUST(i < NODES_MAX && strlen(peer_id) < sizeof made.ids[i]);
    if (!made.ca) {
        made.ca = issue_ca(NULL, "mesh");
        made.crl = write_crl("crl", false, made.ca, DAY, NULL);
    }
    strcpy(made.ids[i], peer_id);
    made.certs[i] = issue_node(made.ca, peer_id);
    settings = node_settings(peer_id, made.ca, made.certs[i]);
    settings.crl = made.crl;
    settings.self = peer_id;
    settings.offload = strcmp(peer_id, "bare") != 0;
    made.keepers[i] = keep(&settings);
    return made.keepers[i];
}

struct tls_keeper *trust_keeper(const char *peer_id)
{
    struct tls_keeper *keeper = NULL;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < made.n && !keeper; i++)
        if (strcmp(made.ids[i], peer_id) == 0)
            keeper = made.keepers[i];
    if (!keeper)
        keeper = make_locked(peer_id);
    pthread_mutex_unlock(&lock);
    return keeper;
}

void trust_revoke(const char *peer_id)
{
    char why[TLS_WHY];

    trust_keeper(peer_id);
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < made.n; i++)
        if (strcmp(made.ids[i], peer_id) == 0)
            write_crl("crl", false, made.ca, DAY, made.certs[i], NULL);
    for (size_t i = 0; i < made.n; i++)
        MUST(tls_keeper_reload(made.keepers[i], why) == 0);
    pthread_mutex_unlock(&lock);
}

/* ---- handshakes ---- */

static short poll_events(int wants)
{
    return (short)((wants & TLS_READABLE ? POLLIN : 0) | (wants & TLS_WRITABLE ? POLLOUT : 0));
}

static struct tls *new_tls(const char *peer_id, enum tls_role role, int fd)
{
    struct tls *tls;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    MUST(tls_new(trust_keeper(peer_id), role, fd, "", false, &tls) == 0);
    return tls;
}

static int shake(struct tls *tls, int fd)
{
    int r;

    while ((r = tls_handshake(tls)) == -EAGAIN) {
        struct pollfd one = {.fd = fd, .events = poll_events(tls_wants(tls))};

        if (poll(&one, 1, WAIT_MS) != 1)
            return -ETIMEDOUT;
    }
    return r;
}

struct tls *trust_shake(const char *peer_id, enum tls_role role, int fd)
{
    struct tls *tls = new_tls(peer_id, role, fd);

    if (shake(tls, fd) == 0)
        return tls;
    tls_free(tls);
    return NULL;
}

/* ---- wrappers ---- */

enum state { GOES_ON, ENDS, ENDED };

struct way { /* of bytes in one direction */
    uint8_t bytes[16384];
    size_t at, n;
    enum state state;
};
struct wrap {
    int plain, fd;
    struct tls *tls;
    struct way out, in; /* into TLS, and out of it */
    short events;       /* on fd, that it waits for */
};
static atomic_int wraps;

static bool holds(const struct way *way) { return way->at < way->n; }

/* A number of bytes that were read. False: broken. *moved: something has come about. */
static bool take(struct way *way, ssize_t n, bool *moved)
{
    if (n == -EAGAIN)
        return true;
    *moved = true;
    if (n == 0)
        way->state = ENDS;
    else if (n > 0) {
        way->at = 0;
        way->n = (size_t)n;
    }
    return n >= 0;
}

static bool give(struct way *way, ssize_t n, bool *moved)
{
    if (n > 0) {
        way->at += (size_t)n;
        *moved = true;
    }
    return n > 0 || n == -EAGAIN;
}

static ssize_t or_errno(ssize_t n) { return n < 0 ? -errno : n; }

/* Each is called only while its direction can go on. */
static bool step_out(struct wrap *w, bool *moved)
{
    struct way *way = &w->out;
    int r;

    if (holds(way)) {
        if (!give(way, tls_write(w->tls, way->bytes + way->at, way->n - way->at), moved))
            return false;
        if (holds(way))
            w->events |= poll_events(tls_wants(w->tls));
    } else if (way->state == GOES_ON) {
        return take(way, or_errno(recv(w->plain, way->bytes, sizeof way->bytes, MSG_DONTWAIT)),
                    moved);
    } else if (way->state == ENDS) {
        r = tls_end(w->tls);
        if (r == -EAGAIN) {
            w->events |= poll_events(tls_wants(w->tls));
            return true;
        }
        way->state = ENDED;
        *moved = true;
        shutdown(w->fd, SHUT_WR);
        return r == 0;
    }
    return true;
}

static bool step_in(struct wrap *w, bool *moved)
{
    struct way *way = &w->in;

    if (holds(way)) {
        return give(way,
                    or_errno(send(w->plain, way->bytes + way->at, way->n - way->at,
                                  MSG_DONTWAIT | MSG_NOSIGNAL)),
                    moved);
    } else if (way->state == GOES_ON) {
        ssize_t n = tls_read(w->tls, way->bytes, sizeof way->bytes);

        if (n == -EAGAIN)
            w->events |= poll_events(tls_wants(w->tls));
        return take(way, n, moved);
    } else if (way->state == ENDS) {
        way->state = ENDED;
        *moved = true;
        shutdown(w->plain, SHUT_WR);
    }
    return true;
}

/* False: nothing comes any more. */
static bool wait_for_more(struct wrap *w)
{
    struct pollfd fds[2] = {{.fd = w->plain}, {.fd = w->fd, .events = w->events}};

    if (!holds(&w->out) && w->out.state == GOES_ON)
        fds[0].events |= POLLIN;
    if (holds(&w->in))
        fds[0].events |= POLLOUT;
    for (int i = 0; i < 2; i++)
        if (fds[i].events == 0)
            fds[i].events = POLLRDHUP; /* an RST is told then, too */
    if (poll(fds, 2, -1) <= 0)
        return false;
    /* An end that waits behind what is held is told all the time. */
    if (!(fds[0].revents & fds[0].events & ~POLLRDHUP) &&
        !(fds[1].revents & fds[1].events & ~POLLRDHUP)) {
        if ((fds[0].revents | fds[1].revents) & POLLERR)
            return false;
        poll(NULL, 0, 1);
    }
    return true;
}

static bool pass(struct wrap *w)
{
    if (shake(w->tls, w->fd) < 0)
        return false;
    while (w->out.state != ENDED || w->in.state != ENDED) {
        bool moved = false, out, in;

        w->events = 0;
        out = step_out(w, &moved);
        in = step_in(w, &moved);
        if (!out || !in || (!moved && !wait_for_more(w)))
            return false;
    }
    return true;
}

static void *play_wrap(void *arg)
{
    struct wrap *w = arg;
    bool in_order = pass(w);

    tls_free(w->tls);
    if (in_order) {
        close(w->plain);
        close(w->fd);
    } else {
        net_reset(w->plain);
        net_reset(w->fd);
    }
    free(w);
    atomic_fetch_sub(&wraps, 1);
    return NULL;
}

/* Before it connects: a window that was offered is not taken back. */
static void set_buffers(int fd, int bytes)
{
    if (bytes == 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

int trust_wrap(const char *peer_id, enum tls_role role, int fd, int buffer)
{
    struct wrap *w = calloc(1, sizeof *w);
    struct sockaddr_in at;
    int listener = net_listen_at(&at), plain;
    pthread_t thread;

    MUST(w);
    plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_buffers(listener, buffer); /* inherited */
    set_buffers(plain, buffer);
    MUST(connect(plain, (struct sockaddr *)&at, sizeof at) == 0);
    w->plain = net_accept(listener);
    close(listener);
    net_set_timeouts(plain);
    tcp_options(w->plain);
    tcp_options(fd);
    w->fd = fd;
    w->tls = new_tls(peer_id, role, fd);
    atomic_fetch_add(&wraps, 1);
    MUST(pthread_create(&thread, NULL, play_wrap, w) == 0);
    pthread_detach(thread);
    return plain;
}

static bool none_is_left(void *arg) { return atomic_load(&wraps) == 0; }

void trust_unwrapped(void) { wait_until(none_is_left, NULL); }
