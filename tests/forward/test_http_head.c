/* HTTP heads: which name is in them, and which are refused; each in every split. */
#include <stdio.h>
#include <unistd.h>
#include "forward/http_head.h"
#include "pieces.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

struct heard {
    struct http_head head;
    bool accept_bare_lf;
    const char *in; /* for messages */
    enum http_head_result result;
    const char *name; /* after DONE */
    size_t len;       /* likewise */
    bool connect;
};

static void begin(void *ctx)
{
    struct heard *heard = ctx;

    heard->head = (struct http_head){.accept_bare_lf = heard->accept_bare_lf};
}

static int feed(void *ctx, const uint8_t *data, size_t len)
{
    return (int)http_head_feed(&((struct heard *)ctx)->head, data, len);
}

static void check(void *ctx, int result, const char *how)
{
    struct heard *heard = ctx;

    cr_expect_eq(result, (int)heard->result, "%s: %d and not %d: %s", how, result, heard->result,
                 heard->in);
    if (result == HTTP_HEAD_BAD)
        cr_expect(heard->head.why && heard->head.why[0], "%s: no why: %s", how, heard->in);
    if (result != HTTP_HEAD_DONE)
        return;
    cr_expect_str_eq(heard->head.name, heard->name, "%s: '%s' and not '%s': %s", how,
                     heard->head.name, heard->name, heard->in);
    cr_expect_eq(heard->head.len, heard->len, "%s: %s", how, heard->in);
    cr_expect_eq(heard->head.connect, heard->connect, "%s: %s", how, heard->in);
}

/* Returns at which byte it was decided. */
static size_t hear(struct heard *heard, const char *in, size_t len)
{
    const struct pieces pieces = {heard, begin, feed, check};

    heard->in = in;
    return pieces_all(&pieces, (const uint8_t *)in, len);
}

static void named(const char *in, const char *name)
{
    struct heard heard = {.result = HTTP_HEAD_DONE, .name = name, .len = strlen(in)};

    heard.connect = strncmp(in, "CONNECT ", 8) == 0;
    cr_expect_eq(hear(&heard, in, strlen(in)), strlen(in), "decided early: %s", in);
}

static void refused(const char *in)
{
    struct heard heard = {.result = HTTP_HEAD_BAD};

    hear(&heard, in, strlen(in));
}

#define NAMED(host, name) named("GET / HTTP/1.1\r\nHost: " host "\r\n\r\n", name)
#define REFUSED(host) refused("GET / HTTP/1.1\r\nHost: " host "\r\n\r\n")

Test(http_head, names_are_canonical)
{
    NAMED("billing", "billing");
    NAMED("Billing.Example.COM", "billing.example.com");
    NAMED("billing.example.com.", "billing.example.com");
    NAMED("BILLING.:8080", "billing");
    NAMED("billing:8080", "billing");
    NAMED("billing:", "billing");
    NAMED(" \t billing \t ", "billing");
    NAMED("a_b-9", "a_b-9");
    named("GET / HTTP/1.1\r\nhOsT:billing\r\n\r\n", "billing");
    named("GET / HTTP/1.1\r\nA: b\r\nHosts: no\r\nXHost: no\r\nHost: billing\r\nB:\r\nC: \xc3\xa4"
          "\r\n\r\n",
          "billing");
}

Test(http_head, addresses_are_no_names)
{
    NAMED("[::1]:80", "");
    NAMED("[::1]", "");
    NAMED("[2001:DB8::7]:8080", "");
    NAMED("127.0.0.1", "");
    NAMED("127.0.0.1:80", "");
}

Test(http_head, http_1_1_needs_host_and_1_0_does_not)
{
    refused("GET / HTTP/1.1\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHosts: a\r\n\r\n");
    refused("GET / HTTP/1.9\r\n\r\n");
    refused("GET http://billing/ HTTP/1.1\r\n\r\n");
    refused("CONNECT billing:80 HTTP/1.1\r\n\r\n");
    named("GET / HTTP/1.0\r\n\r\n", "");
    named("GET / HTTP/1.0\r\nAccept: */*\r\n\r\n", "");
    named("GET / HTTP/1.0\r\nHost: billing\r\n\r\n", "billing");
    named("GET http://billing/ HTTP/1.0\r\n\r\n", "billing");
    named("GET / HTTP/1.7\r\nHost: billing\r\n\r\n", "billing");
}

