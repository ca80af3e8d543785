/* SP framing: heads of both kinds, the hello, the backtrace. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "base/limits.h"
#include "wire/sp.h"

Test(sp, hello_is_what_nng_sends)
{
    const uint8_t req[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    uint8_t out[SP_HELLO_LEN];
    uint16_t protocol = 0;

    sp_hello_pack(SP_REQ0, out);
    cr_expect_arr_eq(out, req, sizeof(req));
    cr_expect_eq(sp_hello_parse(req, &protocol), 0);
    cr_expect_eq(protocol, SP_REQ0);
}

Test(sp, hello_of_every_protocol_number_returns)
{
    uint8_t hello[SP_HELLO_LEN];
    uint16_t protocol;

    for (unsigned i = 0; i <= UINT16_MAX; i++) {
        sp_hello_pack((enum sp_protocol)i, hello);
        cr_assert_eq(sp_hello_parse(hello, &protocol), 0);
        cr_assert_eq(protocol, i);
    }
}

Test(sp, hello_with_any_other_byte_is_refused)
{
    const size_t fixed[] = {0, 1, 2, 3, 6, 7};
    uint8_t hello[SP_HELLO_LEN];
    uint16_t protocol = 7;

    for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            sp_hello_pack(SP_PAIR1, hello);
            hello[fixed[i]] ^= (uint8_t)(1 << bit);
            cr_expect_eq(sp_hello_parse(hello, &protocol), -EBADMSG);
        }
    }
    cr_expect_eq(protocol, 7, "written only on success");
}

static const enum sp_framing framings[] = {SP_TCP, SP_IPC};

Test(sp, head_returns_at_the_last_byte_and_not_before)
{
    const uint64_t lens[] = {0, 1, 255, 256, 65536, 1048576, UINT32_MAX, UINT64_MAX};
    uint8_t head[SP_HEAD_MAX];

    for (int f = 0; f < 2; f++) {
        for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
            size_t head_len = sp_head_len(framings[f]);
            uint64_t len = 99;

            sp_head_pack(framings[f], lens[i], head);
            for (size_t n = 0; n < head_len; n++)
                cr_expect_eq(sp_head_parse(framings[f], head, n, UINT64_MAX, &len), -EAGAIN);
            cr_expect_eq(len, 99);
            cr_expect_eq(sp_head_parse(framings[f], head, head_len, UINT64_MAX, &len), 0);
            cr_expect_eq(len, lens[i]);
        }
    }
}

Test(sp, head_is_big_endian)
{
    const uint8_t tcp[] = {0, 0, 0, 0, 0, 1, 2, 3}, ipc[] = {1, 0, 0, 0, 0, 0, 1, 2, 3};
    uint8_t out[SP_HEAD_MAX];

    sp_head_pack(SP_TCP, 0x10203, out);
    cr_expect_arr_eq(out, tcp, sizeof(tcp));
    sp_head_pack(SP_IPC, 0x10203, out);
    cr_expect_arr_eq(out, ipc, sizeof(ipc));
}

Test(sp, longer_than_allowed_is_refused_before_its_payload)
{
    uint8_t head[SP_HEAD_MAX];
    uint64_t len = 99;

    for (int f = 0; f < 2; f++) {
        sp_head_pack(framings[f], 1000, head);
        cr_expect_eq(sp_head_parse(framings[f], head, sp_head_len(framings[f]), 999, &len),
                     -EMSGSIZE);
        cr_expect_eq(len, 99);
        cr_expect_eq(sp_head_parse(framings[f], head, sp_head_len(framings[f]), 1000, &len), 0);
        len = 99;
        /* The length that overflows nng's sum of sizes. */
        sp_head_pack(framings[f], 0xffffffffffffffe0u, head);
        cr_expect_eq(sp_head_parse(framings[f], head, sp_head_len(framings[f]), 1 << 20, &len),
                     -EMSGSIZE);
    }
}

Test(sp, ipc_message_of_another_type_is_refused_at_its_first_byte)
{
    uint64_t len;

    for (unsigned type = 0; type < 256; type++) {
        uint8_t first = (uint8_t)type;

        cr_expect_eq(sp_head_parse(SP_IPC, &first, 1, 100, &len), type == 1 ? -EAGAIN : -EBADMSG);
    }
}

/* hops words, then one with the top bit, then more. */
static size_t backtrace(uint8_t *out, unsigned hops)
{
    memset(out, 0x7f, 4 * hops);
    memcpy(out + 4 * hops, "\x80\0\0\1", 4);
    memset(out + 4 * hops + 4, 0xff, 8);
    return 4 * hops + 12;
}

Test(sp, backtrace_ends_at_the_first_word_with_the_top_bit)
{
    uint8_t payload[4 * 20];
    size_t len;

    for (unsigned hops = 0; hops <= LIMIT_SP_HOPS; hops++) {
        len = 0;
        cr_expect_eq(sp_backtrace(payload, backtrace(payload, hops), &len), 0);
        cr_expect_eq(len, 4 * hops + 4);
    }
}

Test(sp, backtrace_with_too_many_hops_is_refused)
{
    uint8_t payload[4 * 20];
    size_t len = 99;

    for (unsigned hops = LIMIT_SP_HOPS + 1; hops < 16; hops++)
        cr_expect_eq(sp_backtrace(payload, backtrace(payload, hops), &len), -EBADMSG);
    cr_expect_eq(len, 99);
}

Test(sp, backtrace_that_is_cut_is_refused)
{
    uint8_t payload[4 * 20];
    size_t len;

    backtrace(payload, 3);
    for (size_t n = 0; n < 16; n++)
        cr_expect_eq(sp_backtrace(payload, n, &len), -EBADMSG, "%zu bytes", n);
    cr_expect_eq(sp_backtrace(payload, 16, &len), 0);
}
