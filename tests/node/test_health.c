/* Whether own backends answer: looks, thresholds, and what clients met. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "node/own.h"

TestSuite(node_health, .init = own_begin, .fini = stage_end);

static void seen(const char *text)
{
    node_backend_seen(st.node, "own", B, !text, text ? text : "");
}

/* ---- looks ---- */

Test(node_health, without_a_check_own_unlooked)
{
    stage_wait(20000);
    cr_expect_eq(st.n_looks, 0);
    cr_expect_null(own_info("own").name);
}

Test(node_health, a_look_comes_soon_and_then_at_every_interval)
{
    uint64_t before;

    SET({AT("own", B), .check = {.kind = TCP}});
    stage_wait(500);
    cr_assert_eq(st.n_looks, 1);
    cr_expect_eq(st.looks[0].check.kind, TCP);
    cr_expect_eq(st.looks[0].check.timeout_ms, 2000, "the default");
    stage_look(B, NULL);
    for (size_t i = 1; i < 5; i++) {
        before = st.looks[i - 1].at_ms;
        while (st.n_looks == i)
            stage_wait(100);
        cr_expect_geq(st.looks[i].at_ms - before, 4500);
        cr_expect_leq(st.looks[i].at_ms - before, 5700);
        stage_look(B, NULL);
    }
    cr_expect_eq(own_counters().checks, 5);
    cr_expect_eq(own_counters().checks_failed, 0);
}

Test(node_health, looks_at_one_backend_do_not_overlap)
{
    SET({AT("own", B), .check = {.kind = TCP, .interval_ms = 1000}});
    stage_wait(10000);
    cr_expect_eq(st.n_looks, 1, "its answer has not come");
    stage_look(B, NULL);
    stage_wait(100);
    cr_expect_eq(st.n_looks, 2, "the next was due long ago");
}

Test(node_health, a_first_look_that_fails_decides)
{
    uint64_t version = node_version(st.node);

    SET({AT("own", B), .check = {.kind = TCP}});
    cr_expect_eq(own_flags("own"), 0, "healthy until it is known better");
    cr_expect_eq(node_version(st.node), version);
    own_look(B, "connection refused");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
    cr_expect_eq(node_version(st.node), version + 1);
    cr_expect_eq(st.events[NODE_BACKEND_DOWN], 1);
    cr_expect_str_eq(st.text[NODE_BACKEND_DOWN], "own at 127.0.0.1:80: connection refused");
    cr_expect_eq(own_counters().backends_unhealthy, 1);
    cr_expect_eq(own_counters().backend_downs, 1);
}

Test(node_health, later_as_many_in_a_row_must_fail_as_fall_says_and_as_rise_says_be_well)
{
    SET({AT("own", B), .check = {.kind = TCP, .rise = 3, .fall = 2}});
    own_look(B, NULL);
    own_look(B, "refused");
    own_look(B, NULL);
    own_look(B, "refused");
    cr_expect_eq(own_flags("own"), 0, "not in a row");
    cr_expect_eq(own_info("own").streak, 1);
    own_look(B, "timed out");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
    cr_expect_str_eq(own_info("own").why, "timed out");
    cr_expect_eq(own_info("own").since_s, st.wall_us / 1000000 + st.now_ms / 1000);
    own_look(B, NULL);
    own_look(B, NULL);
    own_look(B, "refused");
    own_look(B, NULL);
    own_look(B, NULL);
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY, "not in a row");
    own_look(B, NULL);
    cr_expect_eq(own_flags("own"), 0);
    cr_expect_eq(st.events[NODE_BACKEND_DOWN], 1);
    cr_expect_eq(st.events[NODE_BACKEND_UP], 1);
    cr_expect_str_eq(st.text[NODE_BACKEND_UP], "own at 127.0.0.1:80");
    cr_expect_eq(own_counters().backends_unhealthy, 0);
    cr_expect_eq(own_counters().backend_ups, 1);
}

Test(node_health, a_turn_is_one_change_told_to_every_link_once)
{
    struct stage_peer peer = {.id = "n2", .ip = "10.0.0.2", .incarnation = 5, .version = 1};
    const Meshd__V1__Sync *sync;
    uint32_t printed;

    SET({AT("own", B), .check = {.kind = TCP}}, {AT("other", "h:1")});
    stage_live(&peer);
    stage_hush();
    printed = st.events[NODE_MAPS_CHANGED];
    own_look(B, "refused");
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed + 1);
    cr_assert_eq(stage_count(peer.link, KIND(SYNC)), 1);
    sync = stage_heard(peer.link, KIND(SYNC));
    cr_expect_neq(sync->base_version, 0, "a change, not all of it");
    cr_assert_eq(sync->n_entries, 1);
    cr_expect_str_eq(sync->entries[0]->name, "own");
    cr_expect(sync->entries[0]->unhealthy);
    cr_expect_not(sync->entries[0]->draining);
}

