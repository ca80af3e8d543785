/* Messages as JSON. */
#include <criterion/criterion.h>
#include <meshd/v1/mesh.pb-c.h>
#include <stdlib.h>
#include <string.h>
#include "wire/fail_malloc.h"
#include "wire/json.h"

static char *dump(const ProtobufCMessage *message)
{
    json_t *json = wire_json(message);
    char *text;

    cr_assert(json);
    text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    cr_assert(text);
    return text;
}

#define EXPECT(message, expected)                                                                  \
    do {                                                                                           \
        char *text_ = dump(&(message).base);                                                       \
        cr_expect_str_eq(text_, expected);                                                         \
        free(text_);                                                                               \
    } while (0)

Test(json, empty_message_prints_every_field)
{
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    EXPECT(reply, "{\"peer_id\":\"\",\"epoch\":0,\"revision\":0,\"services\":[],"
                  "\"peer_services\":[],\"next_page_token\":\"\",\"services_total\":0,"
                  "\"peers_total\":0,\"node\":null,\"limits\":[],\"tombstones\":[],"
                  "\"local_digest\":\"0\",\"local_total\":0}");
    EXPECT(beat, "{\"incarnation\":0,\"version\":0,\"digest\":\"0\",\"count\":0,\"draining\":false,"
                 "\"probe\":0,\"echo\":0,\"data_wanted\":0,\"clock_us\":0,\"echo_clock_us\":0,"
                 "\"echo_held_us\":0,\"neighbours_wanted\":false}");
}

#define NO_FORWARDS                                                                                \
    "\"active\":0,\"last_failure\":\"\",\"last_failure_text\":\"\",\"last_failure_ms_ago\":0,"     \
    "\"session\":\"\",\"seen_s_ago\":0"

Test(json, nested_messages_and_lists_keep_the_order_of_numbers)
{
    Meshd__V1__Route route = MESHD__V1__ROUTE__INIT;
    Meshd__V1__Candidate first = MESHD__V1__CANDIDATE__INIT, second = MESHD__V1__CANDIDATE__INIT;
    Meshd__V1__Candidate *candidates[] = {&first, &second};
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;

    route.ip = (char *)"local";
    route.connected = true;
    route.last_seen = 1234567890;
    first.route = &route;
    first.why = (char *)"it is \"local\"";
    reply.name = (char *)"web";
    reply.candidates = candidates;
    reply.n_candidates = 2;
    EXPECT(reply, "{\"name\":\"web\",\"candidates\":[{\"route\":{\"ip\":\"local\",\"peer_id\":\"\","
                  "\"backend_addr\":\"\",\"connected\":true,\"stale\":false,\"healthy\":false,"
                  "\"draining\":false,\"last_seen\":1234567890},\"chosen\":false,"
                  "\"why\":\"it is \\\"local\\\"\"," NO_FORWARDS
                  "},{\"route\":null,\"chosen\":false,\"why\":\"\"," NO_FORWARDS "}],"
                  "\"verdict\":\"\",\"matched\":\"\"}");
}

Test(json, enums_have_their_name_without_the_prefix)
{
    Meshd__V1__Section sections[] = {MESHD__V1__SECTION__SECTION_PEER_SERVICES,
                                     MESHD__V1__SECTION__SECTION_NODE, (Meshd__V1__Section)99};
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;
    Meshd__V1__Refused refused = MESHD__V1__REFUSED__INIT;
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;

    request.sections = sections;
    request.n_sections = 3;
    request.state = MESHD__V1__ROW_STATE__ROW_STATE_STALE;
    EXPECT(request, "{\"sections\":[\"peer_services\",\"node\",99],\"name_glob\":\"\","
                    "\"peer\":\"\",\"state\":\"stale\",\"page_rows\":0,\"page_token\":\"\"}");
    refused.reason = MESHD__V1__REASON__REASON_ID_IN_USE;
    EXPECT(refused, "{\"name\":\"\",\"reason\":\"id_in_use\",\"text\":\"\"}");
    header.kind = MESHD__V1__LINK_KIND__LINK_KIND_HELLO_REPLY;
    EXPECT(header, "{\"kind\":\"hello_reply\",\"session_id\":\"\"}");
    header.kind = (Meshd__V1__LinkKind)-1;
    EXPECT(header, "{\"kind\":-1,\"session_id\":\"\"}");
}

