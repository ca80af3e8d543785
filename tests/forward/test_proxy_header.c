/* PROXY headers: read in every split, written, and read again. */
#include <arpa/inet.h>
#include "forward/proxy_header.h"
#include "pieces.h"

#define N(array) (sizeof(array) / sizeof(*(array)))
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

struct heard {
    struct proxy_header header;
    enum proxy_header_result result;
    const char *what;
    const char *client, *server; /* NULL: no addresses */
    uint16_t client_port, server_port;
    size_t len;
};

static void begin(void *ctx)
{
    struct heard *heard = ctx;

    heard->header = (struct proxy_header){.len = 9999};
}

static int feed(void *ctx, const uint8_t *data, size_t len)
{
    return (int)proxy_header_parse(data, len, &((struct heard *)ctx)->header);
}

static void is_endpoint(const struct endpoint *endpoint, const char *ip, uint16_t port)
{
    uint8_t bytes[16];
    char text[INET6_ADDRSTRLEN];
    int family = endpoint_bytes(endpoint, bytes) == 4 ? AF_INET : AF_INET6;

    cr_expect_str_eq(inet_ntop(family, bytes, text, sizeof(text)), ip);
    cr_expect_eq(endpoint->port, port);
}

static void check(void *ctx, int result, const char *how)
{
    struct heard *heard = ctx;

    cr_expect_eq(result, (int)heard->result, "%s: %s: %d and not %d", how, heard->what, result,
                 heard->result);
    if (result != PROXY_HEADER_DONE) {
        cr_expect_eq(heard->header.len, 9999, "%s: %s: written", how, heard->what);
        return;
    }
    cr_expect_eq(heard->header.len, heard->len, "%s: %s: %zu bytes and not %zu", how, heard->what,
                 heard->header.len, heard->len);
    cr_expect_eq(heard->header.has_addresses, heard->client != NULL, "%s: %s", how, heard->what);
    if (!heard->client)
        return;
    is_endpoint(&heard->header.tuple.client, heard->client, heard->client_port);
    is_endpoint(&heard->header.tuple.server, heard->server, heard->server_port);
}

static size_t hear(struct heard *heard, const char *what, const void *in, size_t len)
{
    const struct pieces pieces = {heard, begin, feed, check};

    heard->what = what;
    return pieces_all(&pieces, in, len);
}

static void says(const char *in, const char *client, const char *server, uint16_t client_port,
                 uint16_t server_port)
{
    struct heard heard = {.result = PROXY_HEADER_DONE,
                          .client = client,
                          .server = server,
                          .client_port = client_port,
                          .server_port = server_port,
                          .len = strlen(in)};
    char more[200];

    cr_expect_eq(hear(&heard, in, in, heard.len), heard.len);
    snprintf(more, sizeof(more), "%sGET / HTTP/1.1\r\n\r\n", in);
    cr_expect_eq(hear(&heard, in, more, strlen(more)), heard.len);
}

/* Every byte but the last still fits. */
static void ends_bad(const char *in)
{
    struct heard heard = {.result = PROXY_HEADER_BAD};

    cr_expect_eq(hear(&heard, in, in, strlen(in)), strlen(in), "%s", in);
}

Test(proxy_header, version_1_says_both_ends)
{
    says("PROXY TCP4 192.0.2.1 198.51.100.255 56324 443\r\n", "192.0.2.1", "198.51.100.255", 56324,
         443);
    says("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0", "255.255.255.255", 0, 65535);
    says("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1", "::1", 1, 2);
    says("PROXY TCP6 2001:DB8:0:0:0:0:0:1 1:2:3:4:5:6:7:8 10 20\r\n", "2001:db8::1",
         "1:2:3:4:5:6:7:8", 10, 20);
    says("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:"
         "ffff 65535 65535\r\n",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
         65535, 65535);
    says("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n", "192.0.2.1", "2001:db8::1", 1, 2);
}

Test(proxy_header, version_1_unknown_says_nothing)
{
    says("PROXY UNKNOWN\r\n", NULL, NULL, 0, 0);
    says("PROXY UNKNOWN what \r ever\n 1 2\r\n", NULL, NULL, 0, 0);
    says("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:"
         "ffff:ffff 65535 65535\r\n",
         NULL, NULL, 0, 0);
}

