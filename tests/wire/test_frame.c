/* Preambles at every split, and frames. */
#include <criterion/criterion.h>
#include <errno.h>
#include <meshd/v1/mesh.pb-c.h>
#include <stdlib.h>
#include <string.h>
#include "wire/frame.h"

/* What a parser says of the first n bytes, which lie at the end of an allocation of their own, so
 * that the sanitizer sees a byte read too far. */
static int parse_prefix(const uint8_t *data, size_t n, struct preamble *out)
{
    uint8_t *copy = malloc(n);
    int r;

    memcpy(copy, data, n);
    r = preamble_parse(copy, n, out);
    free(copy);
    return r;
}

static int parse_reply_prefix(const uint8_t *data, size_t n, struct preamble_reply *out)
{
    uint8_t *copy = malloc(n);
    int r;

    memcpy(copy, data, n);
    r = preamble_reply_parse(copy, n, out);
    free(copy);
    return r;
}

static struct preamble example(enum preamble_kind kind, size_t id_len)
{
    struct preamble p = {.version = PREAMBLE_VERSION, .kind = kind};

    memset(p.peer_id, 'n', id_len);
    if (kind == PREAMBLE_LINK || kind == PREAMBLE_DATA) {
        p.has_token = 1;
        memset(p.token, 0xa5, sizeof(p.token));
    }
    if (kind == PREAMBLE_DATA)
        p.first = DATA_FIRST_OTHER;
    return p;
}

Test(frame, preamble_is_byte_for_byte_the_documented_one)
{
    static const uint8_t link[] = "MSHD\1\2\3\20n-1\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17";
    struct preamble p = {.version = 1, .kind = PREAMBLE_LINK, .peer_id = "n-1", .has_token = 1};
    uint8_t out[PREAMBLE_MAX];

    for (uint8_t i = 0; i < TOKEN_LEN; i++)
        p.token[i] = i;
    cr_assert_eq(preamble_pack(&p, out), sizeof(link) - 1);
    cr_expect_arr_eq(out, link, sizeof(link) - 1);
}

Test(frame, preamble_of_data_is_byte_for_byte_the_documented_one)
{
    static const uint8_t data[] = "MSHD\1\3\3\21n-1\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\2";
    struct preamble p = {.version = 1,
                         .kind = PREAMBLE_DATA,
                         .peer_id = "n-1",
                         .has_token = 1,
                         .first = DATA_FIRST_OTHER};
    uint8_t out[PREAMBLE_MAX];

    for (uint8_t i = 0; i < TOKEN_LEN; i++)
        p.token[i] = i;
    cr_assert_eq(preamble_pack(&p, out), sizeof(data) - 1);
    cr_expect_arr_eq(out, data, sizeof(data) - 1);
}

Test(frame, preamble_is_there_at_its_last_byte_and_not_before)
{
    for (unsigned kind = PREAMBLE_RPC; kind <= PREAMBLE_WATCH; kind++) {
        for (size_t id_len = kind == PREAMBLE_WATCH ? 0 : 1; id_len <= LIMIT_PEER_ID; id_len++) {
            struct preamble p = example(kind, id_len), got = {.version = 77};
            uint8_t data[PREAMBLE_MAX + 3];
            size_t len = preamble_pack(&p, data);

            memset(data + len, 0, 3); /* what follows is nobody's business here */
            cr_assert_leq(len, PREAMBLE_MAX);
            for (size_t n = 0; n < len; n++)
                cr_assert_eq(parse_prefix(data, n, &got), -EAGAIN, "%zu of %zu", n, len);
            cr_assert_eq(got.version, 77, "written only on success");
            for (size_t n = len; n <= len + 3; n++) {
                cr_assert_eq(parse_prefix(data, n, &got), (int)len);
                cr_assert_eq(got.version, 1);
                cr_assert_eq(got.kind, kind);
                cr_assert_str_eq(got.peer_id, p.peer_id);
                cr_assert_eq(got.has_token, p.has_token);
                cr_assert_arr_eq(got.token, p.token, TOKEN_LEN);
                cr_assert_eq(got.first, p.first);
            }
        }
    }
}

/* Byte at of a good preamble is value: refused as soon as it is there, not earlier. */
static void refused_at(enum preamble_kind kind, size_t at, uint8_t value, int expected)
{
    struct preamble p = example(kind, 5), got;
    uint8_t data[PREAMBLE_MAX];
    size_t len = preamble_pack(&p, data);

    data[at] = value;
    for (size_t n = 0; n <= len; n++) {
        int r = parse_prefix(data, n, &got);

        cr_assert_eq(r, n <= at ? -EAGAIN : expected, "byte %zu is %u, %zu there: %d", at, value, n,
                     r);
        if (r == -EPROTONOSUPPORT)
            cr_assert_eq(got.version, value);
    }
}

