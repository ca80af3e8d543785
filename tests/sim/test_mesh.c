/* Many nodes: they find each other, agree, and agree again after whatever happens to them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include "sim/scene.h"

#define LAN                                                                                        \
    {                                                                                              \
        .seed = 1, .delay_min_ms = 1, .delay_max_ms = 5                                            \
    }
#define WAN                                                                                        \
    {                                                                                              \
        .seed = 2, .delay_min_ms = 10, .delay_max_ms = 80, .loss_permille = 10                     \
    }
#define HEAL_MS 12000
#define TWO_BEATS_MS 6000

static void lan(void) { scene_make(&(struct fakenet_settings)LAN); }

static void wan(void) { scene_make(&(struct fakenet_settings)WAN); }

TestSuite(mesh, .init = lan, .fini = scene_end);
TestSuite(mesh_wan, .init = wan, .fini = scene_end);

static void ring(size_t count)
{
    scene_add(count);
    for (size_t i = 0; i < count; i++)
        scene_dial(i, (i + 1) % count);
}

static void full(size_t count)
{
    scene_add(count);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            if (i != j)
                scene_dial(i, j);
}

static void heals(void)
{
    cr_assert(fakenet_run_until(net, HEAL_MS, scene_live, NULL), "not live within 12 s");
    cr_assert(fakenet_run_until(net, TWO_BEATS_MS, scene_agrees, NULL),
              "no agreement 2 heartbeats later");
    scene_check();
}

static size_t links_live(struct fakenet_host *host)
{
    struct node_counters counters;

    node_counters(host->node, &counters);
    return counters.links_live;
}

Test(mesh, three_nodes_link_and_agree)
{
    ring(3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 1000, scene_agrees, NULL));
    scene_check();
}

Test(mesh, ten_nodes_that_all_dial_each_other_keep_one_link_per_pair)
{
    full(10);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 3000);
    for (size_t i = 0; i < 10; i++)
        cr_expect_eq(links_live(scene_host(i)), 9);
    cr_assert(scene_agrees(NULL));
    for (size_t i = 0; i < 10; i++)
        cr_expect_null(node_waits_for(scene_host(i)->node, &(size_t){0}));
}

Test(mesh_wan, hundred_nodes_converge_on_a_slow_and_lossy_net)
{
    scene_add(100);
    for (size_t i = 0; i < 100; i++)
        for (int k = 0; k < 3; k++) {
            size_t to = fakenet_random(net, 100);

            if (to != i)
                scene_dial(i, to);
        }
    scene_boot_all();
    cr_assert(fakenet_run_until(net, HEAL_MS, scene_agrees, NULL));
    scene_check();
}

Test(mesh, ten_nodes_agree_again_after_one_died_one_stopped_and_one_restarted_with_another_list)
{
    full(10);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_kill(scene_host(1));
    fakenet_pause(scene_host(2));
    fakenet_kill(scene_host(3));
    scene_host(3)->n_services = 0;
    fakenet_service(scene_host(3), "other", "127.0.0.1:1");
    fakenet_boot(scene_host(3));
    fakenet_run(net, 500);
    cr_expect_eq(fakenet_rows(scene_host(0), "n3"), 1);
    fakenet_run(net, 31500);
    cr_expect_eq(fakenet_rows(scene_host(0), "n1"), -1, "outlived peer_timeout");
    cr_expect_eq(fakenet_rows(scene_host(0), "n2"), -1, "outlived peer_timeout");
    cr_assert(scene_agrees(NULL));
    fakenet_resume(scene_host(2));
    fakenet_boot(scene_host(1));
    heals();
}

Test(mesh, a_partition_heals_within_12_s_however_long_it_was)
{
    static const uint64_t lengths[] = {500, 4000, 9500, 12000, 25000, 33000, 47000, 120000, 300000};

    full(4);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    for (size_t k = 0; k < sizeof(lengths) / sizeof(*lengths); k++) {
        for (int i = 0; i < 4; i++)
            fakenet_cut(scene_host(i < 2 ? 0 : 1), scene_host(i % 2 ? 2 : 3), true);
        fakenet_run(net, lengths[k] + fakenet_random(net, 1000));
        for (int i = 0; i < 4; i++)
            fakenet_cut(scene_host(i < 2 ? 0 : 1), scene_host(i % 2 ? 2 : 3), false);
        heals();
        fakenet_run(net, 5000);
    }
}

Test(mesh, no_entry_outlives_its_owner_by_more_than_peer_timeout)
{
    ring(3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 10000);
    fakenet_cut(scene_host(0), scene_host(1), true);
    fakenet_cut(scene_host(0), scene_host(2), true);
    fakenet_kill(scene_host(0));
    fakenet_run(net, 10500);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 1, "kept within the grace period");
    cr_expect_not(fakenet_live(scene_host(1), scene_host(0)), "suspect after 10 s at most");
    fakenet_run(net, 19600);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), -1);
    cr_expect_eq(fakenet_rows(scene_host(2), "n0"), -1);
    cr_expect_eq(scene_host(1)->events[NODE_PEER_GONE], 1);
}

Test(mesh, a_closed_connection_is_stale_at_once)
{
    struct registry_peer_info info;

    ring(2);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_kill(scene_host(0));
    fakenet_run(net, 10);
    cr_assert_eq(registry_peer_get(scene_host(1)->registry, "n0", &info), 0);
    cr_expect(info.state.stale);
    cr_expect_not(info.state.connected);
}

Test(mesh, who_leaves_takes_its_entries_along_at_once)
{
    ring(3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_quit(scene_host(0));
    fakenet_run(net, 50);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), -1);
    cr_expect_eq(fakenet_rows(scene_host(2), "n0"), -1);
}

static bool draining(struct fakenet_host *viewer, const char *id)
{
    struct registry_peer_info info;

    cr_assert_eq(registry_peer_get(viewer->registry, id, &info), 0);
    return info.state.draining;
}

Test(mesh, who_drains_is_shown_so_at_once_and_stays_linked)
{
    ring(3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_drain(scene_host(0));
    fakenet_run(net, 6);
    for (size_t i = 1; i < 3; i++) {
        cr_expect(draining(scene_host(i), "n0"));
        cr_expect(fakenet_live(scene_host(i), scene_host(0)));
    }
    cr_expect_not(draining(scene_host(1), "n2"));
    /* A link that breaks comes back, and says it again. */
    fakenet_break(scene_host(0));
    heals();
    fakenet_offer(scene_host(0), "lease", "web", "127.0.0.1:80", 0);
    fakenet_run(net, 20000);
    cr_expect(scene_agrees(NULL));
    cr_expect(draining(scene_host(1), "n0"));
    cr_expect(draining(scene_host(2), "n0"));
    fakenet_quit(scene_host(0));
    fakenet_run(net, 50);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), -1);
    scene_check();
}

