/* serve - Lookup and Explain, and what goes to the main loop. */
#include "daemon/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "daemon/policy.h"
#include "web/picture.h"
#include "wire/name.h"
#include "wire/routes.h"

#define ROUTES_DEFAULT 16u
#define ROUTES_MAX 256u
#define CANDIDATES_MAX 16u /* of one name, as many as are weighed for a client */
#define RESULTS_FIRST 4096u

bool serve_who(void *ctx, uint32_t conn, struct rpc_caller *out_caller)
{
    struct serve *serve = ctx;
    struct gate_peer peer;

    if (!gate_who(serve->gate, conn, &peer))
        return false;
    memset(out_caller, 0, sizeof *out_caller);
    memcpy(out_caller->ip, peer.ip, sizeof out_caller->ip);
    memcpy(out_caller->peer_id, peer.peer_id, sizeof out_caller->peer_id);
    snprintf(out_caller->subject, sizeof out_caller->subject, "%s", policy_subject(&peer));
    out_caller->secure = peer.secure;
    out_caller->local = peer.local;
    out_caller->uid = peer.uid;
    out_caller->conn = conn;
    return true;
}

bool serve_may(struct serve *serve, struct rpc_call *call, enum policy_action action)
{
    const char *subject = rpc_call_caller(call)->subject;
    char rule[POLICY_RULE_TEXT], text[LIMIT_STATUS_TEXT + 1];

    if (policy_allows(serve->policy, action, subject, "", rule))
        return true;
    policy_refusal_text(action, subject, "", rule, text, sizeof text);
    rpc_call_reply(call, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_POLICY, text, NULL);
    return false;
}

/* ---- Lookup and Explain ---- */

static void no_memory(struct rpc_call *call)
{
    rpc_call_reply(call, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                   "the answer needs more memory than one call may have; ask for less at once",
                   NULL);
}

static bool fill_route(struct serve *serve, struct arena *arena, const struct registry_route *from,
                       Meshd__V1__Route *out)
{
    meshd__v1__route__init(out);
    out->ip = arena_strdup(arena, from->label);
    out->peer_id = from->local ? (char *)serve->peer_id : arena_strdup(arena, from->peer_id);
    out->backend_addr = arena_strdup(arena, from->row->backend);
    out->connected = from->connected;
    out->stale = from->stale;
    out->healthy = from->healthy;
    out->draining = from->draining;
    if (!from->local)
        out->last_seen = clock_unix_s(from->last_seen_ms, clock_offset_ms());
    return out->ip && out->peer_id && out->backend_addr;
}

/* A Lookup under way: its results, packed one after the other as they are found. */
struct results {
    struct serve *serve;
    struct arena *arena;
    uint8_t *data;
    size_t len, cap;
    uint64_t revision;
    int64_t offset_ms; /* for last_seen */
    bool too_long;     /* for one message */
};

/* Room for one more result. False: no memory, or more than a message may have. */
static bool results_room(struct results *results, size_t more)
{
    size_t cap = results->cap ? results->cap : RESULTS_FIRST;
    uint8_t *data;

    if (results->len + more > results->serve->limits.message_bytes) {
        results->too_long = true;
        return false;
    }
    while (cap < results->len + more)
        cap *= 2;
    if (cap == results->cap)
        return true;
    data = arena_alloc(results->arena, cap);
    if (!data)
        return false;
    if (results->len)
        memcpy(data, results->data, results->len);
    results->data = data;
    results->cap = cap;
    return true;
}

static bool results_put(struct results *results, const struct routes_result *result)
{
    if (!results_room(results, routes_size(result)))
        return false;
    results->len = (size_t)(routes_pack(result, results->data + results->len) - results->data);
    return true;
}

static struct routes_text text_of(const char *text)
{
    return (struct routes_text){.text = text, .len = strlen(text)};
}

/* One name's routes; false as results_room. */
static bool lookup_one(struct results *results, const char *asked, size_t most)
{
    struct serve *serve = results->serve;
    struct registry_route room[ROUTES_MAX];
    struct registry_routes routes = {.at = room, .cap = most};
    struct routes_one at[ROUTES_MAX];
    struct routes_result result = {.name = text_of(asked), .at = at};
    char name[LIMIT_NAME + 1];
    bool ok;

    if (name_canon(asked, result.name.len, name) != NAME_OK) {
        result.reason = MESHD__V1__REASON__REASON_BAD_NAME;
        return results_put(results, &result);
    }
    result.name = text_of(name);
    registry_lookup(serve->registry, name, result.name.len, &routes);
    results->revision = routes.revision;
    for (; result.n < routes.n; result.n++) {
        const struct registry_route *from = &room[result.n];

        at[result.n] = (struct routes_one){
            .ip = text_of(from->label),
            .peer_id = text_of(from->local ? serve->peer_id : from->peer_id),
            .backend = {from->row->backend, from->row->backend_len},
            .connected = from->connected,
            .stale = from->stale,
            .healthy = from->healthy,
            .draining = from->draining,
            .last_seen = from->local ? 0 : clock_unix_s(from->last_seen_ms, results->offset_ms),
        };
    }
    ok = results_put(results, &result);
    registry_routes_fini(&routes);
    return ok;
}

