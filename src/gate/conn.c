/* conn - the table of connections, and one connection's life from its number to its end.
 *
 * A number is a slot (low bits) and the slot's generation. Slots are used again in the order in
 * which they became free, and not before many others have been, so a number that somebody still
 * holds means nothing for a long time.
 */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "gate/inside.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include "base/hash.h"
#include "base/origin.h"
#include "wire/status.h"

#define NUMBER_BITS 31u
#define NO_SLOT UINT32_MAX

/* --- addresses --- */

struct source {
    struct in6_addr ip; /* origin_of */
    uint64_t connections, links, half_open;
    UT_hash_handle hh;
};

/* The address as v6, v4 mapped, so that one host is one source on both kinds of listeners. */
static bool as_v6(const struct sockaddr_storage *addr, struct in6_addr *out, uint16_t *out_port)
{
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;

        *out = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
        memcpy(out->s6_addr + 12, &in->sin_addr, 4);
        *out_port = ntohs(in->sin_port);
        return true;
    }
    if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;

        *out = in6->sin6_addr;
        *out_port = ntohs(in6->sin6_port);
        return true;
    }
    return false;
}

static void tally_up(struct tally *tally, uint64_t *n)
{
    if (*n > 0)
        tally->sources[*n]--;
    tally->sources[++*n]++;
    if (*n > tally->largest)
        tally->largest = *n;
}

static void tally_down(struct tally *tally, uint64_t *n)
{
    tally->sources[*n]--;
    if (--*n > 0)
        tally->sources[*n]++;
    if (tally->largest > *n && tally->sources[tally->largest] == 0)
        tally->largest--; /* this one has as many */
}

static void show_largest(struct gate *gate)
{
    COUNT(gate, largest_source, gate->by_connections.largest - gate->count.largest_source);
    COUNT(gate, largest_half_open, gate->by_half_open.largest - gate->count.largest_half_open);
}

/* A peer's DATA connections come in bursts, and say what they are when its loop has come round. */
static uint64_t source_limit(const struct gate *gate, const struct source *source)
{
    uint64_t each = gate->limits.connections_per_source;
    uint64_t peers = gate->limits.control_connections / 4;

    return source->links && peers > each ? peers : each;
}

static uint64_t half_open_limit(const struct gate *gate, const struct source *source)
{
    uint64_t each = gate->limits.half_open_per_source, peers = gate->limits.half_open / 2;

    return source->links && peers > each ? peers : each;
}

int half_open(struct conn *conn)
{
    struct gate *gate = conn->gate;
    struct source *source = conn->source;

    if (!source)
        return 0;
    if (source->half_open >= half_open_limit(gate, source))
        return -EUSERS;
    while (gate->count.half_open >= gate->limits.half_open) {
        COUNT(gate, closed_over_half_open, 1);
        conn_close(CONTAINER_OF(gate->half.next, struct conn, half));
    }
    ring_push(&gate->half, &conn->half);
    tally_up(&gate->by_half_open, &source->half_open);
    COUNT(gate, half_open, 1);
    show_largest(gate);
    return 0;
}

static void half_open_over(struct conn *conn)
{
    if (ring_empty(&conn->half))
        return;
    ring_drop(&conn->half);
    tally_down(&conn->gate->by_half_open, &conn->source->half_open);
    COUNT(conn->gate, half_open, -1);
    show_largest(conn->gate);
}

int source_take(struct gate *gate, struct conn *conn, const struct sockaddr_storage *addr)
{
    struct in6_addr ip;
    struct source *source = NULL;
    uint16_t port;

    if (!as_v6(addr, &ip, &port))
        return -EAFNOSUPPORT;
    ip = origin_of(&ip);
    HASH_FIND(hh, gate->sources, &ip, sizeof(ip), source);
    if (!source) {
        source = calloc(1, sizeof(*source));
        if (!source)
            return -ENOMEM;
        source->ip = ip;
        HASH_ADD(hh, gate->sources, ip, sizeof(ip), source);
        if (!source->hh.tbl) {
            free(source);
            return -ENOMEM;
        }
        COUNT(gate, sources, 1);
    }
    if (source->connections >= source_limit(gate, source))
        return -EUSERS;
    tally_up(&gate->by_connections, &source->connections);
    show_largest(gate);
    conn->source = source;
    return 0;
}

void source_linked(struct conn *conn) { conn->source->links++; }

void source_drop(struct conn *conn)
{
    struct source *source = TAKE(&conn->source);

    if (source && conn->session)
        source->links--;
    if (!source)
        return;
    tally_down(&conn->gate->by_connections, &source->connections);
    show_largest(conn->gate);
    if (source->connections > 0)
        return;
    HASH_DEL(conn->gate->sources, source);
    COUNT(conn->gate, sources, -1);
    free(source);
}

