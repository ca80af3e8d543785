/* main - a node from its settings to its end.
 *
 * Exit codes: 0 ended as asked, 1 could not start, 2 bad settings (nothing was started). A node
 * that cannot go on (nng is sick, no memory) says so and aborts: a service manager starts it
 * afresh. Threads are started last and stopped first-to-last: workers, gate, nng, printer; the main
 * loop in between is libuv's and owns the node.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/random.h"
#include "daemon/admin.h"
#include "daemon/clients.h"
#include "daemon/events.h"
#include "daemon/feed.h"
#include "daemon/forwards.h"
#include "daemon/listen.h"
#include "daemon/notify.h"
#include "daemon/paths.h"
#include "daemon/policy.h"
#include "daemon/privileges.h"
#include "daemon/reload.h"
#include "daemon/serve.h"

#define HEAP_BLOCK (4 << 20) /* larger blocks come from the kernel, page by page, each time */
#define HEAP_TOP (8 << 20)   /* what is free at the end of the heap goes back beyond this */
#define LANES 2u
#define CONTEXTS 128u
#define FIRST_BYTES_MS 10000u
#define IDLE_MS 600000u
#define CANARY_MS 10000u
#define DRAIN_LOOK_MS 20u
#define DRAIN_LEAST_MS 300u /* for peers to hear of it, and for what they sent before to come */
#define STOP_LINKS_MS 1000u /* for Goodbyes to leave */
#define STOP_GATE_MS 300u
#define STOP_PRINTER_MS 1000u
#define STOP_WITHIN_MS 1900u /* all of it: the printer gets what is left */
#define STOP_ALL_S 3u        /* nng may not let go: the process ends all the same */

struct app {
    const struct config *config;
    int argc;
    char *const *argv;
    struct paths paths;
    struct serve serve;
    struct credentials *credentials; /* NULL: plaintext */
    struct registry *registry;
    struct policy_keeper *policy;
    struct printer *printer;
    struct feed_source source;
    struct feed *feed;
    struct ports *ports;
    struct gate *gate;
    struct rpc_server *rpc;
    struct canary *canary;
    struct node *node;
    struct node_port port;
    struct forward *forward;
    struct admin *admin; /* NULL: off */
    struct mailbox box;
    uv_loop_t loop;
    uv_timer_t tick, stop, drain;
    uv_signal_t term, interrupt;
    struct reload reload;
    struct notify notify;
    uint64_t next_ms;  /* for which the tick timer is armed */
    uint64_t drain_ms; /* when the end was asked for, */
    uint64_t stop_ms;  /* ... and when it began, with nothing forwarded any more */
    bool forwarding;   /* workers run */
    bool stopping;
};

/* ---- the main loop ---- */

static void rearm(void *ctx);

static void on_tick(uv_timer_t *timer)
{
    struct app *app = timer->data;

    app->next_ms = 0;
    node_tick(app->node);
    events_tick();
    policy_tick();
    forwards_tick();
    rearm(app);
}

static void rearm(void *ctx)
{
    struct app *app = ctx;
    uint64_t next = node_next_ms(app->node), now = clock_ms();

    if (next == app->next_ms)
        return;
    app->next_ms = next;
    uv_update_time(&app->loop);
    uv_timer_start(&app->tick, on_tick, next > now ? next - now : 0, 0);
}

static void after_batch(void *ctx)
{
    struct app *app = ctx;

    if (app->stopping && !ports_lines(app->ports))
        uv_stop(&app->loop);
    else if (app->node)
        rearm(app);
}

static void on_stop_late(uv_timer_t *timer) { uv_stop(timer->loop); }

static void end_forwarding(struct app *app)
{
    if (app->forwarding)
        forward_stop(app->forward);
    app->forwarding = false;
}

