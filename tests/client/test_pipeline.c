/* libmeshd's calls side by side on one connection: their order, lookups that travel together, their
 * time, and the loss and return of the node. */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "base/clock.h"
#include "client/answers.h"
#include "client/calls.h"
#include "client/threads_body.h"
#include "wire/status.h"

TestSuite(client_pipeline, .init = calls_setup);

/* ---- side by side ---- */

#define SIDE 8

/* Reads SIDE requests before it answers the first of them, in the order that ctx says. */
static void answer_in_order(struct fake *f, int fd)
{
    const size_t *order = f->ctx;
    struct fake_call calls[SIDE];

    if (!fake_greet(fd))
        return;
    for (size_t i = 0; i < SIDE; i++)
        if (!fake_read(f, fd, &calls[i]))
            return;
    for (size_t i = 0; i < SIDE; i++)
        answer_lookup(f, fd, &calls[order[i]]);
    for (size_t i = 0; i < SIDE; i++)
        fake_call_fini(&calls[i]);
    fake_drain(fd);
}

Test(client_pipeline, answers_and_waits_may_come_in_any_order)
{
    const size_t answers[SIDE] = {7, 0, 3, 6, 1, 2, 5, 4}, waits[SIDE] = {3, 7, 1, 0, 6, 5, 4, 2};
    struct mesh_call *calls[SIDE];
    char names[SIDE][8];

    calls_start(answer_in_order, (void *)answers);
    for (size_t i = 0; i < SIDE; i++) {
        snprintf(names[i], sizeof(names[i]), "s%zu", i);
        calls[i] = calls_begin(names[i], SOON);
    }
    for (size_t i = 0; i < SIDE; i++)
        calls_expect(calls[waits[i]], names[waits[i]]);
    calls_stop();
}

static void tell_each(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        sem_post(&seen);
        answer_lookup(f, fd, &call);
        sem_post(&answered);
        fake_call_fini(&call);
    }
}

Test(client_pipeline, flush_sends_without_waiting)
{
    struct mesh_call *a, *b;

    calls_start(tell_each, NULL);
    a = calls_begin("a", SOON);
    b = calls_begin("b", SOON);
    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    sem_wait(&seen);
    sem_wait(&seen);
    calls_expect(b, "b");
    calls_expect(a, "a");
    calls_stop();
}

Test(client_pipeline, a_call_that_was_cancelled_disturbs_no_other)
{
    struct mesh_call *a, *b;

    calls_start(tell_each, NULL);
    a = calls_begin("a", SOON);
    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    sem_wait(&seen);
    mesh_call_cancel(a); /* under way */
    a = calls_begin("a2", SOON);
    b = calls_begin("b", SOON);
    mesh_call_cancel(a); /* not sent yet */
    calls_expect(b, "b");
    a = calls_begin("a3", SOON);
    b = calls_begin("b2", SOON);
    calls_expect(b, "b2");
    mesh_call_cancel(a); /* answered */
    calls_stop();
}

Test(client_pipeline, many_threads_share_one_connection) { cr_expect_eq(threads_body(false), 0); }

/* ---- lookups that travel together ---- */

static atomic_uint requests, most_names;

/* Counts, and with a refusal in ctx turns down whatever asks for more than one name. */
static void count_requests(struct fake *f, int fd)
{
    const struct refusal *refusal = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        unsigned names = (unsigned)((const Meshd__V1__LookupRequest *)call.request)->n_names;

        atomic_fetch_add(&requests, 1);
        if (names > atomic_load(&most_names))
            atomic_store(&most_names, names);
        if (refusal && names > 1)
            fake_reply(f, fd, &call, refusal->status, refusal->reason, "too much at once", NULL);
        else
            answer_lookup(f, fd, &call);
        fake_call_fini(&call);
    }
}

