/* feed - the difference of two snapshots, packed once for everybody.
 *
 * What differs is collected first, put in the order of names, then packed. Rows are kept by
 * reference until the gate forgets the news.
 */
#include "daemon/feed.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "daemon/owner.h"
#include "daemon/policy.h"
#include "gate/gate.h"
#include "registry/difference.h"

#define EVENT_BYTES 2048u    /* no event is longer */
#define LOOKS_PER_PART 2000u /* rows looked at for one part of a picture */
#define ITEM_LEAST 128u      /* an event takes at least so many bytes of the log */

struct feed {
    struct gate *gate;
    const char *peer_id;
    _Atomic size_t most_bytes; /* to tell one change with */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct { /* only with lock held */
        struct snapshot *next;
        bool stopping;
    } held;
    struct snapshot *told; /* the thread's */
};

/* ---- the difference ---- */

struct owner {
    struct owner *next;
    char label[LIMIT_LABEL_TEXT], peer_id[LIMIT_PEER_ID + 1];
    const char *why; /* its rows go */
    bool draining;
    struct rows_shared shared;
};

struct item {
    struct row *row;
    const struct owner *owner;
    Meshd__V1__WatchKind kind;
};

/* News with what it keeps. */
struct told {
    struct gate_news news; /* first */
    struct owner *owners;
    struct row **rows;
    size_t n_rows;
};

struct diff {
    struct feed *feed;
    struct owner *owners;
    const struct owner *now, *before; /* of the rows that are compared */
    struct item *items;
    size_t n, cap, owners_bytes;
    bool too_much;
};

static void free_owners(struct owner *owners)
{
    for (struct owner *next; owners; owners = next) {
        next = owners->next;
        free(owners);
    }
}

static const struct owner *add_owner(struct diff *d, const struct snapshot_peer *peer,
                                     const char *why)
{
    struct owner *owner = calloc(1, sizeof(*owner));

    if (!owner)
        return NULL;
    snprintf(owner->label, sizeof(owner->label), "%s", peer ? peer->label : "local");
    snprintf(owner->peer_id, sizeof(owner->peer_id), "%s", peer ? peer->peer_id : d->feed->peer_id);
    owner->why = why;
    owner->draining = peer && peer->state.draining;
    owner_share(peer, d->feed->peer_id, false, &owner->shared);
    owner->next = d->owners;
    d->owners = owner;
    d->owners_bytes += sizeof(*owner);
    return owner;
}

static int add_item(struct diff *d, struct row *row, const struct owner *owner,
                    Meshd__V1__WatchKind kind)
{
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 64;
        struct item *items =
            cap > d->feed->most_bytes / ITEM_LEAST ? NULL : realloc(d->items, cap * sizeof(*items));

        if (!items) {
            d->too_much = true;
            return 1;
        }
        d->items = items;
        d->cap = cap;
    }
    d->items[d->n++] = (struct item){row, owner, kind};
    return 0;
}

static int on_row(void *ctx, struct row *before, struct row *after)
{
    struct diff *d = ctx;

    if (!after)
        return add_item(d, before, d->before, MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN);
    return add_item(d, after, d->now,
                    before ? MESHD__V1__WATCH_KIND__WATCH_KIND_CHANGED
                           : MESHD__V1__WATCH_KIND__WATCH_KIND_UP);
}

static int on_owner(void *ctx, const struct difference_owner *owner)
{
    struct diff *d = ctx;

    d->now = add_owner(d, owner->after ? owner->after : owner->before, "");
    d->before = add_owner(d, owner->before ? owner->before : owner->after, owner->why);
    d->too_much = !d->now || !d->before;
    return d->too_much;
}

/* Of one name what goes is first: its key may have come back. */
static int by_name(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = strcmp(x->row->name, y->row->name);

    return order != 0 ? order
                      : (y->kind == MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN) -
                            (x->kind == MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN);
}

/* ---- news ---- */

static void told_free(struct told *told)
{
    for (size_t i = 0; i < told->n_rows; i++)
        row_unref(told->rows[i]);
    free(told->rows);
    free(told->news.events);
    free((void *)(uintptr_t)told->news.data);
    free_owners(told->owners);
    free(told);
}

static bool room_for_one(struct rows *rows)
{
    size_t cap = rows->cap ? 2 * rows->cap : 2 * EVENT_BYTES;
    uint8_t *data;

    if (rows->cap - rows->len >= EVENT_BYTES)
        return true;
    data = realloc(rows->data, cap);
    if (!data)
        return false;
    rows->data = data;
    rows->cap = cap;
    return true;
}

