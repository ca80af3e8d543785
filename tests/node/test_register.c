/* Register and Deregister, tokens, identity: what happens before there is a link. */
#include <criterion/criterion.h>
#include <string.h>
#include "node/stage.h"

TestSuite(node_register, .init = stage_begin, .fini = stage_end);
TestSuite(node_register_limits, .fini = stage_end);

static const char *const two[] = {"web", "127.0.0.1:80", "db", "127.0.0.1:5432"};
static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

static void asks_for_link(const uint8_t token[TOKEN_LEN], uint64_t link)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};

    st.accepted = st.refused = 0;
    node_link_asked(st.node, link, "n2", &from, token);
}

static const Meshd__V1__RegisterReply *registered(void)
{
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    return stage_reply(&meshd__v1__register_reply__descriptor);
}

Test(node_register, rows_are_not_connected_until_the_link_is_live)
{
    struct registry_peer_info info;

    stage_register(&n2, 2, two);
    cr_expect_eq(registered()->accepted, 2);
    cr_expect_str_eq(registered()->peer_id, "n1");
    cr_expect_str_eq(registered()->observed_ip, "10.0.0.2");
    info = stage_peer_info("n2");
    cr_expect_eq(info.count, 2);
    cr_expect_not(info.state.connected);
    cr_expect_not(info.state.stale);
    n2.version = 2;
    stage_live(&n2);
    info = stage_peer_info("n2");
    cr_expect(info.state.connected);
}

Test(node_register, a_list_brings_the_state_of_each_entry)
{
    static const char *const entries[] = {"a", "h:1!", "b", "h:2~", "c", "h:3!~", "d", "h:4"};
    static const unsigned flags[] = {ROW_UNHEALTHY, ROW_DRAINING, ROW_UNHEALTHY | ROW_DRAINING, 0};

    stage_register(&n2, 4, entries);
    cr_expect_eq(registered()->accepted, 4);
    cr_expect_eq(stage_peer_info("n2").digest, stage_digest(4, entries));
    for (size_t i = 0; i < 4; i++) {
        char key[] = {entries[2 * i][0], '@', '1', '0', '.', '0', '.', '0', '.', '2', '\0'};
        struct row *row = registry_find(st.registry, key);

        cr_assert_not_null(row, "%s", key);
        cr_expect_eq(row->flags, flags[i]);
        row_unref(row);
    }
}

Test(node_register, a_repeat_changes_nothing_and_prints_nothing)
{
    uint32_t printed = st.events[NODE_MAPS_CHANGED];
    uint64_t revision;

    stage_register(&n2, 2, two);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed + 1, "once per message");
    revision = registry_revision(st.registry);
    stage_register(&n2, 2, two);
    cr_expect_eq(registered()->accepted, 2);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed + 1);
    cr_expect_eq(registry_revision(st.registry), revision);
}

Test(node_register, without_a_live_session_it_renews_nothing)
{
    stage_register(&n2, 2, two);
    for (int i = 0; i < 9; i++) {
        stage_wait(3000);
        stage_register(&n2, 2, two);
    }
    cr_expect(stage_knows("n2"));
    stage_wait(3100);
    cr_expect_not(stage_knows("n2"));
    cr_expect_str_eq(st.text[NODE_PEER_GONE], "timed out");
}

Test(node_register, an_older_version_changes_nothing)
{
    n2.version = 5;
    stage_register(&n2, 2, two);
    n2.version = 4;
    stage_register(&n2, 1, two);
    cr_expect_eq(st.reply.status, STATUS_OK);
    cr_expect_eq(stage_peer_info("n2").count, 2);
    cr_expect_eq(stage_peer_info("n2").version, 5);
}

