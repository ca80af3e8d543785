/* Which head is taken, and where it ends. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "web/head.h"

static struct head_error error;

/* The status; 0: it is taken. */
static unsigned status_of(const char *text, bool loopback)
{
    size_t seen = 0, len = strlen(text);

    cr_assert_eq(head_length(text, len, &seen), len, "%s", text);
    error = (struct head_error){0};
    return head_take(text, len, loopback, &error) ? 0 : error.status;
}

Test(web_head, ends_with_its_empty_line_however_it_comes)
{
    static const char *const whole[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.0\r\n\n",
        "\r\n\n\r\nGET / HTTP/1.0\r\n\r\n",
        "nonsense\n\r\n",
    };
    char text[64];

    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        size_t seen = 0, len = strlen(whole[i]);

        for (size_t n = 0; n < len; n++) {
            size_t at_once = 0;

            cr_expect_eq(head_length(whole[i], n, &at_once), 0, "%zu: %zu", i, n);
            cr_expect_eq(head_length(whole[i], n, &seen), 0, "%zu: %zu", i, n);
        }
        cr_expect_eq(head_length(whole[i], len, &seen), len, "%zu", i);
        snprintf(text, sizeof text, "%s\r\nmore", whole[i]);
        seen = 0;
        cr_expect_eq(head_length(text, strlen(text), &seen), len, "%zu", i);
    }
}

