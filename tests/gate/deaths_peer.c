/* The other side of the sessions of test_deaths.c: a plain TCP socket that writes and reads what
 * fits, stalls, and dies inside messages. */
#include "deaths.h"
#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "wire/frame.h"

/* Request number n of a REQ, or a PAIR1 message, or the answer to a call. */
static void next_message(struct worker *w, struct peer *p)
{
    size_t size = pick_size(w), head = 8;

    sp_head_pack(SP_TCP, 4 + size, p->out);
    memset(p->out + head + 4, 'x', size);
    memcpy(p->out + head, w->kind == LINKS ? "\0\0\0\1" : "\x80\0\0\1", 4);
    if (w->kind == CLIENTS) {
        Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
        Meshd__V1__Sync sync;
        Meshd__V1__IntrospectRequest empty = MESHD__V1__INTROSPECT_REQUEST__INIT;
        char *names[1];
        bool good = pick(w, 4) > 0;
        ProtobufCMessage *body = good ? &empty.base : body_of(&sync, names, size);

        header.method = (char *)"/meshd.v1.Registry/Introspect";
        header.deadline_ms = 1000;
        header.wire_version = 1;
        size = frame_size(&header.base, body);
        sp_head_pack(SP_TCP, 4 + size, p->out);
        frame_pack(&header.base, body, p->out + head + 4);
    }
    p->at = 0;
    p->len = head + 4 + size;
}

static void write_some(struct worker *w, struct peer *p)
{
    ssize_t n;

    if (p->at == p->len)
        next_message(w, p);
    n = send(p->fd, p->out + p->at, p->len - p->at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        p->at += (size_t)n;
}

void traffic(struct worker *w, struct peer *p, unsigned ms, bool reads)
{
    static __thread char sink[65536];
    uint64_t until = now_ms() + ms;

    while (now_ms() < until) {
        struct pollfd pfd = {p->fd, (short)(POLLOUT | (reads ? POLLIN : 0)), 0};

        if (w->kind == LINKS && w->pair_up)
            send_pair(w);
        poll(&pfd, 1, 1);
        if (pfd.revents & POLLOUT)
            write_some(w, p);
        if (pfd.revents & POLLIN && recv(p->fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
            atomic_fetch_add(&replies_read, 1);
        if (pfd.revents & (POLLERR | POLLHUP))
            return;
    }
}

void die(struct worker *w, struct peer *p, enum death death)
{
    switch (death) {
    case CLOSED:
        break;
    case RESET:
        reset_and_close(p->fd);
        return;
    case HALF_CLOSED:
        shutdown(p->fd, SHUT_WR);
        closed_by_gate(p->fd);
        break;
    case LOCAL:
    case LOCAL_STALLED:
        if (w->kind == CLIENTS)
            break;
        quiet_once(w, pick(w, 2));
        if (death == LOCAL)
            closed_by_gate(p->fd);
        break;
    }
    if (death != LOCAL_STALLED || w->kind == CLIENTS)
        close(p->fd);
}

static struct preamble preamble_of(const struct worker *w)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION, .peer_id = "n7"};

    preamble.kind = w->kind == LINKS ? PREAMBLE_LINK : PREAMBLE_RPC;
    preamble.has_token = w->kind == LINKS;
    preamble.token[0] = (uint8_t)w->index;
    return preamble;
}

/* The peer dials us. */
int peer_dials(struct worker *w)
{
    struct preamble preamble = preamble_of(w);
    uint8_t bytes[PREAMBLE_MAX], reply[PREAMBLE_HEAD];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval wait = {.tv_sec = 15};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    if (connect(fd, (struct sockaddr *)&gate_at, sizeof(struct sockaddr_in)) < 0 ||
        !send_all(fd, bytes, preamble_pack(&preamble, bytes)) ||
        !recv_all(fd, reply, sizeof(reply)) || reply[5] != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* We dial the peer. */
int peer_is_dialled(struct worker *w)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct gate_target target = {.preamble = preamble_of(w), .ipc_path = w->path};
    socklen_t len = sizeof(any);
    uint8_t bytes[PREAMBLE_MAX];
    struct timeval wait = {.tv_sec = 15};
    struct preamble_reply ok = {.version = PREAMBLE_VERSION};
    uint8_t reply[PREAMBLE_REPLY_MAX];
    struct preamble said;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
    int64_t conn;

    if (bind(listener, (struct sockaddr *)&any, len) < 0 || listen(listener, 1) < 0)
        abort();
    getsockname(listener, (struct sockaddr *)&any, &len);
    memcpy(&target.to, &any, sizeof(any));
    pthread_mutex_lock(&lock);
    conn = gate_dial(gate, &target);
    w->conn = conn > 0 ? (uint32_t)conn : 0;
    pthread_mutex_unlock(&lock);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    if (!recv_all(fd, bytes, preamble_pack(&target.preamble, bytes)) ||
        preamble_parse(bytes, sizeof(bytes), &said) < 0 ||
        !send_all(fd, reply, preamble_reply_pack(&ok, reply)))
        abort();
    return fd;
}

int client_of_gate(void)
{
    struct rig fake = {.at = gate_at};

    return req_client(&fake);
}
