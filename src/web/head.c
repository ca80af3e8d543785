/* head - see head.h. */
#include "web/head.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "web/query.h"

#define HOST_BYTES 256u /* of a name and a port */

struct span {
    const char *at;
    size_t len;
};

static bool is(struct span span, const char *word)
{
    return span.len == strlen(word) && memcmp(span.at, word, span.len) == 0;
}

/* Whatever its case. */
static bool is_named(struct span span, const char *word)
{
    return span.len == strlen(word) && strncasecmp(span.at, word, span.len) == 0;
}

static bool refuse(struct head_error *out, unsigned status, const char *text)
{
    *out = (struct head_error){status, text};
    return false;
}

/* RFC 9110 5.6.2 */
static bool is_token(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool all_token(struct span span)
{
    for (size_t i = 0; i < span.len; i++)
        if (!is_token(span.at[i]))
            return false;
    return span.len > 0;
}

static size_t count(struct span span, const char *of)
{
    size_t n = 0;

    for (size_t i = 0; i < span.len; i++)
        n += span.at[i] && strchr(of, span.at[i]);
    return n;
}

/* Up to its end, which is taken away from rest but is not in it; without an end: all. */
static struct span take_line(struct span *rest)
{
    const char *lf = memchr(rest->at, '\n', rest->len);
    struct span line = {rest->at, lf ? (size_t)(lf - rest->at) : rest->len};
    size_t all = line.len + (lf != NULL);

    rest->at += all;
    rest->len -= all;
    if (lf && line.len && line.at[line.len - 1] == '\r')
        line.len--;
    return line;
}

/* Up to the next space, which goes too. */
static struct span take_word(struct span *rest)
{
    const char *space = memchr(rest->at, ' ', rest->len);
    struct span word = {rest->at, space ? (size_t)(space - rest->at) : rest->len};
    size_t all = word.len + (space != NULL);

    rest->at += all;
    rest->len -= all;
    return word;
}

/* Empty lines before a request are passed over (RFC 9112 2.2). */
static struct span without_empty_lines(const char *data, size_t len)
{
    struct span rest = {data, len}, next = rest;

    while (next.len && take_line(&next).len == 0)
        rest = next;
    return rest;
}

size_t head_length(const char *data, size_t len, size_t *seen)
{
    size_t begin = (size_t)(without_empty_lines(data, len).at - data);
    const char *at = data + (*seen > begin ? *seen : begin);

    while ((at = memchr(at, '\n', len - (size_t)(at - data))) != NULL) {
        size_t left = len - (size_t)(++at - data);

        if (left >= 1 && at[0] == '\n')
            return (size_t)(at - data) + 1;
        if (left >= 2 && at[0] == '\r' && at[1] == '\n')
            return (size_t)(at - data) + 2;
        if (left < 2)
            break;
    }
    *seen = len > 2 ? len - 2 : 0; /* its end may begin there */
    return 0;
}

/* ---- the request line ---- */

struct request {
    struct span method, target, version, host;
    size_t n_hosts, n_records;
    bool has_body;
};

static bool take_version(struct span version, struct head_error *out_error)
{
    const char *v = version.at;

    if (version.len != 8 || memcmp(v, "HTTP/", 5) != 0 || !isdigit((unsigned char)v[5]) ||
        v[6] != '.' || !isdigit((unsigned char)v[7]))
        return refuse(out_error, 400, "the request line does not end with HTTP/1.1 or HTTP/1.0");
    if (v[5] != '1')
        return refuse(out_error, 505, "HTTP/1.1 and HTTP/1.0 are spoken here");
    return true;
}

/* A NUL would end the text that libmicrohttpd makes of it. */
static bool take_escapes(struct span target, struct head_error *out_error)
{
    for (size_t i = 0; i < target.len; i++) {
        const char *at = target.at + i;

        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return refuse(out_error, 400, "the path has a control character");
        if (*at != '%')
            continue;
        if (target.len - i < 3 || !isxdigit((unsigned char)at[1]) ||
            !isxdigit((unsigned char)at[2]))
            return refuse(out_error, 400, "the path has a % without two hexadecimal digits");
        if (at[1] == '0' && at[2] == '0')
            return refuse(out_error, 400, "the path has a NUL");
    }
    return true;
}

/* RFC 9112 3.2.2: it stands for the Host, whatever that says. */
static bool take_absolute(struct request *req, struct head_error *out_error)
{
    static const char scheme[] = "http://";
    const size_t skip = sizeof scheme - 1;
    struct span target = req->target;
    size_t n = 0;

    if (target.len < skip || strncasecmp(target.at, scheme, skip) != 0)
        return refuse(out_error, 400, "the path does not begin with /");
    req->host.at = target.at + skip;
    while (skip + n < target.len && !strchr("/?#%@", req->host.at[n]))
        n++;
    req->host.len = n;
    if (n == 0 || skip + n == target.len || req->host.at[n] != '/')
        return refuse(out_error, 400, "the request is for http:// without a host, or a path");
    return true;
}

static bool take_request_line(struct request *req, struct span line, struct head_error *out_error)
{
    struct span rest = line;

    req->method = take_word(&rest);
    req->target = take_word(&rest);
    req->version = rest;
    if (!all_token(req->method))
        return refuse(out_error, 400, "that is no request of HTTP");
    if (!take_version(req->version, out_error))
        return false;
    if (!is(req->method, "GET") && !is(req->method, "HEAD"))
        return refuse(out_error, 405,
                      "GET and HEAD are all there is: nothing here changes the node");
    if (req->target.len > HEAD_PATH_BYTES)
        return refuse(out_error, 414, "the path is longer than 8192 bytes");
    if (!req->target.len || (req->target.at[0] != '/' && !take_absolute(req, out_error)))
        return req->target.len ? false : refuse(out_error, 400, "the request has no path");
    req->n_records = 1 + count(req->target, "&");
    return take_escapes(req->target, out_error);
}

/* ---- fields ---- */

static bool take_value(struct span value, struct head_error *out_error)
{
    for (size_t i = 0; i < value.len; i++)
        if (((unsigned char)value.at[i] < ' ' && value.at[i] != '\t') || value.at[i] == 0x7f)
            return refuse(out_error, 400, "a line of the head has a control character");
    return true;
}

static struct span trimmed(struct span span)
{
    while (span.len && (*span.at == ' ' || *span.at == '\t')) {
        span.at++;
        span.len--;
    }
    while (span.len && (span.at[span.len - 1] == ' ' || span.at[span.len - 1] == '\t'))
        span.len--;
    return span;
}

static bool take_field(struct request *req, struct span line, struct head_error *out_error)
{
    const char *colon = memchr(line.at, ':', line.len);
    struct span name = {line.at, colon ? (size_t)(colon - line.at) : 0}, value;

    if (!all_token(name))
        return refuse(out_error, 400, "a line of the head is not \"name: value\"");
    value = (struct span){colon + 1, line.len - name.len - 1};
    if (!take_value(value, out_error))
        return false;
    value = trimmed(value);
    req->n_records++;
    if (is_named(name, "Cookie")) {
        req->n_records += 1 + count(value, ",;");
        /* libmicrohttpd takes both ends of a quoted value off, and here they are one. */
        if (value.len >= 2 && memcmp(value.at + value.len - 2, "=\"", 2) == 0)
            return refuse(out_error, 400, "a cookie ends with a quote that was not closed");
    }
    if (is_named(name, "Content-Length")) /* for libmicrohttpd a space behind it is a mistake */
        req->has_body |= !is(value, "0") || line.at[line.len - 1] != '0';
    if (is_named(name, "Transfer-Encoding") || is_named(name, "Expect"))
        req->has_body = true;
    if (is_named(name, "Host")) {
        req->n_hosts++;
        if (!req->host.at)
            req->host = value;
    }
    return true;
}

static bool is_loopback(struct span host)
{
    char text[HOST_BYTES];

    if (host.len >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)host.len, host.at);
    return query_host_is_loopback(text);
}

