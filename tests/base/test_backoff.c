/* The waits between attempts. */
#include <criterion/criterion.h>
#include "base/backoff.h"
#include "base/random.h"

Test(backoff, doubles_up_to_the_cap)
{
    const uint32_t expected[] = {100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000};
    struct backoff b;

    backoff_init(&b, 100, 10000);
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++)
        cr_expect_eq(backoff_next(&b, 0), expected[i], "attempt %zu", i);
}

Test(backoff, waits_between_half_of_the_step_and_all_of_it)
{
    struct backoff b;
    bool low = false, high = false;

    for (int i = 0; i < 20000; i++) {
        uint32_t ms;

        backoff_init(&b, 8, 1000);
        backoff_next(&b, random_u64());
        ms = backoff_next(&b, random_u64());
        cr_assert(ms >= 8 && ms <= 16, "%u", ms);
        low |= ms == 8;
        high |= ms == 16;
    }
    cr_expect(low && high, "both ends are reached");
}

Test(backoff, is_never_zero)
{
    const uint64_t randoms[] = {0, 1, 2, 3, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
    struct backoff b;

    for (uint32_t min = 0; min < 4; min++) {
        for (size_t i = 0; i < sizeof(randoms) / sizeof(*randoms); i++) {
            backoff_init(&b, min, 0);
            for (int n = 0; n < 5; n++)
                cr_expect_gt(backoff_next(&b, randoms[i]), 0);
        }
    }
}

Test(backoff, reset_begins_anew)
{
    struct backoff b;

    backoff_init(&b, 100, 10000);
    backoff_next(&b, 0);
    backoff_next(&b, 0);
    backoff_reset(&b);
    cr_expect_eq(backoff_next(&b, 0), 100);
}

Test(backoff, largest_numbers_do_not_wrap)
{
    struct backoff b;

    backoff_init(&b, UINT32_MAX - 1, UINT32_MAX);
    cr_expect_eq(backoff_next(&b, 0), UINT32_MAX - 1);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(backoff_next(&b, 0), UINT32_MAX);
}
