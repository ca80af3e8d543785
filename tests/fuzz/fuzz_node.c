/* A peer that was let in says anything at all: messages of its session with any body, bytes that
 * are no message, answers to Register, silence. The maps stay sound and nothing grows.
 *
 * The input is a row of steps: one byte of what, and for what carries bytes their length (two
 * bytes, big-endian) and the bytes. what & 15: 0 raw bytes on the link; 1 to 7 a message of that
 * LinkKind; 8 time (what >> 4, in s); 9 the connection closes; 10 an answer to the node's own
 * Register; 11 a Register of the peer; 12 to 14 a message of LinkKind 8 to 10; 15 other rules, and
 * no bytes: with what & 16 the peer may register what begins with one of a to m, with 32 all else,
 * with 64 it may have no link; 15 alone: no rules.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "node/node.h"
#include "policy/policy.h"
#include "wire/check.h"

static struct {
    struct node *node;
    struct policy_keeper *policy;
    uint64_t now_ms, call, links, open; /* open: the link in session; 0: none */
    uint64_t session, forwarded;
} world;

static const uint8_t zeros[SESSION_ID_LEN]; /* all nonces and tokens are zero */

static uint64_t now_ms(void *ctx) { return world.now_ms; }

static uint64_t now_us(void *ctx) { return world.now_ms * 1000; }

static uint64_t wall_us(void *ctx) { return UINT64_C(1700000000000000) + world.now_ms * 1000; }

static void no_random(void *ctx, void *out, size_t len) { memset(out, 0, len); }

static void resolve(void *ctx, uint64_t ask, const char *host, uint16_t port) {}

static void call(void *ctx, uint64_t number, const struct node_addr *to, const char *expect,
                 const char *method, const ProtobufCMessage *request, uint32_t deadline_ms)
{
    world.call = number;
}

static void link_dial(void *ctx, uint64_t link, const struct node_addr *to, const char *expect,
                      const uint8_t token[TOKEN_LEN])
{
}

static void link_accept(void *ctx, uint64_t link) {}

static void link_refuse(void *ctx, uint64_t link, enum status status, int reason, const char *text)
{
}

static int link_send(void *ctx, uint64_t link, enum node_urgency urgency,
                     const ProtobufCMessage *header, const ProtobufCMessage *body)
{
    return frame_size(header, body) > 0 ? 0 : -EINVAL;
}

static uint64_t link_received(void *ctx, uint64_t link) { return 0; }

static bool link_spoke(void *ctx, uint64_t link) { return world.now_ms % 3000 == 0; }

static void link_session(void *ctx, uint64_t link, const uint8_t session_id[SESSION_ID_LEN],
                         const char *peer_id, bool dialled)
{
    if (link == 0 || link == world.session || link != world.open)
        abort();
    world.session = link;
}

static void link_forward(void *ctx, uint64_t link, int kind, const uint8_t *body, size_t len)
{
    uint8_t all = 0;

    if (link != world.session || kind < 8 || kind > 10)
        abort();
    for (size_t i = 0; i < len; i++) /* all of it may be read */
        all ^= body[i];
    world.forwarded += all;
}

static uint32_t link_data_wanted(void *ctx, uint64_t link) { return 3; }

static void link_data_wish(void *ctx, uint64_t link, uint32_t wanted) { abort(); }

static void look(void *ctx, uint64_t number, const struct node_service *service) {}

static bool link_busy(void *ctx, uint64_t link) { return false; }

static void link_end(void *ctx, uint64_t link, bool flush)
{
    if (link == world.open)
        world.open = 0;
}

static void reply(void *ctx, uint64_t number, enum status status, int reason, const char *text,
                  const ProtobufCMessage *message)
{
}

static void event(void *ctx, const struct node_event *e) {}

static void say(Meshd__V1__LinkKind kind, const uint8_t *body, size_t len)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    uint8_t *data = malloc(64 + len);
    size_t head;

    header.kind = kind;
    if (kind > MESHD__V1__LINK_KIND__LINK_KIND_HELLO_REPLY)
        header.session_id = (ProtobufCBinaryData){.len = SESSION_ID_LEN, .data = (uint8_t *)zeros};
    head = frame_size(&header.base, NULL);
    frame_pack(&header.base, NULL, data);
    if (len > 0)
        memcpy(data + head, body, len);
    node_link_message(world.node, world.open, data, head + len);
    free(data);
}

static void register_peer(const Meshd__V1__RegisterRequest *request)
{
    const struct node_caller caller = {.peer_id = "n2", .ip = "10.0.0.2"};

    node_register(world.node, 1, &caller, request);
}

