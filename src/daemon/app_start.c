/* app_start - see app.h: threads are started last and stopped first-to-last: workers, gate, nng,
 * printer; the main loop in between is libuv's and owns the node.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/random.h"
#include "daemon/app.h"
#include "daemon/events.h"
#include "daemon/forwards.h"
#include "daemon/listen.h"
#include "daemon/privileges.h"

#define LANES 2u
#define CONTEXTS 128u
#define FIRST_BYTES_MS 10000u
#define IDLE_MS 600000u
#define CANARY_MS 10000u
#define STOP_GATE_MS 300u
#define STOP_PRINTER_MS 1000u
#define STOP_WITHIN_MS 1900u /* all of it: the printer gets what is left */

/* ---- start ---- */

static void on_sick(void *ctx)
{
    log_error("daemon", "nng's clean-up thread does not answer any more: ending, so that the "
                        "service manager can start the node afresh");
    abort();
}

static void on_event(void *ctx, const struct node_event *event)
{
    struct app *app = ctx;
    struct snapshot *snap;

    events_log(event);
    admin_event(app->admin, event);
    if (event->kind != NODE_MAPS_CHANGED || registry_snapshot(app->registry, &snap) < 0)
        return;
    if (app->feed)
        feed_show(app->feed, snapshot_ref(snap));
    admin_show(app->admin, snap);
    if (app->forward)
        forward_show(app->forward, snap);
    if (app->printer)
        printer_show(app->printer, TAKE(&snap));
    snapshot_unref(snap);
}

static int start_registry(struct app *app)
{
    const struct config *config = app->config;
    uint64_t epoch = random_u64() >> 11; /* below 2^53: JSON readers keep it exact */
    int r = registry_new(&(struct registry_settings){.peer_id = config->peer_id,
                                                     .epoch = epoch ? epoch : 1,
                                                     .limits = &config->limits},
                         &app->registry);

    if (r == 0)
        r = policy_start(&app->policy);
    if (r == 0)
        r = policy_from_config(config, app->policy);
    if (r == 0)
        r = pages_init(&app->serve.pages, config->limits.pinned_snapshots);
    return r;
}

static int start_gate(struct app *app)
{
    const struct config *config = app->config;
    int r;

    app->source = (struct feed_source){
        .peer_id = config->peer_id, .registry = app->registry, .policy = app->policy};
    r = ports_new(&(struct ports_settings){.loop = &app->loop,
                                           .box = &app->box,
                                           .dir = app->paths.nng,
                                           .peer_id = config->peer_id,
                                           .limits = &config->limits,
                                           .near_only = !app->credentials && !config->insecure,
                                           .event = on_event,
                                           .ctx = app},
                  &app->ports);
    if (r == 0)
        r = gate_new(&(struct gate_settings){.limits = &config->limits,
                                             .rep_path = app->paths.rep,
                                             .lanes = LANES,
                                             .first_bytes_ms = FIRST_BYTES_MS,
                                             .dial_ms = config->dial_timeout_ms,
                                             .idle_ms = IDLE_MS,
                                             .ops = ports_gate_ops(app->ports),
                                             .tls = credentials_keeper(app->credentials),
                                             .epoch = registry_epoch(app->registry),
                                             .watch_ops = feed_watch_ops(&app->source)},
                     &app->gate);
    if (r == 0)
        ports_attach(app->ports, app->gate);
    return r;
}

static int start_node(struct app *app)
{
    const struct config *config = app->config;
    struct node_dial *dials = apply_dials(config);
    struct node_service *services = apply_services(config);
    int r;

    app->port = ports_node_port(app->ports);
    r = node_new(&(struct node_settings){.peer_id = config->peer_id,
                                         .incarnation = clock_wall_us(),
                                         .heartbeat_ms = config->heartbeat_ms,
                                         .peer_timeout_ms = config->peer_timeout_ms,
                                         .open_timeout_ms = config->open_timeout_ms,
                                         .call_timeout_ms = config->call_timeout_ms,
                                         .limits = &config->limits,
                                         .dials = dials,
                                         .n_dials = config->n_peers,
                                         .services = services,
                                         .n_services = config->n_services,
                                         .policy = app->policy},
                 app->registry, &app->port, &app->node);
    free(dials);
    free(services);
    if (r == 0)
        ports_set_node(app->ports, app->node);
    return r;
}

static int start_rpc(struct app *app)
{
    struct serve *serve = &app->serve;
    int r;

    serve_init(serve);
    serve->registry = app->registry;
    serve->policy = app->policy;
    serve->node = app->node;
    serve->box = &app->box;
    serve->gate = app->gate;
    serve->ports = app->ports;
    serve->forward = app->forward;
    serve->reload = &app->reload;
    serve->reload_now = reload_now;
    serve->printer = app->printer;
    serve->limits = app->config->limits;
    serve->peer_id = app->config->peer_id;
    serve->heartbeat_ms = app->config->heartbeat_ms;
    serve->peer_timeout_ms = app->config->peer_timeout_ms;
    serve->tls = credentials_keeper(app->credentials);
    r = rpc_server_open(&(struct rpc_server_settings){.path = app->paths.rep,
                                                      .contexts = CONTEXTS,
                                                      .message_bytes = serve->limits.message_bytes,
                                                      .service = &serve->service,
                                                      .who = serve_who,
                                                      .ctx = serve},
                        &app->rpc);
    serve->rpc = app->rpc;
    if (r == 0)
        r = canary_start(CANARY_MS, on_sick, app, &app->canary);
    serve->canary = app->canary;
    return r;
}