static bool pack_items(struct diff *d, struct told *told, struct rows *rows)
{
    size_t rows_bytes = 0;
    uint8_t *data;

    told->rows = calloc(d->n, sizeof(struct row *));
    told->news.events = calloc(d->n, sizeof(struct gate_event));
    if (!told->rows || !told->news.events)
        return false;
    qsort(d->items, d->n, sizeof(*d->items), by_name);
    for (size_t i = 0; i < d->n; i++) {
        const struct item *item = &d->items[i];
        const struct owner *owner = item->owner;
        struct row *row = item->row;
        const struct rows_row own = owner_row(row, owner->draining);
        bool down = item->kind == MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN;

        if (rows->len > d->feed->most_bytes || !room_for_one(rows) ||
            !rows_put_event(rows, &owner->shared, item->kind, down ? owner->why : "", &own))
            return false;
        told->rows[told->n_rows++] = row_ref(row);
        told->news.events[told->news.n_events++] = (struct gate_event){
            .name = row->name,
            .source = owner->label,
            .peer_id = owner->peer_id,
            .end = rows->len,
        };
        rows_bytes += (size_t)row->key_len + row->name_len + row->backend_len;
    }
    data = realloc(rows->data, rows->len); /* most news is small, and it stays for long */
    if (data) {
        rows->data = data;
        rows->cap = rows->len;
    }
    told->news.bytes = sizeof(*told) + d->owners_bytes + rows->cap + rows_bytes +
                       d->n * (sizeof(struct row *) + sizeof(struct gate_event) + ITEM_LEAST);
    return true;
}

/* Whatever cannot be told as a difference is told as a picture. */
static struct told *news_of(struct feed *feed, struct snapshot *to)
{
    const struct snapshot *from = gate_watched(feed->gate) ? feed->told : NULL;
    struct diff d = {.feed = feed};
    struct rows rows = {.data = NULL};
    struct told *told = calloc(1, sizeof(*told));

    if (!told)
        abort(); /* a change that is never told would be silent loss */
    if (from)
        snapshot_diff(from, to, &(struct difference_visit){&d, on_owner, on_row});
    if (d.n == 0)
        free_owners(TAKE(&d.owners));
    told->owners = d.owners;
    told->news.bytes = sizeof(*told);
    told->news.reset = !from || d.too_much || (d.n > 0 && !pack_items(&d, told, &rows));
    told->news.data = rows.data;
    told->news.from = feed->told ? feed->told->revision : 0;
    told->news.to = to->revision;
    told->news.picture = snapshot_ref(to);
    free(d.items);
    return told;
}

/* ---- the thread ---- */

static struct snapshot *wait_for_next(struct feed *feed)
{
    struct snapshot *next;

    pthread_mutex_lock(&feed->lock);
    while (!feed->held.next && !feed->held.stopping)
        pthread_cond_wait(&feed->wake, &feed->lock);
    next = feed->held.stopping ? NULL : TAKE(&feed->held.next);
    pthread_mutex_unlock(&feed->lock);
    return next;
}

static void *run(void *arg)
{
    struct feed *feed = arg;
    struct snapshot *next;

    pthread_setname_np(pthread_self(), "feed");
    while ((next = wait_for_next(feed)) != NULL) {
        if (!feed->told || next->revision > feed->told->revision)
            gate_tell(feed->gate, &news_of(feed, next)->news);
        snapshot_unref(feed->told);
        feed->told = next;
    }
    return NULL;
}

void feed_set_limits(struct feed *feed, const struct limits *limits)
{
    feed->most_bytes = limits->watch_log_bytes;
}

int feed_start(struct gate *gate, const char *peer_id, const struct limits *limits,
               struct feed **out_feed)
{
    struct feed *feed = calloc(1, sizeof(*feed));
    sigset_t all, old;
    int r;

    if (!feed)
        return -ENOMEM;
    feed->gate = gate;
    feed->peer_id = peer_id;
    feed_set_limits(feed, limits);
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->wake, NULL);
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&feed->thread, NULL, run, feed);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r) {
        pthread_cond_destroy(&feed->wake);
        pthread_mutex_destroy(&feed->lock);
        free(feed);
        return -r;
    }
    *out_feed = feed;
    return 0;
}

void feed_show(struct feed *feed, struct snapshot *snap)
{
    struct snapshot *passed_over;

    pthread_mutex_lock(&feed->lock);
    passed_over = feed->held.next;
    feed->held.next = snap;
    pthread_cond_signal(&feed->wake);
    pthread_mutex_unlock(&feed->lock);
    snapshot_unref(passed_over);
}

