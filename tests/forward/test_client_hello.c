/* ClientHellos: which name is in them, and which are refused; each in every split of segments and
 * of records. */
#include <unistd.h>
#include "forward/client_hello.h"
#include "captured.h"
#include "hello.h"
#include "pieces.h"

#define N(array) (sizeof(array) / sizeof(*(array)))
#define LIMIT 16384u
#define WHOLE 16384u /* a record for all */

struct heard {
    struct client_hello hello;
    size_t limit;
    enum client_hello_result result;
    const char *name; /* after DONE */
    const char *what; /* for messages */
};

static struct hello_bytes in, message, extensions;

static void begin(void *ctx)
{
    struct heard *heard = ctx;

    heard->hello = (struct client_hello){.limit = heard->limit ? heard->limit : LIMIT};
}

static int feed(void *ctx, const uint8_t *data, size_t len)
{
    return (int)client_hello_feed(&((struct heard *)ctx)->hello, data, len);
}

static void check(void *ctx, int result, const char *how)
{
    struct heard *heard = ctx;

    cr_expect_eq(result, (int)heard->result, "%s: %s: %d and not %d (%s)", heard->what, how, result,
                 heard->result, result == CLIENT_HELLO_BAD ? heard->hello.why : "");
    if (result == CLIENT_HELLO_BAD)
        cr_expect(heard->hello.why && heard->hello.why[0], "%s: %s: no why", heard->what, how);
    if (result == CLIENT_HELLO_DONE && heard->name)
        cr_expect_str_eq(heard->hello.name, heard->name, "%s: %s", heard->what, how);
}

/* Returns at which byte it was decided. */
static size_t hear(enum client_hello_result result, const char *name, const char *what,
                   const struct hello_bytes *bytes)
{
    struct heard heard = {.result = result, .name = name, .what = what};
    const struct pieces pieces = {&heard, begin, feed, check};

    return pieces_all(&pieces, bytes->data, bytes->len);
}

/* One call with everything; for the many. */
static enum client_hello_result hear_once(const struct hello_bytes *bytes, const char *name)
{
    struct heard heard = {.name = name};
    const struct pieces pieces = {&heard, begin, feed, check};
    enum client_hello_result result;

    begin(&heard);
    result = (enum client_hello_result)pieces_feed(&pieces, bytes->data, bytes->len);
    if (result == CLIENT_HELLO_DONE)
        cr_expect_str_eq(heard.hello.name, name);
    return result;
}

/* What is in `extensions`, in a hello of its own. */
static void hear_extensions(enum client_hello_result result, const char *name, const char *what)
{
    hello_message(&message, &extensions);
    hello_records(&in, &message, WHOLE);
    hear(result, name, what, &in);
    hello_records(&in, &message, 7);
    hear(result, name, what, &in);
    extensions.len = 0;
}

static void hear_name(enum client_hello_result result, const char *host, size_t len,
                      const char *name)
{
    hello_server_name(&extensions, host, len);
    hear_extensions(result, name, host);
}

#define NAMED(host, name) hear_name(CLIENT_HELLO_DONE, host, sizeof(host) - 1, name)
#define REFUSED(host) hear_name(CLIENT_HELLO_BAD, host, sizeof(host) - 1, NULL)

Test(client_hello, names_in_what_programs_send)
{
    for (size_t i = 0; i < N(captured); i++) {
        hello_hex(&in, captured[i].hex);
        cr_expect_eq(hear(CLIENT_HELLO_DONE, captured[i].name, captured[i].from, &in), in.len,
                     "decided before its end: %s", captured[i].from);
    }
}

Test(client_hello, a_hello_of_several_segments_is_waited_for)
{
    hello_browser(&in, "Shop.Example.com", WHOLE);
    cr_assert_gt(in.len, 1700);
    cr_expect_eq(hear(CLIENT_HELLO_DONE, "shop.example.com", "ML-KEM", &in), in.len);
}

