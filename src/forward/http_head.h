/* http_head - finds the service's name in the head of an HTTP/1.x request.
 *
 * Pure and incremental: it is fed what has arrived so far, always from the first byte, and looks at
 * each byte once. The bytes themselves are not changed: they are forwarded as they came.
 * Recognised by grammar (token SP target SP HTTP/1.x), never by a list of methods.
 * Sources: RFC 9112 (2.2 line ends and empty lines, 3 request line, 3.2 target and Host, 5 fields),
 * RFC 9110 (7.2 Host, 9.3.6 CONNECT).
 */
#ifndef FORWARD_HTTP_HEAD_H
#define FORWARD_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"

enum http_head_result {
    HTTP_HEAD_MORE,  /* can still become a request */
    HTTP_HEAD_DONE,  /* up to and with the empty line */
    HTTP_HEAD_OTHER, /* not HTTP/1.x: its first bytes cannot be a request line */
    HTTP_HEAD_HTTP2, /* the preface of HTTP/2 with prior knowledge: "PRI * HTTP/2.0" CRLF */
    HTTP_HEAD_BAD,   /* HTTP/1.x, but not to be answered by more than 400 */
};

struct http_head {
    bool accept_bare_lf; /* set before the first call */
    /* After DONE: */
    char name[LIMIT_NAME + 1]; /* canonical; "": none was named, or an address is no name */
    /* The method is CONNECT: there is a name, and bytes after the head are the client's data. */
    bool connect;
    size_t len;    /* of the head */
    bool bodiless; /* the method is HEAD: no answer to it has a body. With likely */
    /* A method and a space were there: it is answered as HTTP when it takes too long or is too long
     * (not after OTHER). At any time. */
    bool likely;
    /* After BAD: a constant half sentence. */
    const char *why;
    /* Inside: where the parser is. All zero at first. */
    uint8_t state, result, empty_lines;
    bool has_host, field_is_host, named_by_target;
    unsigned minor;     /* of HTTP/1.x */
    size_t at, mark;    /* the next byte; where what is being read began */
    size_t target, end; /* of the request target */
};

/* data[0..len) from the connection's first byte; len never shrinks. */
enum http_head_result http_head_feed(struct http_head *head, const uint8_t *data, size_t len);

#endif
