/* news - what is remembered of the changes, the pictures that are being read, and whom news
 * concerns.
 *
 * The log is a run of sequence numbers without gaps. A watcher that was told all of it has no place
 * in it: it gets one when news comes that concerns it. Those who watch one name are found by that
 * name, all others are asked one after the other; so a change costs what it concerns.
 */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "gate/inside.h"
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include "base/clock.h"
#include "base/hash.h"
#include "wire/name.h"

#define LOG_FIRST_CAP 64u
#define LOG_NEWS_MAX 65536u
#define COMES_BACK_MS 60000u /* followers try again every few seconds */

struct interest {
    struct ring watchers;
    UT_hash_handle hh;
    char name[];
};

bool gate_filter_peer(const struct gate_filter *filter, const char *source, const char *peer_id)
{
    return !filter->peer[0] || strcmp(filter->peer, source) == 0 ||
           strcmp(filter->peer, peer_id) == 0;
}

bool gate_filter_name(const struct gate_filter *filter, const char *name)
{
    if (filter->pattern)
        return name_glob(filter->name, name);
    return !filter->name[0] || strcmp(filter->name, name) == 0;
}

/* ---- pictures ---- */

static void picture_free(struct picture *picture)
{
    struct gate *gate = picture->gate;
    const struct gate_watch_ops *ops = &gate->news.ops;

    ring_drop(&picture->all);
    gate->news.log.n_pictures--;
    COUNT(gate, watch_pictures, -1);
    ops->picture_drop(ops->ctx, picture->maps);
    free(picture);
}

static void picture_unref(struct picture *picture)
{
    if (--picture->refs == 0)
        picture_free(picture);
}

/* Becomes the newest. False: no memory, and maps are still the caller's. */
static bool picture_new(struct gate *gate, void *maps)
{
    struct news_log *log = &gate->news.log;
    struct picture *picture = calloc(1, sizeof(*picture));

    if (!picture)
        return false;
    *picture = (struct picture){
        .gate = gate, .maps = maps, .revision = log->head, .seq = log->first + log->n, .refs = 1};
    ring_init(&picture->all);
    ring_init(&picture->readers);
    ring_push(&log->pictures, &picture->all);
    log->n_pictures++;
    COUNT(gate, watch_pictures, 1);
    if (log->newest)
        picture_unref(log->newest);
    log->newest = picture;
    return true;
}

/* The newest, unless as many older ones as may be are still being read: then the newest of those,
 * behind which the log goes on. */
struct picture *picture_enter(struct gate *gate, struct ring *reader)
{
    struct news_log *log = &gate->news.log;
    struct picture *picture = log->newest;

    if (picture && picture->refs == 1 && log->n_pictures > gate->limits.pinned_snapshots &&
        picture->all.prev != &log->pictures)
        picture = CONTAINER_OF(picture->all.prev, struct picture, all);
    if (!picture)
        return NULL;
    picture->refs++;
    ring_push(&picture->readers, reader);
    return picture;
}

void picture_leave(struct picture *picture, struct ring *reader)
{
    ring_drop(reader);
    picture_unref(picture);
}

/* Those whose news is not in the log any more are of no use to their readers. */
static void drop_old_pictures(struct gate *gate)
{
    struct news_log *log = &gate->news.log;

    for (struct ring *at = log->pictures.next, *next; at != &log->pictures; at = next) {
        struct picture *picture = CONTAINER_OF(at, struct picture, all);

        next = at->next;
        if (picture->seq >= log->first)
            return; /* they stand in order */
        picture->refs++;
        while (!ring_empty(&picture->readers))
            watcher_outdated(CONTAINER_OF(picture->readers.next, struct watcher, by_picture));
        picture_unref(picture);
    }
}

/* ---- the log ---- */

static void log_forget(struct gate *gate, size_t n)
{
    struct news_log *log = &gate->news.log;
    const struct gate_watch_ops *ops = &gate->news.ops;

    for (; n > 0; n--) {
        struct gate_news *news = log->at[log->first & (log->cap - 1)];

        log->bytes -= news->bytes;
        COUNT(gate, watch_log_bytes, -news->bytes);
        ops->news_free(ops->ctx, news);
        log->first++;
        log->n--;
    }
}

static bool log_grow(struct news_log *log)
{
    size_t cap = log->cap ? 2 * log->cap : LOG_FIRST_CAP;
    struct gate_news **at = calloc(cap, sizeof(struct gate_news *));

    if (!at)
        return false;
    for (uint64_t seq = log->first; seq < log->first + log->n; seq++)
        at[seq & (cap - 1)] = log->at[seq & (log->cap - 1)];
    free(log->at);
    log->at = at;
    log->cap = cap;
    return true;
}

/* False: it cannot be remembered, and was freed. */
static bool log_add(struct gate *gate, struct gate_news *news)
{
    struct news_log *log = &gate->news.log;
    const struct gate_watch_ops *ops = &gate->news.ops;
    uint64_t most = gate->limits.watch_log_bytes;

    if (news->reset || news->bytes > most || (log->n == log->cap && !log_grow(log))) {
        ops->news_free(ops->ctx, news);
        return false;
    }
    while (log->n > 0 && (log->bytes + news->bytes > most || log->n >= LOG_NEWS_MAX))
        log_forget(gate, 1);
    log->at[(log->first + log->n) & (log->cap - 1)] = news;
    log->n++;
    log->bytes += news->bytes;
    COUNT(gate, watch_log_bytes, news->bytes);
    return true;
}

