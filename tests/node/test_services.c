/* Own services at run time: draining, offers with a check, and other ones in the configuration. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "node/own.h"

TestSuite(node_services, .init = own_begin, .fini = stage_end);

/* ---- draining ---- */

Test(node_services, a_service_drains_until_it_is_enabled)
{
    uint64_t version = node_version(st.node);
    const Meshd__V1__DrainReply *reply;

    cr_assert_eq(own_drain("OWN.", false), STATUS_OK);
    reply = stage_reply(&meshd__v1__drain_reply__descriptor);
    cr_expect(reply->changed);
    cr_expect_eq(reply->version, version + 1);
    cr_expect_eq(own_flags("own"), ROW_DRAINING);
    cr_expect_eq(own_counters().services_draining, 1);
    cr_expect(own_info("own").draining);
    cr_expect_str_eq(st.text[NODE_SERVICE_DRAINED], "own");
    own_drain("own", false);
    reply = stage_reply(&meshd__v1__drain_reply__descriptor);
    cr_expect_not(reply->changed);
    cr_expect_eq(node_version(st.node), version + 1);
    own_drain("own", true);
    reply = stage_reply(&meshd__v1__drain_reply__descriptor);
    cr_expect(reply->changed);
    cr_expect_eq(own_flags("own"), 0);
    cr_expect_eq(own_counters().services_draining, 0);
    cr_expect_eq(st.events[NODE_SERVICE_DRAINED], 1);
    cr_expect_eq(st.events[NODE_SERVICE_ENABLED], 1);
}

Test(node_services, a_node_that_drains_keeps_what_is_offered_and_takes_nothing_new)
{
    cr_assert_eq(own_offer("l1", "web", "127.0.0.1:80", 0, NULL, 0), STATUS_OK);
    node_drain(st.node);
    cr_expect_eq(own_offer("l1", "api", "127.0.0.1:81", 0, NULL, 0), STATUS_UNAVAILABLE);
    cr_expect_eq(st.reply.reason, REASON(DRAINING));
    cr_expect_eq(own_offer("l1", "web", "127.0.0.1:80", 0, NULL, 0), STATUS_OK, "it is renewed");
    cr_expect_eq(own_drain("own", false), STATUS_OK);
    cr_expect_eq(own_counters().leases, 1u);
}

