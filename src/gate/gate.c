/* gate - the thread, its mailbox, listening, start and stop.
 *
 * Other threads reach the gate by letters in a queue; each letter names a connection by number, and
 * one that is gone is nobody's.
 */
#include "gate/inside.h"
#include "gate/tcp.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "wire/status.h"

#define STOP_TICK_MS 5u

/* --- the mailbox --- */

enum letter {
    LETTER_DIAL,
    LETTER_ACCEPT,
    LETTER_REFUSE,
    LETTER_END,
    LETTER_NEWS,
    LETTER_CHECK,
    LETTER_STOP
};

struct mail {
    struct mail *next;
    enum letter letter;
    uint32_t number;
    struct conn *conn;      /* LETTER_DIAL: owned */
    struct gate_news *news; /* LETTER_NEWS: owned */
    uint64_t sent;          /* LETTER_STOP: the grace */
    uint8_t status, reason;
    char text[]; /* the refusal's, or the ipc path */
};

/* Losing one would leave a link that never ends, so memory for it is not an option. */
static struct mail *write_mail(enum letter letter, uint32_t number, const char *text)
{
    size_t len = strlen(text) + 1;
    struct mail *mail = calloc(1, sizeof(*mail) + len);

    if (!mail)
        abort();
    mail->letter = letter;
    mail->number = number;
    memcpy(mail->text, text, len);
    return mail;
}

/* Takes mail. False: nobody reads any more. */
static bool post(struct gate *gate, struct mail *mail)
{
    bool posted;

    mutex_lock(&gate->mail_lock);
    posted = !gate->mailbox.shut && !(mail->letter == LETTER_DIAL && gate->mailbox.no_dial);
    if (mail->letter == LETTER_STOP)
        gate->mailbox.no_dial = true;
    if (posted) {
        *gate->mailbox.last = mail;
        gate->mailbox.last = &mail->next;
        uv_async_send(&gate->async);
    }
    mutex_unlock(&gate->mail_lock);
    if (!posted)
        free(mail);
    return posted;
}

int64_t gate_dial(struct gate *gate, const struct gate_target *target)
{
    struct mail *mail;
    struct conn *conn;
    uint32_t number;

    if (target->to.ss_family != AF_INET && target->to.ss_family != AF_INET6)
        return -EAFNOSUPPORT;
    if (strlen(target->ipc_path) >= PATH_MAX_UNIX)
        return -ENAMETOOLONG;
    if (target->preamble.kind != PREAMBLE_RPC && target->preamble.kind != PREAMBLE_LINK)
        return -EINVAL;
    conn = conn_new(gate);
    if (!conn)
        return -ENOBUFS;
    conn->session = session_new(conn, target->ipc_path);
    if (!conn->session) {
        conn_discard(conn);
        return -ENOMEM;
    }
    conn->session->target = *target;
    conn->session->target.ipc_path = NULL;
    conn->session->dialled = conn->owes_ended = true;
    number = conn->number; /* the gate's thread may end it before post returns */
    mail = write_mail(LETTER_DIAL, number, "");
    mail->conn = conn;
    if (!post(gate, mail)) {
        conn_discard(conn);
        return -ESHUTDOWN;
    }
    return number;
}

void gate_accept(struct gate *gate, uint32_t number, const char *ipc_path)
{
    post(gate, write_mail(LETTER_ACCEPT, number, ipc_path));
}

void gate_refuse(struct gate *gate, uint32_t number, uint8_t status, uint8_t reason,
                 const char *text)
{
    struct mail *mail = write_mail(LETTER_REFUSE, number, text);

    mail->status = status;
    mail->reason = reason;
    post(gate, mail);
}

void gate_end(struct gate *gate, uint32_t number, uint64_t sent)
{
    struct mail *mail = write_mail(LETTER_END, number, "");

    mail->sent = sent;
    post(gate, mail);
}

static void give_back(struct gate *gate, struct gate_news *news)
{
    const struct gate_watch_ops *ops = &gate->news.ops;

    ops->picture_drop(ops->ctx, news->picture);
    ops->news_free(ops->ctx, news);
}

void gate_tell(struct gate *gate, struct gate_news *news)
{
    struct mail *mail = write_mail(LETTER_NEWS, 0, "");

    mail->news = news;
    if (!post(gate, mail))
        give_back(gate, news);
}

void gate_check_again(struct gate *gate) { post(gate, write_mail(LETTER_CHECK, 0, "")); }