const struct gate_news *news_at(const struct gate *gate, uint64_t seq)
{
    const struct news_log *log = &gate->news.log;

    return seq >= log->first && seq - log->first < log->n ? log->at[seq & (log->cap - 1)] : NULL;
}

bool news_resume(const struct gate *gate, uint64_t revision, uint64_t *out_seq)
{
    const struct news_log *log = &gate->news.log;
    uint64_t lo = log->first, hi = log->first + log->n;

    if (!log->newest || revision > log->head ||
        revision < (log->n ? news_at(gate, lo)->from : log->head))
        return false;
    while (lo < hi) { /* the first that ends behind it */
        uint64_t mid = lo + (hi - lo) / 2;

        if (news_at(gate, mid)->to <= revision)
            lo = mid + 1;
        else
            hi = mid;
    }
    *out_seq = lo;
    return true;
}

/* ---- whom it concerns ---- */

bool interest_join(struct gate *gate, struct watcher *watcher)
{
    const struct gate_filter *filter = &watcher->filter;
    size_t len = strlen(filter->name);
    struct interest *interest = NULL;

    if (filter->pattern || len == 0)
        return true;
    HASH_FIND(hh, gate->news.interests, filter->name, len, interest);
    if (!interest) {
        interest = calloc(1, sizeof(*interest) + len + 1);
        if (!interest)
            return false;
        memcpy(interest->name, filter->name, len + 1);
        ring_init(&interest->watchers);
        HASH_ADD_KEYPTR(hh, gate->news.interests, interest->name, len, interest);
        if (!interest->hh.tbl) {
            free(interest);
            return false;
        }
    }
    watcher->interest = interest;
    ring_push(&interest->watchers, &watcher->by_interest);
    return true;
}

void interest_leave(struct gate *gate, struct watcher *watcher)
{
    struct interest *interest = TAKE(&watcher->interest);

    ring_drop(&watcher->by_interest);
    if (!interest || !ring_empty(&interest->watchers))
        return;
    HASH_DEL(gate->news.interests, interest);
    free(interest);
}

static void wake(struct watcher *watcher, uint64_t seq)
{
    if (!watcher->idle)
        return;
    watcher->idle = false;
    watcher->seq = seq;
    watcher->event = 0;
    watcher_ready(watcher);
}

static void tell_whom_it_concerns(struct gate *gate, const struct gate_news *news, uint64_t seq)
{
    for (size_t i = 0; i < news->n_events && gate->news.interests; i++) {
        const char *name = news->events[i].name;
        struct interest *interest = NULL;

        HASH_FIND(hh, gate->news.interests, name, strlen(name), interest);
        if (!interest)
            continue;
        for (struct ring *at = interest->watchers.next; at != &interest->watchers; at = at->next)
            wake(CONTAINER_OF(at, struct watcher, by_interest), seq);
    }
    while (!ring_empty(&gate->news.idle)) {
        struct watcher *watcher = CONTAINER_OF(gate->news.idle.next, struct watcher, by_interest);

        ring_drop(&watcher->by_interest);
        wake(watcher, seq);
    }
}

/* Nobody can go on from what was told before. */
static void begin_anew(struct gate *gate)
{
    struct news_log *log = &gate->news.log;

    log_forget(gate, log->n);
    log->first++; /* not even from its end */
    if (gate->count.watchers == 0)
        return;
    for (struct ring *at = gate->conns.next; at != &gate->conns; at = at->next) {
        struct watcher *watcher = CONTAINER_OF(at, struct conn, all)->watcher;

        if (watcher && watcher->idle)
            watcher_outdated(watcher);
    }
}

void news_tell(struct gate *gate, struct gate_news *news)
{
    struct news_log *log = &gate->news.log;
    void *maps = news->picture;
    bool first = !log->newest, remembered;

    log->head = news->to;
    news->reset |= first;
    remembered = log_add(gate, news);
    if (!remembered)
        begin_anew(gate);
    if (!picture_new(gate, maps)) {
        /* The one before stays the newest: the log leads on from it, unless it was begun anew. */
        const struct gate_watch_ops *ops = &gate->news.ops;

        if (!remembered)
            abort(); /* for a hundred bytes; nobody could be told anything from here on */
        ops->picture_drop(ops->ctx, maps);
    }
    drop_old_pictures(gate);
    if (remembered)
        tell_whom_it_concerns(gate, news, log->first + log->n - 1);
    while (!ring_empty(&gate->news.wait)) {
        struct watcher *watcher = CONTAINER_OF(gate->news.wait.next, struct watcher, ready);

        ring_drop(&watcher->ready);
        watcher_ready(watcher);
    }
}

bool gate_watched(struct gate *gate)
{
    uint64_t left_ms = __atomic_load_n(&gate->news.left_ms, __ATOMIC_RELAXED);

    return __atomic_load_n(&gate->count.watchers, __ATOMIC_RELAXED) > 0 ||
           (left_ms > 0 && clock_ms() - left_ms < COMES_BACK_MS);
}

/* ---- the whole ---- */

void news_init(struct news *news, uint64_t epoch, const struct gate_watch_ops *ops)
{
    news->epoch = epoch;
    news->ops = *ops;
    ring_init(&news->log.pictures);
    ring_init(&news->idle);
    ring_init(&news->ready);
    ring_init(&news->wait);
}

void news_fini(struct gate *gate)
{
    struct news_log *log = &gate->news.log;

    log_forget(gate, log->n);
    if (log->newest)
        picture_unref(log->newest);
    free(log->at);
}
