/* Two forward rooms and the way between them, as long as nothing goes wrong. */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/inside.h"
#include "forward/must.h"
#include "forward/rig.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }

TestSuite(pass, .init = setup, .timeout = 60);

static void start(void)
{
    rig_start(&rig);
    rig_link_up(&rig);
}

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static int ask(enum side from)
{
    int fd = net_connect(rig.sides[from].port);

    net_send(fd, request, strlen(request));
    return fd;
}

static void answer_and_close(int client, int backend)
{
    char got[64];

    net_send(backend, "hello", 5);
    shutdown(backend, SHUT_WR);
    MUST(net_read_all(client, got, sizeof got) == 5);
    cr_assert_str_eq(got, "hello");
    shutdown(client, SHUT_WR);
    MUST(net_read_all(backend, got, sizeof got) == 0);
    close(client);
    close(backend);
}

static void ask_and_be_answered(enum side from, int listener)
{
    int client = ask(from), backend = net_accept(listener);

    net_expect(backend, request, strlen(request));
    answer_and_close(client, backend);
}

/* One client of `from` to a backend of the other side, or of its own. */
static void carried(enum side from, enum side owner)
{
    char addr[32];
    int listener = net_listen(addr);

    start();
    rig_offer(&rig, owner, "web", addr);
    ask_and_be_answered(from, listener);
    close(listener);
    RIG_WAIT(&rig, from, ends[FORWARD_DONE], 1);
    RIG_WAIT(&rig, owner, served, 0);
    /* The first of them went with the Forward, if there was one. */
    cr_expect_eq(rig_counters(&rig, from).bytes_up, strlen(request));
    cr_expect_eq(rig_counters(&rig, owner).bytes_up, strlen(request));
    cr_expect_eq(rig_counters(&rig, from).bytes_down, 5);
    cr_expect_eq(rig_counters(&rig, owner).bytes_down, 5);
    rig_end(&rig);
}

Test(pass, a_local_backend_is_reached) { carried(DIALLER, DIALLER); }

Test(pass, the_side_that_dialled_reaches_the_other) { carried(DIALLER, LISTENER); }

Test(pass, the_side_that_was_dialled_reaches_the_other) { carried(LISTENER, DIALLER); }

/* ---- many ---- */

#define MANY 200

/* Each backend says which client it has, and each client hears its own number. */
static void many(enum side from, enum side owner)
{
    static int clients[MANY];
    char addr[32], line[80], got[64];
    int listener = net_listen(addr);

    start();
    rig_offer(&rig, owner, "web", addr);
    for (int i = 0; i < MANY; i++) {
        clients[i] = net_connect(rig.sides[from].port);
        snprintf(line, sizeof line, "GET /%03d HTTP/1.1\r\nHost: web\r\n\r\n", i);
        net_send(clients[i], line, strlen(line));
    }
    for (int i = 0; i < MANY; i++) {
        int backend = net_accept(listener);

        MUST(recv(backend, line, strlen(request) + 3, MSG_WAITALL) == (ssize_t)strlen(request) + 3);
        net_send(backend, line + 5, 3);
        close(backend);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(line, sizeof line, "%03d", i);
        MUST(net_read_all(clients[i], got, sizeof got) == 3);
        cr_assert_str_eq(got, line);
        close(clients[i]);
    }
    close(listener);
    rig_end(&rig);
}

Test(pass, many_clients_reach_a_local_backend_at_once) { many(DIALLER, DIALLER); }

Test(pass, many_clients_of_the_dialler_are_carried_at_once) { many(DIALLER, LISTENER); }

Test(pass, many_clients_of_the_listener_are_carried_at_once) { many(LISTENER, DIALLER); }

/* ---- warm connections ---- */

static bool is_warm(void *arg) { return rig_counters(&rig, *(enum side *)arg).warm > 0; }

/* The wish of the side that was dialled, as Heartbeats would carry it. */
static void tell_wish(enum side from)
{
    if (from == LISTENER)
        forward_data_wish(rig.sides[DIALLER].forward, 7,
                          forward_data_wanted(rig.sides[LISTENER].forward, 7));
}

