/* maps - see maps.h. */
#include "maps.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gate/gate.h"
#include "wire/rows.h"

#define EVENT_BYTES 256u

struct held {
    uint32_t value[MAPS_NAMES];
};

struct news {
    struct gate_news news; /* first */
    char names[][16];
};

static atomic_uint pictures;
_Atomic uint64_t maps_ahead;
_Atomic int maps_shut;

void maps_name(unsigned i, char out[16]) { snprintf(out, 16, "s%04u", i % 10000); }

static const char *source(unsigned i) { return i % 2 ? "192.0.2.1" : "192.0.2.0"; }

static const char *owner(unsigned i) { return i % 2 ? "p1" : "p0"; }

static bool put(struct rows *rows, unsigned i, uint32_t value, Meshd__V1__WatchKind kind)
{
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT;
    struct rows_shared shared;
    char name[16], key[32], backend[32];

    row.ip = (char *)source(i);
    row.peer_id = (char *)owner(i);
    rows_share(&shared, &row.base);
    maps_name(i, name);
    snprintf(key, sizeof(key), "%s@%s", name, source(i));
    snprintf(backend, sizeof(backend), "10.0.0.1:%u", value);
    return rows_put_event(rows, &shared, kind, "",
                          &(struct rows_row){.key = key,
                                             .key_len = strlen(key),
                                             .name_len = strlen(name),
                                             .backend = backend,
                                             .backend_len = strlen(backend)});
}

static size_t picture_part(void *ctx, void *picture, const struct gate_filter *filter,
                           struct gate_place *place, uint8_t *out, size_t cap, bool *out_over)
{
    const struct held *held = picture;
    struct rows rows = {.data = out, .cap = cap};
    char name[16];

    for (unsigned looks = 0; place->row < MAPS_NAMES && looks < 500; looks++, place->row++) {
        unsigned i = (unsigned)place->row;

        maps_name(i, name);
        if (held->value[i] && gate_filter_name(filter, name) &&
            gate_filter_peer(filter, source(i), owner(i)) &&
            !put(&rows, i, held->value[i], MESHD__V1__WATCH_KIND__WATCH_KIND_UP))
            break;
    }
    *out_over = place->row == MAPS_NAMES;
    return rows.len;
}

static void picture_drop(void *ctx, void *picture)
{
    atomic_fetch_sub(&pictures, 1);
    free(picture);
}

static void news_free(void *ctx, struct gate_news *news)
{
    free(news->events);
    free((void *)(uintptr_t)news->data);
    free(news);
}

static uint64_t revision(void *ctx) { return atomic_load(&maps_ahead); }

static bool may(void *ctx, const struct gate_peer *peer, char out_text[LIMIT_STATUS_TEXT + 1])
{
    snprintf(out_text, LIMIT_STATUS_TEXT + 1, "not %s", peer->local ? "a program" : peer->ip);
    return !atomic_load(&maps_shut);
}

struct gate_watch_ops maps_ops(void)
{
    return (struct gate_watch_ops){.picture_part = picture_part,
                                   .picture_drop = picture_drop,
                                   .revision = revision,
                                   .news_free = news_free,
                                   .may = may};
}

unsigned maps_pictures(void) { return atomic_load(&pictures); }

void maps_tell(struct maps *maps, bool reset)
{
    struct news *news;
    struct held *held = malloc(sizeof(*held));
    struct rows rows = {.data = NULL};
    size_t n = 0;

    for (unsigned i = 0; i < MAPS_NAMES; i++)
        n += maps->value[i] != maps->told[i];
    news = calloc(1, sizeof(*news) + n * sizeof(news->names[0]));
    rows.data = malloc(n * EVENT_BYTES + 1);
    rows.cap = n * EVENT_BYTES;
    news->news.events = calloc(n + 1, sizeof(struct gate_event));
    for (unsigned i = 0; i < MAPS_NAMES && !reset; i++) {
        if (maps->value[i] == maps->told[i])
            continue;
        if (!put(&rows, i, maps->value[i] ? maps->value[i] : maps->told[i],
                 !maps->value[i]  ? MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN
                 : !maps->told[i] ? MESHD__V1__WATCH_KIND__WATCH_KIND_UP
                                  : MESHD__V1__WATCH_KIND__WATCH_KIND_CHANGED))
            abort();
        maps_name(i, news->names[news->news.n_events]);
        news->news.events[news->news.n_events] =
            (struct gate_event){.name = news->names[news->news.n_events],
                                .source = source(i),
                                .peer_id = owner(i),
                                .end = rows.len};
        news->news.n_events++;
    }
    memcpy(held->value, maps->value, sizeof(held->value));
    memcpy(maps->told, maps->value, sizeof(maps->told));
    atomic_fetch_add(&pictures, 1);
    news->news.from = maps->revision++;
    news->news.to = maps->revision;
    news->news.reset = reset;
    news->news.data = rows.data;
    news->news.bytes = n * 400 + 100;
    news->news.picture = held;
    gate_tell(maps->gate, &news->news);
}

void maps_set(struct maps *maps, unsigned i, uint32_t value)
{
    maps->value[i] = value;
    maps_tell(maps, false);
}