/* Watchers begin with what is there now, also if nothing changes any more. */
static int start_feed(struct app *app)
{
    struct snapshot *snap;
    int r = feed_start(app->gate, app->config->peer_id, &app->config->limits, &app->feed);

    if (r == 0)
        r = registry_snapshot(app->registry, &snap);
    if (r == 0)
        feed_show(app->feed, snap);
    return r;
}

/* Its ingress ports are bound; clients are taken from forward_start on. */
static int make_forward(struct app *app)
{
    struct forward_ops ops = ports_forward_ops(app->ports);
    int r;

    ops.ended = forwards_log;
    r = clients_new(app->config, app->registry, credentials_keeper(app->credentials), app->policy,
                    &ops, &app->forward);
    if (r < 0)
        return r;
    ports_set_forward(app->ports, app->forward);
    forwards_set(app->forward, app->config->forwards);
    return 0;
}

static int start_forward(struct app *app)
{
    app->forwarding = true; /* also if it starts half-way */
    return forward_start(app->forward);
}

/* Of what is read again: who is here may have to go, who was turned away may be welcome. */
static void on_changed(void *ctx)
{
    struct app *app = ctx;

    gate_check_again(app->gate);
    forward_check_again(app->forward);
    node_retry(app->node);
}

static void start_reload(struct app *app)
{
    const struct apply_rooms rooms = {app->registry, app->policy,  app->node,
                                      app->gate,     app->forward, app->ports,
                                      app->feed,     &app->serve,  app->printer};

    reload_start(&app->reload, &(struct reload_from){.config = app->config,
                                                     .credentials = app->credentials,
                                                     .argc = app->argc,
                                                     .argv = app->argv,
                                                     .rooms = rooms,
                                                     .notify = &app->notify,
                                                     .changed = on_changed,
                                                     .applied = app_loop_rearm,
                                                     .ctx = app});
}

/* Everything that may fail, in the order in which it depends on what went before. Privileges are
 * dropped when every port is bound and nobody has been listened to; the first thread is begun
 * afterwards, because what is given up is given up by each alone. */
int app_start(struct app *app)
{
    struct sockaddr_storage from = {.ss_family = AF_UNSPEC};
    int r = credentials_new(app->config, &app->credentials);

    if (r < 0)
        return r; /* it was told already */
    r = start_registry(app);
    if (r == 0)
        r = start_gate(app);
    if (r == 0)
        r = make_forward(app);
    if (r == 0) {
        r = listen_open(app->config, app->gate, app->paths.socket, app->serve.address,
                        sizeof app->serve.address, &from);
        if (r < 0)
            return r; /* likewise */
        ports_set_from(app->ports, &from);
        if (clients_listen(app->config, app->forward, &app->serve.ingress) < 0 ||
            admin_listen(app->config, &app->serve, &app->admin) < 0 ||
            privileges_drop(app->config) < 0)
            return -EIO; /* likewise */
        credentials_confined(app->credentials);
        r = printer_start(app->config->peer_id, apply_maps(app->config), STDOUT_FILENO,
                          &app->printer);
    }
    if (r == 0)
        r = start_node(app);
    if (r == 0)
        r = start_rpc(app);
    if (r == 0)
        r = gate_start(app->gate);
    if (r == 0)
        r = start_feed(app);
    if (r == 0)
        r = start_forward(app);
    if (r == 0)
        r = admin_start(app->admin);
    if (r < 0) {
        log_error("daemon", "cannot start: %s", strerror(-r));
        return r;
    }
    if (!app->config->n_services) /* else the node tells of them when it starts */
        on_event(app, &(struct node_event){.kind = NODE_MAPS_CHANGED});
    start_reload(app);
    return 0;
}

/* ---- stop ---- */

static uint32_t printer_grace_ms(const struct app *app)
{
    uint64_t gone_ms = app->stopping ? clock_ms() - app->stop_ms : 0;
    uint64_t left_ms = gone_ms < STOP_WITHIN_MS ? STOP_WITHIN_MS - gone_ms : 0;

    return left_ms < STOP_PRINTER_MS ? (uint32_t)left_ms : STOP_PRINTER_MS;
}

void app_stop(struct app *app, int code)
{
    notify_stop(&app->notify);
    app_loop_end_forwarding(app);
    admin_stop(app->admin);
    feed_stop(app->feed);
    app->feed = NULL;
    if (app->gate)
        gate_stop(app->gate, STOP_GATE_MS);
    mailbox_read(&app->box); /* calls that wait for this loop are answered: rpc waits for them */
    if (app->rpc)
        rpc_server_close(app->rpc);
    mailbox_close(&app->box);
    admin_free(app->admin);
    canary_stop(app->canary); /* introspection asks it */
    app_loop_last_lines();
    printer_stop(app->printer, printer_grace_ms(app));
    if (app->ports && ports_resolving(app->ports)) {
        paths_close(&app->paths); /* nothing stops the resolver, and libuv would wait for it */
        _exit(code);
    }
    ports_free(app->ports);
    node_free(app->node);
    gate_free(app->gate);
    forward_free(app->forward);
    credentials_free(app->credentials);
    clients_texts_free(app->serve.ingress);
    serve_fini(&app->serve);
    registry_free(app->registry);
    policy_keeper_free(app->policy);
    app_loop_close(app);
    paths_close(&app->paths);
}
