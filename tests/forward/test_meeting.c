/* Which forward ids are remembered as joined, for whoever asks for one again. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "failing.h"
#include "forward/data.h"
#include "forward/must.h"

#define REMEMBERED 16384u /* as in meeting.c */

static struct forward forward;

static void setup(void) { cr_assert_eq(meeting_new(&forward.meeting), 0); }

static void teardown(void)
{
    meeting_free(forward.meeting);
    MUST(alive == 0);
}

TestSuite(meeting, .init = setup, .fini = teardown, .timeout = 60);

static struct waiter numbered(unsigned n)
{
    struct waiter waiter = {.kind = WAITER_OWNER};

    memcpy(waiter.id, &n, sizeof n);
    return waiter;
}

static void join(unsigned n)
{
    struct waiter waiter = numbered(n);

    cr_assert_eq(waiter_enter(&forward, &waiter), 0);
    waiter_joined(&forward, &waiter);
}

static int ask_again(unsigned n)
{
    struct waiter waiter = numbered(n);
    struct data *data;
    int r = waiter_enter_owner(&forward, &waiter, true, &data);

    waiter_leave(&forward, &waiter);
    return r;
}

Test(meeting, as_many_joined_ids_are_remembered_as_are_joined_in_a_second)
{
    for (unsigned i = 0; i < REMEMBERED; i++)
        join(i);
    for (unsigned i = 0; i < REMEMBERED; i++)
        cr_assert_eq(ask_again(i), -EALREADY, "%u", i);
    cr_expect_eq(ask_again(REMEMBERED), 0);
}

Test(meeting, the_oldest_joined_ids_are_forgotten_first)
{
    for (unsigned i = 0; i < 3 * REMEMBERED + 5; i++)
        join(i);
    cr_expect_eq(ask_again(2 * REMEMBERED + 4), 0);
    cr_expect_eq(ask_again(2 * REMEMBERED + 5), -EALREADY);
    cr_expect_eq(ask_again(3 * REMEMBERED + 4), -EALREADY);
}

Test(meeting, an_id_that_is_joined_twice_is_remembered_until_the_second_is_forgotten)
{
    join(1);
    for (unsigned i = 2; i < REMEMBERED; i++)
        join(i);
    join(1);
    join(REMEMBERED);
    cr_expect_eq(ask_again(1), -EALREADY);
    for (unsigned i = 1; i < REMEMBERED; i++)
        join(REMEMBERED + i);
    cr_expect_eq(ask_again(1), 0);
}

/* Of the table: it is made for the first one, and grows. */
Test(meeting, what_there_is_no_memory_for_is_not_remembered_and_does_no_harm)
{
    unsigned forgotten = 0;

    for (unsigned i = 0; i < 2000; i++) {
        struct waiter waiter = numbered(i);

        until_failure = 0;
        waiter_joined(&forward, &waiter);
        until_failure = -1;
        forgotten += ask_again(i) == 0;
        join(100000 + i);
        cr_assert_eq(ask_again(100000 + i), -EALREADY);
    }
    cr_expect_geq(forgotten, 1);
    cr_expect_lt(forgotten, 2000);
    for (unsigned i = 0; i < 2 * REMEMBERED; i++)
        join(200000 + i);
    cr_expect_eq(ask_again(100000), 0);
}
