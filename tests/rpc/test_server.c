/* Tests of rpc/server: every status it gives by itself, deadlines, late and foreign answers,
 * callers that vanish, many calls at once over several lanes.
 */
#include "forward/must.h"
#include "rpc/server.h"
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "rpc/canary.h"
#include "rpc/fake_gate.h"
#include "wire/frame.h"

#define CONTEXTS 96u
#define MESSAGE_BYTES 65536u
#define CONN 7u
#define CONN_GONE 8u

static struct rpc_server *server;
static int lane;

/* ---- the service under test ---- */

static struct tally held = TALLY_INIT; /* calls of Explain: answered by the test itself */
static struct rpc_call *held_calls[CONTEXTS];
static struct rpc_caller seen;

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

static const Meshd__V1__CallHeader good = {
    PROTOBUF_C_MESSAGE_INIT(&meshd__v1__call_header__descriptor),
    (char *)"/meshd.v1.Registry/Lookup", 42, 5000, 1};

struct got {
    uint32_t status;
    int reason;
    uint64_t call_id;
    char text[300];
    size_t body_len;
    uint8_t body[MESSAGE_BYTES];
};
static struct got got;

static void ask_raw(int fd, uint32_t conn, unsigned hops, uint32_t id, const void *frame,
                    size_t len)
{
    size_t request_len;
    uint8_t *request = fake_request(conn, hops, id, frame, len, &request_len);

    cr_assert(fake_write(fd, request, request_len));
    free(request);
}

static void ask_id(int fd, uint32_t id, const Meshd__V1__CallHeader *header,
                   const ProtobufCMessage *body)
{
    size_t len = frame_size(&header->base, body);
    uint8_t *frame = malloc(len);

    frame_pack(&header->base, body, frame);
    ask_raw(fd, CONN, 0, id, frame, len);
    free(frame);
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Reads a reply into got; returns its request id without the top bit. */
static uint32_t read_answer(int fd, uint32_t conn, unsigned hops)
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

static void ask(const Meshd__V1__CallHeader *header, const ProtobufCMessage *body)
{
    ask_id(lane, 1, header, body);
    cr_assert_eq(read_answer(lane, CONN, 0), 1);
}

static void expect(enum status status, int reason, uint64_t call_id)
{
    cr_expect_eq(got.status, status, "%u %s", got.status, got.text);
    cr_expect_eq(got.reason, reason);
    cr_expect_eq(got.call_id, call_id);
    if (status != STATUS_OK) {
        cr_expect_gt(strlen(got.text), 0);
        cr_expect_eq(got.body_len, 0);
    }
}

static struct rpc_server_counters counters(void)
{
    struct rpc_server_counters c;

    rpc_server_counters(server, &c);
    return c;
}

static Meshd__V1__LookupRequest lookup_of(char **name, uint32_t routes)
{
    Meshd__V1__LookupRequest request = MESHD__V1__LOOKUP_REQUEST__INIT;

    request.n_names = 1;
    request.names = name;
    request.max_routes = routes;
    return request;
}

static void setup(void)
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

static void teardown(void)
{
    MUST(fake_end(lane, 0));
    rpc_server_close(server);
    MUST(canary_sing() == 0);
}

TestSuite(server, .init = setup, .fini = teardown);

Test(server, method_is_run_and_its_reply_comes_back)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = lookup_of(&name, 3);
    Meshd__V1__LookupReply *reply;

    ask(&good, &request.base);
    cr_assert_eq(got.status, STATUS_OK);
    cr_assert_str_eq(got.text, "");
    expect(STATUS_OK, 0, 42);
    reply = meshd__v1__lookup_reply__unpack(NULL, got.body_len, got.body);
    cr_assert(reply);
    cr_assert_eq(reply->n_results, 3);
    cr_assert_str_eq(reply->results[2]->name, "web");
    meshd__v1__lookup_reply__free_unpacked(reply, NULL);
    cr_assert_str_eq(seen.ip, "192.0.2.1");
    cr_assert_str_eq(seen.peer_id, "n1");
    cr_assert_eq(seen.conn, CONN);
    cr_assert_eq(counters().calls, 1);
    cr_assert_eq(counters().failed, 0);
}

