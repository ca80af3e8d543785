/* fuzz_reply - the frame of a reply to a Lookup, read by libmeshd's own reader and by protobuf-c:
 * what the first accepts the second accepts, too, and they have read the same. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "client/bytes.h"
#include "client/list.h"
#include "client/reply.h"
#include "wire/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static size_t results_in(const uint8_t *data, size_t len)
{
    struct bytes bytes = bytes_of(data, len);
    struct bytes_field field;
    size_t n = 0;

    while (bytes_next(&bytes, &field))
        n += field.number == 3;
    return n;
}

static unsigned state_of(const Meshd__V1__Route *route)
{
    return (strcmp(route->ip, "local") == 0 ? MESH_LOCAL : 0u) |
           (route->connected ? MESH_CONNECTED : 0u) | (route->stale ? MESH_STALE : 0u) |
           (route->healthy ? MESH_HEALTHY : 0u) | (route->draining ? MESH_DRAINING : 0u);
}

static void compare(const struct mesh_list *list, const Meshd__V1__LookupReply *reply,
                    const struct reply_part *part)
{
    check(list->n_groups == part->n && part->all == reply->n_results);
    for (size_t i = 0; i < part->n; i++) {
        const Meshd__V1__LookupResult *result = reply->results[part->first + i];
        size_t n;
        const struct mesh_instance *at = mesh_list_of(list, i, &n);

        check(n == result->n_routes);
        for (size_t j = 0; j < n; j++) {
            const Meshd__V1__Route *route = result->routes[j];

            check(strcmp(at[j].name, result->name) == 0);
            check(strcmp(at[j].node, route->peer_id) == 0);
            check(strcmp(at[j].source, route->ip) == 0);
            check(strcmp(at[j].address, route->backend_addr) == 0);
            check(at[j].last_seen == route->last_seen);
            check(at[j].state == state_of(route));
        }
    }
}

/* A part of the answer, as a call gets that was asked together with others. */
static void one_part(const uint8_t *data, size_t len, const struct reply_part *part)
{
    ProtobufCMessage *message;
    struct mesh_list *list;
    struct arena arena;
    bool bad_name;
    int r = reply_lookup(data, len, part, &list, &bad_name), unpacked;

    check(r == 0 || r == -EBADMSG || r == -E2BIG);
    if (r < 0)
        return;
    arena_init(&arena);
    unpacked = wire_unpack(&meshd__v1__lookup_reply__descriptor, data, len, &arena, &message);
    /* What is wrong in the part of another call is not looked at. */
    check(unpacked == 0 || unpacked == -E2BIG || part->n < part->all);
    if (unpacked == 0)
        compare(list, (const Meshd__V1__LookupReply *)message, part);
    arena_fini(&arena);
    mesh_list_free(list);
}

static void one_lookup(const uint8_t *data, size_t len)
{
    size_t all = results_in(data, len);

    one_part(data, len, &(struct reply_part){.first = 0, .n = all, .all = all});
    one_part(data, len, &(struct reply_part){.first = all / 2, .n = all - all / 2, .all = all});
    for (size_t i = 0; i < all && i < 8; i++)
        one_part(data, len, &(struct reply_part){.first = i, .n = 1, .all = all});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reply reply;

    if (reply_split(data, size, &reply) < 0)
        return 0;
    check(reply.body_len <= size);
    check(!reply.answer.text_len || (const uint8_t *)reply.answer.text > data);
    error_answer(&reply.answer);
    for (const char *c = mesh_error_text(); *c; c++)
        check((unsigned char)*c >= ' ' && *c != 0x7f);
    one_lookup(reply.body, reply.body_len);
    return 0;
}
