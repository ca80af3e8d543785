/* watch - what comes, changes and goes, told one at a time.
 *
 * A message is kept until all in it has been told: its events, then what a picture has left out,
 * then that it is complete. Only differences to what was told before are told, so a picture after a
 * loss says what has changed meanwhile. */
#include "client/watch.h"
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "client/error.h"
#include "client/following.h"
#include "client/inside.h"
#include "client/kept.h"

struct mesh_watch {
    struct follow *follow;
    struct kept kept;
    struct kept_row *gone;              /* lent to the caller with MESH_DOWN until the next call */
    const Meshd__V1__WatchReply *reply; /* being told; NULL: none */
    size_t event;                       /* of it: the next one to be told */
    bool synced;                        /* MESH_SYNCED was told, and no MESH_AWAY after it */
};

struct news {
    enum mesh_change change;
    const struct mesh_instance *instance;
};

void mesh_watch_close(struct mesh_watch *watch)
{
    if (!watch)
        return;
    follow_free(watch->follow);
    kept_fini(&watch->kept);
    free(watch->gone);
    free(watch);
}

static void closep(struct mesh_watch **watch) { mesh_watch_close(*watch); }

static void take_reply(struct mesh_watch *watch, const Meshd__V1__WatchReply *reply)
{
    watch->reply = reply;
    watch->event = 0;
    if (reply->resync)
        kept_picture(&watch->kept);
}

enum mesh_status watch_open_url(const char *url, struct trust *trust, const char *name,
                                int deadline_ms, struct mesh_watch **out_watch)
{
    CLEANUP(closep) struct mesh_watch *watch = NULL;
    const Meshd__V1__WatchReply *reply;
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);

    if (status != MESH_OK)
        return status;
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return error_errno(-ENOMEM, "mesh_watch_open");
    status = following_new(url, trust, name, 0, &watch->follow);
    if (status == MESH_OK)
        status = following_first(watch->follow, deadline, &reply);
    if (status != MESH_OK)
        return status;
    take_reply(watch, reply);
    follow_ring(watch->follow); /* mesh_watch_next has something to do, whatever poll(2) saw */
    *out_watch = TAKE(&watch);
    return MESH_OK;
}

enum mesh_status mesh_watch_open(struct mesh_client *client, const char *name, int deadline_ms,
                                 struct mesh_watch **out_watch)
{
    return watch_open_url(mesh_client_url(client), client_trust(client), name, deadline_ms,
                          out_watch);
}

/* 1: *out_news is to be told; 0: nothing is new in it; -ENOMEM, -E2BIG. */
static int tell_row(struct mesh_watch *watch, const Meshd__V1__ServiceRow *row,
                    struct news *out_news)
{
    struct kept_row *now, *old = NULL;
    int r = kept_put(&watch->kept, row, &now, &old);

    free(old);
    if (r == KEPT_SAME || r == -EINVAL)
        return 0; /* what cannot be is passed over: a later version may have rows of that kind */
    if (r < 0)
        return r;
    *out_news = (struct news){r == KEPT_NEW ? MESH_UP : MESH_CHANGED, &now->instance};
    return 1;
}

static int tell_down(struct mesh_watch *watch, struct kept_row *row, struct news *out_news)
{
    if (!row)
        return 0;
    watch->gone = row;
    *out_news = (struct news){MESH_DOWN, &row->instance};
    return 1;
}

static int tell_event(struct mesh_watch *watch, const Meshd__V1__WatchEvent *event,
                      struct news *out_news)
{
    if (!event->row)
        return 0;
    switch (event->kind) {
    case MESHD__V1__WATCH_KIND__WATCH_KIND_UP:
    case MESHD__V1__WATCH_KIND__WATCH_KIND_CHANGED:
        return tell_row(watch, event->row, out_news);
    case MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN:
        return tell_down(watch, kept_take(&watch->kept, event->row), out_news);
    default:
        return 0;
    }
}

/* What is still to be told of the message at hand. As tell_row; after 0 there is no message. */
static int tell_reply(struct mesh_watch *watch, struct news *out_news)
{
    const Meshd__V1__WatchReply *reply = watch->reply;
    int r;

    if (!reply)
        return 0;
    while (watch->event < reply->n_events) {
        r = tell_event(watch, reply->events[watch->event], out_news);
        if (r < 0)
            return r; /* the same event next time */
        watch->event++;
        if (r > 0)
            return r;
    }
    if (reply->synced && tell_down(watch, kept_sweep(&watch->kept), out_news))
        return 1;
    watch->reply = NULL;
    if (!reply->synced)
        return 0;
    watch->synced = true;
    *out_news = (struct news){MESH_SYNCED, NULL};
    return 1;
}

static enum mesh_status next_news(struct mesh_watch *watch, uint64_t deadline_ms,
                                  struct news *out_news)
{
    for (bool looked = false;; looked = true) {
        const Meshd__V1__WatchReply *reply;
        int r = tell_reply(watch, out_news);

        if (r != 0)
            return r < 0 ? following_error(watch->follow, r) : MESH_OK;
        /* Messages without news may come without end. */
        if (looked && clock_ms() >= deadline_ms)
            return following_error(watch->follow, -ETIMEDOUT);
        r = follow_next(watch->follow, deadline_ms, &reply);
        if (r == 0) {
            take_reply(watch, reply);
        } else if (r != FOLLOW_LOST) {
            return following_error(watch->follow, r);
        } else if (watch->synced) {
            watch->synced = false;
            *out_news = (struct news){MESH_AWAY, NULL};
            return MESH_OK;
        }
    }
}

enum mesh_status mesh_watch_next(struct mesh_watch *watch, int deadline_ms,
                                 enum mesh_change *out_change,
                                 const struct mesh_instance **out_instance)
{
    struct news news = {MESH_SYNCED, NULL};
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);

    if (status != MESH_OK)
        return status;
    free(TAKE(&watch->gone));
    status = next_news(watch, deadline, &news);
    if (status != MESH_OK)
        return status;
    *out_change = news.change;
    *out_instance = news.instance;
    return MESH_OK;
}

int mesh_watch_fd(const struct mesh_watch *watch) { return follow_fd(watch->follow); }
