/* first - the first bytes of a client on an automatic port: which protocol, and which service. Pure
 * and incremental.
 */
#ifndef FORWARD_FIRST_H
#define FORWARD_FIRST_H

#include "forward/client_hello.h"
#include "forward/http_head.h"

enum first_kind {
    FIRST_UNKNOWN, /* no byte yet, or too few to tell */
    FIRST_HTTP,
    FIRST_CONNECT,
    FIRST_TLS,
    FIRST_HTTP2,
    FIRST_OTHER, /* none of these: only a default can take it */
};
enum first_result {
    FIRST_MORE,
    FIRST_DONE,
    FIRST_BAD,
    FIRST_BIG, /* not decided within limit bytes */
};

struct first {
    size_t limit;        /* bytes; set before the first call */
    bool accept_bare_lf; /* likewise */
    /* Also while more is needed, and after BAD and BIG (a CONNECT is FIRST_HTTP then): in whose
     * words the client is answered. */
    enum first_kind kind;
    const char *name; /* after FIRST_DONE: "" if none was named. FIRST_CONNECT: never "" */
    /* After FIRST_DONE: without a name, the port's default may take it (HTTP/1.1 without Host: no,
     * that is FIRST_BAD). */
    bool may_default;
    bool bodiless;   /* FIRST_HTTP, and an answer to it may have no body: HEAD. As kind */
    size_t skip;     /* bytes that are not for the backend: the head of a CONNECT */
    const char *why; /* after FIRST_BAD: a constant half sentence */
    union {
        struct http_head http;
        struct client_hello tls;
    } parser;
};
/* data[0..len): all that has arrived so far, from the first byte (behind a PROXY header). */
enum first_result first_feed(struct first *first, const uint8_t *data, size_t len);

#endif
