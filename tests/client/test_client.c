/* libmeshd's calls: statuses, pipelining, loss and return of the node, strangers at the other end.
 */
#include <criterion/criterion.h>
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <meshd/client.h>
#include "base/clock.h"
#include "client/answers.h"
#include "client/fake.h"
#include "client/threads_body.h"
#include "wire/status.h"

#define SOON 20000 /* ms; what is to succeed has as long as that */

static struct fake fake;
static struct mesh_client *client;
static sem_t seen; /* posted by the fake: it has read a request */

static void setup(void)
{
    alarm(100);
    sem_init(&seen, 0, 0);
}

static void start(void (*serve)(struct fake *fake, int fd), void *ctx)
{
    fake_start(&fake, SP_TCP, serve, ctx);
    cr_assert_eq(mesh_client_open(fake.url, SOON, &client), MESH_OK, "%s", mesh_error_text());
}

static void stop(void)
{
    mesh_client_close(client);
    fake_stop(&fake);
}

TestSuite(client, .init = setup);

static struct mesh_call *begin_joined(const char *name, int deadline_ms)
{
    struct mesh_call *call = NULL;

    cr_assert_eq(mesh_lookup_begin(client, &name, 1, deadline_ms, &call), MESH_OK);
    return call;
}

/* In a request of its own. */
static struct mesh_call *begin(const char *name, int deadline_ms)
{
    struct mesh_call *call = begin_joined(name, deadline_ms);

    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    return call;
}

/* Waits for the call and compares the name in its answer. */
static void expect_answer(struct mesh_call *call, const char *name)
{
    struct mesh_list *list = NULL;
    enum mesh_status status = mesh_call_wait(call, &list);

    cr_assert_eq(status, MESH_OK, "%s", mesh_error_text());
    cr_assert_eq(mesh_list_count(list), 1);
    cr_expect_str_eq(mesh_list_at(list, 0)->name, name);
    mesh_list_free(list);
}

static enum mesh_status lookup(const char *name, int deadline_ms)
{
    struct mesh_list *list = NULL;
    enum mesh_status status = mesh_lookup(client, name, deadline_ms, &list);

    cr_expect_eq(list != NULL, status == MESH_OK);
    mesh_list_free(list);
    return status;
}

/* ---- what an answer becomes ---- */

Test(client, an_answer_becomes_a_list)
{
    const char *names[] = {"web", "nobody", "db"};
    const struct mesh_instance *at;
    struct mesh_list *list;
    size_t n;

    start(serve_answers, NULL);
    cr_assert_eq(mesh_lookup_many(client, names, 3, SOON, &list), MESH_OK, "%s", mesh_error_text());
    cr_expect_eq(mesh_list_count(list), 2);
    cr_expect_eq(mesh_list_current(list), 1);
    cr_expect_null(mesh_list_at(list, 2));
    cr_expect_null(mesh_list_of(list, 1, &n));
    cr_expect_eq(n, 0);
    cr_expect_null(mesh_list_of(list, 3, &n));
    at = mesh_list_of(list, 2, &n);
    cr_assert_eq(n, 1);
    cr_expect_eq(at, mesh_list_at(list, 1));
    cr_expect_str_eq(at->name, "db");
    cr_expect_str_eq(at->node, "n7");
    cr_expect_str_eq(at->source, "10.0.0.7");
    cr_expect_str_eq(at->address, "10.0.0.7:4100");
    cr_expect_eq(at->last_seen, 1700000000);
    cr_expect_eq(at->state, MESH_CONNECTED | MESH_HEALTHY);
    mesh_list_free(list);
    stop();
}

Test(client, nobody_offers_it)
{
    start(serve_answers, NULL);
    cr_expect_eq(lookup("nobody", SOON), MESH_NOT_FOUND);
    cr_expect_str_eq(mesh_error_text(), "nobody offers nobody");
    stop();
}

