/* How many clients an address has: limits, gauges, threads, and no memory. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include "failing.h"
#include "forward/must.h"
#include "forward/source.h"

static struct sources *sources;

static void setup(void)
{
    static struct limits limits;

    limits_default(&limits);
    limits.ingress_per_source = 5;
    limits.ingress_unrouted_per_source = 3;
    cr_assert_eq(sources_new(&limits, &sources), 0);
}

static void teardown(void)
{
    sources_free(sources);
    MUST(alive == 0);
}

static struct in6_addr numbered(uint32_t n)
{
    struct in6_addr ip = {.s6_addr = {[10] = 0xff, [11] = 0xff, [12] = 10}};

    ip.s6_addr[13] = (uint8_t)(n >> 16);
    ip.s6_addr[14] = (uint8_t)(n >> 8);
    ip.s6_addr[15] = (uint8_t)n;
    return ip;
}

static void expect_largest(uint64_t clients, uint64_t unrouted)
{
    uint64_t most_clients = 99, most_unrouted = 99;

    source_largest(sources, &most_clients, &most_unrouted);
    cr_expect_eq(most_clients, clients);
    cr_expect_eq(most_unrouted, unrouted);
}

Test(source, clients_that_are_not_routed_yet_have_a_limit, .init = setup, .fini = teardown)
{
    struct in6_addr ip = numbered(1), other = numbered(2);

    for (int i = 0; i < 3; i++)
        cr_assert(source_enter(sources, &ip));
    cr_expect_not(source_enter(sources, &ip));
    expect_largest(3, 3);
    cr_expect(source_enter(sources, &other));
    source_routed(sources, &ip);
    cr_expect(source_enter(sources, &ip));
    cr_expect_not(source_enter(sources, &ip));
    expect_largest(4, 3);
}

Test(source, clients_in_all_have_a_limit, .init = setup, .fini = teardown)
{
    struct in6_addr ip = numbered(1);

    for (int i = 0; i < 5; i++) {
        cr_assert(source_enter(sources, &ip));
        source_routed(sources, &ip);
    }
    cr_expect_not(source_enter(sources, &ip));
    expect_largest(5, 0);
    source_leave(sources, &ip, true);
    cr_expect(source_enter(sources, &ip));
    cr_expect_not(source_enter(sources, &ip));
    expect_largest(5, 1);
}

Test(source, nothing_is_kept_of_one_that_has_left, .init = setup, .fini = teardown)
{
    struct in6_addr ip = numbered(1);
    long before = alive;

    cr_assert(source_enter(sources, &ip));
    cr_assert(source_enter(sources, &ip));
    source_routed(sources, &ip);
    source_leave(sources, &ip, true);
    expect_largest(1, 1);
    source_leave(sources, &ip, false);
    expect_largest(0, 0);
    cr_expect_eq(alive, before);
}

Test(source, a_mapped_v4_address_and_a_v6_one_are_two, .init = setup, .fini = teardown)
{
    struct in6_addr v4, v6;

    cr_assert_eq(inet_pton(AF_INET6, "::ffff:10.0.0.1", &v4), 1);
    cr_assert_eq(inet_pton(AF_INET6, "2001:db8::1", &v6), 1);
    cr_expect(source_enter(sources, &v4));
    cr_expect(source_enter(sources, &v6));
    expect_largest(1, 1);
}

Test(source, who_has_a_64_is_one_source_whatever_its_addresses, .init = setup, .fini = teardown)
{
    struct in6_addr ip, other;

    cr_assert_eq(inet_pton(AF_INET6, "2001:db8:0:1::", &ip), 1);
    cr_assert_eq(inet_pton(AF_INET6, "2001:db8:0:2::1", &other), 1);
    for (uint8_t i = 0; i < 3; i++) {
        ip.s6_addr[8 + i] = 0xff;
        cr_assert(source_enter(sources, &ip));
    }
    expect_largest(3, 3);
    ip.s6_addr[15] = 1;
    cr_expect_not(source_enter(sources, &ip));
    cr_expect(source_enter(sources, &other));
    source_routed(sources, &ip);
    expect_largest(3, 2);
    for (uint8_t i = 0; i < 3; i++)
        source_leave(sources, &ip, i == 0);
    source_leave(sources, &other, false);
    expect_largest(0, 0);
}

Test(source, without_memory_nothing_is_taken, .init = setup, .fini = teardown)
{
    long failures = 0;

    /* Many, so that the tables grow meanwhile. */
    for (uint32_t i = 0; i < 5000; i++) {
        struct in6_addr ip = numbered(i);

        for (long n = 0;; n++) {
            long before = alive;
            bool entered;

            until_failure = n;
            entered = source_enter(sources, &ip);
            if (entered && until_failure >= 0)
                break; /* nothing failed */
            until_failure = -1;
            if (!entered) {
                failures++;
                cr_assert_eq(alive, before);
                continue;
            }
            break; /* a failure that it could do without */
        }
        until_failure = -1;
    }
    cr_expect_geq(failures, 5000);
    expect_largest(1, 1);
    for (uint32_t i = 0; i < 5000; i++) {
        struct in6_addr ip = numbered(i);

        source_leave(sources, &ip, false);
    }
    expect_largest(0, 0);
}

#define THREADS 4
#define ROUNDS 20000

static void *come_and_go(void *arg)
{
    unsigned seed = *(unsigned *)arg, entered = 0;

    for (int i = 0; i < ROUNDS; i++) {
        struct in6_addr ip = numbered((uint32_t)rand_r(&seed) % 3);

        if (!source_enter(sources, &ip))
            continue;
        entered++;
        if (i % 2)
            source_routed(sources, &ip);
        source_leave(sources, &ip, i % 2);
    }
    *(unsigned *)arg = entered;
    return NULL;
}

Test(source, threads_may_come_and_go_together, .init = setup, .fini = teardown)
{
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        cr_assert_eq(pthread_create(&threads[i], NULL, come_and_go, &seeds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_expect_gt(seeds[i], 0);
    }
    expect_largest(0, 0);
}
