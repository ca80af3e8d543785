/* A node's own services under any order of offers, withdrawals, other settings, draining, answers
 * of looks, clients and time: what is told of each is what is known of it, and a change is told
 * when there is one and only then.
 *
 * The input is a row of steps of three bytes: what, and two that say how. what & 7: 0 offer; 1
 * withdraw; 2 drain or enable; 3 other services in the configuration; 4 a look is answered; 5 a
 * client; 6 time; 7 an Offer of any bytes, as many as the second says, which follow.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "node/node.h"
#include "registry/snapshot.h"
#include "wire/check.h"

#define NAMES 4u
#define LOOKS 64u /* at most under way */

static const char *const names[NAMES] = {"a", "b", "c", "d.example"};
static const char *const backends[] = {"h:1", "h:2", "127.0.0.1:80"};
static const struct node_caller program = {.peer_id = "", .ip = "", .local = true};

static struct {
    struct node *node;
    struct registry *registry;
    uint64_t now_ms, random;
    uint64_t looks[LOOKS];
    size_t n_looks;
    uint32_t status;
} world;

static void check(bool holds)
{
    if (!holds)
        abort();
}

static uint64_t now_ms(void *ctx) { return world.now_ms; }

static uint64_t wall_us(void *ctx) { return UINT64_C(1700000000000000) + world.now_ms * 1000; }

static void randomly(void *ctx, void *out, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        world.random = world.random * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)out)[i] = (uint8_t)(world.random >> 56);
    }
}

static void look(void *ctx, uint64_t number, const struct node_service *service)
{
    check(world.n_looks < LOOKS && number != 0);
    check(service->check.kind != 0 && service->check.interval_ms && service->check.timeout_ms &&
          service->check.rise && service->check.fall);
    world.looks[world.n_looks++] = number;
}

static void reply(void *ctx, uint64_t call, enum status status, int reason, const char *text,
                  const ProtobufCMessage *message)
{
    world.status = (uint32_t)status;
}

static void event(void *ctx, const struct node_event *e) {}

static struct node_check check_from(uint8_t how)
{
    static const uint32_t intervals[] = {0, 100, 1000, 3600000};
    struct node_check out = {.kind = how & 3};

    if (out.kind == MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP)
        strcpy(out.path, "/up");
    out.interval_ms = intervals[how >> 2 & 3];
    out.rise = how >> 4 & 3;
    out.fall = how >> 6 & 3;
    return out;
}

static void offer(uint8_t who, uint8_t how)
{
    static const uint64_t ttls[] = {0, 1000, 5000, 86400000};
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;
    Meshd__V1__Check message = MESHD__V1__CHECK__INIT;
    struct node_check of = check_from(how);

    message.kind = (Meshd__V1__CheckKind)of.kind;
    message.path = of.path;
    message.interval_ms = of.interval_ms;
    message.rise = of.rise;
    message.fall = of.fall;
    request.lease_id = (char *)(who & 64 ? "l1" : "l2");
    request.name = (char *)names[who % NAMES];
    request.backend_addr = (char *)backends[who / NAMES % 3];
    request.ttl_ms = ttls[who >> 4 & 3];
    request.proxy_protocol = (Meshd__V1__ProxyProtocol)(who >> 7 & 1);
    request.draining = how >> 5 & 1;
    if (of.kind != 0)
        request.check = &message;
    node_offer(world.node, 1, &program, &request);
}

static void offer_raw(const uint8_t *data, size_t len)
{
    ProtobufCMessage *message;
    struct arena arena;

    arena_init(&arena);
    if (wire_unpack(&meshd__v1__offer_request__descriptor, data, len, &arena, &message) == 0)
        node_offer(world.node, 1, &program, (const Meshd__V1__OfferRequest *)message);
    arena_fini(&arena);
}

static void withdraw(uint8_t who)
{
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;

    request.name = (char *)(who & 16 ? "" : names[who % NAMES]);
    request.lease_id = (char *)(who & 32 ? "l1" : who & 16 ? "l2" : "");
    node_withdraw(world.node, 1, &program, &request);
}

static void drain(uint8_t who)
{
    Meshd__V1__DrainRequest request = MESHD__V1__DRAIN_REQUEST__INIT;

    request.name = (char *)names[who % NAMES];
    request.enable = who & 16;
    node_drain_service(world.node, 1, &program, &request);
}

/* which: a bit for each name, and one for the first twice. */
static void configure(uint8_t which, uint8_t how)
{
    struct node_service services[NAMES + 1];
    size_t n = 0;

    for (size_t i = 0; i < NAMES; i++)
        if (which & 1u << i)
            services[n++] = (struct node_service){.name = names[i],
                                                  .backend = backends[(which >> 5) % 3],
                                                  .proxy_protocol = which >> 7,
                                                  .check = check_from(how)};
    if (which & 16 && n > 0) {
        services[n] = services[0];
        check(node_set_services(world.node, services, n + 1) < 0);
    } else {
        check((node_set_services(world.node, services, n) == 0) == (n == 0 || (how & 3) != 3));
    }
}

