/* sync - the sending half keeps a window of parts open; the receiving half answers each part with
 * an acknowledgement, or the whole with "I want everything".
 */
#include "node/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "node/inside.h"

#define REPAIR_MIN_MS 1000u
#define REPAIR_MAX_MS 30000u
/* A part is acknowledged whole, so its size is what a slow wire shows as progress: two of the least
 * pass within the silence allowed at 1 KiB/s, and a fast wire has the largest after five parts. */
#define PART_LEAST 4096u
#define PART_FAST_MS 500u
#define PART_SLOW_MS 2000u
#define RETRY_MS 50u /* the link's queue was full */
/* Of a packed Sync: its fixed fields; and of one entry: its tags, lengths and flags. */
#define PART_HEAD 128u
#define ENTRY_HEAD 16u
/* Heartbeats overtake Sync parts, and two links carry the same news: one that speaks of another
 * pair than the one known is believed when it comes again. */
#define BEHIND_BEATS 2u

void sync_init(struct link *l)
{
    backoff_init(&l->out.repair, REPAIR_MIN_MS, REPAIR_MAX_MS);
    backoff_init(&l->in.repair, REPAIR_MIN_MS, REPAIR_MAX_MS);
    l->out.part_bytes = PART_LEAST;
}

/* ---- telling ---- */

static void drop_target(struct sync_out *o)
{
    for (size_t i = 0; i < o->n_changes; i++)
        row_unref(o->changes[i].row);
    o->n_changes = 0;
    o->at = 0;
    list_unref(o->target);
    o->target = NULL;
    o->held = NULL;
    o->next_part = o->acked = 0;
    o->sent_all = false;
}

static void drop_staging(struct node *n, struct sync_in *in)
{
    if (in->under_way)
        staging_fini(n, &in->staging);
    in->under_way = false;
}

void sync_fini(struct node *n, struct link *l)
{
    drop_target(&l->out);
    list_unref(l->out.base);
    free(l->out.changes);
    drop_staging(n, &l->in);
}

static int add_change(void *ctx, struct row *before, struct row *after)
{
    struct sync_out *o = ctx;
    struct sync_change *changes;
    size_t cap;

    if (o->n_changes == o->cap_changes) {
        cap = o->cap_changes ? o->cap_changes * 2 : 4;
        changes = realloc(o->changes, cap * sizeof(*changes));
        if (!changes)
            return -ENOMEM;
        o->changes = changes;
        o->cap_changes = cap;
    }
    o->changes[o->n_changes++] =
        (struct sync_change){.row = row_ref(after ? after : before), .gone = !after};
    return 0;
}

/* True when there is something to tell now. */
static bool begin(struct node *n, struct link *l)
{
    struct sync_out *o = &l->out;

    if (o->want_full && n->now_ms < o->not_before_ms) {
        node_due(n, o->not_before_ms);
        return false;
    }
    o->full = o->want_full || !o->base || o->base_incarnation != n->incarnation;
    if (!o->full && o->base_version == n->local.version)
        return false;
    o->made_us = o->changed_us;
    o->changed_us = 0;
    o->target = list_ref(n->local.list);
    o->incarnation = n->incarnation;
    o->version = n->local.version;
    o->want_full = false;
    if (o->full) {
        list_iter_init(&o->iter, o->target);
        o->held = list_iter_next(&o->iter);
    } else if (list_diff(o->base, o->target, add_change, o) < 0) {
        drop_target(o);
        node_due(n, n->now_ms + REPAIR_MIN_MS);
        return false;
    }
    n->counters.syncs_sent++;
    return true;
}

/* The next row to tell, or NULL; *out_gone: it is not offered any more. */
static const struct row *peek(const struct sync_out *o, bool *out_gone)
{
    if (o->full) {
        *out_gone = false;
        return o->held;
    }
    if (o->at == o->n_changes)
        return NULL;
    *out_gone = o->changes[o->at].gone;
    return o->changes[o->at].row;
}

static void advance(struct sync_out *o)
{
    if (o->full)
        o->held = list_iter_next(&o->iter);
    else
        o->at++;
}

static void put_service(struct node *n, size_t index, const struct row *row)
{
    meshd__v1__service__init(&n->scratch[index]);
    n->scratch[index].name = (char *)row->name;
    n->scratch[index].backend_addr = (char *)row->backend;
    n->scratch[index].unhealthy = (row->flags & ROW_UNHEALTHY) != 0;
    n->scratch[index].draining = (row->flags & ROW_DRAINING) != 0;
}

static void point_at_services(struct node *n, size_t count)
{
    for (size_t i = 0; i < count; i++)
        n->scratch_at[i] = &n->scratch[i];
}

