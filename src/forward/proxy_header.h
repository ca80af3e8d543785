/* proxy_header - who the client really is, as HAProxy's PROXY protocol says it: read and written.
 *
 * Pure and incremental. Source: The PROXY protocol, versions 1 and 2 (haproxy.org,
 * proxy-protocol.txt), sections 2.1 (v1: at most 107 bytes) and 2.2 (v2: 16 bytes and a length).
 */
#ifndef FORWARD_PROXY_HEADER_H
#define FORWARD_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "forward/tuple.h"

#define PROXY_V1_MAX 107u
#define PROXY_V2_MAX 4096u /* a longer one is refused: addresses and TLVs need less */
#define PROXY_PACK_MAX 232u

enum proxy_header_result {
    PROXY_HEADER_MORE,
    PROXY_HEADER_DONE,
    PROXY_HEADER_BAD, /* also: no PROXY header at all */
};

struct proxy_header {
    bool has_addresses; /* false: LOCAL or UNKNOWN: the connection's own addresses count */
    struct tuple tuple;
    size_t len; /* of the header: what follows is the client's */
};

/* data[0..len) from the connection's first byte. */
enum proxy_header_result proxy_header_parse(const uint8_t *data, size_t len,
                                            struct proxy_header *out_header);
/* version 1 or 2. A tuple of mixed families, or without a port, is said as UNKNOWN (v1) or UNSPEC
 * (v2). Returns the length written. */
size_t proxy_header_pack(unsigned version, const struct tuple *tuple, uint8_t out[PROXY_PACK_MAX]);

#endif
