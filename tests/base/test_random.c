/* Bytes from the kernel. */
#include <criterion/criterion.h>
#include <string.h>
#include "base/random.h"

Test(random, fills_exactly_what_was_asked_for)
{
    static unsigned char buf[100000 + 2];

    memset(buf, 0, sizeof(buf));
    random_bytes(buf + 1, 0);
    cr_expect_eq(buf[1], 0);
    /* More than getrandom(2) gives in one call when a signal comes. */
    random_bytes(buf + 1, sizeof(buf) - 2);
    cr_expect_eq(buf[0], 0);
    cr_expect_eq(buf[sizeof(buf) - 1], 0);
    /* A run of 16 zeros at either end has a chance of 2^-128. */
    cr_expect(memcmp(buf + 1, (char[16]){0}, 16) != 0);
    cr_expect(memcmp(buf + sizeof(buf) - 17, (char[16]){0}, 16) != 0);
}

Test(random, numbers_do_not_repeat)
{
    uint64_t seen[64];

    for (size_t i = 0; i < 64; i++) {
        seen[i] = random_u64();
        for (size_t j = 0; j < i; j++)
            cr_expect_neq(seen[i], seen[j]);
    }
}