Test(mesh, draining_is_shown_whatever_a_sync_said_that_it_overtook)
{
    char name[32];

    ring(2);
    scene_host(1)->n_dials = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    for (int round = 0; round < 20; round++) {
        for (int i = round % 2 ? 0 : 2999; i < 3000; i++) {
            snprintf(name, sizeof(name), "s-%d", i);
            fakenet_offer(scene_host(0), "lease", name, "127.0.0.1:80", 0);
        }
        if (round % 2)
            fakenet_run(net, fakenet_random(net, 30));
        fakenet_drain(scene_host(0)); /* heartbeats overtake a Sync that waits */
        fakenet_run(net, 200);
        cr_assert(scene_agrees(NULL));
        cr_expect(draining(scene_host(1), "n0"), "round %d", round);
        fakenet_kill(scene_host(0));
        fakenet_boot(scene_host(0));
        cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
        cr_expect_not(draining(scene_host(1), "n0"));
    }
}

Test(mesh, sessions_are_told_with_what_it_takes_to_reach_the_peer)
{
    full(4);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 2000);
    for (size_t i = 0; i < 4; i++) {
        cr_expect_geq(scene_host(i)->sessions, 3);
        for (size_t j = 0; j < 4; j++)
            if (i != j)
                cr_expect(fakenet_forward(scene_host(i), scene_host(j)));
    }
    fakenet_run(net, 10);
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq(scene_host(i)->forwards, 3);
    scene_check();
}