Test(client_hello, records_of_every_size_are_joined)
{
    struct heard heard = {.result = CLIENT_HELLO_DONE, .name = "shop.example.com"};
    const struct pieces pieces = {&heard, begin, feed, check};

    for (size_t fragment = 1; fragment < 1800; fragment++) {
        hello_browser(&in, "shop.example.com", fragment);
        heard.what = "in records";
        begin(&heard);
        check(&heard, pieces_feed(&pieces, in.data, in.len), "whole");
        begin(&heard);
        for (size_t n = 0; n < in.len; n++)
            cr_assert_eq(client_hello_feed(&heard.hello, in.data, n), CLIENT_HELLO_MORE,
                         "fragments of %zu, %zu bytes of %zu", fragment, n, in.len);
        check(&heard, (int)client_hello_feed(&heard.hello, in.data, in.len), "byte by byte");
    }
    hello_browser(&in, "shop.example.com", 40);
    hear(CLIENT_HELLO_DONE, "shop.example.com", "in records of 40", &in);
}

Test(client_hello, captured_hellos_in_records_of_every_size)
{
    for (size_t i = 0; i < N(captured); i++) {
        hello_hex(&in, captured[i].hex);
        message.len = 0;
        hello_put(&message, in.data + 5, in.len - 5);
        for (size_t fragment = 1; fragment <= message.len; fragment++) {
            hello_records(&in, &message, fragment);
            cr_expect_eq(hear_once(&in, captured[i].name), CLIENT_HELLO_DONE);
        }
    }
}

Test(client_hello, names_are_canonical)
{
    NAMED("billing", "billing");
    NAMED("BILLING.Example.com", "billing.example.com");
    NAMED("billing.example.com.", "billing.example.com");
    NAMED("_a-1.b", "_a-1.b");
}

Test(client_hello, addresses_are_no_names)
{
    NAMED("10.0.0.7", "");
    NAMED("::1", "");
    NAMED("[::1]", "");
    NAMED("2001:db8::7", "");
}

Test(client_hello, without_a_name_there_is_none)
{
    hello_message(&message, NULL);
    hello_records(&in, &message, WHOLE);
    cr_expect_eq(hear(CLIENT_HELLO_DONE, "", "without extensions", &in), in.len);
    hear_extensions(CLIENT_HELLO_DONE, "", "with empty extensions");
    hello_extension(&extensions, 43, "\2\3\4", 3);
    hear_extensions(CLIENT_HELLO_DONE, "", "with another extension");
}

/* An encrypted hello: what is in it is not for us, and looks like anything. */
Test(client_hello, an_encrypted_hello_goes_by_its_outer_name)
{
    static struct hello_bytes sealed;
    static const unsigned types[] = {0xfe0d, 0xffce, 0xda7a}; /* RFC 9849, a draft of it, GREASE */

    for (size_t i = 0; i < N(types); i++) {
        for (int before = 0; before < 2; before++) {
            sealed.len = 0;
            hello_server_name(&sealed, "inner.example", 13);
            if (before)
                hello_extension(&extensions, types[i], sealed.data, sealed.len);
            hello_server_name(&extensions, "public.example", 14);
            if (!before)
                hello_extension(&extensions, types[i], sealed.data, sealed.len);
            hear_extensions(CLIENT_HELLO_DONE, "public.example", "sealed");
        }
        hello_extension(&extensions, types[i], sealed.data, sealed.len);
        hear_extensions(CLIENT_HELLO_DONE, "", "sealed, and no outer name");
    }
}

Test(client_hello, whatever_protocols_are_offered_the_name_counts)
{
    static const struct {
        const char *what;
        size_t len;
        const char *data;
    } rows[] = {
        {"a certificate's check", 13,
         "\0\xb\xa"
         "acme-tls/1"},
        {"HTTP/2 alone", 5, "\0\3\2h2"},
        {"another's name", 10, "\0\x8\7billing"},
        {"nothing", 2, "\0"},
        {"nothing at all", 0, ""},
        {"a length beyond its end", 5, "\0\xff\2h2"},
    };

    for (size_t i = 0; i < N(rows); i++) {
        hello_extension(&extensions, 16, rows[i].data, rows[i].len);
        hello_server_name(&extensions, "shop", 4);
        hear_extensions(CLIENT_HELLO_DONE, "shop", rows[i].what);
    }
}

