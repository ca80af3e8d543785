/* leg - sockets under the worker's epoll, and the bytes that go through them.
 *
 * Where a leg has a TLS session, its owner does not notice: what it wants of the leg is asked of
 * the socket as the session needs it, which may want to write before it can read. What waits inside
 * the session makes no event: such a leg is told in the next turn.
 */
#include "forward/worker.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/tls.h"

#define HELD_MS 2u
#define RECORD_BYTES 16384u /* that one record holds at most, RFC 8446 5.1 */
#define RECORDS_AT_ONCE 64u /* read at most, however small they are: each costs the same */
#define IN_ORDER 1          /* leg->ended */

/* ---- what is wanted ---- */

static uint32_t epoll_events(int wants)
{
    return (wants & UV_READABLE ? EPOLLIN : 0u) | (wants & UV_WRITABLE ? EPOLLOUT : 0u) |
           (wants & UV_DISCONNECT ? EPOLLRDHUP : 0u) | (wants & UV_PRIORITIZED ? EPOLLPRI : 0u);
}

static int uv_events(uint32_t events)
{
    return (events & EPOLLIN ? UV_READABLE : 0) | (events & EPOLLOUT ? UV_WRITABLE : 0) |
           (events & EPOLLRDHUP ? UV_DISCONNECT : 0) | (events & EPOLLPRI ? UV_PRIORITIZED : 0);
}

/* Of the socket, so that the leg can do what is wanted of it. */
static int needed(const struct leg *leg, int wants)
{
    int needs = wants & ~(UV_READABLE | UV_WRITABLE);

    if (wants & UV_READABLE)
        needs |= leg->read_needs;
    if (wants & UV_WRITABLE)
        needs |= leg->write_needs;
    /* Where something is read its end is waited for, too, in turn. */
    return needs & UV_READABLE ? needs | UV_DISCONNECT : needs;
}

/* What the leg can do of what is wanted, after that happened to the socket. */
static int enabled(const struct leg *leg, int happened)
{
    int can = happened & leg->wants & ~(UV_READABLE | UV_WRITABLE);

    if (leg->wants & UV_READABLE && happened & leg->read_needs)
        can |= UV_READABLE;
    if (leg->wants & UV_WRITABLE && happened & leg->write_needs)
        can |= UV_WRITABLE;
    return can;
}

/* on: a close is an RST, and what was not delivered is lost. */
static void linger(int fd, bool on)
{
    const struct linger zero = {.l_onoff = on, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero));
}

struct leg *leg_new(struct worker *worker, int fd)
{
    struct leg *leg = calloc(1, sizeof(*leg));

    if (!leg) {
        linger(fd, true);
        close(fd);
        return NULL;
    }
    leg->worker = worker;
    leg->fd = fd;
    leg->read_needs = UV_READABLE;
    leg->write_needs = UV_WRITABLE;
    ring_init(&leg->held);
    return leg;
}

void leg_secure(struct leg *leg, struct tls *tls, bool known)
{
    leg->tls = tls;
    leg->more = known;
}

void leg_hold(struct leg *leg)
{
    leg->held_ms = worker_now(leg->worker);
    ring_drop(&leg->held);
    ring_push(&leg->worker->legs.held, &leg->held);
}

/* Set again, TCP_NODELAY sends what is held, tcp(7). */
static void let_go(struct leg *leg)
{
    const int on = 1;

    if (ring_empty(&leg->held))
        return;
    ring_drop(&leg->held);
    setsockopt(leg->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void legs_let_go(struct worker *worker)
{
    struct ring *held = &worker->legs.held;

    while (!ring_empty(held)) {
        struct leg *leg = CONTAINER_OF(held->next, struct leg, held);

        if (worker_now(worker) < leg->held_ms + HELD_MS) {
            worker_soon(worker);
            return;
        }
        let_go(leg);
    }
}

static void tell_soon(struct leg *leg)
{
    if (leg->listed)
        return;
    leg->listed = true;
    leg->next = leg->worker->legs.listed;
    leg->worker->legs.listed = leg;
}

/* The kernel has no memory for it, or max_user_watches are reached, epoll(7). A leg that is never
 * told anything would hang for ever, so it breaks: an RST to the other end, and an error for who
 * reads or writes, where a shutdown would be an end in order. */
static void deafen(struct leg *leg)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};

    epoll_ctl(leg->worker->legs.epoll, EPOLL_CTL_DEL, leg->fd, NULL);
    if (!leg->listens && connect(leg->fd, &none, sizeof(none)) < 0)
        shutdown(leg->fd, SHUT_RDWR);
    leg->deaf = true;
    leg->watched = 0;
    tell_soon(leg);
}