Test(node_services, only_names_of_this_node_drain_and_only_at_the_local_socket)
{
    const struct node_caller peer = {
        .peer_id = "n2", .ip = "10.0.0.2", .subject = "n2", .secure = true};
    Meshd__V1__DrainRequest request = MESHD__V1__DRAIN_REQUEST__INIT;

    cr_expect_eq(own_drain("nobody", false), STATUS_NOT_FOUND);
    cr_expect_eq(own_drain("a b", false), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(st.reply.reason, REASON(BAD_NAME));
    request.name = (char *)"own";
    node_drain_service(st.node, 1, &peer, &request);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect_eq(own_flags("own"), 0);
}

Test(node_services, who_may_not_offer_a_name_may_not_drain_it)
{
    const char *none[] = {"web"};
    const struct policy_rule rule = {.name = "edge",
                                     .peers = (const char *[]){POLICY_LOCAL},
                                     .n_peers = 1,
                                     .offer_names = none,
                                     .n_offer = 1};

    cr_assert_eq(policy_keeper_set(st.policy, &rule, 1), 0);
    cr_expect_eq(own_drain("own", false), STATUS_PERMISSION_DENIED);
    cr_expect_eq(st.reply.reason, REASON(POLICY));
    cr_expect_eq(own_flags("own"), 0);
    cr_expect_eq(own_drain("web", false), STATUS_NOT_FOUND);
}

Test(node_services, draining_stays_with_the_name_until_nobody_offers_it)
{
    own_offer("l1", "web", "h:1", 5000, NULL, 0);
    own_drain("web", false);
    own_offer("l1", "web", "h:1", 5000, NULL, 0);
    cr_expect_eq(own_flags("web"), ROW_DRAINING, "renewed");
    own_offer("l1", "web", "h:2", 5000, NULL, 0);
    cr_expect_eq(own_flags("web"), ROW_DRAINING, "another backend");
    own_drain("own", false);
    SET({AT("own", "h:3")});
    cr_expect_eq(own_flags("own"), ROW_DRAINING, "the settings were read again");
    stage_wait(6000);
    cr_expect_eq(own_flags("web"), -1);
    cr_expect_eq(own_counters().services_draining, 1);
    own_offer("l1", "web", "h:1", 0, NULL, 0);
    cr_expect_eq(own_flags("web"), 0);
}

static bool drain_leaves_it_draining(const char *name, bool enable)
{
    cr_assert_eq(own_drain(name, enable), STATUS_OK);
    return ((const Meshd__V1__DrainReply *)stage_reply(&meshd__v1__drain_reply__descriptor))
        ->draining;
}

static const Meshd__V1__OfferReply *offer_reply(void)
{
    return (const Meshd__V1__OfferReply *)stage_reply(&meshd__v1__offer_reply__descriptor);
}

Test(node_services, what_is_offered_as_draining_drains_until_it_is_offered_otherwise)
{
    uint64_t version = node_version(st.node);

    cr_assert_eq(own_offer_draining("l1", "web", "h:1", 0), STATUS_OK);
    cr_expect(offer_reply()->draining);
    cr_expect_eq(node_version(st.node), version + 1, "nobody was told that it takes clients");
    cr_expect_eq(own_flags("web"), ROW_DRAINING);
    cr_expect_eq(own_counters().services_draining, 1);
    cr_expect(own_info("web").draining);
    own_offer_draining("l1", "web", "h:1", 0);
    cr_expect_eq(node_version(st.node), version + 1);
    own_offer("l1", "web", "h:1", 0, NULL, 0);
    cr_expect_not(offer_reply()->draining);
    cr_expect_eq(own_flags("web"), 0);
    cr_expect_eq(own_counters().services_draining, 0);
    cr_expect_eq(st.events[NODE_SERVICE_DRAINED], 1);
    cr_expect_eq(st.events[NODE_SERVICE_ENABLED], 1);
}

Test(node_services, it_takes_clients_when_neither_the_offer_nor_a_hand_says_otherwise)
{
    own_offer_draining("l1", "web", "h:1", 0);
    cr_expect(drain_leaves_it_draining("web", false));
    cr_expect(drain_leaves_it_draining("web", true), "the offer still says so");
    cr_expect_eq(own_flags("web"), ROW_DRAINING);
    own_drain("web", false);
    own_offer("l1", "web", "h:1", 0, NULL, 0);
    cr_expect(offer_reply()->draining, "by hand");
    cr_expect_eq(own_flags("web"), ROW_DRAINING);
    cr_expect_not(drain_leaves_it_draining("web", true));
    cr_expect_eq(own_flags("web"), 0);
    cr_expect_eq(st.events[NODE_SERVICE_DRAINED], 1);
    cr_expect_eq(st.events[NODE_SERVICE_ENABLED], 1);
}

Test(node_services, a_lease_that_drained_leaves_nothing_to_the_configuration)
{
    own_offer_draining("l1", "web", "h:1", 5000);
    SET({AT("own", B)}, {AT("web", "h:2")});
    stage_wait(6000);
    cr_expect_str_eq(own_backend("web"), "h:2");
    cr_expect_eq(own_flags("web"), 0);
    cr_expect_eq(own_counters().services_draining, 0);
}

Test(node_services, an_offer_is_answered_with_what_is_known_of_the_backend)
{
    Meshd__V1__Check check = MESHD__V1__CHECK__INIT;

    check.kind = TCP;
    own_offer("l1", "web", "h:1", 0, &check, 0);
    cr_expect_not(offer_reply()->unhealthy);
    cr_expect_str_eq(offer_reply()->why, "");
    own_look("h:1", "connection refused");
    own_offer("l1", "web", "h:1", 0, &check, 0);
    cr_expect(offer_reply()->unhealthy);
    cr_expect_str_eq(offer_reply()->why, "connection refused");
    own_look("h:1", NULL);
    own_look("h:1", NULL);
    own_offer("l1", "web", "h:1", 0, &check, 0);
    cr_expect_not(offer_reply()->unhealthy);
    cr_expect_str_eq(offer_reply()->why, "");
}

Test(node_services, both_are_told_together)
{
    SET({AT("own", B), .check = {.kind = TCP}});
    own_drain("own", false);
    own_look(B, "refused");
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY | ROW_DRAINING);
    own_drain("own", true);
    cr_expect_eq(own_flags("own"), ROW_UNHEALTHY);
}

