/* http_status - a machine that takes one byte at a time. */
#include "forward/http_status.h"

static const char version[] = "HTTP/1.";
#define VERSION_LEN (sizeof(version) - 1)

/* The first VERSION_LEN states are the next byte of `version`. */
enum state {
    IN_MINOR = VERSION_LEN,
    IN_SPACE,
    IN_HUNDREDS,
    IN_TENS,
    IN_ONES,
    IN_END,  /* after the third digit: the reason phrase and its space may be missing */
    IN_LINE, /* the rest of an answer that announces another */
};

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static enum http_status_result next_digit(struct http_status *s, uint8_t c)
{
    if (!is_digit(c) || (s->state == IN_HUNDREDS && c == '0'))
        return HTTP_STATUS_BAD;
    s->status = s->status * 10 + (unsigned)(c - '0');
    s->state++;
    return HTTP_STATUS_MORE;
}

static enum http_status_result after_status(struct http_status *s, uint8_t c)
{
    if (c != ' ' && c != '\r' && c != '\n')
        return HTTP_STATUS_BAD;
    if (s->status >= 200 || s->status == 101)
        return HTTP_STATUS_DONE;
    s->state = IN_LINE;
    s->blank = c == '\n';
    return HTTP_STATUS_MORE;
}

/* Up to an empty line; then the answer itself, or another that announces it. */
static enum http_status_result pass_over(struct http_status *s, uint8_t c)
{
    if (c != '\n') {
        s->blank = s->blank && c == '\r';
    } else if (s->blank) {
        s->state = 0;
        s->status = 0;
    } else {
        s->blank = true;
    }
    return HTTP_STATUS_MORE;
}

static enum http_status_result take(struct http_status *s, uint8_t c)
{
    if (s->n++ >= HTTP_STATUS_BYTES)
        return HTTP_STATUS_BAD;
    switch (s->state) {
    case IN_MINOR:
        s->state++;
        return is_digit(c) ? HTTP_STATUS_MORE : HTTP_STATUS_BAD;
    case IN_SPACE:
        s->state++;
        return c == ' ' ? HTTP_STATUS_MORE : HTTP_STATUS_BAD;
    case IN_HUNDREDS:
    case IN_TENS:
    case IN_ONES:
        return next_digit(s, c);
    case IN_END:
        return after_status(s, c);
    case IN_LINE:
        return pass_over(s, c);
    default:
        return c == (uint8_t)version[s->state++] ? HTTP_STATUS_MORE : HTTP_STATUS_BAD;
    }
}

enum http_status_result http_status_feed(struct http_status *s, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && s->result == HTTP_STATUS_MORE; i++)
        s->result = take(s, data[i]);
    return s->result;
}
