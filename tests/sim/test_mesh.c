/* Many nodes: they find each other, agree, and agree again after whatever happens to them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "sim/scene.h"

#define LAN                                                                                        \
    {                                                                                              \
        .seed = 1, .delay_min_ms = 1, .delay_max_ms = 5                                            \
    }
#define WAN                                                                                        \
    {                                                                                              \
        .seed = 2, .delay_min_ms = 10, .delay_max_ms = 80, .loss_permille = 10                     \
    }

static void lan(void) { scene_make(&(struct fakenet_settings)LAN); }

static void wan(void) { scene_make(&(struct fakenet_settings)WAN); }

TestSuite(mesh, .init = lan, .fini = scene_end);
TestSuite(mesh_wan, .init = wan, .fini = scene_end);

static void full(size_t count)
{
    scene_add(count);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            if (i != j)
                scene_dial(i, j);
}

Test(mesh, three_nodes_link_and_agree)
{
    scene_ring(3);
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
        cr_expect_eq(scene_links_live(scene_host(i)), 9);
    cr_assert(scene_agrees(NULL));
    for (size_t i = 0; i < 10; i++)
        cr_expect_null(node_waits_for(scene_host(i)->node, &(size_t){0}));
}

/* n0 looks; n1 lies between it and n2, and dials n3, which is down. */
static bool n0_sees_beyond_n1(void *ctx)
{
    struct node *n0 = scene_host(0)->node;
    struct node_link_info link;
    bool n2 = false, n3 = false;

    node_look_at_mesh(n0);
    cr_assert_eq(node_links(n0, &link, 1), 1);
    for (size_t i = 0; i < link.n_neighbours; i++) {
        const struct node_neighbour *far = &link.neighbours[i];

        n2 |= strcmp(far->peer_id, "n2") == 0 && far->state == NODE_LIVE;
        n3 |= strcmp(far->peer_id, "n3") == 0 && far->state == NODE_DIALLING;
    }
    return n2 && n3 && link.n_neighbours == 2 && link.neighbours_total == 2;
}

Test(mesh, who_looks_sees_the_links_between_its_peers_and_others)
{
    scene_add(4);
    scene_dial(0, 1);
    scene_dial(1, 2);
    scene_dial(1, 3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_kill(scene_host(3));
    cr_assert(fakenet_run_until(net, 20000, n0_sees_beyond_n1, NULL));
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
    scene_heals();
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
        scene_heals();
        fakenet_run(net, 5000);
    }
}

Test(mesh, no_entry_outlives_its_owner_by_more_than_peer_timeout)
{
    scene_ring(3);
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

    scene_ring(2);
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
    scene_ring(3);
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
    scene_ring(3);
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
    scene_heals();
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

    scene_ring(2);
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
    scene_ring(2);
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
    scene_ring(2); /* both dial */
    scene_host(0)->busy = scene_host(1)->busy = true;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 5000);
    cr_expect_eq(scene_links_live(scene_host(0)), 2);
    scene_host(0)->busy = false;
    fakenet_run(net, 300);
    cr_expect_eq(scene_links_live(scene_host(0)), 1);
    cr_expect_eq(scene_links_live(scene_host(1)), 1);
    scene_host(0)->busy = true;
    fakenet_break(scene_host(0));
    fakenet_run(net, 5000);
    cr_expect_eq(scene_links_live(scene_host(0)), 2);
    fakenet_run(net, 10000);
    cr_expect_eq(scene_links_live(scene_host(0)), 1);
    cr_expect(scene_agrees(NULL));
    scene_check();
}

Test(mesh, a_change_is_told_at_once)
{
    scene_ring(2);
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

    scene_ring(3);
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
    scene_ring(3);
    scene_host(2)->n_dials = 0; /* n0 - n1 - n2 in a row */
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    cr_expect_eq(fakenet_rows(scene_host(0), "n2"), -1);
    cr_expect_eq(fakenet_rows(scene_host(2), "n0"), -1);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 1);
}

Test(mesh, a_peer_behind_nat_dials_out_and_is_known_both_ways)
{
    scene_ring(2);
    scene_host(1)->n_dials = 0;
    scene_host(0)->listens = false;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    cr_expect(fakenet_linked(scene_host(1), scene_host(0)));
}

Test(mesh, a_node_without_services_joins)
{
    scene_ring(2);
    scene_host(0)->n_services = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 0);
}

Test(mesh, a_stopped_node_that_goes_on_declares_nobody_dead)
{
    scene_ring(3);
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
    scene_ring(2);
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
    scene_heals();
}

Test(mesh, a_list_of_ten_thousand_goes_in_parts)
{
    struct node_counters counters;
    char name[32];

    scene_ring(2);
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

    scene_ring(2);
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
    scene_heals();
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
