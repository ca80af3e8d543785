/* Own services: of the configuration, and under leases. */
#include <criterion/criterion.h>
#include <string.h>
#include "node/stage.h"
#include "registry/snapshot.h"

TestSuite(node_local, .init = stage_begin, .fini = stage_end);
TestSuite(node_local_limits, .fini = stage_end);

static const struct node_caller program = {.peer_id = "", .ip = "", .local = true};

static uint32_t offer(const char *lease, const char *name, const char *backend, uint64_t ttl_ms)
{
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)lease;
    request.name = (char *)name;
    request.backend_addr = (char *)backend;
    request.ttl_ms = ttl_ms;
    node_offer(st.node, 1, &program, &request);
    return st.reply.status;
}

static uint32_t withdraw(const char *lease, const char *name)
{
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;

    request.lease_id = (char *)lease;
    request.name = (char *)name;
    node_withdraw(st.node, 1, &program, &request);
    return st.reply.status;
}

static bool offered(const char *key, const char *backend)
{
    struct row *row = registry_find(st.registry, key);
    bool is = row && strcmp(row->backend, backend) == 0;

    row_unref(row);
    return is;
}

Test(node_local, services_of_the_configuration_are_there_from_the_start)
{
    cr_expect(offered("own@local", "127.0.0.1:80"));
    cr_expect_eq(node_version(st.node), 1);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], 1);
}

Test(node_local, how_clients_are_introduced_is_in_the_row_and_in_no_digest)
{
    static const char *const entries[] = {"own", "127.0.0.1:80"};
    struct row *row = registry_find(st.registry, "own@local");
    struct snapshot *snap;

    cr_assert(row);
    cr_expect_eq(row->flags, ROW_PROXY_V2);
    row_unref(row);
    cr_assert_eq(registry_snapshot(st.registry, &snap), 0);
    cr_expect_eq(list_digest(snap->local), stage_digest(1, entries));
    snapshot_unref(snap);
}

Test(node_local, an_offer_is_additive_canonical_and_grows_the_version)
{
    const Meshd__V1__OfferReply *reply;

    cr_assert_eq(offer("l1", "WEB.Example.:80", "Host.Example:080", 0), STATUS_OK);
    reply = stage_reply(&meshd__v1__offer_reply__descriptor);
    cr_expect_str_eq(reply->name, "web.example");
    cr_expect_eq(reply->version, 2);
    cr_expect(offered("web.example@local", "host.example:80"));
    cr_expect(offered("own@local", "127.0.0.1:80"));
}

Test(node_local, a_renewal_changes_nothing)
{
    uint32_t printed;

    offer("l1", "web", "h:1", 5000);
    printed = st.events[NODE_MAPS_CHANGED];
    cr_expect_eq(offer("l1", "web", "h:1", 5000), STATUS_OK);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed);
    cr_expect_eq(node_version(st.node), 2);
    cr_expect_eq(offer("l1", "web", "h:2", 5000), STATUS_OK);
    cr_expect_eq(node_version(st.node), 3);
    cr_expect(offered("web@local", "h:2"));
}

Test(node_local, a_lease_ends_with_its_ttl_unless_renewed)
{
    offer("l1", "web", "h:1", 5000);
    stage_wait(4900);
    offer("l1", "web", "h:1", 5000);
    stage_wait(4900);
    cr_expect(offered("web@local", "h:1"));
    stage_wait(200);
    cr_expect_not(offered("web@local", "h:1"));
    cr_expect_eq(st.events[NODE_LEASE_EXPIRED], 1);
    cr_expect_str_eq(st.text[NODE_LEASE_EXPIRED], "web");
    cr_expect_eq(node_version(st.node), 3);
}

Test(node_local, a_name_belongs_to_one_lease_or_to_the_configuration)
{
    offer("l1", "web", "h:1", 0);
    cr_expect_eq(offer("l2", "web", "h:2", 0), STATUS_ALREADY_EXISTS);
    cr_expect_eq(st.reply.reason, REASON(CONFLICT));
    cr_expect_eq(offer("l2", "own", "h:2", 0), STATUS_ALREADY_EXISTS);
    cr_expect_eq(st.reply.reason, REASON(CONFLICT));
    cr_expect(offered("web@local", "h:1"));
}

