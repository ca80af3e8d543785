/* events - the texts of events, shared by who is told them; each follower's way through them. */
#include "web/events.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "registry/difference.h"
#include "web/picture.h"

#define GREETING "retry: 1000\n\n"
#define STRING_BYTES 512u /* of a text that somebody else has made */

/* ---- texts ---- */

struct text {
    unsigned refs;
    size_t len;
    char data[];
};

static struct text *text_ref(struct text *text)
{
    text->refs++;
    return text;
}

static void text_unref(struct text *text)
{
    if (text && --text->refs == 0)
        free(text);
}

static void text_replace(struct text **place, struct text *text)
{
    text_unref(*place);
    *place = text;
}

static bool put(struct picture_text *to, const char *text)
{
    return picture_put(to, text, strlen(text));
}

static bool put_number(struct picture_text *to, uint64_t number)
{
    char digits[24];

    snprintf(digits, sizeof digits, "%" PRIu64, number);
    return put(to, digits);
}

/* At most STRING_BYTES of it; what is not UTF-8, or is no longer, loses what is not ASCII. */
static bool put_string(struct picture_text *to, const char *string)
{
    size_t len = strnlen(string, STRING_BYTES);
    json_t *json = json_stringn(string, len);
    char ascii[STRING_BYTES];
    bool ok;

    if (!json) {
        for (size_t i = 0; i < len; i++)
            ascii[i] = (unsigned char)string[i] < 0x80 ? string[i] : '?';
        json = json_stringn(ascii, len);
    }
    ok = picture_value(to, json);
    json_decref(json);
    return ok;
}

static bool put_event(struct picture_text *to, const char *name)
{
    return put(to, "event: ") && put(to, name) && put(to, "\ndata: ");
}

static bool put_end(struct picture_text *to) { return put(to, "\n\n"); }

/* Takes from's bytes; NULL: no memory. */
static struct text *text_of(struct picture_text *from, bool ok)
{
    struct text *text = ok ? malloc(sizeof(*text) + from->len) : NULL;

    if (text) {
        text->refs = 1;
        text->len = from->len;
        memcpy(text->data, from->at, from->len);
    }
    free(from->at);
    return text;
}

/* ---- the whole ---- */

struct events {
    char *peer_id, *software;
    struct snapshot *newest, *told; /* told: what followers go on to */
    uint64_t told_ms;
    struct text *step; /* from step_from to told; NULL: too big, or not made */
    uint64_t step_from;
    bool step_made;
    struct text *node, *peers, *log[EVENTS_LOG];
    uint64_t node_number, peers_number, log_number; /* of the last; 0: none yet */
    uint64_t peers_ms;
    size_t n_peers; /* in the last */
};

struct follower {
    struct events *events;
    struct snapshot *told; /* what it knows, or is being shown */
    enum { FOLLOWER_NEW, FOLLOWER_PICTURE, FOLLOWER_STEPS } state;
    size_t owner, row;        /* the place in the picture; owner 0: the node itself */
    struct picture_text part; /* made for it alone ... */
    struct text *shared;      /* ... or for all; what is being sent */
    size_t sent;
    uint64_t node_number, peers_number, log_number;
    uint64_t spoke_ms;
};

int events_new(const char *peer_id, const char *software, struct events **out_events)
{
    struct events *events = calloc(1, sizeof(*events));

    if (!events)
        return -ENOMEM;
    events->peer_id = strdup(peer_id);
    events->software = strdup(software);
    if (!events->peer_id || !events->software) {
        events_free(events);
        return -ENOMEM;
    }
    *out_events = events;
    return 0;
}

void events_free(struct events *events)
{
    if (!events)
        return;
    snapshot_unref(events->newest);
    snapshot_unref(events->told);
    text_unref(events->step);
    text_unref(events->node);
    text_unref(events->peers);
    for (size_t i = 0; i < EVENTS_LOG; i++)
        text_unref(events->log[i]);
    free(events->peer_id);
    free(events->software);
    free(events);
}

