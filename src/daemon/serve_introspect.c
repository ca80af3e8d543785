/* serve_introspect - both maps as of one (epoch, revision), filtered, in pages.
 *
 * A page is a walk over an unchanging snapshot: first the rows of services (the node's own list,
 * then each peer's, in the snapshot's order), then the same peers as peer_services. The walk stops
 * where the page is full, by rows or by bytes, and the next page goes on from there. Names and
 * addresses are borrowed from the snapshot, which is kept until the reply is packed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "daemon/owner.h"
#include "daemon/serve.h"
#include "web/picture.h"
#include "wire/name.h"
#include "wire/rows.h"

#define REPLY_OVERHEAD 65536u /* at most a quarter of a message is left for the rest of a reply */
#define TOMBSTONES_MAX 1000u
#define NODE_FIXED 16384u /* counters, limits, the reply's header */

struct walk {
    struct serve *serve;
    struct rpc_call *call;
    struct arena *arena;
    const Meshd__V1__IntrospectRequest *request;
    struct pin pin;          /* the snapshot and its totals */
    struct page_place place; /* where the walk is */
    size_t rows_left;
    bool full, no_memory, counted;
    struct rows rows; /* room for one page, in the arena */
    Meshd__V1__IntrospectReply reply;
};

static bool wants(const Meshd__V1__IntrospectRequest *request, Meshd__V1__Section section)
{
    if (!request->n_sections)
        return section == MESHD__V1__SECTION__SECTION_SERVICES ||
               section == MESHD__V1__SECTION__SECTION_PEER_SERVICES;
    for (size_t i = 0; i < request->n_sections; i++)
        if (request->sections[i] == section)
            return true;
    return false;
}

/* What a row of the owner must have to match; 0: nothing. peer NULL: the node itself. */
static unsigned flag_wanted(const struct walk *w, const struct snapshot_peer *peer)
{
    switch (w->request->state) {
    case MESHD__V1__ROW_STATE__ROW_STATE_DRAINING:
        return peer && peer->state.draining ? 0 : ROW_DRAINING;
    case MESHD__V1__ROW_STATE__ROW_STATE_UNHEALTHY:
        return ROW_UNHEALTHY;
    default:
        return 0;
    }
}

/* Whether a list that matches does so with all of its rows. */
static bool all_rows(const struct walk *w, const struct snapshot_peer *peer)
{
    return !*w->request->name_glob && !flag_wanted(w, peer);
}

static bool row_matches(const struct walk *w, const struct snapshot_peer *peer,
                        const struct row *row)
{
    unsigned flag = flag_wanted(w, peer);

    if (flag && !(row->flags & flag))
        return false;
    return !*w->request->name_glob || name_glob(w->request->name_glob, row->name);
}

static bool list_matches(const struct walk *w, const struct snapshot_peer *peer)
{
    const char *want = w->request->peer;

    if (*want && strcmp(want, peer ? peer->label : "local") != 0 &&
        strcmp(want, peer ? peer->peer_id : w->serve->peer_id) != 0)
        return false;
    switch (w->request->state) {
    case MESHD__V1__ROW_STATE__ROW_STATE_CONNECTED:
        return !peer || peer->state.connected;
    case MESHD__V1__ROW_STATE__ROW_STATE_STALE:
        return peer && peer->state.stale;
    default:
        return true;
    }
}

static const struct snapshot_peer *peer_at(const struct walk *w, size_t list)
{
    return list ? &w->pin.snap->peers[list - 1] : NULL;
}

static struct list *list_of(const struct walk *w, size_t list)
{
    return list ? w->pin.snap->peers[list - 1].list : w->pin.snap->local;
}

static size_t matching_rows(const struct walk *w, size_t at)
{
    const struct snapshot_peer *peer = peer_at(w, at);
    struct list *list = list_of(w, at);
    struct list_iter it;
    size_t n = 0;

    if (all_rows(w, peer))
        return list_count(list);
    list_iter_init(&it, list);
    for (struct row *row = list_iter_next(&it); row; row = list_iter_next(&it))
        n += row_matches(w, peer, row);
    return n;
}

