#include "forward/must.h"
#include "node/stage.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"

struct stage st;

/* ---- the port ---- */

static uint64_t now_ms(void *ctx) { return st.now_ms; }

static uint64_t now_us(void *ctx) { return st.now_ms * 1000; }

static uint64_t wall_us(void *ctx) { return st.wall_us + st.now_ms * 1000; }

static void randomly(void *ctx, void *out, size_t len)
{
    uint8_t *at = out;

    for (size_t i = 0; i < len; i++) {
        st.random = st.random * 6364136223846793005u + 1442695040888963407u;
        at[i] = (uint8_t)(st.random >> 56);
    }
}

static void resolve(void *ctx, uint64_t ask, const char *host, uint16_t port) { st.ask = ask; }

static void *copy(const void *data, size_t len)
{
    uint8_t *to;

    st.arena.cap = SIZE_MAX / 2;
    to = arena_alloc(&st.arena, len + 1);
    cr_assert_not_null(to);
    memcpy(to, data, len);
    return to;
}

static void *unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t len)
{
    ProtobufCMessage *message = NULL;

    cr_assert_eq(wire_unpack(descriptor, data, len, &st.arena, &message), 0);
    return message;
}

static void *again(const ProtobufCMessage *message, size_t *out_len)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *data = malloc(len + 1), *kept;

    protobuf_c_message_pack(message, data);
    kept = copy(data, len);
    free(data);
    *out_len = len;
    return kept;
}

static void call(void *ctx, uint64_t number, const struct node_addr *to, const char *expect,
                 const char *method, const ProtobufCMessage *request, uint32_t deadline_ms)
{
    size_t len;
    uint8_t *data = again(request, &len);

    cr_assert_str_eq(method, "/meshd.v1.Registry/RegisterServices");
    st.call.call = number;
    st.call.to = *to;
    snprintf(st.call.expect, sizeof(st.call.expect), "%s", expect);
    st.call.request = unpack(&meshd__v1__register_request__descriptor, data, len);
    st.call.deadline_ms = deadline_ms;
    st.n_calls++;
}

static void link_dial(void *ctx, uint64_t link, const struct node_addr *to, const char *expect,
                      const uint8_t token[TOKEN_LEN])
{
    st.dial.link = link;
    st.dial.to = *to;
    snprintf(st.dial.expect, sizeof(st.dial.expect), "%s", expect);
    memcpy(st.dial.token, token, TOKEN_LEN);
    st.n_dials++;
}

static void link_accept(void *ctx, uint64_t link) { st.accepted = link; }

static void link_refuse(void *ctx, uint64_t link, enum status status, int reason, const char *text)
{
    st.refused = link;
    st.refused_reason = reason;
}

static const ProtobufCMessageDescriptor *const kinds[] = {
    NULL,
    &meshd__v1__hello__descriptor,
    &meshd__v1__hello_reply__descriptor,
    &meshd__v1__sync__descriptor,
    &meshd__v1__sync_ack__descriptor,
    &meshd__v1__sync_wanted__descriptor,
    &meshd__v1__heartbeat__descriptor,
    &meshd__v1__goodbye__descriptor,
    [KIND(NEIGHBOURS)] = &meshd__v1__neighbours__descriptor,
};

static int link_send(void *ctx, uint64_t link, enum node_urgency urgency,
                     const ProtobufCMessage *header, const ProtobufCMessage *body)
{
    struct stage_said *said = &st.said[st.n_said];
    size_t len;
    uint8_t *data;

    if (st.queue_full)
        return -EAGAIN;
    cr_assert_lt(st.n_said, STAGE_MAX);
    data = again(header, &len);
    said->link = link;
    said->urgency = urgency;
    said->header = unpack(&meshd__v1__link_header__descriptor, data, len);
    data = again(body, &said->body_len);
    said->body = unpack(kinds[said->header->kind], data, said->body_len);
    st.n_said++;
    return 0;
}

static uint64_t link_received(void *ctx, uint64_t link) { return st.received; }

static bool link_spoke(void *ctx, uint64_t link)
{
    bool spoke = st.spoke;

    st.spoke = false;
    return spoke;
}

