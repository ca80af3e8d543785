/* Lists that are longer than there is room for, and limits that are others while the node runs. */
#include <criterion/criterion.h>
#include "node/stage.h"

TestSuite(node_limits, .fini = stage_end);

static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

static const Meshd__V1__SyncWanted *wanted(void) { return stage_heard(n2.link, KIND(SYNC_WANTED)); }

Test(node_limits, a_list_over_the_limit_is_cut_and_counted_but_its_digest_is_kept)
{
    static const char *const three[] = {"a", "h:1", "b", "h:1", "c", "h:1"};
    const Meshd__V1__SyncAck *ack;

    limits_default(&st.limits);
    st.limits.services_per_peer = 2;
    stage_begin();
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 3, three, 0, NULL);
    ack = stage_heard(n2.link, KIND(SYNC_ACK));
    cr_expect(ack->applied);
    cr_expect_eq(ack->accepted, 2);
    cr_assert_eq(ack->n_refused, 1);
    cr_expect_eq(ack->refused[0]->reason, REASON(LIMIT));
    stage_hush();
    stage_beat(&n2, stage_digest(3, three), 3);
    cr_expect_null(wanted());
}

Test(node_limits, a_limit_that_was_lowered_turns_away_what_is_new_and_keeps_what_is_there)
{
    static const char *const three[] = {"a", "h:1", "b", "h:1", "c", "h:1"};
    static const char *const four[] = {"0", "h:1", "a", "h:1", "b", "h:2", "c", "h:1"};

    limits_default(&st.limits);
    stage_begin();
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 3, three, 0, NULL);
    cr_assert_eq(stage_peer_info("n2").count, 3);
    st.limits.services_per_peer = st.limits.services_total = 2;
    node_set_limits(st.node, &st.limits);
    registry_set_limits(st.registry, &st.limits);
    n2.version = 3;
    stage_sync(&n2, 0, 3, three, 0, NULL);
    cr_expect_eq(stage_peer_info("n2").count, 3);
    n2.version = 4;
    stage_sync(&n2, 0, 4, four, 0, NULL);
    cr_expect_eq(stage_peer_info("n2").count, 3);
    cr_expect_eq(stage_heard(n2.link, KIND(SYNC_ACK)) != NULL, true);
    cr_expect_null(registry_find(st.registry, "0@10.0.0.2"));
}

Test(node_limits, what_was_left_out_is_asked_for_when_a_limit_is_raised)
{
    static const char *const three[] = {"a", "h:1", "b", "h:1", "c", "h:1"};

    limits_default(&st.limits);
    st.limits.services_per_peer = 2;
    stage_begin();
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 3, three, 0, NULL);
    cr_assert_eq(stage_peer_info("n2").count, 2);
    stage_hush();
    st.limits.leases++;
    node_set_limits(st.node, &st.limits);
    cr_expect_null(wanted());
    st.limits.services_per_peer = 3;
    registry_set_limits(st.registry, &st.limits);
    node_set_limits(st.node, &st.limits);
    cr_assert_not_null(wanted());
    n2.version = 3; /* the owner goes on above what is known */
    stage_sync(&n2, 0, 3, three, 0, NULL);
    cr_expect_eq(stage_peer_info("n2").count, 3);
    stage_hush();
    node_set_limits(st.node, &st.limits);
    cr_expect_null(wanted());
}

Test(node_limits, a_full_map_refuses_what_is_too_much_and_agrees_on_the_digest)
{
    static const char *const three[] = {"a", "h:1", "b", "h:1", "c", "h:1"};

    limits_default(&st.limits);
    st.limits.services_total = 3; /* one is ours */
    stage_begin();
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 3, three, 0, NULL);
    cr_expect_eq(stage_peer_info("n2").count, 2);
    stage_hush();
    stage_beat(&n2, stage_digest(3, three), 3);
    cr_expect_null(wanted());
}