Test(http_head, two_hosts_are_refused)
{
    refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n");
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n");
    refused("GET http://c/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    REFUSED("a, b");
    REFUSED("a b");
}

Test(http_head, empty_and_invalid_hosts_are_refused)
{
    static const char long_label[] =
        "GET / HTTP/1.1\r\nHost: "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "\r\n\r\n";

    REFUSED("");
    REFUSED(" \t ");
    REFUSED(".");
    REFUSED("a..b");
    REFUSED(".a");
    REFUSED("user@a");
    REFUSED("user:1@a");
    REFUSED("a/b");
    REFUSED("a%41");
    REFUSED("a:b");
    REFUSED("a:0");
    REFUSED("a:70000");
    REFUSED("a:80:80");
    REFUSED("a::");
    REFUSED(":80");
    REFUSED("[::1");
    REFUSED("[::g]");
    REFUSED("[::1]x");
    REFUSED("*");
    REFUSED("*.example.com");
    REFUSED("\xc3\xa4.example.com");
    REFUSED("a\tb");
    REFUSED("a\x01");
    refused("GET / HTTP/1.0\r\nHost:\r\n\r\n");
    refused("GET http://b/ HTTP/1.1\r\nHost: user@a\r\n\r\n");
    refused("GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n");
    refused(long_label);
}

Test(http_head, a_name_of_254_bytes_is_refused_and_of_253_taken)
{
    char in[400], name[LIMIT_NAME + 2];

    for (size_t i = 0; i < LIMIT_NAME + 1; i++)
        name[i] = i % 64 == 63 ? '.' : 'a';
    name[LIMIT_NAME + 1] = '\0';
    snprintf(in, sizeof(in), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name);
    refused(in);
    name[LIMIT_NAME] = '\0';
    snprintf(in, sizeof(in), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name);
    named(in, name);
}

Test(http_head, folded_lines_are_refused)
{
    refused("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHost:\r\n\ta\r\n\r\n");
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nX: y\r\n Host: b\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n");
}

Test(http_head, spaces_before_a_colon_are_refused)
{
    refused("GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nX : y\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHost a\r\n\r\n");
    refused("GET / HTTP/1.1\r\n: y\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1.1\r\nHost\r\n\r\n");
    refused("GET / HTTP/1.1\r\nH\xc3\xb6st: a\r\n\r\n");
}

static const char *const bare[] = {
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\n\r\n",
    "GET / HTTP/1.1\r\nX: y\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\n",
};

Test(http_head, bare_lf_is_refused)
{
    for (size_t i = 0; i < N(bare); i++)
        refused(bare[i]);
}

Test(http_head, bare_lf_is_taken_where_it_was_asked_for)
{
    for (size_t i = 0; i < N(bare); i++) {
        struct heard heard = {
            .accept_bare_lf = true, .result = HTTP_HEAD_DONE, .name = "a", .len = strlen(bare[i])};

        hear(&heard, bare[i], heard.len);
    }
}

Test(http_head, bare_cr_is_refused_also_where_bare_lf_is_taken)
{
    static const char *const rows[] = {
        "GET / HTTP/1.1\rHost: a\r\n\r\n",       "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",   "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX:\r\n", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    };

    for (size_t i = 0; i < N(rows); i++) {
        struct heard heard = {.accept_bare_lf = true, .result = HTTP_HEAD_BAD};

        refused(rows[i]);
        hear(&heard, rows[i], strlen(rows[i]));
    }
}

Test(http_head, control_bytes_are_refused_wherever_they_are)
{
    char in[] = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    const size_t told = strlen("GET / HTTP/1"); /* from here on it said what it is */

    for (size_t at = 0; at + 1 < sizeof(in); at++) {
        struct heard heard = {.result = at < told ? HTTP_HEAD_OTHER : HTTP_HEAD_BAD};
        char was = in[at];

        for (int i = 0; i < 3; i++) {
            in[at] = "\0\x1b\x7f"[i];
            hear(&heard, in, sizeof(in) - 1);
        }
        in[at] = was;
    }
}

Test(http_head, an_absolute_target_wins_over_host)
{
    named("GET http://billing/x HTTP/1.1\r\nHost: other\r\n\r\n", "billing");
    named("GET HTTPS://Billing.:443 HTTP/1.1\r\nHost: other\r\n\r\n", "billing");
    named("GET any+9.-://billing?q=http://x/ HTTP/1.1\r\nHost: other\r\n\r\n", "billing");
    named("GET http://billing#f HTTP/1.1\r\nHost: other\r\n\r\n", "billing");
    named("GET http://billing:/ HTTP/1.1\r\nHost: other\r\n\r\n", "billing");
    named("GET http://[::1]:80/ HTTP/1.1\r\nHost: other\r\n\r\n", "");
    named("GET http://10.0.0.1/ HTTP/1.1\r\nHost: other\r\n\r\n", "");
    refused("GET http://user@billing/ HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http:/// HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http://?a HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http://a:b/ HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http://*.a/ HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET 9http://a/ HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET ://a/ HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http:/a HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http:a HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http:xyother/ HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET http:/other/ HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET billing HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET billing:80 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("GET ** HTTP/1.1\r\nHost: billing\r\n\r\n");
}

Test(http_head, methods_are_recognised_by_grammar)
{
    static const char *const methods[] = {
        "GET", "PUT", "PATCH", "TRACE",   "DELETE",          "PROPFIND", "M-SEARCH",
        "get", "X",   "PRI",   "SSH-2.0", "!#$%&'*+-.^_`|~", "CONNECTX", "connect"};
    char in[200];

    for (size_t i = 0; i < N(methods); i++) {
        snprintf(in, sizeof(in), "%s / HTTP/1.1\r\nHost: billing\r\n\r\n", methods[i]);
        named(in, "billing");
    }
    named("OPTIONS * HTTP/1.1\r\nHost: billing\r\n\r\n", "billing");
    named("GET /\xc3\xa4?<>\"{}|^` HTTP/1.1\r\nHost: billing\r\n\r\n", "billing");
    named("GET //other/x HTTP/1.1\r\nHost: billing\r\n\r\n", "billing");
    named("GET /http://other/ HTTP/1.1\r\nHost: billing\r\n\r\n", "billing");
}

Test(http_head, versions_that_are_none_are_refused)
{
    refused("GET / HTTP/1.1 \r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1.11\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1.\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/10\r\nHost: a\r\n\r\n");
    refused("GET / HTTP/1.x\r\nHost: a\r\n\r\n");
}

Test(http_head, up_to_two_empty_lines_come_first)
{
    struct heard lf = {.accept_bare_lf = true, .result = HTTP_HEAD_DONE, .name = "a"};
    const char *in = "\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";

    named("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "a");
    named("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "a");
    named("\r\n\r\nGET / HTTP/1.0\r\n\r\n", "");
    lf.len = strlen(in);
    hear(&lf, in, lf.len);
}

Test(http_head, what_follows_the_head_is_not_looked_at)
{
    static const char *const rows[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
        "Host: b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "\x81\x7f\r\n\n\r",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "\x16\x03\x01\x02",
    };
    char in[200];

    for (size_t i = 0; i < N(rows); i += 2) {
        struct heard heard = {.result = HTTP_HEAD_DONE, .name = "a", .len = strlen(rows[i])};

        heard.connect = rows[i][0] == 'C';
        snprintf(in, sizeof(in), "%s%s", rows[i], rows[i + 1]);
        cr_expect_eq(hear(&heard, in, strlen(in)), heard.len);
    }
}

Test(http_head, connect_takes_the_name_from_its_target)
{
    named("CONNECT Billing.:443 HTTP/1.1\r\nHost: other\r\n\r\n", "billing");
    named("CONNECT billing:1 HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", "billing");
    named("CONNECT billing:65535 HTTP/1.0\r\n\r\n", "billing");
    refused("CONNECT billing HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT billing: HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT billing:0 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT billing:x HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT :443 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT * HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT *.billing:443 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT / HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT http://billing:443 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT user@billing:443 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT [::1]:443 HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT [::1] HTTP/1.1\r\nHost: billing\r\n\r\n");
    refused("CONNECT billing:443 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
    refused("CONNECT billing:443 HTTP/1.1\r\nHost: a b\r\n\r\n");
}

Test(http_head, other_protocols_are_told_at_their_first_odd_byte)
{
    static const struct {
        const char *in;
        size_t at;
    } rows[] = {
        {"PING\r\n", 5},
        {"*1\r\n$4\r\nPING\r\n", 3},
        {"EHLO example.com\r\n", 17},
        {"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", 31},
        {"QUIT\n", 5},
        {"GET /\r\n", 6},
        {"GET /\n", 6},
        {"GET\t/ HTTP/1.1\r\n", 4},
        {"GET  / HTTP/1.1\r\n", 5},
        {"GET / / HTTP/1.1\r\n", 7},
        {"GET /  HTTP/1.1\r\n", 7},
        {"GET / http/1.1\r\n", 7},
        {"GET / HTTQ/1.1\r\n", 10},
        {"GET / HTTP/0.9\r\n", 12},
        {"GET / HTTP/2.0\r\n", 12},
        {"GET / HTTP/3\r\n", 12},
        {"GET /\x01 HTTP/1.1\r\n", 6},
        {"GET /\x7f HTTP/1.1\r\n", 6},
        {"PRI * HTTP/2.1\r\n", 14},
        {"PRI * HTTP/2.0\n", 15},
        {"PRI / HTTP/2.0\r\n", 12},
        {"PRX * HTTP/2.0\r\n", 12},
        {"\r\nPRI * HTTP/2.0\r\n", 14},
        {" GET / HTTP/1.1\r\n", 1},
        {"\nGET / HTTP/1.1\r\n", 1},
        {"\rGET / HTTP/1.1\r\n", 2},
        {"\r\r\n", 2},
        {"\r\n\r\n\r\nGET / HTTP/1.1\r\n", 5},
        {"\x16\x03\x01", 1},
        {"\x80", 1},
        {"(", 1},
        {":", 1},
    };

    for (size_t i = 0; i < N(rows); i++) {
        struct heard heard = {.result = HTTP_HEAD_OTHER};

        cr_expect_eq(hear(&heard, rows[i].in, strlen(rows[i].in)), rows[i].at, "%s", rows[i].in);
    }
}

Test(http_head, http2_is_told_at_the_end_of_its_first_line)
{
    struct heard heard = {.result = HTTP_HEAD_HTTP2};
    const char *in = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    cr_expect_eq(hear(&heard, in, strlen(in)), 16);
}

Test(http_head, every_undecided_beginning_asks_for_more)
{
    static const char *const rows[] = {
        "G",
        "GE",
        "P",
        "PRI",
        "PRI * HTTP/2.0\r",
        "\r",
        "\r\n",
        "\r\n\r\n",
        "G ",
        "CONNECT",
        "GET / HTTP/",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: a\r\n\r",
    };

    for (size_t i = 0; i < N(rows); i++) {
        struct heard heard = {.result = HTTP_HEAD_MORE};

        hear(&heard, rows[i], strlen(rows[i]));
    }
}

Test(http_head, likely_begins_behind_the_method)
{
    struct http_head head = {0};
    const uint8_t *in = (const uint8_t *)"GET /";

    cr_expect_eq(http_head_feed(&head, in, 3), HTTP_HEAD_MORE);
    cr_expect_not(head.likely);
    cr_expect_eq(http_head_feed(&head, in, 4), HTTP_HEAD_MORE);
    cr_expect(head.likely);
}

/* Four MiB, byte by byte: looked at anew with each call, that would take hours. */
Test(http_head, the_time_of_a_head_grows_with_its_bytes_alone)
{
    enum { LEN = 1 << 22 };
    const char *begins = "GET / HTTP/1.1\r\nHost: billing\r\nX: ";
    uint8_t *in = malloc(LEN);
    struct http_head head = {0};

    cr_assert_not_null(in);
    memset(in, 'x', LEN);
    memcpy(in, begins, strlen(begins));
    memcpy(in + LEN - 4, "\r\n\r\n", 4);
    alarm(60);
    for (size_t n = 1; n < LEN; n++)
        cr_assert_eq(http_head_feed(&head, in, n), HTTP_HEAD_MORE);
    cr_expect_eq(http_head_feed(&head, in, LEN), HTTP_HEAD_DONE);
    cr_expect_str_eq(head.name, "billing");
    cr_expect_eq(head.len, LEN);
    alarm(0);
    free(in);
}

Test(http_head, a_client_costs_less_than_600_bytes) { cr_expect_lt(sizeof(struct http_head), 600); }
