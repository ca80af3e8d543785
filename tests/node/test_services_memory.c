/* Own services when each allocation in turn fails: then nothing has changed, and nothing leaks. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "failing.h"
#include "node/own.h"

TestSuite(node_services_memory, .init = own_begin, .fini = stage_end);

#define MOST 500 /* allocations of one step, and then some */

Test(node_services_memory, other_services_come_all_or_not_at_all)
{
    const struct node_service others[] = {
        {AT("own", B), .proxy_protocol = 1, .check = {.kind = TCP, .interval_ms = 700}},
        {AT("a", "h:1"), .check = {.kind = HTTP, .path = "/"}},
        {AT("b", "h:1")},
        {AT("held", "h:9")},
    };
    uint64_t version, revision;
    int r = -ENOMEM;
    long n = 0;

    SET({AT("own", B), .check = {.kind = TCP}}, {AT("gone", "h:1"), .check = {.kind = TCP}});
    own_offer("l1", "held", "h:2", 0, NULL, 0);
    version = node_version(st.node);
    revision = registry_revision(st.registry);
    for (; n < MOST; n++) {
        long before = alive;

        until_failure = n;
        r = node_set_services(st.node, others, 4);
        until_failure = -1;
        if (r == 0)
            break;
        cr_assert_eq(r, -ENOMEM);
        cr_assert_eq(alive, before, "allocation %ld: %ld are left", n, alive - before);
        cr_assert_eq(node_version(st.node), version);
        cr_assert_eq(registry_revision(st.registry), revision);
        cr_assert_eq(own_flags("a"), -1);
        cr_assert_eq(own_flags("gone"), 0);
        cr_assert_eq(own_info("own").check->interval_ms, 5000);
    }
    cr_assert_eq(r, 0);
    cr_expect_geq(n, 10);
    cr_expect_eq(own_flags("own"), ROW_PROXY_V1);
    cr_expect_eq(own_flags("gone"), -1);
    cr_expect_str_eq(own_backend("held"), "h:2");
    cr_expect_eq(registry_check(st.registry), 0);
}

Test(node_services_memory, an_offer_that_is_refused_leaves_nothing)
{
    Meshd__V1__Check check = MESHD__V1__CHECK__INIT;
    uint32_t status = STATUS_RESOURCE_EXHAUSTED;
    long n = 0;

    check.kind = TCP;
    for (; n < MOST && status != STATUS_OK; n++) {
        uint64_t version = node_version(st.node);

        until_failure = n;
        status = own_offer("l1", "web", "h:1", 0, &check, 0);
        until_failure = -1;
        if (status == STATUS_OK)
            break;
        cr_assert_eq(status, STATUS_RESOURCE_EXHAUSTED);
        cr_assert_eq(node_version(st.node), version);
        cr_assert_null(own_info("web").name);
        cr_assert_eq(own_counters().leases, 0);
    }
    cr_assert_eq(status, STATUS_OK);
    cr_expect_geq(n, 3);
    own_look("h:1", NULL);
}

/* The node knows at once, and tells as soon as it can. */
Test(node_services_memory, a_turn_that_could_not_be_told_is_told_with_the_next_look)
{
    SET({AT("own", B), .check = {.kind = TCP}});
    stage_wait(500);
    until_failure = 0;
    stage_look(B, "refused");
    until_failure = -1;
    cr_expect_eq(own_flags("own"), 0);
    cr_expect_not(own_info("own").healthy);
    cr_expect_eq(st.events[NODE_BACKEND_DOWN], 1);
    own_look(B, "refused");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
    cr_expect_eq(st.events[NODE_BACKEND_DOWN], 1);
}

Test(node_services_memory, draining_and_the_end_of_a_lease_wait_for_memory)
{
    own_offer("l1", "web", "h:1", 1000, NULL, 0);
    until_failure = 0;
    cr_expect_eq(own_drain("web", false), STATUS_RESOURCE_EXHAUSTED);
    until_failure = -1;
    cr_expect_eq(own_flags("web"), 0);
    cr_expect_eq(own_counters().services_draining, 0);
    st.now_ms += 1000;
    until_failure = 0;
    node_tick(st.node);
    until_failure = -1;
    cr_expect_eq(own_flags("web"), 0);
    cr_expect_eq(st.events[NODE_LEASE_EXPIRED], 0);
    stage_wait(1100);
    cr_expect_eq(own_flags("web"), -1);
    cr_expect_eq(st.events[NODE_LEASE_EXPIRED], 1);
}