static int fill_part(struct node *n, struct sync_out *o, Meshd__V1__Sync *part)
{
    size_t used = PART_HEAD, size;
    const struct row *row;
    bool gone;
    int r;

    while ((row = peek(o, &gone))) {
        size = ENTRY_HEAD + row->name_len + (gone ? 0u : row->backend_len);
        if (used + size > o->part_bytes)
            break;
        r = node_scratch(n, part->n_entries + part->n_removed + 1);
        if (r < 0)
            return r;
        if (gone)
            n->scratch_names[part->n_removed++] = (char *)row->name;
        else
            put_service(n, part->n_entries++, row);
        used += size;
        advance(o);
    }
    point_at_services(n, part->n_entries);
    part->entries = n->scratch_at;
    part->removed = n->scratch_names;
    return 0;
}

static bool send_part(struct node *n, struct link *l)
{
    Meshd__V1__Sync part = MESHD__V1__SYNC__INIT;
    struct sync_out *o = &l->out, before = *o;
    bool gone;
    int r = fill_part(n, o, &part);

    part.incarnation = o->incarnation;
    part.version = o->version;
    part.base_version = o->full ? 0 : o->base_version;
    part.part = o->next_part;
    part.last = !peek(o, &gone);
    part.draining = o->draining = n->draining;
    part.digest = list_digest(o->target);
    part.count = (uint32_t)list_count(o->target);
    part.age_us = measure_age_us(n, o);
    if (r == 0)
        r = link_send(n, l, NODE_BULK, KIND(SYNC), &part.base);
    if (r < 0) {
        *o = before;
        return false;
    }
    o->sent_ms[o->next_part++ % LIMIT_SYNC_IN_FLIGHT] = n->now_ms;
    o->sent_all = part.last;
    n->counters.sync_parts_sent++;
    return true;
}

void sync_run(struct node *n, struct link *l)
{
    struct sync_out *o = &l->out;

    measure_change(n, o);
    if (!link_in_session(l) || (!o->target && !begin(n, l)))
        return;
    while (!o->sent_all && o->next_part - o->acked < LIMIT_SYNC_IN_FLIGHT) {
        if (!send_part(n, l)) {
            node_due(n, n->now_ms + RETRY_MS);
            return;
        }
    }
}

void sync_run_all(struct node *n)
{
    struct link *l, *next;

    HASH_ITER(hh, n->links, l, next)
    sync_run(n, l);
}

void sync_restart_all(struct node *n)
{
    struct link *l, *next;

    HASH_ITER(hh, n->links, l, next)
    {
        drop_target(&l->out);
        sync_run(n, l);
    }
}

static void want_full(struct node *n, struct sync_out *o)
{
    drop_target(o);
    if (o->wanted_ms == 0 || n->now_ms - o->wanted_ms > 2 * REPAIR_MAX_MS) {
        backoff_reset(&o->repair);
        o->not_before_ms = n->now_ms;
    } else {
        o->not_before_ms = n->now_ms + backoff_next(&o->repair, node_random(n));
    }
    o->wanted_ms = n->now_ms;
    o->want_full = true;
}

static void tell_refused(struct node *n, struct link *l, const Meshd__V1__SyncAck *ack)
{
    struct sync_out *o = &l->out;
    char text[LIMIT_STATUS_TEXT + 1];
    const Meshd__V1__Refused *first = ack->n_refused ? ack->refused[0] : NULL;

    if (ack->refused_total != 0 && ack->refused_total != o->refused_told) {
        snprintf(text, sizeof(text), "%u of our services were refused there, %.100s: %.100s",
                 ack->refused_total, first ? first->name : "", first ? first->text : "");
        node_event(n, NODE_ENTRIES_REFUSED, l->peer->id, &l->addr, text);
    }
    o->refused_told = ack->refused_total;
}

static void fit_to_wire(struct sync_out *o, uint64_t took_ms)
{
    if (took_ms <= PART_FAST_MS && o->part_bytes < LIMIT_SYNC_PART)
        o->part_bytes *= 2;
    else if (took_ms > PART_SLOW_MS && o->part_bytes > PART_LEAST)
        o->part_bytes /= 2;
}