static void refuse(struct fake *f, int fd)
{
    const struct refusal *refusal = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        fake_reply(f, fd, &call, refusal->status, refusal->reason, "because\x1b[31m", NULL);
        fake_call_fini(&call);
    }
}

Test(client, every_status_of_a_node_has_one_here)
{
    const struct {
        struct refusal refusal;
        enum mesh_status status;
    } table[] = {
        {{STATUS_INVALID_ARGUMENT, 0}, MESH_INVALID},
        {{STATUS_DEADLINE_EXCEEDED, 0}, MESH_TIMEOUT},
        {{STATUS_CANCELLED, 0}, MESH_TIMEOUT},
        {{STATUS_NOT_FOUND, 0}, MESH_NOT_FOUND},
        {{STATUS_ALREADY_EXISTS, 0}, MESH_REFUSED},
        {{STATUS_PERMISSION_DENIED, 0}, MESH_REFUSED},
        {{STATUS_RESOURCE_EXHAUSTED, 0}, MESH_REFUSED},
        {{STATUS_UNAUTHENTICATED, 0}, MESH_REFUSED},
        {{STATUS_FAILED_PRECONDITION, 0}, MESH_REFUSED},
        {{STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION}, MESH_PROTOCOL},
        {{STATUS_UNAVAILABLE, 0}, MESH_GONE},
        {{STATUS_UNIMPLEMENTED, 0}, MESH_PROTOCOL},
        {{STATUS_INTERNAL, 0}, MESH_PROTOCOL},
        {{99, 0}, MESH_PROTOCOL},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        start(refuse, (void *)&table[i].refusal);
        cr_expect_eq(lookup("web", SOON), table[i].status, "status %u", table[i].refusal.status);
        cr_expect(strstr(mesh_error_text(), "because\\x1b[31m"), "%s", mesh_error_text());
        stop();
    }
}

Test(client, another_wire_version_is_told)
{
    const struct refusal refusal = {STATUS_FAILED_PRECONDITION,
                                    MESHD__V1__REASON__REASON_WIRE_VERSION};

    start(refuse, (void *)&refusal);
    cr_expect_eq(lookup("web", SOON), MESH_PROTOCOL);
    cr_expect(strstr(mesh_error_text(), "2 to 3"), "%s", mesh_error_text());
    stop();
}

Test(client, statuses_have_texts)
{
    cr_expect_str_eq(mesh_status_text(MESH_REFUSED), "refused");
    cr_expect_str_eq(mesh_status_text((enum mesh_status)99), "unknown status");
    cr_expect_str_eq(mesh_version(), MESHD_VERSION);
}

/* ---- arguments ---- */

Test(client, what_cannot_be_is_refused_without_asking)
{
    static const char *many[1001];
    struct mesh_call *call = NULL;
    struct mesh_client *none = NULL;
    struct mesh_lease *lease = NULL;
    char longest[300];

    start(serve_answers, NULL);
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < 1001; i++)
        many[i] = "web";
    cr_expect_eq(mesh_client_open("http://x", SOON, &none), MESH_INVALID);
    cr_expect_eq(mesh_client_open("tls://127.0.0.1:1", SOON, &none), MESH_INVALID);
    cr_expect_eq(mesh_client_open(fake.url, 0, &none), MESH_INVALID);
    cr_expect_eq(mesh_client_open(fake.url, 600001, &none), MESH_INVALID);
    cr_expect_null(none);
    cr_expect_eq(lookup("web", 0), MESH_INVALID);
    cr_expect_eq(lookup("", SOON), MESH_INVALID);
    cr_expect_eq(lookup(NULL, SOON), MESH_INVALID);
    cr_expect_eq(lookup("a b", SOON), MESH_INVALID);
    cr_expect_eq(lookup("a\xff", SOON), MESH_INVALID);
    cr_expect_eq(lookup(longest, SOON), MESH_INVALID);
    cr_expect_eq(mesh_lookup_begin(client, many, 1001, SOON, &call), MESH_INVALID);
    cr_expect_eq(mesh_lookup_begin(client, many, 0, SOON, &call), MESH_INVALID);
    cr_expect_null(call);
    cr_expect_eq(mesh_register(client, "web", "1.2.3.4:5", SOON, &lease), MESH_INVALID);
    cr_expect_eq(mesh_register(client, "we b", "1.2.3.4:5", SOON, &lease), MESH_INVALID);
    cr_expect_eq(mesh_register(client, "web", "1.2.3.4", SOON, &lease), MESH_INVALID);
    cr_expect_null(lease);
    cr_expect_eq(lookup("web", SOON), MESH_OK, "the connection is as good as before");
    mesh_list_free(NULL);
    mesh_client_close(NULL);
    mesh_call_cancel(NULL);
    mesh_maps_free(NULL);
    mesh_lease_close(NULL);
    stop();
}

