/* Backends that come and go, in a mesh: everybody is told, and agrees again when they rest. */
#include <criterion/criterion.h>
#include <stdio.h>
#include "sim/scene.h"

#define NODES 5u
#define INTERVAL_MS 500u
#define WEB "127.0.0.1:80"
#define DB "127.0.0.1:5432"

static void lan(void)
{
    scene_make(&(struct fakenet_settings){.seed = 11, .delay_min_ms = 1, .delay_max_ms = 20});
    scene_add(NODES);
    for (size_t i = 0; i < NODES; i++)
        for (size_t j = 0; j < i; j++)
            scene_dial(i, j);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
}

TestSuite(sim_health, .init = lan, .fini = scene_end);

/* Every node says of everybody's web and db what is so. */
static bool truth(void *ctx)
{
    for (size_t i = 0; i < NODES; i++)
        for (size_t j = 0; j < NODES; j++) {
            struct fakenet_host *owner = scene_host(j), *viewer = scene_host(i);

            if (fakenet_flags(viewer, owner, "web") !=
                (fakenet_backend_up(owner, WEB) ? 0 : ROW_UNHEALTHY))
                return false;
        }
    return scene_agrees(NULL);
}

static void looked_at(const char *name, const char *backend)
{
    for (size_t i = 0; i < NODES; i++)
        fakenet_offer_checked(scene_host(i), "l", name, backend, INTERVAL_MS);
}

Test(sim_health, a_backend_that_ends_is_known_everywhere_after_fall_looks)
{
    struct node_counters before, after;

    looked_at("web", WEB);
    fakenet_run(net, 2000);
    cr_assert(truth(NULL));
    node_counters(scene_host(1)->node, &before);
    fakenet_backend(scene_host(0), WEB, false);
    fakenet_run(net, INTERVAL_MS - 100); /* one may have been under way, and another may begin */
    cr_expect_eq(fakenet_flags(scene_host(0), scene_host(0), "web"), 0, "two looks are not enough");
    cr_assert(fakenet_run_until(net, 3 * INTERVAL_MS, truth, NULL));
    fakenet_backend(scene_host(0), WEB, true);
    cr_assert(fakenet_run_until(net, 4 * INTERVAL_MS, truth, NULL));
    cr_expect_eq(scene_host(0)->events[NODE_BACKEND_DOWN], 1);
    cr_expect_eq(scene_host(0)->events[NODE_BACKEND_UP], 1);
    node_counters(scene_host(1)->node, &after);
    cr_expect_eq(after.digests_differed, before.digests_differed);
    cr_expect_eq(after.syncs_applied, before.syncs_applied + 2, "one change for each turn");
    scene_check();
}

Test(sim_health, backends_that_flap_end_in_the_truth_everywhere)
{
    looked_at("web", WEB);
    for (unsigned round = 0; round < 60; round++) {
        for (uint64_t n = 1 + fakenet_random(net, 40); n > 0; n--) {
            struct fakenet_host *host = scene_host(fakenet_random(net, NODES));

            fakenet_backend(host, WEB, fakenet_random(net, 2));
            if (fakenet_random(net, 3) == 0)
                fakenet_client(host, "web", WEB);
            if (fakenet_random(net, 20) == 0)
                fakenet_break(host);
            if (fakenet_random(net, 20) == 0)
                fakenet_offer_checked(host, "l", "web", WEB,
                                      INTERVAL_MS - 100 + (uint32_t)fakenet_random(net, 200));
            fakenet_run(net, fakenet_random(net, 2 * INTERVAL_MS));
            for (size_t i = 0; i < NODES; i++)
                cr_assert_leq(scene_host(i)->backends[0].looks, 2,
                              "one for each check that it had of late");
        }
        cr_assert(fakenet_run_until(net, 12000, truth, NULL), "round %u", round);
        scene_check();
    }
}

Test(sim_health, clients_alone_tell_the_truth_of_what_has_no_check)
{
    for (size_t i = 0; i < NODES; i++)
        fakenet_offer(scene_host(i), "l", "web", WEB, 0);
    for (unsigned round = 0; round < 30; round++) {
        for (size_t i = 0; i < NODES; i++) {
            fakenet_backend(scene_host(i), WEB, fakenet_random(net, 2));
            for (int clients = 0; clients < 3; clients++)
                fakenet_client(scene_host(i), "web", WEB);
        }
        cr_assert(fakenet_run_until(net, 1000, truth, NULL), "round %u", round);
    }
    for (size_t i = 0; i < NODES; i++)
        fakenet_backend(scene_host(i), WEB, true);
    cr_assert(fakenet_run_until(net, 20000, truth, NULL), "without any client: looked at");
}

Test(sim_health, who_drains_is_known_everywhere_also_to_who_comes_late)
{
    for (size_t i = 0; i < NODES; i++)
        fakenet_offer(scene_host(i), "l", "db", DB, 0);
    fakenet_kill(scene_host(3));
    fakenet_drain_service(scene_host(0), "db", false);
    fakenet_drain_service(scene_host(1), "db", false);
    fakenet_drain_service(scene_host(1), "db", true);
    fakenet_run(net, 500);
    fakenet_boot(scene_host(3));
    cr_assert(fakenet_run_until(net, 12000, scene_agrees, NULL));
    for (size_t i = 0; i < NODES; i++) {
        cr_expect_eq(fakenet_flags(scene_host(i), scene_host(0), "db"), ROW_DRAINING);
        cr_expect_eq(fakenet_flags(scene_host(i), scene_host(1), "db"), 0);
    }
    scene_check();
}