Test(node_register, bad_entries_are_refused_with_reasons_and_the_rest_lands)
{
    static const char *const entries[] = {"web",    "127.0.0.1:80", "UPPER", "127.0.0.1:80",
                                          "noport", "host",         "web",   "127.0.0.1:81",
                                          "db",     "127.0.0.1:2"};
    const Meshd__V1__RegisterReply *reply;
    struct row *row;

    stage_register(&n2, 5, entries);
    reply = registered();
    cr_expect_eq(reply->accepted, 2);
    cr_expect_eq(reply->refused_total, 3);
    cr_assert_eq(reply->n_refused, 3);
    cr_expect_str_eq(reply->refused[0]->name, "UPPER");
    cr_expect_eq(reply->refused[0]->reason, REASON(BAD_NAME));
    cr_expect_str_eq(reply->refused[1]->name, "noport");
    cr_expect_eq(reply->refused[1]->reason, REASON(BAD_ADDRESS));
    cr_expect_str_eq(reply->refused[2]->name, "web");
    cr_expect_eq(reply->refused[2]->reason, REASON(DUPLICATE));
    cr_expect_eq(st.events[NODE_ENTRIES_REFUSED], 1);
    row = registry_find(st.registry, "web@10.0.0.2");
    cr_assert_not_null(row);
    cr_expect_str_eq(row->backend, "127.0.0.1:80", "the first counts");
    row_unref(row);
}

Test(node_register_limits, entries_over_a_limit_are_refused_and_the_rest_lands)
{
    const Meshd__V1__RegisterReply *reply;

    limits_default(&st.limits);
    st.limits.services_per_peer = 1;
    stage_begin();
    stage_register(&n2, 2, two);
    reply = registered();
    cr_expect_eq(reply->accepted, 1);
    cr_assert_eq(reply->n_refused, 1);
    cr_expect_eq(reply->refused[0]->reason, REASON(LIMIT));
}

Test(node_register_limits, more_peers_than_the_limit_are_refused)
{
    struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 1, .version = 1};

    limits_default(&st.limits);
    st.limits.peers = 1;
    stage_begin();
    stage_register(&n2, 2, two);
    stage_register(&n3, 2, two);
    cr_expect_eq(st.reply.status, STATUS_RESOURCE_EXHAUSTED);
    cr_expect_eq(st.reply.reason, REASON(LIMIT));
    cr_expect(stage_knows("n2"));
}

Test(node_register, a_body_that_names_another_peer_is_refused)
{
    const struct node_caller caller = {.peer_id = "n3", .ip = "10.0.0.3"};
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;

    request.peer_id = (char *)"n2";
    request.incarnation = request.version = 1;
    request.wire_version_min = request.wire_version_max = 1;
    node_register(st.node, 1, &caller, &request);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect_eq(st.reply.reason, REASON(IDENTITY));
    cr_expect_not(stage_knows("n2"));
}

Test(node_register, the_own_id_is_refused_as_self)
{
    const struct stage_peer self = {.id = "n1", .ip = "10.0.0.1", .incarnation = 1, .version = 1};

    stage_register(&self, 2, two);
    cr_expect_eq(st.reply.reason, REASON(SELF));
}

Test(node_register, a_digest_that_is_not_the_lists_changes_nothing)
{
    const struct node_caller caller = {.peer_id = "n2", .ip = "10.0.0.2"};
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;

    request.peer_id = (char *)"n2";
    request.incarnation = request.version = 1;
    request.wire_version_min = request.wire_version_max = 1;
    request.has_list = true;
    request.digest = 1;
    node_register(st.node, 1, &caller, &request);
    cr_expect_eq(st.reply.status, STATUS_INVALID_ARGUMENT);
}

Test(node_register, another_wire_version_gets_a_named_refusal)
{
    const struct node_caller caller = {.peer_id = "n2", .ip = "10.0.0.2"};
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;

    request.peer_id = (char *)"n2";
    request.incarnation = request.version = 1;
    request.wire_version_min = request.wire_version_max = 2;
    node_register(st.node, 1, &caller, &request);
    cr_expect_eq(st.reply.status, STATUS_FAILED_PRECONDITION);
    cr_expect_eq(st.reply.reason, REASON(WIRE_VERSION));
}

Test(node_register, an_incarnation_below_the_known_one_is_told_the_known_one)
{
    const Meshd__V1__RegisterReply *reply;

    stage_register(&n2, 2, two);
    n2.incarnation = 499;
    stage_register(&n2, 1, two);
    cr_expect_eq(st.reply.status, STATUS_FAILED_PRECONDITION);
    cr_expect_eq(st.reply.reason, REASON(INCARNATION));
    reply = stage_reply(&meshd__v1__register_reply__descriptor);
    cr_expect_eq(reply->known_incarnation, 500);
    cr_expect_eq(stage_peer_info("n2").count, 2);
}