Test(pass, the_largest_head_is_the_largest_of_any_worker)
{
    struct worker *workers;

    start();
    workers = rig.sides[DIALLER].forward->workers;
    __atomic_store_n(&workers[0].count.largest_head, 300, __ATOMIC_RELAXED);
    __atomic_store_n(&workers[1].count.largest_head, 200, __ATOMIC_RELAXED);
    cr_assert_eq(rig_counters(&rig, DIALLER).largest_head, 300);
    __atomic_store_n(&workers[1].count.largest_head, 400, __ATOMIC_RELAXED);
    cr_assert_eq(rig_counters(&rig, DIALLER).largest_head, 400);
    rig_end(&rig);
}

static void warm_ones_are_used(enum side from)
{
    enum side owner = !from;
    char addr[32];
    int listener = net_listen(addr);

    rig.settings.workers = 1;
    start();
    rig_offer(&rig, owner, "web", addr);
    ask_and_be_answered(from, listener);
    tell_wish(from);
    wait_until(is_warm, &from);
    for (int i = 0; i < 5; i++) {
        uint64_t dialled = rig_counters(&rig, DIALLER).data_dialled;
        struct forward_counters before = rig_counters(&rig, from), after;

        ask_and_be_answered(from, listener);
        after = rig_counters(&rig, from);
        cr_assert_eq(after.forwarded, before.forwarded + 1);
        /* Another one takes the place of the one that was used, and none was dialled to wait for.
         */
        wait_until(is_warm, &from);
        cr_assert_leq(rig_counters(&rig, DIALLER).data_dialled, dialled + 2);
    }
    cr_assert_eq(rig_counters(&rig, from).data_dead, 0);
    close(listener);
    rig_end(&rig);
}

Test(pass, warm_connections_of_the_dialler_are_used_and_refilled) { warm_ones_are_used(DIALLER); }

Test(pass, warm_connections_of_the_listener_are_used_and_refilled) { warm_ones_are_used(LISTENER); }

static void warm_ones_are_limited(enum side from, uint64_t most)
{
    char addr[32];
    int listener = net_listen(addr);

    rig.settings.workers = 1;
    rig.limits.data_warm_per_link = most;
    start();
    rig_offer(&rig, !from, "web", addr);
    for (int i = 0; i < 20; i++) {
        ask_and_be_answered(from, listener);
        forward_data_wish(rig.sides[DIALLER].forward, 7, 1000);
        rig_settle(rig.sides[DIALLER].forward);
        cr_assert_leq(rig_counters(&rig, from).warm, 2 * most, "%lu",
                      rig_counters(&rig, from).warm);
    }
    close(listener);
    rig_end(&rig);
}

Test(pass, no_connection_is_kept_warm_if_none_may_be) { warm_ones_are_limited(DIALLER, 0); }

Test(pass, no_connection_is_kept_warm_for_the_other_side_if_none_may_be)
{
    warm_ones_are_limited(LISTENER, 0);
}

Test(pass, one_connection_is_kept_warm_each_way_if_one_may_be)
{
    warm_ones_are_limited(DIALLER, 1);
}

/* ---- first bytes ---- */

/* A head of so many bytes, and more behind it. */
static void head_passes(enum side from, size_t len)
{
    char addr[32], *head = malloc(len + 1), *expected = malloc(len + 5);
    int listener = net_listen(addr), client, backend;

    start();
    rig_offer(&rig, !from, "web", addr);
    snprintf(head, len + 1, "GET / HTTP/1.1\r\nHost: web\r\nX: ");
    memset(head + strlen(head), 'x', len - strlen(head));
    memcpy(head + len - 4, "\r\n\r\n", 4);
    memcpy(expected, head, len);
    memcpy(expected + len, "after", 5);
    client = net_connect(rig.sides[from].port);
    net_send(client, head, len);
    backend = net_accept(listener);
    net_send(client, "after", 5);
    net_expect(backend, expected, len + 5);
    answer_and_close(client, backend);
    free(head);
    free(expected);
    close(listener);
    rig_end(&rig);
}

Test(pass, as_many_first_bytes_as_a_forward_holds_arrive_once)
{
    head_passes(DIALLER, LIMIT_FIRST_BYTES);
}

Test(pass, more_first_bytes_than_a_forward_holds_arrive_once) { head_passes(DIALLER, 40000); }

Test(pass, more_first_bytes_of_the_listener_than_a_forward_holds_arrive_once)
{
    head_passes(LISTENER, 40000);
}