Test(server, backtrace_of_several_words_comes_back_as_it_was)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = lookup_of(&name, 1);
    uint8_t frame[200];

    for (unsigned hops = 0; hops <= LIMIT_SP_HOPS; hops++) {
        frame_pack(&good.base, &request.base, frame);
        ask_raw(lane, CONN, hops, 5, frame, frame_size(&good.base, &request.base));
        cr_assert_eq(read_answer(lane, CONN, hops), 5);
        expect(STATUS_OK, 0, 42);
    }
}

Test(server, method_that_is_unknown_or_without_handler_is_unimplemented)
{
    static const char *paths[] = {"/meshd.v1.Registry/Offer", "/meshd.v1.Registry/Nothing",
                                  "/meshd.v1.Other/Lookup",   "/meshd.v1.RegistryX/Lookup",
                                  "meshd.v1.Registry/Lookup", "/meshd.v1.Registry",
                                  "/meshd.v1.Registry/",      "/"};
    char longer[300] = "/meshd.v1.Registry/";
    Meshd__V1__CallHeader header = good;

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        header.method = (char *)paths[i];
        ask(&header, NULL);
        expect(STATUS_UNIMPLEMENTED, 0, 42);
    }
    memset(longer + strlen(longer), 'x', 200);
    header.method = longer;
    ask(&header, NULL);
    expect(STATUS_UNIMPLEMENTED, 0, 42);
    cr_assert_eq(counters().unknown_method, 9);
}

Test(server, bytes_that_are_no_frame_are_an_invalid_argument)
{
    static const char *frames[] = {"",
                                   "\xff",
                                   "\x7f"
                                   "abc",
                                   "\x05"
                                   "abc",
                                   "\x02\xff\xff",
                                   "\x03\x0a\x7f\x41"};
    static const size_t lens[] = {0, 1, 4, 4, 3, 4};

    for (unsigned i = 0; i < 6; i++) {
        ask_raw(lane, CONN, 0, i, frames[i], lens[i]);
        cr_assert_eq(read_answer(lane, CONN, 0), i);
        expect(STATUS_INVALID_ARGUMENT, 0, 0);
    }
    cr_assert_eq(counters().bad_header, 6);
}

Test(server, undecodable_message_is_an_invalid_argument)
{
    uint8_t frame[200];
    size_t len = frame_size(&good.base, NULL);

    frame_pack(&good.base, NULL, frame);
    memcpy(frame + len, "\x0a\x7fx", 3);
    ask_raw(lane, CONN, 0, 1, frame, len + 3);
    read_answer(lane, CONN, 0);
    expect(STATUS_INVALID_ARGUMENT, 0, 42);
    cr_assert_eq(counters().bad_message, 1);
}

Test(server, message_that_would_take_too_much_memory_is_refused)
{
    uint8_t *frame = malloc(MESSAGE_BYTES);
    size_t len = frame_size(&good.base, NULL), end = MESSAGE_BYTES - 100;

    frame_pack(&good.base, NULL, frame);
    for (; len + 2 <= end; len += 2)
        memcpy(frame + len, "\x0a\x00", 2); /* an empty name, 32,000 times */
    ask_raw(lane, CONN, 0, 1, frame, len);
    read_answer(lane, CONN, 0);
    expect(STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT, 42);
    free(frame);
}

Test(server, every_call_needs_a_finite_deadline)
{
    Meshd__V1__CallHeader header = good;

    header.deadline_ms = 0;
    ask(&header, NULL);
    expect(STATUS_INVALID_ARGUMENT, 0, 42);
    header.deadline_ms = 600001;
    ask(&header, NULL);
    expect(STATUS_INVALID_ARGUMENT, 0, 42);
}

Test(server, another_wire_version_is_a_failed_precondition_with_its_reason)
{
    Meshd__V1__CallHeader header = good;

    header.wire_version = WIRE_VERSION_MAX + 1;
    ask(&header, NULL);
    expect(STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION, 42);
    header.wire_version = 0;
    header.method = (char *)"/of.the.future/Method";
    ask(&header, NULL);
    expect(STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION, 42);
    cr_assert_eq(counters().bad_version, 2);
}

Test(server, method_that_fails_is_internal)
{
    Meshd__V1__CallHeader header = good;

    header.method = (char *)"/meshd.v1.Registry/Introspect";
    ask(&header, NULL);
    expect(STATUS_INTERNAL, 0, 42);
    cr_assert_eq(counters().failed, 1);
}

