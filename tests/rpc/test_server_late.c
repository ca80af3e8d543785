/* Tests of rpc/server: deadlines, late and foreign answers, callers that vanish, many calls at once
 * over several lanes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/clock.h"
#include "rpc/serving.h"
#include "wire/frame.h"

TestSuite(server_late, .init = serving_setup, .fini = serving_teardown);

static void *answer_all(void *arg)
{
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
    unsigned n = *(unsigned *)arg;

    reply.verdict = (char *)"later";
    for (unsigned i = 0; i < n; i++)
        rpc_call_reply(held_calls[n - 1 - i], STATUS_OK, MESHD__V1__REASON__REASON_NONE, NULL,
                       &reply.base);
    return NULL;
}

static void answer_held(unsigned n)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, answer_all, &n), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(server_late, as_many_calls_as_contexts_are_answered_later_from_another_thread)
{
    Meshd__V1__CallHeader header = good;
    bool answered[CONTEXTS] = {0};

    header.method = (char *)"/meshd.v1.Registry/Explain";
    for (uint32_t i = 0; i < CONTEXTS; i++)
        serving_ask_id(lane, i, &header, NULL);
    cr_assert(tally_wait(&held, CONTEXTS));
    cr_assert_eq(serving_counters().in_progress, CONTEXTS);
    answer_held(CONTEXTS);
    for (uint32_t i = 0; i < CONTEXTS; i++) {
        uint32_t id = serving_read(lane, CONN, 0);

        serving_expect(STATUS_OK, 0, 42);
        cr_assert_lt(id, CONTEXTS);
        cr_assert_not(answered[id]);
        answered[id] = true;
    }
}

Test(server_late, answer_after_the_deadline_is_deadline_exceeded)
{
    Meshd__V1__CallHeader header = good;
    uint64_t deadline;

    header.method = (char *)"/meshd.v1.Registry/Explain";
    header.deadline_ms = 20;
    serving_ask_id(lane, 1, &header, NULL);
    cr_assert(tally_wait(&held, 1));
    deadline = rpc_call_deadline_ms(held_calls[0]);
    cr_assert_leq(deadline, clock_ms() + 20);
    while (clock_ms() <= deadline)
        tally_wait_ms(&held, 2, 5);
    answer_held(1);
    serving_read(lane, CONN, 0);
    serving_expect(STATUS_DEADLINE_EXCEEDED, 0, 42);
    cr_assert_eq(serving_counters().late, 1);
}

Test(server_late, caller_that_has_gone_runs_nothing)
{
    uint8_t frame[200];
    Meshd__V1__CallHeader header = good;

    header.method = (char *)"/meshd.v1.Registry/Explain";
    frame_pack(&header.base, NULL, frame);
    serving_ask_raw(lane, CONN_GONE, 0, 3, frame, frame_size(&header.base, NULL));
    cr_assert_eq(serving_read(lane, CONN_GONE, 0), 3);
    serving_expect(STATUS_CANCELLED, 0, 0);
    cr_assert_eq(tally_value(&held), 0);
    cr_assert_eq(serving_counters().dropped, 1);
}

Test(server_late, request_without_a_connection_number_is_dropped_and_the_next_answered)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = serving_lookup_of(&name, 1);

    for (unsigned i = 0; i < 2 * CONTEXTS; i++) {
        serving_ask_raw(lane, 0, 0, 9, "x", 1);
        cr_assert(fake_write(lane, "\x00\x00\x00\x01\x80\x00\x00\x01\x01", 9)); /* cut short */
    }
    /* Contexts work side by side: the last drop may be counted after an answer or two. */
    do {
        serving_ask(&good, &request.base);
        serving_expect(STATUS_OK, 0, 42);
    } while (serving_counters().dropped < 4 * CONTEXTS &&
             serving_counters().calls < 100 * CONTEXTS);
    cr_assert_eq(serving_counters().dropped, 4 * CONTEXTS);
}

