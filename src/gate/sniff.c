/* sniff - accepting, and the first bytes: what a connection is, or that it is nothing of ours.
 *
 * A byte that cannot become anything known closes the connection at once; nothing waits for more
 * bytes than the decision needs, and all of it has one deadline from accept. Where there is TLS,
 * what is sniffed is what came through it.
 */
#include "gate/inside.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "wire/status.h"

#define ACCEPTS_PER_EVENT 64

/* --- accepting --- */

static void welcome(struct listener *listener, int fd, const struct sockaddr_storage *from)
{
    struct gate *gate = listener->gate;
    struct conn *conn = NULL;

    COUNT(gate, accepted, 1);
    if (gate->count.connections < gate->limits.control_connections)
        conn = conn_new(gate);
    if (!conn) {
        COUNT(gate, closed_over_connections, 1);
        close(fd);
        return;
    }
    if (listener->local) {
        struct ucred cred = {.uid = (uid_t)-1};
        socklen_t len = sizeof(cred);

        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
        mutex_lock(&gate->table_lock);
        conn->peer.local = true;
        conn->peer.uid = cred.uid;
        mutex_unlock(&gate->table_lock);
    } else {
        if (source_take(gate, conn, from) < 0) {
            COUNT(gate, closed_over_source, 1);
            conn_discard(conn);
            close(fd);
            return;
        }
        conn_name(conn, from);
    }
    conn_adopt(conn);
    stream_take(&conn->net, fd, listener->local ? SP_IPC : SP_TCP);
    stream_read(&conn->net, true);
    conn_timer(conn, gate->first_bytes_ms);
    /* Who has something to say has mostly said it, and DATA is not watched here at all then. */
    sniff_readable(conn);
    if (!conn->dead && conn->role == ROLE_SNIFF && half_open(conn) < 0) {
        COUNT(gate, closed_over_half_open, 1);
        conn_close(conn);
    }
    if (!conn->dead && stream_watch(&conn->net) < 0)
        conn_close(conn);
}

/* Without a descriptor the connection would stay in the queue and wake the loop for ever. False:
 * there is none, which the kernel does not say as long as there is no descriptor. */
