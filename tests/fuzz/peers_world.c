/* peers_world - limits so low that a few words reach them. */
#include "fuzz/peers_world.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const peer_ids[PEERS] = {"n2", "n3", "n4", "n9"};
struct world world;

void check(int condition)
{
    if (!condition)
        abort();
}

/* ---- the port ---- */

static uint64_t now_ms(void *ctx) { return world.now_ms; }

static uint64_t now_us(void *ctx) { return world.now_ms * 1000; }

static uint64_t wall_us(void *ctx) { return UINT64_C(1700000000000000) + world.now_ms * 1000; }

static void randomly(void *ctx, void *out, size_t len)
{
    uint8_t *at = out;

    for (size_t i = 0; i < len; i++) {
        world.random = world.random * 6364136223846793005u + 1442695040888963407u;
        at[i] = (uint8_t)(world.random >> 56);
    }
}

static void resolve(void *ctx, uint64_t ask, const char *host, uint16_t port) { world.ask = ask; }

static void call(void *ctx, uint64_t number, const struct node_addr *to, const char *expect,
                 const char *method, const ProtobufCMessage *request, uint32_t deadline_ms)
{
    world.call = number;
}

struct link *link_of(uint64_t number)
{
    for (size_t i = 0; i < LINKS; i++)
        if (world.link[i].number == number)
            return &world.link[i];
    return NULL;
}

static void link_dial(void *ctx, uint64_t number, const struct node_addr *to, const char *peer_id,
                      const uint8_t token[TOKEN_LEN])
{
    struct link *link = link_of(0);

    check(link != NULL && number != 0);
    *link = (struct link){.number = number, .who = DIALLED};
}

static void link_accept(void *ctx, uint64_t number)
{
    struct link *link = link_of(number);

    check(link != NULL && !link->up);
}

static void link_refuse(void *ctx, uint64_t number, enum status status, int reason,
                        const char *text)
{
    struct link *link = link_of(number);

    check(link != NULL && !link->up && strlen(text) <= LIMIT_STATUS_TEXT);
    *link = (struct link){0};
}

static int link_send(void *ctx, uint64_t number, enum node_urgency urgency,
                     const ProtobufCMessage *header, const ProtobufCMessage *body)
{
    struct link *link = link_of(number);

    check(link != NULL && frame_size(header, body) <= world.limits.message_bytes);
    if (!link->up)
        return -EPIPE;
    if (((const Meshd__V1__LinkHeader *)header)->kind == KIND(SYNC)) {
        world.seen_version = ((const Meshd__V1__Sync *)body)->version;
        world.seen_part = ((const Meshd__V1__Sync *)body)->part;
    }
    return 0;
}

static uint64_t link_received(void *ctx, uint64_t number) { return 0; }

static bool link_spoke(void *ctx, uint64_t number) { return false; }

static void link_end(void *ctx, uint64_t number, bool flush)
{
    struct link *link = link_of(number);

    check(number != 0 && link != NULL);
    *link = (struct link){0};
}

static void link_session(void *ctx, uint64_t number, const uint8_t session_id[SESSION_ID_LEN],
                         const char *peer_id, bool dialled)
{
    struct link *link = link_of(number);

    check(link != NULL && link->up && !link->has_session);
    check(dialled == (link->who == DIALLED) && strcmp(peer_id, peer_ids[link->who]) == 0);
    link->has_session = true;
    memcpy(link->session, session_id, SESSION_ID_LEN);
}

static void link_forward(void *ctx, uint64_t number, int kind, const uint8_t *body, size_t len)
{
    struct link *link = link_of(number);

    check(link != NULL && link->has_session && kind >= KIND(FORWARDS) && kind <= KIND(CANCEL));
}

static uint32_t link_data_wanted(void *ctx, uint64_t number) { return 3; }

static void link_data_wish(void *ctx, uint64_t number, uint32_t wanted)
{
    struct link *link = link_of(number);

    check(link != NULL && link->who == DIALLED && link->has_session);
}

static void look(void *ctx, uint64_t number, const struct node_service *service) {}

static bool link_busy(void *ctx, uint64_t number) { return number % 2; }