Test(node_health, a_late_answer_is_ignored)
{
    uint64_t number;

    SET({AT("own", B), .check = {.kind = TCP}});
    stage_wait(500);
    number = st.looks[0].number;
    SET({AT("own", "127.0.0.1:81"), .check = {.kind = TCP}});
    node_checked(st.node, number, -ECONNREFUSED, "refused");
    cr_expect_eq(own_flags("own"), 0, "that was another backend");
    own_look("127.0.0.1:81", NULL);
    stage_wait(6000);
    number = st.looks[st.n_looks - 1].number;
    node_set_services(st.node, NULL, 0);
    node_checked(st.node, number, -ECONNREFUSED, "refused");
    cr_expect_eq(own_flags("own"), -1);
    node_checked(st.node, 12345678, -ECONNREFUSED, "nobody asked");
    cr_expect_eq(st.events[NODE_BACKEND_DOWN], 0);
}

Test(node_health, what_the_node_itself_had_not_says_nothing_of_a_backend)
{
    static const int wants[] = {-EMFILE, -ENFILE, -ENOMEM, -ENOBUFS, -EADDRNOTAVAIL};

    SET({AT("own", B), .check = {.kind = TCP}});
    for (size_t i = 0; i < sizeof(wants) / sizeof(*wants); i++) {
        stage_wait(6000);
        cr_assert_eq(st.n_looks, i + 1, "it is looked at again");
        node_checked(st.node, st.looks[i].number, wants[i], "no means");
        cr_expect_eq(own_flags("own"), 0);
    }
    stage_wait(6000);
    node_checked(st.node, st.looks[st.n_looks - 1].number, -ECONNREFUSED, "refused");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY, "this is the first look that decides");
}

Test(node_health, at_most_so_many_looks_are_under_way_and_each_gets_its_turn)
{
    struct node_service services[100];
    char names[100][8], backends[100][16];
    unsigned looked[100] = {0};
    size_t answered = 0;

    for (int i = 0; i < 100; i++) {
        snprintf(names[i], sizeof(names[i]), "s%d", i);
        snprintf(backends[i], sizeof(backends[i]), "h:%d", i + 1);
        services[i] = (struct node_service){
            .name = names[i], .backend = backends[i], .check = {.kind = TCP, .interval_ms = 100}};
    }
    own_set(100, services);
    stage_wait(5000);
    cr_assert_eq(st.n_looks, 48, "nothing is known of them");
    for (; answered < 250; answered++) {
        uint64_t number = st.looks[answered].number;

        for (int i = 0; i < 100; i++)
            looked[i] += strcmp(st.looks[answered].backend, backends[i]) == 0;
        node_checked(st.node, number, 0, "");
        stage_wait(10);
        cr_assert_leq(st.n_looks - answered - 1, 64);
    }
    for (int i = 0; i < 100; i++)
        cr_expect_geq(looked[i], 2, "s%d was looked at %u times", i, looked[i]);
}

/* Answers all that is looked at from *from on: the silent ones with text, NULL: not at all. How
 * many it was of each kind. */
static void answer_looks(size_t *from, const char *text, size_t *out_silent, size_t *out_well)
{
    for (; *from < st.n_looks; ++*from) {
        bool silent = st.looks[*from].backend[0] == 's';

        *(silent ? out_silent : out_well) += 1;
        if (!silent)
            node_checked(st.node, st.looks[*from].number, 0, "");
        else if (text)
            node_checked(st.node, st.looks[*from].number, -ETIMEDOUT, text);
    }
}

Test(node_health, backends_that_are_silent_leave_looks_for_those_that_answer)
{
    struct node_service services[110];
    char names[110][8], backends[110][16];
    size_t from = 0, silent = 0, well = 0, last;

    for (int i = 0; i < 110; i++) {
        snprintf(names[i], sizeof(names[i]), "n%d", i);
        snprintf(backends[i], sizeof(backends[i]), "%c:%d", i < 100 ? 's' : 'w', i + 1);
        services[i] = (struct node_service){
            .name = names[i], .backend = backends[i], .check = {.kind = TCP, .interval_ms = 1000}};
    }
    own_set(110, services);
    while (silent + well < 110) {
        stage_wait(10);
        answer_looks(&from, "timed out", &silent, &well);
    }
    cr_assert_eq(own_counters().backends_unhealthy, 100);
    silent = well = 0;
    for (int i = 0; i < 1000; i++) {
        stage_wait(10);
        answer_looks(&from, NULL, &silent, &well);
    }
    cr_expect_eq(silent, 48);
    cr_expect_geq(well, 85, "%zu looks at 10 backends in 10 s, one a second", well);
    /* Each answer makes room for the silent one that has waited longest. */
    for (last = from - 1; st.looks[last].backend[0] != 's'; last--)
        ;
    node_checked(st.node, st.looks[last].number, -ETIMEDOUT, "timed out");
    silent = 0;
    stage_wait(10);
    answer_looks(&from, NULL, &silent, &well);
    cr_expect_eq(silent, 1);
}