Test(client, a_name_that_the_node_cannot_make_canonical_is_invalid)
{
    start(serve_answers, NULL);
    cr_expect_eq(lookup("bad..name", SOON), MESH_INVALID);
    stop();
}

Test(client, nobody_listens_is_told_at_once)
{
    struct mesh_client *none = NULL;
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", (unsigned)fake_free_port());
    cr_expect_eq(mesh_client_open(url, 600000, &none), MESH_GONE);
    cr_expect(strstr(mesh_error_text(), url), "%s", mesh_error_text());
    cr_expect_eq(mesh_client_open("ipc:///nowhere/at/all.sock", 600000, &none), MESH_GONE);
    cr_expect_null(none);
}

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

Test(client, answers_and_waits_may_come_in_any_order)
{
    const size_t answers[SIDE] = {7, 0, 3, 6, 1, 2, 5, 4}, waits[SIDE] = {3, 7, 1, 0, 6, 5, 4, 2};
    struct mesh_call *calls[SIDE];
    char names[SIDE][8];

    start(answer_in_order, (void *)answers);
    for (size_t i = 0; i < SIDE; i++) {
        snprintf(names[i], sizeof(names[i]), "s%zu", i);
        calls[i] = begin(names[i], SOON);
    }
    for (size_t i = 0; i < SIDE; i++)
        expect_answer(calls[waits[i]], names[waits[i]]);
    stop();
}

static void tell_each(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        sem_post(&seen);
        answer_lookup(f, fd, &call);
        fake_call_fini(&call);
    }
}

Test(client, flush_sends_without_waiting)
{
    struct mesh_call *a, *b;

    start(tell_each, NULL);
    a = begin("a", SOON);
    b = begin("b", SOON);
    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    sem_wait(&seen);
    sem_wait(&seen);
    expect_answer(b, "b");
    expect_answer(a, "a");
    stop();
}

Test(client, a_call_that_was_cancelled_disturbs_no_other)
{
    struct mesh_call *a, *b;

    start(tell_each, NULL);
    a = begin("a", SOON);
    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    sem_wait(&seen);
    mesh_call_cancel(a); /* under way */
    a = begin("a2", SOON);
    b = begin("b", SOON);
    mesh_call_cancel(a); /* not sent yet */
    expect_answer(b, "b");
    a = begin("a3", SOON);
    b = begin("b2", SOON);
    expect_answer(b, "b2");
    mesh_call_cancel(a); /* answered */
    stop();
}

Test(client, many_threads_share_one_connection) { cr_expect_eq(threads_body(false), 0); }

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

