/* readers - /events: who follows, each on its connection; what they are told is events.c's.
 *
 * While nobody does, nothing is asked, and no change of the maps wakes this thread: the first who
 * comes takes a picture.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/lock.h"
#include "web/events.h"
#include "web/inside.h"
#include "web/readers.h"

#define NODE_MS 1000u /* from one question about the node to the next */

struct readers {
    struct web *web;
    struct events *events;
    struct ring all;
    uv_timer_t timer; /* runs while anybody follows */
    struct asking asking;
    bool asked; /* and not answered yet */
    uint64_t asked_ms;
    atomic_uint telling; /* told by others, and not here yet */
    struct mutex lock;
    struct {                    /* only with lock held */
        struct snapshot *shown; /* not told to events yet; NULL: it has the newest */
    } held;
};

struct reader {
    struct stream stream; /* first */
    struct ring ring;     /* of readers->all */
    struct readers *readers;
    struct follower *follower;
};

static void on_node(struct asking *asking, const struct web_answer *answer);

int readers_new(struct web *web, struct readers **out_readers)
{
    struct readers *readers = calloc(1, sizeof *readers);
    int r;

    if (!readers)
        return -ENOMEM;
    readers->web = web;
    ring_init(&readers->all);
    ring_init(&readers->asking.ring);
    readers->asking.answered = on_node;
    mutex_init(&readers->lock);
    r = events_new(web->peer_id, web->software, &readers->events);
    if (r < 0) {
        readers_free(readers);
        return r;
    }
    *out_readers = readers;
    return 0;
}

void readers_free(struct readers *readers)
{
    if (!readers)
        return;
    events_free(readers->events);
    snapshot_unref(readers->held.shown);
    mutex_fini(&readers->lock);
    free(readers);
}

int readers_start(struct readers *readers)
{
    readers->timer.data = readers;
    return uv_timer_init(&readers->web->loop, &readers->timer);
}

void readers_close(struct readers *readers)
{
    ask_give_up(&readers->asking);
    if (readers->timer.loop)
        uv_close((uv_handle_t *)&readers->timer, NULL);
}

/* ---- telling ---- */

static void wake(struct readers *readers)
{
    uint64_t now = clock_ms();

    for (struct ring *r = readers->all.next; r != &readers->all; r = r->next) {
        struct reader *reader = CONTAINER_OF(r, struct reader, ring);

        if (follower_has_news(reader->follower, now))
            stream_wake(&reader->stream);
    }
}

void readers_bell(struct readers *readers)
{
    struct snapshot *shown;

    mutex_lock(&readers->lock);
    shown = TAKE(&readers->held.shown);
    mutex_unlock(&readers->lock);
    if (!shown)
        return;
    if (!ring_empty(&readers->all)) { /* else the last has just gone */
        events_show(readers->events, shown, clock_ms());
        wake(readers);
    }
    snapshot_unref(shown);
}

static void on_node(struct asking *asking, const struct web_answer *answer)
{
    struct readers *readers = CONTAINER_OF(asking, struct readers, asking);
    struct web_body body = {.status = 200};

    readers->asked = false;
    if (!answer)
        return;
    if (answer->render(answer->data, &body) && body.status == 200)
        events_node(readers->events, body.data, body.len);
    free(body.data);
    answer->drop(answer->data);
    wake(readers);
}

static void tell_peers(struct readers *readers, uint64_t now)
{
    struct web *web = readers->web;
    struct snapshot *snap;

    if (web->ops.picture(web->ops.ctx, &snap) < 0)
        return; /* the next time */
    events_peers(readers->events, snap, now);
    snapshot_unref(snap);
}

static void on_timer(uv_timer_t *timer)
{
    struct readers *readers = timer->data;
    uint64_t now = clock_ms();

    events_turn(readers->events, now);
    if (!readers->asked && now - readers->asked_ms >= NODE_MS) {
        readers->asked = true;
        readers->asked_ms = now;
        ask(readers->web, &readers->asking, WEB_LIVE, "");
    }
    if (events_peers_due(readers->events, now))
        tell_peers(readers, now);
    wake(readers);
}

/* ---- who follows ---- */

static ssize_t fill(struct stream *stream, char *buf, size_t max)
{
    struct reader *reader = CONTAINER_OF(stream, struct reader, stream);
    ssize_t n = follower_read(reader->follower, buf, max, clock_ms());

    return n < 0 ? STREAM_BROKEN : n;
}

