/* ask - Introspect: both maps as of one revision, and what the daemon says of itself as pairs. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/array.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "client/inside.h"

#define INTROSPECT "/meshd.v1.Registry/Introspect"
#define FIRST 16u /* room of a list */

/* One page. MESH_NOT_FOUND: the picture it belongs to is not kept any more. */
static enum mesh_status ask_page(struct mesh_client *client, Meshd__V1__IntrospectRequest *request,
                                 uint64_t deadline_ms, struct arena *arena,
                                 const Meshd__V1__IntrospectReply **out_page)
{
    const ProtobufCMessage *message;
    enum mesh_status status =
        client_ask(client, INTROSPECT, &request->base, deadline_ms, arena, &message);

    if (status == MESH_OK)
        *out_page = (const Meshd__V1__IntrospectReply *)message;
    return status;
}

/* ---- the maps ---- */

struct mesh_maps {
    struct arena arena; /* of the pages; all strings are in it */
    uint64_t epoch, revision;
    struct mesh_instance *services;
    size_t n_services, cap_services;
    struct mesh_peer *peers;
    size_t n_peers, cap_peers;
};

void mesh_maps_free(struct mesh_maps *maps)
{
    if (!maps)
        return;
    for (size_t i = 0; i < maps->n_peers; i++)
        free((void *)maps->peers[i].services);
    free(maps->peers);
    free(maps->services);
    arena_fini(&maps->arena);
    free(maps);
}

static void maps_freep(struct mesh_maps **maps) { mesh_maps_free(*maps); }

static struct mesh_maps *maps_new(void)
{
    struct mesh_maps *maps = calloc(1, sizeof(*maps));

    if (maps)
        arena_init(&maps->arena);
    return maps;
}

static unsigned state_of(protobuf_c_boolean connected, protobuf_c_boolean stale,
                         protobuf_c_boolean draining)
{
    return (connected ? MESH_CONNECTED : 0u) | (stale ? MESH_STALE : 0u) |
           (draining ? MESH_DRAINING : 0u);
}

static int add_services(struct mesh_maps *maps, const Meshd__V1__IntrospectReply *page)
{
    int r = array_room(&maps->services, &maps->cap_services, maps->n_services + page->n_services,
                       sizeof(*maps->services), FIRST);

    for (size_t i = 0; r == 0 && i < page->n_services; i++) {
        const Meshd__V1__ServiceRow *row = page->services[i];
        struct mesh_instance *it = &maps->services[maps->n_services++];

        *it = (struct mesh_instance){
            .name = row->name,
            .node = row->peer_id,
            .source = row->ip,
            .address = row->backend_addr,
            .last_seen = row->last_seen,
            .state = state_of(row->connected, row->stale, row->draining),
        };
        if (row->healthy)
            it->state |= MESH_HEALTHY;
        if (strcmp(row->ip, "local") == 0) {
            it->state |= MESH_LOCAL;
            it->last_seen = 0;
        }
    }
    return r;
}

/* The peer of a row; one whose list goes on from the page before is the last one there. */
static int peer_of(struct mesh_maps *maps, const Meshd__V1__PeerServicesRow *row,
                   struct mesh_peer **out_peer)
{
    struct mesh_peer *peer = maps->n_peers ? &maps->peers[maps->n_peers - 1] : NULL;
    int r;

    if (!peer || strcmp(peer->source, row->peer_ip) != 0) {
        r = array_room(&maps->peers, &maps->cap_peers, maps->n_peers + 1, sizeof(*maps->peers),
                       FIRST);
        if (r < 0)
            return r;
        peer = &maps->peers[maps->n_peers++];
        *peer = (struct mesh_peer){
            .source = row->peer_ip,
            .node = row->peer_id,
            .last_sync = row->last_sync,
            .last_seen = row->last_seen,
            .state = state_of(row->connected, row->stale, row->draining),
        };
    }
    *out_peer = peer;
    return 0;
}

static int add_peer(struct mesh_maps *maps, const Meshd__V1__PeerServicesRow *row)
{
    struct mesh_instance *all;
    struct mesh_peer *peer;
    int r = peer_of(maps, row, &peer);

    if (r < 0 || !row->n_services)
        return r;
    all = realloc((void *)peer->services, (peer->n_services + row->n_services) * sizeof(*all));
    if (!all)
        return -ENOMEM;
    peer->services = all;
    for (size_t i = 0; i < row->n_services; i++) {
        const Meshd__V1__PeerServiceInfo *info = row->services[i];

        all[peer->n_services++] = (struct mesh_instance){
            .name = info->name,
            .node = peer->node,
            .source = peer->source,
            .address = info->backend_addr,
            .last_seen = peer->last_seen,
            .state = peer->state | (info->healthy ? MESH_HEALTHY : 0u) |
                     (info->draining ? MESH_DRAINING : 0u),
        };
    }
    return 0;
}