/* Whether a list is shown though nothing may be in it. */
static bool shows_peer(const struct walk *w, size_t at, size_t matching)
{
    return matching > 0 || all_rows(w, peer_at(w, at));
}

static void count_totals(struct walk *w)
{
    w->pin.services_total = w->pin.peers_total = 0;
    for (size_t i = 0; i <= w->pin.snap->n_peers; i++) {
        size_t rows;

        if (!list_matches(w, peer_at(w, i)))
            continue;
        rows = matching_rows(w, i);
        w->pin.services_total += rows;
        w->pin.peers_total += i && shows_peer(w, i, rows);
    }
}

static void *grab(struct walk *w, size_t size)
{
    void *p = arena_alloc(w->arena, size);

    w->no_memory = w->no_memory || !p;
    return p;
}

/* Whether one more sub-message fits what is left of a reply. */
static bool take_room(size_t *room, const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message) + 4; /* tag, length */

    if (len > *room)
        return false;
    *room -= len;
    return true;
}

/* One list's rows as rows of services, from place.row on. */
static void walk_services(struct walk *w, struct list *list)
{
    const struct snapshot_peer *peer = peer_at(w, w->place.list);
    struct rows_shared owner;
    struct list_iter it;

    owner_share(peer, w->serve->peer_id, true, &owner);
    list_iter_seek(&it, list, w->place.row);
    for (struct row *row = list_iter_next(&it); row; row = list_iter_next(&it)) {
        if (row_matches(w, peer, row)) {
            const struct rows_row own = owner_row(row, peer && peer->state.draining);

            w->full = !w->rows_left || !rows_put_service(&w->rows, &owner, &own);
            if (w->full)
                return;
            w->rows_left--;
        }
        w->place.row++;
    }
}

static bool share_peer(const struct snapshot_peer *peer, struct rows_shared *out)
{
    Meshd__V1__PeerServicesRow row;

    picture_peer_row(peer, &row);
    return rows_share(out, &row.base);
}

static void walk_infos(struct walk *w, struct list *list, const struct snapshot_peer *peer)
{
    struct list_iter it;

    list_iter_seek(&it, list, w->place.row);
    for (struct row *row = list_iter_next(&it); row; row = list_iter_next(&it)) {
        if (row_matches(w, peer, row)) {
            const struct rows_row own = owner_row(row, false);

            w->full = !w->rows_left || !rows_put_info(&w->rows, &own);
            if (w->full)
                return;
            w->rows_left--;
        }
        w->place.row++;
    }
}

/* One peer whole, from place.row on; where rows are chosen, a peer without a match is left out. Its
 * head costs no row of the page, so that a page of one row still makes progress. */
static void walk_peer(struct walk *w, struct list *list)
{
    const struct snapshot_peer *peer = peer_at(w, w->place.list);
    struct rows_shared shared;
    size_t place;

    if (!shows_peer(w, w->place.list, matching_rows(w, w->place.list)))
        return;
    if (!share_peer(peer, &shared)) {
        w->no_memory = true;
        return;
    }
    w->full = !rows_peer_begin(&w->rows, &shared, &place);
    if (w->full)
        return;
    walk_infos(w, list, peer);
    rows_peer_end(&w->rows, &shared, place);
}

/* One peer without its services: here the head is the row. */
static void walk_head(struct walk *w, struct list *list)
{
    struct rows_shared shared;
    size_t place;

    if (!shows_peer(w, w->place.list, matching_rows(w, w->place.list)))
        return;
    if (!share_peer(peer_at(w, w->place.list), &shared)) {
        w->no_memory = true;
        return;
    }
    w->full = !w->rows_left || !rows_peer_begin(&w->rows, &shared, &place);
    if (w->full)
        return;
    rows_peer_end(&w->rows, &shared, place);
    w->rows_left--;
}

/* From where the walk is to the end of its part, or until the page is full. */
static void walk_part(struct walk *w, void (*one)(struct walk *w, struct list *list))
{
    for (; w->place.list <= w->pin.snap->n_peers; w->place.list++, w->place.row = 0) {
        if (!list_matches(w, peer_at(w, w->place.list)))
            continue;
        one(w, list_of(w, w->place.list));
        if (w->full || w->no_memory)
            return;
    }
}

