/* watch - what watchers of this node are told: a picture of its maps, then the news.
 *
 * News is the difference between two revisions, made elsewhere, packed once and sent to everybody
 * whom it concerns. The gate remembers it in a log of bounded length (limits.watch_log_bytes), so
 * that a watcher may go on where it was; a watcher whose place is not in the log any more gets a
 * picture, which begins with `resync`. What a watcher has not read holds at most 64 KiB of the
 * gate's buffers, less when there are many watchers, and nothing else; after a minute it is closed.
 *
 * Threads:   gate_tell: any thread. The operations are called on the gate's thread and must not
 *            block, but `revision` for the maps' lock; news and pictures never change.
 * Ownership: news and pictures are the gate's once told; it gives them back by the operations.
 */
#ifndef GATE_WATCH_H
#define GATE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"

struct gate;
struct gate_peer;

/* Which rows a watcher asked for; empty strings: all. */
struct gate_filter {
    char name[LIMIT_NAME + 1]; /* a name, or a pattern (name_glob of wire/name.h) */
    bool pattern;
    char peer[LIMIT_LABEL_TEXT]; /* "local", a source label, or a peer id */
};
bool gate_filter_peer(const struct gate_filter *filter, const char *source, const char *peer_id);
bool gate_filter_name(const struct gate_filter *filter, const char *name);

/* Strings are borrowed from the news. */
struct gate_event {
    const char *name, *source, *peer_id;
    size_t end; /* of its bytes in data; they begin where those of the event before end */
};

struct gate_news {
    uint64_t from, to;         /* revisions; from is the `to` of the news before */
    bool reset;                /* the difference is not told: everybody gets a picture */
    struct gate_event *events; /* by name (strcmp); each row once */
    size_t n_events;
    const uint8_t *data; /* WatchEvents, each with its tag and length as in WatchReply.events */
    size_t bytes;        /* of memory, all in all */
    void *picture;       /* the maps as of `to` */
};

struct gate_place { /* in a picture; all zero: its beginning */
    size_t list, row;
};

struct gate_watch_ops { /* all NULL: nothing can be watched here */
    void *ctx;
    /* Packs matching rows from *place on as UP events, like gate_news.data, into out, as many as
     * have room (cap is never less than one needs), and moves *place. Looks at a bounded number of
     * rows, so that it may return 0 and yet not be at the end; *out_over says when it is. */
    size_t (*picture_part)(void *ctx, void *picture, const struct gate_filter *filter,
                           struct gate_place *place, uint8_t *out, size_t cap, bool *out_over);
    void (*picture_drop)(void *ctx, void *picture);
    /* The revision of what is watched now, of which news may still be on its way: whoever asks is
     * told at least that before `synced`. */
    uint64_t (*revision)(void *ctx);
    /* Whether that one may watch; asked when it begins, once in each of its heartbeats, and by
     * gate_check_again. If it may not, out_text says why. NULL: everybody may. */
    bool (*may)(void *ctx, const struct gate_peer *peer, char out_text[LIMIT_STATUS_TEXT + 1]);
    /* The news without its picture. */
    void (*news_free)(void *ctx, struct gate_news *news);
};

/* Takes news. In the order of revisions, and after gate_start; after gate_stop it is given back. */
void gate_tell(struct gate *gate, struct gate_news *news);
/* Whether anybody watches, or did within the last minute and may come back: otherwise news with
 * `reset` does. Any thread. */
bool gate_watched(struct gate *gate);

#endif