Test(mesh, wishes_for_data_connections_reach_who_dialled)
{
    ring(2);
    scene_host(1)->n_dials = 0;
    scene_host(0)->wanted = 7;
    scene_host(1)->wanted = 9;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 3100);
    cr_expect_eq(scene_host(0)->wished, 9);
    cr_expect_eq(scene_host(1)->wishes, 0);
    scene_host(1)->wanted = 0;
    fakenet_run(net, 3100);
    cr_expect_eq(scene_host(0)->wished, 0);
    scene_check();
}

Test(mesh, a_duplicate_stays_while_forwards_are_opened_over_it_and_not_for_ever)
{
    ring(2); /* both dial */
    scene_host(0)->busy = scene_host(1)->busy = true;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 5000);
    cr_expect_eq(links_live(scene_host(0)), 2);
    scene_host(0)->busy = false;
    fakenet_run(net, 300);
    cr_expect_eq(links_live(scene_host(0)), 1);
    cr_expect_eq(links_live(scene_host(1)), 1);
    scene_host(0)->busy = true;
    fakenet_break(scene_host(0));
    fakenet_run(net, 5000);
    cr_expect_eq(links_live(scene_host(0)), 2);
    fakenet_run(net, 10000);
    cr_expect_eq(links_live(scene_host(0)), 1);
    cr_expect(scene_agrees(NULL));
    scene_check();
}

Test(mesh, a_change_is_told_at_once)
{
    ring(2);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_offer(scene_host(0), "lease", "web", "127.0.0.1:80", 0);
    cr_expect_not(scene_agrees(NULL));
    fakenet_run(net, 6);
    cr_expect(scene_agrees(NULL));
    fakenet_withdraw(scene_host(0), "lease", "web");
    fakenet_run(net, 12);
    cr_expect(scene_agrees(NULL));
}

Test(mesh, heartbeats_of_a_quiet_mesh_change_nothing_and_print_nothing)
{
    uint32_t printed;
    uint64_t revision;

    ring(3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 3000);
    printed = scene_host(0)->events[NODE_MAPS_CHANGED];
    revision = registry_revision(scene_host(0)->registry);
    fakenet_run(net, 120000);
    cr_expect_eq(scene_host(0)->events[NODE_MAPS_CHANGED], printed);
    cr_expect_eq(registry_revision(scene_host(0)->registry), revision);
}

Test(mesh, only_own_services_are_announced)
{
    ring(3);
    scene_host(2)->n_dials = 0; /* n0 - n1 - n2 in a row */
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    cr_expect_eq(fakenet_rows(scene_host(0), "n2"), -1);
    cr_expect_eq(fakenet_rows(scene_host(2), "n0"), -1);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 1);
}

Test(mesh, a_peer_behind_nat_dials_out_and_is_known_both_ways)
{
    ring(2);
    scene_host(1)->n_dials = 0;
    scene_host(0)->listens = false;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    cr_expect(fakenet_linked(scene_host(1), scene_host(0)));
}

Test(mesh, a_node_without_services_joins)
{
    ring(2);
    scene_host(0)->n_services = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 0);
}

