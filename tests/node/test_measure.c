/* The way there and back, and how long a change took, by what a peer says of itself. */
#include <criterion/criterion.h>
#include "node/stage.h"

TestSuite(node_measure, .init = stage_begin, .fini = stage_end);

static const char *const one[] = {"web", "127.0.0.1:80"};
static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

static uint64_t rtt_us(void)
{
    struct node_link_info link;

    cr_assert_eq(node_links(st.node, &link, 1), 1);
    return link.rtt_us;
}

static struct histogram visible(void)
{
    struct node_counters c;

    node_counters(st.node, &c);
    return c.visible;
}

/* Of the node, which speaks once in a while. */
static const Meshd__V1__Heartbeat *heard(void)
{
    stage_hush();
    stage_wait(3100);
    cr_assert_not_null(stage_heard(n2.link, KIND(HEARTBEAT)));
    return stage_heard(n2.link, KIND(HEARTBEAT));
}

static void beat(uint64_t clock_us, uint64_t echo_us, uint64_t held_us)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    beat.incarnation = n2.incarnation;
    beat.version = n2.version;
    beat.clock_us = clock_us;
    beat.echo_clock_us = echo_us;
    beat.echo_held_us = held_us;
    stage_say(&n2, KIND(HEARTBEAT), &beat.base);
}

static void sync_aged(uint64_t age_us)
{
    Meshd__V1__Service service = MESHD__V1__SERVICE__INIT, *services[] = {&service};
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;

    service.name = (char *)one[0];
    service.backend_addr = (char *)one[1];
    sync.incarnation = n2.incarnation;
    sync.base_version = n2.version;
    sync.version = ++n2.version;
    sync.last = true;
    sync.entries = services;
    sync.n_entries = 1;
    sync.digest = stage_digest(1, one);
    sync.count = 1;
    sync.age_us = age_us;
    stage_say(&n2, KIND(SYNC), &sync.base);
    cr_assert_eq(stage_peer_info("n2").version, n2.version);
}

/* 40 ms there and back, 5 ms of rest at the other end. */
static void measured(void)
{
    const Meshd__V1__Heartbeat *ours;
    uint64_t clock_us;

    stage_live(&n2);
    ours = heard();
    clock_us = ours->clock_us;
    stage_wait(45);
    beat(77, clock_us, 5000);
}

Test(node_measure, what_was_held_at_the_other_end_is_taken_off)
{
    measured();
    /* The node's beat left up to 100 ms ago: stage_wait goes by tenths of a second. */
    cr_expect(rtt_us() >= 40000 && rtt_us() <= 140000, "%lu", rtt_us());
}

Test(node_measure, what_is_measured_is_told_by_peer_and_links_by_state)
{
    struct node_rtt rtts[2];
    struct node_counters c;

    stage_live(&n2);
    cr_expect_eq(node_rtts(st.node, rtts, 2), 0);
    beat(1, 1, 0);
    cr_assert_eq(node_rtts(st.node, rtts, 2), 1);
    cr_expect_str_eq(rtts[0].peer_id, "n2");
    cr_expect_eq(rtts[0].us, rtt_us());
    cr_expect_eq(node_rtts(st.node, rtts, 0), 0);
    node_counters(st.node, &c);
    cr_expect_eq(c.peers, 1);
    for (int i = 0; i < N_NODE_LINK_STATES; i++)
        cr_expect_eq(c.links[i], i == NODE_LIVE, "%s", node_link_states[i]);
}

Test(node_measure, the_other_ends_clock_comes_back_with_how_long_it_was_held)
{
    const Meshd__V1__Heartbeat *ours;

    stage_live(&n2);
    ours = heard();
    cr_expect_neq(ours->clock_us, 0);
    cr_expect_eq(ours->echo_clock_us, 0);
    beat(123456789, 0, 0);
    ours = heard();
    cr_expect_eq(ours->echo_clock_us, 123456789);
    cr_expect(ours->echo_held_us > 0 && ours->echo_held_us <= 3100000);
}

Test(node_measure, a_time_that_cannot_be_is_not_believed)
{
    const Meshd__V1__Heartbeat *ours;
    uint64_t clock_us;

    stage_live(&n2);
    ours = heard();
    clock_us = ours->clock_us;
    beat(1, clock_us + 1000000000, 0); /* of the future */
    beat(2, clock_us, UINT64_MAX);     /* held since before it was sent */
    beat(3, UINT64_MAX, UINT64_MAX);
    cr_expect_eq(rtt_us(), 0);
    for (int i = 0; i < 25; i++) {
        stage_wait(3000);
        beat(4, 0, 0);
    }
    beat(5, clock_us, 0); /* more than a minute ago */
    cr_expect_eq(rtt_us(), 0);
    cr_expect_eq(st.ended, 0);
}

Test(node_measure, a_change_is_as_old_as_its_owner_says_and_half_the_way)
{
    struct histogram h;
    uint64_t half_us;

    measured();
    half_us = rtt_us() / 2;
    sync_aged(300000);
    h = visible();
    cr_expect_eq(histogram_count(&h), 1);
    cr_expect_eq(h.sum_us, 300000 + half_us);
}

Test(node_measure, a_change_of_unknown_age_or_over_an_unknown_way_is_not_measured)
{
    struct histogram h;

    stage_live(&n2);
    sync_aged(300000);
    h = visible();
    cr_expect_eq(histogram_count(&h), 0);
}

Test(node_measure, a_change_is_at_most_a_minute_old_whatever_is_said)
{
    struct histogram h;

    measured();
    sync_aged(UINT64_MAX);
    h = visible();
    cr_expect_eq(histogram_count(&h), 1);
    cr_expect(h.sum_us >= 60000000 && h.sum_us < 61000000);
}

Test(node_measure, a_first_list_has_no_age_and_a_change_has)
{
    const struct node_caller caller = {.peer_id = "", .ip = "", .local = true};
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;
    const Meshd__V1__Sync *sync;

    stage_open(&n2);
    sync = stage_heard(n2.link, KIND(SYNC));
    cr_expect_eq(sync->age_us, 0);
    request.lease_id = (char *)"lease";
    request.name = (char *)"web";
    request.backend_addr = (char *)"127.0.0.1:80";
    node_offer(st.node, 1, &caller, &request); /* waits for the first to be acknowledged */
    stage_sync(&n2, 0, 0, NULL, 0, NULL);
    stage_wait(250);
    stage_ack(&n2, true);
    sync = stage_heard(n2.link, KIND(SYNC));
    cr_assert_eq(sync->n_entries, 1);
    cr_expect_eq(sync->age_us, 250000);
}
