/* app_loop - see app.h: what is due, signals, and the end in order: first clients are let finish,
 * then peers are told, then the loop stops.
 */
#include <stdio.h>
#include <unistd.h>
#include "base/clock.h"
#include "daemon/app.h"
#include "daemon/events.h"
#include "daemon/forwards.h"

#define DRAIN_LOOK_MS 20u
#define DRAIN_LEAST_MS 300u /* for peers to hear of it, and for what they sent before to come */
#define REST_MS 5000u       /* from one look to the next for lines that were left out */
#define STOP_LINKS_MS 1000u /* for Goodbyes to leave */

static void on_tick(uv_timer_t *timer)
{
    struct app *app = timer->data;

    app->next_ms = 0;
    node_tick(app->node);
    app_loop_rearm(app);
}

void app_loop_rearm(void *ctx)
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
        app_loop_rearm(app);
}

static void tell_rest(uint64_t now_ms)
{
    events_left_out(now_ms);
    policy_left_out(now_ms);
    forwards_left_out(now_ms);
    reload_left_out(now_ms);
}

/* A timer of its own: without links the node may have nothing to do for ever. */
static void on_rest(uv_timer_t *timer)
{
    struct app *app = timer->data;

    if (app->forwarding)
        forwards_turned_away(app->forward, &app->serve.limits);
    tell_rest(clock_ms());
}

void app_loop_last_lines(void) { tell_rest(UINT64_MAX); }

static void on_stop_late(uv_timer_t *timer) { uv_stop(timer->loop); }

void app_loop_end_forwarding(struct app *app)
{
    if (app->forwarding) {
        forward_stop(app->forward);
        forwards_turned_away(app->forward, &app->serve.limits);
    }
    app->forwarding = false;
}

static void say_goodbye(struct app *app)
{
    size_t left = forward_active(app->forward);
    uint64_t now = clock_ms(), gone_ms = now - app->drain_ms;

    if (left)
        log_warn("daemon", "drain_timeout: cutting off %zu that are still being forwarded", left);
    log_info("daemon", "saying goodbye on %zu links", ports_lines(app->ports));
    app->stopping = true;
    /* What draining takes at the least is part of the end. */
    app->stop_ms = now - (gone_ms < DRAIN_LEAST_MS ? gone_ms : DRAIN_LEAST_MS);
    alarm(STOP_ALL_S);
    reload_stop(&app->reload);
    app_loop_end_forwarding(app);
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
    reload_drain(&app->reload);
    forward_drain(app->forward);
    node_drain(app->node);
    app_loop_rearm(app);
    uv_timer_start(&app->drain, on_drain, DRAIN_LOOK_MS, DRAIN_LOOK_MS);
    on_drain(&app->drain);
}

int app_loop_init(struct app *app)
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
        r = uv_timer_init(&app->loop, &app->rest);
    if (r == 0)
        r = uv_signal_init(&app->loop, &app->term);
    if (r == 0)
        r = uv_signal_init(&app->loop, &app->interrupt);
    app->tick.data = app->stop.data = app->drain.data = app->rest.data = app;
    app->term.data = app->interrupt.data = app;
    /* Handled when the loop runs: one that comes before waits till then. */
    if (r == 0)
        r = uv_signal_start(&app->term, on_signal, SIGTERM);
    if (r == 0)
        r = uv_signal_start(&app->interrupt, on_signal, SIGINT);
    if (r == 0)
        r = reload_init(&app->reload, &app->loop);
    return r;
}

void app_loop_run(struct app *app)
{
    const struct config *config = app->config;

    log_info("daemon", "meshd " MESHD_VERSION " %s: mesh port %s, local socket %s", config->peer_id,
             app->serve.address, app->paths.socket);
    if (config->insecure && app->credentials)
        log_warn("daemon", "insecure has no effect: there is TLS, and plaintext is closed");
    else if (config->insecure)
        log_warn("daemon", "insecure: whoever reaches the mesh port can read and change what this "
                           "node believes; keep it inside a network that you trust");
    node_start(app->node);
    app_loop_rearm(app);
    uv_timer_start(&app->rest, on_rest, REST_MS, REST_MS);
    notify_ready(&app->notify, &app->loop, app->registry, app->canary);
    uv_run(&app->loop, UV_RUN_DEFAULT);
}

void app_loop_close(struct app *app)
{
    uv_close((uv_handle_t *)&app->tick, NULL);
    uv_close((uv_handle_t *)&app->stop, NULL);
    uv_close((uv_handle_t *)&app->drain, NULL);
    uv_close((uv_handle_t *)&app->rest, NULL);
    uv_close((uv_handle_t *)&app->term, NULL);
    uv_close((uv_handle_t *)&app->interrupt, NULL);
    reload_close(&app->reload);
    uv_run(&app->loop, UV_RUN_DEFAULT);
    uv_loop_close(&app->loop);
}