static void accepted(struct conn *conn, const char *path)
{
    if (conn->role != ROLE_ASKED)
        return;
    conn->session = strlen(path) < PATH_MAX_UNIX ? session_new(conn, path) : NULL;
    if (!conn->session) {
        conn_why(conn, -ENOMEM, "no memory for the link");
        sniff_refuse(conn, STATUS_RESOURCE_EXHAUSTED, 0, "no memory for the link");
        return;
    }
    source_linked(conn);
    conn->session->target.preamble.kind = PREAMBLE_LINK;
    session_join(conn);
}

static void refused(struct conn *conn, const struct mail *mail)
{
    if (conn->role != ROLE_ASKED)
        return;
    conn->why.status = mail->status;
    conn->why.reason = mail->reason;
    snprintf(conn->why.text, sizeof(conn->why.text), "%s", mail->text);
    sniff_refuse(conn, mail->status, mail->reason, mail->text);
}

static void end_asked(struct conn *conn, uint64_t sent)
{
    if (conn->role == ROLE_SESSION)
        session_end(conn, sent);
    else if (conn->role == ROLE_ASKED || conn->role == ROLE_DIAL)
        conn_fail(conn, -ECANCELED, "given up");
}

static void begin_stop(struct gate *gate, uint64_t grace_ms);

static void read_mail(struct gate *gate, struct mail *mail)
{
    struct conn *conn = conn_find(gate, mail->number);

    if (mail->letter == LETTER_STOP) {
        begin_stop(gate, mail->sent);
        return;
    }
    if (mail->letter == LETTER_NEWS) {
        news_tell(gate, mail->news);
        return;
    }
    if (mail->letter == LETTER_CHECK) {
        secure_check(gate);
        return;
    }
    if (!conn)
        return;
    switch (mail->letter) {
    case LETTER_DIAL:
        conn_adopt(conn);
        dial_begin(conn);
        break;
    case LETTER_ACCEPT:
        accepted(conn, mail->text);
        break;
    case LETTER_REFUSE:
        refused(conn, mail);
        break;
    case LETTER_END:
        end_asked(conn, mail->sent);
        break;
    case LETTER_NEWS:
    case LETTER_CHECK:
    case LETTER_STOP:
        break;
    }
}

static void on_mail(uv_async_t *async)
{
    struct gate *gate = CONTAINER_OF(async, struct gate, async);
    struct mail *mail, *next;

    mutex_lock(&gate->mail_lock);
    mail = gate->mailbox.first;
    gate->mailbox.first = NULL;
    gate->mailbox.last = &gate->mailbox.first;
    mutex_unlock(&gate->mail_lock);
    for (; mail; mail = next) {
        next = mail->next;
        read_mail(gate, mail);
        free(mail);
    }
}

/* --- the loop --- */

static void flush_dirty(struct gate *gate)
{
    do {
        while (!ring_empty(&gate->dirty)) {
            struct stream *s = CONTAINER_OF(gate->dirty.next, struct stream, dirty);
            int r;

            ring_drop(&s->dirty);
            r = stream_flush(s);
            s->flushed(s, r);
        }
        lanes_feed(gate);
    } while (!ring_empty(&gate->dirty));
}

static void on_busy(uv_idle_t *busy) {}

/* Everything that this wake-up wants written, and what that makes room for; then handshakes and
 * watchers in small numbers, so that links and calls never wait for all of them. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct gate *gate = CONTAINER_OF(prepare, struct gate, prepare);

    flush_dirty(gate);
    secure_run(gate);
    watchers_run(gate);
    flush_dirty(gate);
    if (ring_empty(&gate->news.ready) && !secure_waits(gate))
        uv_idle_stop(&gate->busy);
    else
        uv_idle_start(&gate->busy, on_busy);
}

static void finish(struct gate *gate)
{
    lanes_close(gate);
    uv_close((uv_handle_t *)&gate->stop_timer, NULL);
    uv_close((uv_handle_t *)&gate->prepare, NULL);
    uv_close((uv_handle_t *)&gate->busy, NULL);
    mutex_lock(&gate->mail_lock);
    gate->mailbox.shut = true;
    uv_close((uv_handle_t *)&gate->async, NULL);
    mutex_unlock(&gate->mail_lock);
}

static void abandon(struct gate *gate)
{
    while (!ring_empty(&gate->conns)) {
        struct conn *conn = CONTAINER_OF(gate->conns.next, struct conn, all);

        if (conn->role == ROLE_SESSION)
            session_abandon(conn);
        else
            conn_fail(conn, -ECANCELED, "the gate stopped");
    }
}

static void on_stop_tick(uv_timer_t *timer)
{
    struct gate *gate = CONTAINER_OF(timer, struct gate, stop_timer);
    uint64_t now = gate_now(gate);
    bool clients = false;

    for (struct ring *at = gate->conns.next; at != &gate->conns; at = at->next)
        clients |= CONTAINER_OF(at, struct conn, all)->role == ROLE_CLIENT;
    /* nng must be able to finish its replies, so the lanes outlive the clients. */
    if (!clients || now >= gate->stop_until_ms - gate->grace_ms / 4)
        lanes_shut(gate);
    if (now >= gate->stop_until_ms)
        abandon(gate);
    if (now >= gate->stop_until_ms || (ring_empty(&gate->conns) && lanes_ended(gate)))
        finish(gate);
}