static void watch(struct leg *leg, int wants)
{
    struct epoll_event event = {.data.ptr = leg};
    int needs = needed(leg, wants);
    int op = leg->watched == 0 ? EPOLL_CTL_ADD : needs == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

    if (leg->deaf) {
        if (wants)
            tell_soon(leg);
        return;
    }
    if (needs == leg->watched)
        return;
    event.events = epoll_events(needs);
    leg->watched = needs;
    if (epoll_ctl(leg->worker->legs.epoll, op, leg->fd, &event) < 0)
        deafen(leg);
}

bool leg_has_more(const struct leg *leg)
{
    return leg->tls && (leg->ended || (leg->more && tls_pending(leg->tls)));
}

/* What is wanted no more is watched until it comes about: most of it never does, or is wanted again
 * before. */
void leg_want(struct leg *leg, int wants)
{
    leg->worker->legs.n += (size_t)(wants != 0) - (size_t)(leg->wants != 0);
    leg->wants = wants;
    if (needed(leg, wants) & ~leg->watched)
        watch(leg, wants);
    if (wants & UV_READABLE && leg_has_more(leg))
        tell_soon(leg);
}

static void tell(struct leg *leg, uint32_t events)
{
    int happened = uv_events(events), told = enabled(leg, happened);

    if (leg->fd < 0)
        return; /* closed since, by what was told of another */
    if (events & EPOLLERR) {
        /* It would be told for ever, whatever is wanted: not before something is wanted anew. */
        told = leg->wants;
        leg_want(leg, 0);
        watch(leg, 0);
    } else if (events & EPOLLHUP && told == 0) {
        told = leg->wants;
    }
    if (told & UV_READABLE)
        told |= happened & UV_DISCONNECT;
    if (told)
        leg->ready(leg, told);
    else
        watch(leg, leg->wants);
}

void legs_tell(struct worker *worker, const struct epoll_event *events, int n)
{
    for (int i = 0; i < n; i++)
        if (events[i].data.ptr)
            tell(events[i].data.ptr, events[i].events);
}

void legs_tell_listed(struct worker *worker)
{
    struct leg *leg = worker->legs.listed, *next;

    worker->legs.listed = NULL;
    for (; leg; leg = next) {
        int told = leg->wants;

        next = leg->next;
        leg->listed = false;
        if (leg->fd < 0) {
            free(leg); /* closed since */
            continue;
        }
        if (leg->deaf)
            leg_want(leg, 0);
        else if (told & UV_READABLE && leg_has_more(leg))
            told = UV_READABLE;
        else
            told = 0;
        if (told)
            leg->ready(leg, told);
    }
}

/* ---- bytes ---- */

/* What the session waits for now, which has just said that it must. */
static int waits_for(const struct leg *leg, int usual)
{
    int wants = tls_wants(leg->tls);
    int needs = (wants & TLS_READABLE ? UV_READABLE : 0) | (wants & TLS_WRITABLE ? UV_WRITABLE : 0);

    return needs ? needs : usual;
}

int leg_handshake(struct leg *leg)
{
    int r = tls_handshake(leg->tls);

    leg->read_needs = r == -EAGAIN ? waits_for(leg, UV_READABLE) : UV_READABLE;
    leg->more = r == 0;
    return r;
}

/* As many records as there is room for. After one that is not full there is none, mostly, and the
 * socket is not asked for it. */
