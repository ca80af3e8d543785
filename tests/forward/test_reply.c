/* Replies: every end, in every protocol's words. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "forward/reply.h"

static uint8_t out[REPLY_MAX + 1];

/* As text, NUL-terminated. */
static const char *http(enum first_kind kind, enum forward_end end, const char *text)
{
    size_t len = reply_pack(kind, false, end, text, "n1", out);

    cr_assert_lt(len, sizeof(out));
    out[len] = '\0';
    cr_assert_eq(strlen((char *)out), len);
    return (char *)out;
}

Test(reply, http_in_full)
{
    cr_expect_str_eq(http(FIRST_HTTP, FORWARD_NO_SUCH_NAME, "nobody offers billing"),
                     "HTTP/1.1 404 Not Found\r\n"
                     "Content-Type: text/plain; charset=utf-8\r\n"
                     "Content-Length: 71\r\n"
                     "Connection: close\r\n"
                     "\r\n"
                     "404 Not Found: no such service is known here\n"
                     "n1: nobody offers billing\n");
}

/* It says of the body what it would say, were there one (RFC 9110 9.3.2). */
Test(reply, the_answer_to_a_head_ends_with_its_own)
{
    for (enum forward_end end = 0; end < N_FORWARD_ENDS; end++) {
        char whole[REPLY_MAX + 1];
        size_t len, head;

        strcpy(whole, http(FIRST_HTTP, end, "because"));
        head = *whole ? (size_t)(strstr(whole, "\r\n\r\n") + 4 - whole) : 0;
        len = reply_pack(FIRST_HTTP, true, end, "because", "n1", out);
        cr_assert_eq(len, head, "%s", forward_ends[end].word);
        cr_expect_arr_eq(out, whole, len);
    }
}

Test(reply, http_says_how_long_it_is_for_every_end)
{
    char status[40], length[40];

    for (enum forward_end end = 0; end < N_FORWARD_ENDS; end++) {
        const struct forward_end_row *row = &forward_ends[end];
        const char *reply = http(FIRST_HTTP, end, "because");
        const char *body = strstr(reply, "\r\n\r\n");

        if (row->status == 0) {
            cr_expect_str_empty(reply, "%s", row->word);
            continue;
        }
        cr_assert_not_null(body, "%s", row->word);
        body += 4;
        snprintf(status, sizeof(status), "HTTP/1.1 %d ", row->status);
        snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n", strlen(body));
        cr_expect_eq(strncmp(reply, status, strlen(status)), 0, "%s", reply);
        cr_expect_not_null(strstr(reply, length), "%s", reply);
        cr_expect_not_null(strstr(reply, "\r\nConnection: close\r\n"), "%s", reply);
        cr_expect_eq(strstr(reply, "\r\nRetry-After: 1\r\n") != NULL, row->status == 503, "%s",
                     reply);
        cr_expect_eq(strncmp(body, status + 9, 4), 0, "%s", reply);
        cr_expect_not_null(strstr(body, row->text), "%s", reply);
        cr_expect_not_null(strstr(body, "\nn1: because\n"), "%s", reply);
        cr_expect_str_not_empty(strchr(reply, ' ') + 5);
    }
}

Test(reply, a_connect_is_refused_as_a_request_is)
{
    char request[REPLY_MAX + 1];

    strcpy(request, http(FIRST_HTTP, FORWARD_BACKEND_REFUSED, "x"));
    cr_expect_str_eq(http(FIRST_CONNECT, FORWARD_BACKEND_REFUSED, "x"), request);
}

