/* Tests of rpc/server: what it says to one call, and every status it gives by itself. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/serving.h"
#include "wire/frame.h"

TestSuite(server, .init = serving_setup, .fini = serving_teardown);

Test(server, method_is_run_and_its_reply_comes_back)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = serving_lookup_of(&name, 3);
    Meshd__V1__LookupReply *reply;

    serving_ask(&good, &request.base);
    cr_assert_eq(got.status, STATUS_OK);
    cr_assert_str_eq(got.text, "");
    serving_expect(STATUS_OK, 0, 42);
    reply = meshd__v1__lookup_reply__unpack(NULL, got.body_len, got.body);
    cr_assert(reply);
    cr_assert_eq(reply->n_results, 3);
    cr_assert_str_eq(reply->results[2]->name, "web");
    meshd__v1__lookup_reply__free_unpacked(reply, NULL);
    cr_assert_str_eq(seen.ip, "192.0.2.1");
    cr_assert_str_eq(seen.peer_id, "n1");
    cr_assert_eq(seen.conn, CONN);
    cr_assert_eq(serving_counters().calls, 1);
    cr_assert_eq(serving_counters().failed, 0);
}

Test(server, backtrace_of_several_words_comes_back_as_it_was)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = serving_lookup_of(&name, 1);
    uint8_t frame[200];

    for (unsigned hops = 0; hops <= LIMIT_SP_HOPS; hops++) {
        frame_pack(&good.base, &request.base, frame);
        serving_ask_raw(lane, CONN, hops, 5, frame, frame_size(&good.base, &request.base));
        cr_assert_eq(serving_read(lane, CONN, hops), 5);
        serving_expect(STATUS_OK, 0, 42);
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
        serving_ask(&header, NULL);
        serving_expect(STATUS_UNIMPLEMENTED, 0, 42);
    }
    memset(longer + strlen(longer), 'x', 200);
    header.method = longer;
    serving_ask(&header, NULL);
    serving_expect(STATUS_UNIMPLEMENTED, 0, 42);
    cr_assert_eq(serving_counters().unknown_method, 9);
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
        serving_ask_raw(lane, CONN, 0, i, frames[i], lens[i]);
        cr_assert_eq(serving_read(lane, CONN, 0), i);
        serving_expect(STATUS_INVALID_ARGUMENT, 0, 0);
    }
    cr_assert_eq(serving_counters().bad_header, 6);
}

Test(server, undecodable_message_is_an_invalid_argument)
{
    uint8_t frame[200];
    size_t len = frame_size(&good.base, NULL);

    frame_pack(&good.base, NULL, frame);
    memcpy(frame + len, "\x0a\x7fx", 3);
    serving_ask_raw(lane, CONN, 0, 1, frame, len + 3);
    serving_read(lane, CONN, 0);
    serving_expect(STATUS_INVALID_ARGUMENT, 0, 42);
    cr_assert_eq(serving_counters().bad_message, 1);
}

Test(server, message_that_would_take_too_much_memory_is_refused)
{
    uint8_t *frame = malloc(MESSAGE_BYTES);
    size_t len = frame_size(&good.base, NULL), end = MESSAGE_BYTES - 100;

    frame_pack(&good.base, NULL, frame);
    for (; len + 2 <= end; len += 2)
        memcpy(frame + len, "\x0a\x00", 2); /* an empty name, 32,000 times */
    serving_ask_raw(lane, CONN, 0, 1, frame, len);
    serving_read(lane, CONN, 0);
    serving_expect(STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT, 42);
    free(frame);
}

Test(server, every_call_needs_a_finite_deadline)
{
    Meshd__V1__CallHeader header = good;

    header.deadline_ms = 0;
    serving_ask(&header, NULL);
    serving_expect(STATUS_INVALID_ARGUMENT, 0, 42);
    header.deadline_ms = 600001;
    serving_ask(&header, NULL);
    serving_expect(STATUS_INVALID_ARGUMENT, 0, 42);
}

Test(server, another_wire_version_is_a_failed_precondition_with_its_reason)
{
    Meshd__V1__CallHeader header = good;

    header.wire_version = WIRE_VERSION_MAX + 1;
    serving_ask(&header, NULL);
    serving_expect(STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION, 42);
    header.wire_version = 0;
    header.method = (char *)"/of.the.future/Method";
    serving_ask(&header, NULL);
    serving_expect(STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION, 42);
    cr_assert_eq(serving_counters().bad_version, 2);
}

Test(server, method_that_fails_is_internal)
{
    Meshd__V1__CallHeader header = good;

    header.method = (char *)"/meshd.v1.Registry/Introspect";
    serving_ask(&header, NULL);
    serving_expect(STATUS_INTERNAL, 0, 42);
    cr_assert_eq(serving_counters().failed, 1);
}

Test(server, refusal_may_carry_a_message_and_its_text_is_cut_between_characters)
{
    Meshd__V1__CallHeader header = good;
    Meshd__V1__WithdrawReply *reply;

    header.method = (char *)"/meshd.v1.Registry/Withdraw";
    serving_ask(&header, NULL);
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
    Meshd__V1__LookupRequest request = serving_lookup_of(&name, 10000);

    serving_ask(&good, &request.base);
    serving_expect(STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT, 42);
    request.max_routes = 3000;
    serving_ask(&good, &request.base);
    serving_expect(STATUS_OK, 0, 42);
    cr_assert_gt(serving_counters().largest_reply, 50000);
    cr_assert_leq(serving_counters().largest_reply, MESSAGE_BYTES);
}