static ssize_t recv_tls(struct leg *leg, uint8_t *data, size_t len)
{
    unsigned records = 0;
    size_t got = 0;
    ssize_t n;

    if (leg->ended)
        return leg->ended == IN_ORDER ? 0 : leg->ended;
    do {
        n = tls_read(leg->tls, data + got, len - got);
        if (n > 0)
            got += (size_t)n;
    } while (n > 0 && got < len && ++records < RECORDS_AT_ONCE &&
             ((size_t)n >= RECORD_BYTES || tls_pending(leg->tls)));
    leg->read_needs = n == -EAGAIN ? waits_for(leg, UV_READABLE) : UV_READABLE;
    leg->more = n > 0; /* the buffer, or the count, was at its end: there may be */
    if (n == 0)
        leg->ended = IN_ORDER;
    else if (n < 0 && n != -EAGAIN)
        leg->ended = (int)n;
    return got > 0 ? (ssize_t)got : n;
}

ssize_t leg_recv(struct leg *leg, void *data, size_t len)
{
    ssize_t n;

    if (leg->tls)
        return leg->deaf ? -ECONNRESET : recv_tls(leg, data, len);
    n = recv(leg->fd, data, len, MSG_DONTWAIT);
    return n < 0 ? -errno : n;
}

static ssize_t send_tls(struct leg *leg, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    ssize_t n;

    do {
        n = tls_write(leg->tls, data + taken, len - taken);
        if (n > 0)
            taken += (size_t)n;
    } while (n > 0 && taken < len);
    leg->write_needs = n == -EAGAIN ? waits_for(leg, UV_WRITABLE) : UV_WRITABLE;
    return taken > 0 ? (ssize_t)taken : n;
}

ssize_t leg_send(struct leg *leg, const void *data, size_t len, bool held)
{
    ssize_t n;

    if (leg->tls)
        return leg->deaf ? -ECONNRESET : send_tls(leg, data, len);
    n = send(leg->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL | (held ? MSG_MORE : 0));
    if (n < 0)
        return -errno;
    if (held)
        leg_hold(leg);
    else
        leg_sent(leg);
    return n;
}

int leg_end(struct leg *leg, bool closing)
{
    int r = 0;

    if (leg->tls)
        r = leg->deaf ? -ECONNRESET : tls_end(leg->tls);
    if (leg->tls)
        leg->write_needs = r == -EAGAIN ? waits_for(leg, UV_WRITABLE) : UV_WRITABLE;
    if (r == 0 && !closing) {
        shutdown(leg->fd, SHUT_WR);
        leg_sent(leg);
    }
    return r;
}

/* ---- ends ---- */

void leg_fragile(struct leg *leg)
{
    if (!leg->fragile)
        linger(leg->fd, true);
    leg->fragile = true;
}

/* While another process has the descriptor too, as between fork and exec, closing it here does not
 * take it out of the epoll, epoll(7). */
static void shut(struct leg *leg)
{
    watch(leg, 0);
    close(leg->fd);
}

static void leg_drop(struct leg *leg)
{
    struct worker *worker = leg->worker;

    tls_free(TAKE(&leg->tls));
    leg->fd = -1;
    ring_drop(&leg->held);
    if (leg->wants)
        worker->legs.n--;
    leg->wants = 0;
    if (leg->listed)
        return; /* freed there */
    if (worker->legs.telling) {
        leg->next = worker->legs.gone;
        worker->legs.gone = leg;
    } else {
        free(leg);
    }
}

int leg_detach(struct leg *leg, struct tls **out_tls)
{
    int fd = leg->fd;

    if (out_tls)
        *out_tls = TAKE(&leg->tls);
    let_go(leg);
    watch(leg, 0);
    leg_drop(leg);
    return fd;
}

void leg_close(struct leg *leg)
{
    if (!leg)
        return;
    if (leg->fragile)
        linger(leg->fd, false);
    shut(leg);
    leg_drop(leg);
}

void leg_reset(struct leg *leg)
{
    if (!leg)
        return;
    let_go(leg);
    leg_fragile(leg);
    shut(leg);
    leg_drop(leg);
}

int leg_error(const struct leg *leg)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(leg->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return -errno;
    return -error;
}

/* ---- bytes that wait ---- */

bool bytes_copy(struct bytes *bytes, const void *data, size_t len)
{
    *bytes = (struct bytes){0};
    if (len == 0)
        return true;
    bytes->data = malloc(len);
    if (!bytes->data)
        return false;
    memcpy(bytes->data, data, len);
    bytes->len = len;
    return true;
}