Test(node_services, backends_are_told_of_with_the_unhealthy_ones_first)
{
    struct node_check_info infos[4];
    const char *const order[] = {"b", "d", "a", "c"};

    SET({AT("a", "h:1"), .check = {.kind = TCP}}, {AT("b", "h:2"), .check = {.kind = TCP}},
        {AT("c", "h:3")}, {AT("d", "h:4"), .check = {.kind = TCP}}, {AT("e", "h:5")});
    own_drain("c", false);
    own_look("h:2", "refused");
    own_look("h:4", "refused");
    cr_assert_eq(node_checks(st.node, NULL, 0), 4, "nothing is known of e");
    cr_assert_eq(node_checks(st.node, infos, 4), 4);
    for (size_t i = 0; i < 4; i++)
        cr_expect_str_eq(infos[i].name, order[i]);
    infos[1].name = NULL;
    cr_assert_eq(node_checks(st.node, infos, 1), 4);
    cr_expect_str_eq(infos[0].name, "b");
    cr_expect_null(infos[1].name);
}

/* ---- offers ---- */

Test(node_services, an_offer_may_have_a_check_and_an_introduction)
{
    Meshd__V1__Check check = MESHD__V1__CHECK__INIT;

    check.kind = HTTP;
    check.path = (char *)"/up?full";
    check.interval_ms = 200;
    cr_assert_eq(own_offer("l1", "web", "h:1", 0, &check, 2), STATUS_OK);
    cr_expect_eq(own_flags("web"), ROW_PROXY_V2);
    stage_wait(200);
    cr_assert_eq(st.n_looks, 1);
    cr_expect_str_eq(st.looks[0].check.path, "/up?full");
    cr_expect_eq(st.looks[0].proxy_protocol, 2);
    own_look("h:1", "answered 500");
    cr_expect_eq(own_flags("web"), ROW_PROXY_V2 | ROW_UNHEALTHY);
    cr_expect_eq(own_info("web").check->interval_ms, 200);
    cr_expect_eq(own_info("web").check->rise, 2);
}

Test(node_services, a_renewal_with_other_values_changes_them_and_keeps_what_is_known)
{
    Meshd__V1__Check check = MESHD__V1__CHECK__INIT;
    uint64_t version;

    check.kind = TCP;
    own_offer("l1", "web", "h:1", 0, &check, 0);
    own_look("h:1", "refused");
    version = node_version(st.node);
    check.interval_ms = 1000;
    cr_assert_eq(own_offer("l1", "web", "h:1", 0, &check, 1), STATUS_OK);
    cr_expect_eq(own_flags("web"), ROW_UNHEALTHY | ROW_PROXY_V1);
    cr_expect_eq(node_version(st.node), version + 1);
    own_offer("l1", "web", "h:1", 0, &check, 1);
    cr_expect_eq(node_version(st.node), version + 1, "the same again");
    cr_assert_eq(own_offer("l1", "web", "h:1", 0, NULL, 1), STATUS_OK);
    cr_expect_null(own_info("web").check);
    own_look("h:1", NULL);
    own_look("h:1", NULL);
    cr_expect_eq(own_flags("web"), ROW_PROXY_V1);
    cr_expect(own_unlooked("h:1", 10000));
}

Test(node_services, another_backend_is_healthy_until_it_is_known_better)
{
    Meshd__V1__Check check = MESHD__V1__CHECK__INIT;

    check.kind = TCP;
    own_offer("l1", "web", "h:1", 0, &check, 0);
    own_look("h:1", "refused");
    own_offer("l1", "web", "h:2", 0, &check, 0);
    cr_expect_eq(own_flags("web"), 0);
    own_look("h:2", "refused");
    cr_expect_eq(own_flags("web"), ROW_UNHEALTHY, "its first look");
}

