/* server - connections and their deadlines; libmicrohttpd under the loop; the listener.
 *
 * libmicrohttpd 0.9.75 reads a head that arrival.c has looked at, and writes the answer; it has no
 * thread, its epoll descriptor is one that the loop polls. Deadlines are ours: its own are about
 * silence, and a byte now and then would do. A connection that it has is ended by shutting it down:
 * epoll says so, and libmicrohttpd closes it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "web/inside.h"
#include "web/progress.h"
#include "web/readers.h"

#define BACKLOG 1024 /* a burst of strangers: what does not fit is tried again a second later */
#define TICK_MS 500u
/* Of libmicrohttpd, per connection. Half of it reads, which is to be all of a head; the other half
 * is for a record of 56 bytes for each of HEAD_RECORDS, and cookies once more. So it never lacks
 * room, which it would say in its own way. Then it is for parts of the answer. */
#define POOL_BYTES 81920u

#define COUNT(web, field) atomic_fetch_add(&(web)->counters.field, 1)

/* ---- a connection ---- */

void conn_state(struct conn *conn, enum conn_state state)
{
    struct progress seen = progress_of(conn->fd);

    conn->state = state;
    conn->since_ms = conn->taken_ms = clock_ms();
    conn->taken = seen.taken;
}

void conn_free(struct conn *conn)
{
    ring_drop(&conn->ring);
    if (!conn->cut)
        arrival_uncount(conn);
    atomic_fetch_sub(&conn->web->counters.connections, 1);
    spares_close(&conn->web->spares, conn->fd);
    free(conn);
}

void conn_cut(struct conn *conn)
{
    struct linger none = {.l_onoff = 1};

    if (conn->cut)
        return;
    conn->cut = true;
    arrival_uncount(conn);
    if (conn->state != CONN_HEAD) /* what it has not taken is not kept for it */
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    if (!conn->mhd) {
        arrival_end(conn);
        return;
    }
    shutdown(conn->fd, SHUT_RDWR);
    if (conn->exchange) /* libmicrohttpd looks away while it is suspended */
        exchange_cut(conn->exchange);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct web *web = cls;
    struct conn *conn = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        conn = *context = TAKE(&web->adding);
        conn->mhd = mhd;
    } else {
        arrival_leave(conn);
    }
}

/* ---- deadlines ---- */

/* Whoever is being answered takes nothing, or takes for ever. A follower may stay, also one that
 * sends no more, as `nc -N` does: one that has gone looks the same until the next beat, to which
 * its side answers with a reset. But until it has all there is, it keeps an old picture. */
static bool is_over(struct conn *conn, const struct progress *seen, uint64_t now)
{
    const struct stream *stream = conn->exchange ? conn->exchange->stream : NULL;

    if (seen->taken != conn->taken || !seen->untaken) {
        conn->taken = seen->taken;
        conn->taken_ms = now;
    }
    if (now - conn->taken_ms >= conn->web->times.unread)
        return true;
    if (stream && stream->asleep)
        return false;
    return now - (stream ? stream->since_ms : conn->since_ms) >= conn->web->times.answer;
}

static void look_at(struct conn *conn, uint64_t now)
{
    struct progress seen = progress_of(conn->fd);
    struct web *web = conn->web;
    uint64_t waited = now - conn->since_ms;

    if (conn->state == CONN_ASKED) /* that has a time of its own */
        return;
    if (now - conn->arrived_ms >= web->times.head && (conn->spare || conn->state == CONN_HEAD)) {
        COUNT(web, closed_late);
        conn_cut(conn);
    } else if (conn->state == CONN_HEAD) {
        arrival_look_again(conn);
    } else if (conn->state == CONN_LEAVING && !seen.untaken) {
        if (seen.half_closed || waited >= web->times.leave)
            arrival_end(conn);
    } else if (is_over(conn, &seen, now)) {
        COUNT(web, closed_unread);
        conn_cut(conn);
    }
}

static void on_tick(uv_timer_t *tick)
{
    struct web *web = tick->data;
    uint64_t now = clock_ms();

    for (struct ring *r = web->conns.next; r != &web->conns; r = r->next) {
        struct conn *conn = CONTAINER_OF(r, struct conn, ring);

        if (!conn->cut)
            look_at(conn, now);
    }
    ask_tick(web, now);
    /* What limits.admin_per_source is beside. */
    atomic_store(&web->counters.largest_source, arrival_largest_source(web));
    spares_fill(&web->spares);
    if (ring_empty(&web->conns) && web->spares.n == SPARES)
        uv_timer_stop(tick);
}

/* ---- the loop ---- */

static void on_again(uv_timer_t *again) { server_turn(again->data); }

static void on_busy(uv_idle_t *busy) { server_turn(busy->data); }

/* A timer of 0 ms that starts itself would keep the loop from anything else: it does not look at
 * the time, nor at descriptors, until no timer is due. */
