/* Messages as protobuf's text format and back, and what protobuf's own compiler makes of them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <meshd/v1/mesh.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "wire/text.h"

static struct arena arena;
static struct text_error error;

static void setup(void)
{
    alarm(60);
    arena_init(&arena);
}

static void teardown(void) { arena_fini(&arena); }

TestSuite(text, .init = setup, .fini = teardown);

#define DESCRIPTOR(type) (&meshd__v1__##type##__descriptor)

static int parse(const ProtobufCMessageDescriptor *descriptor, const char *text,
                 ProtobufCMessage **out)
{
    return text_parse(descriptor, text, strlen(text), &arena, out, &error);
}

/* The text that the message of this text is printed as. */
static const char *printed(const ProtobufCMessageDescriptor *descriptor, const char *text)
{
    static char kept[8192];
    ProtobufCMessage *message = NULL;
    char *out = NULL;
    size_t len;

    cr_assert_eq(parse(descriptor, text, &message), 0, "%s: %zu:%zu: %s", text, error.line,
                 error.column, error.text);
    cr_assert_eq(text_print(message, &out, &len), 0);
    cr_assert_eq(len, strlen(out));
    snprintf(kept, sizeof(kept), "%s", out);
    free(out);
    return kept;
}

static const char everything[] = "peer_id: \"n1\"\n"
                                 "epoch: 18446744073709551615\n"
                                 "services {\n"
                                 "  key: \"web@local\"\n"
                                 "  connected: true\n"
                                 "}\n"
                                 "services {\n"
                                 "}\n"
                                 "peer_services {\n"
                                 "  peer_ip: \"127.0.0.2\"\n"
                                 "  services {\n"
                                 "    name: \"db\"\n"
                                 "  }\n"
                                 "  services_total: 4294967295\n"
                                 "  digest: 12345678901234567890\n"
                                 "}\n"
                                 "next_page_token: \"\\000\\001\\n\\r\\t\\\"\\'\\\\ \\177\\377?\"\n"
                                 "node {\n"
                                 "  addresses: \"\\303\\244\"\n"
                                 "  addresses: \"\"\n"
                                 "}\n";

Test(text, fields_are_printed_in_order_and_defaults_left_out)
{
    cr_expect_str_eq(printed(DESCRIPTOR(introspect_reply), everything), everything);
    cr_expect_str_eq(printed(DESCRIPTOR(introspect_reply), "epoch:0 peer_id:''"), "");
    cr_expect_str_eq(printed(DESCRIPTOR(introspect_request), "state:2 sections:[1,77]peer:'x'"),
                     "sections: SECTION_SERVICES\nsections: 77\npeer: \"x\"\n"
                     "state: ROW_STATE_STALE\n");
}