static bool turn_away(struct listener *listener)
{
    struct gate *gate = listener->gate;
    int fd;

    if (gate->spare_fd >= 0)
        close(gate->spare_fd);
    fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        COUNT(gate, closed_no_descriptor, 1);
        close(fd);
    }
    gate->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0;
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = CONTAINER_OF(poll, struct listener, poll);

    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof(from);
        int fd =
            accept4(listener->fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            welcome(listener, fd, &from);
        } else if (errno == EMFILE || errno == ENFILE) {
            if (!turn_away(listener))
                return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

int listener_start(struct listener *listener)
{
    int r = uv_poll_init(&listener->gate->loop, &listener->poll, listener->fd);

    if (r < 0)
        return r;
    listener->polled = true;
    return uv_poll_start(&listener->poll, UV_READABLE, on_listener);
}

void listener_stop(struct listener *listener)
{
    struct stat st;

    if (listener->fd < 0)
        return;
    if (listener->polled)
        uv_close((uv_handle_t *)&listener->poll, NULL);
    listener->polled = false;
    if (listener->path[0] != '\0' && lstat(listener->path, &st) == 0 &&
        st.st_dev == listener->dev && st.st_ino == listener->ino)
        unlink(listener->path);
    close(listener->fd);
    listener->fd = -1;
}

/* --- first bytes --- */

void sniff_answer(struct conn *conn, uint8_t status, uint8_t reason, const char *text)
{
    struct preamble_reply reply = {.version = PREAMBLE_VERSION, .status = status, .reason = reason};
    uint8_t bytes[PREAMBLE_REPLY_MAX];

    snprintf(reply.text, sizeof(reply.text), "%s", text);
    if (stream_bytes(&conn->net, bytes, preamble_reply_pack(&reply, bytes)) < 0)
        conn_fail(conn, -ENOBUFS, "over gate_buffer_bytes");
}

void sniff_refuse(struct conn *conn, uint8_t status, uint8_t reason, const char *text)
{
    sniff_answer(conn, status, reason, text);
    if (!conn->dead)
        conn_linger(conn, LINGER_MS);
}

static void unknown(struct conn *conn)
{
    COUNT(conn->gate, closed_bad_first_bytes, 1);
    conn_close(conn);
}

static void begin_client(struct conn *conn, const struct view *view, size_t consumed)
{
    if (client_begin(conn, view, consumed) < 0) {
        COUNT(conn->gate, closed_over_buffers, 1);
        conn_close(conn);
    }
}

/* 0 once it was decided, -EAGAIN: more bytes are needed, -EBADMSG. */
static int try_sp(struct conn *conn, const struct view *view)
{
    uint8_t hello[SP_HELLO_LEN];
    uint16_t protocol;

    sp_hello_pack(SP_REQ0, hello);
    if (view->len < SP_HELLO_LEN)
        return memcmp(view->data, hello, view->len) == 0 ? -EAGAIN : -EBADMSG;
    if (sp_hello_parse(view->data, &protocol) < 0 || protocol != SP_REQ0)
        return -EBADMSG;
    sp_hello_pack(SP_REP0, hello);
    if (stream_bytes(&conn->net, hello, sizeof(hello)) < 0)
        return -EBADMSG;
    begin_client(conn, view, SP_HELLO_LEN);
    return 0;
}

static void ask_link(struct conn *conn, const struct preamble *preamble)
{
    struct gate *gate = conn->gate;
    struct gate_peer peer = conn->peer;

    conn_become(conn, ROLE_ASKED);
    conn->owes_ended = true;
    stream_read(&conn->net, false);
    conn_timer(conn, LINK_ANSWER_MS);
    gate->ops.link_asked(gate->ops.ctx, conn->number, &peer, preamble);
}

/* The loop lets go of the descriptor first: another thread may read it, or close it, before this
 * returns. What of the session's bytes was not read is still in it. */
static void hand_over(struct conn *conn, const struct preamble *preamble, const struct view *view,
                      size_t consumed)
{
    struct gate *gate = conn->gate;
    struct gate_peer peer;
    struct tls *tls;
    const char *text = "";
    int status, fd;

    conn_name_peer(conn, preamble->peer_id);
    peer = conn->peer;
    fd = stream_lift(&conn->net, &tls);
    status = gate->ops.data(gate->ops.ctx, fd, tls, &peer, preamble, view->data + consumed,
                            view->len - consumed, &text);
    buffer_clear(gate, &conn->net.in);
    if (status == STATUS_OK) {
        COUNT(gate, data_handed, 1);
        conn_close(conn);
        return;
    }
    COUNT(gate, data_refused, 1);
    stream_take(&conn->net, fd, SP_TCP);
    conn->net.tls = tls;
    if (stream_watch(&conn->net) < 0)
        conn_close(conn);
    else
        sniff_refuse(conn, (uint8_t)status, MESHD__V1__REASON__REASON_TOKEN, text);
}

static int try_preamble(struct conn *conn, const struct view *view)
{
    struct preamble preamble = {0};
    int n = preamble_parse(view->data, view->len, &preamble);
    char text[64];

    if (n == -EPROTONOSUPPORT) {
        COUNT(conn->gate, closed_bad_first_bytes, 1);
        snprintf(text, sizeof(text), "preamble version %u is spoken here", PREAMBLE_VERSION);
        sniff_refuse(conn, STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION,
                     text);
        return 0;
    }
    if (n < 0)
        return n;
    if (conn->peer.local && preamble.kind != PREAMBLE_WATCH)
        return -EBADMSG; /* no peer comes this way */
    if (preamble.peer_id[0] != '\0' && !secure_proves(conn, preamble.peer_id))
        return 0;
    switch (preamble.kind) {
    case PREAMBLE_RPC:
        conn_name_peer(conn, preamble.peer_id);
        sniff_answer(conn, STATUS_OK, 0, "");
        if (!conn->dead)
            begin_client(conn, view, (size_t)n);
        return 0;
    case PREAMBLE_LINK:
        conn_name_peer(conn, preamble.peer_id);
        if (stream_keep(&conn->net, view, (size_t)n) < 0)
            return -EBADMSG;
        ask_link(conn, &preamble);
        return 0;
    case PREAMBLE_WATCH:
        if (!conn->gate->news.ops.picture_part)
            break;
        watcher_begin(conn, view, (size_t)n);
        return 0;
    case PREAMBLE_DATA:
        if (!conn->gate->ops.data)
            break;
        hand_over(conn, &preamble, view, (size_t)n);
        return 0;
    }
    sniff_refuse(conn, STATUS_UNIMPLEMENTED, 0, "this kind of connection is not served here");
    return 0;
}

static int decide(struct conn *conn, const struct view *view)
{
    if (view->data[0] == 'M')
        return try_preamble(conn, view);
    return try_sp(conn, view);
}

void sniff_readable(struct conn *conn)
{
    struct view view;
    ssize_t n;
    int r;

    if (conn->gate->tls && !conn->peer.local && !conn->net.tls) {
        secure_first(conn);
        return;
    }
    n = stream_fill(&conn->net, SNIFF_BYTES, &view);
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        /* A probe that says nothing is no offence. */
        if (buffer_used(&conn->net.in) > 0)
            COUNT(conn->gate, closed_bad_first_bytes, 1);
        conn_close(conn);
        return;
    }
    r = decide(conn, &view);
    if (r == -EBADMSG)
        unknown(conn);
    else if (r == -EAGAIN && view.scratch && stream_keep(&conn->net, &view, 0) < 0)
        unknown(conn);
}