static void turn_soon(struct web *web)
{
    if (!uv_is_closing((uv_handle_t *)&web->busy))
        uv_idle_start(&web->busy, on_busy);
}

void conn_resume(struct conn *conn)
{
    MHD_resume_connection(conn->mhd);
    turn_soon(conn->web);
}

void server_turn(struct web *web)
{
    MHD_UNSIGNED_LONG_LONG ms;

    uv_idle_stop(&web->busy);
    MHD_run(web->mhd);
    spares_fill(&web->spares); /* it may have closed some */
    if (MHD_get_timeout(web->mhd, &ms) != MHD_YES)
        return;
    if (ms)
        uv_timer_start(&web->again, on_again, ms, 0);
    else
        turn_soon(web);
}

static void on_serving(uv_poll_t *poll, int status, int events) { server_turn(poll->data); }

static int start_mhd(struct web *web)
{
    web->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        exchange_handle, web, MHD_OPTION_NOTIFY_CONNECTION, on_connection, web,
        MHD_OPTION_NOTIFY_COMPLETED, exchange_completed, web, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)POOL_BYTES, MHD_OPTION_CONNECTION_LIMIT, UINT_MAX, /* ours is */
        /* Stricter, it answers who names no Host itself, in no words of ours and in two heads. */
        MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    return web->mhd ? 0 : -ENOMEM;
}

int server_init(struct web *web)
{
    int r = start_mhd(web);

    if (r == 0)
        r = spares_init(&web->spares);
    if (r == 0)
        r = uv_timer_init(&web->loop, &web->again);
    if (r == 0)
        r = uv_idle_init(&web->loop, &web->busy);
    if (r == 0)
        r = uv_timer_init(&web->loop, &web->pause);
    if (r == 0)
        r = uv_timer_init(&web->loop, &web->tick);
    if (r == 0) {
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(web->mhd, MHD_DAEMON_INFO_EPOLL_FD);

        r = uv_poll_init(&web->loop, &web->serving, info->epoll_fd);
    }
    if (r == 0 && web->listener >= 0)
        r = uv_poll_init(&web->loop, &web->accepting, web->listener);
    web->again.data = web->busy.data = web->pause.data = web->tick.data = web;
    web->serving.data = web->accepting.data = web;
    if (r == 0)
        r = uv_timer_start(&web->tick, on_tick, TICK_MS, TICK_MS);
    if (r == 0)
        r = uv_poll_start(&web->serving, UV_READABLE, on_serving);
    if (r == 0 && web->listener >= 0)
        r = arrival_begin(web);
    return r;
}

void server_close(struct web *web)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&web->again,   (uv_handle_t *)&web->busy,
                              (uv_handle_t *)&web->pause,   (uv_handle_t *)&web->tick,
                              (uv_handle_t *)&web->serving, (uv_handle_t *)&web->accepting};

    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
        if (handles[i]->loop)
            uv_close(handles[i], NULL);
    /* It must not find anybody suspended. */
    for (struct ring *r = web->conns.next; r != &web->conns; r = r->next)
        conn_cut(CONTAINER_OF(r, struct conn, ring));
    if (web->mhd)
        MHD_stop_daemon(web->mhd);
    web->mhd = NULL;
    if (web->readers)
        readers_close(web->readers);
}

/* ---- listening ---- */

static int text_of(int fd, struct web *web, char *out, size_t size)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    char ip[INET6_ADDRSTRLEN];

    if (getsockname(fd, (struct sockaddr *)&bound, &len) < 0)
        return -errno;
    if (bound.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&bound;

        web->loopback = ntohl(v4->sin_addr.s_addr) >> 24 == 127;
        inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof ip);
        snprintf(out, size, "%s:%u", ip, ntohs(v4->sin_port));
    } else {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&bound;

        web->loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
        inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof ip);
        snprintf(out, size, "[%s]:%u", ip, ntohs(v6->sin6_port));
    }
    return 0;
}

static int listen_at(const struct sockaddr *addr, socklen_t len, int *out_fd)
{
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, off = 0, r = 0;

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (addr->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, addr, len) < 0 || listen(fd, BACKLOG) < 0)
        r = -errno;
    if (r < 0)
        close(fd);
    else
        *out_fd = fd;
    return r;
}

int web_listen(struct web *web, const char *host, uint16_t port, char *out_text, size_t size)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int r = -EAFNOSUPPORT;

    if (!*host || inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        r = listen_at((const struct sockaddr *)&v6, sizeof v6, &web->listener);
        if (r < 0 && (*host || (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)))
            return r;
    } else if (inet_pton(AF_INET, host, &v4.sin_addr) != 1) {
        return -EINVAL;
    }
    if (r < 0)
        r = listen_at((const struct sockaddr *)&v4, sizeof v4, &web->listener);
    return r < 0 ? r : text_of(web->listener, web, out_text, size);
}
