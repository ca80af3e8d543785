/* What a node dials changes while it runs: whoever one of the two still dials is linked, nobody
 * else is, and no link that has nothing to do with the change notices it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "sim/scene.h"

#define NODES 5u
#define CALM_MS 3000
#define LINKS_MAX 64u

static void lan(void)
{
    scene_make(&(struct fakenet_settings){.seed = 11, .delay_min_ms = 1, .delay_max_ms = 20});
}

TestSuite(dials, .init = lan, .fini = scene_end);

static uint64_t pick(uint64_t below) { return fakenet_random(net, below); }

/* Where a dials b; NULL: nowhere. */
static const char *dial_of(const struct fakenet_host *a, const struct fakenet_host *b)
{
    for (size_t i = 0; i < a->n_dials; i++)
        if (strcmp(a->dials[i].host, b->addr.ip) == 0)
            return a->dials[i].expected;
    return NULL;
}

struct session {
    bool live;
    uint8_t id[SESSION_ID_LEN];
};

/* That by which a reaches b. */
static struct session session_of(const struct fakenet_host *a, const struct fakenet_host *b)
{
    struct node_link_info links[LINKS_MAX];
    size_t n = node_links(a->node, links, LINKS_MAX);
    struct session session = {.live = false};

    cr_assert_leq(n, LINKS_MAX);
    for (size_t i = 0; i < n; i++)
        if (strcmp(links[i].peer_id, b->id) == 0 && strcmp(links[i].state, "live") == 0) {
            cr_expect_not(session.live, "%s has two links with %s", a->id, b->id);
            session.live = true;
            memcpy(session.id, links[i].session_id, SESSION_ID_LEN);
        }
    return session;
}

static void expect_as_dialled(unsigned round)
{
    cr_assert(scene_agrees(NULL), "round %u: who is dialled is not linked", round);
    for (size_t i = 0; i < NODES; i++)
        for (size_t j = 0; j < i; j++) {
            struct fakenet_host *a = scene_host(i), *b = scene_host(j);

            if (dial_of(a, b) || dial_of(b, a)) {
                cr_assert(session_of(a, b).live && session_of(b, a).live);
                continue;
            }
            cr_assert_eq(fakenet_rows(a, b->id), -1, "round %u: %s keeps %s", round, a->id, b->id);
            cr_assert_eq(fakenet_rows(b, a->id), -1, "round %u: %s keeps %s", round, b->id, a->id);
        }
    scene_check();
}

/* Some of a's dials go, some come, some only say whom they expect, or no more. */
static void change_dials(struct fakenet_host *a)
{
    bool before[NODES];
    uint64_t least = pick(NODES);

    for (size_t j = 0; j < NODES; j++)
        before[j] = dial_of(a, scene_host(j)) != NULL;
    a->n_dials = 0;
    for (size_t k = 0; k < NODES; k++) {
        size_t j = (k + least) % NODES; /* in another order */
        struct fakenet_host *b = scene_host(j);

        if (b == a || before[j] == (pick(4) == 0))
            continue;
        fakenet_dial(a, b->addr.ip, b->addr.port, pick(2) ? b->id : NULL);
    }
    fakenet_redial(a);
}

static void begin(void)
{
    scene_add(NODES);
    for (size_t i = 0; i < NODES; i++)
        for (size_t j = 0; j < NODES; j++)
            if (i != j && pick(2))
                scene_dial(i, j);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, CALM_MS);
}

Test(dials, a_change_is_followed_and_no_other_link_notices)
{
    struct session before[NODES][NODES], now;
    bool dialled[NODES];

    begin();
    for (unsigned round = 0; round < 400; round++) {
        size_t at = pick(NODES);
        struct fakenet_host *a = scene_host(at);

        for (size_t i = 0; i < NODES; i++) {
            dialled[i] = dial_of(a, scene_host(i)) != NULL;
            for (size_t j = 0; j < NODES; j++)
                before[i][j] = session_of(scene_host(i), scene_host(j));
        }
        change_dials(a);
        fakenet_run(net, CALM_MS);
        expect_as_dialled(round);
        for (size_t i = 0; i < NODES; i++)
            for (size_t j = 0; j < NODES; j++) {
                size_t other = i == at ? j : i;

                if ((i == at || j == at) &&
                    dialled[other] != (dial_of(a, scene_host(other)) != NULL))
                    continue; /* that one was changed */
                now = session_of(scene_host(i), scene_host(j));
                cr_assert_eq(now.live, before[i][j].live, "round %u", round);
                cr_assert_arr_eq(now.id, before[i][j].id, SESSION_ID_LEN,
                                 "round %u: another session of n%zu with n%zu", round, i, j);
            }
    }
}

Test(dials, changes_that_cross_each_other_and_what_is_being_opened_come_out_right)
{
    begin();
    for (unsigned round = 0; round < 200; round++) {
        for (uint64_t changes = 1 + pick(12); changes > 0; changes--) {
            change_dials(scene_host(pick(NODES)));
            if (pick(4) == 0)
                fakenet_break(scene_host(pick(NODES)));
            fakenet_run(net, pick(2) ? pick(60) : pick(1500));
            scene_check();
        }
        cr_assert(fakenet_run_until(net, 12000, scene_live, NULL), "round %u", round);
        fakenet_run(net, 31000); /* who was asked and then not dialled is remembered for so long */
        expect_as_dialled(round);
    }
}

Test(dials, a_peer_that_is_not_dialled_any_more_goes_at_once_at_both_ends)
{
    scene_add(2);
    scene_dial(0, 1);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    scene_host(0)->n_dials = 0;
    fakenet_redial(scene_host(0));
    cr_expect_eq(fakenet_rows(scene_host(0), "n1"), -1);
    fakenet_run(net, 25);
    cr_expect_eq(fakenet_rows(scene_host(1), "n0"), -1);
    scene_dial(0, 1);
    fakenet_redial(scene_host(0));
    fakenet_run(net, 150);
    cr_expect(scene_agrees(NULL));
}

Test(dials, whoever_is_dialled_from_there_too_comes_back_at_once)
{
    scene_add(2);
    scene_dial(0, 1); /* this one stays, the other is parked */
    scene_dial(1, 0);
    scene_boot_all();
    cr_assert(fakenet_run_until(net, 2000, scene_agrees, NULL));
    fakenet_run(net, 2000);
    scene_host(0)->n_dials = 0;
    fakenet_redial(scene_host(0));
    fakenet_run(net, 300);
    cr_expect(scene_agrees(NULL));
    cr_expect(session_of(scene_host(0), scene_host(1)).live);
}

Test(dials, the_same_peer_at_another_address_does_not_go)
{
    uint32_t gone;

    scene_add(2);
    fakenet_name(net, "there.example", "10.0.0.2");
    fakenet_dial(scene_host(0), "there.example", 7400, "n1");
    fakenet_boot(scene_host(0));
    fakenet_boot(scene_host(1));
    fakenet_run(net, 2000);
    cr_assert(fakenet_linked(scene_host(0), scene_host(1)));
    gone = scene_host(0)->events[NODE_PEER_GONE];
    scene_host(0)->n_dials = 0;
    fakenet_dial(scene_host(0), "10.0.0.2", 7400, "n1");
    fakenet_redial(scene_host(0));
    cr_expect_eq(fakenet_rows(scene_host(0), "n1"), 1);
    fakenet_run(net, 300);
    cr_expect(fakenet_linked(scene_host(0), scene_host(1)));
    cr_expect_eq(scene_host(0)->events[NODE_PEER_GONE], gone);
}
