/* watcher - a connection of kind watch, from its request to its end.
 *
 * A watcher is told as much as it reads: what it has not read of is at most one share of the gate's
 * buffers (share_of), and what comes meanwhile waits in the log, not here. Whose place the log has
 * forgotten is told `resync` and a picture. Each turn is short: others have theirs in between.
 */
#include "gate/inside.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "wire/check.h"
#include "wire/status.h"

#define REQUEST_MAX 4096u
#define SHARE_LEAST 4096u /* has room for any one event, and the message around it */
#define SHARE_MOST 65536u
#define EVENT_ROOM 2048u      /* an event: three names of 253, 261, 112 bytes, twice, and numbers */
#define TURNS_PER_RUN 64u     /* watchers told between two looks at the network */
#define RUN_NS 1000000u       /* ... and the most time for them */
#define EVENTS_PER_TURN 4096u /* looked at for one watcher */
#define HEARTBEAT_MS 3000u
#define HEARTBEAT_LEAST_MS 200u
#define HEARTBEAT_MOST_MS 60000u
#define UNREAD_MS 60000u /* who has read nothing of what waits for so long is gone */
#define HOP_LEN 4u

/* What one watcher may have unread: an equal share of half of the gate's buffers, and the least
 * that does once half of them are in use. */
static size_t share_of(const struct gate *gate)
{
    uint64_t half = gate->limits.gate_buffer_bytes / 2,
             share = gate->count.buffer_bytes < half ? half / (gate->count.watchers + 1) : 0;

    return share < SHARE_LEAST ? SHARE_LEAST : share > SHARE_MOST ? SHARE_MOST : (size_t)share;
}

static size_t room_of(const struct watcher *w)
{
    size_t share = share_of(w->conn->gate), used = buffer_used(&w->conn->net.out) + 128;

    return used < share ? share - used : 0;
}

/* ---- messages ---- */

/* Hop word, ReplyHeader: what stands in front of every message. */
static size_t pack_header(uint8_t *out, uint64_t call_id, enum status status,
                          Meshd__V1__Reason reason, const char *text)
{
    static const uint8_t hop[HOP_LEN] = {0, 0, 0, 1};
    Meshd__V1__ReplyHeader header = MESHD__V1__REPLY_HEADER__INIT;

    header.status = status;
    header.reason = reason;
    header.text = (char *)text;
    header.call_id = call_id;
    header.wire_version_min = WIRE_VERSION_MIN;
    header.wire_version_max = WIRE_VERSION_MAX;
    memcpy(out, hop, HOP_LEN);
    frame_pack(&header.base, NULL, out + HOP_LEN);
    return HOP_LEN + frame_size(&header.base, NULL);
}

/* One WatchReply with these packed events. 0 or -ENOBUFS. */
static int say(struct watcher *w, const uint8_t *events, size_t len, uint64_t n_events, bool synced)
{
    struct gate *gate = w->conn->gate;
    Meshd__V1__WatchReply reply = MESHD__V1__WATCH_REPLY__INIT;
    uint8_t scalars[32];
    struct iovec parts[3];
    int r;

    reply.epoch = gate->news.epoch;
    reply.revision = w->revision;
    reply.resync = w->say_resync;
    reply.synced = synced;
    parts[0] = (struct iovec){w->header, w->header_len};
    parts[1] = (struct iovec){scalars, meshd__v1__watch_reply__pack(&reply, scalars)};
    parts[2] = (struct iovec){(void *)(uintptr_t)events, len};
    if (buffer_used(&w->conn->net.out) == 0)
        w->moved_ms = gate_now(gate); /* nothing was unread until now */
    r = stream_message(&w->conn->net, parts, 3);
    if (r < 0)
        return r;
    w->left = buffer_used(&w->conn->net.out);
    w->say_resync = w->say_sign = false;
    w->say_synced &= !synced;
    w->said_ms = gate_now(gate);
    COUNT(gate, watch_messages, 1);
    COUNT(gate, watch_events, n_events);
    return 0;
}