Test(web_head, one_that_is_good_is_taken)
{
    static const char *const good[] = {
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "HEAD /v1/explain?name=%77eb HTTP/1.0\n\n",
        "GET /healthz HTTP/1.2\r\nHOST:\t[::1]:80 \r\nX-Odd: \xc3\xbc\r\n\r\n",
        "GET http://127.0.0.1:7480/healthz HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        "GET HTTP://LOCALHOST/ HTTP/1.0\r\n\r\n",
        "GET /v1/services?name=\xc3\xbc HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.0\r\nCookie: a=b; c=d, e\r\nEmpty:\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect_eq(status_of(good[i], true), 0, "%zu: %s", i, error.text);
}

Test(web_head, whatever_else_there_is_is_refused)
{
    static const struct {
        const char *text;
        unsigned status;
    } bad[] = {
        {"\x16\x03\x01\n\n", 400},
        {"GET\r\n\r\n", 400},
        {"GET / \r\n\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
        {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"G(T / HTTP/1.0\r\n\r\n", 400},
        {"GET / http/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/0.9\r\n\r\n", 505},
        {"PRI * HTTP/2.0\r\n\r\n", 505},
        {"POST / HTTP/1.0\r\n\r\n", 405},
        {"get / HTTP/1.0\r\n\r\n", 405},
        {"GET * HTTP/1.0\r\n\r\n", 400},
        {"GET  HTTP/1.0\r\n\r\n", 400},
        {"GET healthz HTTP/1.0\r\n\r\n", 400},
        {"GET https://a/ HTTP/1.0\r\n\r\n", 400},
        {"GET http:/// HTTP/1.0\r\n\r\n", 400},
        {"GET http://a HTTP/1.0\r\n\r\n", 400},
        {"GET http://a?b/ HTTP/1.0\r\n\r\n", 400},
        {"GET http://u@a/ HTTP/1.0\r\n\r\n", 400},
        {"GET http://a%2fb/ HTTP/1.0\r\n\r\n", 400},
        {"GET /%00 HTTP/1.0\r\n\r\n", 400},
        {"GET /healthz%00x HTTP/1.0\r\n\r\n", 400},
        {"GET /?name=a%00b HTTP/1.0\r\n\r\n", 400},
        {"GET /%4 HTTP/1.0\r\n\r\n", 400},
        {"GET /%4g HTTP/1.0\r\n\r\n", 400},
        {"GET /\x01 HTTP/1.0\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nno colon\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\n: no name\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nHost : a\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nX: a\r\n b\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nX: a\rb\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nX: \x7f\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET http://a/ HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nContent-Length: 3\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nContent-Length: 0 \r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nContent-Length: abc\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nContent-Length:\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\ntransfer-encoding: identity\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nCookie: a=b; c=\" \r\n\r\n", 400},
        {"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", 400},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(status_of(bad[i].text, false), bad[i].status, "%s%u", bad[i].text,
                     error.status);
        cr_expect(error.text && *error.text);
    }
}

Test(web_head, a_nul_is_refused_wherever_it_is)
{
    static const char text[] = "GET /a HTTP/1.0\r\nA: b\r\n\r\n";

    for (size_t i = 0; i < strlen(text) - 4; i++) {
        char changed[sizeof text];
        size_t seen = 0, len;

        memcpy(changed, text, sizeof text);
        changed[i] = '\0';
        len = head_length(changed, strlen(text), &seen);
        cr_assert_eq(len, strlen(text));
        cr_expect_not(head_take(changed, len, false, &error), "at %zu", i);
    }
}

Test(web_head, on_loopback_the_host_is_a_name_of_this_machine)
{
    cr_expect_eq(status_of("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", true), 403);
    cr_expect_eq(status_of("GET / HTTP/1.1\r\nHost:\r\n\r\n", true), 403);
    cr_expect_eq(status_of("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", true),
                 403);
    cr_expect_eq(status_of("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", false), 0);
}

static char *repeated(const char *before, const char *what, size_t n, const char *after)
{
    char *text = calloc(1, strlen(before) + n * strlen(what) + strlen(after) + 1);
    char *at = stpcpy(text, before);

    while (n--)
        at = stpcpy(at, what);
    strcpy(at, after);
    return text;
}

Test(web_head, has_so_many_bytes_and_records_and_no_more)
{
    const struct {
        const char *before, *what;
        size_t most;
        const char *after;
        unsigned status;
    } cases[] = {
        {"GET /", "a", HEAD_PATH_BYTES - 1, " HTTP/1.0\r\n\r\n", 414},
        {"GET / HTTP/1.0\r\nX: ", "a", HEAD_BYTES - 23, "\r\n\r\n", 431},
        {"GET / HTTP/1.0\r\n", "a:\n", HEAD_RECORDS - 1, "\n", 431},
        {"GET /?a", "&", HEAD_RECORDS - 1, " HTTP/1.0\r\n\r\n", 431},
        {"GET / HTTP/1.0\nCookie: a", ";", HEAD_RECORDS - 3, "\n\n", 431},
        {"GET / HTTP/1.0\nCookie: a", ",", HEAD_RECORDS - 3, "\n\n", 431},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t more = 0; more < 2; more++) {
            char *text =
                repeated(cases[i].before, cases[i].what, cases[i].most + more, cases[i].after);

            cr_expect_eq(status_of(text, false), more ? cases[i].status : 0, "%zu: %zu: %u", i,
                         more, error.status);
            free(text);
        }
}

Test(web_head, what_can_be_none_is_known_early)
{
    char *path = repeated("GET /", "a", HEAD_BYTES, ""), *field;

    cr_expect(head_hopeless("\x16\x03", 2, false, &error));
    cr_expect_eq(error.status, 400);
    cr_expect(head_hopeless("\r\n\0", 3, false, &error));
    cr_expect_not(head_hopeless("\r", 1, false, &error));
    cr_expect_not(head_hopeless("GET / HTTP/1.1\r\n", 16, false, &error));
    cr_expect(head_hopeless("GET / HTTP/1.1\r\n", 16, true, &error));
    cr_expect_eq(error.status, 400);
    cr_expect(head_hopeless(path, strlen(path), false, &error));
    cr_expect_eq(error.status, 414);
    free(path);
    for (int i = 0; i < 2; i++) {
        field = repeated(i ? "PUT / HTTP/1.1\r\nX:" : "GET / HTTP/1.1\r\nX:", "a", HEAD_BYTES, "");
        cr_expect(head_hopeless(field, strlen(field), false, &error));
        cr_expect_eq(error.status, i ? 405 : 431);
        free(field);
    }
}

Test(web_head, a_head_is_known_even_in_a_bad_one)
{
    cr_expect(head_is_head("\r\nHEAD nowhere\r\n\r\n", 18));
    cr_expect_not(head_is_head("GET / HTTP/1.0\r\n\r\n", 18));
    cr_expect_not(head_is_head("HEADER / HTTP/1.0\r\n\r\n", 21));
    cr_expect_not(head_is_head("", 0));
}