void events_turn(struct events *events, uint64_t now_ms)
{
    if (!events->newest || events->newest == events->told ||
        (events->told && now_ms - events->told_ms < EVENTS_STEP_MS))
        return;
    snapshot_unref(events->told);
    events->told = snapshot_ref(events->newest);
    events->told_ms = now_ms;
    text_replace(&events->step, NULL);
    events->step_made = false;
}

void events_show(struct events *events, struct snapshot *snap, uint64_t now_ms)
{
    if (events->newest && snap->revision <= events->newest->revision)
        return;
    snapshot_unref(events->newest);
    events->newest = snapshot_ref(snap);
    events_turn(events, now_ms);
}

void events_rest(struct events *events)
{
    snapshot_unref(events->newest);
    snapshot_unref(events->told);
    events->newest = events->told = NULL;
    events->step_made = false;
    text_replace(&events->step, NULL);
    text_replace(&events->node, NULL);
    text_replace(&events->peers, NULL);
    events->node_number = events->peers_number = 0;
    events->n_peers = 0;
    events->peers_ms = 0;
}

/* ---- what all are told ---- */

/* A line end in data would end the field: each line is a field of its own. */
void events_node(struct events *events, const char *json, size_t len)
{
    struct picture_text text = {0};
    bool ok = put_event(&text, "node");
    struct text *node;

    while (len && json[len - 1] == '\n')
        len--;
    while (ok && len) {
        const char *end = memchr(json, '\n', len);
        size_t n = end ? (size_t)(end - json) : len;

        ok = picture_put(&text, json, n) && (!end || put(&text, "\ndata: "));
        json += end ? n + 1 : n;
        len -= end ? n + 1 : n;
    }
    node = text_of(&text, ok && put_end(&text));
    if (!node)
        return;
    text_replace(&events->node, node);
    events->node_number++;
}

bool events_peers_due(const struct events *events, uint64_t now_ms)
{
    return now_ms - events->peers_ms >= 1000u * (1 + events->n_peers / EVENTS_PEERS_A_SECOND);
}

void events_peers(struct events *events, const struct snapshot *snap, uint64_t now_ms)
{
    struct picture_text text = {0};
    bool ok = put_event(&text, "peers") && put(&text, "{\"revision\":") &&
              put_number(&text, snap->revision) && put(&text, ",\"peer_services\":[");
    struct text *peers;

    for (size_t i = 0; ok && i < snap->n_peers; i++)
        ok = (i == 0 || put(&text, ",")) && picture_peer_begin(&text, &snap->peers[i]) &&
             picture_peer_end(&text, &snap->peers[i]);
    events->peers_ms = now_ms;
    events->n_peers = snap->n_peers;
    peers = text_of(&text, ok && put(&text, "]}") && put_end(&text));
    if (!peers)
        return;
    text_replace(&events->peers, peers);
    events->peers_number++;
}

void events_tell(struct events *events, const char *kind, const char *peer_id, const char *text,
                 uint64_t when_s)
{
    struct picture_text line = {0};
    bool ok = put_event(&line, "log") && put(&line, "{\"when\":") && put_number(&line, when_s) &&
              put(&line, ",\"kind\":") && put_string(&line, kind) && put(&line, ",\"peer_id\":") &&
              put_string(&line, peer_id) && put(&line, ",\"text\":") && put_string(&line, text) &&
              put(&line, "}") && put_end(&line);
    struct text *entry = text_of(&line, ok);

    if (!entry)
        return;
    events->log_number++;
    text_replace(&events->log[events->log_number % EVENTS_LOG], entry);
}

/* ---- steps ---- */

struct step {
    const struct events *events;
    const struct snapshot_peer *peer,
        *old;             /* whose rows come; NULL: not there, or the node itself */
    json_t *now, *before; /* what they have in common */
    const char *why;
    struct picture_text rows;
};

static int on_owner(void *ctx, const struct difference_owner *owner)
{
    struct step *step = ctx;
    const char *self = step->events->peer_id;

    json_decref(step->now);
    json_decref(step->before);
    step->now = picture_services_of(owner->after, self);
    step->before = picture_services_of(owner->before, self);
    step->peer = owner->after;
    step->old = owner->before;
    step->why = owner->why;
    return step->now && step->before ? 0 : -ENOMEM;
}

