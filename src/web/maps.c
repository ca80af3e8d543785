/* maps - /v1/services and /v1/peers: a picture, row by row, as its reader takes it.
 *
 * Text is made about a part at a time, whatever the size of the maps; a peer with 100,000 services
 * is many parts. What an answer costs is the picture that it keeps, and there are not more of those
 * than `pinned_snapshots`. Where none of many rows is wanted a part is a space, which JSON allows
 * between any two values: all others on this port have their turn meanwhile.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "web/inside.h"
#include "web/picture.h"
#include "wire/name.h"

#define TAG_TEXT 48u
#define ROWS_AT_ONCE 256u /* are looked at; a glob may cost 16,000 steps for each */

struct maps {
    struct stream stream; /* first */
    struct web *web;
    struct snapshot *snap;
    struct query query;
    bool peers; /* the map: peer_services */
    /* MAPS_SEEK: whether the owner, a peer, has a row that is wanted. */
    enum { MAPS_HEAD, MAPS_OWNER, MAPS_SEEK, MAPS_ROWS, MAPS_END, MAPS_OVER } at;
    size_t owner; /* 0: the node itself */
    struct list_iter it;
    json_t *common; /* of the owner */
    bool more;      /* a row of this list was written */
    uint64_t total; /* rows of the map written */
    struct picture_text text;
    size_t sent;     /* of text */
    unsigned looked; /* at so many rows for this part */
};

static void drop(struct stream *stream)
{
    struct maps *m = CONTAINER_OF(stream, struct maps, stream);

    m->web->n_pictures--;
    snapshot_unref(m->snap);
    json_decref(m->common);
    free(m->text.at);
    free(m);
}

/* ---- which ---- */

static const struct snapshot_peer *peer_at(const struct maps *m)
{
    return m->owner ? &m->snap->peers[m->owner - 1] : NULL;
}

static bool owner_matches(const struct maps *m, const struct snapshot_peer *peer)
{
    const char *want = m->query.peer;

    if (*want && strcmp(want, peer ? peer->label : "local") != 0 &&
        strcmp(want, peer ? peer->peer_id : m->web->peer_id) != 0)
        return false;
    if (m->query.state == STATE_CONNECTED)
        return !peer || peer->state.connected;
    return m->query.state != STATE_STALE || (peer && peer->state.stale);
}

/* Whether an owner that matches does so with all of its rows. */
static bool all_rows(const struct maps *m, const struct snapshot_peer *peer)
{
    return !*m->query.name && m->query.state != STATE_UNHEALTHY &&
           (m->query.state != STATE_DRAINING || (peer && peer->state.draining));
}

static bool row_matches(const struct maps *m, const struct row *row)
{
    const struct snapshot_peer *peer = peer_at(m);

    if (m->query.state == STATE_UNHEALTHY && !(row->flags & ROW_UNHEALTHY))
        return false;
    if (m->query.state == STATE_DRAINING && !(peer && peer->state.draining) &&
        !(row->flags & ROW_DRAINING))
        return false;
    return !*m->query.name || name_glob(m->query.name, row->name);
}

/* The next of the list that matches. NULL: there are no more; or, *out_more, it is another part's
 * turn to look. */
static struct row *next_row(struct maps *m, bool *out_more)
{
    struct row *row;

    for (; m->looked < ROWS_AT_ONCE; m->looked++) {
        row = list_iter_next(&m->it);
        if (!row || row_matches(m, row)) {
            *out_more = row != NULL;
            return row;
        }
    }
    *out_more = true;
    return NULL;
}

/* ---- what ---- */

static bool put(struct maps *m, const char *text)
{
    return picture_put(&m->text, text, strlen(text));
}

static bool put_head(struct maps *m)
{
    char numbers[128];
    CLEANUP(json_decrefp) json_t *id = json_string(m->web->peer_id);

    snprintf(numbers, sizeof numbers, ",\"epoch\":%" PRIu64 ",\"revision\":%" PRIu64 ",\"%s\":[",
             m->snap->epoch, m->snap->revision, m->peers ? "peer_services" : "services");
    m->at = MAPS_OWNER;
    m->owner = m->peers; /* the node itself is no peer */
    return put(m, "{\"peer_id\":") && picture_value(&m->text, id) && put(m, numbers);
}

static bool begin_peer(struct maps *m, const struct snapshot_peer *peer)
{
    m->at = MAPS_ROWS;
    m->more = false;
    if (m->total++ && !put(m, ","))
        return false;
    return picture_peer_begin(&m->text, peer);
}

static bool begin_owner(struct maps *m)
{
    const struct snapshot_peer *peer;
    struct list *list;

    if (m->owner > m->snap->n_peers) {
        m->at = MAPS_END;
        return true;
    }
    peer = peer_at(m);
    list = peer ? peer->list : m->snap->local;
    if (!owner_matches(m, peer)) {
        m->owner++;
        return true;
    }
    list_iter_init(&m->it, list);
    json_decref(m->common);
    m->common = m->peers ? picture_infos_of(peer) : picture_services_of(peer, m->web->peer_id);
    m->at = m->peers && !all_rows(m, peer) ? MAPS_SEEK : MAPS_ROWS;
    if (!m->common)
        return false;
    return !m->peers || m->at == MAPS_SEEK || begin_peer(m, peer);
}