Test(node_health, looks_at_what_is_offered_together_are_spread)
{
    struct node_service services[40];
    char names[40][8];
    uint64_t first, last;

    for (int i = 0; i < 40; i++) {
        snprintf(names[i], sizeof(names[i]), "s%d", i);
        services[i] =
            (struct node_service){.name = names[i], .backend = "h:1", .check = {.kind = TCP}};
    }
    own_set(40, services);
    while (st.n_looks < 40)
        stage_wait(10);
    first = st.looks[0].at_ms;
    last = st.looks[39].at_ms;
    cr_expect_geq(last - first, 200);
    cr_expect_leq(last - first, 520);
}

/* ---- clients ---- */

Test(node_health, clients_that_fail_in_a_row_make_it_unhealthy_without_a_check)
{
    seen("refused");
    seen("refused");
    seen(NULL);
    seen("refused");
    seen("refused");
    cr_expect_eq(own_flags("own"), 0);
    cr_expect_eq(st.n_looks, 0);
    seen("timed out");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
    cr_expect_null(own_info("own").check);
    cr_expect_str_eq(own_info("own").why, "timed out");
    cr_expect_eq(st.events[NODE_BACKEND_DOWN], 1);
}

Test(node_health, it_is_looked_at_then_until_it_is_healthy)
{
    for (int i = 0; i < 3; i++)
        seen("refused");
    own_look(B, "refused");
    cr_expect_eq(st.looks[0].check.kind, TCP);
    own_look(B, NULL);
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
    own_look(B, NULL);
    cr_expect_eq(own_flags("own"), 0);
    cr_expect(own_unlooked(B, 20000));
}

Test(node_health, a_client_that_gets_through_makes_it_healthy_at_once)
{
    for (int i = 0; i < 3; i++)
        seen("refused");
    seen(NULL);
    cr_expect_eq(own_flags("own"), 0);
    cr_expect_str_eq(own_info("own").why, "");
    cr_expect(own_unlooked(B, 20000));
    seen("refused");
    seen("refused");
    cr_expect_eq(own_flags("own"), 0, "it is counted anew");
}

Test(node_health, a_client_that_gets_through_proves_nothing_to_a_check_by_http)
{
    SET({AT("own", B), .check = {.kind = HTTP, .path = "/healthz"}});
    own_look(B, "answered 503");
    cr_expect_str_eq(st.looks[0].check.path, "/healthz");
    seen(NULL);
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
    SET({AT("own", B), .check = {.kind = TCP}});
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY, "another check, the same backend");
    seen(NULL);
    cr_expect_eq(own_flags("own"), 0);
}

/* It takes connections and answers 503. */
Test(node_health, clients_that_get_through_do_not_keep_a_check_by_http_from_failing)
{
    SET({AT("own", B), .check = {.kind = HTTP, .path = "/healthz"}});
    own_look(B, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        own_look(B, "answered 503");
        seen(NULL);
        cr_expect_eq(own_flags("own"), 0);
        cr_expect_eq(own_info("own").streak, i + 1);
        cr_expect_str_eq(own_info("own").why, "answered 503");
    }
    own_look(B, "answered 503");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
    own_look(B, NULL);
    seen(NULL);
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY, "two good looks, and nothing else");
    own_look(B, NULL);
    cr_expect_eq(own_flags("own"), 0);
}

/* Of many clients one is refused now and then, between two looks that are far apart. */
Test(node_health, with_a_check_by_http_clients_must_fail_in_a_row_too)
{
    SET({AT("own", B), .check = {.kind = HTTP, .path = "/", .interval_ms = 3600000}});
    own_look(B, NULL);
    for (int i = 0; i < 10; i++) {
        seen("refused");
        seen("refused");
        cr_expect_eq(own_info("own").streak, 2);
        seen(NULL);
        cr_expect_eq(own_info("own").streak, 0);
        cr_expect_str_eq(own_info("own").why, "");
    }
    cr_expect_eq(own_flags("own"), 0);
    for (int i = 0; i < 3; i++)
        seen("refused");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
}

Test(node_health, clients_and_looks_that_fail_are_counted_together)
{
    SET({AT("own", B), .check = {.kind = TCP}});
    own_look(B, NULL);
    seen("refused");
    own_look(B, "refused");
    cr_expect_eq(own_flags("own"), 0);
    seen("refused");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
}

Test(node_health, clients_of_another_backend_or_name_say_nothing)
{
    for (int i = 0; i < 5; i++) {
        node_backend_seen(st.node, "own", "127.0.0.1:81", false, "refused");
        node_backend_seen(st.node, "nobody", B, false, "refused");
    }
    cr_expect_eq(own_flags("own"), 0);
    cr_expect_null(own_info("own").name);
}