static void link_session(void *ctx, uint64_t link, const uint8_t session_id[SESSION_ID_LEN],
                         const char *peer_id, bool dialled)
{
    st.session.link = link;
    memcpy(st.session.session_id, session_id, SESSION_ID_LEN);
    snprintf(st.session.peer_id, sizeof(st.session.peer_id), "%s", peer_id);
    st.session.dialled = dialled;
    st.n_sessions++;
    st.sessions_said = stage_count(link, KIND(HELLO_REPLY)) + stage_count(link, KIND(SYNC));
}

static void link_forward(void *ctx, uint64_t link, int kind, const uint8_t *body, size_t len)
{
    cr_assert_leq(len, sizeof(st.forward.body));
    st.forward.link = link;
    st.forward.kind = kind;
    st.forward.len = len;
    memcpy(st.forward.body, body, len);
    st.n_forwards++;
}

static uint32_t link_data_wanted(void *ctx, uint64_t link) { return st.wanted; }

static void link_data_wish(void *ctx, uint64_t link, uint32_t wanted)
{
    st.wish_link = link;
    st.wish = wanted;
    st.n_wishes++;
}

static bool link_busy(void *ctx, uint64_t link) { return st.busy; }

static void link_end(void *ctx, uint64_t link, bool flush)
{
    st.ended = link;
    st.flushed = flush;
}

static void check(void *ctx, uint64_t number, const struct node_service *service)
{
    cr_assert_lt(st.n_looks, STAGE_MAX);
    st.looks[st.n_looks].number = number;
    st.looks[st.n_looks].at_ms = st.now_ms;
    st.looks[st.n_looks].check = service->check;
    st.looks[st.n_looks].proxy_protocol = service->proxy_protocol;
    snprintf(st.looks[st.n_looks].backend, sizeof(st.looks[0].backend), "%s", service->backend);
    st.n_looks++;
}

static void reply(void *ctx, uint64_t number, enum status status, int reason, const char *text,
                  const ProtobufCMessage *message)
{
    st.reply = (struct stage_reply){.call = number, .status = status, .reason = reason};
    snprintf(st.reply.text, sizeof(st.reply.text), "%s", text);
    if (message)
        st.reply.body = again(message, &st.reply.body_len);
    st.n_replies++;
}

static void event(void *ctx, const struct node_event *e)
{
    st.events[e->kind]++;
    snprintf(st.text[e->kind], sizeof(st.text[0]), "%s", e->text);
    snprintf(st.at[e->kind], sizeof(st.at[0]), "%s", e->address ? e->address : "");
}

/* ---- the stage ---- */

static void begin(size_t n_dials)
{
    const struct node_dial dial = {.host = "10.0.0.9", .port = 7400, .peer_id = st.expected};
    const struct node_service own = {.name = "own",
                                     .backend = "127.0.0.1:80",
                                     .proxy_protocol =
                                         MESHD__V1__PROXY_PROTOCOL__PROXY_PROTOCOL_V2};
    const struct registry_settings registry = {.peer_id = "n1", .epoch = 1, .limits = &st.limits};
    struct node_settings settings = {.peer_id = "n1",
                                     .incarnation = 1000,
                                     .heartbeat_ms = 3000,
                                     .peer_timeout_ms = 30000,
                                     .open_timeout_ms = 10000,
                                     .call_timeout_ms = 5000,
                                     .limits = &st.limits,
                                     .dials = &dial,
                                     .n_dials = n_dials,
                                     .services = &own,
                                     .n_services = 1};

    st.now_ms = 1000000;
    st.wall_us = UINT64_C(1700000000000000);
    st.random = 7;
    arena_init(&st.arena);
    if (st.limits.peers == 0)
        limits_default(&st.limits);
    st.port = (struct node_port){.now_ms = now_ms,
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
                                 .check = check,
                                 .reply = reply,
                                 .event = event};
    cr_assert_eq(registry_new(&registry, &st.registry), 0);
    cr_assert_eq(policy_keeper_new(NULL, 0, &st.policy), 0);
    settings.policy = st.policy;
    cr_assert_eq(node_new(&settings, st.registry, &st.port, &st.node), 0);
    node_start(st.node);
}

void stage_begin(void) { begin(0); }

void stage_begin_dialling(void) { begin(1); }

void stage_end(void)
{
    MUST(registry_check(st.registry) == 0);
    node_free(st.node);
    policy_keeper_free(st.policy);
    registry_free(st.registry);
    arena_fini(&st.arena);
}