Test(server, refusal_may_carry_a_message_and_its_text_is_cut_between_characters)
{
    Meshd__V1__CallHeader header = good;
    Meshd__V1__WithdrawReply *reply;

    header.method = (char *)"/meshd.v1.Registry/Withdraw";
    ask(&header, NULL);
    cr_assert_eq(got.status, STATUS_FAILED_PRECONDITION);
    cr_assert_eq(got.reason, MESHD__V1__REASON__REASON_INCARNATION);
    cr_assert_eq(strlen(got.text), 254);
    reply = meshd__v1__withdraw_reply__unpack(NULL, got.body_len, got.body);
    cr_assert_eq(reply->removed, 3);
    meshd__v1__withdraw_reply__free_unpacked(reply, NULL);
}

Test(server, reply_too_big_for_one_message_is_resource_exhausted)
{
    char *name = (char *)"web.example.com";
    Meshd__V1__LookupRequest request = lookup_of(&name, 10000);

    ask(&good, &request.base);
    expect(STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT, 42);
    request.max_routes = 3000;
    ask(&good, &request.base);
    expect(STATUS_OK, 0, 42);
    cr_assert_gt(counters().largest_reply, 50000);
    cr_assert_leq(counters().largest_reply, MESSAGE_BYTES);
}

static void *answer_all(void *arg)
{
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
    unsigned n = *(unsigned *)arg;

    reply.verdict = (char *)"later";
    for (unsigned i = 0; i < n; i++)
        rpc_call_reply(held_calls[n - 1 - i], STATUS_OK, MESHD__V1__REASON__REASON_NONE, NULL,
                       &reply.base);
    return NULL;
}

static void answer_held(unsigned n)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, answer_all, &n), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(server, as_many_calls_as_contexts_are_answered_later_from_another_thread)
{
    Meshd__V1__CallHeader header = good;
    bool answered[CONTEXTS] = {0};

    header.method = (char *)"/meshd.v1.Registry/Explain";
    for (uint32_t i = 0; i < CONTEXTS; i++)
        ask_id(lane, i, &header, NULL);
    cr_assert(tally_wait(&held, CONTEXTS));
    cr_assert_eq(counters().in_progress, CONTEXTS);
    answer_held(CONTEXTS);
    for (uint32_t i = 0; i < CONTEXTS; i++) {
        uint32_t id = read_answer(lane, CONN, 0);

        expect(STATUS_OK, 0, 42);
        cr_assert_lt(id, CONTEXTS);
        cr_assert_not(answered[id]);
        answered[id] = true;
    }
}

Test(server, answer_after_the_deadline_is_deadline_exceeded)
{
    Meshd__V1__CallHeader header = good;
    uint64_t deadline;

    header.method = (char *)"/meshd.v1.Registry/Explain";
    header.deadline_ms = 20;
    ask_id(lane, 1, &header, NULL);
    cr_assert(tally_wait(&held, 1));
    deadline = rpc_call_deadline_ms(held_calls[0]);
    cr_assert_leq(deadline, clock_ms() + 20);
    while (clock_ms() <= deadline)
        tally_wait_ms(&held, 2, 5);
    answer_held(1);
    read_answer(lane, CONN, 0);
    expect(STATUS_DEADLINE_EXCEEDED, 0, 42);
    cr_assert_eq(counters().late, 1);
}

Test(server, caller_that_has_gone_runs_nothing)
{
    uint8_t frame[200];
    Meshd__V1__CallHeader header = good;

    header.method = (char *)"/meshd.v1.Registry/Explain";
    frame_pack(&header.base, NULL, frame);
    ask_raw(lane, CONN_GONE, 0, 3, frame, frame_size(&header.base, NULL));
    cr_assert_eq(read_answer(lane, CONN_GONE, 0), 3);
    expect(STATUS_CANCELLED, 0, 0);
    cr_assert_eq(tally_value(&held), 0);
    cr_assert_eq(counters().dropped, 1);
}