/* The stream's last message; then the connection ends. */
static void refuse(struct conn *conn, uint64_t call_id, enum status status,
                   Meshd__V1__Reason reason, const char *text)
{
    uint8_t header[HOP_LEN + 64 + LIMIT_STATUS_TEXT];
    struct iovec part = {header, pack_header(header, call_id, status, reason, text)};

    if (stream_message(&conn->net, &part, 1) < 0)
        conn_fail(conn, -ENOBUFS, "over gate_buffer_bytes");
    else
        conn_linger(conn, LINGER_MS);
}

/* ---- the request ---- */

static uint32_t heartbeat_of(uint32_t asked)
{
    if (asked == 0)
        return HEARTBEAT_MS;
    if (asked < HEARTBEAT_LEAST_MS)
        return HEARTBEAT_LEAST_MS;
    return asked > HEARTBEAT_MOST_MS ? HEARTBEAT_MOST_MS : asked;
}

/* Answers itself when it returns false. */
static bool may_watch(struct conn *conn, uint64_t call_id)
{
    const struct gate_watch_ops *ops = &conn->gate->news.ops;
    char text[LIMIT_STATUS_TEXT + 1];

    if (!ops->may || ops->may(ops->ctx, &conn->peer, text))
        return true;
    refuse(conn, call_id, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_POLICY, text);
    return false;
}

static void begin(struct watcher *w, uint64_t call_id, const Meshd__V1__WatchRequest *request)
{
    struct conn *conn = w->conn;
    struct gate *gate = conn->gate;

    if (!may_watch(conn, call_id))
        return;
    if (strlen(request->name_glob) > LIMIT_NAME ||
        strlen(request->peer) >= sizeof(w->filter.peer)) {
        refuse(conn, call_id, STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_LIMIT,
               "name_glob is at most 253 bytes and peer at most 111");
        return;
    }
    w->call_id = call_id;
    snprintf(w->filter.name, sizeof(w->filter.name), "%s", request->name_glob);
    snprintf(w->filter.peer, sizeof(w->filter.peer), "%s", request->peer);
    w->filter.pattern = strpbrk(w->filter.name, "*?") != NULL;
    w->heartbeat_ms = heartbeat_of(request->heartbeat_ms);
    w->header_len = pack_header(w->header, call_id, STATUS_OK, MESHD__V1__REASON__REASON_NONE, "");
    if (!interest_join(gate, w)) {
        refuse(conn, call_id, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
               "no memory for one more watcher; try again later");
        return;
    }
    w->phase = WATCHER_WANTS;
    if (request->from_epoch == gate->news.epoch &&
        news_resume(gate, request->from_revision, &w->seq)) {
        w->phase = WATCHER_LOG;
        w->revision = request->from_revision;
        w->say_synced = true;
    }
    w->at_least = gate->news.ops.revision(gate->news.ops.ctx);
    w->said_ms = w->moved_ms = gate_now(gate);
    COUNT(gate, watches, 1);
    conn_timer(conn, w->heartbeat_ms);
    watcher_ready(w);
}

/* A whole request: the frame behind its hop word. */
static void read_request(struct watcher *w, const uint8_t *data, size_t len, struct arena *arena)
{
    char wanted[128];
    struct frame_parts parts;
    ProtobufCMessage *header = NULL, *request = NULL;
    const Meshd__V1__CallHeader *call;

    if (frame_split(data, len, &parts) < 0 ||
        wire_unpack(&meshd__v1__call_header__descriptor, parts.header, parts.header_len, arena,
                    &header) < 0) {
        refuse(w->conn, 0, STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_NONE,
               "not a frame of call header and WatchRequest");
        return;
    }
    call = (const Meshd__V1__CallHeader *)header;
    snprintf(wanted, sizeof(wanted), "/%s/Watch", meshd__v1__registry__descriptor.name);
    if (call->wire_version < WIRE_VERSION_MIN || call->wire_version > WIRE_VERSION_MAX)
        refuse(w->conn, call->call_id, STATUS_FAILED_PRECONDITION,
               MESHD__V1__REASON__REASON_WIRE_VERSION,
               "the call is of a wire version that is not spoken here");
    else if (strcmp(call->method, wanted) != 0)
        refuse(w->conn, call->call_id, STATUS_UNIMPLEMENTED, MESHD__V1__REASON__REASON_NONE,
               "only Watch is served on a connection of kind watch");
    else if (wire_unpack(&meshd__v1__watch_request__descriptor, parts.body, parts.body_len, arena,
                         &request) < 0)
        refuse(w->conn, call->call_id, STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_NONE,
               "the request is not a WatchRequest");
    else
        begin(w, call->call_id, (const Meshd__V1__WatchRequest *)request);
}

