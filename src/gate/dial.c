/* dial - one attempt to reach a peer's gate: connect, with TLS shake hands, say the preamble, hear
 * its answer, join.
 *
 * Repeating it, and how soon, is decided by who asked: each attempt ends in `up` or in `ended`.
 */
#include "gate/inside.h"
#include <errno.h>
#include <string.h>
#include "gate/tcp.h"

void dial_begin(struct conn *conn)
{
    struct gate *gate = conn->gate;
    int fd, r;

    COUNT(gate, dialled, 1);
    conn->role = ROLE_DIAL;
    conn_name(conn, &conn->session->target.to);
    fd = tcp_dial(&conn->session->target.to, &conn->session->target.from);
    if (fd >= 0)
        tcp_options(fd);
    r = fd < 0 ? fd : stream_open(&conn->net, fd, SP_TCP);
    if (r < 0) {
        conn_fail(conn, r, strerrordesc_np(-r));
        return;
    }
    conn->net.connecting = conn->net.blocked = true;
    stream_read(&conn->net, false); /* puts it under the loop */
    conn_timer(conn, gate->dial_ms);
}

void dial_connected(struct conn *conn)
{
    struct stream *net = &conn->net;
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(net->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error == 0 && tcp_met_itself(net->fd))
        error = ECONNREFUSED;
    if (error != 0) {
        conn_fail(conn, -error, strerrordesc_np(error));
        return;
    }
    net->connecting = net->blocked = false;
    stream_read(net, true);
    if (conn->gate->tls)
        secure_dial(conn);
    else
        dial_say(conn);
}

void dial_say(struct conn *conn)
{
    uint8_t bytes[PREAMBLE_MAX];
    size_t len = preamble_pack(&conn->session->target.preamble, bytes);

    if (stream_bytes(&conn->net, bytes, len) < 0)
        conn_fail(conn, -ENOBUFS, "over gate_buffer_bytes");
}

void dial_readable(struct conn *conn)
{
    struct preamble_reply reply = {0};
    struct view view;
    ssize_t n = stream_fill(&conn->net, SNIFF_BYTES, &view);
    int r;

    if (n == -EAGAIN)
        return;
    if (n == -EPROTO && conn->net.tls) { /* an alert, or what is no TLS any more */
        secure_fail(conn, (int)n);
        return;
    }
    if (n <= 0) {
        conn_fail(conn, n == 0 ? -ECONNRESET : (int)n, "closed without an answer to the preamble");
        return;
    }
    r = preamble_reply_parse(view.data, view.len, &reply);
    if (r == -EAGAIN) {
        if (view.scratch && stream_keep(&conn->net, &view, 0) < 0)
            conn_fail(conn, -ENOBUFS, "over gate_buffer_bytes");
        return;
    }
    if (r < 0) {
        conn_fail(conn, -EPROTO,
                  r == -EPROTONOSUPPORT ? "it speaks another preamble version"
                                        : "no meshd answers there");
        return;
    }
    if (reply.status != 0) {
        conn->why = (struct gate_end){.status = reply.status, .reason = reply.reason};
        memcpy(conn->why.text, reply.text, sizeof(conn->why.text));
        conn_close(conn);
        return;
    }
    if (stream_keep(&conn->net, &view, (size_t)r) < 0) {
        conn_fail(conn, -ENOBUFS, "over gate_buffer_bytes");
        return;
    }
    session_join(conn);
}
