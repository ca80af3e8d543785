/* routes: what is encoded by hand is what protobuf-c unpacks. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "wire/routes.h"

static struct routes_text text(const char *from)
{
    return (struct routes_text){from, strlen(from)};
}

static Meshd__V1__LookupReply *through(const struct routes_result *results, size_t n)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT, *out;
    ProtobufCMessageUnknownField field;
    uint8_t *data, *at, *packed;
    size_t size = 0, len;

    for (size_t i = 0; i < n; i++)
        size += routes_size(&results[i]);
    at = data = calloc(1, size + 1);
    for (size_t i = 0; i < n; i++) {
        uint8_t *end = routes_pack(&results[i], at);

        cr_assert_eq((size_t)(end - at), routes_size(&results[i]));
        at = end;
    }
    reply.revision = 7;
    routes_attach(data, size, &field, &reply);
    len = protobuf_c_message_get_packed_size(&reply.base);
    packed = malloc(len);
    cr_assert_eq(protobuf_c_message_pack(&reply.base, packed), len);
    out = meshd__v1__lookup_reply__unpack(NULL, len, packed);
    free(packed);
    free(data);
    cr_assert(out, "protobuf-c cannot read the reply");
    cr_expect_eq(out->revision, 7u);
    cr_expect_eq(out->base.n_unknown_fields, 0u);
    cr_assert_eq(out->n_results, n);
    return out;
}

Test(routes, protobuf_reads_what_was_encoded_by_hand)
{
    static char longest[254];
    struct routes_one routes[] = {
        {.ip = text("local"),
         .peer_id = text("n1"),
         .backend = text("127.0.0.1:80"),
         .connected = true,
         .healthy = true},
        {.ip = text("10.0.0.7#n7"),
         .peer_id = text("n7"),
         .backend = text("[2001:db8::7]:4100"),
         .stale = true,
         .draining = true,
         .last_seen = UINT64_MAX},
        {.ip = text("")},
    };
    struct routes_result results[] = {
        {.name = text("web"), .at = routes, .n = 3},
        {.name = text("nobody")},
        {.name = text("a..b"), .reason = MESHD__V1__REASON__REASON_BAD_NAME},
        {.name = {longest, 253}, .at = routes, .n = 1},
    };
    Meshd__V1__LookupReply *reply;
    const Meshd__V1__Route *route;

    memset(longest, 'x', 253);
    reply = through(results, 4);
    cr_expect_str_eq(reply->results[0]->name, "web");
    cr_assert_eq(reply->results[0]->n_routes, 3);
    route = reply->results[0]->routes[0];
    cr_expect_str_eq(route->ip, "local");
    cr_expect(route->connected && route->healthy && !route->stale && !route->draining);
    cr_expect_eq(route->last_seen, 0);
    route = reply->results[0]->routes[1];
    cr_expect_str_eq(route->ip, "10.0.0.7#n7");
    cr_expect_str_eq(route->peer_id, "n7");
    cr_expect_str_eq(route->backend_addr, "[2001:db8::7]:4100");
    cr_expect(!route->connected && !route->healthy && route->stale && route->draining);
    cr_expect_eq(route->last_seen, UINT64_MAX);
    cr_expect_str_eq(reply->results[0]->routes[2]->ip, "");
    cr_expect_eq(reply->results[1]->n_routes, 0);
    cr_expect_eq(reply->results[2]->reason, MESHD__V1__REASON__REASON_BAD_NAME);
    cr_expect_str_eq(reply->results[2]->name, "a..b");
    cr_expect_str_eq(reply->results[3]->name, longest);
    meshd__v1__lookup_reply__free_unpacked(reply, NULL);
}

Test(routes, no_results_leave_the_reply_as_it_was)
{
    meshd__v1__lookup_reply__free_unpacked(through(NULL, 0), NULL);
}