Test(frame, preamble_that_never_will_be_one_is_refused_at_the_first_wrong_byte)
{
    for (size_t at = 0; at < 4; at++) {
        refused_at(PREAMBLE_RPC, at, 'x', -EBADMSG);
        refused_at(PREAMBLE_RPC, at, 0, -EBADMSG);
    }
    refused_at(PREAMBLE_RPC, 5, 0, -EBADMSG);
    refused_at(PREAMBLE_RPC, 5, 5, -EBADMSG);
    refused_at(PREAMBLE_RPC, 5, 255, -EBADMSG);
    refused_at(PREAMBLE_RPC, 6, 0, -EBADMSG);
    refused_at(PREAMBLE_RPC, 6, 65, -EBADMSG);
    refused_at(PREAMBLE_WATCH, 6, 255, -EBADMSG);
    refused_at(PREAMBLE_RPC, 7, 16, -EBADMSG);
    refused_at(PREAMBLE_DATA, 7, 0, -EBADMSG);
    refused_at(PREAMBLE_DATA, 7, 1, -EBADMSG);
    refused_at(PREAMBLE_DATA, 7, 16, -EBADMSG);
    refused_at(PREAMBLE_DATA, 7, 18, -EBADMSG);
    for (unsigned first = 0; first < 256; first++)
        if (first != DATA_FIRST_DIALLER && first != DATA_FIRST_OTHER)
            refused_at(PREAMBLE_DATA, 8 + 5 + TOKEN_LEN, (uint8_t)first, -EBADMSG);
    refused_at(PREAMBLE_LINK, 7, 0, -EBADMSG);
    refused_at(PREAMBLE_LINK, 7, 15, -EBADMSG);
    refused_at(PREAMBLE_LINK, 7, 17, -EBADMSG);
    for (size_t at = 8; at < 13; at++) {
        refused_at(PREAMBLE_LINK, at, '/', -EBADMSG);
        refused_at(PREAMBLE_LINK, at, 0, -EBADMSG);
        refused_at(PREAMBLE_LINK, at, 0xc3, -EBADMSG);
        refused_at(PREAMBLE_LINK, at, '#', -EBADMSG);
    }
}

Test(frame, another_preamble_version_is_told_from_nonsense)
{
    refused_at(PREAMBLE_LINK, 4, 0, -EPROTONOSUPPORT);
    refused_at(PREAMBLE_LINK, 4, 2, -EPROTONOSUPPORT);
    refused_at(PREAMBLE_LINK, 4, 255, -EPROTONOSUPPORT);
}

Test(frame, tokens_bytes_are_not_looked_at)
{
    const enum preamble_kind kinds[] = {PREAMBLE_LINK, PREAMBLE_DATA};
    uint8_t data[PREAMBLE_MAX];

    for (size_t i = 0; i < 2; i++) {
        struct preamble p = example(kinds[i], 5), got;

        for (unsigned value = 0; value < 256; value++) {
            memset(p.token, (int)value, TOKEN_LEN);
            cr_assert_gt(parse_prefix(data, preamble_pack(&p, data), &got), 0);
            cr_assert_arr_eq(got.token, p.token, TOKEN_LEN);
        }
    }
}

Test(frame, data_header_is_byte_for_byte_the_documented_one)
{
    static const uint8_t wire[] = "\17\16\15\14\13\12\11\10\7\6\5\4\3\2\1\0\1\2\3\4\5\6\7\10";
    struct data_header in = {.offset = UINT64_C(0x0102030405060708)}, got;
    uint8_t out[DATA_HEADER_LEN];

    for (uint8_t i = 0; i < FORWARD_ID_LEN; i++)
        in.forward_id[i] = (uint8_t)(15 - i);
    data_header_pack(&in, out);
    cr_expect_arr_eq(out, wire, DATA_HEADER_LEN);
    cr_expect_eq(sizeof(wire) - 1, DATA_HEADER_LEN);
    data_header_parse(out, &got);
    cr_expect_arr_eq(got.forward_id, in.forward_id, FORWARD_ID_LEN);
    cr_expect_eq(got.offset, in.offset);
    memset(out, 0xff, sizeof(out));
    data_header_parse(out, &got);
    cr_expect_eq(got.offset, UINT64_MAX);
}

Test(frame, preamble_reply_is_there_at_its_last_byte_and_not_before)
{
    const size_t lens[] = {0, 1, 2, 100, 254, 255};

    for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
        struct preamble_reply p = {.version = 1, .status = 9, .reason = 3}, got = {.version = 77};
        uint8_t data[PREAMBLE_REPLY_MAX];
        size_t len;

        memset(p.text, 't', lens[i]);
        len = preamble_reply_pack(&p, data);
        cr_assert_eq(len, PREAMBLE_HEAD + lens[i]);
        for (size_t n = 0; n < len; n++)
            cr_assert_eq(parse_reply_prefix(data, n, &got), -EAGAIN);
        cr_assert_eq(got.version, 77);
        cr_assert_eq(parse_reply_prefix(data, len, &got), (int)len);
        cr_assert_eq(got.version, 1);
        cr_assert_eq(got.status, 9);
        cr_assert_eq(got.reason, 3);
        cr_assert_str_eq(got.text, p.text);
    }
}