static void lookup(Meshd__V1__Registry_Service *service, const Meshd__V1__LookupRequest *request,
                   Meshd__V1__LookupReply_Closure closure, void *closure_data)
{
    struct serve *serve = (struct serve *)service;
    struct rpc_call *call = closure_data;
    struct results results = {
        .serve = serve, .arena = rpc_call_arena(call), .offset_ms = clock_offset_ms()};
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    ProtobufCMessageUnknownField field;
    size_t most = request->max_routes ? request->max_routes : ROUTES_DEFAULT;

    if (!serve_may(serve, call, POLICY_LOOKUP))
        return;
    if (!request->n_names || request->n_names > LIMIT_LOOKUP_NAMES || most > ROUTES_MAX) {
        rpc_call_reply(call, STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_LIMIT,
                       "a Lookup takes 1 to 1000 names and at most 256 routes for each", NULL);
        return;
    }
    for (size_t i = 0; i < request->n_names; i++) {
        if (lookup_one(&results, request->names[i], most))
            continue;
        if (results.too_long)
            rpc_call_reply(call, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                           "the reply is larger than limits.message_bytes", NULL);
        else
            no_memory(call);
        return;
    }
    routes_attach(results.data, results.len, &field, &reply);
    reply.revision = results.revision;
    reply.epoch = registry_epoch(serve->registry);
    closure(&reply, call);
}

static bool fill_candidate(struct serve *serve, struct arena *arena,
                           const struct forward_candidate *from, Meshd__V1__Candidate *out)
{
    const struct registry_route *route = from->route;
    uint64_t now_ms = clock_ms();
    char session[PICTURE_SESSION_TEXT] = "";

    meshd__v1__candidate__init(out);
    out->route = arena_alloc(arena, sizeof *out->route);
    if (!out->route || !fill_route(serve, arena, route, out->route))
        return false;
    out->chosen = from->chosen;
    out->active = from->active;
    out->why = arena_strdup(arena, from->why);
    if (from->has_failed) {
        out->last_failure = (char *)forward_ends[from->failed].word;
        out->last_failure_text = arena_strdup(arena, from->failed_text);
        out->last_failure_ms_ago = from->failed_ms_ago;
    }
    if (!route->local && now_ms > route->last_seen_ms)
        out->seen_s_ago = (now_ms - route->last_seen_ms) / 1000;
    if (route->link_id)
        picture_session(route->session_id, session);
    out->session = arena_strdup(arena, session);
    return out->why && out->last_failure_text && out->session;
}

bool serve_fill_explain(struct serve *serve, struct arena *arena, const char *name,
                        Meshd__V1__ExplainReply *reply)
{
    struct registry_route room[CANDIDATES_MAX];
    struct forward_candidate found[CANDIDATES_MAX];
    struct forward_explained explained = {.routes = {.at = room, .cap = CANDIDATES_MAX},
                                          .at = found};
    Meshd__V1__Candidate *rows = arena_alloc(arena, CANDIDATES_MAX * sizeof *rows);
    bool ok;

    reply->candidates = arena_alloc(arena, CANDIDATES_MAX * sizeof *reply->candidates);
    ok = rows && reply->candidates;
    forward_explain(serve->forward, name, strlen(name), &explained);
    for (size_t i = 0; ok && i < explained.routes.n; i++) {
        reply->candidates[reply->n_candidates++] = &rows[i];
        ok = fill_candidate(serve, arena, &found[i], &rows[i]);
    }
    registry_routes_fini(&explained.routes);
    reply->name = arena_strdup(arena, name);
    reply->verdict = arena_strdup(arena, explained.verdict);
    reply->matched = arena_strdup(arena, explained.matched);
    return ok && reply->name && reply->verdict && reply->matched;
}

static void explain(Meshd__V1__Registry_Service *service, const Meshd__V1__ExplainRequest *request,
                    Meshd__V1__ExplainReply_Closure closure, void *closure_data)
{
    struct serve *serve = (struct serve *)service;
    struct rpc_call *call = closure_data;
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
    char name[LIMIT_NAME + 1], text[160];
    enum name_error error = name_canon(request->name, strlen(request->name), name);

    if (!serve_may(serve, call, POLICY_INTROSPECT))
        return;
    if (error != NAME_OK) {
        snprintf(text, sizeof text, "the name %s", name_error_text(error));
        rpc_call_reply(call, STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_BAD_NAME, text,
                       NULL);
        return;
    }
    if (serve_fill_explain(serve, rpc_call_arena(call), name, &reply))
        closure(&reply, call);
    else
        no_memory(call);
}