Test(server_late, lane_that_goes_before_the_answer_harms_nobody)
{
    Meshd__V1__CallHeader header = good;
    int other = fake_join(fake_path(0), SP_REQ0);
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request = serving_lookup_of(&name, 1);

    header.method = (char *)"/meshd.v1.Registry/Explain";
    for (uint32_t i = 0; i < 5; i++)
        serving_ask_id(other, i, &header, NULL);
    cr_assert(tally_wait(&held, 5));
    cr_assert(fake_end(other, 0));
    answer_held(5);
    for (unsigned i = 0; i < 2 * CONTEXTS; i++) { /* every context still works */
        serving_ask(&good, &request.base);
        serving_expect(STATUS_OK, 0, 42);
    }
}

Test(server_late, call_unanswered_at_the_close_may_still_be_answered)
{
    Meshd__V1__CallHeader header = good;
    uint64_t begun;

    header.method = (char *)"/meshd.v1.Registry/Explain";
    serving_ask_id(lane, 1, &header, NULL);
    cr_assert(tally_wait(&held, 1));
    cr_assert(fake_end(lane, 0));
    begun = clock_ms();
    rpc_server_close(server);
    cr_assert_geq(clock_ms() - begun, 990);
    answer_held(1);
    unlink(fake_path(0));
    serving_setup(); /* for the teardown */
}

/* ---- storms ---- */

struct lane_thread {
    pthread_t thread;
    uint64_t sessions, seed;
    uint64_t answers;
    bool ok;
    const char *failed; /* what */
};

static void check(struct lane_thread *t, bool ok, const char *what)
{
    if (ok || !t->ok)
        return;
    t->ok = false;
    t->failed = what;
}

static void lane_ask(struct lane_thread *t, int fd, uint32_t id)
{
    char *name = (char *)"web";
    Meshd__V1__LookupRequest request =
        serving_lookup_of(&name, fake_random(&t->seed, 8) ? 1 : 3000);
    uint8_t frame[200], *bytes;
    size_t len;

    frame_pack(&good.base, &request.base, frame);
    bytes = fake_request(CONN, 0, id, frame, frame_size(&good.base, &request.base), &len);
    check(t, fake_write(fd, bytes, len), "write");
    free(bytes);
}

/* Sessions of one lane, each with up to 64 requests in flight, ended in order. */
static void *lane_run(void *arg)
{
    struct lane_thread *t = arg;

    for (uint64_t s = 0; s < t->sessions && t->ok; s++) {
        int fd = fake_join(fake_path(0), SP_REQ0);
        unsigned total = 1 + fake_random(&t->seed, 200), asked = 0, read = 0;

        check(t, fd >= 0, "join");
        while (t->ok && read < total) {
            while (asked < total && asked - read < 64)
                lane_ask(t, fd, asked++);
            for (unsigned n = 1 + fake_random(&t->seed, asked - read); t->ok && n > 0; n--) {
                size_t len;
                uint8_t *reply = fake_read(fd, &len);

                check(t, reply != NULL, "read");
                free(reply);
                read++;
                t->answers++;
            }
        }
        if (t->ok)
            check(t, fake_end(fd, 0), "end");
    }
    return NULL;
}

Test(server_late, storm_of_lanes_with_many_requests_in_flight, .timeout = 0)
{
    uint64_t seed = fake_seed(), answers = 0;
    struct lane_thread threads[4];

    alarm(0);
    for (int i = 0; i < 4; i++) {
        threads[i] = (struct lane_thread){.sessions = fake_sessions(300) / 4, .ok = true};
        threads[i].seed = seed + (uint64_t)i;
        cr_assert_eq(pthread_create(&threads[i].thread, NULL, lane_run, &threads[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i].thread, NULL), 0);
        cr_assert(threads[i].ok, "lane %d: %s", i, threads[i].failed);
        answers += threads[i].answers;
    }
    cr_assert_eq(serving_counters().calls, answers);
    cr_assert_eq(serving_counters().failed, 0);
    fprintf(stderr, "answers=%llu\n", (unsigned long long)answers);
}