static void bad_message(struct conn *conn)
{
    COUNT(conn->gate, closed_bad_message, 1);
    conn_close(conn);
}

/* What has come is the request, or a part of it; nothing may follow it. */
static void take_request(struct conn *conn, const struct view *view, size_t consumed)
{
    const uint8_t *data = view->data + consumed;
    size_t have = view->len - consumed, head = sp_head_len(conn->net.framing);
    uint64_t len = 0;
    struct arena arena;
    int r = sp_head_parse(conn->net.framing, data, have, REQUEST_MAX, &len);

    if (r == -EAGAIN || (r == 0 && have - head < len)) {
        if (stream_keep(&conn->net, view, consumed) < 0)
            conn_fail(conn, -ENOBUFS, "over gate_buffer_bytes");
        return;
    }
    if (r < 0 || len < HOP_LEN || have - head > len) {
        bad_message(conn);
        return;
    }
    arena_init(&arena);
    read_request(conn->watcher, data + head + HOP_LEN, (size_t)len - HOP_LEN, &arena);
    arena_fini(&arena);
    if (!conn->dead && !view->scratch)
        buffer_clear(conn->gate, &conn->net.in);
}

void watcher_begin(struct conn *conn, const struct view *rest, size_t consumed)
{
    const int unacked_ms = UNREAD_MS;
    struct gate *gate = conn->gate;
    struct watcher *w = NULL;

    if (gate->count.watchers < gate->limits.watchers)
        w = calloc(1, sizeof(*w));
    if (!w) {
        COUNT(gate, closed_over_watchers, 1);
        sniff_refuse(conn, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                     "too many watch this node (limits.watchers)");
        return;
    }
    w->conn = conn;
    ring_init(&w->by_interest);
    ring_init(&w->by_picture);
    ring_init(&w->ready);
    conn_become(conn, ROLE_WATCH);
    conn->watcher = w;
    if (!conn->peer.local) /* it may be slow for as long as UNREAD_MS says */
        setsockopt(conn->net.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof(unacked_ms));
    COUNT(gate, watchers, 1);
    sniff_answer(conn, STATUS_OK, 0, "");
    if (conn->dead)
        return;
    if (rest->len > consumed)
        take_request(conn, rest, consumed);
    else if (!rest->scratch)
        buffer_clear(gate, &conn->net.in);
}

void watcher_readable(struct conn *conn)
{
    struct view view;
    ssize_t n = stream_fill(&conn->net, SNIFF_BYTES, &view);

    if (n == -EAGAIN)
        return;
    if (n <= 0)
        conn_close(conn);
    else if (conn->watcher->phase != WATCHER_ASKS)
        bad_message(conn);
    else
        take_request(conn, &view, 0);
}

/* ---- a turn ---- */

enum turn { TURN_DONE, TURN_MORE, TURN_FULL };

static void leave_picture(struct watcher *w)
{
    if (w->picture)
        picture_leave(TAKE(&w->picture), &w->by_picture);
}

/* Until there is a picture, or what there was when it asked. */
static enum turn wait_for_news(struct watcher *w)
{
    ring_push(&w->conn->gate->news.wait, &w->ready);
    return TURN_DONE;
}

static enum turn begin_picture(struct watcher *w)
{
    struct gate *gate = w->conn->gate;

