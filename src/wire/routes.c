/* routes - varints, tags and memcpy; what is false, zero or empty is left out, as in proto3. */
#include "wire/routes.h"
#include <string.h>

#define TAG(number, type) ((uint8_t)((number) << 3 | (type))) /* numbers below 16 */

enum { VARINT = 0, TEXT = 2 };
enum { REPLY_RESULTS = 3 };
enum { RESULT_NAME = 1, RESULT_ROUTES, RESULT_REASON };
enum {
    ROUTE_IP = 1,
    ROUTE_PEER_ID,
    ROUTE_BACKEND,
    ROUTE_CONNECTED,
    ROUTE_STALE,
    ROUTE_HEALTHY,
    ROUTE_DRAINING,
    ROUTE_LAST_SEEN,
};

static size_t varint_len(uint64_t value)
{
    size_t n = 1;

    while (value >>= 7)
        n++;
    return n;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

static size_t part_len(size_t len) { return 1 + varint_len(len) + len; }

static size_t text_len(const struct routes_text *text)
{
    return text->len ? part_len(text->len) : 0;
}

static uint8_t *put_text(uint8_t *at, unsigned number, const struct routes_text *text)
{
    if (!text->len)
        return at;
    *at++ = TAG(number, TEXT);
    at = put_varint(at, text->len);
    memcpy(at, text->text, text->len);
    return at + text->len;
}

static size_t number_len(uint64_t value) { return value ? 1 + varint_len(value) : 0; }

static uint8_t *put_number(uint8_t *at, unsigned number, uint64_t value)
{
    if (!value)
        return at;
    *at++ = TAG(number, VARINT);
    return put_varint(at, value);
}

static size_t route_len(const struct routes_one *route)
{
    return text_len(&route->ip) + text_len(&route->peer_id) + text_len(&route->backend) +
           2 * ((size_t)route->connected + route->stale + route->healthy + route->draining) +
           number_len(route->last_seen);
}

static uint8_t *put_route(uint8_t *at, const struct routes_one *route)
{
    *at++ = TAG(RESULT_ROUTES, TEXT);
    at = put_varint(at, route_len(route));
    at = put_text(at, ROUTE_IP, &route->ip);
    at = put_text(at, ROUTE_PEER_ID, &route->peer_id);
    at = put_text(at, ROUTE_BACKEND, &route->backend);
    at = put_number(at, ROUTE_CONNECTED, route->connected);
    at = put_number(at, ROUTE_STALE, route->stale);
    at = put_number(at, ROUTE_HEALTHY, route->healthy);
    at = put_number(at, ROUTE_DRAINING, route->draining);
    return put_number(at, ROUTE_LAST_SEEN, route->last_seen);
}

static size_t result_len(const struct routes_result *result)
{
    size_t len = text_len(&result->name) + number_len((uint64_t)result->reason);

    for (size_t i = 0; i < result->n; i++)
        len += part_len(route_len(&result->at[i]));
    return len;
}

size_t routes_size(const struct routes_result *result) { return part_len(result_len(result)); }

uint8_t *routes_pack(const struct routes_result *result, uint8_t *out)
{
    *out++ = TAG(REPLY_RESULTS, TEXT);
    out = put_varint(out, result_len(result));
    out = put_text(out, RESULT_NAME, &result->name);
    for (size_t i = 0; i < result->n; i++)
        out = put_route(out, &result->at[i]);
    return put_number(out, RESULT_REASON, (uint64_t)result->reason);
}

void routes_attach(const uint8_t *data, size_t len, ProtobufCMessageUnknownField *field,
                   Meshd__V1__LookupReply *reply)
{
    if (!len)
        return;
    /* protobuf-c writes an unknown field as its tag and then its data, whatever that is: the first
     * result's tag is taken off, the rest follows as it stands. */
    *field = (ProtobufCMessageUnknownField){.tag = REPLY_RESULTS,
                                            .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
                                            .len = len - 1,
                                            .data = (uint8_t *)data + 1};
    reply->base.n_unknown_fields = 1;
    reply->base.unknown_fields = field;
}
