/* Five nodes, hours of fake time, everything that can happen to them at random: the promises
 * hold after each calm.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <time.h>
#include "sim/scene.h"

#define NODES 5u
#define ROUNDS 150u

TestSuite(chaos, .fini = scene_end);

static uint64_t pick(uint64_t below) { return fakenet_random(net, below); }

static void change_list(struct fakenet_host *host)
{
    char name[32], backend[32];

    snprintf(name, sizeof(name), "s-%d", (int)pick(8));
    snprintf(backend, sizeof(backend), "127.0.0.1:%d", (int)(1 + pick(3)));
    if (pick(3) == 0)
        fakenet_withdraw(host, "lease", name);
    else if (pick(3) == 0)
        fakenet_drain_service(host, name, pick(2));
    else if (pick(2))
        fakenet_offer_checked(host, "lease", name, backend, 100 + (uint32_t)pick(5000));
    else
        fakenet_offer(host, "lease", name, backend, pick(2) ? 0 : 1000 + pick(20000));
}

static void change_backend(struct fakenet_host *host)
{
    char name[32], backend[32];

    snprintf(name, sizeof(name), "s-%d", (int)pick(8));
    snprintf(backend, sizeof(backend), "127.0.0.1:%d", (int)(1 + pick(3)));
    fakenet_backend(host, backend, pick(2));
    if (host->node && !host->paused)
        for (uint64_t clients = pick(5); clients > 0; clients--)
            fakenet_client(host, name, backend);
}

static void restart(struct fakenet_host *host)
{
    fakenet_kill(host);
    host->skew_us = (int64_t)pick(100000000) - 50000000;
    host->n_services = 0;
    for (uint64_t i = pick(4); i > 0; i--) {
        char name[32];

        snprintf(name, sizeof(name), "c-%d", (int)i);
        fakenet_service(host, name, "127.0.0.1:80");
    }
    fakenet_boot(host);
}

static void something(void)
{
    struct fakenet_host *a = scene_host(pick(NODES)), *b = scene_host(pick(NODES));

    switch (pick(18)) {
    case 0:
        fakenet_kill(a);
        break;
    case 1:
        restart(a);
        break;
    case 2:
        if (a->node)
            fakenet_pause(a);
        break;
    case 3:
        fakenet_resume(a);
        break;
    case 4:
    case 5:
        if (a != b)
            fakenet_cut(a, b, true);
        break;
    case 6:
    case 7:
        fakenet_cut(a, b, false);
        break;
    case 8:
        fakenet_break(a);
        break;
    case 9:
        if (a->node && !a->paused)
            fakenet_quit(a);
        break;
    case 10:
        if (a->node && !a->paused)
            fakenet_drain(a);
        break;
    case 11:
    case 12:
        if (a->node && !a->paused)
            fakenet_forward(a, b);
        break;
    case 13:
        a->busy = !a->busy;
        break;
    case 14:
    case 15:
        change_backend(a);
        break;
    default:
        if (a->node && !a->paused)
            change_list(a);
    }
}

static void calm(void)
{
    for (size_t i = 0; i < NODES; i++) {
        struct fakenet_host *a = scene_host(i);

        for (size_t j = 0; j < i; j++)
            fakenet_cut(a, scene_host(j), false);
        if (a->paused)
            fakenet_resume(a);
        if (!a->node)
            fakenet_boot(a);
        for (int port = 1; port <= 3; port++) { /* what flaps is no calm */
            char backend[32];

            snprintf(backend, sizeof(backend), "127.0.0.1:%d", port);
            fakenet_backend(a, backend, true);
        }
    }
}

/* live_ms, agree_ms: how long after the calm. */
static void play(const struct fakenet_settings *settings, uint64_t live_ms, uint64_t agree_ms)
{
    uint64_t seed = settings->seed;

    scene_make(settings);
    scene_add(NODES);
    for (size_t i = 0; i < NODES; i++)
        for (size_t j = 0; j < NODES; j++)
            if (i != j && pick(2))
                scene_dial(i, j);
    scene_boot_all();
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (uint64_t events = 1 + pick(20); events > 0; events--) {
            something();
            fakenet_run(net, pick(pick(4) ? 500 : 40000));
            scene_check();
        }
        calm();
        cr_assert(fakenet_run_until(net, live_ms, scene_live, NULL),
                  "seed %llu, round %u: not live in time", (unsigned long long)seed, round);
        cr_assert(fakenet_run_until(net, agree_ms, scene_agrees, NULL),
                  "seed %llu, round %u: no agreement", (unsigned long long)seed, round);
        scene_check();
    }
    fprintf(stderr, "%llu simulated minutes\n", (unsigned long long)(fakenet_now(net) / 60000));
}

Test(chaos, every_calm_ends_in_agreement_within_12_s_and_2_heartbeats)
{
    play(&(struct fakenet_settings){.seed = 1, .delay_min_ms = 1, .delay_max_ms = 40}, 12000, 6000);
}

Test(chaos, another_seed_every_day)
{
    play(&(struct fakenet_settings){.seed = (uint64_t)time(NULL) / 86400,
                                    .delay_min_ms = 1,
                                    .delay_max_ms = 40},
         12000, 6000);
}

/* Here nothing is calm: messages come up to 3 s late and connections break all the time. */
Test(chaos, a_net_that_never_rests_ends_in_agreement_too)
{
    play(&(struct fakenet_settings){.seed = 3,
                                    .delay_min_ms = 1,
                                    .delay_max_ms = 150,
                                    .loss_permille = 30,
                                    .break_permille = 100},
         120000, 120000);
}
