/* What peers have links with: asked while somebody looks at the mesh, told to who may know. */
#include <criterion/criterion.h>
#include <stdio.h>
#include "node/stage.h"

TestSuite(node_neighbours, .init = stage_begin, .fini = stage_end);

static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};
static struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 500, .version = 1};

static bool wants(const struct stage_peer *peer)
{
    const Meshd__V1__Heartbeat *beat = stage_heard(peer->link, KIND(HEARTBEAT));

    return beat && beat->neighbours_wanted;
}

static void ask(const struct stage_peer *peer)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    beat.incarnation = peer->incarnation;
    beat.version = peer->version;
    beat.neighbours_wanted = true;
    stage_say(peer, KIND(HEARTBEAT), &beat.base);
}

static void say(const struct stage_peer *peer, size_t n, const char *id, const char *state,
                uint32_t total)
{
    Meshd__V1__Neighbour row = MESHD__V1__NEIGHBOUR__INIT, *rows[LIMIT_NEIGHBOURS + 1];
    Meshd__V1__Neighbours said = MESHD__V1__NEIGHBOURS__INIT;

    row.peer_id = (char *)id;
    row.state = (char *)state;
    row.rtt_us = 700;
    for (size_t i = 0; i < n; i++)
        rows[i] = &row;
    said.neighbours = rows;
    said.n_neighbours = n;
    said.total = total;
    stage_say(peer, KIND(NEIGHBOURS), &said.base);
}

static struct node_link_info shown(const struct stage_peer *peer)
{
    struct node_link_info links[4];
    size_t n = node_links(st.node, links, 4);

    for (size_t i = 0; i < n; i++)
        if (strcmp(links[i].peer_id, peer->id) == 0)
            return links[i];
    return (struct node_link_info){0};
}

/* So long that whoever looks is asked once more. */
static void look_for(uint32_t ms)
{
    for (uint32_t at = 0; at < ms; at += 1000) {
        node_look_at_mesh(st.node);
        stage_wait(1000);
    }
}

/* ---- asking ---- */

Test(node_neighbours, peers_are_asked_at_once_and_only_while_somebody_looks)
{
    stage_live(&n2);
    stage_hush();
    stage_wait(3100);
    cr_expect(!wants(&n2));
    stage_hush();
    node_look_at_mesh(st.node);
    cr_expect(wants(&n2));
    node_look_at_mesh(st.node);
    cr_expect_eq(stage_count(n2.link, KIND(HEARTBEAT)), 1, "a second look asks nothing new");
    stage_hush();
    stage_wait(3100);
    cr_expect(wants(&n2));
    stage_wait(7000);
    stage_hush();
    stage_beat(&n2, stage_digest(0, NULL), 0);
    stage_wait(3100);
    cr_expect_not_null(stage_heard(n2.link, KIND(HEARTBEAT)));
    cr_expect(!wants(&n2));
}

Test(node_neighbours, a_link_that_comes_while_somebody_looks_is_asked_too)
{
    node_look_at_mesh(st.node);
    stage_live(&n2);
    stage_wait(3100);
    cr_expect(wants(&n2));
}

Test(node_neighbours, what_a_peer_says_is_shown_with_its_link)
{
    struct node_link_info link;

    stage_live(&n2);
    node_look_at_mesh(st.node);
    say(&n2, 1, "n7", "suspect", 9);
    link = shown(&n2);
    cr_assert_eq(link.n_neighbours, 1);
    cr_expect_str_eq(link.neighbours[0].peer_id, "n7");
    cr_expect_eq(link.neighbours[0].state, NODE_SUSPECT);
    cr_expect_eq(link.neighbours[0].rtt_us, 700);
    cr_expect_eq(link.neighbours_total, 9);
    say(&n2, 0, "", "", 0);
    cr_expect_eq(shown(&n2).n_neighbours, 0, "the newest counts");
    say(&n2, 2, "n7", "live", 2);
    cr_expect_eq(shown(&n2).n_neighbours, 2);
}

Test(node_neighbours, what_nobody_asked_for_is_not_kept)
{
    stage_live(&n2);
    say(&n2, 1, "n7", "live", 1);
    cr_expect_eq(shown(&n2).n_neighbours, 0);
    cr_expect_neq(st.ended, n2.link, "it is no mistake: the answer may be late");
}

Test(node_neighbours, what_was_said_is_forgotten_when_nobody_looks_any_more)
{
    stage_live(&n2);
    node_look_at_mesh(st.node);
    say(&n2, 1, "n7", "live", 1);
    stage_wait(9000);
    cr_expect_eq(shown(&n2).n_neighbours, 1);
    stage_beat(&n2, stage_digest(0, NULL), 0);
    stage_wait(3000);
    cr_expect_eq(shown(&n2).n_neighbours, 0);
}

