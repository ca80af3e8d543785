/* arrival - from accept to a whole head, which is looked at in the kernel's buffer; then
 * libmicrohttpd has the connection, or whoever has sent it is told why not; and its leaving.
 *
 * libmicrohttpd answers what it does not like in its own way (head.h), and after an answer it reads
 * on by itself: so a connection carries one request, and it parses nothing that was not looked at
 * before. It closes as soon as the kernel has the answer, so it has a descriptor of its own: the
 * connection is kept, and counted, until the other side has the answer too. Whom to accept is
 * decided here: its own limit is by exact address, and at it nobody is accepted, so that whoever
 * says nothing keeps all others out.
 */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uthash.h>
#include "base/hash.h"
#include "base/origin.h"
#include "web/head.h"
#include "web/inside.h"
#include "web/progress.h"

#define ACCEPTS_AT_ONCE 16
#define PAUSE_MS 100u /* no descriptors: until the next look */
/* In the kernel and not sent yet, of one connection; it would take megabytes. */
#define UNSENT_BYTES 131072

/* ---- limits ---- */

struct source { /* an address with connections */
    UT_hash_handle hh;
    struct in6_addr ip;
    uint64_t n, followers;
};

/* One connection more. NULL: no memory. */
static struct source *source_join(struct web *web, const struct in6_addr *ip)
{
    struct source *source;

    HASH_FIND(hh, web->sources, ip, sizeof *ip, source);
    if (!source) {
        source = calloc(1, sizeof *source);
        if (!source)
            return NULL;
        source->ip = *ip;
        HASH_ADD(hh, web->sources, ip, sizeof source->ip, source);
        if (!source->hh.tbl) {
            free(source);
            return NULL;
        }
    }
    source->n++;
    return source;
}

static void source_leave(struct web *web, struct source *source)
{
    if (--source->n > 0)
        return;
    HASH_DEL(web->sources, source);
    free(source);
}

/* A quarter of its places, one at least, nobody has for long. */
uint64_t arrival_may_follow(uint64_t limit) { return limit - (limit + 3) / 4; }

bool arrival_follow(struct conn *conn)
{
    if (conn->source->followers >= arrival_may_follow(conn->web->limits.admin_per_source))
        return false;
    conn->source->followers++;
    conn->follows = true;
    return true;
}

void arrival_unfollow(struct conn *conn)
{
    if (conn->follows)
        conn->source->followers--;
    conn->follows = false;
}

void arrival_uncount(struct conn *conn)
{
    arrival_unfollow(conn);
    conn->web->n_conns--;
    source_leave(conn->web, TAKE(&conn->source));
}

uint64_t arrival_largest_source(struct web *web)
{
    uint64_t most = 0;

    for (struct source *source = web->sources; source; source = source->hh.next)
        most = source->n > most ? source->n : most;
    return most;
}

/* Who sends no request, or has had the answer: of source, NULL: of any. Among them are those that
 * have not taken all of it yet, if it may be lost. */
static struct conn *oldest_waiting(struct web *web, const struct source *source, bool may_be_lost)
{
    for (struct ring *r = web->conns.next; r != &web->conns; r = r->next) {
        struct conn *conn = CONTAINER_OF(r, struct conn, ring);

        if ((conn->state != CONN_HEAD && conn->state != CONN_LEAVING) || conn->cut ||
            (source && conn->source != source))
            continue;
        if (may_be_lost || conn->state == CONN_HEAD || !progress_of(conn->fd).untaken)
            return conn;
    }
    return NULL;
}

/* At a limit whoever has said least goes for who comes; nobody does if all are being answered. */
static bool make_room(struct web *web, const struct source *source)
{
    struct conn *oldest;

    if (source->n > web->limits.admin_per_source)
        oldest = oldest_waiting(web, source, true);
    else if (web->n_conns >= web->limits.admin_connections)
        oldest = oldest_waiting(web, NULL, true);
    else
        return true;
    atomic_fetch_add(&web->counters.closed_over_limit, 1);
    if (oldest)
        conn_cut(oldest);
    return oldest != NULL;
}

static struct in6_addr source_of(const struct sockaddr_storage *from)
{
    struct in6_addr ip = {0};