Test(client, lookups_that_leave_together_travel_as_one_and_each_gets_its_part)
{
    const char *pair[] = {"x", "nobody"};
    struct mesh_call *a, *b, *c, *d;
    struct mesh_list *list = NULL;
    size_t n;

    start(count_requests, NULL);
    a = begin_joined("a", SOON);
    b = begin_joined("bad..name", SOON);
    cr_assert_eq(mesh_lookup_begin(client, pair, 2, SOON, &c), MESH_OK);
    d = begin_joined("d", SOON);
    expect_answer(d, "d");
    cr_assert_eq(mesh_call_wait(c, &list), MESH_OK);
    cr_expect_eq(mesh_list_count(list), 1u);
    cr_expect_str_eq(mesh_list_of(list, 0, &n)->name, "x");
    cr_expect_null(mesh_list_of(list, 1, &n));
    cr_expect_null(mesh_list_of(list, 2, &n));
    mesh_list_free(list);
    cr_expect_eq(mesh_call_wait(b, &list), MESH_INVALID, "one bad name is not the others' trouble");
    expect_answer(a, "a");
    cr_expect_eq(atomic_load(&requests), 1u);
    cr_expect_eq(atomic_load(&most_names), 5u);
    stop();
}

Test(client, what_is_turned_down_together_is_asked_alone)
{
    const struct refusal refusal = {STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT};
    struct mesh_call *calls[3];
    static const char *const names[] = {"a", "b", "c"};

    start(count_requests, (void *)&refusal);
    for (int i = 0; i < 3; i++)
        calls[i] = begin_joined(names[i], SOON);
    for (int i = 2; i >= 0; i--)
        expect_answer(calls[i], names[i]);
    cr_expect_eq(atomic_load(&requests), 4u);
    stop();
}

Test(client, who_gives_up_takes_nobody_along)
{
    struct mesh_call *a, *b, *c;

    start(count_requests, NULL);
    a = begin_joined("a", SOON);
    b = begin_joined("b", SOON);
    mesh_call_cancel(a);
    c = begin_joined("c", SOON);
    expect_answer(c, "c");
    expect_answer(b, "b");
    a = begin_joined("a", SOON); /* nobody is left in its request */
    mesh_call_cancel(a);
    b = begin_joined("b", SOON);
    expect_answer(b, "b");
    stop();
}

Test(client, not_too_many_travel_together)
{
    enum { MANY = 200 };
    struct mesh_call *calls[MANY];
    char names[MANY][8];

    start(count_requests, NULL);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "s%d", i);
        calls[i] = begin_joined(names[i], SOON);
    }
    for (int i = 0; i < MANY; i++)
        expect_answer(calls[i], names[i]);
    cr_expect_eq(atomic_load(&requests), 4u);
    cr_expect_eq(atomic_load(&most_names), 64u);
    stop();
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

Test(client, a_late_answer_is_dropped)
{
    uint64_t began;

    start(answer_late, NULL);
    began = clock_ms();
    cr_expect_eq(lookup("slow", 50), MESH_TIMEOUT);
    cr_expect_geq(clock_ms() - began, 50);
    expect_answer(begin("quick", SOON), "quick");
    stop();
}

Test(client, an_answer_that_is_there_counts_although_the_time_is_over)
{
    struct mesh_call *late;
    uint64_t began = clock_ms();

    start(tell_each, NULL);
    late = begin("late", 30);
    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    sem_wait(&seen);
    while (clock_ms() < began + 60)
        poll(NULL, 0, 5);
    expect_answer(late, "late");
    stop();
}

static void say_nothing(struct fake *f, int fd)
{
    if (fake_greet(fd))
        fake_drain(fd);
}

Test(client, others_go_on_when_the_time_of_one_is_over)
{
    struct mesh_call *calls[3];

    start(say_nothing, NULL);
    calls[0] = begin("a", 30);
    calls[1] = begin("b", 10);
    calls[2] = begin("c", 60);
    for (int i = 0; i < 3; i++) {
        struct mesh_list *list;

        cr_expect_eq(mesh_call_wait(calls[i], &list), MESH_TIMEOUT);
    }
    stop();
}

Test(client, a_node_that_does_not_greet_ends_at_the_deadline)
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