static void say_goodbye(struct app *app)
{
    size_t left = forward_active(app->forward);
    uint64_t now = clock_ms(), gone_ms = now - app->drain_ms;

    if (left)
        log_warn("daemon", "drain_timeout: cutting off %zu that are still being forwarded", left);
    log_info("daemon", "saying goodbye to %zu lines", ports_lines(app->ports));
    app->stopping = true;
    /* What draining takes at the least is part of the end. */
    app->stop_ms = now - (gone_ms < DRAIN_LEAST_MS ? gone_ms : DRAIN_LEAST_MS);
    alarm(STOP_ALL_S);
    reload_stop(&app->reload);
    end_forwarding(app);
    node_stop(app->node);
    uv_timer_stop(&app->tick);
    uv_timer_start(&app->stop, on_stop_late, STOP_LINKS_MS, 0);
    after_batch(app);
}

/* Over as soon as nothing is forwarded and peers have heard of it, so that what they had sent has
 * come. */
static void on_drain(uv_timer_t *timer)
{
    struct app *app = timer->data;
    uint64_t gone_ms = clock_ms() - app->drain_ms;

    if (ports_lines(app->ports) && gone_ms < DRAIN_LEAST_MS)
        return;
    if (forward_active(app->forward) && gone_ms < app->config->drain_timeout_ms)
        return;
    uv_timer_stop(timer);
    say_goodbye(app);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct app *app = handle->data;
    char what[64];

    if (app->serve.draining) {
        log_warn("daemon", "a second signal: ending at once");
        _exit(0);
    }
    snprintf(what, sizeof what, "draining, %zu are being forwarded", forward_active(app->forward));
    log_info("daemon", "signal %d: %s; a second one ends at once", number, what);
    notify_stopping(&app->notify, app->config->drain_timeout_ms + STOP_ALL_S * 1000, what);
    app->serve.draining = true;
    app->drain_ms = clock_ms();
    forward_drain(app->forward);
    node_drain(app->node);
    rearm(app);
    uv_timer_start(&app->drain, on_drain, DRAIN_LOOK_MS, DRAIN_LOOK_MS);
    on_drain(&app->drain);
}

static volatile sig_atomic_t exit_code; /* of a process that had to be cut short */
static void on_alarm(int number) { _exit(exit_code); }

static void on_sick(void *ctx)
{
    log_error("daemon", "nng's clean-up thread does not answer any more: ending, so that the "
                        "service manager can start the node afresh");
    abort();
}

/* ---- start ---- */

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

static int start_loop(struct app *app)
{
    int r = uv_loop_init(&app->loop);

    if (r == 0)
        r = mailbox_init(&app->box, &app->loop, after_batch, app);
    if (r == 0)
        r = uv_timer_init(&app->loop, &app->tick);
    if (r == 0)
        r = uv_timer_init(&app->loop, &app->stop);
    if (r == 0)
        r = uv_timer_init(&app->loop, &app->drain);
    if (r == 0)
        r = uv_signal_init(&app->loop, &app->term);
    if (r == 0)
        r = uv_signal_init(&app->loop, &app->interrupt);
    app->tick.data = app->stop.data = app->drain.data = app->term.data = app->interrupt.data = app;
    /* Handled when the loop runs: one that comes before waits till then. */
    if (r == 0)
        r = uv_signal_start(&app->term, on_signal, SIGTERM);
    if (r == 0)
        r = uv_signal_start(&app->interrupt, on_signal, SIGINT);
    if (r == 0)
        r = reload_init(&app->reload, &app->loop);
    return r;
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

/* Everything that may fail, in the order in which it depends on what went before. Privileges are
 * dropped when every port is bound and nobody has been listened to; the first thread is begun
 * afterwards, because what is given up is given up by each alone. */
static int start(struct app *app)
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
    if (r < 0)
        log_error("daemon", "cannot start: %s", strerror(-r));
    return r;
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
                                                     .applied = rearm,
                                                     .ctx = app});
}