void sync_on_ack(struct node *n, struct link *l, const Meshd__V1__SyncAck *ack)
{
    struct sync_out *o = &l->out;

    /* Of a Sync that was given up since: not waited for. */
    if (!o->target || ack->incarnation != o->incarnation || ack->version != o->version ||
        ack->part != o->acked || o->acked >= o->next_part)
        return;
    fit_to_wire(o, n->now_ms - o->sent_ms[o->acked++ % LIMIT_SYNC_IN_FLIGHT]);
    l->progress_ms = n->now_ms;
    if (o->sent_all && o->acked == o->next_part) {
        if (ack->applied) {
            list_unref(o->base);
            o->base = list_ref(o->target);
            o->base_incarnation = o->incarnation;
            o->base_version = o->version;
            drop_target(o);
            /* It says so too, and may have come after the heartbeat that knew better. */
            if (o->draining != n->draining)
                link_send_heartbeat(n, l, 0, 0);
            tell_refused(n, l, ack);
            l->own_applied = true;
            link_settle(n, l);
        } else {
            want_full(n, o);
        }
    }
    sync_run(n, l);
}

void sync_on_wanted(struct node *n, struct link *l, const Meshd__V1__SyncWanted *wanted)
{
    struct sync_out *o = &l->out;

    n->counters.syncs_wanted++;
    if (o->want_full)
        return;
    want_full(n, o);
    if (wanted->incarnation > n->incarnation)
        node_raise(n, wanted->incarnation, l->addr.ip);
    else if (wanted->incarnation == n->incarnation && wanted->version < INCARNATION_MAX)
        local_skip_version(n, wanted->version);
    sync_run_all(n);
}

bool sync_whole_list(struct node *n, size_t budget, size_t *out_n, Meshd__V1__Service ***out_at)
{
    struct list_iter iter;
    const struct row *row;
    size_t count = 0, used = 0;

    list_iter_init(&iter, n->local.list);
    while ((row = list_iter_next(&iter))) {
        used += ENTRY_HEAD + row->name_len + row->backend_len;
        if (used > budget || node_scratch(n, count + 1) < 0)
            return false;
        put_service(n, count++, row);
    }
    point_at_services(n, count);
    *out_n = count;
    *out_at = n->scratch_at;
    return true;
}

/* ---- believing ---- */

/* What is asked for is above what is known here, so that the owner can go on above it. */
static void ask_again(struct node *n, struct link *l, const char *why)
{
    Meshd__V1__SyncWanted wanted = MESHD__V1__SYNC_WANTED__INIT;
    const struct peer *p = l->peer;

    drop_staging(n, &l->in);
    l->in.ignoring = true;
    wanted.incarnation = p->incarnation;
    wanted.version = p->known.incarnation == p->incarnation ? p->known.version : 0;
    wanted.why = (char *)why;
    link_send(n, l, NODE_URGENT, KIND(SYNC_WANTED), &wanted.base);
}

void sync_ask_all(struct node *n, struct peer *p, const char *why)
{
    for (struct link *l = p->links; l; l = l->next)
        if (link_in_session(l))
            ask_again(n, l, why);
}

static void acknowledge(struct node *n, struct link *l, const Meshd__V1__Sync *sync, bool applied)
{
    Meshd__V1__SyncAck ack = MESHD__V1__SYNC_ACK__INIT;
    const struct known_list *known = &l->peer->known;
    Meshd__V1__Refused **refused = NULL;

    ack.incarnation = sync->incarnation;
    ack.version = sync->version;
    ack.part = sync->part;
    ack.applied = applied;
    if (applied) {
        ack.accepted = (uint32_t)(known->list ? list_count(known->list) : 0);
        ack.refused_total = (uint32_t)known_list_refused(known);
        if (known_list_refused_messages(n, l->peer, &ack.n_refused, &refused) == 0)
            ack.refused = refused;
    }
    link_send(n, l, NODE_BULK, KIND(SYNC_ACK), &ack.base);
    free(refused);
}

static bool same_sync(const struct sync_in *in, const Meshd__V1__Sync *sync)
{
    return in->under_way && in->incarnation == sync->incarnation && in->version == sync->version &&
           in->base == sync->base_version && in->next_part == sync->part;
}

/* The first part of a Sync. Returns why it cannot be used, or NULL. */
static const char *begin_staging(struct node *n, struct link *l, const Meshd__V1__Sync *sync)
{
    const struct known_list *known = &l->peer->known;
    struct sync_in *in = &l->in;
    bool same_life = known->incarnation == sync->incarnation;

    drop_staging(n, in);
    in->ignoring = false;
    in->repeat = same_life && sync->version <= known->version;
    if (!in->repeat && sync->base_version != 0 &&
        (!same_life || sync->base_version != known->version))
        return "a change to a list that is not known here";
    in->under_way = true;
    in->incarnation = sync->incarnation;
    in->version = sync->version;
    in->base = sync->base_version;
    in->next_part = 0;
    staging_init(&in->staging, sync->base_version == 0);
    return NULL;
}

