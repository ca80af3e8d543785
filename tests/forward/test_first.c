/* First bytes: which protocol, which service, and whether the port's default may take it. */
#include "forward/first.h"
#include "captured.h"
#include "hello.h"
#include "pieces.h"

#define N(array) (sizeof(array) / sizeof(*(array)))
#define LIMIT 65536u

struct heard {
    struct first first;
    size_t limit;
    bool accept_bare_lf;
    enum first_result result;
    enum first_kind kind;
    const char *name; /* after DONE */
    size_t skip;      /* likewise */
    const char *what; /* for messages */
};

static struct hello_bytes in;

static void begin(void *ctx)
{
    struct heard *heard = ctx;

    heard->first = (struct first){.limit = heard->limit ? heard->limit : LIMIT,
                                  .accept_bare_lf = heard->accept_bare_lf};
}

static int feed(void *ctx, const uint8_t *data, size_t len)
{
    return (int)first_feed(&((struct heard *)ctx)->first, data, len);
}

static void check(void *ctx, int result, const char *how)
{
    struct heard *heard = ctx;

    cr_expect_eq(result, (int)heard->result, "%s: %s: %d and not %d", heard->what, how, result,
                 heard->result);
    cr_expect_eq(heard->first.kind, heard->kind, "%s: %s: kind %d and not %d", heard->what, how,
                 heard->first.kind, heard->kind);
    if (result == FIRST_BAD)
        cr_expect(heard->first.why && heard->first.why[0], "%s: %s: no why", heard->what, how);
    if (result != FIRST_DONE)
        return;
    cr_expect_str_eq(heard->first.name, heard->name, "%s: %s", heard->what, how);
    cr_expect_eq(heard->first.may_default, heard->name[0] == '\0', "%s: %s", heard->what, how);
    cr_expect_eq(heard->first.skip, heard->skip, "%s: %s", heard->what, how);
}

static size_t hear(struct heard *heard, const char *what, const void *data, size_t len)
{
    const struct pieces pieces = {heard, begin, feed, check};

    heard->what = what;
    return pieces_all(&pieces, data, len);
}

/* Returns at which byte it was decided. */
static size_t is(const char *text, enum first_result result, enum first_kind kind, const char *name)
{
    struct heard heard = {.result = result, .kind = kind, .name = name};

    return hear(&heard, text, text, strlen(text));
}

Test(first, http_goes_to_its_host)
{
    is("GET / HTTP/1.1\r\nHost: Billing:80\r\n\r\nmore", FIRST_DONE, FIRST_HTTP, "billing");
    is("PUT / HTTP/1.1\r\nHost: billing\r\n\r\n", FIRST_DONE, FIRST_HTTP, "billing");
    is("PATCH / HTTP/1.1\r\nHost: billing\r\n\r\n", FIRST_DONE, FIRST_HTTP, "billing");
    is("OPTIONS * HTTP/1.1\r\nHost: billing\r\n\r\n", FIRST_DONE, FIRST_HTTP, "billing");
    is("\r\n\r\nGET / HTTP/1.1\r\nHost: billing\r\n\r\n", FIRST_DONE, FIRST_HTTP, "billing");
}

Test(first, http_without_a_name_may_go_to_the_default)
{
    is("GET / HTTP/1.0\r\n\r\n", FIRST_DONE, FIRST_HTTP, "");
    is("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", FIRST_DONE, FIRST_HTTP, "");
    is("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", FIRST_DONE, FIRST_HTTP, "");
}

Test(first, http_that_is_refused_stays_http)
{
    is("GET / HTTP/1.1\r\n\r\n", FIRST_BAD, FIRST_HTTP, NULL);
    is("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", FIRST_BAD, FIRST_HTTP, NULL);
    is("GET / HTTP/1.1\nHost: a\n\n", FIRST_BAD, FIRST_HTTP, NULL);
    is("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", FIRST_BAD, FIRST_HTTP, NULL);
    is("CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: a\r\n\r\n", FIRST_BAD, FIRST_HTTP, NULL);
}

Test(first, bare_lf_is_taken_where_it_was_asked_for)
{
    struct heard heard = {
        .accept_bare_lf = true, .result = FIRST_DONE, .kind = FIRST_HTTP, .name = "a"};
    const char *text = "GET / HTTP/1.1\nHost: a\n\n";

    hear(&heard, text, text, strlen(text));
}

Test(first, the_head_of_a_connect_is_not_for_the_backend)
{
    const char *head = "CONNECT Billing.:443 HTTP/1.1\r\nHost: other\r\n\r\n";
    struct heard heard = {
        .result = FIRST_DONE, .kind = FIRST_CONNECT, .name = "billing", .skip = strlen(head)};
    char text[100];

    hear(&heard, head, head, strlen(head));
    snprintf(text, sizeof(text), "%sSSH-2.0-x\r\n", head);
    cr_expect_eq(hear(&heard, head, text, strlen(text)), strlen(head));
}

