/* routes - the results of a Lookup, encoded straight from their parts.
 *
 * As rows.h does for an introspection: protobuf-c would walk descriptors field by field, twice, for
 * messages that were built from copies of what lies ready here. The bytes are those of
 * LookupReply's field `results`; routes_attach hands them to the reply as one unknown field, which
 * protobuf-c copies as it is. Pure.
 */
#ifndef WIRE_ROUTES_H
#define WIRE_ROUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>

/* Fields of LookupReply, LookupResult and Route, also for who reads them by hand. */
enum { LOOKUP_EPOCH = 1, LOOKUP_REVISION, LOOKUP_RESULTS };
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

struct routes_text {
    const char *text;
    size_t len;
};

struct routes_one { /* a Route */
    struct routes_text ip, peer_id, backend;
    bool connected, stale, healthy, draining;
    uint64_t last_seen;
};

struct routes_result { /* a LookupResult */
    struct routes_text name;
    Meshd__V1__Reason reason;
    const struct routes_one *at; /* best first */
    size_t n;
};

/* Its bytes, with tag and length. */
size_t routes_size(const struct routes_result *result);
/* Writes them and returns where they end. */
uint8_t *routes_pack(const struct routes_result *result, uint8_t *out);

/* The results, one behind the other, become part of reply, which borrows them, and field, until it
 * was packed. */
void routes_attach(const uint8_t *data, size_t len, ProtobufCMessageUnknownField *field,
                   Meshd__V1__LookupReply *reply);

#endif