    if (from->ss_family == AF_INET6) {
        ip = ((const struct sockaddr_in6 *)from)->sin6_addr;
    } else {
        ip.s6_addr[10] = ip.s6_addr[11] = 0xff;
        memcpy(ip.s6_addr + 12, &((const struct sockaddr_in *)from)->sin_addr, 4);
    }
    return origin_of(&ip);
}

/* ---- the end of its arrival ---- */

/* Its address is of no use to libmicrohttpd: what it would limit by it is limited above. */
static void hand_over(struct conn *conn)
{
    static const struct sockaddr_in6 anybody = {.sin6_family = AF_INET6};
    struct web *web = conn->web;
    int theirs = conn->theirs;

    conn->whole = false;
    conn->theirs = -1;
    web->adding = conn;
    MHD_add_connection(web->mhd, theirs, (const struct sockaddr *)&anybody, sizeof anybody);
    if (web->adding) /* it was not taken, and theirs is closed */
        conn_free(TAKE(&web->adding));
    server_turn(web);
}

static void on_end(uv_handle_t *handle)
{
    struct conn *conn = handle->data;

    if (conn->whole && !conn->cut) {
        hand_over(conn);
        return;
    }
    if (conn->theirs >= 0)
        spares_close(&conn->web->spares, conn->theirs);
    conn_free(conn);
}

void arrival_end(struct conn *conn)
{
    if (!uv_is_closing((uv_handle_t *)&conn->poll))
        uv_close((uv_handle_t *)&conn->poll, on_end);
}

