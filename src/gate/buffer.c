/* buffer - bytes that wait, one piece of memory each, all of them accounted.
 *
 * The sum of all capacities is count.buffer_bytes and stays below limits.gate_buffer_bytes. Who
 * would go over it loses, unless a stranger holds more than the one who asks: then that one is
 * closed, so that strangers cannot crowd out links.
 */
#include "gate/inside.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES 4096u
#define LANE_KEEPS (2 * HIGH_WATER)

static size_t held(const struct conn *conn) { return conn->net.in.cap + conn->net.out.cap; }

static bool is_stranger(const struct conn *conn)
{
    return (conn->role == ROLE_CLIENT || conn->role == ROLE_SNIFF || conn->role == ROLE_LINGER ||
            conn->role == ROLE_WATCH) &&
           conn->peer.peer_id[0] == '\0' && !conn->dead;
}

static struct conn *largest_stranger(struct gate *gate)
{
    struct conn *most = NULL;

    for (struct ring *at = gate->conns.next; at != &gate->conns; at = at->next) {
        struct conn *conn = CONTAINER_OF(at, struct conn, all);

        if (is_stranger(conn) && held(conn) > 0 && (!most || held(conn) > held(most)))
            most = conn;
    }
    return most;
}

/* Makes room for `more` bytes within the limit of the whole gate. */
static int account(struct gate *gate, struct conn *owner, size_t more)
{
    uint64_t most = gate->limits.gate_buffer_bytes;

    while (owner && gate->count.buffer_bytes + more > most) {
        /* A watcher waits for its turn; while the gate stops all connections are being gone
         * through. */
        bool takes = owner->role != ROLE_WATCH && !gate->stopping;
        struct conn *victim = takes ? largest_stranger(gate) : NULL;

        if (!victim || victim == owner ||
            (is_stranger(owner) && held(owner) + more >= held(victim)))
            return -ENOBUFS;
        COUNT(gate, closed_over_buffers, 1);
        conn_fail(victim, -ENOBUFS, "over gate_buffer_bytes");
    }
    return 0;
}

int buffer_reserve(struct gate *gate, struct conn *owner, struct buffer *b, size_t len)
{
    size_t used = buffer_used(b), cap = b->cap ? 2 * b->cap : FIRST_BYTES;
    uint8_t *data;
    int r;

    if (len <= b->cap - b->tail)
        return 0;
    /* Moving down is cheap only when what is moved is not much more than what was taken. */
    if (used + len <= b->cap && b->head >= used / 2) {
        memmove(b->data, b->data + b->head, used);
        b->head = 0;
        b->tail = used;
        return 0;
    }
    if (cap < used + len)
        cap = (used + len + FIRST_BYTES - 1) / FIRST_BYTES * FIRST_BYTES;
    r = account(gate, owner, cap - b->cap);
    if (r < 0)
        return r;
    data = malloc(cap);
    if (!data)
        return -ENOBUFS;
    if (used > 0)
        memcpy(data, b->data + b->head, used);
    free(b->data);
    COUNT(gate, buffer_bytes, cap - b->cap);
    *b = (struct buffer){.data = data, .tail = used, .cap = cap};
    return 0;
}

void buffer_clear(struct gate *gate, struct buffer *b)
{
    COUNT(gate, buffer_bytes, -b->cap);
    free(b->data);
    *b = (struct buffer){0};
}

void buffer_consume(struct gate *gate, struct conn *owner, struct buffer *b, size_t len)
{
    b->head += len;
    if (b->head < b->tail)
        return;
    b->head = b->tail = 0;
    if (owner || b->cap > LANE_KEEPS)
        buffer_clear(gate, b);
}