Test(node_register, a_newer_incarnation_brings_its_own_list)
{
    n2.version = 9;
    stage_register(&n2, 2, two);
    n2.incarnation = 501;
    n2.version = 1;
    stage_register(&n2, 1, two);
    cr_expect_eq(stage_peer_info("n2").count, 1);
    cr_expect_eq(stage_peer_info("n2").incarnation, 501);
}

/* ---- tokens ---- */

Test(node_register, a_token_opens_one_link)
{
    uint8_t token[TOKEN_LEN];

    stage_register(&n2, 2, two);
    memcpy(token, registered()->token.data, TOKEN_LEN);
    asks_for_link(token, NODE_LINK_ACCEPTED | 1);
    cr_expect_eq(st.accepted, NODE_LINK_ACCEPTED | 1);
    asks_for_link(token, NODE_LINK_ACCEPTED | 2);
    cr_expect_eq(st.refused, NODE_LINK_ACCEPTED | 2);
    cr_expect_eq(st.refused_reason, REASON(TOKEN));
}

Test(node_register, a_wrong_token_opens_nothing_and_is_counted)
{
    struct node_counters counters;
    uint8_t token[TOKEN_LEN];

    stage_register(&n2, 2, two);
    memcpy(token, registered()->token.data, TOKEN_LEN);
    token[TOKEN_LEN - 1] ^= 1;
    asks_for_link(token, NODE_LINK_ACCEPTED | 1);
    cr_expect_eq(st.accepted, 0);
    cr_expect_eq(st.refused_reason, REASON(TOKEN));
    node_counters(st.node, &counters);
    cr_expect_eq(counters.tokens_refused, 1);
}

Test(node_register, a_token_lives_10_s)
{
    uint8_t token[TOKEN_LEN];

    stage_register(&n2, 2, two);
    memcpy(token, registered()->token.data, TOKEN_LEN);
    stage_wait(10001);
    asks_for_link(token, NODE_LINK_ACCEPTED | 1);
    cr_expect_eq(st.accepted, 0);
}

Test(node_register, only_the_newest_token_counts)
{
    uint8_t token[TOKEN_LEN];

    stage_register(&n2, 2, two);
    memcpy(token, registered()->token.data, TOKEN_LEN);
    stage_register(&n2, 2, two);
    asks_for_link(token, NODE_LINK_ACCEPTED | 1);
    cr_expect_eq(st.accepted, 0);
    memcpy(token, registered()->token.data, TOKEN_LEN);
    asks_for_link(token, NODE_LINK_ACCEPTED | 2);
    cr_expect_eq(st.accepted, NODE_LINK_ACCEPTED | 2);
}

Test(node_register, a_token_is_bound_to_its_incarnation)
{
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;
    const Meshd__V1__HelloReply *answer;

    stage_register(&n2, 2, two);
    asks_for_link(registered()->token.data, NODE_LINK_ACCEPTED | 1);
    node_link_up(st.node, NODE_LINK_ACCEPTED | 1);
    hello.peer_id = (char *)"n2";
    hello.incarnation = 501;
    hello.wire_version_min = hello.wire_version_max = 1;
    stage_say_raw(NODE_LINK_ACCEPTED | 1, NULL, 0, KIND(HELLO), &hello.base);
    answer = stage_heard(NODE_LINK_ACCEPTED | 1, KIND(HELLO_REPLY));
    cr_assert_not_null(answer);
    cr_expect_eq(answer->reason, REASON(TOKEN));
    cr_expect_eq(st.ended, NODE_LINK_ACCEPTED | 1);
}

/* ---- two instances of one id ---- */

