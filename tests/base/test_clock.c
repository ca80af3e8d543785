/* The clocks. */
#include <criterion/criterion.h>
#include <time.h>
#include "base/clock.h"

Test(clock, monotonic_time_never_goes_back)
{
    uint64_t last = clock_ns();

    for (int i = 0; i < 100000; i++) {
        uint64_t now = clock_ns();

        cr_assert_geq(now, last);
        last = now;
    }
}

Test(clock, milliseconds_and_nanoseconds_are_one_clock)
{
    uint64_t before = clock_ns() / 1000000, ms = clock_ms(), after = clock_ns() / 1000000;

    cr_expect(before <= ms && ms <= after);
}

Test(clock, wall_time_is_unix_time)
{
    time_t before = time(NULL);
    uint64_t us = clock_wall_us();

    /* time() may lag by a tick of the kernel's coarse clock. */
    cr_expect(us / 1000000 >= (uint64_t)before && us / 1000000 <= (uint64_t)time(NULL) + 1);
}

Test(clock, a_monotonic_time_is_told_by_the_wall_clock_as_it_is_now)
{
    uint64_t at_ms = clock_ms(), wall_s = clock_wall_us() / 1000000;
    uint64_t unix_s = clock_unix_s(at_ms, clock_offset_ms());

    cr_expect(unix_s + 1 >= wall_s && unix_s <= wall_s + 1);
    cr_expect_eq(clock_unix_s(5000, 7999), 12);
    cr_expect_eq(clock_unix_s(5000, -5001), 0, "before there was such a time");
}
