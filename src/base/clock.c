/* clock - the only place that reads one. */
#include "base/clock.h"
#include <time.h>

/* clock_gettime cannot fail for these two clocks on Linux. */
static uint64_t read_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_ns(void) { return read_ns(CLOCK_MONOTONIC); }

uint64_t clock_ms(void) { return read_ns(CLOCK_MONOTONIC) / 1000000u; }

uint64_t clock_wall_us(void) { return read_ns(CLOCK_REALTIME) / 1000u; }

int64_t clock_offset_ms(void) { return (int64_t)(clock_wall_us() / 1000u) - (int64_t)clock_ms(); }

uint64_t clock_unix_s(uint64_t at_ms, int64_t offset_ms)
{
    int64_t unix_ms = (int64_t)at_ms + offset_ms;

    return unix_ms > 0 ? (uint64_t)unix_ms / 1000u : 0;
}