static void applied(struct node *n, struct link *l, const Meshd__V1__Sync *sync)
{
    struct peer *p = l->peer;

    n->counters.syncs_applied++;
    l->in.behind = 0;
    drop_staging(n, &l->in);
    registry_peer_confirmed(n->registry, p->id, node_wall_s(n));
    p->draining = sync->draining;
    peer_show(n, p);
    acknowledge(n, l, sync, true);
    l->other_applied = true;
    link_settle(n, l);
}

/* The last part is in. */
static void apply(struct node *n, struct link *l, const Meshd__V1__Sync *sync)
{
    const struct staging_told told = {
        .checked = true, .digest = sync->digest, .count = sync->count};
    struct peer *p = l->peer;
    struct sync_in *in = &l->in;
    int r = 0;

    if (in->repeat) {
        /* Between the parts the list may have moved on, over another link: then it is newer. */
        if (p->known.version == sync->version && p->known.digest != sync->digest)
            r = STAGING_E_DIFFERS;
    } else if (!in->staging.full && (p->known.incarnation != sync->incarnation ||
                                     p->known.version != sync->base_version)) {
        if (p->known.incarnation != sync->incarnation || p->known.version < sync->version)
            r = STAGING_E_STALE;
    } else {
        r = staging_apply(n, p, &in->staging, sync->incarnation, sync->version, &told);
        if (r == 0)
            measure_visible(n, l, sync);
        if (r == STAGING_E_STALE && p->known.incarnation == sync->incarnation &&
            p->known.version >= sync->version)
            r = 0;
    }
    if (r == 0) {
        applied(n, l, sync);
        return;
    }
    if (r == STAGING_E_DIFFERS)
        n->counters.digests_differed++;
    ask_again(n, l,
              r == STAGING_E_DIFFERS ? "the digest differs"
              : r > 0                ? "a change to a list that is not known here"
                                     : "out of memory");
}

void sync_on_part(struct node *n, struct link *l, const Meshd__V1__Sync *sync)
{
    struct sync_in *in = &l->in;
    struct peer *p = l->peer;
    const char *why = NULL;

    if (sync->incarnation == 0 || sync->incarnation > INCARNATION_MAX || sync->version == 0 ||
        sync->version > INCARNATION_MAX || (sync->base_version == 0 && sync->n_removed > 0)) {
        n->counters.messages_bad++;
        link_goodbye(n, l, GOODBYE(PROTOCOL), "a Sync that nobody can have meant");
        return;
    }
    l->progress_ms = n->now_ms;
    if (sync->incarnation < l->incarnation) {
        acknowledge(n, l, sync, false); /* sent before the owner raised it; a newer one follows */
        return;
    }
    l->incarnation = sync->incarnation;
    if (sync->incarnation > p->incarnation)
        p->incarnation = sync->incarnation;
    if (in->ignoring && sync->part > 0)
        return;
    if (sync->incarnation < p->incarnation)
        why = "an incarnation below the one known";
    else if (sync->part == 0)
        why = begin_staging(n, l, sync);
    else if (!same_sync(in, sync))
        why = "a part is missing";
    if (!why && !in->repeat &&
        (staging_add(n, &in->staging, p, sync->entries, sync->n_entries) < 0 ||
         staging_remove(n, &in->staging, sync->removed, sync->n_removed) < 0))
        why = "out of memory";
    if (why) {
        ask_again(n, l, why);
        return;
    }
    in->next_part++;
    if (sync->last)
        apply(n, l, sync);
    else
        acknowledge(n, l, sync, false);
}

void sync_on_heartbeat(struct node *n, struct link *l, const Meshd__V1__Heartbeat *beat)
{
    const struct peer *p = l->peer;
    const struct known_list *known = &p->known;
    struct sync_in *in = &l->in;
    bool same_pair = beat->incarnation == known->incarnation && beat->version == known->version;

    if (same_pair && beat->digest == known->digest && beat->count == known->count) {
        in->behind = 0;
        backoff_reset(&in->repair);
        registry_peer_confirmed(n->registry, p->id, node_wall_s(n));
        return;
    }
    if (!l->other_applied || in->under_way)
        return; /* it is on its way */
    if (!same_pair && ++in->behind < BEHIND_BEATS)
        return;
    if (n->now_ms < in->not_before_ms)
        return;
    in->not_before_ms = n->now_ms + backoff_next(&in->repair, node_random(n));
    if (same_pair)
        n->counters.digests_differed++;
    ask_again(n, l, same_pair ? "the digest differs" : "another version than the one known");
}
