#include "rpc/serving.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "forward/must.h"
#include "rpc/canary.h"
#include "wire/frame.h"

struct rpc_server *server;
int lane;
struct tally held = TALLY_INIT;
struct rpc_call *held_calls[CONTEXTS];
struct rpc_caller seen;
struct got got;

/* ---- the service under test ---- */

/* As many routes as max_routes says, in the call's arena. */
static void lookup(Meshd__V1__Registry_Service *service, const Meshd__V1__LookupRequest *in,
                   Meshd__V1__LookupReply_Closure closure, void *closure_data)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    struct rpc_call *call = closure_data;
    struct arena *arena = rpc_call_arena(call);

    seen = *rpc_call_caller(call);
    reply.revision = in->max_routes;
    reply.n_results = in->max_routes;
    reply.results = arena_alloc(arena, in->max_routes * sizeof(reply.results[0]));
    for (size_t i = 0; i < reply.n_results; i++) {
        reply.results[i] = arena_alloc(arena, sizeof(*reply.results[i]));
        meshd__v1__lookup_result__init(reply.results[i]);
        reply.results[i]->name = arena_strdup(arena, in->names[0]);
    }
    closure(&reply, closure_data);
}

static void explain(Meshd__V1__Registry_Service *service, const Meshd__V1__ExplainRequest *in,
                    Meshd__V1__ExplainReply_Closure closure, void *closure_data)
{
    static atomic_uint n;

    held_calls[atomic_fetch_add(&n, 1) % CONTEXTS] = closure_data;
    tally_add(&held, 1);
}

static void introspect(Meshd__V1__Registry_Service *service, const Meshd__V1__IntrospectRequest *in,
                       Meshd__V1__IntrospectReply_Closure closure, void *closure_data)
{
    closure(NULL, closure_data);
}

static void withdraw(Meshd__V1__Registry_Service *service, const Meshd__V1__WithdrawRequest *in,
                     Meshd__V1__WithdrawReply_Closure closure, void *closure_data)
{
    Meshd__V1__WithdrawReply reply = MESHD__V1__WITHDRAW_REPLY__INIT;
    char text[600];

    reply.removed = 3;
    memset(text, 'a', sizeof(text));
    memcpy(text + 254, "\xc3\xa4", 2); /* one character over the limit */
    text[sizeof(text) - 1] = '\0';
    rpc_call_reply(closure_data, STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_INCARNATION,
                   text, &reply.base);
}

static Meshd__V1__Registry_Service service; /* Offer, Register and Deregister have no handler */

static bool who(void *ctx, uint32_t conn, struct rpc_caller *out_caller)
{
    *out_caller = (struct rpc_caller){.ip = "192.0.2.1", .peer_id = "n1", .conn = conn};
    return conn != CONN_GONE;
}

/* ---- asking ---- */

const Meshd__V1__CallHeader good = {PROTOBUF_C_MESSAGE_INIT(&meshd__v1__call_header__descriptor),
                                    (char *)"/meshd.v1.Registry/Lookup", 42, 5000, 1};

void serving_ask_raw(int fd, uint32_t conn, unsigned hops, uint32_t id, const void *frame,
                     size_t len)
{
    size_t request_len;
    uint8_t *request = fake_request(conn, hops, id, frame, len, &request_len);

    cr_assert(fake_write(fd, request, request_len));
    free(request);
}

void serving_ask_id(int fd, uint32_t id, const Meshd__V1__CallHeader *header,
                    const ProtobufCMessage *body)
{
    size_t len = frame_size(&header->base, body);
    uint8_t *frame = malloc(len);

    frame_pack(&header->base, body, frame);
    serving_ask_raw(fd, CONN, 0, id, frame, len);
    free(frame);
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint32_t serving_read(int fd, uint32_t conn, unsigned hops)
{
    size_t len, head = 4 * (3 + (size_t)hops);
    uint8_t *reply = fake_read(fd, &len);
    struct frame_parts parts;
    Meshd__V1__ReplyHeader *header;
    uint32_t id;

    cr_assert(reply, "an answer comes");
    cr_assert_geq(len, head);
    cr_assert_eq(u32(reply), conn, "the number on the backtrace");
    for (unsigned i = 0; i < hops; i++)
        cr_assert_eq(u32(reply + 4 * (1 + i)), 0x1000 + i);
    id = u32(reply + head - 8);
    cr_assert(id >> 31);
    cr_assert_eq(u32(reply + head - 4), conn, "the number in front of the reply");
    cr_assert_leq(len - head, MESSAGE_BYTES);
    cr_assert_eq(frame_split(reply + head, len - head, &parts), 0);
    header = meshd__v1__reply_header__unpack(NULL, parts.header_len, parts.header);
    cr_assert(header);
    cr_assert_eq(header->wire_version_min, WIRE_VERSION_MIN);
    cr_assert_eq(header->wire_version_max, WIRE_VERSION_MAX);
    got.status = header->status;
    got.reason = (int)header->reason;
    got.call_id = header->call_id;
    snprintf(got.text, sizeof(got.text), "%s", header->text);
    got.body_len = parts.body_len;
    memcpy(got.body, parts.body, parts.body_len);
    meshd__v1__reply_header__free_unpacked(header, NULL);
    free(reply);
    return id & 0x7fffffff;
}

void serving_ask(const Meshd__V1__CallHeader *header, const ProtobufCMessage *body)
{
    serving_ask_id(lane, 1, header, body);
    cr_assert_eq(serving_read(lane, CONN, 0), 1);
}

void serving_expect(enum status status, int reason, uint64_t call_id)
{
    cr_expect_eq(got.status, status, "%u %s", got.status, got.text);
    cr_expect_eq(got.reason, reason);
    cr_expect_eq(got.call_id, call_id);
    if (status != STATUS_OK) {
        cr_expect_gt(strlen(got.text), 0);
        cr_expect_eq(got.body_len, 0);
    }
}

struct rpc_server_counters serving_counters(void)
{
    struct rpc_server_counters c;

    rpc_server_counters(server, &c);
    return c;
}

Meshd__V1__LookupRequest serving_lookup_of(char **name, uint32_t routes)
{
    Meshd__V1__LookupRequest request = MESHD__V1__LOOKUP_REQUEST__INIT;

    request.n_names = 1;
    request.names = name;
    request.max_routes = routes;
    return request;
}

void serving_setup(void)
{
    const struct rpc_server_settings settings = {.path = fake_path(0),
                                                 .contexts = CONTEXTS,
                                                 .message_bytes = MESSAGE_BYTES,
                                                 .service = &service,
                                                 .who = who};

    alarm(100);
    meshd__v1__registry__init(&service, NULL);
    service.lookup = lookup;
    service.explain = explain;
    service.introspect = introspect;
    service.withdraw = withdraw;
    cr_assert_eq(rpc_server_open(&settings, &server), 0);
    lane = fake_join(fake_path(0), SP_REQ0);
    cr_assert_geq(lane, 0);
}

void serving_teardown(void)
{
    MUST(fake_end(lane, 0));
    rpc_server_close(server);
    MUST(canary_sing() == 0);
}