Test(mesh, two_peers_behind_one_address_do_not_overwrite_each_other)
{
    struct registry_peer_info a, b;
    struct fakenet_host *hub, *one, *two;

    hub = fakenet_add(net, "hub", "10.0.0.1", 7400);
    one = fakenet_add(net, "one", "10.0.0.2", 7400);
    two = fakenet_add(net, "two", "10.0.0.2", 7401);
    fakenet_service(one, "web", "127.0.0.1:80");
    fakenet_service(two, "web", "127.0.0.1:81");
    fakenet_dial(one, "10.0.0.1", 7400, NULL);
    fakenet_dial(two, "10.0.0.1", 7400, NULL);
    fakenet_boot(hub);
    fakenet_boot(one);
    fakenet_run(net, 1000);
    fakenet_boot(two);
    fakenet_run(net, 1000);
    cr_assert(fakenet_linked(hub, one));
    cr_assert(fakenet_linked(hub, two));
    cr_assert_eq(registry_peer_get(hub->registry, "one", &a), 0);
    cr_assert_eq(registry_peer_get(hub->registry, "two", &b), 0);
    cr_expect_str_eq(a.label, "10.0.0.2");
    cr_expect_str_eq(b.label, "10.0.0.2#two");
    fakenet_kill(one);
    fakenet_run(net, 40000);
    cr_assert_eq(registry_peer_get(hub->registry, "two", &b), 0);
    cr_expect_str_eq(b.label, "10.0.0.2#two", "nobody is relabelled when another leaves");
}

Test(mesh, a_name_that_moves_is_followed)
{
    struct fakenet_host *a, *b, *c;

    a = fakenet_add(net, "a", "10.0.0.1", 7400);
    b = fakenet_add(net, "b", "10.0.0.2", 7400);
    c = fakenet_add(net, "c", "10.0.0.3", 7400);
    fakenet_name(net, "there.example", "10.0.0.2");
    fakenet_dial(a, "there.example", 7400, NULL);
    fakenet_boot(a);
    fakenet_boot(b);
    fakenet_run(net, 1000);
    cr_assert(fakenet_linked(a, b));
    fakenet_kill(b);
    fakenet_name(net, "there.example", "10.0.0.3");
    fakenet_boot(c);
    fakenet_run(net, 10000);
    cr_expect(fakenet_linked(a, c));
}

Test(mesh, the_last_good_answer_of_the_resolver_is_kept)
{
    struct fakenet_host *a = fakenet_add(net, "a", "10.0.0.1", 7400);
    struct fakenet_host *b = fakenet_add(net, "b", "10.0.0.2", 7400);

    fakenet_name(net, "there.example", "10.0.0.2");
    fakenet_dial(a, "there.example", 7400, NULL);
    fakenet_boot(a);
    fakenet_boot(b);
    fakenet_run(net, 1000);
    fakenet_name(net, "there.example", "");
    fakenet_kill(b);
    fakenet_run(net, 1000);
    fakenet_boot(b);
    cr_expect_not(fakenet_linked(a, b));
    fakenet_run(net, HEAL_MS);
    cr_expect(fakenet_linked(a, b));
}

Test(mesh, a_restart_with_lost_state_and_a_clock_gone_back_is_believed)
{
    uint64_t before;

    ring(3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    before = node_incarnation(scene_host(0)->node);
    fakenet_kill(scene_host(0));
    scene_host(0)->skew_us = -INT64_C(86400000000);
    fakenet_service(scene_host(0), "fresh", "127.0.0.1:9");
    fakenet_boot(scene_host(0));
    heals();
    cr_expect_gt(node_incarnation(scene_host(0)->node), before);
    cr_expect_geq(scene_host(0)->events[NODE_INCARNATION], 1);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 2);
    cr_expect_eq(fakenet_rows(scene_host(2), "n0"), 2);
}

Test(mesh, a_listener_whose_clock_went_back_is_told_so_by_its_diallers)
{
    ring(2);
    scene_host(1)->n_dials = 0; /* n0 dials n1, which restarts with a lower clock */
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_kill(scene_host(1));
    scene_host(1)->skew_us = -INT64_C(86400000000);
    fakenet_boot(scene_host(1));
    heals();
    cr_expect_eq(scene_host(1)->events[NODE_INCARNATION], 1);
}

