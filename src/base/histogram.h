/* histogram - how often something took how long, in powers of two of a microsecond.
 *
 * A row of uint64_t all through, so that those of several threads can be added up. What is written
 * by one thread may be read by others meanwhile, number by number with atomic loads: each is whole,
 * and the count is that of the buckets, so that the two never disagree; the sum may be ahead of
 * them, or behind.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_BUCKETS 28u /* the last but one ends at 67 s; the last has the rest */

struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS]; /* [i]: above the bound of i - 1, up to that of i */
    uint64_t sum_us;
};

/* UINT64_MAX: of the last. */
static inline uint64_t histogram_bound_us(size_t bucket)
{
    return bucket < HISTOGRAM_BUCKETS - 1 ? UINT64_C(1) << bucket : UINT64_MAX;
}

void histogram_add(struct histogram *histogram, uint64_t us); /* its one writer */
uint64_t histogram_count(const struct histogram *read);
/* The bound of the bucket in which that share (0.5, 0.99) lies; 0: nothing yet. */
uint64_t histogram_share_us(const struct histogram *read, double share);

#endif
