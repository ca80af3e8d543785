/* The arena, UTF-8, and unpacking what strangers send. */
#include <criterion/criterion.h>
#include <errno.h>
#include <meshd/v1/mesh.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/random.h"
#include "wire/check.h"
#include "wire/fail_malloc.h"

static struct arena arena;

static void setup(void) { arena_init(&arena); }

static void teardown(void) { arena_fini(&arena); }

/* --- arena --- */

Test(arena, hands_out_aligned_memory_that_does_not_overlap, .init = setup, .fini = teardown)
{
    unsigned char *got[500];

    for (size_t i = 0; i < 500; i++) {
        got[i] = arena_alloc(&arena, i * 7 % 3000);
        cr_assert(got[i]);
        cr_assert_eq((uintptr_t)got[i] % 16, 0);
        memset(got[i], (int)(i & 255), i * 7 % 3000);
    }
    for (size_t i = 0; i < 500; i++) {
        for (size_t at = 0; at < i * 7 % 3000; at++)
            cr_assert_eq(got[i][at], i & 255);
    }
}

Test(arena, cap_is_exact_and_what_is_below_it_still_fits, .init = setup, .fini = teardown)
{
    arena.cap = 160;
    cr_expect(arena_alloc(&arena, 100)); /* 112 */
    cr_expect_null(arena_alloc(&arena, 49));
    cr_expect_eq(arena.error, -E2BIG);
    cr_expect(arena_alloc(&arena, 48));
    cr_expect_null(arena_alloc(&arena, 1));
    cr_expect_eq(arena.used, 160);
    cr_expect_null(arena_alloc(&arena, SIZE_MAX));
    cr_expect_null(arena_alloc(&arena, SIZE_MAX - 20));
}

Test(arena, impossible_sizes_are_refused_without_a_cap, .init = setup, .fini = teardown)
{
    cr_expect_null(arena_alloc(&arena, SIZE_MAX));
    cr_expect_null(arena_alloc(&arena, SIZE_MAX - 15));
    cr_expect(arena_alloc(&arena, 0) != NULL);
}

Test(arena, reset_keeps_a_block_of_up_to_64_kib, .init = setup, .fini = teardown)
{
    void *first;

    for (int i = 0; i < 100; i++)
        arena_alloc(&arena, 5000);
    arena_alloc(&arena, 1 << 20);
    arena_reset(&arena);
    cr_expect_eq(arena.used, 0);
    cr_assert(arena.blocks, "one is kept");
    first = arena_alloc(&arena, 60000);
    arena_reset(&arena);
    cr_expect_eq(arena_alloc(&arena, 60000), first, "and is used again");

    arena_fini(&arena);
    arena_alloc(&arena, 1 << 20);
    arena_reset(&arena);
    cr_expect_null(arena.blocks, "a large one is not kept");
}

Test(arena, strdup_copies, .init = setup, .fini = teardown)
{
    char text[] = "web";
    char *copy = arena_strdup(&arena, text);

    text[0] = 'x';
    cr_expect_str_eq(copy, "web");
    cr_expect_str_eq(arena_strdup(&arena, ""), "");
    cr_expect_eq((uintptr_t)arena_alloc(&arena, 8) % 16, 0);
    arena.cap = arena.used + 3;
    cr_expect_null(arena_strdup(&arena, "web"));
}

/* --- UTF-8 --- */

static bool valid_at_any_place(const char *text, size_t len)
{
    uint8_t buf[64];
    bool valid = utf8_valid((const uint8_t *)text, len);

    /* The words of eight bytes fall differently each time. */
    for (size_t before = 0; before < 17; before++) {
        for (size_t after = 0; after < 17; after++) {
            memset(buf, 'a', sizeof(buf));
            memcpy(buf + before, text, len);
            cr_assert_eq(utf8_valid(buf, before + len + after), valid);
        }
    }
    return valid;
}

