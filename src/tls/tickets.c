/* tickets - the sessions that may be resumed, one for each peer id.
 *
 * OpenSSL marks a session as used up when it was resumed once or its connection was cut off, so
 * what is kept here is never part of a connection: copies go in and copies come out. */
#include "tls/inside.h"
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"

void tickets_init(struct tickets *tickets)
{
    *tickets = (struct tickets){0};
    mutex_init(&tickets->lock);
}

void tickets_fini(struct tickets *tickets)
{
    for (size_t i = 0; i < tickets->n; i++)
        SSL_SESSION_free(tickets->rows[i].session);
    free(tickets->rows);
    mutex_fini(&tickets->lock);
}

static bool is_over(const SSL_SESSION *session)
{
    return (int64_t)SSL_SESSION_get_time(session) + SSL_SESSION_get_timeout(session) <=
           (int64_t)(clock_wall_us() / 1000000u);
}

/* Where peer_id is, or would be. */
static size_t place_locked(const struct tickets *tickets, const char *peer_id, bool *out_there)
{
    size_t low = 0, high = tickets->n;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(tickets->rows[middle].peer_id, peer_id);

        if (order == 0) {
            *out_there = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *out_there = false;
    return low;
}

static void sweep_locked(struct tickets *tickets)
{
    size_t n = 0;

    for (size_t i = 0; i < tickets->n; i++) {
        if (is_over(tickets->rows[i].session))
            SSL_SESSION_free(tickets->rows[i].session);
        else
            tickets->rows[n++] = tickets->rows[i];
    }
    tickets->n = n;
}

static bool make_room_locked(struct tickets *tickets)
{
    size_t room = tickets->room ? tickets->room * 2 : 8;
    struct ticket *rows;

    if (tickets->n < tickets->room)
        return true;
    sweep_locked(tickets);
    if (tickets->n < tickets->room)
        return true;
    if (room > LIMIT_TLS_TICKETS)
        return false;
    rows = realloc(tickets->rows, room * sizeof(*rows));
    if (!rows)
        return false;
    tickets->rows = rows;
    tickets->room = room;
    return true;
}

void tickets_put(struct tickets *tickets, const char *peer_id, SSL_SESSION *session)
{
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    size_t at;
    bool there;

    if (!copy)
        return;
    mutex_lock(&tickets->lock);
    at = place_locked(tickets, peer_id, &there);
    if (there) {
        SSL_SESSION_free(tickets->rows[at].session);
        tickets->rows[at].session = copy;
    } else if (make_room_locked(tickets)) {
        at = place_locked(tickets, peer_id, &there); /* rows may have been swept */
        memmove(tickets->rows + at + 1, tickets->rows + at,
                (tickets->n - at) * sizeof(*tickets->rows));
        tickets->n++;
        strcpy(tickets->rows[at].peer_id, peer_id);
        tickets->rows[at].session = copy;
    } else {
        SSL_SESSION_free(copy);
    }
    mutex_unlock(&tickets->lock);
}

SSL_SESSION *tickets_copy(struct tickets *tickets, const char *peer_id)
{
    SSL_SESSION *copy = NULL;
    size_t at;
    bool there;

    mutex_lock(&tickets->lock);
    at = place_locked(tickets, peer_id, &there);
    if (there && !is_over(tickets->rows[at].session))
        copy = SSL_SESSION_dup(tickets->rows[at].session);
    mutex_unlock(&tickets->lock);
    return copy;
}
