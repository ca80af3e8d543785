/* first - one parser or the other, by the first byte: no method begins as a TLS record or an
 * SSLv2-style hello does.
 *
 * Neither parser is shown more than `limit` bytes, so that what is too big is so however it came.
 */
#include "forward/first.h"

#define HANDSHAKE 22u /* a TLS record's type */

static enum first_result done(struct first *first, enum first_kind kind, const char *name)
{
    first->kind = kind;
    first->name = name;
    first->may_default = name[0] == '\0';
    return FIRST_DONE;
}

static enum first_result feed_tls(struct first *first, const uint8_t *data, size_t len)
{
    struct client_hello *tls = &first->parser.tls;
    enum client_hello_result result;

    tls->limit = first->limit;
    result = client_hello_feed(tls, data, len);
    if (result == CLIENT_HELLO_OTHER)
        return done(first, FIRST_OTHER, "");
    if (len > 1 && data[0] == HANDSHAKE)
        first->kind = FIRST_TLS;
    switch (result) {
    case CLIENT_HELLO_DONE:
        return done(first, FIRST_TLS, tls->name);
    case CLIENT_HELLO_BAD:
        first->why = tls->why;
        return FIRST_BAD;
    case CLIENT_HELLO_BIG:
        return FIRST_BIG;
    default:
        return FIRST_MORE;
    }
}

static enum first_result feed_http(struct first *first, const uint8_t *data, size_t len)
{
    struct http_head *http = &first->parser.http;
    enum http_head_result result;

    http->accept_bare_lf = first->accept_bare_lf;
    result = http_head_feed(http, data, len);
    if (http->likely)
        first->kind = FIRST_HTTP;
    first->bodiless = http->bodiless;
    switch (result) {
    case HTTP_HEAD_DONE:
        if (http->connect)
            first->skip = http->len;
        return done(first, http->connect ? FIRST_CONNECT : FIRST_HTTP, http->name);
    case HTTP_HEAD_OTHER:
        return done(first, FIRST_OTHER, "");
    case HTTP_HEAD_HTTP2:
        return done(first, FIRST_HTTP2, "");
    case HTTP_HEAD_BAD:
        first->why = http->why;
        return FIRST_BAD;
    default:
        return FIRST_MORE;
    }
}

enum first_result first_feed(struct first *first, const uint8_t *data, size_t len)
{
    size_t shown = len < first->limit ? len : first->limit;
    enum first_result result;

    if (shown == 0)
        return FIRST_MORE;
    if (data[0] == HANDSHAKE || data[0] & 0x80)
        result = feed_tls(first, data, shown);
    else
        result = feed_http(first, data, shown);
    return result == FIRST_MORE && len >= first->limit ? FIRST_BIG : result;
}
