/* backoff - the step doubles with each failure; the wait lies in its upper half. */
#include "base/backoff.h"

void backoff_init(struct backoff *b, uint32_t min_ms, uint32_t max_ms)
{
    b->min_ms = min_ms > 0 ? min_ms : 1;
    b->max_ms = max_ms > b->min_ms ? max_ms : b->min_ms;
    b->next_ms = 0;
}

uint32_t backoff_next(struct backoff *b, uint64_t random)
{
    uint32_t step = b->min_ms;

    if (b->next_ms != 0)
        step = b->next_ms > b->max_ms / 2 ? b->max_ms : b->next_ms * 2;
    b->next_ms = step;
    /* A step of at least 1 leaves at least 1: half of it is rounded down. */
    return step - (uint32_t)(random % ((uint64_t)step / 2 + 1));
}

void backoff_reset(struct backoff *b) { b->next_ms = 0; }