static void answer(uint8_t which, bool ok)
{
    uint64_t number;

    if (world.n_looks == 0)
        return;
    which = (uint8_t)(which % world.n_looks);
    number = world.looks[which];
    memmove(world.looks + which, world.looks + which + 1,
            (--world.n_looks - which) * sizeof(*world.looks));
    node_checked(world.node, number, ok ? 0 : -1, ok ? "" : "refused");
}

static void pass(uint8_t how)
{
    uint64_t end_ms = world.now_ms + (uint64_t)how * 100;

    while (world.now_ms < end_ms) {
        uint64_t next = node_next_ms(world.node);

        world.now_ms = next > end_ms ? end_ms : next > world.now_ms ? next : world.now_ms + 1;
        if (node_next_ms(world.node) <= world.now_ms)
            node_tick(world.node);
    }
}

static const struct row *find(struct snapshot *snap, const char *name)
{
    return list_find(snap->local, name, strlen(name));
}

static void judge(struct snapshot *before, uint64_t version)
{
    struct node_check_info infos[NAMES + 1];
    size_t n = node_checks(world.node, infos, NAMES + 1);
    uint64_t unhealthy = 0, draining = 0;
    struct node_counters count;
    struct snapshot *after;
    struct list_iter it;
    const struct row *row;

    check(registry_check(world.registry) == 0);
    check(registry_snapshot(world.registry, &after) == 0);
    list_iter_init(&it, after->local);
    while ((row = list_iter_next(&it)) != NULL) {
        unhealthy += (row->flags & ROW_UNHEALTHY) != 0;
        draining += (row->flags & ROW_DRAINING) != 0;
    }
    for (size_t i = 0; i < n && i < NAMES + 1; i++) {
        row = find(after, infos[i].name);
        check(row && strcmp(row->backend, infos[i].backend) == 0);
        check(infos[i].healthy == !(row->flags & ROW_UNHEALTHY));
        check(infos[i].draining == !!(row->flags & ROW_DRAINING));
        check(infos[i].healthy || infos[i].why[0] != '\0');
    }
    node_counters(world.node, &count);
    check(count.backends_unhealthy == unhealthy && count.services_draining == draining);
    check(count.backend_downs >= count.backend_ups);
    /* PROXY flags are not told, but a change of them is one for readers of the map. */
    if (list_digest(before->local) == list_digest(after->local) &&
        before->revision == after->revision)
        check(node_version(world.node) == version);
    else
        check(node_version(world.node) > version);
    snapshot_unref(after);
}

static void begin(void)
{
    static const struct node_port port = {.now_ms = now_ms,
                                          .wall_us = wall_us,
                                          .random = randomly,
                                          .check = look,
                                          .reply = reply,
                                          .event = event};
    static struct limits limits;
    struct registry_settings of_registry = {.peer_id = "n1", .epoch = 1, .limits = &limits};
    struct node_settings settings = {.peer_id = "n1",
                                     .incarnation = 1000,
                                     .heartbeat_ms = 3000,
                                     .peer_timeout_ms = 30000,
                                     .open_timeout_ms = 10000,
                                     .call_timeout_ms = 5000,
                                     .limits = &limits};

    memset(&world, 0, sizeof(world));
    world.now_ms = 1000;
    limits_default(&limits);
    check(registry_new(&of_registry, &world.registry) == 0 &&
          node_new(&settings, world.registry, &port, &world.node) == 0);
    node_start(world.node);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    begin();
    while (size >= 3) {
        uint64_t version = node_version(world.node);
        struct snapshot *before;
        size_t len = 0;

        check(registry_snapshot(world.registry, &before) == 0);
        switch (data[0] & 7) {
        case 0:
            offer(data[1], data[2]);
            break;
        case 1:
            withdraw(data[1]);
            break;
        case 2:
            drain(data[1]);
            break;
        case 3:
            configure(data[1], data[2]);
            break;
        case 4:
            answer(data[1], data[2] & 1);
            break;
        case 5:
            node_backend_seen(world.node, names[data[1] % NAMES], backends[data[1] / NAMES % 3],
                              data[2] & 1, "timed out");
            break;
        case 6:
            pass(data[1]);
            break;
        default:
            len = data[1] < size - 3 ? data[1] : size - 3;
            offer_raw(data + 3, len);
        }
        judge(before, version);
        snapshot_unref(before);
        data += 3 + len;
        size -= 3 + len;
    }
    node_free(world.node);
    registry_free(world.registry);
    return 0;
}
