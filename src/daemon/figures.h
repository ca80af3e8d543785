/* figures - what all rooms count, read in one go: for Introspect's table and for /metrics. */
#ifndef DAEMON_FIGURES_H
#define DAEMON_FIGURES_H

#include "daemon/reload.h"
#include "daemon/serve.h"

struct figures {
    /* only the main loop may ask for these */
    struct node_counters node;
    struct ports_counters ports;
    struct reload_counters reload;
    bool draining;
    /* any thread */
    struct registry_counters registry;
    struct gate_counters gate;
    struct rpc_server_counters rpc;
    struct printer_counters printer;
    struct forward_counters forward;
    struct policy_counters policy;
    struct web_counters admin;
    uint64_t calls_waiting, pictures_pinned, log_lost;
};

void figures_of_loop(struct serve *serve, struct figures *out_figures);
void figures_of_rooms(struct serve *serve, struct figures *out_figures);

/* What of a limit is used now. False: nothing is kept between two uses. */
bool figures_used(const struct figures *figures, const char *limit, uint64_t *out_used);

/* Words for them; N_FORWARD_PHASES, and N_TLS_FAILURES from TLS_OK + 1 on. */
extern const char *const figures_phases[], *const figures_tls_failures[];

#endif