/* MESH_NOT_FOUND: the picture went away between two pages; from the beginning, then. */
/* Whether there is something in a page that is not the last: pages without end hold nothing. */
static bool page_goes_on(const Meshd__V1__IntrospectReply *page)
{
    return !page->next_page_token.len || page->n_services || page->n_peer_services;
}

static enum mesh_status fetch(struct mesh_client *client, Meshd__V1__IntrospectRequest *request,
                              uint64_t deadline_ms, struct mesh_maps *maps)
{
    const Meshd__V1__IntrospectReply *page;

    request->page_token.len = 0;
    do {
        enum mesh_status status = ask_page(client, request, deadline_ms, &maps->arena, &page);
        int r;

        if (status != MESH_OK)
            return status;
        if (request->page_token.len &&
            (page->epoch != maps->epoch || page->revision != maps->revision))
            return error_set(MESH_PROTOCOL, "a page of another picture");
        maps->epoch = page->epoch;
        maps->revision = page->revision;
        if (!page_goes_on(page) || maps->n_services > ROWS_MAX)
            return error_set(MESH_PROTOCOL, "pages without end");
        r = add_services(maps, page);
        for (size_t i = 0; r == 0 && i < page->n_peer_services; i++)
            r = add_peer(maps, page->peer_services[i]);
        if (r < 0)
            return error_errno(r, "mesh_maps_fetch");
        request->page_token = page->next_page_token;
    } while (page->next_page_token.len);
    return MESH_OK;
}

enum mesh_status mesh_maps_fetch(struct mesh_client *client, const struct mesh_filter *filter,
                                 int deadline_ms, struct mesh_maps **out_maps)
{
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;
    Meshd__V1__Section sections[] = {MESHD__V1__SECTION__SECTION_SERVICES,
                                     MESHD__V1__SECTION__SECTION_PEER_SERVICES};
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);

    if (status != MESH_OK)
        return status;
    request.sections = sections;
    request.n_sections = 2;
    if (filter && filter->name)
        request.name_glob = (char *)filter->name;
    if (filter && filter->peer)
        request.peer = (char *)filter->peer;
    do {
        CLEANUP(maps_freep) struct mesh_maps *maps = maps_new();

        if (!maps)
            return error_errno(-ENOMEM, "mesh_maps_fetch");
        status = fetch(client, &request, deadline, maps);
        if (status == MESH_OK)
            *out_maps = TAKE(&maps);
        /* The first page is never not found, so this comes to an end with the deadline. */
    } while (status == MESH_NOT_FOUND && request.page_token.len && clock_ms() < deadline);
    if (status == MESH_NOT_FOUND)
        return error_set(MESH_TIMEOUT, "the maps change faster than they can be read");
    return status;
}

uint64_t mesh_maps_epoch(const struct mesh_maps *maps) { return maps->epoch; }

uint64_t mesh_maps_revision(const struct mesh_maps *maps) { return maps->revision; }

size_t mesh_maps_services(const struct mesh_maps *maps) { return maps->n_services; }

const struct mesh_instance *mesh_maps_service_at(const struct mesh_maps *maps, size_t index)
{
    return index < maps->n_services ? &maps->services[index] : NULL;
}

size_t mesh_maps_peers(const struct mesh_maps *maps) { return maps->n_peers; }

const struct mesh_peer *mesh_maps_peer_at(const struct mesh_maps *maps, size_t index)
{
    return index < maps->n_peers ? &maps->peers[index] : NULL;
}

/* ---- pairs ---- */

struct pairs {
    int (*visit)(void *ctx, const char *key, const char *value);
    void *ctx;
    char key[256];
    size_t first_service, first_peer; /* of this page, among all */
};

static int show_message(struct pairs *pairs, size_t key_len, const ProtobufCMessage *message);

static int show(struct pairs *pairs, const char *value)
{
    return pairs->visit(pairs->ctx, pairs->key, value);
}

static int show_bytes(struct pairs *pairs, const ProtobufCBinaryData *bytes)
{
    char hex[2 * 64 + 1] = "";

    for (size_t i = 0; i < bytes->len && i < 64; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes->data[i]);
    return show(pairs, hex);
}