Test(client_hello, malformed_names_are_refused)
{
    char name[300];

    REFUSED("");
    REFUSED("a\0b");
    REFUSED("a\0");
    REFUSED("\0");
    REFUSED("a b");
    REFUSED("a..b");
    REFUSED(".");
    REFUSED("a:443");
    REFUSED("*.example.com");
    REFUSED("a/b");
    REFUSED("user@a");
    REFUSED("\xc3\xa4");
    memset(name, 'a', sizeof(name));
    for (size_t i = 63; i < sizeof(name); i += 64)
        name[i] = '.';
    for (size_t len = 254; len < sizeof(name); len++) {
        hello_server_name(&extensions, name, len);
        hello_message(&message, &extensions);
        hello_records(&in, &message, WHOLE);
        cr_expect_eq(hear_once(&in, NULL), CLIENT_HELLO_BAD, "%zu bytes", len);
        extensions.len = 0;
    }
    name[253] = '.';
    hello_server_name(&extensions, name, 254);
    name[253] = '\0';
    hear_extensions(CLIENT_HELLO_DONE, name, "253 bytes and a dot");
}

Test(client_hello, a_server_name_whose_lengths_disagree_is_refused)
{
    static const struct {
        const char *what;
        size_t len;
        const char *data;
    } rows[] = {
        {"no list", 0, ""},
        {"half a length", 1, "\0"},
        {"an empty list", 2, "\0\0"},
        {"a type alone", 3, "\0\1\0"},
        {"a name without length", 4, "\0\2\0\0"},
        {"an empty name", 5, "\0\3\0\0\0"},
        {"the list ends before the extension", 7, "\0\4\0\0\1ab"},
        {"the extension ends before the list", 6, "\0\5\0\0\1a"},
        {"the name ends before the list", 7, "\0\5\0\0\1ab"},
        {"the list ends before the name", 6, "\0\4\0\0\2a"},
        {"another type", 6, "\0\4\1\0\1a"},
        {"two host_names", 10, "\0\x8\0\0\1a\0\0\1b"},
        {"a host_name and another type", 10, "\0\x8\0\0\1a\1\0\1b"},
    };

    for (size_t i = 0; i < N(rows); i++) {
        hello_extension(&extensions, 0, rows[i].data, rows[i].len);
        hear_extensions(CLIENT_HELLO_BAD, NULL, rows[i].what);
        hello_extension(&extensions, 0, rows[i].data, rows[i].len);
        hello_extension(&extensions, 43, "\2\3\4", 3);
        hear_extensions(CLIENT_HELLO_BAD, NULL, rows[i].what);
    }
}

Test(client_hello, two_server_names_are_refused)
{
    hello_server_name(&extensions, "a", 1);
    hello_extension(&extensions, 43, "\2\3\4", 3);
    hello_server_name(&extensions, "a", 1);
    hear_extensions(CLIENT_HELLO_BAD, NULL, "two server_name extensions");
}

Test(client_hello, extensions_that_do_not_end_where_they_say_are_refused)
{
    hello_extension(&extensions, 43, "\2\3\4", 3);
    for (size_t cut = 1; cut < 7; cut++) {
        hello_extension(&extensions, 16, "abc", 3);
        extensions.len -= cut;
        hear_extensions(CLIENT_HELLO_BAD, NULL, "the last extension is cut");
        hello_extension(&extensions, 43, "\2\3\4", 3);
    }
    /* Their length as a whole, one less and one more than there is. */
    for (int by = -1; by <= 1; by += 2) {
        hello_message(&message, &extensions);
        message.data[message.len - extensions.len - 1] += (uint8_t)by;
        hello_records(&in, &message, WHOLE);
        hear(CLIENT_HELLO_BAD, NULL, "the length of all extensions", &in);
    }
}

Test(client_hello, parts_of_lengths_that_cannot_be_are_refused)
{
    static const struct {
        const char *what;
        size_t session, ciphers, compressions, behind;
        enum client_hello_result result;
    } rows[] = {
        {"the least", 0, 2, 1, 0, CLIENT_HELLO_DONE},
        {"the most", 32, 1000, 255, 0, CLIENT_HELLO_DONE},
        {"session id of 33 bytes", 33, 2, 1, 0, CLIENT_HELLO_BAD},
        {"session id of 255 bytes", 255, 2, 1, 0, CLIENT_HELLO_BAD},
        {"no cipher suite", 32, 0, 1, 0, CLIENT_HELLO_BAD},
        {"half a cipher suite", 32, 5, 1, 0, CLIENT_HELLO_BAD},
        {"no compression method", 32, 6, 0, 0, CLIENT_HELLO_BAD},
        {"a byte behind the extensions", 32, 6, 1, 1, CLIENT_HELLO_BAD},
        {"four bytes behind the extensions", 32, 6, 1, 4, CLIENT_HELLO_BAD},
    };

    hello_server_name(&extensions, "a", 1);
    for (size_t i = 0; i < N(rows); i++) {
        hello_message_of(&message, rows[i].session, rows[i].ciphers, rows[i].compressions,
                         &extensions, rows[i].behind);
        hello_records(&in, &message, WHOLE);
        hear(rows[i].result, "a", rows[i].what, &in);
    }
}