Test(proxy_header, version_1_is_strict)
{
    static const char *const rows[] = {
        "G",
        "p",
        "PROXY\t",
        "PROXY  ",
        "PROXY TCP5",
        "PROXY TCP4\t",
        "PROXY X",
        "PROXY UNKNOWNX",
        "PROXY UNKNOWN\t",
        "PROXY t",
        "PROXY TCP4  ",
        "PROXY TCP4 1.2.3 ",
        "PROXY TCP4 1.2.3.4.5 ",
        "PROXY TCP4 1.2.3.256 ",
        "PROXY TCP4 01.2.3.4 ",
        "PROXY TCP4 1.2.3.4\t",
        "PROXY TCP4 :",
        "PROXY TCP4 -",
        "PROXY TCP4 1234567890123456",
        "PROXY TCP4 1.2.3.4 5.6.7.8\r",
        "PROXY TCP4 1.2.3.4 5.6.7.8  ",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 ",
        "PROXY TCP4 1.2.3.4 5.6.7.8 00 ",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 ",
        "PROXY TCP4 1.2.3.4 5.6.7.8 123456",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rG",
        "PROXY TCP6 1.2.3.4 ",
        "PROXY TCP6 ::1::2 ",
        "PROXY TCP6 g",
        "PROXY TCP6 fe80::1%",
        "PROXY TCP6 [",
        "PROXY TCP6 12345::1 ",
        "PROXY TCP6 1:2:3:4:5:6:7 ",
    };
    char nul[] = "PROXY TCP4 1.2.3.4?5.6.7.8 1 2\r\n";
    struct heard heard = {.result = PROXY_HEADER_BAD};

    for (size_t i = 0; i < N(rows); i++)
        ends_bad(rows[i]);
    *strchr(nul, '?') = '\0';
    hear(&heard, "NUL", nul, sizeof(nul) - 1);
}

Test(proxy_header, version_1_is_refused_above_107_bytes)
{
    char in[120];
    struct heard heard = {.result = PROXY_HEADER_DONE, .len = PROXY_V1_MAX};

    memset(in, 'x', sizeof(in));
    memcpy(in, "PROXY UNKNOWN ", 14);
    memcpy(in + PROXY_V1_MAX - 2, "\r\n", 2);
    cr_expect_eq(hear(&heard, "107 bytes", in, sizeof(in)), PROXY_V1_MAX);
    memcpy(in + PROXY_V1_MAX - 2, "x\r\n", 3);
    heard.result = PROXY_HEADER_BAD;
    cr_expect_eq(hear(&heard, "108 bytes", in, sizeof(in)), PROXY_V1_MAX);
}

/* A header of version 2 with `body` zeroes, but for what is given. */
static size_t v2(uint8_t *out, unsigned command, unsigned family, size_t body, const void *given,
                 size_t n)
{
    memset(out, 0, 16 + body);
    memcpy(out, SIGNATURE, 12);
    out[12] = (uint8_t)command;
    out[13] = (uint8_t)family;
    out[14] = (uint8_t)(body >> 8);
    out[15] = (uint8_t)body;
    memcpy(out + 16, given, n);
    return 16 + body;
}

Test(proxy_header, version_2_says_both_ends)
{
    static const uint8_t v4[] = {192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb};
    static const uint8_t v6[] = {0x20, 1, 0xd, 0xb8, [15] = 1, [31] = 1, 0, 1, 0xff, 0xff};
    struct heard four = {.result = PROXY_HEADER_DONE,
                         .client = "192.0.2.1",
                         .server = "198.51.100.2",
                         .client_port = 56324,
                         .server_port = 443};
    struct heard six = {.result = PROXY_HEADER_DONE,
                        .client = "2001:db8::1",
                        .server = "::1",
                        .client_port = 1,
                        .server_port = 65535};
    uint8_t in[300];

    /* Alone, and with something that may be TLVs behind the addresses. */
    for (size_t more = 0; more < 60; more += 7) {
        four.len = v2(in, 0x21, 0x11, sizeof(v4) + more, v4, sizeof(v4));
        cr_expect_eq(hear(&four, "TCP4", in, four.len), four.len);
        cr_expect_eq(hear(&four, "TCP4, and data", in, four.len + 20), four.len);
        six.len = v2(in, 0x21, 0x21, sizeof(v6) + more, v6, sizeof(v6));
        cr_expect_eq(hear(&six, "TCP6", in, six.len), six.len);
    }
}

Test(proxy_header, version_2_without_addresses_that_count)
{
    static const struct {
        const char *what;
        unsigned command, family;
        size_t body;
    } rows[] = {
        {"LOCAL", 0x20, 0, 0},
        {"LOCAL with a family", 0x20, 0x11, 12},
        {"LOCAL cut", 0x20, 0x21, 3},
        {"LOCAL of no known family", 0x20, 0xff, 5},
        {"UNSPEC", 0x21, 0, 0},
        {"UNSPEC with TLVs", 0x21, 0, 30},
        {"UDP4", 0x21, 0x12, 12},
        {"UDP6", 0x21, 0x22, 36},
        {"Unix", 0x21, 0x31, 216},
        {"Unix datagrams", 0x21, 0x32, 216},
        {"IPv4, UNSPEC", 0x21, 0x10, 12},
    };
    uint8_t in[300];

    for (size_t i = 0; i < N(rows); i++) {
        struct heard heard = {.result = PROXY_HEADER_DONE};

        heard.len = v2(in, rows[i].command, rows[i].family, rows[i].body, "", 0);
        cr_expect_eq(hear(&heard, rows[i].what, in, heard.len + 5), heard.len);
    }
}