Test(first, tls_goes_to_its_server_name)
{
    struct heard heard = {.result = FIRST_DONE, .kind = FIRST_TLS};

    for (size_t i = 0; i < N(captured); i++) {
        hello_hex(&in, captured[i].hex);
        heard.name = captured[i].name;
        cr_expect_eq(hear(&heard, captured[i].from, in.data, in.len), in.len);
    }
    hello_browser(&in, "billing", 300);
    heard.name = "billing";
    cr_expect_eq(hear(&heard, "ML-KEM, in records of 300", in.data, in.len), in.len);
}

Test(first, tls_without_a_name_may_go_to_the_default)
{
    struct heard heard = {.result = FIRST_DONE, .kind = FIRST_TLS, .name = ""};

    hello_browser(&in, "10.0.0.7", 16384);
    hear(&heard, "an address", in.data, in.len);
    hear(&heard, "SSLv2-style", "\x80\x2e\1\3\1\0\x15\0\0\0\x10\1\2", 13);
}

Test(first, tls_that_is_refused_stays_tls)
{
    struct heard heard = {.result = FIRST_BAD, .kind = FIRST_TLS};

    hear(&heard, "an empty record", "\x16\3\1\0\0", 5);
    hear(&heard, "HTTP behind a record's head", "\x16\3\1\0\x10GET / HTTP/1.1\r\n", 21);
    hello_browser(&in, "a b", 16384);
    hear(&heard, "no name", in.data, in.len);
}

Test(first, http2_needs_its_first_line_alone)
{
    cr_expect_eq(is("PRI * HTTP/2.0\r\n", FIRST_DONE, FIRST_HTTP2, ""), 16);
    cr_expect_eq(is("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FIRST_DONE, FIRST_HTTP2, ""), 16);
}

Test(first, anything_else_may_go_to_the_default)
{
    struct heard heard = {.result = FIRST_DONE, .kind = FIRST_OTHER, .name = ""};

    is("PING\r\n", FIRST_DONE, FIRST_OTHER, "");
    is("SSH-2.0-OpenSSH\r\n", FIRST_DONE, FIRST_OTHER, "");
    is("EHLO billing\r\n", FIRST_DONE, FIRST_OTHER, "");
    is("GET / HTTP/2.0\r\nHost: billing\r\n\r\n", FIRST_DONE, FIRST_OTHER, "");
    hear(&heard, "PostgreSQL's SSLRequest", "\0\0\0\x8\4\xd2\x16\x2f", 8);
    hear(&heard, "no TLS", "\x16\2\1", 3);
    hear(&heard, "above ASCII", "\xff\xff\xff\xff\xff\xff", 6);
}

Test(first, few_bytes_are_waited_for)
{
    static const struct {
        const char *text;
        enum first_kind kind;
    } rows[] = {
        {"", FIRST_UNKNOWN},         {"G", FIRST_UNKNOWN},
        {"PUT", FIRST_UNKNOWN},      {"PATCH", FIRST_UNKNOWN},
        {"CONNECT", FIRST_UNKNOWN},  {"\r\n", FIRST_UNKNOWN},
        {"\x16", FIRST_UNKNOWN},     {"\x80\x2e\1\3", FIRST_UNKNOWN},
        {"GET ", FIRST_HTTP},        {"GET / HTTP/1.1\r\nHost: a\r\n", FIRST_HTTP},
        {"CONNECT a:1", FIRST_HTTP}, {"\x16\3", FIRST_TLS},
        {"\x16\3\1\2", FIRST_TLS},
    };

    for (size_t i = 0; i < N(rows); i++)
        is(rows[i].text, FIRST_MORE, rows[i].kind, NULL);
}

Test(first, what_is_undecided_at_the_limit_is_too_big)
{
    const char *head = "GET / HTTP/1.1\r\nHost: billing\r\n\r\n";
    struct heard heard = {.limit = strlen(head), .kind = FIRST_HTTP, .name = "billing"};

    heard.result = FIRST_DONE;
    cr_expect_eq(hear(&heard, "at the limit", head, strlen(head)), strlen(head));
    heard.limit--;
    heard.result = FIRST_BIG;
    cr_expect_eq(hear(&heard, "one above", head, strlen(head)), heard.limit);

    hello_browser(&in, "billing", 16384);
    heard.kind = FIRST_TLS;
    heard.limit = in.len;
    heard.result = FIRST_DONE;
    cr_expect_eq(hear(&heard, "hello at the limit", in.data, in.len), in.len);
    heard.limit--;
    heard.result = FIRST_BIG;
    cr_expect_eq(hear(&heard, "hello one above", in.data, in.len), heard.limit);
    heard.limit = 1024;
    cr_expect_eq(hear(&heard, "hello far above", in.data, in.len), 9);

    heard.kind = FIRST_UNKNOWN;
    heard.limit = 10;
    cr_expect_eq(hear(&heard, "a word without end", "aaaaaaaaaaaa", 12), 10);
}

Test(first, a_client_costs_less_than_600_bytes) { cr_expect_lt(sizeof(struct first), 600); }
