/* fakebackend - the backends of each host: up unless a test says otherwise, and looked at as the
 * real port does, in a moment or when its time is over. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "registry/snapshot.h"
#include "sim/fakenet_inside.h"

#define LOOK_MS 20u

static const struct node_caller program = {.peer_id = "", .ip = "", .local = true};

/* Its place; made if there is none. */
static size_t place_of(struct fakenet_host *host, const char *address)
{
    for (size_t i = 0; i < FAKENET_BACKENDS; i++) {
        if (strcmp(host->backends[i].address, address) == 0)
            return i;
        if (host->backends[i].address[0])
            continue;
        snprintf(host->backends[i].address, sizeof(host->backends[i].address), "%s", address);
        return i;
    }
    abort();
}

void fakenet_backend(struct fakenet_host *host, const char *address, bool up)
{
    host->backends[place_of(host, address)].down = !up;
}

bool fakenet_backend_up(const struct fakenet_host *host, const char *address)
{
    for (size_t i = 0; i < FAKENET_BACKENDS; i++)
        if (strcmp(host->backends[i].address, address) == 0)
            return !host->backends[i].down;
    return true;
}

static void on_checked(struct fakenet *net, struct fakenet_event *event)
{
    struct fakenet_host *host = net->hosts[event->host];
    bool down = host->backends[event->b].down;

    host->backends[event->b].looks--;
    node_checked(host->node, event->a, down ? -ECONNREFUSED : 0, down ? "refused" : "");
}

static void port_check(void *ctx, uint64_t number, const struct node_service *service)
{
    struct fakenet_host *host = ctx;
    size_t i = place_of(host, service->backend);
    uint64_t most = fakenet_random(host->net, 4) == 0 ? service->check.timeout_ms : LOOK_MS;

    host->backends[i].looks++;
    fakenet_post(host->net, 1 + fakenet_random(host->net, most), host->index, host->life,
                 on_checked, number, i, NULL);
}

void fakebackend_port(struct node_port *port) { port->check = port_check; }

void fakenet_offer_checked(struct fakenet_host *host, const char *lease, const char *name,
                           const char *backend, uint32_t interval_ms)
{
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;
    Meshd__V1__Check check = MESHD__V1__CHECK__INIT;

    check.kind = MESHD__V1__CHECK_KIND__CHECK_KIND_TCP;
    check.interval_ms = interval_ms;
    check.timeout_ms = interval_ms;
    request.lease_id = (char *)lease;
    request.name = (char *)name;
    request.backend_addr = (char *)backend;
    request.check = &check;
    node_offer(host->node, ANSWER_CALL, &program, &request);
    fakenet_arm(host);
}

void fakenet_drain_service(struct fakenet_host *host, const char *name, bool enable)
{
    Meshd__V1__DrainRequest request = MESHD__V1__DRAIN_REQUEST__INIT;

    request.name = (char *)name;
    request.enable = enable;
    node_drain_service(host->node, ANSWER_CALL, &program, &request);
    fakenet_arm(host);
}

void fakenet_client(struct fakenet_host *host, const char *name, const char *backend)
{
    bool up = fakenet_backend_up(host, backend);

    node_backend_seen(host->node, name, backend, up, up ? "" : "refused");
    fakenet_arm(host);
}

int fakenet_flags(struct fakenet_host *viewer, struct fakenet_host *owner, const char *name)
{
    struct snapshot *snap;
    const struct row *row = NULL;
    int flags;

    if (registry_snapshot(viewer->registry, &snap) != 0)
        abort();
    if (viewer == owner)
        row = list_find(snap->local, name, strlen(name));
    for (size_t i = 0; i < snap->n_peers; i++)
        if (strcmp(snap->peers[i].peer_id, owner->id) == 0)
            row = list_find(snap->peers[i].list, name, strlen(name));
    flags = row ? row->flags & ROW_TOLD : -1;
    snapshot_unref(snap);
    return flags;
}