Test(text, fields_are_read_in_any_order_and_spelling)
{
    static const char meant[] = "services {\n  name: \"a\"\n  connected: true\n}\n"
                                "services {\n  name: \"b\"\n}\nservices_total: 64\n";
    static const char *const texts[] = {
        "services { name: 'a' connected: true } services { name: 'b' } services_total: 64",
        "services_total:0x40;services<connected:t,name:\"a\">,services:{name:\"b\"};",
        "services: [{name: 'a' connected: 1}, <name: 'b'>] services_total: 0100 # the end",
        ("# first\nservices_total # of all\n : 64\n\tservices:[{connected:True name:'a'}]\n"
         "services{name:'b' connected: false}"),
        "services_total: 0X40 services {name: '' \"a\" connected: true} services [{name:'\\142'}]",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        cr_expect_str_eq(printed(DESCRIPTOR(introspect_reply), texts[i]), meant, "%s", texts[i]);
}

Test(text, adjacent_texts_are_joined_and_escapes_read)
{
    cr_expect_str_eq(printed(DESCRIPTOR(introspect_request),
                             "page_token: '\\a\\b\\f\\n\\r\\t\\v\\\\\\'\\\"\\?' # and\n"
                             "\"\\x4a\\x4A\\xfZ\\1012\\0\" ''"),
                     "page_token: \"\\007\\010\\014\\n\\r\\t\\013\\\\\\'\\\"?JJ\\017ZA2\\000\"\n");
}

Test(text, what_is_wrong_is_told_with_its_place)
{
    static const struct {
        const char *text, *part;
        size_t line, column;
    } rows[] = {
        {"nome: 'x'", "LookupRequest has no field 'nome'; it has names max_routes", 1, 1},
        {"names: 'a'\n  max_routes 5", "a colon is missing: write max_routes: value", 2, 14},
        {"max_routes: 1 max_routes: 1", "max_routes came already", 1, 15},
        {"max_routes: 'x'", "max_routes takes a number, not ''", 1, 13},
        {"max_routes: 4294967296", "4294967296 does not fit into max_routes", 1, 13},
        {"max_routes: -1", "-1 does not fit into max_routes; it takes 0 to 4294967295", 1, 14},
        {"max_routes: 99999999999999999999", "takes a number", 1, 13},
        {"max_routes: 08", "takes a number", 1, 13},
        {"max_routes: 0x", "takes a number", 1, 13},
        {"max_routes: 1.5", "takes a number", 1, 13},
        {"max_routes: 5x", "takes a number", 1, 13},
        {"max_routes:", "takes a number", 1, 12},
        {"max_routes: [1]", "takes a number", 1, 13},
        {"names: 5", "names takes a text in quotes", 1, 8},
        {"names: 'a", "this text has no end; close it with '", 1, 8},
        {"names: 'a\n'", "this text has no end", 1, 8},
        {"names: '\\q'", "no such escape; there are \\n \\r", 1, 9},
        {"names: '\\x'", "no such escape", 1, 9},
        {"names: '\\400'", "no such escape", 1, 9},
        {"names: '\\xff'", "names is a text: UTF-8 without NUL", 1, 8},
        {"names: '\\0'", "names is a text: UTF-8 without NUL", 1, 8},
        {"names: ['a' 'b', 'c'", "a list goes on with , or ends with ]", 1, 8},
        {"names: ['a',]", "names takes a text in quotes", 1, 13},
        {"}", "the name of a field is missing here", 1, 1},
        {": 5", "the name of a field is missing here", 1, 1},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        ProtobufCMessage *message = NULL;

        cr_expect_eq(parse(DESCRIPTOR(lookup_request), rows[i].text, &message), -EBADMSG, "%s",
                     rows[i].text);
        cr_expect(strstr(error.text, rows[i].part), "%s: %s", rows[i].text, error.text);
        cr_expect(error.line == rows[i].line && error.column == rows[i].column,
                  "%s: at %zu:%zu: %s", rows[i].text, error.line, error.column, error.text);
    }
}

Test(text, what_is_wrong_within_messages_enums_and_bools_is_told_too)
{
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"services { name: 'a'", "this has no end; close it with }"},
        {"services { name: 'a' >", "the name of a field is missing here"},
        {"services: 5", "services is a message: write services { ... }"},
        {"services { connected: yes }", "connected takes true or false, not 'yes'"},
        {"node { links { link: 'x' } }", "LinkRow has no field 'link'; it has peer_id address"},
        {"tombstones { when: -5 }",
         "-5 does not fit into when; it takes 0 to 18446744073709551615"},
    };
    ProtobufCMessage *message = NULL;

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        cr_expect_eq(parse(DESCRIPTOR(introspect_reply), rows[i].text, &message), -EBADMSG);
        cr_expect(strstr(error.text, rows[i].part), "%s: %s", rows[i].text, error.text);
    }
    cr_expect_eq(parse(DESCRIPTOR(introspect_request), "state: OLD", &message), -EBADMSG);
    cr_expect(strstr(error.text, "'OLD' is no RowState; write one such as ROW_STATE_CONNECTED"),
              "%s", error.text);
    cr_expect_eq(parse(DESCRIPTOR(introspect_request), "state: 2147483648", &message), -EBADMSG);
    cr_expect_str_eq(printed(DESCRIPTOR(introspect_request), "state: -2147483648"),
                     "state: -2147483648\n");
    cr_expect_eq(
        text_parse(DESCRIPTOR(lookup_request), "names\0: 'a'", 11, &arena, &message, &error),
        -EBADMSG);
}