Test(node_services, bad_checks_are_told_what_is_wrong)
{
    char path[LIMIT_CHECK_PATH + 2] = "/";
    static const struct {
        int kind;
        const char *path;
        uint32_t interval_ms, timeout_ms, rise, fall;
        const char *text;
    } bad[] = {
        {0, "", 0, 0, 0, 0, "the check has no kind"},
        {9, "", 0, 0, 0, 0, "the check is of a kind that is not known here"},
        {HTTP, "", 0, 0, 0, 0, "the check's path does not begin with /"},
        {HTTP, "up", 0, 0, 0, 0, "the check's path does not begin with /"},
        {HTTP, "/a b", 0, 0, 0, 0,
         "the check's path has bytes that are not printable ASCII, or a space"},
        {HTTP, "/\r\nX: y", 0, 0, 0, 0,
         "the check's path has bytes that are not printable ASCII, or a space"},
        {TCP, "/", 0, 0, 0, 0, "the check has a path, which only one by HTTP may have"},
        {TCP, "", 99, 0, 0, 0, "the check's interval_ms is not 0, or 100 to 3600000"},
        {TCP, "", 3600001, 0, 0, 0, "the check's interval_ms is not 0, or 100 to 3600000"},
        {TCP, "", 0, 49, 0, 0, "the check's timeout_ms is not 0, or 50 to 60000"},
        {TCP, "", 0, 60001, 0, 0, "the check's timeout_ms is not 0, or 50 to 60000"},
        {TCP, "", 0, 0, 101, 0, "the check's rise or fall is more than 100"},
        {TCP, "", 0, 0, 0, 101, "the check's rise or fall is more than 100"},
        {HTTP, NULL, 0, 0, 0, 0, "the check's path is longer than 256 bytes"},
    };
    Meshd__V1__Check check = MESHD__V1__CHECK__INIT;

    memset(path + 1, 'x', sizeof(path) - 2);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        check.kind = (Meshd__V1__CheckKind)bad[i].kind;
        check.path = bad[i].path ? (char *)bad[i].path : path;
        check.interval_ms = bad[i].interval_ms;
        check.timeout_ms = bad[i].timeout_ms;
        check.rise = bad[i].rise;
        check.fall = bad[i].fall;
        cr_expect_eq(own_offer("l1", "web", "h:1", 0, &check, 0), STATUS_INVALID_ARGUMENT);
        cr_expect_str_eq(st.reply.text, bad[i].text);
    }
    cr_expect_eq(own_offer("l1", "web", "h:1", 0, NULL, 3), STATUS_INVALID_ARGUMENT);
    cr_expect_str_eq(st.reply.text, "proxy_protocol is 0 (none), 1 (v1) or 2 (v2)");
    cr_expect_eq(own_flags("web"), -1);
}

/* ---- services of the configuration, changed ---- */

Test(node_services, they_become_the_others_in_one_change)
{
    uint64_t version = node_version(st.node);
    uint32_t printed;

    SET({AT("own", B)}, {AT("a", "h:1")}, {AT("b", "h:1"), .proxy_protocol = 1});
    cr_expect_eq(node_version(st.node), version + 1);
    printed = st.events[NODE_MAPS_CHANGED];
    SET({AT("b", "h:2")}, {AT("c", "h:1")}, {AT("own", B)});
    cr_expect_eq(node_version(st.node), version + 2);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed + 1);
    cr_expect_eq(own_flags("a"), -1);
    cr_expect_str_eq(own_backend("b"), "h:2");
    cr_expect_eq(own_flags("b"), 0);
    cr_expect_str_eq(own_backend("c"), "h:1");
}

Test(node_services, the_same_again_changes_nothing)
{
    uint64_t version, revision;
    uint32_t printed;

    SET({AT("own", B), .proxy_protocol = 2, .check = {.kind = TCP}}, {AT("a", "h:1")});
    own_look(B, "refused");
    own_drain("a", false);
    version = node_version(st.node);
    revision = registry_revision(st.registry);
    printed = st.events[NODE_MAPS_CHANGED];
    SET({AT("a", "h:1")}, {AT("own", B), .proxy_protocol = 2,
                           .check = {.kind = TCP, .interval_ms = 5000, .rise = 2}});
    cr_expect_eq(node_version(st.node), version);
    cr_expect_eq(registry_revision(st.registry), revision);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed);
    cr_expect_eq(own_flags("own"), ROW_PROXY_V2 | ROW_UNHEALTHY);
    cr_expect_eq(own_flags("a"), ROW_DRAINING);
}