static void walk_maps(struct walk *w)
{
    w->rows.data = grab(w, w->rows.cap);
    if (w->no_memory)
        return;
    if (w->place.part == PAGE_SERVICES) {
        if (wants(w->request, MESHD__V1__SECTION__SECTION_SERVICES))
            walk_part(w, walk_services);
        if (w->full || w->no_memory)
            return;
        w->place = (struct page_place){.part = PAGE_PEERS, .list = 1};
    }
    if (wants(w->request, MESHD__V1__SECTION__SECTION_PEER_SERVICES))
        walk_part(w, walk_peer);
    else if (wants(w->request, MESHD__V1__SECTION__SECTION_PEERS))
        walk_part(w, walk_head);
}

bool serve_fill_tombstones(struct serve *serve, struct arena *arena,
                           Meshd__V1__IntrospectReply *reply, size_t room)
{
    struct registry_tombstone *stones;
    long n = registry_tombstones(serve->registry, TOMBSTONES_MAX, &stones);
    Meshd__V1__Tombstone *rows;
    bool ok;

    if (n < 0)
        return false;
    rows = arena_alloc(arena, ((size_t)n + 1) * sizeof *rows);
    reply->tombstones = arena_alloc(arena, ((size_t)n + 1) * sizeof *reply->tombstones);
    ok = rows && reply->tombstones;
    for (long i = 0; ok && i < n; i++) {
        meshd__v1__tombstone__init(&rows[i]);
        rows[i].key = arena_strdup(arena, stones[i].key);
        rows[i].peer_id = arena_strdup(arena, stones[i].peer_id);
        rows[i].why = (char *)stones[i].why;
        rows[i].when = stones[i].when_s;
        ok = rows[i].key && rows[i].peer_id;
        if (ok && !take_room(&room, &rows[i].base))
            break;
        reply->tombstones[reply->n_tombstones++] = &rows[i];
    }
    free(stones);
    return ok;
}

/* ---- the reply, here or on the main loop ---- */

struct node_letter {
    struct letter letter;
    struct walk walk;
};

static void finish(struct walk *w)
{
    rows_attach(&w->rows, &w->reply);
    if (w->no_memory)
        rpc_call_reply(
            w->call, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
            "the page needs more memory than one call may have; ask with fewer page_rows", NULL);
    else
        rpc_call_reply(w->call, STATUS_OK, MESHD__V1__REASON__REASON_NONE, "", &w->reply.base);
    snapshot_unref(w->pin.snap);
}

static void read_node(struct letter *letter)
{
    struct node_letter *l = CONTAINER_OF(letter, struct node_letter, letter);
    struct walk *w = &l->walk;
    size_t used = w->rows.len + protobuf_c_message_get_packed_size(&w->reply.base) + NODE_FIXED;
    size_t most = w->serve->limits.message_bytes;

    atomic_fetch_sub(&w->serve->posted, 1);
    if (!serve_fill_node(w->serve, w->arena, &w->reply, most > used ? most - used : 0,
                         wants(w->request, MESHD__V1__SECTION__SECTION_NODE),
                         wants(w->request, MESHD__V1__SECTION__SECTION_LIMITS)))
        w->no_memory = true;
    finish(w);
    free(l);
}

static void finish_on_main(struct walk *w)
{
    struct node_letter *l = must_alloc(sizeof *l);

    l->letter.read = read_node;
    l->walk = *w;
    if (!serve_post(w->serve, w->call, &l->letter)) {
        snapshot_unref(w->pin.snap);
        free(l);
    }
}

/* A token's number cannot be guessed, but who was given one may have changed its place. */
static bool place_exists(const struct walk *w)
{
    return w->place.list >= (w->place.part == PAGE_PEERS) &&
           w->place.list <= w->pin.snap->n_peers + 1 &&
           w->place.row <=
               (w->place.list <= w->pin.snap->n_peers ? list_count(list_of(w, w->place.list)) : 0);
}

