/* find - Lookup and Explain. */
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/limits.h"
#include "client/inside.h"
#include "wire/encode.h"

#define LOOKUP "/meshd.v1.Registry/Lookup"
#define ASKED_MAX (LIMIT_NAME + 7u) /* any spelling: a dot and a port may follow */
enum { REQUEST_NAMES = 1 };

/* 0: it cannot be a name in any spelling, nor stand in a request. */
static size_t asked_len(const char *name)
{
    size_t len = name ? strnlen(name, ASKED_MAX + 1) : 0;

    if (len > ASKED_MAX)
        return 0;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return 0;
    return len;
}

/* LookupRequest, packed here: it is only names. */
enum mesh_status mesh_lookup_begin(struct mesh_client *client, const char *const *names, size_t n,
                                   int deadline_ms, struct mesh_call **out_call)
{
    CLEANUP(client_call_freep) struct mesh_call *call = NULL;
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);
    size_t total = 0;
    uint8_t *at;

    if (status != MESH_OK)
        return status;
    if (!n || n > LIMIT_LOOKUP_NAMES)
        return error_set(MESH_INVALID, "a lookup takes 1 to %u names, not %zu", LIMIT_LOOKUP_NAMES,
                         n);
    for (size_t i = 0; i < n; i++) {
        size_t len = asked_len(names[i]);

        if (!len)
            return error_set(MESH_INVALID, "name %zu is no name of a service", i);
        total += encode_part_len(len);
    }
    status = client_call_new(client, LOOKUP, total, deadline, &call, &at);
    if (status != MESH_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        at = encode_part(at, REQUEST_NAMES, names[i], strlen(names[i]));
    client_call_set_names(call, n);
    status = client_call_begin(call);
    if (status == MESH_OK)
        *out_call = TAKE(&call);
    return status;
}

enum mesh_status mesh_call_wait(struct mesh_call *call, struct mesh_list **out_list)
{
    struct mesh_list *list = NULL;
    struct reply reply;
    bool bad_name = false;
    enum mesh_status status = client_call_answer(call, &reply);

    if (status == MESH_OK) {
        struct reply_part part;
        int r;

        part.n = client_call_names(call, &part.first, &part.all);
        r = reply_lookup(reply.body, reply.body_len, &part, &list, &bad_name);

        if (r < 0)
            status = error_errno(r, "lookup");
    }
    client_call_free(call);
    if (bad_name) {
        mesh_list_free(list);
        return error_set(MESH_INVALID, "one of the names is no name of a service");
    }
    if (status == MESH_OK)
        *out_list = list;
    return status;
}

void mesh_call_cancel(struct mesh_call *call) { client_call_free(call); }

enum mesh_status mesh_lookup_many(struct mesh_client *client, const char *const *names, size_t n,
                                  int deadline_ms, struct mesh_list **out_list)
{
    struct mesh_call *call;
    enum mesh_status status = mesh_lookup_begin(client, names, n, deadline_ms, &call);

    return status == MESH_OK ? mesh_call_wait(call, out_list) : status;
}

enum mesh_status mesh_lookup(struct mesh_client *client, const char *name, int deadline_ms,
                             struct mesh_list **out_list)
{
    struct mesh_list *list;
    enum mesh_status status = mesh_lookup_many(client, &name, 1, deadline_ms, &list);

    if (status != MESH_OK)
        return status;
    if (!mesh_list_count(list)) {
        mesh_list_free(list);
        return error_set(MESH_NOT_FOUND, "nobody offers %s", name);
    }
    *out_list = list;
    return MESH_OK;
}

/* ---- Explain ---- */

static unsigned state_of(const Meshd__V1__Route *route)
{
    unsigned state = 0;

    if (strcmp(route->ip, "local") == 0)
        state |= MESH_LOCAL;
    if (route->connected)
        state |= MESH_CONNECTED;
    if (route->stale)
        state |= MESH_STALE;
    if (route->healthy)
        state |= MESH_HEALTHY;
    if (route->draining)
        state |= MESH_DRAINING;
    return state;
}

enum mesh_status mesh_explain(struct mesh_client *client, const char *name, int deadline_ms,
                              int (*visit)(void *ctx, const struct mesh_instance *instance,
                                           int chosen, const char *why),
                              void *ctx)
{
    CLEANUP(arena_fini) struct arena arena;
    Meshd__V1__ExplainRequest request = MESHD__V1__EXPLAIN_REQUEST__INIT;
    const Meshd__V1__ExplainReply *reply;
    const ProtobufCMessage *message;
    enum mesh_status status;
    uint64_t deadline;

    arena_init(&arena);
    status = deadline_of(deadline_ms, &deadline);
    if (status != MESH_OK)
        return status;
    if (!asked_len(name))
        return error_set(MESH_INVALID, "that is no name of a service");
    request.name = (char *)name;
    status =
        client_ask(client, "/meshd.v1.Registry/Explain", &request.base, deadline, &arena, &message);
    if (status != MESH_OK)
        return status;
    reply = (const Meshd__V1__ExplainReply *)message;
    if (!reply->n_candidates)
        return error_set(MESH_NOT_FOUND, "%s: %s", name, reply->verdict);
    for (size_t i = 0; i < reply->n_candidates; i++) {
        const Meshd__V1__Candidate *c = reply->candidates[i];
        struct mesh_instance it = {.name = reply->name};

        if (!c->route)
            return error_set(MESH_PROTOCOL, "a candidate without a route");
        it.node = c->route->peer_id;
        it.source = c->route->ip;
        it.address = c->route->backend_addr;
        it.last_seen = c->route->last_seen;
        it.state = state_of(c->route);
        if (visit(ctx, &it, c->chosen, c->why))
            break;
    }
    return MESH_OK;
}
