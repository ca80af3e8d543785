/* app - a node in one process, as the three files have it that run one; nobody else includes it.
 *
 *   main.c        from the settings to the exit code
 *   app_start.c   start and stop, each in its order
 *   app_loop.c    the main loop: what is due, signals, the end in order
 *
 * Main thread only. A node that cannot go on (nng is sick, no memory) says so and aborts: a service
 * manager starts it afresh.
 */
#ifndef DAEMON_APP_H
#define DAEMON_APP_H

#include <uv.h>
#include "daemon/admin.h"
#include "daemon/clients.h"
#include "daemon/feed.h"
#include "daemon/notify.h"
#include "daemon/paths.h"
#include "daemon/policy.h"
#include "daemon/reload.h"
#include "daemon/serve.h"

#define STOP_ALL_S 3u /* nng may not let go: the process ends all the same */

struct app {
    const struct config *config; /* borrowed, as the arguments that it was made of */
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
    uv_timer_t tick, stop, drain, rest;
    uv_signal_t term, interrupt;
    struct reload reload;
    struct notify notify;
    uint64_t next_ms;  /* for which the tick timer is armed */
    uint64_t drain_ms; /* when the end was asked for, */
    uint64_t stop_ms;  /* ... and when it began, with nothing forwarded any more */
    bool forwarding;   /* workers run */
    bool stopping;
};

/* ---- app_start.c ---- */

/* Once paths, notify and the loop are there. Negative: it was told, and what was started is for
 * app_stop. */
int app_start(struct app *app);
/* Also after a start that failed half-way. code: with which the process ends here and now where
 * something cannot be waited for. */
void app_stop(struct app *app, int code);

/* ---- app_loop.c ---- */

int app_loop_init(struct app *app); /* as uv_loop_init; nothing to undo when it fails */
/* The node may have something to do sooner, or later, than it had; ctx: the app. */
void app_loop_rearm(void *ctx);
void app_loop_run(struct app *app); /* until the end was asked for, and peers have been told */
void app_loop_close(struct app *app);
/* Clients are cut off, if any are left. Again: nothing. */
void app_loop_end_forwarding(struct app *app);
/* Tells how many lines were left out since the last such line, for none will come any more. */
void app_loop_last_lines(void);

#endif