Test(json, bytes_are_lower_case_hex)
{
    uint8_t id[] = {0x00, 0x0f, 0xA5, 0xff};
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;

    header.session_id.data = id;
    header.session_id.len = sizeof(id);
    EXPECT(header, "{\"kind\":\"none\",\"session_id\":\"000fa5ff\"}");
}

Test(json, numbers_of_64_bits_are_numbers)
{
    Meshd__V1__Counter counter = MESHD__V1__COUNTER__INIT;

    counter.name = (char *)"calls";
    counter.value = INT64_MAX;
    EXPECT(counter, "{\"name\":\"calls\",\"value\":9223372036854775807}");
    counter.value = UINT64_MAX; /* rounded: above what jansson has as an integer */
    EXPECT(counter, "{\"name\":\"calls\",\"value\":1.8446744073709552e19}");
}

Test(json, digests_are_strings_with_every_digit)
{
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    json_t *json;

    sync.digest = UINT64_MAX - 1;
    json = wire_json(&sync.base);
    cr_assert(json);
    cr_expect_str_eq(json_string_value(json_object_get(json, "digest")), "18446744073709551614");
    json_decref(json);
}

Test(json, numbers_of_32_bits_are_unsigned)
{
    Meshd__V1__DeregisterReply reply = MESHD__V1__DEREGISTER_REPLY__INIT;

    reply.removed = UINT32_MAX;
    EXPECT(reply, "{\"removed\":4294967295}");
}

Test(json, bytes_that_are_no_text_are_replaced)
{
    Meshd__V1__ExplainRequest request = MESHD__V1__EXPLAIN_REQUEST__INIT;

    request.name = (char *)"a\xff\xc3\xa9\xc3"
                           "b\xe2\x82\xac\xed\xa0\x80\xf0\x9f";
#define BAD "\xef\xbf\xbd"
    EXPECT(request, "{\"name\":\"a" BAD "\xc3\xa9" BAD "b\xe2\x82\xac" BAD BAD BAD BAD BAD "\"}");
}

Test(json, absent_string_is_empty)
{
    Meshd__V1__ExplainRequest request = MESHD__V1__EXPLAIN_REQUEST__INIT;

    request.name = NULL;
    EXPECT(request, "{\"name\":\"\"}");
}

static size_t live; /* blocks that jansson holds */

static void *counted_malloc(size_t size)
{
    void *block = malloc(size);

    live += block != NULL;
    return block;
}

static void counted_free(void *block)
{
    live -= block != NULL;
    free(block);
}

Test(json, without_memory_there_is_no_json_and_no_leak)
{
    uint8_t token[] = {1, 2, 3};
    Meshd__V1__Refused refused = MESHD__V1__REFUSED__INIT, *list[] = {&refused, &refused};
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;
    unsigned failures = 0;
    json_t *json = NULL;

    refused.name = (char *)"bad \xff name";
    refused.reason = MESHD__V1__REASON__REASON_BAD_NAME;
    reply.refused = list;
    reply.n_refused = 2;
    reply.token.data = token;
    reply.token.len = sizeof(token);
    json_object_seed(1); /* which opens a file the first time */
    json_set_alloc_funcs(counted_malloc, counted_free);
    for (unsigned long n = 1; !json; n++) {
        cr_assert_lt(n, 1000);
        mallocs_until_failure = n;
        json = wire_json(&reply.base);
        if (!json) {
            failures++;
            cr_assert_eq(live, 0, "malloc %lu", n);
        }
    }
    mallocs_until_failure = 0;
    json_decref(json);
    cr_expect_eq(live, 0);
    cr_expect_gt(failures, 30);
}