static void drop(struct stream *stream)
{
    struct reader *reader = CONTAINER_OF(stream, struct reader, stream);
    struct readers *readers = reader->readers;

    ring_drop(&reader->ring);
    follower_free(reader->follower);
    free(reader);
    atomic_fetch_sub(&readers->web->counters.followers, 1);
    if (!ring_empty(&readers->all))
        return;
    if (!uv_is_closing((uv_handle_t *)&readers->timer))
        uv_timer_stop(&readers->timer);
    ask_give_up(&readers->asking);
    readers->asked = false;
    readers->asked_ms = 0;
    events_rest(readers->events);
}

/* The first: whatever has happened meanwhile. False: no memory. */
static bool begin(struct readers *readers)
{
    struct web *web = readers->web;
    struct snapshot *snap;

    if (web->ops.picture(web->ops.ctx, &snap) < 0)
        return false;
    events_show(readers->events, snap, clock_ms());
    snapshot_unref(snap);
    readers_bell(readers);
    uv_timer_start(&readers->timer, on_timer, 0, EVENTS_STEP_MS);
    return true;
}

/* Those who follow stay: they leave room for who asks and goes, a probe before all. */
static enum MHD_Result refuse(struct exchange *ex, bool of_source)
{
    const struct limits *limits = &ex->web->limits;

    atomic_fetch_add(&ex->web->counters.closed_followers, 1);
    if (of_source)
        return reply_error(ex, 503,
                           "as many of one address follow this node as may (three quarters of "
                           "limits.admin_per_source: %" PRIu64 "); try again later",
                           limits->admin_per_source);
    if (limits->admin_followers <= arrival_may_follow(limits->admin_connections))
        return reply_error(ex, 503,
                           "as many follow this node as may (limits.admin_followers: %" PRIu64
                           "); try again later",
                           limits->admin_followers);
    return reply_error(ex, 503,
                       "as many follow this node as may (three quarters of "
                       "limits.admin_connections: %" PRIu64 "); try again later",
                       limits->admin_connections);
}

enum MHD_Result readers_answer(struct exchange *ex)
{
    struct web *web = ex->web;
    struct readers *readers = web->readers;
    struct reader *reader;
    size_t n = atomic_load(&web->counters.followers);
    bool first;

    if (n >= web->limits.admin_followers || n >= arrival_may_follow(web->limits.admin_connections))
        return refuse(ex, false);
    if (!arrival_follow(ex->conn))
        return refuse(ex, true);
    reader = calloc(1, sizeof *reader);
    if (!reader || follower_new(readers->events, clock_ms(), &reader->follower) < 0) {
        free(reader);
        return reply_error(ex, 503, "no memory for one more follower; try again later");
    }
    reader->stream = (struct stream){.fill = fill, .drop = drop};
    reader->readers = readers;
    atomic_fetch_add(&web->counters.followers, 1);
    first = ring_empty(&readers->all);
    ring_push(&readers->all, &reader->ring);
    if (first && !begin(readers)) {
        drop(&reader->stream);
        return reply_error(ex, 503, "no memory for a picture of the maps; try again later");
    }
    return reply_stream(ex, &reader->stream, "text/event-stream", NULL);
}

/* ---- from other threads ---- */

void web_show(struct web *web, struct snapshot *snap)
{
    struct readers *readers = web->readers;
    struct snapshot *passed_over;

    if (!atomic_load(&web->counters.followers))
        return; /* the first who comes takes a picture */
    mutex_lock(&readers->lock);
    passed_over = readers->held.shown;
    readers->held.shown = snapshot_ref(snap);
    mutex_unlock(&readers->lock);
    snapshot_unref(passed_over);
    uv_async_send(&web->bell);
}

struct told {
    struct post post;
    uint64_t when_s;
    const char *kind, *peer_id, *text; /* behind it */
};

static void read_told(struct web *web, struct post *post)
{
    struct told *told = CONTAINER_OF(post, struct told, post);

    events_tell(web->readers->events, told->kind, told->peer_id, told->text, told->when_s);
    free(told);
    atomic_fetch_sub(&web->readers->telling, 1);
    wake(web->readers);
}

void web_tell(struct web *web, const char *kind, const char *peer_id, const char *text,
              uint64_t when_s)
{
    size_t kind_len = strlen(kind) + 1, peer_len = strlen(peer_id) + 1, len = strlen(text) + 1;
    struct told *told;
    char *at;

    if (atomic_load(&web->readers->telling) >= EVENTS_LOG)
        return; /* more than is kept; the log has it */
    told = malloc(sizeof *told + kind_len + peer_len + len);
    if (!told)
        return;
    atomic_fetch_add(&web->readers->telling, 1);
    at = (char *)(told + 1);
    *told = (struct told){.post.read = read_told, .when_s = when_s};
    told->kind = memcpy(at, kind, kind_len);
    told->peer_id = memcpy(at + kind_len, peer_id, peer_len);
    told->text = memcpy(at + kind_len + peer_len, text, len);
    web_post(web, &told->post);
}
