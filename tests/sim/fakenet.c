/* fakenet - one queue of events in the order of their times, the hosts they happen to, and what
 * those believe. */
#include "sim/fakenet_inside.h"

#include <stdio.h>
#include <string.h>
#include "registry/snapshot.h"

/* splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators". */
uint64_t fakenet_next(struct fakenet *net)
{
    uint64_t z = (net->random += 0x9e3779b97f4a7c15u);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t fakenet_random(struct fakenet *net, uint64_t below) { return fakenet_next(net) % below; }

static bool earlier(const struct fakenet_event *a, const struct fakenet_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void heap_push(struct fakenet *net, struct fakenet_event *event)
{
    size_t at = net->n_heap++;

    if (net->n_heap > net->cap_heap) {
        net->cap_heap = net->cap_heap ? net->cap_heap * 2 : 256;
        net->heap = must(realloc(net->heap, net->cap_heap * sizeof(struct fakenet_event *)));
    }
    for (; at > 0 && earlier(event, net->heap[(at - 1) / 2]); at = (at - 1) / 2)
        net->heap[at] = net->heap[(at - 1) / 2];
    net->heap[at] = event;
}

static struct fakenet_event *heap_pop(struct fakenet *net)
{
    struct fakenet_event *first = net->heap[0], *last = net->heap[--net->n_heap];
    size_t at = 0, child;

    while ((child = at * 2 + 1) < net->n_heap) {
        if (child + 1 < net->n_heap && earlier(net->heap[child + 1], net->heap[child]))
            child++;
        if (!earlier(net->heap[child], last))
            break;
        net->heap[at] = net->heap[child];
        at = child;
    }
    if (net->n_heap > 0)
        net->heap[at] = last;
    return first;
}

void fakenet_post(struct fakenet *net, uint64_t delay_ms, size_t host, uint32_t life,
                  void (*happen)(struct fakenet *, struct fakenet_event *), uint64_t a, uint64_t b,
                  void *owned)
{
    struct fakenet_event *event = must(calloc(1, sizeof(*event)));

    *event = (struct fakenet_event){.at_ms = net->now_ms + delay_ms,
                                    .order = net->order++,
                                    .host = host,
                                    .life = life,
                                    .happen = happen,
                                    .a = a,
                                    .b = b,
                                    .owned = owned};
    heap_push(net, event);
}

uint64_t fakenet_delay(struct fakenet *net)
{
    uint32_t least = net->settings.delay_min_ms, most = net->settings.delay_max_ms;

    return least + fakenet_random(net, (uint64_t)(most - least) + 1);
}

bool fakenet_between(const struct fakenet *net, size_t a, size_t b)
{
    return net->cut[a * HOSTS_MAX + b];
}

/* ---- the node's clock ---- */

static void on_tick(struct fakenet *net, struct fakenet_event *event);

/* After every call into a node: wakes it when it wants to be woken. */
void fakenet_arm(struct fakenet_host *host)
{
    uint64_t next_ms;

    if (!host->node)
        return;
    next_ms = node_next_ms(host->node);
    if (next_ms == UINT64_MAX || host->armed_ms <= next_ms)
        return;
    host->armed_ms = next_ms;
    fakenet_post(host->net, next_ms > host->net->now_ms ? next_ms - host->net->now_ms : 0,
                 host->index, host->life, on_tick, next_ms, 0, NULL);
}

static void on_tick(struct fakenet *net, struct fakenet_event *event)
{
    struct fakenet_host *host = net->hosts[event->host];

    if (host->armed_ms != event->a)
        return;
    host->armed_ms = UINT64_MAX;
    node_tick(host->node);
}
struct fakenet_host *fakenet_listener(struct fakenet *net, const struct node_addr *addr)
{
    for (size_t i = 0; i < net->n_hosts; i++) {
        struct fakenet_host *host = net->hosts[i];

        if (host->listens && host->addr.port == addr->port && strcmp(host->addr.ip, addr->ip) == 0)
            return host;
    }
    return NULL;
}

/* ---- hosts ---- */

struct fakenet *fakenet_new(const struct fakenet_settings *settings)
{
    struct fakenet *net = must(calloc(1, sizeof(*net)));

    net->settings = *settings;
    if (net->settings.heartbeat_ms == 0)
        net->settings.heartbeat_ms = 3000;
    if (net->settings.peer_timeout_ms == 0)
        net->settings.peer_timeout_ms = 30000;
    net->random = settings->seed;
    net->now_ms = 1000;
    net->hosts = must(calloc(HOSTS_MAX, sizeof(struct fakenet_host *)));
    net->cut = must(calloc(HOSTS_MAX * HOSTS_MAX, sizeof(bool)));
    return net;
}

static void event_free(struct fakenet_event *event)
{
    free(event->owned);
    free(event);
}

static void drop_deferred(struct fakenet_host *host)
{
    struct fakenet_event *event, *next;

    for (event = host->deferred; event; event = next) {
        next = event->next;
        event_free(event);
    }
    host->deferred = NULL;
    host->deferred_end = &host->deferred;
}

void fakenet_free(struct fakenet *net)
{
    struct name *name, *next;

    for (size_t i = 0; i < net->n_hosts; i++) {
        node_free(net->hosts[i]->node);
        registry_free(net->hosts[i]->registry);
        drop_deferred(net->hosts[i]);
        free(net->hosts[i]);
    }
    while (net->n_heap > 0)
        event_free(heap_pop(net));
    for (struct conn *conn = net->conns; conn; conn = conn->next)
        conn->dead = true;
    fakewire_sweep(net);
    fakecall_free(net);
    for (name = net->names; name; name = next) {
        next = name->next;
        free(name);
    }
    free(net->heap);
    free(net->hosts);
    free(net->cut);
    free(net);
}

uint64_t fakenet_now(const struct fakenet *net) { return net->now_ms; }

size_t fakenet_hosts(const struct fakenet *net) { return net->n_hosts; }

struct fakenet_host *fakenet_at(struct fakenet *net, size_t index) { return net->hosts[index]; }

struct fakenet_host *fakenet_add(struct fakenet *net, const char *id, const char *ip, uint16_t port)
{
    struct fakenet_host *host = must(calloc(1, sizeof(*host)));

    if (net->n_hosts == HOSTS_MAX)
        abort();
    host->net = net;
    host->index = net->n_hosts;
    snprintf(host->id, sizeof(host->id), "%s", id);
    snprintf(host->addr.ip, sizeof(host->addr.ip), "%s", ip);
    host->addr.port = port;
    host->listens = true;
    host->armed_ms = UINT64_MAX;
    host->deferred_end = &host->deferred;
    limits_default(&host->limits);
    host->port.ctx = host;
    fakewire_port(&host->port);
    fakecall_port(&host->port);
    fakebackend_port(&host->port);
    net->hosts[net->n_hosts++] = host;
    return host;
}

void fakenet_dial(struct fakenet_host *host, const char *name, uint16_t port, const char *expected)
{
    size_t i = host->n_dials++;

    if (i >= FAKENET_DIALS_MAX)
        abort();
    snprintf(host->dials[i].host, sizeof(host->dials[i].host), "%s", name);
    snprintf(host->dials[i].expected, sizeof(host->dials[i].expected), "%s",
             expected ? expected : "");
    host->dials[i].port = port;
}

void fakenet_service(struct fakenet_host *host, const char *name, const char *backend)
{
    size_t i = host->n_services++;

    if (i >= FAKENET_SERVICES_MAX)
        abort();
    snprintf(host->services[i][0], sizeof(host->services[i][0]), "%s", name);
    snprintf(host->services[i][1], sizeof(host->services[i][1]), "%s", backend);
}

void fakenet_name(struct fakenet *net, const char *name, const char *ip)
{
    struct name *entry = net->names;

    while (entry && strcmp(entry->name, name) != 0)
        entry = entry->next;
    if (!entry) {
        entry = must(calloc(1, sizeof(*entry)));
        snprintf(entry->name, sizeof(entry->name), "%s", name);
        entry->next = net->names;
        net->names = entry;
    }
    snprintf(entry->ip, sizeof(entry->ip), "%s", ip);
}

static const struct node_dial *dials_of(const struct fakenet_host *host,
                                        struct node_dial dials[FAKENET_DIALS_MAX])
{
    for (size_t i = 0; i < host->n_dials; i++)
        dials[i] = (struct node_dial){.host = host->dials[i].host,
                                      .port = host->dials[i].port,
                                      .peer_id = host->dials[i].expected};
    return dials;
}

void fakenet_redial(struct fakenet_host *host)
{
    struct node_dial dials[FAKENET_DIALS_MAX];

    if (node_set_dials(host->node, dials_of(host, dials), host->n_dials) != 0)
        abort();
    fakenet_arm(host);
}

void fakenet_boot(struct fakenet_host *host)
{
    struct fakenet *net = host->net;
    struct node_dial dials[FAKENET_DIALS_MAX];
    struct node_service services[FAKENET_SERVICES_MAX];
    struct registry_settings registry = {
        .peer_id = host->id, .epoch = fakenet_next(net) | 1, .limits = &host->limits};
    struct node_settings settings = {.peer_id = host->id,
                                     .incarnation = host->incarnation ? host->incarnation
                                                                      : fakecall_wall_us(host),
                                     .heartbeat_ms = net->settings.heartbeat_ms,
                                     .peer_timeout_ms = net->settings.peer_timeout_ms,
                                     .open_timeout_ms = 10000,
                                     .call_timeout_ms = 5000,
                                     .limits = &host->limits,
                                     .dials = dials_of(host, dials),
                                     .n_dials = host->n_dials,
                                     .services = services,
                                     .n_services = host->n_services};

    for (size_t i = 0; i < host->n_services; i++)
        services[i] =
            (struct node_service){.name = host->services[i][0], .backend = host->services[i][1]};
    host->life++;
    host->armed_ms = UINT64_MAX;
    if (registry_new(&registry, &host->registry) != 0 ||
        node_new(&settings, host->registry, &host->port, &host->node) != 0)
        abort();
    node_start(host->node);
    fakenet_arm(host);
}

static void process_ends(struct fakenet_host *host, bool flush)
{
    struct fakenet *net = host->net;

    fakewire_ends(host, flush);
    fakecall_ends(host);
    node_free(host->node);
    registry_free(host->registry);
    host->node = NULL;
    host->registry = NULL;
    host->paused = false;
    host->died_ms = net->now_ms;
    drop_deferred(host);
}

void fakenet_kill(struct fakenet_host *host)
{
    if (host->node)
        process_ends(host, false);
}

void fakenet_drain(struct fakenet_host *host)
{
    if (!host->node)
        return;
    node_drain(host->node);
    fakenet_arm(host);
}

uint32_t fakenet_wrong(const struct fakenet *net) { return net->wrong; }

void fakenet_quit(struct fakenet_host *host)
{
    if (!host->node)
        return;
    node_stop(host->node);
    process_ends(host, true);
}

void fakenet_pause(struct fakenet_host *host) { host->paused = host->node != NULL; }

void fakenet_resume(struct fakenet_host *host)
{
    struct fakenet_event *event, *next;

    host->paused = false;
    host->resumed_ms = host->net->now_ms;
    for (event = host->deferred; event; event = next) {
        next = event->next;
        event->next = NULL;
        event->at_ms = host->net->now_ms;
        event->order = host->net->order++;
        heap_push(host->net, event);
    }
    host->deferred = NULL;
    host->deferred_end = &host->deferred;
}

void fakenet_cut(struct fakenet_host *a, struct fakenet_host *b, bool cut)
{
    a->net->cut[a->index * HOSTS_MAX + b->index] = cut;
    a->net->cut[b->index * HOSTS_MAX + a->index] = cut;
}

bool fakenet_is_cut(const struct fakenet_host *a, const struct fakenet_host *b)
{
    return fakenet_between(a->net, a->index, b->index);
}

void fakenet_break(struct fakenet_host *host) { fakewire_break(host); }

void fakenet_offer(struct fakenet_host *host, const char *lease, const char *name,
                   const char *backend, uint64_t ttl_ms)
{
    const struct node_caller caller = {.peer_id = "", .ip = "", .local = true};
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)lease;
    request.name = (char *)name;
    request.backend_addr = (char *)backend;
    request.ttl_ms = ttl_ms;
    node_offer(host->node, ANSWER_CALL, &caller, &request);
    fakenet_arm(host);
}

void fakenet_withdraw(struct fakenet_host *host, const char *lease, const char *name)
{
    const struct node_caller caller = {.peer_id = "", .ip = "", .local = true};
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;

    request.lease_id = (char *)lease;
    request.name = (char *)name;
    node_withdraw(host->node, ANSWER_CALL, &caller, &request);
    fakenet_arm(host);
}

/* ---- time ---- */

static void step(struct fakenet *net)
{
    struct fakenet_event *event = heap_pop(net);
    struct fakenet_host *host = net->hosts[event->host];

    net->now_ms = event->at_ms;
    if (event->life != 0 && (!host->node || host->life != event->life)) {
        event_free(event);
        return;
    }
    if (event->life != 0 && host->paused) {
        event->next = NULL;
        *host->deferred_end = event;
        host->deferred_end = &event->next;
        return;
    }
    event->happen(net, event);
    fakenet_arm(host);
    event_free(event);
}

void fakenet_run(struct fakenet *net, uint64_t ms)
{
    uint64_t end_ms = net->now_ms + ms;

    while (net->n_heap > 0 && net->heap[0]->at_ms <= end_ms)
        step(net);
    net->now_ms = end_ms;
    fakewire_sweep(net);
}

bool fakenet_run_until(struct fakenet *net, uint64_t ms, bool (*done)(void *ctx), void *ctx)
{
    uint64_t end_ms = net->now_ms + ms;

    while (!done(ctx)) {
        if (net->now_ms >= end_ms)
            return false;
        fakenet_run(net, 50);
    }
    return true;
}

/* ---- what they believe ---- */

static int differs(void *ctx, struct row *before, struct row *after) { return 1; }

static const struct snapshot_peer *peer_in(const struct snapshot *snap, const char *id)
{
    for (size_t i = 0; i < snap->n_peers; i++)
        if (strcmp(snap->peers[i].peer_id, id) == 0)
            return &snap->peers[i];
    return NULL;
}

bool fakenet_agrees(struct fakenet_host *viewer, struct fakenet_host *owner)
{
    struct snapshot *theirs = NULL, *ours = NULL;
    const struct snapshot_peer *peer;
    bool agrees;

    if (!viewer->node || !owner->node || registry_snapshot(viewer->registry, &theirs) != 0 ||
        registry_snapshot(owner->registry, &ours) != 0)
        return false;
    peer = peer_in(theirs, owner->id);
    agrees = peer && peer->state.connected && !peer->state.stale &&
             peer->incarnation == node_incarnation(owner->node) &&
             list_diff(peer->list, ours->local, differs, NULL) == 0;
    snapshot_unref(theirs);
    snapshot_unref(ours);
    return agrees;
}

bool fakenet_live(struct fakenet_host *a, struct fakenet_host *b)
{
    struct registry_peer_info info;

    return a->node && registry_peer_get(a->registry, b->id, &info) == 0 && info.state.connected;
}

bool fakenet_linked(struct fakenet_host *a, struct fakenet_host *b)
{
    return fakenet_agrees(a, b) && fakenet_agrees(b, a);
}

long fakenet_rows(struct fakenet_host *viewer, const char *peer_id)
{
    struct registry_peer_info info;

    if (!viewer->node || registry_peer_get(viewer->registry, peer_id, &info) != 0)
        return -1;
    return (long)info.count;
}