Test(server, request_without_a_connection_number_is_dropped_and_the_next_answered)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = lookup_of(&name, 1);

    for (unsigned i = 0; i < 2 * CONTEXTS; i++) {
        ask_raw(lane, 0, 0, 9, "x", 1);
        cr_assert(fake_write(lane, "\x00\x00\x00\x01\x80\x00\x00\x01\x01", 9)); /* cut short */
    }
    /* Contexts work side by side: the last drop may be counted after an answer or two. */
    do {
        ask(&good, &request.base);
        expect(STATUS_OK, 0, 42);
    } while (counters().dropped < 4 * CONTEXTS && counters().calls < 100 * CONTEXTS);
    cr_assert_eq(counters().dropped, 4 * CONTEXTS);
}

Test(server, lane_that_goes_before_the_answer_harms_nobody)
{
    Meshd__V1__CallHeader header = good;
    int other = fake_join(fake_path(0), SP_REQ0);
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = lookup_of(&name, 1);

    header.method = (char *)"/meshd.v1.Registry/Explain";
    for (uint32_t i = 0; i < 5; i++)
        ask_id(other, i, &header, NULL);
    cr_assert(tally_wait(&held, 5));
    cr_assert(fake_end(other, 0));
    answer_held(5);
    for (unsigned i = 0; i < 2 * CONTEXTS; i++) { /* every context still works */
        ask(&good, &request.base);
        expect(STATUS_OK, 0, 42);
    }
}

Test(server, call_unanswered_at_the_close_may_still_be_answered)
{
    Meshd__V1__CallHeader header = good;
    uint64_t begun;

    header.method = (char *)"/meshd.v1.Registry/Explain";
    ask_id(lane, 1, &header, NULL);
    cr_assert(tally_wait(&held, 1));
    cr_assert(fake_end(lane, 0));
    begun = clock_ms();
    rpc_server_close(server);
    cr_assert_geq(clock_ms() - begun, 990);
    answer_held(1);
    unlink(fake_path(0));
    setup(); /* for the teardown */
}

/* ---- storms ---- */

struct lane_thread {
    pthread_t thread;
    uint64_t sessions, seed;
    uint64_t answers;
    bool ok;
    const char *failed; /* what */
};

static void check(struct lane_thread *t, bool ok, const char *what)
{
    if (ok || !t->ok)
        return;
    t->ok = false;
    t->failed = what;
}

static void lane_ask(struct lane_thread *t, int fd, uint32_t id)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = lookup_of(&name, fake_random(&t->seed, 8) ? 1 : 3000);
    uint8_t frame[200], *bytes;
    size_t len;

    frame_pack(&good.base, &request.base, frame);
    bytes = fake_request(CONN, 0, id, frame, frame_size(&good.base, &request.base), &len);
    check(t, fake_write(fd, bytes, len), "write");
    free(bytes);
}

/* Sessions of one lane, each with up to 64 requests in flight, ended in order. */
static void *lane_run(void *arg)
{
    struct lane_thread *t = arg;

    for (uint64_t s = 0; s < t->sessions && t->ok; s++) {
        int fd = fake_join(fake_path(0), SP_REQ0);
        unsigned total = 1 + fake_random(&t->seed, 200), asked = 0, read = 0;

        check(t, fd >= 0, "join");
        while (t->ok && read < total) {
            while (asked < total && asked - read < 64)
                lane_ask(t, fd, asked++);
            for (unsigned n = 1 + fake_random(&t->seed, asked - read); t->ok && n > 0; n--) {
                size_t len;
                uint8_t *reply = fake_read(fd, &len);

                check(t, reply != NULL, "read");
                free(reply);
                read++;
                t->answers++;
            }
        }
        if (t->ok)
            check(t, fake_end(fd, 0), "end");
    }
    return NULL;
}

Test(server, storm_of_lanes_with_many_requests_in_flight, .timeout = 0)
{
    uint64_t seed = fake_seed(), answers = 0;
    struct lane_thread threads[4];

    alarm(0);
    for (int i = 0; i < 4; i++) {
        threads[i] = (struct lane_thread){.sessions = fake_sessions(300) / 4, .ok = true};
        threads[i].seed = seed + (uint64_t)i;
        cr_assert_eq(pthread_create(&threads[i].thread, NULL, lane_run, &threads[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i].thread, NULL), 0);
        cr_assert(threads[i].ok, "lane %d: %s", i, threads[i].failed);
        answers += threads[i].answers;
    }
    cr_assert_eq(counters().calls, answers);
    cr_assert_eq(counters().failed, 0);
    fprintf(stderr, "answers=%llu\n", (unsigned long long)answers);
}