static void server_speaks_first(enum side from, enum side owner)
{
    char addr[32];
    int listener = net_listen(addr), client, backend;

    start();
    rig_offer(&rig, owner, "db", addr);
    client = net_connect(rig.sides[from].mapped);
    backend = net_accept(listener);
    net_send(backend, "welcome", 7);
    net_expect(client, "welcome", 7);
    net_send(client, "x", 1);
    net_expect(backend, "x", 1);
    answer_and_close(client, backend);
    close(listener);
    rig_end(&rig);
}

Test(pass, a_server_speaks_first_locally) { server_speaks_first(LISTENER, LISTENER); }

Test(pass, a_server_speaks_first_to_the_side_that_dialled)
{
    server_speaks_first(DIALLER, LISTENER);
}

Test(pass, a_server_speaks_first_to_the_side_that_was_dialled)
{
    server_speaks_first(LISTENER, DIALLER);
}

static void say_urgently(int from, int to)
{
    net_send(from, "a", 1);
    MUST(send(from, "b", 1, MSG_OOB) == 1);
    net_send(from, "c", 1);
    net_expect(to, "abc", 3);
}

static void urgent_bytes_keep_their_place(enum side from, enum side owner)
{
    char addr[32];
    int listener = net_listen(addr), client, backend;

    start();
    rig_offer(&rig, owner, "db", addr);
    client = net_connect(rig.sides[from].mapped);
    backend = net_accept(listener);
    say_urgently(client, backend);
    say_urgently(backend, client);
    answer_and_close(client, backend);
    close(listener);
    rig_end(&rig);
}

Test(pass, urgent_bytes_keep_their_place_locally)
{
    urgent_bytes_keep_their_place(DIALLER, DIALLER);
}

Test(pass, urgent_bytes_keep_their_place_between_two_nodes)
{
    urgent_bytes_keep_their_place(DIALLER, LISTENER);
}

/* ---- sessions come and go ---- */

/* Clients of that side, as it would weigh them. */
static uint32_t carried_by_owner(enum side from)
{
    struct registry_route route;
    struct forward_candidate candidate;
    struct forward_explained explained = {.routes = {.at = &route, .cap = 1}, .at = &candidate};

    forward_explain(rig.sides[from].forward, "web", 3, &explained);
    registry_routes_fini(&explained.routes);
    return candidate.active;
}

static void streams_outlive_the_session(enum side from)
{
    char addr[32];
    int listener = net_listen(addr), client, backend, later, later_backend;

    start();
    rig_offer(&rig, !from, "web", addr);
    client = ask(from);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    net_send(backend, "1", 1);
    net_expect(client, "1", 1);
    rig_link_down(&rig);
    rig_link_up(&rig);
    rig_settle(rig.sides[DIALLER].forward);
    rig_settle(rig.sides[LISTENER].forward);
    net_send(client, "2", 1);
    net_expect(backend, "2", 1);
    cr_assert_eq(carried_by_owner(from), 1);
    later = ask(from);
    later_backend = net_accept(listener);
    net_expect(later_backend, request, strlen(request));
    answer_and_close(later, later_backend);
    answer_and_close(client, backend);
    close(listener);
    rig_end(&rig);
}

Test(pass, streams_of_the_dialler_outlive_the_session) { streams_outlive_the_session(DIALLER); }

Test(pass, streams_of_the_listener_outlive_the_session) { streams_outlive_the_session(LISTENER); }

Test(pass, a_stop_resets_what_runs_and_what_is_pending)
{
    char addr[32];
    int listener = net_listen(addr), client, backend, pending;

    start();
    rig_offer(&rig, LISTENER, "web", addr);
    client = ask(DIALLER);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    net_send(backend, "1", 1);
    net_expect(client, "1", 1);
    atomic_store(&rig.hold, true);
    pending = ask(DIALLER);
    RIG_WAIT(&rig, DIALLER, pending, 1);
    rig_stop(&rig);
    cr_assert(net_is_reset(client));
    cr_assert(net_is_reset(backend));
    cr_assert(net_has_ended(pending));
    close(client);
    close(backend);
    close(pending);
    close(listener);
    rig_check_descriptors(&rig);
}

Test(pass, what_runs_goes_on_while_the_node_drains)
{
    char addr[32];
    int listener = net_listen(addr), client, backend;

    start();
    rig_offer(&rig, LISTENER, "web", addr);
    client = ask(DIALLER);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    forward_drain(rig.sides[LISTENER].forward);
    forward_drain(rig.sides[DIALLER].forward);
    answer_and_close(client, backend);
    close(listener);
    rig_end(&rig);
}