static bool seek(struct maps *m)
{
    const struct snapshot_peer *peer = peer_at(m);
    bool more;

    if (next_row(m, &more)) {
        list_iter_init(&m->it, peer->list);
        return begin_peer(m, peer);
    }
    if (more)
        return true;
    m->at = MAPS_OWNER;
    m->owner++;
    return true;
}

static bool put_row(struct maps *m)
{
    bool more, ok;
    struct row *row = next_row(m, &more);

    if (!row && more)
        return true;
    if (!row) {
        ok = !m->peers || picture_peer_end(&m->text, peer_at(m));
        m->at = MAPS_OWNER;
        m->owner++;
        return ok;
    }
    if (m->more && !put(m, ","))
        return false;
    m->more = true;
    if (m->peers)
        return picture_info(&m->text, m->common, row);
    m->total++;
    return picture_service(&m->text, m->common, peer_at(m), row);
}

static bool put_end(struct maps *m)
{
    char text[64];

    snprintf(text, sizeof text, "],\"%s\":%" PRIu64 "}\n",
             m->peers ? "peers_total" : "services_total", m->total);
    m->at = MAPS_OVER;
    return put(m, text);
}

static bool step(struct maps *m)
{
    switch (m->at) {
    case MAPS_HEAD:
        return put_head(m);
    case MAPS_OWNER:
        return begin_owner(m);
    case MAPS_SEEK:
        return seek(m);
    case MAPS_ROWS:
        return put_row(m);
    case MAPS_END:
        return put_end(m);
    case MAPS_OVER:
        break;
    }
    return true;
}

static ssize_t fill(struct stream *stream, char *buf, size_t max)
{
    struct maps *m = CONTAINER_OF(stream, struct maps, stream);
    size_t n;

    if (m->sent == m->text.len) {
        m->sent = m->text.len = 0;
        m->looked = 0;
        while (m->at != MAPS_OVER && m->text.len < max && m->looked < ROWS_AT_ONCE)
            if (!step(m))
                return STREAM_BROKEN;
        if (!m->text.len && m->at != MAPS_OVER && !put(m, " "))
            return STREAM_BROKEN;
    }
    n = m->text.len - m->sent;
    if (!n)
        return STREAM_END;
    n = n < max ? n : max;
    memcpy(buf, m->text.at + m->sent, n);
    m->sent += n;
    return (ssize_t)n;
}

/* ---- the request ---- */

/* Whoever has been taking its answer for longest, and for long, goes: a handful who take theirs
 * slowly would keep the maps from everybody. Its picture goes a moment later. */
static void cut_slowest(struct web *web)
{
    uint64_t oldest_ms = clock_ms() - web->times.unread;
    struct conn *slowest = NULL;

    for (struct ring *r = web->conns.next; r != &web->conns; r = r->next) {
        struct conn *conn = CONTAINER_OF(r, struct conn, ring);
        const struct stream *stream = conn->exchange ? conn->exchange->stream : NULL;

        if (conn->cut || !stream || stream->fill != fill || stream->since_ms > oldest_ms)
            continue;
        oldest_ms = stream->since_ms;
        slowest = conn;
    }
    if (!slowest)
        return;
    atomic_fetch_add(&web->counters.closed_over_limit, 1);
    conn_cut(slowest);
}

static enum MHD_Result answer(struct exchange *ex, bool peers)
{
    const char *known =
        MHD_lookup_connection_value(ex->conn->mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_NONE_MATCH);
    struct web *web = ex->web;
    struct snapshot *snap;
    char tag[TAG_TEXT];
    struct maps *m;

    if (web->n_pictures >= web->limits.pinned_snapshots) {
        cut_slowest(web);
        return reply_error(ex, 503,
                           "too many readers of the maps at once "
                           "(limits.pinned_snapshots); try again in a moment");
    }
    if (web->ops.picture(web->ops.ctx, &snap) < 0)
        return reply_error(ex, 503, "no memory for a picture of the maps; try again later");
    snprintf(tag, sizeof tag, "\"%" PRIu64 "-%" PRIu64 "\"", snap->epoch, snap->revision);
    if (known && query_tag_matches(known, tag)) {
        snapshot_unref(snap);
        return reply_unchanged(ex, tag);
    }
    m = calloc(1, sizeof *m);
    if (!m) {
        snapshot_unref(snap);
        return reply_error(ex, 503, "no memory for the answer; try again later");
    }
    m->stream.fill = fill;
    m->stream.drop = drop;
    m->web = web;
    m->snap = snap;
    m->query = ex->query;
    m->peers = peers;
    web->n_pictures++;
    return reply_stream(ex, &m->stream, "application/json", tag);
}

enum MHD_Result maps_services(struct exchange *ex) { return answer(ex, false); }
enum MHD_Result maps_peers(struct exchange *ex) { return answer(ex, true); }