static void reply(void *ctx, uint64_t number, enum status status, int reason, const char *text,
                  const ProtobufCMessage *message)
{
    check(strlen(text) <= LIMIT_STATUS_TEXT);
    if (status != STATUS_OK || !message ||
        message->descriptor != &meshd__v1__register_reply__descriptor)
        return;
    check(number < PEERS);
    memcpy(world.other[number].token, ((const Meshd__V1__RegisterReply *)message)->token.data,
           TOKEN_LEN);
}

static void event(void *ctx, const struct node_event *e)
{
    check(strlen(e->peer_id) <= LIMIT_PEER_ID && strlen(e->text) <= LIMIT_STATUS_TEXT);
}

struct link *link_newest(unsigned who)
{
    struct link *found = NULL;

    for (struct link *link = world.link; link < world.link + LINKS; link++)
        if (link->number != 0 && link->who == who && link->up &&
            (!found || link->number > found->number))
            found = link;
    return found;
}

/* ---- what holds ---- */

void world_look(struct seen *out)
{
    struct registry_counters count;

    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < PEERS; i++)
        out->known[i] = registry_peer_get(world.registry, peer_ids[i], &out->peer[i]) == 0;
    registry_counters(world.registry, &count);
    out->local = count.services_local;
}

static void check_limits(void)
{
    struct registry_counters count;
    struct registry_peer_info info;
    struct node_counters node;

    check(registry_check(world.registry) == 0);
    registry_counters(world.registry, &count);
    check(count.services <= world.limits.services_total && count.peers <= world.limits.peers);
    check(count.largest_list <= world.limits.services_per_peer);
    check(count.tombstones <= world.limits.tombstones);
    node_counters(world.node, &node);
    check(node.leases <= world.limits.leases && node.links_live <= LINKS);
    check(registry_peer_get(world.registry, "n1", &info) == REGISTRY_E_UNKNOWN);
}

void world_check(const struct seen *before, unsigned who, bool time, bool local)
{
    struct seen after;

    check_limits();
    world_look(&after);
    check(local || before->local == after.local);
    for (unsigned i = 0; i < PEERS; i++) {
        if (i == who || (time && !after.known[i]))
            continue;
        check(before->known[i] == after.known[i]);
        check(before->peer[i].digest == after.peer[i].digest &&
              before->peer[i].count == after.peer[i].count &&
              before->peer[i].version == after.peer[i].version &&
              before->peer[i].incarnation == after.peer[i].incarnation);
    }
}

void world_begin(void)
{
    static const struct node_port port = {.now_ms = now_ms,
                                          .now_us = now_us,
                                          .wall_us = wall_us,
                                          .random = randomly,
                                          .resolve = resolve,
                                          .call = call,
                                          .link_dial = link_dial,
                                          .link_accept = link_accept,
                                          .link_refuse = link_refuse,
                                          .link_send = link_send,
                                          .link_received = link_received,
                                          .link_spoke = link_spoke,
                                          .link_end = link_end,
                                          .link_session = link_session,
                                          .link_forward = link_forward,
                                          .link_data_wanted = link_data_wanted,
                                          .link_data_wish = link_data_wish,
                                          .link_busy = link_busy,
                                          .check = look,
                                          .reply = reply,
                                          .event = event};
    const struct node_dial dial = {.host = "10.0.0.9", .port = 7400};
    const struct node_service own = {.name = "own", .backend = "127.0.0.1:80"};
    const struct registry_settings registry = {
        .peer_id = "n1", .epoch = 1, .limits = &world.limits};
    const struct node_settings settings = {.peer_id = "n1",
                                           .incarnation = 1000,
                                           .heartbeat_ms = 3000,
                                           .peer_timeout_ms = 30000,
                                           .open_timeout_ms = 10000,
                                           .call_timeout_ms = 5000,
                                           .limits = &world.limits,
                                           .dials = &dial,
                                           .n_dials = 1,
                                           .services = &own,
                                           .n_services = 1};

    memset(&world, 0, sizeof(world));
    world.now_ms = 1000;
    for (unsigned i = 0; i < PEERS; i++)
        world.other[i].incarnation = 5;
    limits_default(&world.limits);
    world.limits.services_per_peer = 6;
    world.limits.services_total = 12;
    world.limits.peers = 3;
    world.limits.leases = 3;
    world.limits.tombstones = 16;
    check(registry_new(&registry, &world.registry) == 0);
    check(node_new(&settings, world.registry, &port, &world.node) == 0);
    node_start(world.node);
}

void world_end(void)
{
    node_free(world.node);
    registry_free(world.registry);
}
