/* What is told of streams that a peer broke off, by what became of the link with it. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "forward/inside.h"
#include "forward/record_rig.h"
#include "forward/session.h"

TestSuite(doubt, .init = record_setup, .timeout = 60);

Test(doubt, a_backend_that_breaks_off_is_told_by_both)
{
    int client, backend;

    record_join(&client, &backend);
    net_reset(backend);
    record_both_ended(FORWARD_BACKEND_RESET, "broken off by l, which is there: its log says why");
    record_times_fit(&record_of(2, false)->record);
    close(client);
    record_finish();
}

/* The workers of the client's side are at so many. They look again at the end of a stream. */
static void set_doubts(size_t n)
{
    struct forward *forward = rig.sides[DIALLER].forward;

    for (unsigned i = 0; i < forward->n_workers; i++)
        forward->workers[i].n_doubts = n;
}

static size_t doubts(void)
{
    struct forward *forward = rig.sides[DIALLER].forward;
    size_t n = 0;

    rig_settle(forward);
    for (unsigned i = 0; i < forward->n_workers; i++)
        n += forward->workers[i].n_doubts;
    return n;
}

Test(doubt, one_stream_too_many_is_told_of_without_it)
{
    int client, backend;

    record_join(&client, &backend);
    set_doubts(LIMIT_DOUBTS);
    net_reset(backend);
    record_both_ended(FORWARD_BACKEND_RESET, "");
    RIG_WAIT(&rig, DIALLER, ends[FORWARD_BACKEND_RESET], 1);
    set_doubts(0);
    close(client);
    record_finish();
}

Test(doubt, what_was_told_leaves_room)
{
    int client, backend;

    record_join(&client, &backend);
    set_doubts(LIMIT_DOUBTS - 1);
    net_reset(backend);
    record_both_ended(FORWARD_BACKEND_RESET, "broken off by l, which is there: its log says why");
    cr_expect_eq(doubts(), rig.sides[DIALLER].forward->n_workers * (LIMIT_DOUBTS - 1));
    close(client);
    record_finish();
}

/* On a machine that stood still meanwhile the two may be too far apart. */
static void ended_with_its_link(uint64_t begun_ms)
{
    bool soon = clock_ms() - begun_ms < 500;

    if (soon)
        record_both_ended(FORWARD_BACKEND_RESET,
                          "the way to l broke, or l is gone: its link ended, too");
    else
        cr_expect_eq(record_of(2, false)->record.end, FORWARD_BACKEND_RESET);
}

/* As if its owner were gone: which of the two is seen first is chance. */
static void ends_with_its_link(bool before)
{
    int client, backend;
    uint64_t begun_ms;

    record_join(&client, &backend);
    begun_ms = clock_ms();
    if (before)
        rig_link_down(&rig);
    net_reset(backend);
    wait_until(records_are, &(size_t){1});
    if (!before)
        rig_link_down(&rig);
    ended_with_its_link(begun_ms);
    close(client);
    rig_stop(&rig);
    close(listener);
    rig_check_descriptors(&rig);
}

Test(doubt, who_is_broken_off_when_the_link_ends_is_told_so) { ends_with_its_link(false); }

Test(doubt, who_is_broken_off_when_the_link_has_ended_is_told_so) { ends_with_its_link(true); }

/* As of a host that fell silent, or of a link that broke alone. */
Test(doubt, who_is_broken_off_long_after_its_link_is_told_that_it_may_be_either)
{
    static const char begin[] = "broken off by l, or lost on the way: its link had ended ";
    unsigned long seconds;
    char *rest;
    struct session *session;
    int client, backend;

    record_join(&client, &backend);
    session = session_by_id(rig.sides[DIALLER].forward, rig.session_id);
    cr_assert(session);
    rig_link_down(&rig);
    cr_assert(atomic_load(&session->over));
    atomic_store(&session->over_ms, clock_ms() - 30000);
    session_unref(session);
    net_reset(backend);
    wait_until(records_are, &(size_t){2});
    cr_expect_eq(record_of(2, false)->record.end, FORWARD_BACKEND_RESET);
    cr_assert_eq(strncmp(record_of(2, false)->text, begin, strlen(begin)), 0, "%s",
                 record_of(2, false)->text);
    seconds = strtoul(record_of(2, false)->text + strlen(begin), &rest, 10);
    cr_expect_str_eq(rest, " s before");
    cr_expect(seconds >= 30 && seconds < 90, "%lu", seconds);
    close(client);
    rig_stop(&rig);
    close(listener);
    rig_check_descriptors(&rig);
}

Test(doubt, who_may_have_lost_its_owner_at_the_end_is_told_of_at_once)
{
    int client, backend;
    uint64_t begun_ms;

    record_join(&client, &backend);
    begun_ms = clock_ms();
    net_reset(backend);
    wait_until(records_are, &(size_t){1});
    RIG_WAIT(&rig, DIALLER, ends[FORWARD_BACKEND_RESET], 1);
    rig_link_down(&rig);
    rig_stop(&rig);
    ended_with_its_link(begun_ms);
    close(client);
    close(listener);
    rig_check_descriptors(&rig);
}