void conn_name(struct conn *conn, const struct sockaddr_storage *addr)
{
    struct in6_addr ip;
    char text[LIMIT_IP_TEXT] = "";
    uint16_t port = 0;

    if (!as_v6(addr, &ip, &port))
        return;
    if (IN6_IS_ADDR_V4MAPPED(&ip))
        inet_ntop(AF_INET, ip.s6_addr + 12, text, sizeof(text));
    else
        inet_ntop(AF_INET6, &ip, text, sizeof(text));
    mutex_lock(&conn->gate->table_lock);
    memcpy(conn->peer.ip, text, sizeof(text));
    conn->peer.port = port;
    mutex_unlock(&conn->gate->table_lock);
}

void conn_name_peer(struct conn *conn, const char *peer_id)
{
    mutex_lock(&conn->gate->table_lock);
    snprintf(conn->peer.peer_id, sizeof(conn->peer.peer_id), "%s", peer_id);
    mutex_unlock(&conn->gate->table_lock);
}

/* --- the table --- */

/* A free slot: a fresh one, unless so many are free that the oldest of them may be used again. */
static uint32_t take_slot_locked(struct gate *gate) REQUIRES(gate->table_lock)
{
    uint32_t rest = gate->table.capacity / 4, index;

    if (gate->table.fresh < gate->table.capacity &&
        gate->table.n_free < (rest < 256 ? rest : 256) + rest / 4)
        return gate->table.fresh++;
    if (gate->table.n_free == 0)
        return NO_SLOT;
    index = gate->table.first_free;
    gate->table.first_free = gate->table.slots[index].next_free;
    gate->table.n_free--;
    return index;
}

static void number_locked(struct gate *gate, uint32_t index, struct conn *conn)
    REQUIRES(gate->table_lock)
{
    struct slot *slot = &gate->table.slots[index];
    uint32_t generations = (UINT32_C(1) << (NUMBER_BITS - gate->table.bits)) - 1;

    slot->generation = slot->generation % generations + 1; /* never 0: nor is the number */
    slot->conn = conn;
    conn->number = slot->generation << gate->table.bits | index;
    __atomic_store_n(&slot->number, conn->number, __ATOMIC_RELEASE);
    gate->table.used++;
}

static void free_slot(struct gate *gate, uint32_t number)
{
    uint32_t index = number & ((UINT32_C(1) << gate->table.bits) - 1);

    mutex_lock(&gate->table_lock);
    __atomic_store_n(&gate->table.slots[index].number, 0, __ATOMIC_RELEASE);
    if (gate->table.n_free++ == 0)
        gate->table.first_free = index;
    else
        gate->table.slots[gate->table.last_free].next_free = index;
    gate->table.last_free = index;
    gate->table.used--;
    mutex_unlock(&gate->table_lock);
}

struct conn *conn_new(struct gate *gate)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    uint32_t index;

    if (!conn)
        return NULL;
    conn->gate = gate;
    stream_init(&conn->net, gate, conn);
    ring_init(&conn->all);
    ring_init(&conn->half);
    ring_init(&conn->check);
    ring_init(&conn->client.ready);
    mutex_lock(&gate->table_lock);
    index = take_slot_locked(gate);
    if (index != NO_SLOT)
        number_locked(gate, index, conn);
    mutex_unlock(&gate->table_lock);
    if (index == NO_SLOT) {
        free(conn);
        return NULL;
    }
    return conn;
}

static struct slot *slot_of(struct gate *gate, uint32_t number)
{
    uint32_t index = number & ((UINT32_C(1) << gate->table.bits) - 1);
    struct slot *slot = &gate->table.slots[index];

    if (number == 0 || index >= gate->table.capacity ||
        __atomic_load_n(&slot->number, __ATOMIC_ACQUIRE) != number)
        return NULL;
    return slot;
}

/* Only this thread ends connections, so what is found stays. */
struct conn *conn_find(struct gate *gate, uint32_t number)
{
    struct slot *slot = slot_of(gate, number);

    return slot && !slot->conn->dead ? slot->conn : NULL;
}

bool gate_who(struct gate *gate, uint32_t number, struct gate_peer *out_peer)
{
    struct slot *slot;

    mutex_lock(&gate->table_lock);
    slot = slot_of(gate, number);
    if (slot)
        *out_peer = slot->conn->peer;
    mutex_unlock(&gate->table_lock);
    return slot != NULL;
}

uint64_t gate_received(struct gate *gate, uint32_t number)
{
    struct slot *slot;
    uint64_t n = 0;

    mutex_lock(&gate->table_lock);
    slot = slot_of(gate, number);
    if (slot)
        n = __atomic_load_n(&slot->conn->received, __ATOMIC_RELAXED);
    mutex_unlock(&gate->table_lock);
    return n;
}

/* --- a life --- */

static void net_readable(struct stream *stream)
{
    struct conn *conn = stream->owner;

    switch (conn->role) {
    case ROLE_SNIFF:
        sniff_readable(conn);
        break;
    case ROLE_CLIENT:
        client_readable(conn);
        break;
    case ROLE_DIAL:
        if (stream->connecting)
            dial_connected(conn);
        else
            dial_readable(conn);
        break;
    case ROLE_SESSION:
        session_net_readable(conn);
        break;
    case ROLE_WATCH:
        watcher_readable(conn);
        break;
    case ROLE_ASKED: /* not read until it is answered */
        break;
    case ROLE_LINGER: {
        struct view view;
        ssize_t n = stream_fill(stream, SCRATCH_BYTES, &view);

        if (n == 0 || (n < 0 && n != -EAGAIN))
            conn_close(conn);
        break;
    }
    }
}