/* ---- to the main loop ---- */

bool serve_post(struct serve *serve, struct rpc_call *call, struct letter *letter)
{
    if (atomic_fetch_add(&serve->posted, 1) >= serve->limits.queued_calls) {
        atomic_fetch_sub(&serve->posted, 1);
        rpc_call_reply(call, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                       "too many calls wait (limits.queued_calls); try again in a moment", NULL);
        return false;
    }
    mailbox_post(serve->box, letter);
    return true;
}

enum node_method { CALL_REGISTER, CALL_DEREGISTER, CALL_OFFER, CALL_WITHDRAW, CALL_DRAIN };

struct call_letter {
    struct letter letter;
    struct serve *serve;
    struct rpc_call *call;
    enum node_method method;
    const void *request; /* lives as long as the call */
};

static void read_call(struct letter *letter)
{
    struct call_letter *l = CONTAINER_OF(letter, struct call_letter, letter);
    const struct rpc_caller *from = rpc_call_caller(l->call);
    struct node_caller caller = {.peer_id = from->peer_id,
                                 .subject = from->subject,
                                 .ip = from->ip,
                                 .local = from->local,
                                 .secure = from->secure};
    uint64_t number = (uint64_t)(uintptr_t)l->call;
    struct node *node = l->serve->node;

    atomic_fetch_sub(&l->serve->posted, 1);
    switch (l->method) {
    case CALL_REGISTER:
        node_register(node, number, &caller, l->request);
        break;
    case CALL_DEREGISTER:
        node_deregister(node, number, &caller, l->request);
        break;
    case CALL_OFFER:
        node_offer(node, number, &caller, l->request);
        break;
    case CALL_WITHDRAW:
        node_withdraw(node, number, &caller, l->request);
        break;
    case CALL_DRAIN:
        node_drain_service(node, number, &caller, l->request);
        break;
    }
    free(l);
}

static void to_node(Meshd__V1__Registry_Service *service, enum node_method method,
                    const void *request, void *closure_data)
{
    struct call_letter *l = must_alloc(sizeof *l);

    *l = (struct call_letter){.letter.read = read_call,
                              .serve = (struct serve *)service,
                              .call = closure_data,
                              .method = method,
                              .request = request};
    if (!serve_post(l->serve, l->call, &l->letter))
        free(l);
}

static void register_services(Meshd__V1__Registry_Service *service,
                              const Meshd__V1__RegisterRequest *request,
                              Meshd__V1__RegisterReply_Closure closure, void *closure_data)
{
    to_node(service, CALL_REGISTER, request, closure_data);
}

static void deregister(Meshd__V1__Registry_Service *service,
                       const Meshd__V1__DeregisterRequest *request,
                       Meshd__V1__DeregisterReply_Closure closure, void *closure_data)
{
    to_node(service, CALL_DEREGISTER, request, closure_data);
}

static void offer(Meshd__V1__Registry_Service *service, const Meshd__V1__OfferRequest *request,
                  Meshd__V1__OfferReply_Closure closure, void *closure_data)
{
    to_node(service, CALL_OFFER, request, closure_data);
}

static void withdraw(Meshd__V1__Registry_Service *service,
                     const Meshd__V1__WithdrawRequest *request,
                     Meshd__V1__WithdrawReply_Closure closure, void *closure_data)
{
    to_node(service, CALL_WITHDRAW, request, closure_data);
}

static void drain(Meshd__V1__Registry_Service *service, const Meshd__V1__DrainRequest *request,
                  Meshd__V1__DrainReply_Closure closure, void *closure_data)
{
    to_node(service, CALL_DRAIN, request, closure_data);
}

static void watch(Meshd__V1__Registry_Service *service, const Meshd__V1__WatchRequest *request,
                  Meshd__V1__WatchReply_Closure closure, void *closure_data)
{
    rpc_call_reply(closure_data, STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_NONE,
                   "Watch is a stream: ask on a connection whose preamble has kind watch", NULL);
}

void serve_init(struct serve *serve)
{
    meshd__v1__registry__init(&serve->service, NULL);
    serve->service.register_services = register_services;
    serve->service.deregister = deregister;
    serve->service.offer = offer;
    serve->service.withdraw = withdraw;
    serve->service.drain = drain;
    serve->service.reload = serve_reload;
    serve->service.lookup = lookup;
    serve->service.introspect = serve_introspect;
    serve->service.explain = explain;
    serve->service.watch = watch;
    serve->started_s = clock_wall_us() / 1000000;
    serve->started_ms = clock_ms();
    atomic_init(&serve->posted, 0);
}

void serve_fini(struct serve *serve) { pages_fini(&serve->pages); }