Test(client, what_was_under_way_is_asked_again)
{
    struct mesh_call *a, *b;

    start(die_in_mid_call, NULL);
    a = begin("a", SOON);
    b = begin("b", SOON);
    expect_answer(b, "b");
    expect_answer(a, "a");
    cr_expect_eq(connections, 4);
    stop();
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

Test(client, a_connection_that_stands_still_is_given_up_for_another)
{
    start(stand_still_once, NULL);
    cr_expect_eq(lookup("web", SOON), MESH_OK, "%s", mesh_error_text());
    cr_expect_eq(connections, 3);
    stop();
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

Test(client, a_node_that_closes_what_is_idle_is_asked_all_the_same)
{
    start(answer_once, NULL);
    for (int i = 0; i < 50; i++)
        cr_expect_eq(lookup("web", SOON), MESH_OK, "%d: %s", i, mesh_error_text());
    stop();
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

Test(client, a_node_that_stays_away_is_gone_at_the_deadline)
{
    uint64_t began;

    start(one_connection_only, NULL);
    began = clock_ms();
    cr_expect_eq(lookup("web", 200), MESH_GONE);
    cr_expect_geq(clock_ms() - began, 200);
    cr_expect(strstr(mesh_error_text(), "refused"), "%s", mesh_error_text());
    stop();
}

/* ---- strangers ---- */

/* What a stranger answers to the first request of its first connection. */
static void answer_garbage(struct fake *f, int fd)
{
    const char *bytes = f->ctx;
    struct fake_call call;

    if (atomic_fetch_add(&connections, 1) > 0) {
        serve_answers(f, fd);
        return;
    }
    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    fake_send(fd, bytes, 24);
    fake_call_fini(&call);
    fake_drain(fd);
}

static void garbage(const char bytes[24])
{
    atomic_store(&connections, 0);
    start(answer_garbage, (void *)bytes);
    cr_expect_eq(lookup("web", SOON), MESH_PROTOCOL);
    cr_expect_eq(lookup("web", SOON), MESH_OK, "%s", mesh_error_text());
    stop();
}

Test(client, garbage_is_a_protocol_error_and_the_next_call_begins_anew)
{
    garbage("HTTP/1.1 400 Bad Request"); /* a huge length */
    garbage("\0\0\0\0\0\0\0\x10"
            "aaaaaaaaaaaaaaaa"); /* no backtrace */
    garbage("\0\0\0\0\0\0\0\x02"
            "\x80\0aaaaaaaaaaaaaa"); /* nor room for one */
    garbage("\0\0\0\0\0\0\0\x10"
            "\0\0\0\1\x80\0\0\1"
            "aaaaaaaa"); /* one word too many */
}

/* A whole reply, with what is wrong in it. */
static void answer_wrong(struct fake *f, int fd)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    const char *how = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        if (strcmp(how, "call id") == 0) {
            header.call_id = call.header->call_id + 1;
            call.header = &header;
            fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        } else if (strcmp(how, "no results") == 0) {
            fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        } else {
            fake_reply(f, fd, &call, 0, 0, "", &call.header->base); /* another message */
        }
        fake_call_fini(&call);
    }
}

Test(client, an_answer_that_is_none_to_this_call_is_a_protocol_error)
{
    const char *const how[] = {"call id", "no results", "another message"};

    for (size_t i = 0; i < sizeof(how) / sizeof(*how); i++) {
        start(answer_wrong, (void *)how[i]);
        cr_expect_eq(lookup("web", SOON), MESH_PROTOCOL, "%s", how[i]);
        stop();
    }
}

static void greet_as_pair(struct fake *f, int fd)
{
    const uint8_t hello[SP_HELLO_LEN] = {0, 'S', 'P', 0, 0, SP_PAIR1, 0, 0};

    fake_send(fd, hello, sizeof(hello));
    fake_drain(fd);
}

Test(client, what_is_no_meshd_is_told)
{
    fake_start(&fake, SP_TCP, greet_as_pair, NULL);
    cr_expect_eq(mesh_client_open(fake.url, SOON, &client), MESH_PROTOCOL);
    cr_expect(strstr(mesh_error_text(), "not a meshd"), "%s", mesh_error_text());
    fake_stop(&fake);
}