static void stop_conn(struct conn *conn)
{
    switch (conn->role) {
    case ROLE_SNIFF:
        conn_close(conn);
        break;
    case ROLE_CLIENT:
        client_drain(conn);
        break;
    case ROLE_ASKED:
        conn_why(conn, -ECANCELED, "the gate stops");
        sniff_refuse(conn, STATUS_UNAVAILABLE, MESHD__V1__REASON__REASON_DRAINING,
                     "this node is about to leave");
        break;
    case ROLE_DIAL:
        conn_fail(conn, -ECANCELED, "the gate stops");
        break;
    case ROLE_SESSION:
        session_stop(conn);
        break;
    case ROLE_WATCH:
        watcher_stop(conn);
        break;
    case ROLE_LINGER:
        break;
    }
}

static void begin_stop(struct gate *gate, uint64_t grace_ms)
{
    gate->stopping = true;
    gate->grace_ms = grace_ms;
    gate->stop_until_ms = gate_now(gate) + grace_ms;
    for (unsigned i = 0; i < gate->n_listeners; i++)
        listener_stop(&gate->listeners[i]);
    for (struct ring *at = gate->conns.next, *next; at != &gate->conns; at = next) {
        next = at->next;
        stop_conn(CONTAINER_OF(at, struct conn, all));
    }
    uv_timer_start(&gate->stop_timer, on_stop_tick, 0, STOP_TICK_MS);
}

static void run(void *arg)
{
    struct gate *gate = arg;

    pthread_setname_np(pthread_self(), "gate");
    for (unsigned i = 0; i < gate->n_listeners; i++)
        listener_start(&gate->listeners[i]);
    lanes_start(gate);
    uv_run(&gate->loop, UV_RUN_DEFAULT);
}

/* --- the owner's thread --- */

static void free_tables(struct gate *gate)
{
    free(gate->by_half_open.sources);
    free(gate->by_connections.sources);
    free(gate->table.slots);
    free(gate);
}

int gate_new(const struct gate_settings *settings, struct gate **out_gate)
{
    struct gate *gate;
    uint64_t slots = settings->limits->control_connections;

    if (settings->lanes == 0 || settings->lanes > LANES_MAX ||
        strlen(settings->rep_path) >= PATH_MAX_UNIX)
        return -EINVAL;
    gate = calloc(1, sizeof(*gate));
    if (!gate)
        return -ENOMEM;
    /* Room for as many again that are dialled. */
    while ((UINT64_C(1) << gate->table.bits) < 2 * slots)
        gate->table.bits++;
    gate->table.capacity = UINT32_C(1) << gate->table.bits;
    gate->table.slots = calloc(gate->table.capacity, sizeof(*gate->table.slots));
    gate->by_connections.sources = calloc(slots + 1, sizeof(uint32_t));
    gate->by_half_open.sources = calloc(slots + 1, sizeof(uint32_t));
    if (!gate->table.slots || !gate->by_connections.sources || !gate->by_half_open.sources ||
        uv_loop_init(&gate->loop) < 0) {
        free_tables(gate);
        return -ENOMEM;
    }
    gate->limits = *settings->limits;
    gate->ops = settings->ops;
    gate->n_lanes = settings->lanes;
    gate->first_bytes_ms = settings->first_bytes_ms;
    gate->dial_ms = settings->dial_ms;
    gate->idle_ms = settings->idle_ms;
    memcpy(gate->rep_path, settings->rep_path, strlen(settings->rep_path) + 1);
    ring_init(&gate->dirty);
    ring_init(&gate->ready);
    ring_init(&gate->conns);
    ring_init(&gate->half);
    ring_init(&gate->handshakes);
    ring_init(&gate->pending);
    ring_init(&gate->checks);
    gate->tls = settings->tls;
    news_init(&gate->news, settings->epoch, &settings->watch_ops);
    mutex_init(&gate->table_lock);
    mutex_init(&gate->mail_lock);
    gate->mailbox.last = &gate->mailbox.first;
    gate->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    *out_gate = gate;
    return 0;
}

