/* histogram - a bucket is found by the length of its number. */
#include "base/histogram.h"

static void add(uint64_t *at, uint64_t n)
{
    /* Nobody else writes: no read-modify-write is needed. */
    __atomic_store_n(at, *at + n, __ATOMIC_RELAXED);
}

void histogram_add(struct histogram *h, uint64_t us)
{
    size_t bucket = us <= 1 ? 0 : 64u - (unsigned)__builtin_clzll(us - 1);

    add(&h->buckets[bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1], 1);
    add(&h->sum_us, us);
}

uint64_t histogram_count(const struct histogram *read)
{
    uint64_t count = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += read->buckets[i];
    return count;
}

uint64_t histogram_share_us(const struct histogram *read, double share)
{
    uint64_t all = histogram_count(read), seen = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += read->buckets[i];
        if (read->buckets[i] && (double)seen >= share * (double)all)
            return histogram_bound_us(i);
    }
    return 0;
}