Test(reply, http_status_lines)
{
    static const struct {
        enum forward_end end;
        const char *line;
    } rows[] = {
        {FORWARD_BAD_REQUEST, "HTTP/1.1 400 Bad Request\r\n"},
        {FORWARD_NO_NAME, "HTTP/1.1 400 Bad Request\r\n"},
        {FORWARD_NO_SUCH_NAME, "HTTP/1.1 404 Not Found\r\n"},
        {FORWARD_TOO_SLOW, "HTTP/1.1 408 Request Timeout\r\n"},
        {FORWARD_HEAD_TOO_BIG, "HTTP/1.1 431 Request Header Fields Too Large\r\n"},
        {FORWARD_BACKEND_REFUSED, "HTTP/1.1 502 Bad Gateway\r\n"},
        {FORWARD_DRAINING, "HTTP/1.1 503 Service Unavailable\r\n"},
        {FORWARD_OWNER_SILENT, "HTTP/1.1 504 Gateway Timeout\r\n"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        cr_expect_eq(strncmp(http(FIRST_HTTP, rows[i].end, ""), rows[i].line, strlen(rows[i].line)),
                     0);
}

Test(reply, a_text_cannot_add_lines_and_can_be_absent)
{
    cr_expect_not_null(
        strstr(http(FIRST_HTTP, FORWARD_NO_OWNER, "a\r\nb\x01\x7f\tc"), "\nn1: a??b???c\n"));
    cr_expect_not_null(strstr(http(FIRST_HTTP, FORWARD_NO_OWNER, ""), "\nn1\n"));
}

Test(reply, a_text_moves_no_cursor_and_turns_no_line)
{
    cr_expect_not_null(strstr(http(FIRST_HTTP, FORWARD_NO_OWNER,
                                   "a\x1b[2J\xc2\x9b"
                                   "1m\xe2\x80\xae"
                                   "b\xff"),
                              "\nn1: a?[2J??1m???b?\n"));
}

Test(reply, the_longest_texts_fit)
{
    char text[2000], peer_id[2000];

    memset(text, 't', sizeof(text));
    memset(peer_id, 'p', sizeof(peer_id));
    text[sizeof(text) - 1] = peer_id[sizeof(peer_id) - 1] = '\0';
    for (enum forward_end end = 0; end < N_FORWARD_ENDS; end++) {
        for (enum first_kind kind = FIRST_UNKNOWN; kind <= FIRST_OTHER; kind++) {
            size_t len;

            out[REPLY_MAX] = 0xee;
            len = reply_pack(kind, false, end, text, peer_id, out);
            cr_expect_lt(len, REPLY_MAX);
            cr_expect_eq(out[REPLY_MAX], 0xee);
            if (kind == FIRST_HTTP && len > 0) /* nothing was cut */
                cr_expect_eq(out[len - 1], '\n');
        }
    }
}

Test(reply, tls_alerts)
{
    for (enum forward_end end = 0; end < N_FORWARD_ENDS; end++) {
        uint8_t alert[] = {0x15, 3, 3, 0, 2, 2, 80};

        if (end == FORWARD_NO_NAME || end == FORWARD_NO_SUCH_NAME)
            alert[6] = 112;
        else if (end == FORWARD_BAD_REQUEST)
            alert[6] = 50;
        if (forward_ends[end].status == 0) {
            cr_expect_eq(reply_pack(FIRST_TLS, false, end, "x", "n1", out), 0);
            continue;
        }
        cr_assert_eq(reply_pack(FIRST_TLS, false, end, "x", "n1", out), sizeof(alert));
        cr_expect_arr_eq(out, alert, sizeof(alert), "%s", forward_ends[end].word);
    }
}

Test(reply, http2_says_settings_and_goaway)
{
    static const struct {
        enum forward_end end;
        uint8_t error;
    } rows[] = {{FORWARD_NO_NAME, 0xd},    {FORWARD_NO_SUCH_NAME, 0xd}, {FORWARD_DRAINING, 0},
                {FORWARD_OVER_LIMIT, 0xb}, {FORWARD_NO_OWNER, 2},       {FORWARD_TOO_SLOW, 2}};
    const char *words = "n1: because";

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        const uint8_t frames[] = {0, 0, 0,      4, 0, 0, 0, 0,
                                  0, /* SETTINGS, empty */
                                  0, 0, 8 + 11, 7, 0, 0, 0, 0,
                                  0, /* GOAWAY */
                                  0, 0, 0,      0, 0, 0, 0, rows[i].error};

        cr_assert_eq(reply_pack(FIRST_HTTP2, false, rows[i].end, "because", "n1", out),
                     sizeof(frames) + strlen(words));
        cr_expect_arr_eq(out, frames, sizeof(frames));
        cr_expect_arr_eq(out + sizeof(frames), words, strlen(words));
    }
    cr_expect_eq(reply_pack(FIRST_HTTP2, false, FORWARD_IDLE, "", "n1", out), 0);
}

Test(reply, what_is_not_known_is_told_nothing)
{
    for (enum forward_end end = 0; end < N_FORWARD_ENDS; end++) {
        cr_expect_eq(reply_pack(FIRST_UNKNOWN, false, end, "x", "n1", out), 0);
        cr_expect_eq(reply_pack(FIRST_OTHER, false, end, "x", "n1", out), 0);
    }
}

Test(reply, connected_has_no_length)
{
    cr_expect_eq(strncmp(reply_connected, "HTTP/1.1 200 ", 13), 0);
    cr_expect_str_eq(strstr(reply_connected, "\r\n"), "\r\n\r\n", "one line, and an empty one");
}