Test(text, memory_never_exceeds_the_cap_of_the_arena)
{
    static char text[40000];
    ProtobufCMessage *message = NULL;
    size_t at = 0;

    while (at + 12 < sizeof(text))
        at += (size_t)sprintf(text + at, "services{}");
    arena.cap = 65536;
    cr_expect_eq(parse(DESCRIPTOR(introspect_reply), text, &message), -E2BIG);
    cr_expect_leq(arena.used, arena.cap);
}

/* ---- protobuf's own compiler ---- */

static char dir[] = P_tmpdir "/meshd-text-XXXXXX";

static size_t slurp(const char *name, char *out, size_t cap)
{
    char path[128];
    FILE *file;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    cr_assert((file = fopen(path, "rb")), "%s", path);
    n = fread(out, 1, cap - 1, file);
    fclose(file);
    out[n] = '\0';
    return n;
}

static void put(const char *name, const void *data, size_t len)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    cr_assert((file = fopen(path, "wb")));
    cr_assert_eq(fwrite(data, 1, len, file), len);
    fclose(file);
}

static void protoc(const char *how, const ProtobufCMessageDescriptor *descriptor, const char *in,
                   const char *out)
{
    char command[1024];

    snprintf(command, sizeof(command),
             PROTOC " -I " PROTO_DIR " --%s=%s meshd/v1/mesh.proto <%s/%s >%s/%s", how,
             descriptor->name, dir, in, dir, out);
    cr_assert_eq(system(command), 0, "%s", command);
}

/* What we print protoc reads to the same bytes, and what protoc prints is what we print. */
static void agrees(const ProtobufCMessageDescriptor *descriptor, const char *text)
{
    static char ours[8192], theirs[8192];
    ProtobufCMessage *message = NULL;
    size_t n, packed;

    put("text", printed(descriptor, text), strlen(printed(descriptor, text)));
    cr_assert_eq(parse(descriptor, text, &message), 0);
    packed = protobuf_c_message_get_packed_size(message);
    cr_assert_lt(packed, sizeof(ours));
    protobuf_c_message_pack(message, (uint8_t *)ours);
    protoc("encode", descriptor, "text", "bytes");
    n = slurp("bytes", theirs, sizeof(theirs));
    cr_expect(n == packed && memcmp(ours, theirs, n) == 0, "%s: other bytes", text);
    protoc("decode", descriptor, "bytes", "again");
    slurp("again", theirs, sizeof(theirs));
    cr_expect_str_eq(theirs, printed(descriptor, text));
    put("text", text, strlen(text)); /* and it reads as we do what we did not print */
    protoc("encode", descriptor, "text", "bytes");
    n = slurp("bytes", theirs, sizeof(theirs));
    cr_expect(n == packed && memcmp(ours, theirs, n) == 0, "%s: other bytes", text);
}

Test(text, protoc_reads_what_is_printed_and_prints_the_same)
{
    char command[128];

    cr_assert(mkdtemp(dir));
    agrees(DESCRIPTOR(introspect_reply), everything);
    agrees(
        DESCRIPTOR(introspect_request),
        "state: -5 sections: [SECTION_NODE, 3, 99] page_token: '\\0\\xff\\'\"' '\\?' peer: \"\"");
    agrees(DESCRIPTOR(lookup_request), "names: ['web', \"d\" 'b'] max_routes: 0x10; names: 'c',");
    agrees(
        DESCRIPTOR(watch_reply),
        "events: <kind: WATCH_KIND_DOWN row: {connected: t} why: 'left'> events { } synced: true");
    agrees(DESCRIPTOR(explain_request), "");
    snprintf(command, sizeof(command), "rm -r %s", dir);
    cr_expect_eq(system(command), 0);
}