void stage_wait(uint64_t ms)
{
    uint64_t end_ms = st.now_ms + ms;

    while (st.now_ms < end_ms) {
        st.now_ms += end_ms - st.now_ms < 100 ? end_ms - st.now_ms : 100;
        if (node_next_ms(st.node) <= st.now_ms)
            node_tick(st.node);
    }
}

void stage_hush(void) { st.n_said = 0; }

const void *stage_heard(uint64_t link, Meshd__V1__LinkKind kind)
{
    for (size_t i = st.n_said; i > 0; i--)
        if (st.said[i - 1].link == link && st.said[i - 1].header->kind == kind)
            return st.said[i - 1].body;
    return NULL;
}

size_t stage_count(uint64_t link, Meshd__V1__LinkKind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < st.n_said; i++)
        count += st.said[i].link == link && st.said[i].header->kind == kind;
    return count;
}

const void *stage_reply(const ProtobufCMessageDescriptor *descriptor)
{
    return unpack(descriptor, st.reply.body, st.reply.body_len);
}

void stage_service(Meshd__V1__Service *out, const char *name, const char *marked,
                   char backend[LIMIT_BACKEND + 1])
{
    size_t len = strcspn(marked, "!~");

    cr_assert_leq(len, LIMIT_BACKEND);
    memcpy(backend, marked, len);
    backend[len] = '\0';
    meshd__v1__service__init(out);
    out->name = (char *)name;
    out->backend_addr = backend;
    out->unhealthy = strchr(marked, '!') != NULL;
    out->draining = strchr(marked, '~') != NULL;
}

uint64_t stage_digest(int n, const char *const *entries)
{
    char backend[LIMIT_BACKEND + 1];
    Meshd__V1__Service service;
    uint64_t digest = 0;

    for (int i = 0; i < n; i++) {
        stage_service(&service, entries[2 * i], entries[2 * i + 1], backend);
        digest += hash_entry(service.name, strlen(service.name), backend, strlen(backend),
                             (service.unhealthy ? ENTRY_UNHEALTHY : 0u) |
                                 (service.draining ? ENTRY_DRAINING : 0u));
    }
    return digest;
}

struct services {
    Meshd__V1__Service at[16], *pointers[16];
    char backends[16][LIMIT_BACKEND + 1];
};

static void fill(struct services *out, int n, const char *const *entries)
{
    cr_assert_leq(n, 16);
    for (int i = 0; i < n; i++) {
        stage_service(&out->at[i], entries[2 * i], entries[2 * i + 1], out->backends[i]);
        out->pointers[i] = &out->at[i];
    }
}

void stage_register(const struct stage_peer *peer, int n, const char *const *entries)
{
    const struct node_caller caller = {.peer_id = peer->id, .ip = peer->ip};
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;
    static uint64_t number;
    struct services services;

    fill(&services, n, entries);
    request.peer_id = (char *)peer->id;
    request.incarnation = peer->incarnation;
    request.version = peer->version;
    request.has_list = n >= 0;
    request.n_services = n > 0 ? (size_t)n : 0;
    request.services = services.pointers;
    request.count = (uint32_t)request.n_services;
    request.digest = stage_digest(n, entries);
    request.wire_version_min = request.wire_version_max = 1;
    node_register(st.node, ++number, &caller, &request);
}

void stage_say_raw(uint64_t link, const void *session, size_t session_len, Meshd__V1__LinkKind kind,
                   const ProtobufCMessage *body)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    size_t len;
    uint8_t *data;

    header.kind = kind;
    header.session_id.data = (uint8_t *)session;
    header.session_id.len = session_len;
    len = frame_size(&header.base, body);
    data = malloc(len);
    frame_pack(&header.base, body, data);
    node_link_message(st.node, link, data, len);
    free(data);
}

void stage_say(const struct stage_peer *peer, Meshd__V1__LinkKind kind,
               const ProtobufCMessage *body)
{
    stage_say_raw(peer->link, peer->session, SESSION_ID_LEN, kind, body);
}