Test(client_pipeline, lookups_that_leave_together_travel_as_one_and_each_gets_its_part)
{
    const char *pair[] = {"x", "nobody"};
    struct mesh_call *a, *b, *c, *d;
    struct mesh_list *list = NULL;
    size_t n;

    calls_start(count_requests, NULL);
    a = calls_join("a", SOON);
    b = calls_join("bad..name", SOON);
    cr_assert_eq(mesh_lookup_begin(client, pair, 2, SOON, &c), MESH_OK);
    d = calls_join("d", SOON);
    calls_expect(d, "d");
    cr_assert_eq(mesh_call_wait(c, &list), MESH_OK);
    cr_expect_eq(mesh_list_count(list), 1u);
    cr_expect_str_eq(mesh_list_of(list, 0, &n)->name, "x");
    cr_expect_null(mesh_list_of(list, 1, &n));
    cr_expect_null(mesh_list_of(list, 2, &n));
    mesh_list_free(list);
    cr_expect_eq(mesh_call_wait(b, &list), MESH_INVALID, "one bad name is not the others' trouble");
    calls_expect(a, "a");
    cr_expect_eq(atomic_load(&requests), 1u);
    cr_expect_eq(atomic_load(&most_names), 5u);
    calls_stop();
}

Test(client_pipeline, what_is_turned_down_together_is_asked_alone)
{
    const struct refusal refusal = {STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT};
    struct mesh_call *calls[3];
    static const char *const names[] = {"a", "b", "c"};

    calls_start(count_requests, (void *)&refusal);
    for (int i = 0; i < 3; i++)
        calls[i] = calls_join(names[i], SOON);
    for (int i = 2; i >= 0; i--)
        calls_expect(calls[i], names[i]);
    cr_expect_eq(atomic_load(&requests), 4u);
    calls_stop();
}

Test(client_pipeline, who_gives_up_takes_nobody_along)
{
    struct mesh_call *a, *b, *c;

    calls_start(count_requests, NULL);
    a = calls_join("a", SOON);
    b = calls_join("b", SOON);
    mesh_call_cancel(a);
    c = calls_join("c", SOON);
    calls_expect(c, "c");
    calls_expect(b, "b");
    a = calls_join("a", SOON); /* nobody is left in its request */
    mesh_call_cancel(a);
    b = calls_join("b", SOON);
    calls_expect(b, "b");
    calls_stop();
}

Test(client_pipeline, not_too_many_travel_together)
{
    enum { MANY = 200 };
    struct mesh_call *calls[MANY];
    char names[MANY][8];

    calls_start(count_requests, NULL);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "s%d", i);
        calls[i] = calls_join(names[i], SOON);
    }
    for (int i = 0; i < MANY; i++)
        calls_expect(calls[i], names[i]);
    cr_expect_eq(atomic_load(&requests), 4u);
    cr_expect_eq(atomic_load(&most_names), 64u);
    calls_stop();
}

/* ---- time ---- */

/* The first request is answered after the second. */
static void answer_late(struct fake *f, int fd)
{
    struct fake_call first, second;

    if (!fake_greet(fd) || !fake_read(f, fd, &first))
        return;
    if (fake_read(f, fd, &second)) {
        answer_lookup(f, fd, &first);
        answer_lookup(f, fd, &second);
        fake_call_fini(&second);
    }
    fake_call_fini(&first);
    fake_drain(fd);
}

Test(client_pipeline, a_late_answer_is_dropped)
{
    uint64_t began;

    calls_start(answer_late, NULL);
    began = clock_ms();
    cr_expect_eq(calls_lookup("slow", 50), MESH_TIMEOUT);
    cr_expect_geq(clock_ms() - began, 50);
    calls_expect(calls_begin("quick", SOON), "quick");
    calls_stop();
}

Test(client_pipeline, an_answer_that_is_there_counts_although_the_time_is_over)
{
    struct mesh_call *late;
    uint64_t began;

    calls_start(tell_each, NULL);
    began = clock_ms();
    late = calls_begin("late", 30);
    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    sem_wait(&answered);
    while (clock_ms() < began + 60)
        poll(NULL, 0, 5);
    calls_expect(late, "late");
    calls_stop();
}