    w->picture = picture_enter(gate, &w->by_picture);
    if (!w->picture)
        return wait_for_news(w);
    w->phase = WATCHER_PICTURE;
    w->place = (struct gate_place){0};
    w->revision = 0;
    w->say_resync = true;
    w->say_synced = false;
    return TURN_MORE;
}

static enum turn tell_picture(struct watcher *w)
{
    struct gate *gate = w->conn->gate;
    const struct gate_watch_ops *ops = &gate->news.ops;
    struct gate_place place = w->place;
    bool over = false;
    size_t len = ops->picture_part(ops->ctx, w->picture->maps, &w->filter, &place,
                                   gate->news.scratch, room_of(w), &over);
    bool synced = over && w->picture->revision >= w->at_least;

    if (over)
        w->revision = w->picture->revision;
    if ((len > 0 || over || w->say_sign) && say(w, gate->news.scratch, len, 0, synced) < 0) {
        w->revision = 0;
        return TURN_FULL;
    }
    w->place = place;
    if (over) {
        w->say_synced = !synced; /* an older picture, from which the log leads on */
        w->phase = WATCHER_LOG;
        w->seq = w->picture->seq;
        w->event = 0;
        leave_picture(w);
    }
    return TURN_MORE;
}

static bool concerns(const struct watcher *w, const struct gate_event *event)
{
    return gate_filter_name(&w->filter, event->name) &&
           gate_filter_peer(&w->filter, event->source, event->peer_id);
}

struct gathered {
    size_t len, n, looked_at;
    uint64_t seq, revision;
    size_t event;
    bool full;
};