void gate_set_limits(struct gate *gate, const struct limits *limits)
{
    limits_put(&gate->limits, limits);
}

static struct listener *add_listener(struct gate *gate, int fd)
{
    struct listener *listener = &gate->listeners[gate->n_listeners++];

    *listener = (struct listener){.gate = gate, .fd = fd};
    return listener;
}

int gate_listen_tcp(struct gate *gate, const struct sockaddr *addr, socklen_t len,
                    struct sockaddr_storage *out_bound)
{
    const int on = 1, off = 0;
    struct sockaddr_storage bound = {0};
    socklen_t bound_len = sizeof(bound);
    int fd, r;

    if (gate->n_listeners == LISTENERS_MAX)
        return -ENOBUFS;
    fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    /* "Every address" means v4 as well. */
    if (addr->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    tcp_options(fd); /* what is accepted has them, too */
    if (bind(fd, addr, len) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bound_len) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    add_listener(gate, fd);
    *out_bound = bound;
    return 0;
}

/* A socket file on which nobody answers is a dead process's. */
static int clear_path(const char *path)
{
    struct stat st;
    int fd;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    fd = unix_connect(path);
    if (fd >= 0)
        close(fd);
    if (fd != -ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int gate_listen_unix(struct gate *gate, const char *path, unsigned mode)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct listener *listener;
    struct stat st;
    int fd, r;

    if (gate->n_listeners == LISTENERS_MAX)
        return -ENOBUFS;
    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    r = clear_path(path);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    /* Nobody can connect before listen, so the mode is right from the first moment on. */
    if (chmod(path, mode) < 0 || lstat(path, &st) < 0 || listen(fd, SOMAXCONN) < 0) {
        r = -errno;
        unlink(path);
        close(fd);
        return r;
    }
    listener = add_listener(gate, fd);
    listener->local = true;
    listener->dev = st.st_dev;
    listener->ino = st.st_ino;
    memcpy(listener->path, path, strlen(path) + 1);
    return 0;
}

int gate_start(struct gate *gate)
{
    sigset_t all, old;
    int r = uv_async_init(&gate->loop, &gate->async, on_mail);

    if (r < 0)
        return r;
    uv_prepare_init(&gate->loop, &gate->prepare);
    uv_prepare_start(&gate->prepare, on_prepare);
    uv_timer_init(&gate->loop, &gate->stop_timer);
    uv_idle_init(&gate->loop, &gate->busy);
    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = uv_thread_create(&gate->thread, run, gate);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r < 0) {
        uv_close((uv_handle_t *)&gate->stop_timer, NULL);
        uv_close((uv_handle_t *)&gate->prepare, NULL);
        uv_close((uv_handle_t *)&gate->busy, NULL);
        uv_close((uv_handle_t *)&gate->async, NULL);
        uv_run(&gate->loop, UV_RUN_DEFAULT);
        return r;
    }
    gate->started = true;
    return 0;
}

void gate_stop(struct gate *gate, uint32_t grace_ms)
{
    struct mail *mail;

    if (!gate->started)
        return;
    mail = write_mail(LETTER_STOP, 0, "");
    mail->sent = grace_ms;
    post(gate, mail);
    uv_thread_join(&gate->thread);
    gate->started = false;
}

void gate_free(struct gate *gate)
{
    if (!gate)
        return;
    for (unsigned i = 0; i < gate->n_listeners; i++)
        listener_stop(&gate->listeners[i]);
    for (struct mail *mail = gate->mailbox.first, *next; mail; mail = next) {
        next = mail->next;
        if (mail->letter == LETTER_NEWS)
            give_back(gate, mail->news);
        free(mail);
    }
    news_fini(gate);
    uv_loop_close(&gate->loop);
    if (gate->spare_fd >= 0)
        close(gate->spare_fd);
    mutex_fini(&gate->table_lock);
    mutex_fini(&gate->mail_lock);
    free_tables(gate);
}

void gate_counters(struct gate *gate, struct gate_counters *out_counters)
{
    const uint64_t *from = (const uint64_t *)&gate->count;
    uint64_t *to = (uint64_t *)out_counters;

    for (size_t i = 0; i < sizeof(gate->count) / sizeof(*from); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
