/* backoff - how long to wait before the next attempt: doubling, capped, with jitter, never zero.
 *
 * Pure: the random number is the caller's, so that a simulation with a seed repeats itself. */
#ifndef BASE_BACKOFF_H
#define BASE_BACKOFF_H

#include <stdint.h>

struct backoff {
    uint32_t min_ms, max_ms; /* e.g. 100 and 10000 */
    uint32_t next_ms;        /* 0 until the first failure */
};

void backoff_init(struct backoff *b, uint32_t min_ms, uint32_t max_ms);
/* The wait after one more failure: between half of the present step and all of it. */
uint32_t backoff_next(struct backoff *b, uint64_t random);
void backoff_reset(struct backoff *b);

#endif
