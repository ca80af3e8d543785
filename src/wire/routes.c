/* routes - each part behind its length; what is false, zero or empty is left out, as in proto3. */
#include "wire/routes.h"
#include "wire/encode.h"

static size_t text_len(const struct routes_text *text)
{
    return text->len ? encode_part_len(text->len) : 0;
}

static uint8_t *put_text(uint8_t *at, unsigned number, const struct routes_text *text)
{
    if (!text->len)
        return at;
    return encode_part(at, number, text->text, text->len);
}

static size_t number_len(uint64_t value) { return value ? 1 + encode_varint_len(value) : 0; }

static uint8_t *put_number(uint8_t *at, unsigned number, uint64_t value)
{
    if (!value)
        return at;
    return encode_varint(encode_tag(at, number, ENCODE_VARINT), value);
}

static size_t route_len(const struct routes_one *route)
{
    return text_len(&route->ip) + text_len(&route->peer_id) + text_len(&route->backend) +
           2 * ((size_t)route->connected + route->stale + route->healthy + route->draining) +
           number_len(route->last_seen);
}

static uint8_t *put_route(uint8_t *at, const struct routes_one *route)
{
    at = encode_part_head(at, RESULT_ROUTES, route_len(route));
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
        len += encode_part_len(route_len(&result->at[i]));
    return len;
}

size_t routes_size(const struct routes_result *result)
{
    return encode_part_len(result_len(result));
}

uint8_t *routes_pack(const struct routes_result *result, uint8_t *out)
{
    out = encode_part_head(out, LOOKUP_RESULTS, result_len(result));
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
    *field = (ProtobufCMessageUnknownField){.tag = LOOKUP_RESULTS,
                                            .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
                                            .len = len - 1,
                                            .data = (uint8_t *)data + 1};
    reply->base.n_unknown_fields = 1;
    reply->base.unknown_fields = field;
}