static int on_row(void *ctx, struct row *before, struct row *after)
{
    struct step *step = ctx;
    struct picture_text *to = &step->rows;
    const char *kind = !after ? "down" : before ? "changed" : "up";
    bool ok = (to->len == 0 || put(to, ",")) && put(to, "{\"kind\":\"") && put(to, kind) &&
              put(to, "\",\"row\":") &&
              picture_service(to, after ? step->now : step->before, after ? step->peer : step->old,
                              after ? after : before) &&
              put(to, ",\"why\":\"") && put(to, after ? "" : step->why) && put(to, "\"}");

    if (!ok)
        return -ENOMEM;
    return to->len > EVENTS_STEP_BYTES;
}

/* NULL: too big, or no memory; a picture is told in parts. */
static struct text *make_step(const struct events *events, const struct snapshot *from)
{
    struct step step = {.events = events};
    struct picture_text text = {0};
    int r = snapshot_diff(from, events->told, &(struct difference_visit){&step, on_owner, on_row});
    bool ok = r == 0 && put_event(&text, "changes") && put(&text, "{\"revision\":") &&
              put_number(&text, events->told->revision) && put(&text, ",\"events\":[") &&
              (!step.rows.len || picture_put(&text, step.rows.at, step.rows.len)) &&
              put(&text, "]}") && put_end(&text);

    json_decref(step.now);
    json_decref(step.before);
    free(step.rows.at);
    return text_of(&text, ok);
}

/* A reference, or NULL. Most followers are where the others are. */
static struct text *step_from(struct events *events, const struct snapshot *from)
{
    if (!events->step_made || events->step_from != from->revision) {
        text_replace(&events->step, make_step(events, from));
        events->step_from = from->revision;
        events->step_made = true;
    }
    return events->step ? text_ref(events->step) : NULL;
}

/* ---- a follower ---- */

int follower_new(struct events *events, uint64_t now_ms, struct follower **out_follower)
{
    struct follower *f = calloc(1, sizeof(*f));

    if (!f)
        return -ENOMEM;
    f->events = events;
    f->spoke_ms = now_ms;
    if (events->log_number > EVENTS_LOG)
        f->log_number = events->log_number - EVENTS_LOG;
    *out_follower = f;
    return 0;
}

void follower_free(struct follower *follower)
{
    if (!follower)
        return;
    snapshot_unref(follower->told);
    text_unref(follower->shared);
    free(follower->part.at);
    free(follower);
}

/* A picture of the newest begins. */
static bool put_hello(struct follower *f)
{
    const struct events *events = f->events;
    struct picture_text *to = &f->part;
    bool first = f->state == FOLLOWER_NEW;

    snapshot_unref(f->told);
    f->told = snapshot_ref(events->told);
    f->state = FOLLOWER_PICTURE;
    f->owner = f->row = 0;
    return (!first || put(to, GREETING)) && put_event(to, "hello") && put(to, "{\"peer_id\":") &&
           put_string(to, events->peer_id) && put(to, ",\"epoch\":") &&
           put_number(to, f->told->epoch) && put(to, ",\"revision\":") &&
           put_number(to, f->told->revision) && put(to, ",\"software\":") &&
           put_string(to, events->software) && put(to, "}") && put_end(to);
}

/* Rows of one owner, as many as have room. True: all that were left. *out_ok: no memory. */
static bool put_owner(struct follower *f, bool *first, bool *out_ok)
{
    const struct snapshot_peer *peer = f->owner ? &f->told->peers[f->owner - 1] : NULL;
    CLEANUP(json_decrefp) json_t *common = picture_services_of(peer, f->events->peer_id);
    struct list_iter it;
    struct row *row;

    *out_ok = common != NULL;
    list_iter_seek(&it, peer ? peer->list : f->told->local, f->row);
    while (*out_ok && f->part.len < EVENTS_PART_BYTES) {
        row = list_iter_next(&it);
        if (!row)
            return true;
        *out_ok = (*first || put(&f->part, ",")) && picture_service(&f->part, common, peer, row);
        *first = false;
        f->row++;
    }
    return false;
}