void stage_open(struct stage_peer *peer)
{
    const struct node_addr from = {.ip = "", .port = 5000};
    struct node_addr addr = from;
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;
    const Meshd__V1__RegisterReply *registered;
    const Meshd__V1__HelloReply *answer;
    static uint64_t number;

    stage_register(peer, -1, NULL);
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    registered = stage_reply(&meshd__v1__register_reply__descriptor);
    cr_assert_eq(registered->token.len, TOKEN_LEN);
    peer->link = NODE_LINK_ACCEPTED | ++number;
    snprintf(addr.ip, sizeof(addr.ip), "%s", peer->ip);
    node_link_asked(st.node, peer->link, peer->id, &addr, registered->token.data);
    cr_assert_eq(st.accepted, peer->link);
    node_link_up(st.node, peer->link);
    hello.peer_id = (char *)peer->id;
    hello.incarnation = peer->incarnation;
    hello.nonce = 0x0102030405060708u;
    hello.wire_version_min = hello.wire_version_max = 1;
    stage_say_raw(peer->link, NULL, 0, KIND(HELLO), &hello.base);
    answer = stage_heard(peer->link, KIND(HELLO_REPLY));
    cr_assert_not_null(answer);
    cr_assert_eq(answer->reason, REASON(NONE), "%s", answer->text);
    for (int i = 0; i < 8; i++) {
        peer->session[i] = (uint8_t)(i + 1);
        peer->session[8 + i] = (uint8_t)(answer->nonce >> (56 - 8 * i));
    }
}

void stage_sync(const struct stage_peer *peer, uint64_t base, int n, const char *const *entries,
                int n_removed, const char *const *removed)
{
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    struct services services;

    fill(&services, n, entries);
    sync.incarnation = peer->incarnation;
    sync.version = peer->version;
    sync.base_version = base;
    sync.last = true;
    sync.n_entries = (size_t)n;
    sync.entries = services.pointers;
    sync.n_removed = (size_t)n_removed;
    sync.removed = (char **)removed;
    sync.digest = stage_digest(n, entries);
    sync.count = (uint32_t)n;
    stage_say(peer, KIND(SYNC), &sync.base);
}

void stage_change(struct stage_peer *peer, int n, const char *const *entries, const char *removed,
                  uint64_t digest, uint32_t count)
{
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    struct services services;
    char *names[] = {(char *)removed};

    fill(&services, n, entries);
    sync.incarnation = peer->incarnation;
    sync.base_version = peer->version++;
    sync.version = peer->version;
    sync.last = true;
    sync.n_entries = (size_t)n;
    sync.entries = services.pointers;
    sync.n_removed = removed ? 1 : 0;
    sync.removed = names;
    sync.digest = digest;
    sync.count = count;
    stage_say(peer, KIND(SYNC), &sync.base);
}

void stage_ack(const struct stage_peer *peer, bool applied)
{
    Meshd__V1__SyncAck ack = MESHD__V1__SYNC_ACK__INIT;
    const Meshd__V1__Sync *sync = stage_heard(peer->link, KIND(SYNC));

    cr_assert_not_null(sync);
    ack.incarnation = sync->incarnation;
    ack.version = sync->version;
    ack.part = sync->part;
    ack.applied = applied;
    stage_say(peer, KIND(SYNC_ACK), &ack.base);
}

void stage_beat(const struct stage_peer *peer, uint64_t digest, uint32_t count)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    beat.incarnation = peer->incarnation;
    beat.version = peer->version;
    beat.digest = digest;
    beat.count = count;
    stage_say(peer, KIND(HEARTBEAT), &beat.base);
}

void stage_live(struct stage_peer *peer)
{
    stage_open(peer);
    stage_sync(peer, 0, 0, NULL, 0, NULL);
    stage_ack(peer, true);
    cr_assert(stage_peer_info(peer->id).state.connected);
}

bool stage_look(const char *backend, const char *text)
{
    for (size_t i = 0; i < st.n_looks; i++) {
        uint64_t number = st.looks[i].number;

        if (number == 0 || strcmp(st.looks[i].backend, backend) != 0)
            continue;
        st.looks[i].number = 0;
        node_checked(st.node, number, text ? -ECONNREFUSED : 0, text ? text : "");
        return true;
    }
    return false;
}

struct registry_peer_info stage_peer_info(const char *id)
{
    struct registry_peer_info info;

    cr_assert_eq(registry_peer_get(st.registry, id, &info), 0, "no record of %s", id);
    return info;
}

bool stage_knows(const char *id)
{
    struct registry_peer_info info;

    return registry_peer_get(st.registry, id, &info) == 0;
}