Test(node_local, a_lease_is_withdrawn_by_name_or_whole)
{
    const Meshd__V1__WithdrawReply *reply;

    offer("l1", "a", "h:1", 0);
    offer("l1", "b", "h:1", 0);
    offer("l1", "c", "h:1", 0);
    offer("l2", "d", "h:1", 0);
    cr_expect_eq(withdraw("l1", "A"), STATUS_OK);
    cr_expect_eq(withdraw("l1", ""), STATUS_OK);
    reply = stage_reply(&meshd__v1__withdraw_reply__descriptor);
    cr_expect_eq(reply->removed, 2);
    cr_expect(offered("d@local", "h:1"));
    cr_expect_eq(withdraw("", "d"), STATUS_OK, "whatever lease holds it");
    cr_expect_not(offered("d@local", "h:1"));
    cr_expect_eq(withdraw("l1", ""), STATUS_NOT_FOUND);
}

Test(node_local, what_the_configuration_holds_cannot_be_withdrawn)
{
    cr_expect_eq(withdraw("", "own"), STATUS_FAILED_PRECONDITION);
    cr_expect_eq(withdraw("l1", "own"), STATUS_FAILED_PRECONDITION);
    cr_expect(offered("own@local", "127.0.0.1:80"));
}

Test(node_local, another_leases_name_cannot_be_withdrawn)
{
    offer("l1", "web", "h:1", 0);
    cr_expect_eq(withdraw("l2", "web"), STATUS_FAILED_PRECONDITION);
    cr_expect(offered("web@local", "h:1"));
}

Test(node_local, bad_requests_are_told_what_is_wrong)
{
    char long_id[80];

    memset(long_id, 'x', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = '\0';
    cr_expect_eq(offer("l1", "a b", "h:1", 0), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(st.reply.reason, REASON(BAD_NAME));
    cr_expect_eq(offer("l1", "web", "h", 0), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(st.reply.reason, REASON(BAD_ADDRESS));
    cr_expect_eq(offer("", "web", "h:1", 0), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(offer(long_id, "web", "h:1", 0), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(offer("l1", "web", "h:1", 999), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(offer("l1", "web", "h:1", 86400001), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(withdraw("", ""), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(node_version(st.node), 1);
}

Test(node_local, only_the_local_socket_may_offer_and_withdraw)
{
    const struct node_caller stranger = {.peer_id = "", .ip = "10.0.0.9"};
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)"l1";
    request.name = (char *)"web";
    request.backend_addr = (char *)"h:1";
    node_offer(st.node, 1, &stranger, &request);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect_not(offered("web@local", "h:1"));
}

Test(node_local, a_node_that_ends_takes_no_offers)
{
    node_stop(st.node);
    cr_expect_eq(offer("l1", "web", "h:1", 0), STATUS_UNAVAILABLE);
    cr_expect_eq(st.reply.reason, REASON(DRAINING));
}

Test(node_local_limits, offers_over_a_limit_are_refused_and_nothing_is_lost)
{
    limits_default(&st.limits);
    st.limits.leases = 2;
    stage_begin();
    offer("l1", "a", "h:1", 0);
    offer("l1", "b", "h:1", 0);
    cr_expect_eq(offer("l1", "c", "h:1", 0), STATUS_RESOURCE_EXHAUSTED);
    cr_expect_eq(st.reply.reason, REASON(LIMIT));
    cr_expect_eq(offer("l1", "b", "h:2", 0), STATUS_OK, "a change is not one more");
    cr_expect(offered("a@local", "h:1"));
}

Test(node_local_limits, a_full_map_refuses_offers_and_keeps_what_it_has)
{
    limits_default(&st.limits);
    st.limits.services_total = 2;
    stage_begin();
    offer("l1", "b", "h:1", 0);
    cr_expect_eq(offer("l1", "a", "h:1", 0), STATUS_RESOURCE_EXHAUSTED);
    cr_expect(offered("b@local", "h:1"));
    cr_expect(offered("own@local", "127.0.0.1:80"));
    cr_expect_eq(withdraw("", "a"), STATUS_NOT_FOUND);
}