/* The next rows of the picture, or its end. */
static bool put_rows(struct follower *f)
{
    bool first = true, ok = put_event(&f->part, "rows") && put(&f->part, "[");

    while (ok && f->owner <= f->told->n_peers && put_owner(f, &first, &ok)) {
        f->owner++;
        f->row = 0;
    }
    if (!ok || !first)
        return ok && put(&f->part, "]") && put_end(&f->part);
    f->part.len = 0;
    f->state = FOLLOWER_STEPS;
    return put_event(&f->part, "synced") && put(&f->part, "{\"revision\":") &&
           put_number(&f->part, f->told->revision) && put(&f->part, "}") && put_end(&f->part);
}

static bool put_step(struct follower *f)
{
    f->shared = step_from(f->events, f->told);
    if (!f->shared)
        return put_hello(f);
    snapshot_unref(f->told);
    f->told = snapshot_ref(f->events->told);
    return true;
}

static bool put_beat(struct follower *f)
{
    return put_event(&f->part, "beat") && put(&f->part, "{}") && put_end(&f->part);
}

static bool is_behind(const struct follower *f)
{
    const struct events *events = f->events;

    return f->state != FOLLOWER_STEPS ? events->told != NULL : f->told != events->told;
}

static bool has_others(const struct follower *f)
{
    const struct events *events = f->events;

    return f->state == FOLLOWER_STEPS &&
           (f->node_number != events->node_number || f->peers_number != events->peers_number ||
            f->log_number != events->log_number);
}

static bool beat_due(const struct follower *f, uint64_t now_ms)
{
    return now_ms - f->spoke_ms >= EVENTS_BEAT_MS;
}

bool follower_has_news(const struct follower *f, uint64_t now_ms)
{
    return f->part.len || f->shared || is_behind(f) || has_others(f) || beat_due(f, now_ms);
}

static struct text *next_other(struct follower *f)
{
    struct events *events = f->events;

    if (f->node_number != events->node_number) {
        f->node_number = events->node_number;
        return text_ref(events->node);
    }
    if (f->peers_number != events->peers_number) {
        f->peers_number = events->peers_number;
        return text_ref(events->peers);
    }
    if (events->log_number - f->log_number > EVENTS_LOG) /* too slow for some of it */
        f->log_number = events->log_number - EVENTS_LOG;
    f->log_number++;
    return text_ref(events->log[f->log_number % EVENTS_LOG]);
}

/* Something to send, if there is. False: no memory. */
static bool next_piece(struct follower *f, uint64_t now_ms)
{
    if (is_behind(f))
        return f->state == FOLLOWER_NEW       ? put_hello(f)
               : f->state == FOLLOWER_PICTURE ? put_rows(f)
                                              : put_step(f);
    if (has_others(f))
        f->shared = next_other(f);
    else if (beat_due(f, now_ms))
        return put_beat(f);
    return true;
}

ssize_t follower_read(struct follower *f, char *buf, size_t max, uint64_t now_ms)
{
    const char *from;
    size_t n;

    if (!f->part.len && !f->shared && !next_piece(f, now_ms))
        return -ENOMEM;
    if (!f->part.len && !f->shared)
        return 0;
    from = f->shared ? f->shared->data : f->part.at;
    n = (f->shared ? f->shared->len : f->part.len) - f->sent;
    if (n > max) {
        memcpy(buf, from + f->sent, max);
        f->sent += max;
    } else {
        memcpy(buf, from + f->sent, n);
        f->sent = 0;
        f->part.len = 0;
        if (f->state == FOLLOWER_STEPS) { /* seldom used from now on */
            free(f->part.at);
            f->part = (struct picture_text){0};
        }
        text_replace(&f->shared, NULL);
    }
    f->spoke_ms = now_ms;
    return (ssize_t)(n > max ? max : n);
}