Test(mesh, a_second_instance_of_a_live_id_is_refused_and_the_first_keeps_its_entries)
{
    struct fakenet_host *hub = fakenet_add(net, "hub", "10.0.0.1", 7400);
    struct fakenet_host *first = fakenet_add(net, "twin", "10.0.0.2", 7400);
    struct fakenet_host *second = fakenet_add(net, "twin", "10.0.0.3", 7400);
    struct node_link_info info;

    fakenet_service(first, "web", "127.0.0.1:80");
    fakenet_dial(first, "10.0.0.1", 7400, NULL);
    fakenet_dial(second, "10.0.0.1", 7400, NULL);
    fakenet_boot(hub);
    fakenet_boot(first);
    fakenet_run(net, 1000);
    fakenet_boot(second);
    fakenet_run(net, 60000);
    cr_expect(fakenet_linked(hub, first));
    cr_expect_eq(second->events[NODE_LINK_REFUSED], 1, "told once");
    cr_expect(strstr(second->last_text[NODE_LINK_REFUSED], "10.0.0.2") != NULL, "%s",
              second->last_text[NODE_LINK_REFUSED]);
    cr_assert_eq(node_links(second->node, &info, 1), 1);
    cr_expect_str_eq(info.state, "refused");
    /* Once the first is gone, the second comes in. */
    fakenet_kill(first);
    fakenet_run(net, 12000);
    cr_expect(fakenet_linked(hub, second));
}

Test(mesh, a_restarted_node_takes_over_from_its_half_dead_session)
{
    ring(2);
    scene_host(1)->n_dials = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_cut(scene_host(0), scene_host(1), true);
    fakenet_kill(scene_host(0)); /* nobody hears of it */
    fakenet_run(net, 1000);
    fakenet_cut(scene_host(0), scene_host(1), false);
    fakenet_boot(scene_host(0));
    heals();
}

Test(mesh, a_node_that_dials_itself_stops_doing_so)
{
    struct fakenet_host *a = fakenet_add(net, "a", "10.0.0.1", 7400);
    struct node_counters counters;
    struct node_link_info info;

    fakenet_dial(a, "10.0.0.1", 7400, NULL);
    fakenet_boot(a);
    fakenet_run(net, 60000);
    node_counters(a->node, &counters);
    cr_expect_eq(counters.dials, 1);
    cr_expect_eq(a->events[NODE_LINK_REFUSED], 1);
    cr_assert_eq(node_links(a->node, &info, 1), 1);
    cr_expect_str_eq(info.state, "refused");
    cr_expect_null(node_waits_for(a->node, &(size_t){0}));
}

Test(mesh, another_peer_than_expected_is_refused_and_tried_again_slowly)
{
    struct fakenet_host *a = fakenet_add(net, "a", "10.0.0.1", 7400);
    struct fakenet_host *b = fakenet_add(net, "b", "10.0.0.2", 7400);
    struct node_counters counters;

    fakenet_dial(a, "10.0.0.2", 7400, "c");
    fakenet_boot(a);
    fakenet_boot(b);
    fakenet_run(net, 60000);
    node_counters(a->node, &counters);
    cr_expect_leq(counters.dials, 14);
    cr_expect_geq(counters.dials, 5);
    cr_expect_eq(a->events[NODE_LINK_REFUSED], 1);
    cr_expect_not(fakenet_live(a, b));
}

Test(mesh, the_link_dialled_by_the_lower_id_stays_and_the_other_parks_until_it_ends)
{
    struct node_link_info info[2];

    ring(2); /* both dial */
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 2000);
    cr_assert_eq(node_links(scene_host(1)->node, info, 2), 2);
    cr_expect_str_eq(info[0].state, "parked");
    cr_expect_str_eq(info[1].state, "live");
    cr_assert_eq(node_links(scene_host(0)->node, info, 2), 1);
    cr_expect_str_eq(info[0].state, "live");
    cr_expect_eq(scene_host(0)->events[NODE_LINK_LOST], 0, "a duplicate is no loss");
    cr_expect_eq(scene_host(1)->events[NODE_LINK_LOST], 0, "a duplicate is no loss");
    /* n0 cannot dial any more: n1's own dialler goes on. */
    scene_host(1)->refuses = true;
    fakenet_break(scene_host(0));
    fakenet_run(net, 2000);
    cr_expect(scene_agrees(NULL));
    cr_assert_eq(node_links(scene_host(1)->node, info, 2), 1);
    cr_expect_str_eq(info[0].state, "live");
}