bool head_take(const char *head, size_t len, bool loopback, struct head_error *out_error)
{
    struct span rest = without_empty_lines(head, len), line = take_line(&rest);
    struct request req = {0};

    if (!take_request_line(&req, line, out_error))
        return false;
    while ((line = take_line(&rest)).len)
        if (!take_field(&req, line, out_error))
            return false;
    if (len > HEAD_BYTES)
        return refuse(out_error, 431, "the head is longer than 16384 bytes");
    if (req.n_records > HEAD_RECORDS)
        return refuse(out_error, 431, "the head has more than 256 fields, arguments and cookies");
    if (req.has_body)
        return refuse(out_error, 400, "a request has no body here");
    if (req.n_hosts > 1)
        return refuse(out_error, 400, "the head has more than one Host");
    if (!req.n_hosts && !is(req.version, "HTTP/1.0")) /* RFC 9112 3.2 */
        return refuse(out_error, 400, "a request of HTTP/1.1 says for which Host it is");
    if (loopback && req.host.at && !is_loopback(req.host))
        return refuse(
            out_error, 403,
            "this port is for this machine alone, and the Host is another's name; ask for "
            "localhost or 127.0.0.1 (a page of a stranger's may have pointed its name here)");
    return true;
}

bool head_hopeless(const char *data, size_t len, bool ended, struct head_error *out_error)
{
    struct span rest = without_empty_lines(data, len);

    if (rest.len && rest.at[0] != '\r' && !is_token(rest.at[0])) /* e.g. TLS */
        return !refuse(out_error, 400, "that is no request of HTTP");
    if (len > HEAD_BYTES) {
        struct request req = {0};

        if (!memchr(rest.at, '\n', rest.len))
            return !refuse(out_error, 414, "the path is longer than 8192 bytes");
        if (!take_request_line(&req, take_line(&rest), out_error))
            return true;
        return !refuse(out_error, 431, "the head is longer than 16384 bytes");
    }
    if (ended)
        return !refuse(out_error, 400, "the request ends before its head does");
    return false;
}

bool head_is_head(const char *head, size_t len)
{
    struct span rest = without_empty_lines(head, len);

    return is(take_word(&rest), "HEAD");
}