/* The first event whose name does not come before the only one that is watched. */
static size_t first_of_name(const struct watcher *w, const struct gate_news *news)
{
    size_t lo = 0, hi = news->n_events;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (strcmp(news->events[mid].name, w->filter.name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Matching events of one piece of news from g->event on, until g->looked_at is enough. */
static void gather_from(const struct watcher *w, const struct gate_news *news, size_t room,
                        uint8_t *out, struct gathered *g)
{
    if (w->interest && g->event == 0)
        g->event = first_of_name(w, news);
    for (; g->event < news->n_events && g->looked_at < EVENTS_PER_TURN; g->event++) {
        const struct gate_event *event = &news->events[g->event];
        size_t begin = g->event ? event[-1].end : 0, len = event->end - begin;

        g->looked_at++;
        if (!concerns(w, event)) {
            if (!w->interest || strcmp(event->name, w->filter.name) == 0)
                continue;
            g->event = news->n_events; /* they stand in the order of names */
            return;
        }
        g->full = g->len + len > room;
        if (g->full)
            return;
        memcpy(out + g->len, news->data + begin, len);
        g->len += len;
        g->n++;
    }
}

static enum turn tell_log(struct watcher *w)
{
    struct gate *gate = w->conn->gate;
    struct gathered g = {.seq = w->seq, .event = w->event, .revision = w->revision};
    const struct gate_news *news = NULL;
    size_t room = room_of(w);
    uint64_t was = w->revision;
    bool synced;

    if (w->seq < gate->news.log.first) {
        watcher_outdated(w);
        return TURN_DONE; /* it is ready again */
    }
    while (g.looked_at < EVENTS_PER_TURN && (news = news_at(gate, g.seq)) != NULL) {
        gather_from(w, news, room, gate->news.scratch, &g);
        if (g.full || g.event < news->n_events)
            break;
        g.revision = news->to;
        g.seq++;
        g.event = 0;
        g.looked_at++;
    }
    synced = w->say_synced && !news;
    w->revision = g.revision;
    if ((g.len > 0 || synced || w->say_sign) &&
        say(w, gate->news.scratch, g.len, g.n, synced) < 0) {
        w->revision = was; /* nothing moved */
        return TURN_FULL;
    }
    w->seq = g.seq;
    w->event = g.event;
    if (g.full)
        return TURN_FULL;
    if (news)
        return TURN_MORE;
    w->idle = true;
    if (!w->interest)
        ring_push(&gate->news.idle, &w->by_interest);
    return TURN_DONE;
}

static enum turn take_turn(struct watcher *w)
{
    if (w->conn->gate->news.log.head < w->at_least)
        return wait_for_news(w);
    if (room_of(w) < EVENT_ROOM)
        return TURN_FULL; /* watcher_flushed brings it back */
    switch (w->phase) {
    case WATCHER_WANTS:
        return begin_picture(w);
    case WATCHER_PICTURE:
        return tell_picture(w);
    case WATCHER_LOG:
        return tell_log(w);
    case WATCHER_ASKS:
        break;
    }
    return TURN_DONE;
}

void watchers_run(struct gate *gate)
{
    uint64_t until_ns = uv_hrtime() + RUN_NS;

    for (unsigned i = 0;
         i < TURNS_PER_RUN && !ring_empty(&gate->news.ready) && (i == 0 || uv_hrtime() < until_ns);
         i++) {
        struct watcher *w = CONTAINER_OF(gate->news.ready.next, struct watcher, ready);

        ring_drop(&w->ready);
        if (take_turn(w) == TURN_MORE)
            watcher_ready(w);
    }
}

void watcher_ready(struct watcher *w)
{
    if (ring_empty(&w->ready))
        ring_push(&w->conn->gate->news.ready, &w->ready);
}

void watcher_outdated(struct watcher *w)
{
    COUNT(w->conn->gate, watch_resyncs, 1);
    leave_picture(w);
    if (w->idle && !w->interest)
        ring_drop(&w->by_interest);
    w->idle = false;
    w->phase = WATCHER_WANTS;
    watcher_ready(w);
}

void watcher_flushed(struct conn *conn)
{
    struct watcher *w = conn->watcher;
    size_t left = buffer_used(&conn->net.out);

    if (left < w->left || left == 0)
        w->moved_ms = gate_now(conn->gate);
    w->left = left;
    if (w->phase != WATCHER_ASKS && !w->idle && room_of(w) >= EVENT_ROOM)
        watcher_ready(w);
}

/* A message without events, unless there are some to be told: they get another turn. */
static void give_sign(struct watcher *w)
{
    struct gate *gate = w->conn->gate;

    if (w->idle) {
        w->revision = gate->news.log.head;
        say(w, NULL, 0, 0, false);
    } else if (!gate->news.log.newest) {
        say(w, NULL, 0, 0, false);
    } else {
        w->at_least = 0; /* it has waited long enough for what should have come at once */
        ring_drop(&w->ready);
        w->say_sign = true; /* in its next turn, whatever that finds */
        watcher_ready(w);
    }
}

void watcher_timeout(struct conn *conn)
{
    struct watcher *w = conn->watcher;
    struct gate *gate = conn->gate;
    uint64_t now = gate_now(gate), due;

    if (w->phase == WATCHER_ASKS) {
        COUNT(gate, closed_first_bytes_late, 1);
        conn_close(conn);
        return;
    }
    if (buffer_used(&conn->net.out) > 0 && now - w->moved_ms >= UNREAD_MS) {
        COUNT(gate, closed_unread, 1);
        conn_close(conn);
        return;
    }
    if (!may_watch(conn, w->call_id))
        return;
    due = w->said_ms + w->heartbeat_ms;
    if (now >= due) {
        due = now + w->heartbeat_ms;
        give_sign(w);
    }
    conn_timer(conn, due - now);
}

void watcher_check(struct conn *conn)
{
    if (conn->watcher->phase != WATCHER_ASKS)
        may_watch(conn, conn->watcher->call_id);
}

void watcher_stop(struct conn *conn)
{
    refuse(conn, conn->watcher->call_id, STATUS_UNAVAILABLE, MESHD__V1__REASON__REASON_DRAINING,
           "this node is about to leave");
}

void watcher_free(struct conn *conn)
{
    struct watcher *w = TAKE(&conn->watcher);

    if (!w)
        return;
    leave_picture(w);
    interest_leave(conn->gate, w);
    ring_drop(&w->ready);
    COUNT(conn->gate, watchers, -1);
    __atomic_store_n(&conn->gate->news.left_ms, clock_ms(), __ATOMIC_RELAXED);
    free(w);
}