/* Lengths that point beyond the message are seen when they are read. */
Test(client_hello, lengths_beyond_the_message_are_refused_at_once)
{
    static const struct {
        const char *what;
        size_t at; /* the length's last byte, in the message */
        uint8_t value;
    } rows[] = {
        {"cipher suites", 72, 200},    {"compression methods", 79, 200}, {"extensions", 82, 200},
        {"another extension", 86, 50}, {"server_name", 91, 50},
    };

    hello_extension(&extensions, 43, "\2", 1);
    hello_server_name(&extensions, "a", 1);
    for (size_t i = 0; i < N(rows); i++) {
        hello_message(&message, &extensions);
        message.data[rows[i].at] = rows[i].value;
        hello_records(&in, &message, WHOLE);
        cr_expect_eq(hear(CLIENT_HELLO_BAD, NULL, rows[i].what, &in), 5 + rows[i].at + 1, "%s",
                     rows[i].what);
    }
}

Test(client_hello, a_message_shorter_than_its_parts_is_refused)
{
    hello_server_name(&extensions, "a", 1);
    for (uint8_t len = 0; len < 100; len++) {
        hello_message(&message, &extensions);
        if (len == message.data[3])
            break;
        if (len == message.data[3] - extensions.len - 2)
            continue; /* the very hello without extensions */
        message.data[3] = len;
        hello_records(&in, &message, WHOLE);
        cr_expect_eq(hear_once(&in, NULL), CLIENT_HELLO_BAD, "a message of %u bytes", len);
    }
}

Test(client_hello, what_begins_as_tls_and_is_none_is_refused)
{
    static const struct {
        const char *what;
        size_t len;
        const char *data;
    } rows[] = {
        {"an empty record", 5, "\x16\3\1\0\0"},
        {"a record that is too long", 5, "\x16\3\1\x41\1"},
        {"the longest length", 5, "\x16\3\1\xff\xff"},
        {"a ServerHello", 6, "\x16\3\1\0\x40\2"},
        {"a HelloRequest", 6, "\x16\3\1\0\4\0"},
        {"an empty ClientHello", 9, "\x16\3\1\0\4\1\0\0\0"},
        {"an alert within", 7, "\x16\3\1\0\1\1\x15"},
        {"data within", 7, "\x16\3\1\0\1\1\x17"},
        {"ChangeCipherSpec within", 7, "\x16\3\1\0\1\1\x14"},
        {"an empty record within", 11, "\x16\3\1\0\1\1\x16\3\3\0\0"},
        {"another version within", 8, "\x16\3\1\0\1\1\x16\4"},
    };

    for (size_t i = 0; i < N(rows); i++) {
        in.len = 0;
        hello_put(&in, rows[i].data, rows[i].len);
        cr_expect_eq(hear(CLIENT_HELLO_BAD, NULL, rows[i].what, &in), rows[i].len, "%s",
                     rows[i].what);
    }
}

Test(client_hello, a_record_of_the_longest_length_is_taken)
{
    message.len = 0;
    hello_fill(&message, 0, 16000);
    hello_extension(&extensions, 21, message.data, 16000); /* padding */
    hello_server_name(&extensions, "billing", 7);
    hello_message(&message, &extensions);
    hello_fill(&message, 0, 16640 - message.len);
    hello_records(&in, &message, 16640);
    cr_expect_eq(hear_once(&in, "billing"), CLIENT_HELLO_DONE);
}

Test(client_hello, what_is_above_the_limit_is_told_at_its_length)
{
    struct heard heard = {.what = "limit"};
    const struct pieces pieces = {&heard, begin, feed, check};

    hello_browser(&in, "billing", WHOLE);
    heard.limit = in.len - 5;
    heard.result = CLIENT_HELLO_DONE;
    heard.name = "billing";
    cr_expect_eq(pieces_all(&pieces, in.data, in.len), in.len);
    heard.limit--;
    heard.result = CLIENT_HELLO_BIG;
    cr_expect_eq(pieces_all(&pieces, in.data, in.len), 9);
    in.data[6] = 0xff;
    cr_expect_eq(pieces_all(&pieces, in.data, in.len), 9);
}