Test(node_register, a_newcomer_is_refused_while_the_older_session_answers_a_probe)
{
    struct stage_peer newcomer = {.id = "n2", .ip = "10.0.0.7", .incarnation = 600, .version = 1};
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;
    const Meshd__V1__Heartbeat *probe;
    size_t before;

    stage_live(&n2);
    before = st.n_replies;
    stage_hush();
    stage_register(&newcomer, 2, two);
    cr_assert_eq(st.n_replies, before, "it waits");
    probe = stage_heard(n2.link, KIND(HEARTBEAT));
    cr_assert_not_null(probe);
    cr_assert_neq(probe->probe, 0);
    beat.incarnation = 500;
    beat.version = 1;
    beat.echo = probe->probe;
    stage_say(&n2, KIND(HEARTBEAT), &beat.base);
    cr_assert_eq(st.n_replies, before + 1);
    cr_expect_eq(st.reply.status, STATUS_ALREADY_EXISTS);
    cr_expect_eq(st.reply.reason, REASON(ID_IN_USE));
    cr_expect(strstr(st.reply.text, "10.0.0.2"), "%s", st.reply.text);
    cr_expect(stage_peer_info("n2").state.connected);
    cr_expect_eq(stage_peer_info("n2").incarnation, 500);
}

Test(node_register, a_newcomer_takes_over_when_the_older_session_is_silent)
{
    struct stage_peer newcomer = {.id = "n2", .ip = "10.0.0.7", .incarnation = 600, .version = 1};
    uint64_t old_link;

    stage_live(&n2);
    old_link = n2.link;
    stage_register(&newcomer, 2, two);
    stage_wait(2000);
    cr_expect_eq(st.reply.status, STATUS_OK);
    cr_expect_eq(st.ended, old_link);
    cr_expect_not(stage_peer_info("n2").state.connected);
    stage_live(&newcomer);
}

Test(node_register, an_instance_that_raised_its_incarnation_is_not_a_second_one)
{
    struct stage_peer raised = n2;
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    stage_live(&n2);
    raised.incarnation = 700;
    stage_hush();
    stage_register(&raised, 2, two);
    beat.incarnation = 700;
    beat.version = 1;
    beat.echo = ((const Meshd__V1__Heartbeat *)stage_heard(n2.link, KIND(HEARTBEAT)))->probe;
    stage_say(&n2, KIND(HEARTBEAT), &beat.base);
    cr_expect_eq(st.reply.status, STATUS_OK);
    cr_expect(stage_peer_info("n2").state.connected);
}

/* ---- Deregister ---- */

static void deregister(uint64_t version, const char *name)
{
    const struct node_caller caller = {.peer_id = "n2", .ip = "10.0.0.2"};
    Meshd__V1__DeregisterRequest request = MESHD__V1__DEREGISTER_REQUEST__INIT;
    char *names[] = {(char *)name};

    request.peer_id = (char *)"n2";
    request.incarnation = 500;
    request.version = version;
    request.n_names = name ? 1 : 0;
    request.names = names;
    node_deregister(st.node, 1, &caller, &request);
}

Test(node_register, deregister_takes_back_some_or_all)
{
    const Meshd__V1__DeregisterReply *reply;

    stage_register(&n2, 2, two);
    deregister(2, "web");
    cr_assert_eq(st.reply.status, STATUS_OK);
    reply = stage_reply(&meshd__v1__deregister_reply__descriptor);
    cr_expect_eq(reply->removed, 1);
    cr_expect_eq(stage_peer_info("n2").count, 1);
    deregister(2, "db");
    cr_expect_eq(stage_peer_info("n2").count, 1, "an older pair changes nothing");
    deregister(3, NULL);
    cr_expect_eq(stage_peer_info("n2").count, 0);
}

Test(node_register, deregister_of_another_peers_services_is_refused)
{
    const struct node_caller caller = {.peer_id = "n3", .ip = "10.0.0.3"};
    Meshd__V1__DeregisterRequest request = MESHD__V1__DEREGISTER_REQUEST__INIT;

    stage_register(&n2, 2, two);
    request.peer_id = (char *)"n2";
    request.incarnation = 500;
    request.version = 2;
    node_deregister(st.node, 1, &caller, &request);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect_eq(stage_peer_info("n2").count, 2);
}

Test(node_register, a_node_that_ends_refuses_every_call_as_draining)
{
    node_stop(st.node);
    stage_register(&n2, 2, two);
    cr_expect_eq(st.reply.status, STATUS_UNAVAILABLE);
    cr_expect_eq(st.reply.reason, REASON(DRAINING));
}