static void say_nothing(struct fake *f, int fd)
{
    if (fake_greet(fd))
        fake_drain(fd);
}

Test(client_pipeline, others_go_on_when_the_time_of_one_is_over)
{
    struct mesh_call *calls[3];

    calls_start(say_nothing, NULL);
    calls[0] = calls_begin("a", 30);
    calls[1] = calls_begin("b", 10);
    calls[2] = calls_begin("c", 60);
    for (int i = 0; i < 3; i++) {
        struct mesh_list *list;

        cr_expect_eq(mesh_call_wait(calls[i], &list), MESH_TIMEOUT);
    }
    calls_stop();
}

Test(client_pipeline, a_node_that_does_not_greet_ends_at_the_deadline)
{
    fake_black_hole(&fake, SP_TCP);
    cr_expect_eq(mesh_client_open(fake.url, 60, &client), MESH_TIMEOUT);
    fake_stop(&fake);
}

/* ---- loss ---- */

static atomic_int connections;

/* The first connection ends in the middle of an answer, the next few before they greet. */
static void die_in_mid_call(struct fake *f, int fd)
{
    int n = atomic_fetch_add(&connections, 1);
    struct fake_call call;

    if (n == 0) {
        const uint8_t half[12] = {0, 0, 0, 0, 0, 0, 0, 60, 1, 2, 3, 4};

        if (fake_greet(fd) && fake_read(f, fd, &call)) {
            fake_send(fd, half, sizeof(half));
            fake_call_fini(&call);
        }
    } else if (n > 2) {
        serve_answers(f, fd);
    }
}

Test(client_pipeline, what_was_under_way_is_asked_again)
{
    struct mesh_call *a, *b;

    calls_start(die_in_mid_call, NULL);
    a = calls_begin("a", SOON);
    b = calls_begin("b", SOON);
    calls_expect(b, "b");
    calls_expect(a, "a");
    cr_expect_eq(connections, 4);
    calls_stop();
}

/* The second connection is taken and never greeted, as by a process that was stopped. */
static void stand_still_once(struct fake *f, int fd)
{
    int n = atomic_fetch_add(&connections, 1);
    struct fake_call call;

    if (n == 1) {
        fake_drain(fd);
    } else if (n == 0) {
        if (fake_greet(fd) && fake_read(f, fd, &call))
            fake_call_fini(&call);
    } else {
        serve_answers(f, fd);
    }
}

Test(client_pipeline, a_connection_that_stands_still_is_given_up_for_another)
{
    calls_start(stand_still_once, NULL);
    cr_expect_eq(calls_lookup("web", SOON), MESH_OK, "%s", mesh_error_text());
    cr_expect_eq(connections, 3);
    calls_stop();
}

/* Answers once on each connection, as a node that closes what is idle. */
static void answer_once(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    answer_lookup(f, fd, &call);
    fake_call_fini(&call);
}

Test(client_pipeline, a_node_that_closes_what_is_idle_is_asked_all_the_same)
{
    calls_start(answer_once, NULL);
    for (int i = 0; i < 50; i++)
        cr_expect_eq(calls_lookup("web", SOON), MESH_OK, "%d: %s", i, mesh_error_text());
    calls_stop();
}

static void one_connection_only(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    shutdown(f->fd, SHUT_RDWR); /* nobody listens any more */
    if (fake_read(f, fd, &call))
        fake_call_fini(&call);
}

Test(client_pipeline, a_node_that_stays_away_is_gone_at_the_deadline)
{
    uint64_t began;

    calls_start(one_connection_only, NULL);
    began = clock_ms();
    cr_expect_eq(calls_lookup("web", 1000), MESH_GONE);
    cr_expect_geq(clock_ms() - began, 1000);
    cr_expect(strstr(mesh_error_text(), "refused"), "%s", mesh_error_text());
    calls_stop();
}