static void run(struct app *app)
{
    const struct config *config = app->config;

    if (!config->n_services) /* else the node tells of them when it starts */
        on_event(app, &(struct node_event){.kind = NODE_MAPS_CHANGED});
    log_info("daemon", "meshd " MESHD_VERSION " %s: mesh port %s, local socket %s", config->peer_id,
             app->serve.address, app->paths.socket);
    if (config->insecure && app->credentials)
        log_warn("daemon", "insecure has no effect: there is TLS, and plaintext is closed");
    else if (config->insecure)
        log_warn("daemon", "insecure: whoever reaches the mesh port can read and change what this "
                           "node believes; keep it inside a network that you trust");
    start_reload(app);
    node_start(app->node);
    rearm(app);
    notify_ready(&app->notify, &app->loop, app->registry, app->canary);
    uv_run(&app->loop, UV_RUN_DEFAULT);
}

static uint32_t printer_grace_ms(const struct app *app)
{
    uint64_t gone_ms = app->stopping ? clock_ms() - app->stop_ms : 0;
    uint64_t left_ms = gone_ms < STOP_WITHIN_MS ? STOP_WITHIN_MS - gone_ms : 0;

    return left_ms < STOP_PRINTER_MS ? (uint32_t)left_ms : STOP_PRINTER_MS;
}

/* Also after a start that failed half-way. */
static void stop(struct app *app)
{
    notify_stop(&app->notify);
    end_forwarding(app);
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
    printer_stop(app->printer, printer_grace_ms(app));
    if (app->ports && ports_resolving(app->ports)) {
        paths_close(&app->paths); /* nothing stops the resolver, and libuv would wait for it */
        _exit(exit_code);
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
    uv_close((uv_handle_t *)&app->tick, NULL);
    uv_close((uv_handle_t *)&app->stop, NULL);
    uv_close((uv_handle_t *)&app->drain, NULL);
    uv_close((uv_handle_t *)&app->term, NULL);
    uv_close((uv_handle_t *)&app->interrupt, NULL);
    reload_close(&app->reload);
    uv_run(&app->loop, UV_RUN_DEFAULT);
    uv_loop_close(&app->loop);
    paths_close(&app->paths);
}

static int run_node(const struct config *config, int argc, char *const *argv)
{
    struct app *app = must_alloc(sizeof *app);
    int r;

    app->config = config;
    app->argc = argc;
    app->argv = argv;
    /* Pages of an introspection come and go by the megabyte: fresh memory would cost as much again.
     */
    mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK);
    mallopt(M_TRIM_THRESHOLD, HEAP_TOP);
    log_setup(&config->log);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_alarm);
    notify_open(&app->notify);
    r = listen_descriptors(config);
    if (r == 0)
        r = privileges_begin(config);
    if (r == 0)
        r = paths_open(&(struct paths_settings){.dir = config->runtime_dir,
                                                .peer_id = config->peer_id,
                                                .socket_group = &config->socket_group,
                                                .socket_mode = config->socket_mode,
                                                .owner = privileges_owner(config)},
                       &app->paths);
    if (r == 0) {
        r = start_loop(app);
        if (r < 0) {
            log_error("daemon", "cannot start: %s", uv_strerror(r));
            paths_close(&app->paths);
        }
    }
    if (r < 0) {
        free(app);
        return 1;
    }
    r = start(app);
    if (r == 0) {
        run(app);
    } else {
        exit_code = 1;
        alarm(STOP_ALL_S);
    }
    stop(app);
    free(app);
    return r == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    enum config_action action;
    struct config *config = NULL;
    int code = 0;

    if (config_load(argc, argv, stderr, &action, &config) < 0)
        return 2;
    switch (action) {
    case CONFIG_HELP:
        config_help(stdout);
        break;
    case CONFIG_VERSION:
        puts("meshd " MESHD_VERSION);
        break;
    case CONFIG_PRINT:
        config_print(config, stdout);
        break;
    case CONFIG_CHECK:
        code = credentials_check(config, stdout, stderr) ? 0 : 2;
        if (code == 0)
            printf("the settings are valid: node %s\n", config->peer_id);
        break;
    case CONFIG_RUN:
        code = run_node(config, argc, argv);
        break;
    }
    config_free(config);
    return code;
}
