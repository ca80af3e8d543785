/* admin - see admin.h. */
#include "daemon/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "daemon/scrape.h"
#include "wire/json.h"

#define TOO_MANY                                                                                   \
    "too many calls wait for the main loop (limits.queued_calls); try again in a moment"

struct admin {
    struct web *web;
    struct serve *serve;
    bool loopback;
};

/* ---- answers, made on web's thread of what was copied ---- */

/* Of /healthz and /readyz. */
struct verdict {
    const char *what; /* the member that is true */
    bool ok;
    char why[512];
};

static bool render_verdict(void *data, struct web_body *out_body)
{
    const struct verdict *v = data;

    if (!v->ok)
        return web_error(out_body, 503, v->why);
    return web_json(out_body, 200, json_pack("{s:b,s:s}", v->what, true, "why", v->why));
}

/* A reply, packed: unpacking it again costs less of the main loop's time than JSON would. */
struct packed {
    const ProtobufCMessageDescriptor *type;
    size_t len;
    uint8_t data[];
};

static struct packed *pack(const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    struct packed *packed = malloc(sizeof *packed + len);

    if (!packed)
        return NULL;
    packed->type = message->descriptor;
    packed->len = protobuf_c_message_pack(message, packed->data);
    return packed;
}

/* The maps and what belongs to them have paths of their own. */
static const char *const of_maps[] = {"services",       "peer_services", "next_page_token",
                                      "services_total", "peers_total",   "local_digest",
                                      "local_total"};

static bool render_packed(void *data, struct web_body *out_body)
{
    const struct packed *p = data;
    ProtobufCMessage *message = protobuf_c_message_unpack(p->type, NULL, p->len, p->data);
    json_t *json = message ? wire_json(message) : NULL;

    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
    if (json && p->type == &meshd__v1__introspect_reply__descriptor)
        for (size_t i = 0; i < sizeof of_maps / sizeof *of_maps; i++)
            json_object_del(json, of_maps[i]);
    return web_json(out_body, 200, json);
}

static bool render_too_many(void *data, struct web_body *out_body)
{
    return web_error(out_body, 503, TOO_MANY);
}

static bool render_nothing(void *data, struct web_body *out_body) { return false; }

static void tell(struct admin *admin, uint64_t number, void *data,
                 bool (*render)(void *data, struct web_body *out_body))
{
    web_answer(
        admin->web, number,
        &(struct web_answer){.data = data, .render = data ? render : render_nothing, .drop = free});
}

/* ---- on the main loop ---- */

struct question {
    struct letter letter;
    struct admin *admin;
    uint64_t number;
    void (*answer)(struct admin *admin, uint64_t number);
};

static void read_question(struct letter *letter)
{
    struct question *q = CONTAINER_OF(letter, struct question, letter);

    atomic_fetch_sub(&q->admin->serve->posted, 1);
    q->answer(q->admin, q->number);
    free(q);
}

static void answer_health(struct admin *admin, uint64_t number)
{
    struct verdict *v = must_alloc(sizeof *v);

    v->what = "healthy";
    v->ok = canary_healthy(admin->serve->canary);
    snprintf(v->why, sizeof v->why, "%s",
             v->ok ? "the main loop and nng answer" : "nng does not answer any more");
    tell(admin, number, v, render_verdict);
}

static void answer_ready(struct admin *admin, uint64_t number)
{
    struct verdict *v = must_alloc(sizeof *v);

    v->what = "ready";
    v->ok = serve_ready(admin->serve, v->why, sizeof v->why);
    tell(admin, number, v, render_verdict);
}

static void tell_node(struct admin *admin, uint64_t number, bool tombstones)
{
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
    struct serve *serve = admin->serve;
    struct packed *packed = NULL;
    struct arena arena;

    arena_init(&arena);
    reply.peer_id = (char *)serve->peer_id;
    reply.epoch = registry_epoch(serve->registry);
    reply.revision = registry_revision(serve->registry);
    if (serve_fill_node(serve, &arena, &reply, serve->limits.message_bytes, true, true) &&
        (!tombstones || serve_fill_tombstones(serve, &arena, &reply, serve->limits.message_bytes)))
        packed = pack(&reply.base);
    arena_fini(&arena);
    tell(admin, number, packed, render_packed);
}

static void answer_node(struct admin *admin, uint64_t number) { tell_node(admin, number, true); }

static void answer_live(struct admin *admin, uint64_t number)
{
    node_look_at_mesh(admin->serve->node);
    tell_node(admin, number, false);
}

static void answer_metrics(struct admin *admin, uint64_t number)
{
    web_answer(admin->web, number,
               &(struct web_answer){
                   .data = scrape_new(admin->serve), .render = scrape_render, .drop = scrape_free});
}

