/* Many nodes: who is who, whatever addresses, names, clocks and restarts say. */
#include <criterion/criterion.h>
#include <stdio.h>
#include "sim/scene.h"

static void lan(void)
{
    scene_make(&(struct fakenet_settings){.seed = 1, .delay_min_ms = 1, .delay_max_ms = 5});
}

TestSuite(identity, .init = lan, .fini = scene_end);

Test(identity, two_peers_behind_one_address_do_not_overwrite_each_other)
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

Test(identity, a_name_that_moves_is_followed)
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

Test(identity, the_last_good_answer_of_the_resolver_is_kept)
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

Test(identity, a_restart_with_lost_state_and_a_clock_gone_back_is_believed)
{
    uint64_t before;

    scene_ring(3);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    before = node_incarnation(scene_host(0)->node);
    fakenet_kill(scene_host(0));
    scene_host(0)->skew_us = -INT64_C(86400000000);
    fakenet_service(scene_host(0), "fresh", "127.0.0.1:9");
    fakenet_boot(scene_host(0));
    scene_heals();
    cr_expect_gt(node_incarnation(scene_host(0)->node), before);
    cr_expect_geq(scene_host(0)->events[NODE_INCARNATION], 1);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), 2);
    cr_expect_eq(fakenet_rows(scene_host(2), "n0"), 2);
}

Test(identity, a_listener_whose_clock_went_back_is_told_so_by_its_diallers)
{
    scene_ring(2);
    scene_host(1)->n_dials = 0; /* n0 dials n1, which restarts with a lower clock */
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_kill(scene_host(1));
    scene_host(1)->skew_us = -INT64_C(86400000000);
    fakenet_boot(scene_host(1));
    scene_heals();
    cr_expect_eq(scene_host(1)->events[NODE_INCARNATION], 1);
}

Test(identity, a_second_instance_of_a_live_id_is_refused_and_the_first_keeps_its_entries)
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

Test(identity, a_restarted_node_takes_over_from_its_half_dead_session)
{
    scene_ring(2);
    scene_host(1)->n_dials = 0;
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_cut(scene_host(0), scene_host(1), true);
    fakenet_kill(scene_host(0)); /* nobody hears of it */
    fakenet_run(net, 1000);
    fakenet_cut(scene_host(0), scene_host(1), false);
    fakenet_boot(scene_host(0));
    scene_heals();
}

Test(identity, a_node_that_dials_itself_stops_doing_so)
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

Test(identity, another_peer_than_expected_is_refused_and_tried_again_slowly)
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

Test(identity, the_link_dialled_by_the_lower_id_stays_and_the_other_parks_until_it_ends)
{
    struct node_link_info info[2];

    scene_ring(2); /* both dial */
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

Test(identity, two_addresses_of_one_peer_make_one_link)
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
    cr_expect_eq(scene_links_live(a), 1);
    node_counters(a->node, &before);
    fakenet_run(net, 60000);
    node_counters(a->node, &after);
    cr_expect_eq(after.dials, before.dials, "the second address waits behind the first");
    cr_expect_null(node_waits_for(a->node, &(size_t){0}));
}