/* It is told of when there are more than so many bytes. */
static void wait_for_more(struct conn *conn, size_t than)
{
    int least = (int)than + 1;

    setsockopt(conn->fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
}

/* ---- leaving ---- */

/* Until it ends the connection too, or in times.leave after it has all: if it were closed with
 * bytes that have not been read, the answer might be thrown away over there (RFC 9112 9.6). */
static void leave(struct conn *conn)
{
    shutdown(conn->fd, SHUT_WR);
    wait_for_more(conn, 0);
    conn_state(conn, CONN_LEAVING);
}

void arrival_leave(struct conn *conn)
{
    conn->mhd = NULL;
    if (conn->cut || uv_poll_init(&conn->web->loop, &conn->poll, conn->fd) < 0) {
        conn_free(conn);
        return;
    }
    leave(conn);
    arrival_look_again(conn);
}

static void refuse(struct conn *conn, const struct head_error *error, bool head_only)
{
    atomic_fetch_add(&conn->web->counters.requests, 1);
    if (error->status != MHD_HTTP_SERVICE_UNAVAILABLE)
        atomic_fetch_add(&conn->web->counters.refused, 1);
    reply_refusal(conn->fd, error->status, error->text, head_only);
    leave(conn);
}

/* ---- a head ---- */

static void take(struct conn *conn)
{
    static const struct head_error none = {MHD_HTTP_SERVICE_UNAVAILABLE,
                                           "no descriptor for the answer; try again later"};

    if (conn->theirs < 0)
        conn->theirs = fcntl(conn->fd, F_DUPFD_CLOEXEC, 0);
    if (conn->theirs < 0) {
        conn->theirs = spares_dup(&conn->web->spares, conn->fd);
        conn->spare = conn->theirs >= 0;
    }
    if (conn->theirs < 0) {
        atomic_fetch_add(&conn->web->counters.closed_no_descriptor, 1);
        refuse(conn, &none, false);
        return;
    }
    conn->whole = true;
    wait_for_more(conn, 0);
    arrival_end(conn);
}

static void look(struct conn *conn, const char *head, size_t n, bool ended)
{
    size_t len = head_length(head, n, &conn->seen);
    struct head_error error;

    if (len && head_take(head, len, conn->web->loopback, &error)) {
        take(conn);
    } else if (len || head_hopeless(head, n, ended, &error)) {
        refuse(conn, &error, head_is_head(head, n));
    } else if (n == conn->peeked) {
        /* In pieces so small that they fill the kernel's buffer, which then says so all the time.
         */
        uv_poll_stop(&conn->poll);
    } else {
        conn->peeked = n;
        wait_for_more(conn, n);
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct conn *conn = poll->data;
    char bytes[HEAD_BYTES + 1];
    ssize_t n = recv(conn->fd, bytes, sizeof bytes, conn->state == CONN_HEAD ? MSG_PEEK : 0);

    if (status == 0 && n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 0 && conn->state == CONN_LEAVING && progress_of(conn->fd).untaken)
        uv_poll_stop(poll); /* it has the answer still to read */
    else if (status < 0 || n <= 0)
        arrival_end(conn);
    else if (conn->state == CONN_HEAD)
        look(conn, bytes, (size_t)n, events & UV_DISCONNECT);
}

void arrival_look_again(struct conn *conn)
{
    if (!conn->mhd && !uv_is_closing((uv_handle_t *)&conn->poll))
        uv_poll_start(&conn->poll, UV_READABLE | UV_DISCONNECT, on_readable);
}

/* ---- accepting ---- */

/* Takes fd, theirs (-1: none) and its place in source if it returns 0. -ECONNREFUSED: no room. */
static int add(struct web *web, int fd, int theirs, struct source *source)
{
    const int unsent = UNSENT_BYTES;
    struct conn *conn;
    int r;

    if (!make_room(web, source))
        return -ECONNREFUSED;
    conn = calloc(1, sizeof *conn);
    if (!conn)
        return -ENOMEM;
    r = uv_poll_init(&web->loop, &conn->poll, fd);
    if (r < 0) {
        free(conn);
        return r;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    conn->web = web;
    conn->fd = fd;
    conn->theirs = theirs;
    conn->spare = theirs >= 0;
    conn->source = source;
    conn->poll.data = conn;
    ring_init(&conn->ring);
    ring_push(&web->conns, &conn->ring);
    web->n_conns++;
    atomic_fetch_add(&web->counters.connections, 1);
    conn_state(conn, CONN_HEAD);
    conn->arrived_ms = conn->since_ms;
    arrival_look_again(conn);
    if (!uv_is_active((uv_handle_t *)&web->tick))
        uv_timer_again(&web->tick);
    return 0;
}

/* Takes fd. With descriptors that were held back it has both of its own from the start: whoever is
 * accepted can be answered. */
static void arrive(struct web *web, int fd, const struct sockaddr_storage *from, bool spare)
{
    const struct in6_addr ip = source_of(from);
    struct source *source = source_join(web, &ip);
    int theirs = spare ? spares_dup(&web->spares, fd) : -1;

    if (source && add(web, fd, theirs, source) == 0)
        return;
    if (source)
        source_leave(web, source);
    if (theirs >= 0)
        spares_close(&web->spares, theirs);
    spares_close(&web->spares, fd);
}

static void on_pause(uv_timer_t *pause) { arrival_begin(pause->data); }

/* Whoever has said least goes, and leaves two; one at a time, for it takes a turn of the loop. */
static bool make_spare(struct web *web)
{
    struct conn *oldest = oldest_waiting(web, NULL, false);

    if (!oldest)
        return false;
    atomic_fetch_add(&web->counters.closed_no_descriptor, 1);
    conn_cut(oldest);
    return true;
}

/* There are no descriptors. 0: one more is here; -EMFILE: nor are there any held back. */
static int accept_with_spare(struct web *web)
{
    struct sockaddr_storage from = {0};
    socklen_t len = sizeof from;
    int fd;

    spares_fill(&web->spares);
    if (web->spares.n < SPARES_A_REQUEST)
        return -EMFILE;
    fd = spares_accept(&web->spares, web->listener, (struct sockaddr *)&from, &len);
    if (fd < 0)
        return -errno;
    arrive(web, fd, &from, true);
    return 0;
}

static void pause_accepting(struct web *web)
{
    uv_poll_stop(&web->accepting); /* it would be told again at once */
    uv_timer_start(&web->pause, on_pause, PAUSE_MS, 0);
}

static void on_accepting(uv_poll_t *poll, int status, int events)
{
    struct web *web = poll->data;

    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof from;
        int r, fd = accept4(web->listener, (struct sockaddr *)&from, &len,
                            SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            arrive(web, fd, &from, false);
        } else if (errno == EMFILE || errno == ENFILE) {
            r = accept_with_spare(web);
            if (r == 0)
                continue;
            /* Without a descriptor the kernel does not say whether anybody else waits; the first
             * does, for the loop says so. */
            if (r == -EMFILE && i == 0 && !make_spare(web))
                pause_accepting(web);
            break;
        } else if (errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(web);
            break;
        } else if (errno == EAGAIN) {
            break;
        }
    }
}

int arrival_begin(struct web *web)
{
    return uv_poll_start(&web->accepting, UV_READABLE, on_accepting);
}
