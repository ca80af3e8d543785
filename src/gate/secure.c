/* secure - TLS on the gate's connections: the first byte, handshakes, who is there, and whether
 * they would still be let in when the material has changed.
 *
 * A handshake costs about a millisecond of CPU, and anybody may begin one. So an event only puts a
 * connection in the queue; a few are taken from it in each turn of the loop, after what links,
 * calls and clients had to say was read and written. The same holds for looking again at everybody.
 */
#include "gate/inside.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "wire/status.h"

#define HANDSHAKE 0x16     /* the record type that a session begins with (RFC 8446 5.1) */
#define STEPS_PER_TURN 16u /* of handshakes; and so many checks */
#define TURN_NS 4000000u

/* --- how it begins --- */

static void begin(struct conn *conn, enum tls_role role, const char *expect)
{
    struct tls *tls;
    int r = tls_new(conn->gate->tls, role, conn->net.fd, expect, false, &tls);

    if (r < 0)
        conn_fail(conn, r, "no memory for a TLS session");
    else
        stream_secure(&conn->net, tls);
}

void secure_first(struct conn *conn)
{
    uint8_t first;
    ssize_t n = recv(conn->net.fd, &first, 1, MSG_PEEK);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 1 && first == HANDSHAKE) {
        begin(conn, TLS_ACCEPT, "");
        return;
    }
    if (n == 1)
        COUNT(conn->gate, closed_plaintext, 1);
    conn_close(conn);
}

void secure_dial(struct conn *conn) { begin(conn, TLS_CONNECT, conn->session->target.expect); }

/* --- how it ends --- */

static void not_let_in(struct conn *conn, const char *text)
{
    if (!conn_why(conn, -EACCES, text))
        return;
    conn->why.status = STATUS_PERMISSION_DENIED;
    conn->why.reason = MESHD__V1__REASON__REASON_IDENTITY;
}

void secure_fail(struct conn *conn, int error)
{
    enum tls_failure failure = tls_failure(conn->net.tls);

    if (failure == TLS_OK) /* cut off */
        failure = TLS_BROKEN;
    COUNT(conn->gate, tls_failed[failure], 1);
    if (error == -EACCES || failure == TLS_REFUSED)
        not_let_in(conn, stream_why(&conn->net));
    if (error == -EACCES && conn->role == ROLE_SNIFF) {
        /* It may have said more already, and the alert must not be destroyed by a reset. */
        stream_plain(&conn->net);
        conn_linger(conn, LINGER_MS);
        return;
    }
    conn_fail(conn, error, stream_why(&conn->net));
}

bool secure_proves(struct conn *conn, const char *peer_id)
{
    const struct gate_peer *peer = &conn->peer;
    char text[LIMIT_STATUS_TEXT + 1];

    if (gate_peer_proves(peer, peer_id))
        return true;
    COUNT(conn->gate, tls_failed[TLS_IDENTITY], 1);
    snprintf(text, sizeof(text), "its certificate names %s, not %s",
             peer->names[0][0] ? peer->names[0] : "no peer", peer_id);
    sniff_refuse(conn, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_IDENTITY, text);
    return false;
}

/* --- once more --- */

/* A session is ended as one that was lost; what came from there is not believed any more. */
static void out_again(struct conn *conn, enum tls_failure failure)
{
    const char *text = failure == TLS_REVOKED ? "its certificate was revoked"
                       : failure == TLS_UNTRUSTED
                           ? "its certificate is of no CA that is trusted any more"
                           : "its certificate would not be let in any more";

    COUNT(conn->gate, tls_revoked, 1);
    not_let_in(conn, text);
    if (conn->role == ROLE_SESSION) {
        buffer_clear(conn->gate, &conn->net.in);
        session_net_lost(conn, -EACCES, text);
    } else if (conn->role == ROLE_ASKED) {
        sniff_refuse(conn, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_IDENTITY, text);
    } else {
        conn_close(conn);
    }
}

static void check(struct conn *conn)
{
    enum tls_failure failure = TLS_OK; /* as it stays where nobody knows */

    if (conn->role == ROLE_LINGER)
        return;
    if (conn->net.tls && tls_check_again(conn->net.tls, &failure) < 0)
        out_again(conn, failure);
    else if (conn->role == ROLE_WATCH)
        watcher_check(conn);
}

/* A handshake that has begun goes on with what there was then: it is looked at when it is done. */
void secure_check(struct gate *gate)
{
    for (struct ring *at = gate->conns.next; at != &gate->conns; at = at->next) {
        struct conn *conn = CONTAINER_OF(at, struct conn, all);

        if (!conn->net.tls && conn->role != ROLE_WATCH)
            continue;
        if (conn->net.handshaking) {
            conn->check_first = true;
        } else {
            ring_drop(&conn->check);
            ring_push(&gate->checks, &conn->check);
        }
    }
}

/* --- a handshake --- */

static void name(struct conn *conn)
{
    const struct tls_peer *peer = tls_peer(conn->net.tls);

    COUNT(conn->gate, tls_handshakes, 1);
    if (peer->resumed)
        COUNT(conn->gate, tls_resumed, 1);
    mutex_lock(&conn->gate->table_lock);
    conn->peer.secure = true;
    memcpy(conn->peer.names, peer->names, sizeof(conn->peer.names));
    mutex_unlock(&conn->gate->table_lock);
}

static void step(struct conn *conn)
{
    int r = tls_handshake(conn->net.tls);

    if (r == -EAGAIN) {
        stream_waits(&conn->net);
        return;
    }
    if (r < 0) {
        secure_fail(conn, r);
        return;
    }
    stream_secured(&conn->net);
    name(conn);
    if (conn->check_first)
        check(conn);
    if (conn->dead)
        return;
    if (conn->role == ROLE_DIAL)
        dial_say(conn);
    else
        stream_again(&conn->net); /* its first bytes came with the last of the handshake, mostly */
}

/* --- the queues --- */

static struct conn *next_of(struct ring *ring, size_t offset)
{
    struct ring *first = ring->next;

    ring_drop(first);
    return (struct conn *)((char *)first - offset);
}

void secure_run(struct gate *gate)
{
    uint64_t until_ns;
    struct ring last;

    ring_init(&last);
    ring_push(&gate->pending, &last); /* who comes behind it has its turn later */
    while (gate->pending.next != &last) {
        struct stream *s = CONTAINER_OF(gate->pending.next, struct stream, again);

        ring_drop(&s->again);
        stream_again(s);
    }
    ring_drop(&last);
    until_ns = uv_hrtime() + TURN_NS;
    for (unsigned i = 0; i < STEPS_PER_TURN && !ring_empty(&gate->handshakes); i++) {
        step(next_of(&gate->handshakes, offsetof(struct conn, net.again)));
        if (uv_hrtime() >= until_ns)
            break;
    }
    for (unsigned i = 0; i < STEPS_PER_TURN && !ring_empty(&gate->checks); i++) {
        check(next_of(&gate->checks, offsetof(struct conn, check)));
        if (uv_hrtime() >= until_ns)
            break;
    }
}

bool secure_waits(const struct gate *gate)
{
    return !ring_empty(&gate->handshakes) || !ring_empty(&gate->pending) ||
           !ring_empty(&gate->checks);
}