Test(proxy_header, version_2_is_strict)
{
    static const struct {
        const char *what;
        unsigned command, family;
        size_t body, at;
    } rows[] = {
        {"version 1", 0x11, 0x11, 12, 13},       {"version 3", 0x31, 0x11, 12, 13},
        {"no command", 0x22, 0x11, 12, 13},      {"no family", 0x21, 0x41, 12, 14},
        {"no transport", 0x21, 0x13, 12, 14},    {"IPv4 cut", 0x21, 0x11, 11, 16},
        {"IPv6 cut", 0x21, 0x21, 35, 16},        {"Unix cut", 0x21, 0x31, 215, 16},
        {"UDP4 cut", 0x21, 0x12, 11, 16},        {"too long", 0x21, 0x11, PROXY_V2_MAX - 15, 16},
        {"LOCAL, too long", 0x20, 0, 65535, 16},
    };
    static uint8_t in[70000];
    struct heard heard = {.result = PROXY_HEADER_BAD};

    for (size_t i = 0; i < N(rows); i++) {
        v2(in, rows[i].command, rows[i].family, rows[i].body, "", 0);
        cr_expect_eq(hear(&heard, rows[i].what, in, 30), rows[i].at, "%s", rows[i].what);
    }
    for (size_t at = 0; at < 12; at++) {
        v2(in, 0x21, 0x11, 12, "", 0);
        in[at] ^= 1;
        cr_expect_eq(hear(&heard, "another signature", in, 28), at + 1);
    }
}

Test(proxy_header, version_2_of_the_greatest_length_is_taken)
{
    static uint8_t in[PROXY_V2_MAX];
    struct heard heard = {.result = PROXY_HEADER_DONE, .len = PROXY_V2_MAX};
    const struct pieces pieces = {&heard, begin, feed, check};

    v2(in, 0x21, 0, PROXY_V2_MAX - 16, "", 0);
    heard.what = "long";
    begin(&heard);
    cr_expect_eq(pieces_feed(&pieces, in, sizeof(in) - 1), PROXY_HEADER_MORE);
    check(&heard, pieces_feed(&pieces, in, sizeof(in)), "whole");
}

static struct endpoint at(const char *ip, uint16_t port)
{
    struct endpoint endpoint;
    uint8_t bytes[16];
    bool v4 = strchr(ip, '.') != NULL;

    cr_assert_eq(inet_pton(v4 ? AF_INET : AF_INET6, ip, bytes), 1);
    cr_assert(endpoint_of_bytes(bytes, v4 ? 4 : 16, port, &endpoint));
    return endpoint;
}

Test(proxy_header, what_is_written_is_read_again)
{
    static const struct {
        const char *client, *server;
    } rows[] = {
        {"192.0.2.1", "198.51.100.2"},
        {"2001:db8::1", "::1"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}};
    uint8_t out[PROXY_PACK_MAX];

    for (size_t i = 0; i < N(rows); i++) {
        const struct tuple tuple = {at(rows[i].client, 65535), at(rows[i].server, 65534)};

        for (unsigned version = 1; version <= 2; version++) {
            struct heard heard = {.result = PROXY_HEADER_DONE,
                                  .client = rows[i].client,
                                  .server = rows[i].server,
                                  .client_port = 65535,
                                  .server_port = 65534};

            heard.len = proxy_header_pack(version, &tuple, out);
            cr_assert_leq(heard.len, version == 1 ? PROXY_V1_MAX : PROXY_PACK_MAX);
            cr_expect_eq(hear(&heard, rows[i].client, out, heard.len), heard.len);
        }
    }
}

Test(proxy_header, what_is_written_is_to_the_letter)
{
    const struct tuple tuple = {at("192.0.2.1", 56324), at("198.51.100.2", 443)};
    const char *line = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
    const char bytes[] = SIGNATURE "\x21\x11\0\xc\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbb";
    uint8_t out[PROXY_PACK_MAX];

    cr_assert_eq(proxy_header_pack(1, &tuple, out), strlen(line));
    cr_expect_arr_eq(out, line, strlen(line));
    cr_assert_eq(proxy_header_pack(2, &tuple, out), sizeof(bytes) - 1);
    cr_expect_arr_eq(out, bytes, sizeof(bytes) - 1);
}

Test(proxy_header, what_has_no_form_is_written_as_unknown)
{
    const struct tuple rows[] = {
        {at("192.0.2.1", 1), at("::1", 2)},
        {at("::1", 1), at("192.0.2.1", 2)},
        {at("192.0.2.1", 0), at("192.0.2.2", 2)},
        {at("2001:db8::1", 1), at("::1", 0)},
    };
    const char *line = "PROXY UNKNOWN\r\n";
    const char bytes[] = SIGNATURE "\x21\0\0\0";
    uint8_t out[PROXY_PACK_MAX];

    for (size_t i = 0; i < N(rows); i++) {
        cr_assert_eq(proxy_header_pack(1, &rows[i], out), strlen(line));
        cr_expect_arr_eq(out, line, strlen(line));
        cr_assert_eq(proxy_header_pack(2, &rows[i], out), sizeof(bytes) - 1);
        cr_expect_arr_eq(out, bytes, sizeof(bytes) - 1);
    }
}
