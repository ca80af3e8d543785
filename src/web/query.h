/* query - what strangers put into a request: which host they mean, and the arguments of a path.
 *
 * Pure. Bytes come as libmicrohttpd has taken the percent signs out of them: any bytes, NUL too.
 */
#ifndef WEB_QUERY_H
#define WEB_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include "base/limits.h"

enum query_arg {
    QUERY_NAME = 1 << 0, /* a service's name */
    QUERY_GLOB = 1 << 1, /* a glob of names, under the key "name" */
    QUERY_PEER = 1 << 2,
    QUERY_STATE = 1 << 3,
};

enum query_state { STATE_ANY, STATE_CONNECTED, STATE_STALE, STATE_DRAINING, STATE_UNHEALTHY };

struct query {
    char name[LIMIT_NAME + 1];   /* canonical, or a glob; "": not given */
    char peer[LIMIT_LABEL_TEXT]; /* "local", a source label, or a peer id; "": not given */
    enum query_state state;
    unsigned given; /* of enum query_arg */
};

#define QUERY_WHY 256u

/* One argument more. False: it is not allowed, and out_why says what is. */
bool query_take(struct query *query, unsigned allowed, const char *key, size_t key_len,
                const char *value, size_t value_len, char out_why[QUERY_WHY]);

/* Whether a Host names this very machine, as one that is typed or linked by hand does: "localhost",
 * a loopback address. A page of a stranger's whose name has been made to point here has its own
 * name in it. */
bool query_host_is_loopback(const char *host);

/* Whether a tag is among those of an If-None-Match (RFC 9110 13.1.2). */
bool query_tag_matches(const char *header, const char *tag);

#endif
