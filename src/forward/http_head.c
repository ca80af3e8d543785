/* http_head - a machine that takes one byte at a time.
 *
 * Until a version was seen, a byte that does not fit makes it OTHER; from there on it is BAD. What
 * a backend might read otherwise than this does is refused, as the bytes are forwarded as they
 * came: folded lines, spaces before a colon, bare CR, control bytes. Positions are kept, never
 * pointers: the caller's buffer may move between two calls.
 */
#include "forward/http_head.h"

#include <string.h>
#include <strings.h>
#include "wire/name.h"

#define EMPTY_LINES 2u /* before the request line (RFC 9112 2.2 asks for one at least) */

static const char preface[] = "PRI * HTTP/2.0\r\n"; /* RFC 9113 3.4, up to its first line end */
#define PREFACE_VERSION 6u                          /* where "HTTP/2.0" begins in it */

enum state {
    IN_EMPTY, /* before the request line */
    IN_EMPTY_CR,
    IN_METHOD,
    IN_TARGET,
    IN_VERSION,
    IN_PREFACE,
    IN_LINE_CR, /* after the CR of the request line, or of a field's */
    IN_LINE,    /* before the first byte of a line */
    IN_END_CR,
    IN_FIELD,
    IN_VALUE,
};

static bool is_alpha(uint8_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* tchar of RFC 9110 5.6.2 */
static const bool tokens[256] = {
    ['a' ... 'z'] = true,  ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['!'] = true,
    ['#' ... '\''] = true, ['*'] = true,         ['+'] = true,         ['-'] = true,
    ['.'] = true,          ['^' ... '`'] = true, ['|'] = true,         ['~'] = true,
};
static bool is_token(uint8_t c) { return tokens[c]; }

/* Bytes above ASCII are in no grammar, but clients send them in paths. */
static bool is_target(uint8_t c) { return c > ' ' && c != 0x7f; }
static bool is_value(uint8_t c) { return (c >= ' ' && c != 0x7f) || c == '\t'; }

static enum http_head_result bad(struct http_head *head, const char *why)
{
    head->why = why;
    return HTTP_HEAD_BAD;
}

/* ---- names ---- */

/* host [":" port], as it stands in Host and in a target. */
static enum http_head_result take_host(struct http_head *head, const char *text, size_t len,
                                       const char *why)
{
    char name[LIMIT_NAME + 1];
    enum name_error error;

    if (len > 0 && text[0] == '*') /* only who offers a service may say a wildcard */
        return bad(head, why);
    if (len > 1 && text[len - 1] == ':') /* a port may be empty (RFC 3986 3.2.3) */
        len--;
    error = name_canon(text, len, name);
    if (error == NAME_E_LITERAL)
        name[0] = '\0';
    else if (error != NAME_OK)
        return bad(head, why);
    if (!head->named_by_target)
        memcpy(head->name, name, strlen(name) + 1);
    return HTTP_HEAD_MORE;
}

/* scheme "://" authority, and whatever follows (RFC 9112 3.2.2). */
static enum http_head_result take_absolute(struct http_head *head, const char *text, size_t len)
{
    size_t at = 0, begin;
    enum http_head_result result;

    while (at < len && (is_alpha((uint8_t)text[at]) || is_digit((uint8_t)text[at]) ||
                        memchr("+-.", text[at], 3)))
        at++;
    if (!is_alpha((uint8_t)text[0]) || len - at < 3 || memcmp(text + at, "://", 3) != 0)
        return bad(head, "the request target is of no known form");
    begin = at += 3;
    while (at < len && !memchr("/?#", text[at], 3))
        at++;
    result = take_host(head, text + begin, at - begin, "the request target names no valid host");
    head->named_by_target = true;
    return result;
}

static enum http_head_result take_target(struct http_head *head, const uint8_t *data)
{
    const char *text = (const char *)data + head->target;
    size_t len = head->end - head->target;
    const char *colon = memrchr(text, ':', len);
    enum http_head_result result;

    if (head->connect) {
        if (!colon || text[len - 1] == ':' || text[len - 1] == ']')
            return bad(head, "CONNECT needs host:port");
        result = take_host(head, text, len, "CONNECT to what is no valid host:port");
        if (result == HTTP_HEAD_MORE && head->name[0] == '\0')
            return bad(head, "CONNECT to an address, and only services can be named");
        head->named_by_target = true;
        return result;
    }
    if (text[0] == '/' || (len == 1 && text[0] == '*'))
        return HTTP_HEAD_MORE;
    return take_absolute(head, text, len);
}

/* The value of a field ends before data[end]. */
static enum http_head_result take_value(struct http_head *head, const uint8_t *data, size_t end)
{
    size_t begin = head->mark;

    if (!head->field_is_host)
        return HTTP_HEAD_MORE;
    if (head->has_host)
        return bad(head, "more than one Host field");
    head->has_host = true;
    while (begin < end && (data[begin] == ' ' || data[begin] == '\t'))
        begin++;
    while (end > begin && (data[end - 1] == ' ' || data[end - 1] == '\t'))
        end--;
    return take_host(head, (const char *)data + begin, end - begin,
                     "the Host field is no valid host");
}

/* ---- lines ---- */

static enum http_head_result end_of_head(struct http_head *head)
{
    if (!head->has_host && head->minor > 0)
        return bad(head, "HTTP/1.1 without a Host field");
    head->len = head->at + 1;
    return HTTP_HEAD_DONE;
}

/* CR or LF at data[at], behind what a line says. */
static enum http_head_result end_of_line(struct http_head *head, const uint8_t *data)
{
    enum http_head_result result = HTTP_HEAD_MORE;

    if (data[head->at] == '\n' && !head->accept_bare_lf)
        return bad(head, "a line ends in LF without CR");
    if (head->state == IN_VALUE)
        result = take_value(head, data, head->at);
    else if (head->state == IN_VERSION)
        result = take_target(head, data);
    head->state = data[head->at] == '\r' ? IN_LINE_CR : IN_LINE;
    return result;
}

static enum http_head_result empty_line(struct http_head *head)
{
    head->state = IN_EMPTY;
    return head->empty_lines++ < EMPTY_LINES ? HTTP_HEAD_MORE : HTTP_HEAD_OTHER;
}

static enum http_head_result begin(struct http_head *head, uint8_t c)
{
    if (is_token(c)) {
        head->mark = head->at;
        head->state = IN_METHOD;
        return HTTP_HEAD_MORE;
    }
    if (c == '\n' && head->accept_bare_lf)
        return empty_line(head);
    head->state = IN_EMPTY_CR;
    return c == '\r' && head->empty_lines < EMPTY_LINES ? HTTP_HEAD_MORE : HTTP_HEAD_OTHER;
}

static bool method_is(const struct http_head *head, const uint8_t *data, const char *name)
{
    size_t len = strlen(name);

    return head->at - head->mark == len && memcmp(data + head->mark, name, len) == 0;
}

static enum http_head_result method(struct http_head *head, const uint8_t *data)
{
    if (is_token(data[head->at]))
        return HTTP_HEAD_MORE;
    if (data[head->at] != ' ')
        return HTTP_HEAD_OTHER;
    head->connect = method_is(head, data, "CONNECT");
    head->bodiless = method_is(head, data, "HEAD");
    head->likely = true;
    head->target = head->at + 1;
    head->state = IN_TARGET;
    return HTTP_HEAD_MORE;
}

static enum http_head_result target(struct http_head *head, const uint8_t *data)
{
    if (is_target(data[head->at]))
        return HTTP_HEAD_MORE;
    if (data[head->at] != ' ' || head->at == head->target)
        return HTTP_HEAD_OTHER;
    head->end = head->at;
    head->mark = head->at + 1;
    head->state = IN_VERSION;
    return HTTP_HEAD_MORE;
}

/* "HTTP/1." digit, and the end of the line; or that of the preface of HTTP/2. */
static enum http_head_result version(struct http_head *head, const uint8_t *data)
{
    size_t i = head->at - head->mark;
    uint8_t c = data[head->at];

    if (i < 5)
        return c == (uint8_t) "HTTP/"[i] ? HTTP_HEAD_MORE : HTTP_HEAD_OTHER;
    if (i == 5 && c == '2' && memcmp(data, preface, PREFACE_VERSION) == 0) {
        head->state = IN_PREFACE;
        return HTTP_HEAD_MORE;
    }
    if (i == 5)
        return c == '1' ? HTTP_HEAD_MORE : HTTP_HEAD_OTHER;
    if (i == 6 && c == '.')
        return HTTP_HEAD_MORE;
    if (i == 7 && is_digit(c)) {
        head->minor = c - '0';
        return HTTP_HEAD_MORE;
    }
    if (i == 8 && (c == '\r' || c == '\n'))
        return end_of_line(head, data);
    return bad(head, "the version in the request line is malformed");
}

static enum http_head_result in_preface(struct http_head *head, uint8_t c)
{
    if (c != (uint8_t)preface[head->at])
        return HTTP_HEAD_OTHER;
    return head->at + 2 == sizeof(preface) ? HTTP_HEAD_HTTP2 : HTTP_HEAD_MORE;
}

static enum http_head_result line(struct http_head *head, uint8_t c)
{
    if (c == '\r') {
        head->state = IN_END_CR;
        return HTTP_HEAD_MORE;
    }
    if (c == '\n')
        return head->accept_bare_lf ? end_of_head(head) : bad(head, "an empty line without CR");
    if (c == ' ' || c == '\t')
        return bad(head, "a folded line");
    if (!is_token(c))
        return bad(head, "a field's name is malformed");
    head->mark = head->at;
    head->state = IN_FIELD;
    return HTTP_HEAD_MORE;
}

static enum http_head_result field(struct http_head *head, const uint8_t *data)
{
    uint8_t c = data[head->at];

    if (is_token(c))
        return HTTP_HEAD_MORE;
    if (c != ':')
        return bad(head, c == ' ' || c == '\t' ? "a space before a field's colon"
                                               : "a field's name is malformed");
    head->field_is_host =
        head->at - head->mark == 4 && strncasecmp((const char *)data + head->mark, "host", 4) == 0;
    head->mark = head->at + 1;
    head->state = IN_VALUE;
    return HTTP_HEAD_MORE;
}

/* A byte that ends a value, in order or not. */
static enum http_head_result value(struct http_head *head, const uint8_t *data)
{
    if (data[head->at] == '\r' || data[head->at] == '\n')
        return end_of_line(head, data);
    return bad(head, "a field's value has a control byte");
}

static enum http_head_result one(struct http_head *head, const uint8_t *data)
{
    uint8_t c = data[head->at];

    switch ((enum state)head->state) {
    case IN_EMPTY:
        return begin(head, c);
    case IN_EMPTY_CR:
        return c == '\n' ? empty_line(head) : HTTP_HEAD_OTHER;
    case IN_METHOD:
        return method(head, data);
    case IN_TARGET:
        return target(head, data);
    case IN_VERSION:
        return version(head, data);
    case IN_PREFACE:
        return in_preface(head, c);
    case IN_LINE_CR:
        head->state = IN_LINE;
        return c == '\n' ? HTTP_HEAD_MORE : bad(head, "a CR without LF");
    case IN_LINE:
        return line(head, c);
    case IN_END_CR:
        return c == '\n' ? end_of_head(head) : bad(head, "a CR without LF");
    case IN_FIELD:
        return field(head, data);
    case IN_VALUE:
        break;
    }
    return value(head, data);
}

enum http_head_result http_head_feed(struct http_head *head, const uint8_t *data, size_t len)
{
    while (head->result == HTTP_HEAD_MORE && head->at < len) {
        if (head->state == IN_VALUE) { /* most of a head is values */
            while (head->at < len && is_value(data[head->at]))
                head->at++;
            if (head->at == len)
                break;
        }
        head->result = (uint8_t)one(head, data);
        head->at++;
    }
    return (enum http_head_result)head->result;
}