void feed_stop(struct feed *feed)
{
    if (!feed)
        return;
    pthread_mutex_lock(&feed->lock);
    feed->held.stopping = true;
    pthread_cond_signal(&feed->wake);
    pthread_mutex_unlock(&feed->lock);
    pthread_join(feed->thread, NULL);
    snapshot_unref(feed->held.next);
    snapshot_unref(feed->told);
    pthread_cond_destroy(&feed->wake);
    pthread_mutex_destroy(&feed->lock);
    free(feed);
}

/* ---- pictures ---- */

struct part {
    const struct gate_filter *filter;
    struct gate_place *place;
    struct rows rows;
    size_t looks;
    bool full;
};

static void put_row(struct part *p, const struct rows_shared *owner,
                    const struct snapshot_peer *peer, const struct row *row)
{
    const struct rows_row own = owner_row(row, peer && peer->state.draining);

    p->full = !rows_put_event(&p->rows, owner, MESHD__V1__WATCH_KIND__WATCH_KIND_UP, "", &own);
}

/* The only row that is asked for, if the list has it. True: it had room. */
static bool put_one(struct part *p, const struct snapshot_peer *peer, const char *self,
                    const struct list *list)
{
    const struct row *row = list_find(list, p->filter->name, strlen(p->filter->name));
    struct rows_shared owner;

    p->looks++;
    if (!row)
        return true;
    owner_share(peer, self, false, &owner);
    put_row(p, &owner, peer, row);
    return !p->full;
}

/* The rows of one list from place->row on, as far as there is room. True: to its end. */
static bool put_list(struct part *p, const struct snapshot_peer *peer, const char *self,
                     const struct list *list)
{
    struct rows_shared owner;
    const struct row *row;
    struct list_iter it;

    p->looks++;
    owner_share(peer, self, false, &owner);
    list_iter_seek(&it, list, p->place->row);
    while (p->looks < LOOKS_PER_PART && (row = list_iter_next(&it)) != NULL) {
        p->looks++;
        if (gate_filter_name(p->filter, row->name))
            put_row(p, &owner, peer, row);
        if (p->full)
            return false;
        p->place->row++;
    }
    return p->place->row >= list_count(list);
}

static size_t picture_part(void *ctx, void *picture, const struct gate_filter *filter,
                           struct gate_place *place, uint8_t *out, size_t cap, bool *out_over)
{
    const struct snapshot *snap = picture;
    const char *self = ((const struct feed_source *)ctx)->peer_id;
    struct part p = {.filter = filter, .place = place, .rows = {.data = out, .cap = cap}};
    bool one = filter->name[0] && !filter->pattern;

    for (; place->list <= snap->n_peers && p.looks < LOOKS_PER_PART;
         place->list++, place->row = 0) {
        const struct snapshot_peer *peer = place->list ? &snap->peers[place->list - 1] : NULL;
        const struct list *list = peer ? peer->list : snap->local;

        if (!gate_filter_peer(filter, peer ? peer->label : "local", peer ? peer->peer_id : self))
            continue;
        if (!(one ? put_one(&p, peer, self, list) : put_list(&p, peer, self, list)))
            break;
    }
    *out_over = place->list > snap->n_peers;
    return p.rows.len;
}

static void picture_drop(void *ctx, void *picture) { snapshot_unref(picture); }

static void news_free(void *ctx, struct gate_news *news)
{
    told_free(CONTAINER_OF(news, struct told, news));
}

static uint64_t revision(void *ctx)
{
    return registry_revision(((const struct feed_source *)ctx)->registry);
}

static bool may(void *ctx, const struct gate_peer *peer, char out_text[LIMIT_STATUS_TEXT + 1])
{
    const char *subject = policy_subject(peer);
    char rule[POLICY_RULE_TEXT];

    if (policy_allows(((const struct feed_source *)ctx)->policy, POLICY_INTROSPECT, subject, "",
                      rule))
        return true;
    policy_refusal_text(POLICY_INTROSPECT, subject, "", rule, out_text, LIMIT_STATUS_TEXT + 1);
    return false;
}

struct gate_watch_ops feed_watch_ops(const struct feed_source *source)
{
    return (struct gate_watch_ops){.ctx = (void *)(uintptr_t)source,
                                   .picture_part = picture_part,
                                   .picture_drop = picture_drop,
                                   .revision = revision,
                                   .may = may,
                                   .news_free = news_free};
}
