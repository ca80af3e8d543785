/* Which bucket a time falls into, and what they say together. */
#include <criterion/criterion.h>
#include <pthread.h>
#include "base/histogram.h"

static struct histogram of(uint64_t us)
{
    struct histogram h = {0};

    histogram_add(&h, us);
    return h;
}

Test(histogram, a_bound_belongs_to_the_bucket_that_it_ends)
{
    for (size_t i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        uint64_t bound = histogram_bound_us(i);

        cr_expect_eq(of(bound).buckets[i], 1, "%zu", i);
        cr_expect_eq(of(bound + 1).buckets[i + 1], 1, "%zu", i);
    }
    cr_expect_eq(of(0).buckets[0], 1);
    cr_expect_eq(of(1024).buckets[10], 1);
}

Test(histogram, what_is_longer_than_any_bound_is_in_the_last)
{
    cr_expect_eq(of(UINT64_MAX).buckets[HISTOGRAM_BUCKETS - 1], 1);
    cr_expect_eq(histogram_bound_us(HISTOGRAM_BUCKETS - 1), UINT64_MAX);
}

Test(histogram, a_share_is_said_by_the_bound_above_it)
{
    struct histogram h = {0};

    cr_expect_eq(histogram_share_us(&h, 0.5), 0);
    for (int i = 0; i < 98; i++)
        histogram_add(&h, 3);
    histogram_add(&h, 1000);
    histogram_add(&h, 1000);
    cr_expect_eq(histogram_share_us(&h, 0.5), 4);
    cr_expect_eq(histogram_share_us(&h, 0.98), 4);
    cr_expect_eq(histogram_share_us(&h, 0.99), 1024);
    cr_expect_eq(histogram_count(&h), 100);
    cr_expect_eq(h.sum_us, 98 * 3 + 2000);
}

static struct histogram shared;

static void *write_some(void *arg)
{
    for (uint64_t i = 0; i < 200000; i++)
        histogram_add(&shared, i % 5000);
    return NULL;
}

Test(histogram, it_is_read_while_it_is_written)
{
    struct histogram seen = {0};
    pthread_t writer;
    uint64_t before = 0, count;

    cr_assert_eq(pthread_create(&writer, NULL, write_some, NULL), 0);
    do {
        for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
            seen.buckets[i] = __atomic_load_n(&shared.buckets[i], __ATOMIC_RELAXED);
        count = histogram_count(&seen);
        cr_assert_geq(count, before);
        before = count;
    } while (count < 200000);
    pthread_join(writer, NULL);
}