Test(client_hello, what_follows_the_hello_is_not_looked_at)
{
    size_t len;

    hello_browser(&in, "billing", 100);
    len = in.len;
    hello_put(&in, "\x14\3\3\0\1\1garbage", 13);
    cr_expect_eq(hear(CLIENT_HELLO_DONE, "billing", "with more behind", &in), len);
}

Test(client_hello, sslv2_style_hellos_name_nobody)
{
    static const struct {
        const char *what;
        size_t len, at;
        enum client_hello_result result;
        const char *data;
    } rows[] = {
        {"TLS 1.0", 13, 5, CLIENT_HELLO_DONE, "\x80\x2e\1\3\1\0\x15\0\0\0\x10\1\2"},
        {"TLS 1.2, long", 13, 5, CLIENT_HELLO_DONE, "\x81\2\1\3\3\0\xe9\0\0\0\x10\1\2"},
        {"SSL 2", 13, 5, CLIENT_HELLO_DONE, "\x80\x2e\1\0\2\0\x15\0\0\0\x10\1\2"},
        {"too short", 13, 2, CLIENT_HELLO_OTHER, "\x80\x8\1\3\1\0\x15\0\0\0\x10\1\2"},
        {"no hello", 13, 3, CLIENT_HELLO_OTHER, "\x80\x2e\2\3\1\0\x15\0\0\0\x10\1\2"},
        {"version 1", 13, 4, CLIENT_HELLO_OTHER, "\x80\x2e\1\1\1\0\x15\0\0\0\x10\1\2"},
        {"version 0.3", 13, 5, CLIENT_HELLO_OTHER, "\x80\x2e\1\0\3\0\x15\0\0\0\x10\1\2"},
    };

    for (size_t i = 0; i < N(rows); i++) {
        in.len = 0;
        hello_put(&in, rows[i].data, rows[i].len);
        cr_expect_eq(hear(rows[i].result, "", rows[i].what, &in), rows[i].at, "%s", rows[i].what);
    }
}

Test(client_hello, other_protocols_are_told_at_their_first_odd_byte)
{
    for (unsigned first = 0; first < 256; first++) {
        bool open = first == 0x16 || first >= 0x80;

        in.len = 0;
        hello_u8(&in, first);
        hear(open ? CLIENT_HELLO_MORE : CLIENT_HELLO_OTHER, NULL, "one byte", &in);
    }
    for (unsigned second = 0; second < 256; second++) {
        in.len = 0;
        hello_u8(&in, 0x16);
        hello_u8(&in, second);
        hear(second == 3 ? CLIENT_HELLO_MORE : CLIENT_HELLO_OTHER, NULL, "two bytes", &in);
    }
}

Test(client_hello, the_time_of_a_hello_grows_with_its_bytes_alone)
{
    struct client_hello hello = {.limit = 1 << 16};

    message.len = 0;
    hello_fill(&message, 0, 30000);
    hello_extension(&extensions, 21, message.data, 30000);
    hello_extension(&extensions, 21, message.data, 30000);
    hello_server_name(&extensions, "billing", 7);
    hello_message(&message, &extensions);
    hello_records(&in, &message, 1);
    cr_assert_gt(in.len, 180000);
    alarm(60); /* looked at anew with each call: minutes */
    for (size_t n = 0; n < in.len; n++)
        cr_assert_eq(client_hello_feed(&hello, in.data, n), CLIENT_HELLO_MORE);
    cr_expect_eq(client_hello_feed(&hello, in.data, in.len), CLIENT_HELLO_DONE);
    cr_expect_str_eq(hello.name, "billing");
    alarm(0);
}

Test(client_hello, an_alert_is_a_fatal_one_in_a_record_of_its_own)
{
    const uint8_t unknown[] = {0x15, 3, 3, 0, 2, 2, 112};
    uint8_t out[TLS_ALERT_LEN];

    tls_alert_pack(TLS_UNRECOGNIZED_NAME, out);
    cr_expect_arr_eq(out, unknown, sizeof(unknown));
    tls_alert_pack(TLS_DECODE_ERROR, out);
    cr_expect_eq(out[6], 50);
    tls_alert_pack(TLS_INTERNAL_ERROR, out);
    cr_expect_eq(out[6], 80);
}

Test(client_hello, a_client_costs_less_than_600_bytes)
{
    cr_expect_lt(sizeof(struct client_hello), 600);
}
