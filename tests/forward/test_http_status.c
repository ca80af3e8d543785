/* Answers to a check: which status is in them, however they are cut. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "forward/http_status.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

/* Fed in pieces of that size, each a copy of its own, for ASan. */
static enum http_status_result feed(const char *in, size_t len, size_t piece, unsigned *out_status)
{
    struct http_status status = {0};
    enum http_status_result result = HTTP_STATUS_MORE;

    for (size_t at = 0; at < len && result == HTTP_STATUS_MORE; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        uint8_t *copy = malloc(n);

        cr_assert_not_null(copy);
        memcpy(copy, in + at, n);
        result = http_status_feed(&status, copy, n);
        free(copy);
    }
    *out_status = status.status;
    return result;
}

static void expect(const char *in, size_t len, enum http_status_result result, unsigned status)
{
    const size_t pieces[] = {len ? len : 1, 1, 2, 3, 7};

    for (size_t i = 0; i < N(pieces); i++) {
        unsigned heard;

        cr_expect_eq(feed(in, len, pieces[i], &heard), result, "in pieces of %zu: %s", pieces[i],
                     in);
        if (result == HTTP_STATUS_DONE)
            cr_expect_eq(heard, status, "in pieces of %zu: %u: %s", pieces[i], heard, in);
    }
}

Test(http_status, statuses_are_found)
{
    static const struct {
        const char *in;
        unsigned status;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\n", 200},
        {"HTTP/1.0 200 OK\r\n", 200},
        {"HTTP/1.1 204 ", 204},
        {"HTTP/1.1 301\r", 301},
        {"HTTP/1.1 404\n", 404},
        {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 503},
        {"HTTP/1.1 999 \r\n", 999},
        {"HTTP/1.9 200 \r\n", 200},
        {"HTTP/1.1 101 Switching Protocols\r\n", 101},
    };

    for (size_t i = 0; i < N(rows); i++)
        expect(rows[i].in, strlen(rows[i].in), HTTP_STATUS_DONE, rows[i].status);
}

Test(http_status, what_only_announces_an_answer_is_passed_over)
{
    static const struct {
        const char *in;
        unsigned status;
    } rows[] = {
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 200},
        {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\nHTTP/1.1 503 No\r\n", 503},
        {"HTTP/1.1 100\n\nHTTP/1.1 102\r\n\r\nHTTP/1.1 302 \r\n", 302},
        {"HTTP/1.1 100 \r\nA: \r\n\r\nHTTP/1.1 200 \r\n", 200},
    };

    for (size_t i = 0; i < N(rows); i++)
        expect(rows[i].in, strlen(rows[i].in), HTTP_STATUS_DONE, rows[i].status);
}

Test(http_status, what_is_not_complete_asks_for_more)
{
    static const char *const ins[] = {
        "",
        "H",
        "HTTP/1.",
        "HTTP/1.1 ",
        "HTTP/1.1 20",
        "HTTP/1.1 200",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nHTTP/1.1 200 OK\r\n",
    };

    for (size_t i = 0; i < N(ins); i++)
        expect(ins[i], strlen(ins[i]), HTTP_STATUS_MORE, 0);
}

Test(http_status, what_is_no_status_line_is_refused)
{
    static const char *const ins[] = {
        "\r\nHTTP/1.1 200 OK\r\n", "http/1.1 200 OK\r\n", "HTTP/2 200\r\n",   "HTTP/1.x 200\r\n",
        "HTTP/1.1  200\r\n",       "HTTP/1.1\t200\r\n",   "HTTP/1.1 20 \r\n", "HTTP/1.1 2000\r\n",
        "HTTP/1.1 099 \r\n",       "HTTP/1.1 2x0 \r\n",   "HTTP/1.1 -20\r\n", "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 100 \r\n\r\nx",  "+PONG\r\n",
    };

    for (size_t i = 0; i < N(ins); i++)
        expect(ins[i], strlen(ins[i]), HTTP_STATUS_BAD, 0);
    expect("HTTP/1.1\0 200 \r\n", 16, HTTP_STATUS_BAD, 0);
}

Test(http_status, an_answer_that_never_comes_to_its_status_is_refused_at_a_length)
{
    static char in[2 * HTTP_STATUS_BYTES];
    size_t n = (size_t)sprintf(in, "HTTP/1.1 100 \r\n");
    struct http_status status = {0};

    memset(in + n, 'a', sizeof(in) - n);
    cr_assert_eq(http_status_feed(&status, (uint8_t *)in, HTTP_STATUS_BYTES), HTTP_STATUS_MORE);
    cr_expect_eq(http_status_feed(&status, (uint8_t *)in, 1), HTTP_STATUS_BAD);
    cr_expect_eq(http_status_feed(&status, (uint8_t *)in, 1), HTTP_STATUS_BAD, "and stays so");
}