Test(utf8, every_character_is_valid)
{
    for (uint32_t c = 1; c < 0x110000; c++) {
        uint8_t out[4];
        size_t n;

        if (c < 0x80) {
            out[0] = (uint8_t)c;
            n = 1;
        } else if (c < 0x800) {
            out[0] = (uint8_t)(0xc0 | c >> 6);
            n = 2;
        } else if (c < 0x10000) {
            out[0] = (uint8_t)(0xe0 | c >> 12);
            n = 3;
        } else {
            out[0] = (uint8_t)(0xf0 | c >> 18);
            n = 4;
        }
        for (size_t i = 1; i < n; i++)
            out[i] = (uint8_t)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
        cr_assert_eq(utf8_valid(out, n), c < 0xd800 || c > 0xdfff, "U+%04x", c);
        if (n > 1)
            cr_assert_not(utf8_valid(out, n - 1), "U+%04x cut", c);
    }
}

Test(utf8, what_is_not_well_formed_is_invalid)
{
    static const char *const bad[] = {
        "\x80",         "\xbf",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x80\x80",
        "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xff",         "\xfe",         "\xc2\x41",         "\xe1\x80\x41",     "\xf1\x80\x80\x41",
        "\xc2",         "\xe1\x80",     "\xf1\x80\x80",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_expect_not(valid_at_any_place(bad[i], strlen(bad[i])), "case %zu", i);
    cr_expect_not(valid_at_any_place("\0", 1));
    cr_expect_not(valid_at_any_place("a\0b", 3));
    cr_expect(valid_at_any_place("\x01\x7f", 2));
    cr_expect(valid_at_any_place("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9));
    cr_expect(utf8_valid(NULL, 0));
}

/* --- unpacking --- */

static int unpack(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t len,
                  ProtobufCMessage **out)
{
    /* An allocation of its own, so that the sanitizer sees a byte read too far. */
    uint8_t *copy = malloc(len);
    int r;

    if (len > 0)
        memcpy(copy, data, len);
    r = wire_unpack(descriptor, copy, len, &arena, out);
    free(copy);
    return r;
}

static int unpacks(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t len)
{
    ProtobufCMessage *message = NULL;
    int r;

    arena_reset(&arena);
    r = unpack(descriptor, data, len, &message);
    cr_expect_eq(r == 0, message != NULL);
    cr_expect(r == 0 || arena.used == 0, "what is refused has cost no memory");
    cr_expect_leq(arena.used, 10 * len + 65536);
    arena_reset(&arena);
    return r;
}

#define UNPACKS(type, bytes) unpacks(&meshd__v1__##type##__descriptor, bytes, sizeof(bytes) - 1)

static Meshd__V1__Service *services[100000];

/* A packed Sync of count entries whose names have name_len bytes. malloc'ed. */
static uint8_t *packed_sync(size_t count, int name_len, const char *backend, size_t *out_len)
{
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    uint8_t *data;

    for (size_t i = 0; i < count; i++) {
        services[i] = malloc(sizeof(**services));
        meshd__v1__service__init(services[i]);
        services[i]->backend_addr = (char *)(uintptr_t)backend;
        cr_assert_gt(asprintf(&services[i]->name, "%0*zx", name_len, i), 0);
    }
    sync.version = 7;
    sync.last = true;
    sync.digest = UINT64_MAX;
    sync.n_entries = count;
    sync.entries = services;
    *out_len = meshd__v1__sync__get_packed_size(&sync);
    data = malloc(*out_len);
    meshd__v1__sync__pack(&sync, data);
    for (size_t i = 0; i < count; i++) {
        free(services[i]->name);
        free(services[i]);
    }
    return data;
}

Test(check, message_returns_as_it_was_packed, .init = setup, .fini = teardown)
{
    size_t len;
    uint8_t *data = packed_sync(1000, 12, "192.0.2.10:8080", &len);
    ProtobufCMessage *message;
    Meshd__V1__Sync *sync;

    cr_assert_eq(unpack(&meshd__v1__sync__descriptor, data, len, &message), 0);
    sync = (Meshd__V1__Sync *)message;
    cr_expect_eq(sync->version, 7);
    cr_expect_eq(sync->digest, UINT64_MAX);
    cr_assert_eq(sync->n_entries, 1000);
    cr_expect_str_eq(sync->entries[999]->name, "0000000003e7");
    cr_expect_str_eq(sync->entries[999]->backend_addr, "192.0.2.10:8080");
    free(data);
}

Test(check, empty_message_is_a_message, .init = setup, .fini = teardown)
{
    ProtobufCMessage *message;

    cr_assert_eq(wire_unpack(&meshd__v1__sync__descriptor, NULL, 0, &arena, &message), 0);
    cr_expect_eq(((Meshd__V1__Sync *)message)->n_entries, 0);
}

Test(check, every_cut_is_refused_or_a_shorter_message, .init = setup, .fini = teardown)
{
    size_t len;
    uint8_t *data = packed_sync(5, 12, "192.0.2.10:8080", &len);

    for (size_t n = 0; n < len; n++) {
        ProtobufCMessage *theirs =
            protobuf_c_message_unpack(&meshd__v1__sync__descriptor, NULL, n, data);

        cr_expect_eq(unpacks(&meshd__v1__sync__descriptor, data, n), theirs ? 0 : -EBADMSG);
        if (theirs)
            protobuf_c_message_free_unpacked(theirs, NULL);
    }
    free(data);
}

Test(check, strings_that_are_no_text_are_refused, .init = setup, .fini = teardown)
{
    cr_expect_eq(UNPACKS(service, "\x0a\x03web"), 0);
    cr_expect_eq(UNPACKS(service, "\x0a\x03w\0b"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x0a\x03w\xff"
                                  "b"),
                 -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x0a\x02\xc3\xa9"), 0);
    cr_expect_eq(UNPACKS(service, "\x0a\x01\xc3\xa9"), -EBADMSG);
    /* in a sub-message, and in a repeated field */
    cr_expect_eq(UNPACKS(sync, "\x32\x05\x0a\x03w\xff"
                               "b"),
                 -EBADMSG);
    cr_expect_eq(UNPACKS(lookup_request, "\x0a\x01w\x0a\x01\x80"), -EBADMSG);
    /* bytes may be anything */
    cr_expect_eq(UNPACKS(link_header, "\x12\x02\xff\0"), 0);
}

Test(check, wrong_wire_types_are_refused, .init = setup, .fini = teardown)
{
    cr_expect_eq(UNPACKS(service, "\x08\x01"), -EBADMSG, "a number for a string");
    cr_expect_eq(UNPACKS(service, "\x0d\1\1\1\1"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x09\1\1\1\1\1\1\1\1"), -EBADMSG);
    cr_expect_eq(UNPACKS(deregister_reply, "\x0a\x01\x01"), -EBADMSG, "a string for a number");
    cr_expect_eq(UNPACKS(deregister_reply, "\x0d\1\1\1\1"), -EBADMSG);
    cr_expect_eq(UNPACKS(heartbeat, "\x18\x01"), -EBADMSG, "a varint for a fixed64");
    cr_expect_eq(UNPACKS(sync, "\x28\x01"), 0);
    cr_expect_eq(UNPACKS(sync, "\x2d\1\1\1\1"), -EBADMSG, "a fixed32 for a bool");
    cr_expect_eq(UNPACKS(sync, "\x30\x01"), -EBADMSG, "a number for a message");
    for (int type = 3; type < 8; type++) { /* groups, and none; 5 is a fixed32 */
        uint8_t known[] = {(uint8_t)(8 | type), 1, 1, 1, 1}, unknown[] = {0xf8, 1, 1, 1, 1, 1};

        unknown[0] |= (uint8_t)type;
        cr_expect_eq(unpacks(&meshd__v1__service__descriptor, known, 5), -EBADMSG);
        cr_expect_eq(unpacks(&meshd__v1__service__descriptor, unknown, 6),
                     type == 5 ? 0 : -EBADMSG);
    }
}

Test(check, bad_varints_are_refused, .init = setup, .fini = teardown)
{
    cr_expect_eq(UNPACKS(deregister_reply, "\x08"), -EBADMSG);
    cr_expect_eq(UNPACKS(deregister_reply, "\x08\x80"), -EBADMSG);
    cr_expect_eq(UNPACKS(deregister_reply, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0);
    cr_expect_eq(UNPACKS(deregister_reply, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
                 -EBADMSG);
    cr_expect_eq(UNPACKS(deregister_reply, "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
                 -EBADMSG);
    cr_expect_eq(UNPACKS(deregister_reply, "\x00\x01"), -EBADMSG, "field 0");
    cr_expect_eq(UNPACKS(deregister_reply, "\x80"), -EBADMSG);
    cr_expect_eq(UNPACKS(deregister_reply, "\x88\x80\x80\x80\x10\x01"), -EBADMSG, "field 2^29+1");
    cr_expect_eq(UNPACKS(deregister_reply, "\x88\x80\x80\x80\x80\x00\x01"), -EBADMSG, "6 bytes");
    cr_expect_eq(UNPACKS(deregister_reply, "\x88\x80\x80\x80\x00\x01"), 0, "5 are as good as 1");
    cr_expect_eq(UNPACKS(deregister_reply, "\xf8\xff\xff\xff\x0f\x01"), 0, "field 2^29-1");
}

Test(check, lengths_beyond_the_end_are_refused, .init = setup, .fini = teardown)
{
    cr_expect_eq(UNPACKS(service, "\x0a"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x0a\x01"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x0a\x04web"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x0a\xff\xff\xff\xff\x0f"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), -EBADMSG);
    /* the sub-message ends before its own string does, though bytes follow */
    cr_expect_eq(UNPACKS(sync, "\x32\x03\x0a\x04webx"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x7a\x04web"), -EBADMSG, "an unknown field");
    cr_expect_eq(UNPACKS(service, "\x79\1\1\1\1\1\1\1"), -EBADMSG);
    cr_expect_eq(UNPACKS(service, "\x7d\1\1\1"), -EBADMSG);
}

Test(check, unknown_fields_and_values_are_skipped, .init = setup, .fini = teardown)
{
    static const char data[] =
        "\x0a\x03web"
        "\x78\x96\x01" /* field 15: a varint, a string, a fixed32, a fixed64 */
        "\x7a\x02\xff\xff"
        "\x7d\1\2\3\4"
        "\x79\1\2\3\4\5\6\7\x08"
        "\x12\x02:1";
    ProtobufCMessage *message;

    cr_assert_eq(unpack(&meshd__v1__service__descriptor, data, sizeof(data) - 1, &message), 0);
    cr_expect_str_eq(((Meshd__V1__Service *)message)->name, "web");
    cr_expect_str_eq(((Meshd__V1__Service *)message)->backend_addr, ":1");

    cr_assert_eq(unpack(&meshd__v1__goodbye__descriptor, "\x08\xe7\x07", 3, &message), 0);
    cr_expect_eq((int)((Meshd__V1__Goodbye *)message)->reason, 999);
}

Test(check, a_newer_peers_unknown_list_does_not_hurt, .init = setup, .fini = teardown)
{
    static uint8_t data[1000 * 22];

    for (size_t at = 0; at < sizeof(data); at += 22) {
        memset(data + at, 'x', 22);
        data[at] = 0x7a;
        data[at + 1] = 20;
    }
    cr_expect_eq(unpacks(&meshd__v1__sync__descriptor, data, sizeof(data)), 0);
}

Test(check, numbers_come_packed_or_one_by_one, .init = setup, .fini = teardown)
{
    static const char both[] = "\x0a\x03\x01\x02\x03\x08\x04\x0a\x00";
    ProtobufCMessage *message;
    Meshd__V1__IntrospectRequest *request;

    cr_assert_eq(
        unpack(&meshd__v1__introspect_request__descriptor, both, sizeof(both) - 1, &message), 0);
    request = (Meshd__V1__IntrospectRequest *)message;
    cr_assert_eq(request->n_sections, 4);
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq((size_t)request->sections[i], i + 1);
    cr_expect_eq(UNPACKS(introspect_request, "\x0a\x02\x01\x80"), -EBADMSG);
}

Test(check, singular_fields_may_come_twice_but_sub_messages_may_not, .init = setup,
     .fini = teardown)
{
    ProtobufCMessage *message;

    cr_assert_eq(unpack(&meshd__v1__service__descriptor,
                        "\x0a\x01"
                        "a\x0a\x01"
                        "b",
                        6, &message),
                 0);
    cr_expect_str_eq(((Meshd__V1__Service *)message)->name, "b");
    cr_expect_eq(UNPACKS(candidate, "\x0a\x00"), 0);
    cr_expect_eq(UNPACKS(candidate, "\x0a\x00\x0a\x00"), -EBADMSG);
}

/* One MiB of the same few bytes: refused, in little time, and with little memory. */
static void flood(const ProtobufCMessageDescriptor *descriptor, const char *unit, size_t unit_len,
                  int expected)
{
    size_t len = (1 << 20) / unit_len * unit_len;
    uint8_t *data = malloc(len);
    struct timespec begin, end;
    ProtobufCMessage *message;
    double ms;

    for (size_t at = 0; at < len; at += unit_len)
        memcpy(data + at, unit, unit_len);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    cr_expect_eq(wire_unpack(descriptor, data, len, &arena, &message), expected);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    ms = (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
    fprintf(stderr, "flood of %zu-byte fields: %.2f ms\n", unit_len, ms);
    cr_expect_lt(ms, 1000, "linear, even under a sanitizer");
    if (expected < 0)
        cr_expect_null(arena.blocks, "refused before the first allocation");
    arena_fini(&arena);
    free(data);
}

Test(check, floods_of_tiny_fields_are_refused, .init = setup, .fini = teardown)
{
    flood(&meshd__v1__sync__descriptor, "\x78\x01", 2, -E2BIG); /* unknown numbers */
    flood(&meshd__v1__sync__descriptor, "\x7a\x00", 2, -E2BIG); /* unknown and empty */
    flood(&meshd__v1__sync__descriptor, "\x32\x00", 2, -E2BIG); /* empty sub-messages */
    flood(&meshd__v1__sync__descriptor, "\x3a\x00", 2, -E2BIG); /* empty strings */
    flood(&meshd__v1__sync__descriptor, "\x20\x01", 2, -E2BIG); /* one number, repeated */
    flood(&meshd__v1__service__descriptor,
          "\x0a\x01"
          "a",
          3, -E2BIG);                                                  /* one string, repeated */
    flood(&meshd__v1__candidate__descriptor, "\x0a\x00", 2, -EBADMSG); /* one sub-message */
    flood(&meshd__v1__introspect_request__descriptor, "\x08\x01", 2, -E2BIG); /* numbers */
    flood(&meshd__v1__introspect_request__descriptor, "\x0a\x02\1\1", 4, -E2BIG);
}

Test(check, flood_inside_a_sub_message_is_refused, .init = setup, .fini = teardown)
{
    size_t len = 1 << 20;
    uint8_t *data = malloc(len);
    ProtobufCMessage *message;

    for (size_t at = 4; at < len; at += 2) {
        data[at] = 0x78;
        data[at + 1] = 1;
    }
    memcpy(data, "\x32\xfc\xff\x3f", 4);
    cr_expect_eq(wire_unpack(&meshd__v1__sync__descriptor, data, len, &arena, &message), -E2BIG);
    cr_expect_null(arena.blocks);
    free(data);
}

Test(check, longest_string_is_fine, .init = setup, .fini = teardown)
{
    size_t len = 1 << 20;
    uint8_t *data = malloc(len);

    memset(data, 'x', len);
    memcpy(data, "\x0a\xfc\xff\x3f", 4);
    cr_expect_eq(unpacks(&meshd__v1__service__descriptor, data, len), 0);
    free(data);
}

Test(check, dense_lists_that_are_meant_fit, .init = setup, .fini = teardown)
{
    static const struct {
        size_t count;
        int name_len;
        const char *backend;
    } cases[] = {
        {3400, 3, "10.0.0.1:80"},  {2900, 8, "10.0.0.1:80"},     {5000, 4, "a:1"},
        {50000, 5, "10.0.0.1:80"}, {33000, 12, "10.0.0.1:8080"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len;
        uint8_t *data = packed_sync(cases[i].count, cases[i].name_len, cases[i].backend, &len);

        cr_expect_eq(unpacks(&meshd__v1__sync__descriptor, data, len), 0, "case %zu: %zu bytes", i,
                     len);
        free(data);
    }
}

/* The scan must never be below what protobuf-c takes, nor far above it. */
Test(check, scan_knows_what_unpacking_takes, .init = setup, .fini = teardown)
{
    for (size_t count = 0; count < 3000; count += 1 + count / 7) {
        size_t len, used;
        uint8_t *data = packed_sync(count, 9, "10.0.0.1:80", &len);
        ProtobufCMessage *message;

        cr_assert_eq(wire_unpack(&meshd__v1__sync__descriptor, data, len, &arena, &message), 0);
        used = arena.used;
        arena_fini(&arena);
        arena.cap = used - 1;
        cr_expect_eq(wire_unpack(&meshd__v1__sync__descriptor, data, len, &arena, &message),
                     -E2BIG);
        cr_expect_null(arena.blocks, "the scan said so");
        arena.cap = used;
        cr_expect_eq(wire_unpack(&meshd__v1__sync__descriptor, data, len, &arena, &message), 0);
        arena_fini(&arena);
        arena.cap = SIZE_MAX;
        free(data);
    }
}

Test(check, owners_cap_is_kept_and_comes_back, .init = setup, .fini = teardown)
{
    ProtobufCMessage *message;

    cr_expect_eq(unpack(&meshd__v1__service__descriptor,
                        "\x0a\x01"
                        "a",
                        3, &message),
                 0);
    cr_expect_eq(arena.cap, SIZE_MAX);
    arena.cap = arena.used + 10;
    cr_expect_eq(unpack(&meshd__v1__service__descriptor,
                        "\x0a\x01"
                        "a",
                        3, &message),
                 -E2BIG);
    cr_expect_eq(arena.cap, arena.used + 10);
}

Test(check, without_memory_nothing_is_unpacked_and_nothing_breaks, .init = setup, .fini = teardown)
{
    size_t len;
    uint8_t *data = packed_sync(100, 9, "10.0.0.1:80", &len);
    ProtobufCMessage *message = NULL;

    mallocs_until_failure = 1;
    cr_expect_eq(wire_unpack(&meshd__v1__sync__descriptor, data, len, &arena, &message), -ENOMEM);
    cr_expect_null(message);
    mallocs_until_failure = 1;
    cr_expect_null(arena_alloc(&arena, 100));
    cr_expect_eq(arena.error, -ENOMEM);
    cr_expect_eq(wire_unpack(&meshd__v1__sync__descriptor, data, len, &arena, &message), 0);
    free(data);
}

static uint64_t seed(void)
{
    const char *text = getenv("MESHD_TEST_SEED");
    uint64_t value = text ? strtoull(text, NULL, 0) : random_u64();

    fprintf(stderr, "MESHD_TEST_SEED=%llu\n", (unsigned long long)value);
    return value | 1;
}

static uint64_t next(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

/* What we accept, protobuf-c alone accepts too and unpacks to the same; and what the scan lets
 * pass, unpacking does not refuse for its size. */
Test(check, broken_messages_are_refused_or_mean_what_they_mean, .init = setup, .fini = teardown)
{
    uint64_t state = seed();
    size_t len, accepted = 0;
    uint8_t *data = packed_sync(6, 6, "10.0.0.1:80", &len), *broken = malloc(len);

    for (int i = 0; i < 30000; i++) {
        ProtobufCMessage *ours = NULL, *theirs;
        int r;

        memcpy(broken, data, len);
        for (size_t n = 1 + next(&state) % 3; n > 0; n--)
            broken[next(&state) % len] =
                next(&state) % 2 ? (uint8_t)next(&state) : broken[next(&state) % len];
        r = wire_unpack(&meshd__v1__sync__descriptor, broken, len, &arena, &ours);
        cr_assert(r == 0 || r == -EBADMSG, "%d", r);
        if (r == 0) {
            uint8_t a[2048], b[2048];
            size_t size = protobuf_c_message_get_packed_size(ours);

            accepted++;
            theirs = protobuf_c_message_unpack(&meshd__v1__sync__descriptor, NULL, len, broken);
            cr_assert(theirs);
            cr_assert_leq(size, sizeof(a));
            cr_assert_eq(protobuf_c_message_get_packed_size(theirs), size);
            protobuf_c_message_pack(ours, a);
            protobuf_c_message_pack(theirs, b);
            cr_assert_arr_eq(a, b, size);
            protobuf_c_message_free_unpacked(theirs, NULL);
        }
        arena_reset(&arena);
    }
    cr_expect_gt(accepted, 100, "the test tests something");
    free(broken);
    free(data);
}