Test(mesh, two_addresses_of_one_peer_make_one_link)
{
    struct fakenet_host *a = fakenet_add(net, "a", "10.0.0.1", 7400);
    struct fakenet_host *b = fakenet_add(net, "b", "10.0.0.2", 7400);
    struct node_counters before, after;

    fakenet_name(net, "b.example", "10.0.0.2");
    fakenet_dial(a, "10.0.0.2", 7400, NULL);
    fakenet_dial(a, "b.example", 7400, NULL);
    fakenet_boot(a);
    fakenet_boot(b);
    fakenet_run(net, 5000);
    cr_expect(fakenet_linked(a, b));
    cr_expect_eq(links_live(a), 1);
    node_counters(a->node, &before);
    fakenet_run(net, 60000);
    node_counters(a->node, &after);
    cr_expect_eq(after.dials, before.dials, "the second address waits behind the first");
    cr_expect_null(node_waits_for(a->node, &(size_t){0}));
}

Test(mesh, a_stopped_node_that_goes_on_declares_nobody_dead)
{
    ring(3);
    scene_host(0)->n_dials = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_pause(scene_host(0));
    fakenet_run(net, 8000);
    fakenet_resume(scene_host(0));
    fakenet_run(net, 10000);
    cr_expect_eq(scene_host(0)->events[NODE_LINK_SUSPECT], 0);
    cr_expect_eq(scene_host(0)->events[NODE_LINK_LOST], 0);
    cr_expect(scene_agrees(NULL));
}

Test(mesh, an_acceptor_takes_a_suspect_link_back_when_it_speaks_again)
{
    ring(2);
    scene_host(1)->n_dials = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_pause(scene_host(0)); /* the dialler: its kernel keeps the connection */
    fakenet_run(net, 15000);
    cr_expect_eq(scene_host(1)->events[NODE_LINK_SUSPECT], 1);
    cr_expect_not(fakenet_live(scene_host(1), scene_host(0)));
    fakenet_resume(scene_host(0));
    fakenet_run(net, 4000);
    cr_expect(scene_agrees(NULL));
    cr_expect_eq(scene_host(1)->events[NODE_LINK_LOST], 0);
}

Test(mesh, a_dead_address_is_told_of_once_and_dialled_for_ever)
{
    struct fakenet_host *a = fakenet_add(net, "a", "10.0.0.1", 7400);
    struct fakenet_host *b = fakenet_add(net, "b", "10.0.0.2", 7400);
    struct node_counters counters;

    fakenet_dial(a, "10.0.0.2", 7400, NULL);
    fakenet_boot(a);
    fakenet_run(net, 600000);
    cr_expect_eq(a->events[NODE_DIAL_FAILED], 1);
    node_counters(a->node, &counters);
    cr_expect_geq(counters.dials, 60);
    cr_expect_not_null(node_waits_for(a->node, &(size_t){0}));
    fakenet_boot(b);
    cr_expect(fakenet_run_until(net, HEAL_MS, scene_agrees, NULL));
}

Test(mesh, a_storm_of_restarts_ends_in_agreement)
{
    full(5);
    scene_boot_all();
    for (int i = 0; i < 50; i++) {
        struct fakenet_host *host = scene_host(fakenet_random(net, 5));

        fakenet_kill(host);
        fakenet_run(net, fakenet_random(net, 300));
        fakenet_boot(host);
        fakenet_run(net, fakenet_random(net, 700));
        scene_check();
    }
    heals();
}

