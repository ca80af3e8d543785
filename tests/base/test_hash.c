/* The entry hash of the wire contract, and the keyed hash of our tables. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "base/hash.h"

static uint64_t entry(const char *name, const char *backend)
{
    return hash_entry(name, strlen(name), backend, strlen(backend), 0);
}

/* Numbers from an implementation in another language. */
Test(hash, entry_is_the_hash_of_the_contract)
{
    cr_expect_eq(entry("web", "127.0.0.1:80"), 0x0f1221e19562f268u);
    cr_expect_eq(entry("", ""), 0xb9034ad37056f5fbu);
    cr_expect_eq(entry("example-app", "[::1]:8080"), 0xf7d8d671db7668cau);
}

Test(hash, entry_tells_name_from_backend)
{
    cr_expect_eq(entry("ab", "c"), 0xc87d91e7dc16f99du);
    cr_expect_eq(entry("a", "bc"), 0xdf52f2b01fb62dc7u);
}

Test(hash, entry_of_no_flag_is_as_before_and_each_flag_makes_another)
{
    static const uint64_t expected[4] = {0x0f1221e19562f268u, 0xfdabead902768965u,
                                         0xd5d5762a91b63783u, 0x7a1f3587b75469abu};

    for (unsigned flags = 0; flags < 4; flags++)
        cr_expect_eq(hash_entry("web", 3, "127.0.0.1:80", 12, flags), expected[flags]);
}

/* CPython hashes bytes with SipHash-1-3; PYTHONHASHSEED=0 makes its key zero. */
Test(hash, sip13_agrees_with_another_implementation)
{
    static const struct {
        const char *in;
        uint64_t hash;
    } cases[] = {
        {"a", 0x407448d2b89b1813u},         {"abc", 0xc03bc3a0042630f2u},
        {"1234567", 0xa33d651594fdae81u},   {"12345678", 0x3489982430560a87u},
        {"123456789", 0x0fbc0f0007965fcfu},
    };
    const uint64_t zero[2] = {0, 0};
    char counting[63];

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        cr_expect_eq(hash_sip13(zero, cases[i].in, strlen(cases[i].in)), cases[i].hash, "%s",
                     cases[i].in);
    for (size_t i = 0; i < sizeof(counting); i++)
        counting[i] = (char)(i + 1);
    cr_expect_eq(hash_sip13(zero, counting, sizeof(counting)), 0x6bafe9f92616651bu);
}

Test(hash, sip13_depends_on_both_words_of_its_key)
{
    const uint64_t a[2] = {1, 0}, b[2] = {0, 1}, zero[2] = {0, 0};

    cr_expect_neq(hash_sip13(a, "abc", 3), hash_sip13(zero, "abc", 3));
    cr_expect_neq(hash_sip13(b, "abc", 3), hash_sip13(zero, "abc", 3));
}

Test(hash, keyed_is_the_same_for_the_same_bytes_wherever_they_lie)
{
    char buf[80];

    for (size_t at = 0; at < 8; at++) {
        memcpy(buf + at, "example-app@192.0.2.10", 22);
        cr_expect_eq(hash_keyed(buf + at, 22), hash_keyed("example-app@192.0.2.10", 22));
    }
    cr_expect_eq(hash_keyed(NULL, 0), hash_keyed("", 0));
}

Test(hash, keyed_spreads_names_over_buckets)
{
    enum { BUCKETS = 1024, NAMES = 64 * BUCKETS };
    static unsigned counts[BUCKETS];
    char name[32];

    for (unsigned i = 0; i < NAMES; i++) {
        int n = snprintf(name, sizeof(name), "service-%u", i);

        counts[hash_keyed(name, (size_t)n) % BUCKETS]++;
    }
    /* 64 are expected in each; 8 standard deviations away is no accident. */
    for (unsigned i = 0; i < BUCKETS; i++)
        cr_expect_lt(counts[i], 128);
}
