/* figures - asks each room for its own. */
#include "daemon/figures.h"

#include <string.h>
#include "base/clock.h"
#include "base/log.h"

const char *const figures_phases[N_FORWARD_PHASES] = {
    [FORWARD_PHASE_NAME] = "name",
    [FORWARD_PHASE_CONNECT] = "connect",
    [FORWARD_PHASE_OPEN] = "open",
};

const char *const figures_tls_failures[N_TLS_FAILURES] = {
    [TLS_NO_CERTIFICATE] = "no_certificate",
    [TLS_UNTRUSTED] = "untrusted",
    [TLS_EXPIRED] = "expired",
    [TLS_REVOKED] = "revoked",
    [TLS_IDENTITY] = "identity",
    [TLS_REFUSED] = "refused",
    [TLS_BROKEN] = "broken",
};

void figures_of_loop(struct serve *serve, struct figures *out)
{
    node_counters(serve->node, &out->node);
    ports_counters(serve->ports, &out->ports);
    out->reload = serve->reload->counters;
    out->draining = serve->draining;
}

void figures_of_rooms(struct serve *serve, struct figures *out)
{
    registry_counters(serve->registry, &out->registry);
    gate_counters(serve->gate, &out->gate);
    rpc_server_counters(serve->rpc, &out->rpc);
    out->printer = (struct printer_counters){0};
    if (serve->printer)
        printer_counters(serve->printer, &out->printer);
    forward_counters(serve->forward, &out->forward);
    policy_counters(serve->policy, &out->policy);
    out->admin = (struct web_counters){0};
    if (serve->web)
        web_counters(serve->web, &out->admin);
    out->calls_waiting = atomic_load(&serve->posted);
    out->pictures_pinned = pages_used(&serve->pages, clock_ms());
    out->log_lost = log_lost();
}

bool figures_used(const struct figures *all, const char *limit, uint64_t *out_used)
{
    const struct {
        const char *name;
        uint64_t used;
    } uses[] = {
        {"message_bytes", all->rpc.largest_request > all->rpc.largest_reply
                              ? all->rpc.largest_request
                              : all->rpc.largest_reply},
        {"services_per_peer", all->registry.largest_list},
        {"services_total", all->registry.services},
        {"peers", all->registry.peers},
        {"control_connections", all->gate.connections},
        {"connections_per_source", all->gate.largest_source},
        {"half_open", all->gate.half_open},
        {"half_open_per_source", all->gate.largest_half_open},
        {"gate_buffer_bytes", all->gate.buffer_bytes},
        {"requests_in_flight", all->gate.most_in_flight},
        {"unsent_reply_bytes", all->gate.most_unsent},
        {"link_queue_bytes", all->ports.largest_queue},
        {"queued_calls", all->calls_waiting},
        {"leases", all->node.leases},
        {"tombstones", all->registry.tombstones},
        {"pinned_snapshots", all->pictures_pinned},
        {"watchers", all->gate.watchers},
        {"watch_log_bytes", all->gate.watch_log_bytes},
        {"ingress_connections", all->forward.clients},
        {"ingress_per_source", all->forward.largest_source},
        {"ingress_unrouted_per_source", all->forward.largest_source_unrouted},
        {"ingress_head_bytes", all->forward.largest_head},
        {"forwards_pending", all->forward.pending},
        {"forwards_per_service", all->forward.largest_service},
        {"admin_connections", all->admin.connections},
        {"admin_per_source", all->admin.largest_source},
        {"admin_followers", all->admin.followers},
        {"data_warm_per_link", all->forward.largest_warm},
    };

    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        if (strcmp(uses[i].name, limit) != 0)
            continue;
        *out_used = uses[i].used;
        return true;
    }
    return false;
}