static void net_broken(struct stream *stream, int error)
{
    struct conn *conn = stream->owner;

    if (conn->role == ROLE_SESSION)
        session_net_lost(conn, error, "the connection broke");
    else
        conn_fail(conn, error, "the connection broke");
}

static void net_flushed(struct stream *stream, int error)
{
    struct conn *conn = stream->owner;

    if (error < 0) {
        net_broken(stream, error);
        return;
    }
    if (conn->role == ROLE_CLIENT)
        client_flushed(conn);
    else if (conn->role == ROLE_SESSION)
        session_net_flushed(conn);
    else if (conn->role == ROLE_WATCH)
        watcher_flushed(conn);
    else if (conn->role == ROLE_LINGER && buffer_used(&stream->out) == 0)
        stream_end(stream);
}

static void on_timer(uv_timer_t *timer)
{
    struct conn *conn = CONTAINER_OF(timer, struct conn, timer);

    if (conn->dead)
        return;
    switch (conn->role) {
    case ROLE_SNIFF:
        COUNT(conn->gate, closed_first_bytes_late, 1);
        conn_close(conn);
        break;
    case ROLE_CLIENT:
        client_timeout(conn);
        break;
    case ROLE_ASKED:
        conn_why(conn, -ETIMEDOUT, "link_asked was not answered");
        sniff_refuse(conn, STATUS_DEADLINE_EXCEEDED, 0, "not answered in time");
        break;
    case ROLE_DIAL:
        conn_fail(conn, -ETIMEDOUT,
                  conn->net.connecting    ? "connecting took too long"
                  : conn->net.handshaking ? "the TLS handshake took too long"
                                          : "no answer to the preamble");
        break;
    case ROLE_SESSION:
        session_timeout(conn);
        break;
    case ROLE_WATCH:
        watcher_timeout(conn);
        break;
    case ROLE_LINGER:
        conn_close(conn);
        break;
    }
}

bool gate_peer_proves(const struct gate_peer *peer, const char *peer_id)
{
    for (size_t i = 0; peer->secure && i < LIMIT_CERT_NAMES && peer->names[i][0]; i++) {
        if (strcmp(peer->names[i], peer_id) == 0)
            return true;
    }
    return !peer->secure;
}

void conn_timer(struct conn *conn, uint64_t ms)
{
    if (ms > 0)
        uv_timer_start(&conn->timer, on_timer, ms, 0);
    else
        uv_timer_stop(&conn->timer);
}

void conn_adopt(struct conn *conn)
{
    conn->net.readable = net_readable;
    conn->net.flushed = net_flushed;
    conn->net.broken = net_broken;
    uv_timer_init(&conn->gate->loop, &conn->timer);
    ring_push(&conn->gate->conns, &conn->all);
    COUNT(conn->gate, connections, 1);
}

void conn_discard(struct conn *conn)
{
    free_slot(conn->gate, conn->number);
    session_free(conn->session);
    free(conn);
}

void conn_become(struct conn *conn, enum role role)
{
    half_open_over(conn);
    conn->role = role;
}

void conn_linger(struct conn *conn, uint32_t ms)
{
    watcher_free(conn);
    conn_become(conn, ROLE_LINGER);
    buffer_clear(conn->gate, &conn->net.in);
    stream_read(&conn->net, true);
    stream_dirty(&conn->net);
    conn_timer(conn, ms);
}

bool conn_why(struct conn *conn, int error, const char *text)
{
    if (conn->why.text[0] != '\0' || conn->why.error != 0 || conn->why.status != 0)
        return false;
    conn->why.error = error;
    snprintf(conn->why.text, sizeof(conn->why.text), "%s", text);
    return true;
}

void conn_fail(struct conn *conn, int error, const char *text)
{
    if (conn->dead)
        return;
    conn_why(conn, error, text);
    conn_close(conn);
}

static void timer_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF((uv_timer_t *)handle, struct conn, timer));
}

void conn_close(struct conn *conn)
{
    struct gate *gate = conn->gate;

    if (conn->dead)
        return;
    conn->dead = true;
    watcher_free(conn);
    stream_close(&conn->net);
    half_open_over(conn);
    source_drop(conn);
    ring_drop(&conn->all);
    ring_drop(&conn->check);
    if (!ring_empty(&conn->client.ready)) {
        ring_drop(&conn->client.ready);
        COUNT(gate, requests_waiting, -1);
    }
    COUNT(gate, connections, -1);
    if (conn->session && conn->session->up) {
        COUNT(gate, sessions, -1);
        COUNT(gate, sessions_ended, 1);
    } else if (conn->session && conn->session->dialled) {
        COUNT(gate, dial_failed, 1);
    }
    free_slot(gate, conn->number);
    session_free(TAKE(&conn->session));
    if (conn->owes_ended)
        gate->ops.ended(gate->ops.ctx, conn->number, &conn->why);
    uv_close((uv_handle_t *)&conn->timer, timer_closed);
}