/* The snapshot to walk: a new one, or that of the page token. False: answered already. */
static bool begin(struct walk *w)
{
    const ProtobufCBinaryData *token = &w->request->page_token;

    if (token->len) {
        bool found =
            pages_find(&w->serve->pages, token->data, token->len, clock_ms(), &w->pin, &w->place);

        if (!found || !place_exists(w)) {
            if (found)
                snapshot_unref(w->pin.snap);
            rpc_call_reply(w->call, STATUS_NOT_FOUND, MESHD__V1__REASON__REASON_TOKEN,
                           "the page token is unknown or older than 10 s; begin again", NULL);
            return false;
        }
        w->counted = true;
        return true;
    }
    if (registry_snapshot(w->serve->registry, &w->pin.snap) < 0) {
        rpc_call_reply(w->call, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                       "no memory for a snapshot; try again later", NULL);
        return false;
    }
    count_totals(w);
    w->pin.local = rpc_call_caller(w->call)->local;
    return true;
}

/* A page that is full leaves a token; the last page ends the pin. False: answered already. */
static bool turn_page(struct walk *w)
{
    uint8_t *token;

    if (!w->full) {
        if (w->counted)
            pages_unpin(&w->serve->pages, w->pin.number);
        return true;
    }
    token = grab(w, PAGE_TOKEN_LEN);
    if (!token)
        return true;
    if (!pages_pin(&w->serve->pages, &w->pin, &w->place, clock_ms(), token)) {
        rpc_call_reply(w->call, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                       "too many readers page at once (limits.pinned_snapshots); try again in 10 s",
                       NULL);
        snapshot_unref(w->pin.snap);
        return false;
    }
    w->reply.next_page_token = (ProtobufCBinaryData){.len = PAGE_TOKEN_LEN, .data = token};
    return true;
}

void serve_introspect(Meshd__V1__Registry_Service *service,
                      const Meshd__V1__IntrospectRequest *request,
                      Meshd__V1__IntrospectReply_Closure closure, void *closure_data)
{
    struct serve *serve = (struct serve *)service;
    struct walk w = {.serve = serve, .call = closure_data, .request = request};

    if (!serve_may(serve, w.call, POLICY_INTROSPECT))
        return;
    if (request->page_rows > LIMIT_PAGE_ROWS || strlen(request->name_glob) > LIMIT_NAME) {
        rpc_call_reply(w.call, STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_LIMIT,
                       "page_rows is at most 20000 and name_glob at most 253 bytes", NULL);
        return;
    }
    meshd__v1__introspect_reply__init(&w.reply);
    w.arena = rpc_call_arena(w.call);
    w.rows_left = request->page_rows ? request->page_rows : LIMIT_PAGE_ROWS;
    w.rows.cap = serve->limits.message_bytes - (serve->limits.message_bytes / 4 < REPLY_OVERHEAD
                                                    ? serve->limits.message_bytes / 4
                                                    : REPLY_OVERHEAD);
    if (!begin(&w))
        return;
    w.reply.peer_id = (char *)serve->peer_id;
    w.reply.epoch = w.pin.snap->epoch;
    w.reply.revision = w.pin.snap->revision;
    w.reply.services_total = (uint32_t)w.pin.services_total;
    w.reply.peers_total = (uint32_t)w.pin.peers_total;
    w.reply.local_digest = list_digest(w.pin.snap->local);
    w.reply.local_total = (uint32_t)list_count(w.pin.snap->local);
    walk_maps(&w);
    if (wants(request, MESHD__V1__SECTION__SECTION_TOMBSTONES) && !w.full &&
        !serve_fill_tombstones(serve, w.arena, &w.reply, w.rows.cap - w.rows.len))
        w.no_memory = true;
    if (!turn_page(&w))
        return;
    if (wants(request, MESHD__V1__SECTION__SECTION_NODE) ||
        wants(request, MESHD__V1__SECTION__SECTION_LIMITS))
        finish_on_main(&w);
    else
        finish(&w);
}