static void post(struct admin *admin, uint64_t number,
                 void (*answer)(struct admin *admin, uint64_t number))
{
    struct serve *serve = admin->serve;
    struct question *q;

    if (atomic_fetch_add(&serve->posted, 1) >= serve->limits.queued_calls) {
        atomic_fetch_sub(&serve->posted, 1);
        tell(admin, number, must_alloc(1), render_too_many);
        return;
    }
    q = must_alloc(sizeof *q);
    *q = (struct question){
        .letter.read = read_question, .admin = admin, .number = number, .answer = answer};
    mailbox_post(serve->box, &q->letter);
}

/* ---- what web asks, on its thread ---- */

static void explain(struct admin *admin, uint64_t number, const char *name)
{
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
    struct packed *packed = NULL;
    struct arena arena;

    arena_init(&arena);
    if (serve_fill_explain(admin->serve, &arena, name, &reply))
        packed = pack(&reply.base);
    arena_fini(&arena);
    tell(admin, number, packed, render_packed);
}

static void on_ask(void *ctx, uint64_t number, enum web_question question, const char *argument)
{
    struct admin *admin = ctx;

    switch (question) {
    case WEB_HEALTH:
        post(admin, number, answer_health);
        break;
    case WEB_READY:
        post(admin, number, answer_ready);
        break;
    case WEB_NODE:
        post(admin, number, answer_node);
        break;
    case WEB_LIVE:
        post(admin, number, answer_live);
        break;
    case WEB_EXPLAIN:
        explain(admin, number, argument);
        break;
    case WEB_METRICS:
        post(admin, number, answer_metrics);
        break;
    case N_WEB_QUESTIONS:
        tell(admin, number, NULL, NULL);
        break;
    }
}

static int on_picture(void *ctx, struct snapshot **out_snapshot)
{
    struct admin *admin = ctx;

    return registry_snapshot(admin->serve->registry, out_snapshot);
}

/* ---- what who looks at the page is told ---- */

static const char *const event_words[] = {
    [NODE_LINK_LIVE] = "link_live",
    [NODE_LINK_SUSPECT] = "link_suspect",
    [NODE_LINK_LOST] = "link_lost",
    [NODE_LINK_REFUSED] = "link_refused",
    [NODE_LINK_PARKED] = "link_parked",
    [NODE_PEER_GONE] = "peer_gone",
    [NODE_DIAL_FAILED] = "dial_failed",
    [NODE_INCARNATION] = "incarnation",
    [NODE_ENTRIES_REFUSED] = "entries_refused",
    [NODE_LEASE_EXPIRED] = "lease_expired",
    [NODE_BACKEND_DOWN] = "backend_down",
    [NODE_BACKEND_UP] = "backend_up",
    [NODE_SERVICE_DRAINED] = "service_drained",
    [NODE_SERVICE_ENABLED] = "service_enabled",
};

#define N_EVENT_WORDS (sizeof event_words / sizeof *event_words)

void admin_event(struct admin *admin, const struct node_event *event)
{
    const char *id = event->peer_id ? event->peer_id : "";
    const char *word = (size_t)event->kind < N_EVENT_WORDS ? event_words[event->kind] : NULL;

    if (!admin || !word)
        return;
    if (!*id && event->address)
        id = event->address;
    web_tell(admin->web, word, id, event->text ? event->text : "", clock_wall_us() / 1000000);
}

void admin_show(struct admin *admin, struct snapshot *snap)
{
    if (admin)
        web_show(admin->web, snap);
}

/* ---- start and stop ---- */

int admin_listen(const struct config *config, struct serve *serve, struct admin **out_admin)
{
    struct admin *admin;
    int r;

    *out_admin = NULL;
    if (!config->admin)
        return 0;
    admin = must_alloc(sizeof *admin);
    admin->serve = serve;
    admin->loopback = config_is_loopback(config->admin_host);
    r = web_new(&(struct web_settings){.peer_id = config->peer_id,
                                       .software = "meshd " MESHD_VERSION,
                                       .limits = &config->limits,
                                       .ops = {.ctx = admin, .ask = on_ask, .picture = on_picture}},
                &admin->web);
    if (r == 0)
        r = web_listen(admin->web, config->admin_host, config->admin_port, serve->admin,
                       sizeof serve->admin);
    if (r < 0) {
        log_error("daemon", "cannot listen on %s:%u for ADMIN_ADDR: %s; %s",
                  config->admin_host[0] ? config->admin_host : "*", config->admin_port,
                  strerror(-r),
                  r == -EADDRINUSE ? "stop what uses the port, or set another"
                                   : "set it to an address of this host");
        admin_free(admin);
        return r;
    }
    serve->web = admin->web;
    *out_admin = admin;
    return 0;
}

int admin_start(struct admin *admin)
{
    if (!admin)
        return 0;
    log_info("daemon", "admin port %s", admin->serve->admin);
    if (!admin->loopback)
        log_warn("daemon", "whoever reaches the admin port can read what this node knows; it has "
                           "no password: keep it inside a network that you trust");
    return web_start(admin->web);
}

void admin_stop(struct admin *admin)
{
    if (admin)
        web_stop(admin->web);
}

void admin_free(struct admin *admin)
{
    if (!admin)
        return;
    web_free(admin->web);
    free(admin);
}