Test(node_services, what_a_lease_holds_stays_its_and_comes_back_when_that_ends)
{
    own_offer("l1", "web", "h:1", 5000, NULL, 0);
    SET({AT("own", B)}, {AT("web", "h:2"), .proxy_protocol = 1});
    cr_expect_str_eq(own_backend("web"), "h:1");
    cr_expect_eq(own_offer("l1", "web", "h:3", 5000, NULL, 0), STATUS_OK, "it is the lease's");
    stage_wait(6000);
    cr_expect_eq(st.events[NODE_LEASE_EXPIRED], 1);
    cr_expect_str_eq(own_backend("web"), "h:2");
    cr_expect_eq(own_flags("web"), ROW_PROXY_V1);
    cr_expect_eq(own_counters().leases, 0);
    cr_expect_eq(own_offer("l1", "web", "h:1", 0, NULL, 0), STATUS_ALREADY_EXISTS);
    cr_expect_eq(own_withdraw("web"), STATUS_FAILED_PRECONDITION);
}

Test(node_services, it_comes_back_with_its_check_in_the_same_change)
{
    uint64_t version;

    own_offer("l1", "web", "h:1", 0, NULL, 0);
    SET({AT("own", B)}, {AT("web", "h:1"), .check = {.kind = TCP}});
    version = node_version(st.node);
    cr_expect_eq(own_withdraw("web"), STATUS_OK);
    cr_expect_eq(node_version(st.node), version, "the same backend: nothing to tell");
    own_look("h:1", "refused");
    cr_expect_eq(own_flags("web"), ROW_UNHEALTHY);
}

Test(node_services, what_the_configuration_lost_meanwhile_does_not_come_back)
{
    own_offer("l1", "web", "h:1", 0, NULL, 0);
    SET({AT("own", B)}, {AT("web", "h:2")});
    SET({AT("own", B)});
    cr_expect_eq(own_withdraw("web"), STATUS_OK);
    cr_expect_eq(own_flags("web"), -1);
}

Test(node_services, what_is_wrong_changes_nothing)
{
    const struct node_service twice[] = {{AT("a", "h:1")}, {AT("a", "h:2")}},
                              upper[] = {{AT("A", "h:1")}}, nowhere[] = {{AT("a", "h")}},
                              check[] = {{AT("a", "h:1"), .check = {.kind = HTTP}}},
                              proxy[] = {{AT("a", "h:1"), .proxy_protocol = 3}};
    uint64_t version = node_version(st.node);

    cr_expect_eq(node_set_services(st.node, twice, 2), -EINVAL);
    cr_expect_eq(node_set_services(st.node, upper, 1), -EINVAL);
    cr_expect_eq(node_set_services(st.node, nowhere, 1), -EINVAL);
    cr_expect_eq(node_set_services(st.node, check, 1), -EINVAL);
    cr_expect_eq(node_set_services(st.node, proxy, 1), -EINVAL);
    cr_expect_eq(node_version(st.node), version);
    cr_expect_str_eq(own_backend("own"), B);
}

static void small(void)
{
    limits_default(&st.limits);
    st.limits.services_total = 3;
    own_begin();
}

TestSuite(node_services_limits, .init = small, .fini = stage_end);

Test(node_services_limits, what_has_no_room_changes_nothing)
{
    const struct node_service four[] = {
        {AT("own", B)}, {AT("a", "h:1")}, {AT("b", "h:1")}, {AT("c", "h:1")}};

    cr_expect_eq(node_set_services(st.node, four, 4), -ENOSPC);
    cr_expect_eq(own_flags("a"), -1);
    cr_expect_str_eq(own_backend("own"), B);
    cr_expect_eq(node_set_services(st.node, four + 1, 3), 0, "three have room");
    cr_expect_eq(own_flags("own"), -1);
    cr_expect_eq(own_offer("l1", "own", B, 0, NULL, 0), STATUS_RESOURCE_EXHAUSTED);
    cr_expect_eq(own_withdraw("a"), STATUS_FAILED_PRECONDITION);
}