Test(frame, preamble_reply_is_refused_at_the_first_wrong_byte)
{
    struct preamble_reply p = {.version = 1, .text = "no"}, got;
    uint8_t data[PREAMBLE_REPLY_MAX];

    for (size_t at = 0; at <= 4; at++) {
        size_t len = preamble_reply_pack(&p, data);

        data[at] = 9;
        for (size_t n = 0; n <= len; n++) {
            int bad = at == 4 ? -EPROTONOSUPPORT : -EBADMSG;

            cr_expect_eq(parse_reply_prefix(data, n, &got), n <= at ? -EAGAIN : bad);
        }
    }
    cr_expect_eq(got.version, 9);
}

static void frame_returns(size_t method_len, const ProtobufCMessage *body)
{
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT, *got;
    char *method = calloc(1, method_len + 1);
    struct frame_parts parts;
    uint8_t *data;
    size_t len;

    memset(method, 'm', method_len);
    header.method = method;
    header.call_id = 42;
    len = frame_size(&header.base, body);
    data = malloc(len);
    frame_pack(&header.base, body, data);
    cr_assert_eq(frame_split(data, len, &parts), 0);
    cr_expect_eq(parts.header_len, protobuf_c_message_get_packed_size(&header.base));
    cr_expect_eq(parts.body_len, body ? protobuf_c_message_get_packed_size(body) : 0);
    cr_expect_eq(parts.body + parts.body_len, data + len);
    got = meshd__v1__call_header__unpack(NULL, parts.header_len, parts.header);
    cr_assert(got);
    cr_expect_str_eq(got->method, method);
    cr_expect_eq(got->call_id, 42);
    meshd__v1__call_header__free_unpacked(got, NULL);
    free(data);
    free(method);
}

Test(frame, header_and_body_return_as_they_were_packed)
{
    Meshd__V1__ExplainRequest body = MESHD__V1__EXPLAIN_REQUEST__INIT;

    body.name = (char *)"web";
    for (size_t len = 0; len <= 1000; len++) { /* the prefix has one byte, then two */
        frame_returns(len, &body.base);
        frame_returns(len, NULL);
    }
}

Test(frame, empty_header_is_one_zero_byte)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    uint8_t out[1] = {9};

    cr_assert_eq(frame_size(&header.base, NULL), 1);
    frame_pack(&header.base, NULL, out);
    cr_expect_eq(out[0], 0);
}

Test(frame, a_link_header_is_read_without_unpacking_it)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    uint8_t id[SESSION_ID_LEN], data[64], one_more[64];
    const uint8_t *session_id = NULL;
    struct frame_parts parts;
    int kind = -1;

    for (uint8_t i = 0; i < sizeof(id); i++)
        id[i] = (uint8_t)(0xf0 + i);
    header.session_id = (ProtobufCBinaryData){.len = sizeof(id), .data = id};
    for (int k = 0; k < 300; k++) {
        header.kind = (Meshd__V1__LinkKind)k;
        frame_pack(&header.base, NULL, data);
        cr_assert_eq(frame_split(data, frame_size(&header.base, NULL), &parts), 0);
        cr_assert_eq(frame_peek_link(&parts, &kind, &session_id), k > 0 && k < 128, "kind %d", k);
        if (k == 0 || k >= 128)
            continue;
        cr_assert_eq(kind, k);
        cr_assert_arr_eq(session_id, id, sizeof(id));
        /* A field that nobody knows: left to those who unpack. */
        memcpy(one_more, parts.header, parts.header_len);
        memcpy(one_more + parts.header_len, "\30\1", 2);
        parts.header = one_more;
        parts.header_len += 2;
        cr_assert_not(frame_peek_link(&parts, &kind, &session_id));
    }
    for (size_t len = 0; len < SESSION_ID_LEN; len++) {
        header.kind = MESHD__V1__LINK_KIND__LINK_KIND_HELLO;
        header.session_id.len = len;
        frame_pack(&header.base, NULL, data);
        cr_assert_eq(frame_split(data, frame_size(&header.base, NULL), &parts), 0);
        cr_assert_not(frame_peek_link(&parts, &kind, &session_id));
    }
}

Test(frame, header_that_does_not_fit_is_refused)
{
    static const struct {
        const char *data;
        size_t len;
    } cases[] = {
        {"", 0},
        {"\1", 1},
        {"\2a", 2},
        {"\x80", 1},
        {"\xff", 1},
        {"\x80\x80\x01", 3},
        {"\xff\xff\xff\xff", 4},
        {"\x81\x08 and less than 1025 bytes", 20},
    };
    struct frame_parts parts;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint8_t *copy = malloc(cases[i].len);

        memcpy(copy, cases[i].data, cases[i].len);
        cr_expect_eq(frame_split(copy, cases[i].len, &parts), -EBADMSG, "case %zu", i);
        free(copy);
    }
}

Test(frame, header_has_at_most_1024_bytes)
{
    static uint8_t data[4096];
    struct frame_parts parts;

    for (size_t len = 0; len < 4000; len++) {
        data[0] = (uint8_t)(len | 0x80);
        data[1] = (uint8_t)(len >> 7);
        cr_assert_eq(frame_split(data, sizeof(data), &parts), len <= 1024 ? 0 : -EBADMSG);
        if (len <= 1024)
            cr_assert_eq(parts.header_len, len);
    }
}