/* One element at at; the key is complete. */
static int show_value(struct pairs *pairs, size_t key_len, const ProtobufCFieldDescriptor *field,
                      const void *at)
{
    const ProtobufCEnumValue *value;
    char number[24];

    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return show_message(pairs, key_len, *(const ProtobufCMessage *const *)at);
    case PROTOBUF_C_TYPE_STRING:
        return show(pairs, *(const char *const *)at);
    case PROTOBUF_C_TYPE_BYTES:
        return show_bytes(pairs, at);
    case PROTOBUF_C_TYPE_BOOL:
        return show(pairs, *(const protobuf_c_boolean *)at ? "true" : "false");
    case PROTOBUF_C_TYPE_ENUM:
        value = protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)at);
        if (value)
            return show(pairs, value->name);
        snprintf(number, sizeof(number), "%d", *(const int *)at);
        return show(pairs, number);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        snprintf(number, sizeof(number), "%" PRIu64, *(const uint64_t *)at);
        return show(pairs, number);
    default: /* mesh.proto has no other: uint32 and fixed32 */
        snprintf(number, sizeof(number), "%" PRIu32, *(const uint32_t *)at);
        return show(pairs, number);
    }
}

static size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    default:
        return sizeof(uint32_t);
    }
}

/* Appends to the key and returns its new length. */
static size_t key_add(struct pairs *pairs, size_t key_len, const char *part)
{
    int n = snprintf(pairs->key + key_len, sizeof(pairs->key) - key_len, "%s%s", key_len ? "." : "",
                     part);

    key_len += n < 0 ? 0 : (size_t)n;
    return key_len < sizeof(pairs->key) ? key_len : sizeof(pairs->key) - 1;
}

static int show_repeated(struct pairs *pairs, size_t key_len, const ProtobufCFieldDescriptor *field,
                         const ProtobufCMessage *message)
{
    size_t n = *(const size_t *)((const char *)message + field->quantifier_offset), first = 0;
    const char *at = *(const char *const *)((const char *)message + field->offset);
    int stop = 0;

    if (message->descriptor == &meshd__v1__introspect_reply__descriptor) {
        if (strcmp(field->name, "services") == 0)
            first = pairs->first_service;
        else if (strcmp(field->name, "peer_services") == 0)
            first = pairs->first_peer;
    }
    for (size_t i = 0; i < n && !stop; i++) {
        char index[24];

        snprintf(index, sizeof(index), "%zu", first + i);
        stop = show_value(pairs, key_add(pairs, key_len, index), field,
                          at + i * element_size(field->type));
    }
    return stop;
}

/* Every field, in the order of the .proto; empty lists and messages that are absent have no pair.
 */
static int show_message(struct pairs *pairs, size_t key_len, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *desc = message->descriptor;
    int stop = 0;

    for (unsigned i = 0; i < desc->n_fields && !stop; i++) {
        const ProtobufCFieldDescriptor *field = &desc->fields[i];
        const void *at = (const char *)message + field->offset;
        size_t len;

        pairs->key[key_len] = '\0';
        len = key_add(pairs, key_len, field->name);
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            stop = show_repeated(pairs, len, field, message);
        else if (field->type != PROTOBUF_C_TYPE_MESSAGE || *(const void *const *)at)
            stop = show_value(pairs, len, field, at);
    }
    return stop;
}

enum mesh_status mesh_introspect(struct mesh_client *client, const char *topic, int deadline_ms,
                                 int (*visit)(void *ctx, const char *key, const char *value),
                                 void *ctx)
{
    static const struct {
        const char *topic;
        Meshd__V1__Section section;
    } topics[] = {
        {"node", MESHD__V1__SECTION__SECTION_NODE},
        {"limits", MESHD__V1__SECTION__SECTION_LIMITS},
        {"services", MESHD__V1__SECTION__SECTION_SERVICES},
        {"peers", MESHD__V1__SECTION__SECTION_PEER_SERVICES},
    };
    CLEANUP(arena_fini) struct arena arena;
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;
    Meshd__V1__Section section = MESHD__V1__SECTION__SECTION_NONE;
    struct pairs pairs = {.visit = visit, .ctx = ctx};
    const Meshd__V1__IntrospectReply *page;
    uint64_t deadline;
    enum mesh_status status;

    arena_init(&arena);
    status = deadline_of(deadline_ms, &deadline);
    if (status != MESH_OK)
        return status;
    for (size_t i = 0; topic && i < sizeof(topics) / sizeof(*topics); i++)
        if (strcmp(topic, topics[i].topic) == 0)
            section = topics[i].section;
    if (!section)
        return error_set(MESH_INVALID, "the topics are node, limits, services and peers");
    request.sections = &section;
    request.n_sections = 1;
    do {
        status = ask_page(client, &request, deadline, &arena, &page);
        if (status == MESH_NOT_FOUND && request.page_token.len)
            return error_set(MESH_TIMEOUT, "the pages were not asked for soon enough");
        if (status != MESH_OK)
            return status;
        if (show_message(&pairs, 0, &page->base))
            break;
        pairs.first_service += page->n_services;
        pairs.first_peer += page->n_peer_services;
        request.page_token = page->next_page_token;
    } while (page->next_page_token.len);
    return MESH_OK;
}