static void open_session(void)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;
    uint8_t body[64];

    request.peer_id = hello.peer_id = (char *)"n2";
    request.incarnation = hello.incarnation = 5;
    request.version = 1;
    request.wire_version_min = request.wire_version_max = 1;
    hello.wire_version_min = hello.wire_version_max = 1;
    register_peer(&request);
    world.open = NODE_LINK_ACCEPTED | ++world.links;
    node_link_asked(world.node, world.open, "n2", &from, zeros);
    node_link_up(world.node, world.open);
    say(MESHD__V1__LINK_KIND__LINK_KIND_HELLO, body, meshd__v1__hello__pack(&hello, body));
}

static void ask_to_register(const uint8_t *data, size_t len)
{
    struct arena arena;
    ProtobufCMessage *message;

    arena_init(&arena);
    if (wire_unpack(&meshd__v1__register_request__descriptor, data, len, &arena, &message) == 0)
        register_peer((const Meshd__V1__RegisterRequest *)message);
    arena_fini(&arena);
}

static void change_rules(unsigned what)
{
    static const char *const peers[] = {"n2"};
    static const char *const names[] = {"a*", "b*", "c*", "d*", "e*", "f*", "g*",
                                        "h*", "i*", "j*", "k*", "l*", "m*", "*"};
    const struct policy_rule rule = {.name = "r",
                                     .peers = peers,
                                     .n_peers = 1,
                                     .link = !(what & 64),
                                     .register_names = what & 16 ? names : names + 13,
                                     .n_register = (what & 16 ? 13 : 0) + (what & 32 ? 1 : 0)};

    if (policy_keeper_set(world.policy, &rule, what != 15) < 0)
        abort();
    node_policy_changed(world.node);
}

static void step(unsigned what, const uint8_t *data, size_t len)
{
    struct node_call_result result = {.status = what >> 4, .reason = what >> 4, .text = "text"};

    switch (what & 15) {
    case 0:
        node_link_message(world.node, world.open, data, len);
        break;
    case 8:
        world.now_ms += (what >> 4) * 1000;
        node_look_at_mesh(world.node);
        node_tick(world.node);
        break;
    case 9:
        node_link_down(world.node, world.open, 0, 0, "closed");
        world.open = 0;
        break;
    case 15:
        change_rules(what);
        break;
    case 10:
        result.body = data;
        result.body_len = len;
        node_call_done(world.node, world.call, &result);
        break;
    case 11:
        ask_to_register(data, len);
        break;
    default:
        if ((what & 15) < 8)
            say((Meshd__V1__LinkKind)(what & 15), data, len);
        else if (what & 128)
            say(MESHD__V1__LINK_KIND__LINK_KIND_NEIGHBOURS, data, len);
        else
            say((Meshd__V1__LinkKind)((what & 15) - 4), data, len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct node_port port = {.now_ms = now_ms,
                                          .now_us = now_us,
                                          .wall_us = wall_us,
                                          .random = no_random,
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
    const struct node_addr there = {.ip = "10.0.0.9", .port = 7400};
    struct limits limits;
    struct registry *registry;
    struct registry_settings of_registry = {.peer_id = "n1", .epoch = 1, .limits = &limits};
    struct node_settings settings = {.peer_id = "n1",
                                     .incarnation = 1000,
                                     .heartbeat_ms = 3000,
                                     .peer_timeout_ms = 30000,
                                     .open_timeout_ms = 10000,
                                     .call_timeout_ms = 5000,
                                     .limits = &limits,
                                     .dials = &dial,
                                     .n_dials = 1,
                                     .services = &own,
                                     .n_services = 1};

    memset(&world, 0, sizeof(world));
    world.now_ms = 1000;
    limits_default(&limits);
    limits.services_per_peer = 20;
    limits.services_total = 30;
    if (policy_keeper_new(NULL, 0, &world.policy) != 0)
        abort();
    settings.policy = world.policy;
    if (registry_new(&of_registry, &registry) != 0 ||
        node_new(&settings, registry, &port, &world.node) != 0)
        abort();
    node_start(world.node);
    node_resolved(world.node, 1, 0, &there, 1);
    while (size >= 1) {
        unsigned what = data[0];
        size_t len = 0, head = 1;

        if ((what & 15) != 8 && (what & 15) != 9 && (what & 15) != 15) {
            if (size < 3)
                break;
            head = 3;
            len = (size_t)data[1] << 8 | data[2];
            if (len > size - head)
                len = size - head;
        }
        if (world.open == 0)
            open_session();
        step(what, data + head, len);
        data += head + len;
        size -= head + len;
    }
    if (registry_check(registry) != 0)
        abort();
    node_free(world.node);
    policy_keeper_free(world.policy);
    registry_free(registry);
    return 0;
}