Test(node_neighbours, what_is_not_said_again_is_forgotten)
{
    stage_live(&n2);
    node_look_at_mesh(st.node);
    say(&n2, 1, "n7", "live", 1);
    for (int i = 0; i < 4; i++) {
        stage_beat(&n2, stage_digest(0, NULL), 0);
        cr_expect_eq(shown(&n2).n_neighbours, 1);
        look_for(4000);
    }
    stage_beat(&n2, stage_digest(0, NULL), 0);
    look_for(5000);
    cr_expect_eq(shown(&n2).n_neighbours, 0);
    cr_expect_neq(st.ended, n2.link);
}

Test(node_neighbours, a_mesh_too_large_to_be_drawn_is_not_asked)
{
    static struct stage_peer peers[LIMIT_NEIGHBOURS + 1];
    static char ids[LIMIT_NEIGHBOURS + 1][8];

    for (unsigned i = 0; i <= LIMIT_NEIGHBOURS; i++) {
        snprintf(ids[i], sizeof(ids[i]), "p%u", i);
        peers[i] =
            (struct stage_peer){.id = ids[i], .ip = "10.0.0.2", .incarnation = 500, .version = 1};
    }
    for (unsigned i = 0; i < LIMIT_NEIGHBOURS; i++)
        stage_live(&peers[i]);
    stage_hush();
    node_look_at_mesh(st.node);
    cr_expect(wants(&peers[0]));
    stage_live(&peers[LIMIT_NEIGHBOURS]);
    for (unsigned i = 0; i <= LIMIT_NEIGHBOURS; i++)
        stage_beat(&peers[i], stage_digest(0, NULL), 0);
    stage_hush();
    stage_wait(3100);
    cr_expect_not_null(stage_heard(peers[0].link, KIND(HEARTBEAT)));
    cr_expect(!wants(&peers[0]));
}

/* ---- telling ---- */

Test(node_neighbours, who_asks_is_told_of_all_links_but_its_own)
{
    const Meshd__V1__Neighbours *told;

    stage_live(&n2);
    stage_live(&n3);
    ask(&n2);
    told = stage_heard(n2.link, KIND(NEIGHBOURS));
    cr_assert_not_null(told);
    cr_assert_eq(told->n_neighbours, 1);
    cr_expect_eq(told->total, 1);
    cr_expect_str_eq(told->neighbours[0]->peer_id, "n3");
    cr_expect_str_eq(told->neighbours[0]->state, "live");
    cr_expect_null(stage_heard(n3.link, KIND(NEIGHBOURS)), "nobody asked there");
}

Test(node_neighbours, who_asks_all_the_time_is_told_once_a_second)
{
    stage_live(&n2);
    for (int i = 0; i < 100; i++)
        ask(&n2);
    cr_expect_eq(stage_count(n2.link, KIND(NEIGHBOURS)), 1);
    stage_wait(1000);
    ask(&n2);
    cr_expect_eq(stage_count(n2.link, KIND(NEIGHBOURS)), 2);
}

Test(node_neighbours, who_may_not_introspect_is_told_nothing)
{
    const char *const all[] = {"*"};
    struct policy_rule rule = {.name = "r",
                               .peers = all,
                               .n_peers = 1,
                               .link = true,
                               .register_names = all,
                               .n_register = 1};
    struct policy_counters count;

    stage_live(&n2);
    cr_assert_eq(policy_keeper_set(st.policy, &rule, 1), 0);
    ask(&n2);
    cr_expect_null(stage_heard(n2.link, KIND(NEIGHBOURS)));
    policy_counters(st.policy, &count);
    cr_expect_eq(count.denied[POLICY_INTROSPECT], 0, "it is no refusal: nobody asked in words");
    rule.introspect = true;
    cr_assert_eq(policy_keeper_set(st.policy, &rule, 1), 0);
    ask(&n2);
    cr_expect_not_null(stage_heard(n2.link, KIND(NEIGHBOURS)));
}

/* ---- peers that break the rules ---- */

static void is_bad(size_t n, const char *id, const char *state, uint32_t total)
{
    struct node_counters before, after;

    stage_live(&n2);
    node_look_at_mesh(st.node);
    node_counters(st.node, &before);
    say(&n2, n, id, state, total);
    node_counters(st.node, &after);
    cr_expect_eq(after.messages_bad, before.messages_bad + 1);
    cr_expect_eq(st.ended, n2.link);
}

Test(node_neighbours, an_id_that_is_none_ends_the_link) { is_bad(1, "a b", "live", 1); }

Test(node_neighbours, an_empty_id_ends_the_link) { is_bad(1, "", "live", 1); }

Test(node_neighbours, a_state_that_is_none_ends_the_link) { is_bad(1, "n7", "happy", 1); }

Test(node_neighbours, more_than_the_limit_ends_the_link)
{
    is_bad(LIMIT_NEIGHBOURS + 1, "n7", "live", LIMIT_NEIGHBOURS + 1);
}

Test(node_neighbours, a_total_below_what_is_told_ends_the_link) { is_bad(2, "n7", "live", 1); }