Test(mesh, a_list_of_ten_thousand_goes_in_parts)
{
    struct node_counters counters;
    char name[32];

    ring(2);
    scene_host(1)->n_dials = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof(name), "s-%d", i);
        fakenet_offer(scene_host(0), "lease", name, "127.0.0.1:80", 0);
    }
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_break(scene_host(0));
    fakenet_run(net, 20);
    cr_expect_not(scene_agrees(NULL));
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 10001);
    node_counters(scene_host(0)->node, &counters);
    cr_expect_geq(counters.sync_parts_sent, 8);
    fakenet_withdraw(scene_host(0), "lease", "");
    fakenet_run(net, 500);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 1);
    cr_expect(scene_agrees(NULL));
}

Test(mesh, peers_killed_in_the_middle_of_a_sync_leave_nothing_broken)
{
    char name[32];

    ring(2);
    for (size_t round = 0; round < 300; round++) {
        struct fakenet_host *host = scene_host(fakenet_random(net, 2));

        for (size_t i = 0; i < 2; i++) {
            if (scene_host(i)->node)
                continue;
            fakenet_boot(scene_host(i));
            for (int k = 0; k < 400; k++) {
                snprintf(name, sizeof(name), "a-somewhat-longer-name-%d", k);
                fakenet_offer(scene_host(i), "lease", name, "127.0.0.1:80", 0);
            }
        }
        fakenet_run(net, fakenet_random(net, 60));
        fakenet_kill(host);
        fakenet_run(net, fakenet_random(net, 10));
        scene_check();
    }
    for (size_t i = 0; i < 2; i++)
        if (!scene_host(i)->node)
            fakenet_boot(scene_host(i));
    heals();
}

/* ---- what is measured on the way ---- */

static struct histogram visible(size_t index)
{
    struct node_counters counters;

    node_counters(scene_host(index)->node, &counters);
    return counters.visible;
}

/* A net whose every way takes 20 ms. */
static void even(void)
{
    scene_make(&(struct fakenet_settings){.seed = 3, .delay_min_ms = 20, .delay_max_ms = 20});
}

TestSuite(mesh_even, .init = even, .fini = scene_end);

static void two_that_have_measured(void)
{
    struct node_link_info link;

    scene_add(2);
    scene_dial(0, 1);
    scene_host(1)->skew_us = INT64_C(3600000000); /* no clock is compared with another */
    scene_boot_all();
    fakenet_run(net, 10000);
    cr_assert(scene_agrees(NULL));
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(node_links(scene_host(i)->node, &link, 1), 1);
        cr_expect(link.rtt_us >= 40000 && link.rtt_us < 50000, "%lu", link.rtt_us);
    }
}

Test(mesh_even, a_change_is_visible_after_as_long_as_the_way_takes)
{
    struct histogram h;

    two_that_have_measured();
    fakenet_offer(scene_host(0), "lease", "web", "127.0.0.1:80", 0);
    fakenet_run(net, 1000);
    h = visible(1);
    cr_expect_eq(histogram_count(&h), 1);
    cr_expect_eq(histogram_share_us(&h, 1), 32768, "%lu us", h.sum_us);
    h = visible(0);
    cr_expect_eq(histogram_count(&h), 0);
}

Test(mesh_even, a_change_that_waited_for_another_is_visible_after_the_wait_too)
{
    struct histogram h;

    two_that_have_measured();
    fakenet_offer(scene_host(0), "lease", "one", "127.0.0.1:80", 0);
    fakenet_offer(scene_host(0), "lease", "two", "127.0.0.1:80", 0); /* 40 ms later, and 20 */
    fakenet_run(net, 1000);
    h = visible(1);
    cr_expect_eq(histogram_count(&h), 2);
    cr_expect_eq(histogram_share_us(&h, 0.5), 32768, "%lu us", h.sum_us);
    cr_expect_eq(histogram_share_us(&h, 1), 65536, "%lu us", h.sum_us);
}
