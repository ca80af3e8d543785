/* Rules: who may have a link, register what, offer what; and other rules while all runs. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "node/stage.h"

TestSuite(node_policy, .init = stage_begin, .fini = stage_end);
TestSuite(node_policy_dialling, .init = stage_begin_dialling, .fini = stage_end);
TestSuite(node_policy_limits, .fini = stage_end);

static const char *const mixed[] = {"db", "10.0.0.2:1", "web", "10.0.0.2:2", "web-2", "10.0.0.2:3"};
static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

/* One rule: whom it is about, whether they may have a link, and the names that they may register
 * and offer (NULL: none). */
static void rule(const char *peers, bool link, const char *names)
{
    const struct policy_rule one = {.name = "edge",
                                    .peers = &peers,
                                    .n_peers = 1,
                                    .link = link,
                                    .register_names = &names,
                                    .n_register = names != NULL,
                                    .offer_names = &names,
                                    .n_offer = names != NULL};

    cr_assert_eq(policy_keeper_set(st.policy, &one, 1), 0);
}

static void change(const char *peers, bool link, const char *names)
{
    rule(peers, link, names);
    node_policy_changed(st.node);
}

static uint64_t denied(enum policy_action action)
{
    struct policy_counters counters;

    policy_counters(st.policy, &counters);
    return counters.denied[action];
}

static size_t shown(void) { return stage_peer_info("n2").count; }

static bool shows(const char *name)
{
    char key[LIMIT_NAME + LIMIT_LABEL_TEXT];
    struct row *row;

    snprintf(key, sizeof(key), "%s@10.0.0.2", name);
    row = registry_find(st.registry, key);
    row_unref(row);
    return row != NULL;
}

/* Of the newest tombstone, which is the row's. */
static const char *why_gone(const char *key)
{
    struct registry_tombstone *stones;
    const char *why;

    cr_assert_eq(registry_tombstones(st.registry, 1, &stones), 1);
    cr_expect_str_eq(stones->key, key);
    why = stones->why;
    free(stones);
    return why;
}

/* ---- links ---- */

Test(node_policy, a_register_of_who_may_have_no_link_is_refused_by_rule)
{
    rule("*", false, "*");
    stage_register(&n2, 3, mixed);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect_eq(st.reply.reason, REASON(POLICY));
    cr_expect_str_eq(st.reply.text,
                     "policy rule 'edge' does not let n2 have a link with this node");
    cr_expect_not(stage_knows("n2"), "nothing of it is kept");
    cr_expect_eq(denied(POLICY_LINK), 1);
}

Test(node_policy, whom_no_rule_is_about_is_refused_by_the_default)
{
    rule("n3", true, "*");
    stage_register(&n2, -1, NULL);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect(strstr(st.reply.text, "rule 'default'"), "%s", st.reply.text);
}

Test(node_policy, a_link_is_refused_even_with_a_good_token)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};
    const Meshd__V1__RegisterReply *reply;

    stage_register(&n2, -1, NULL);
    cr_assert_eq(st.reply.status, STATUS_OK);
    reply = stage_reply(&meshd__v1__register_reply__descriptor);
    rule("n2", false, NULL); /* and node_policy_changed is yet to come */
    node_link_asked(st.node, NODE_LINK_ACCEPTED | 1, "n2", &from, reply->token.data);
    cr_expect_eq(st.accepted, 0);
    cr_expect_eq(st.refused, NODE_LINK_ACCEPTED | 1);
    cr_expect_eq(st.refused_reason, REASON(POLICY));
}

Test(node_policy, a_hello_is_refused_when_the_rules_have_changed_since_the_token)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;
    const Meshd__V1__HelloReply *answer;
    const Meshd__V1__RegisterReply *reply;
    uint64_t link = NODE_LINK_ACCEPTED | 1;

    stage_register(&n2, -1, NULL);
    reply = stage_reply(&meshd__v1__register_reply__descriptor);
    node_link_asked(st.node, link, "n2", &from, reply->token.data);
    cr_assert_eq(st.accepted, link);
    node_link_up(st.node, link);
    rule("n2", false, NULL);
    hello.peer_id = (char *)"n2";
    hello.incarnation = 500;
    hello.nonce = 1;
    hello.wire_version_min = hello.wire_version_max = 1;
    stage_say_raw(link, NULL, 0, KIND(HELLO), &hello.base);
    answer = stage_heard(link, KIND(HELLO_REPLY));
    cr_assert_not_null(answer);
    cr_expect_eq(answer->reason, REASON(POLICY));
    cr_expect_eq(st.ended, link);
    cr_expect_eq(st.n_sessions, 0);
}

/* ---- names ---- */

/* A change to version n2.version, which becomes the next; of the list that is then offered, digest
 * and count. */
static void change_list(const char *const *put, const char *removed, uint64_t digest,
                        uint32_t count)
{
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    Meshd__V1__Service service = MESHD__V1__SERVICE__INIT, *services[] = {&service};
    char *names[] = {(char *)removed};

    if (put) {
        service.name = (char *)put[0];
        service.backend_addr = (char *)put[1];
        sync.entries = services;
        sync.n_entries = 1;
    }
    sync.removed = names;
    sync.n_removed = removed != NULL;
    sync.incarnation = n2.incarnation;
    sync.base_version = n2.version;
    sync.version = ++n2.version;
    sync.last = true;
    sync.digest = digest;
    sync.count = count;
    stage_say(&n2, KIND(SYNC), &sync.base);
}

static uint32_t refused_total(void)
{
    const Meshd__V1__SyncAck *ack = stage_heard(n2.link, KIND(SYNC_ACK));

    cr_assert(ack && ack->applied);
    return ack->refused_total;
}

Test(node_policy, a_register_lands_without_the_names_that_are_not_allowed)
{
    const Meshd__V1__RegisterReply *reply;

    rule("n2", true, "web*");
    stage_register(&n2, 3, mixed);
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    reply = stage_reply(&meshd__v1__register_reply__descriptor);
    cr_expect_eq(reply->accepted, 2);
    cr_expect_eq(reply->refused_total, 1);
    cr_assert_eq(reply->n_refused, 1u);
    cr_expect_str_eq(reply->refused[0]->name, "db");
    cr_expect_eq((int)reply->refused[0]->reason, REASON(POLICY));
    cr_expect_str_eq(reply->refused[0]->text,
                     "policy rule 'edge' does not let n2 register this name");
    cr_expect_eq(shown(), 2);
    cr_expect(shows("web") && shows("web-2") && !shows("db"));
    cr_expect_eq(denied(POLICY_REGISTER), 1);
    cr_expect_str_eq(st.text[NODE_ENTRIES_REFUSED],
                     "1 of its services were left out, db: policy rule 'edge' does not let n2 "
                     "register this name");
}

Test(node_policy, a_sync_lands_likewise_and_its_digest_is_that_of_what_was_offered)
{
    const Meshd__V1__SyncAck *ack;

    rule("n2", true, "web*");
    stage_live(&n2);
    stage_hush();
    n2.version = 2;
    stage_sync(&n2, 0, 3, mixed, 0, NULL);
    ack = stage_heard(n2.link, KIND(SYNC_ACK));
    cr_assert(ack && ack->applied);
    cr_expect_eq(ack->accepted, 2);
    cr_expect_eq(ack->refused_total, 1);
    cr_expect_str_eq(ack->refused[0]->name, "db");
    cr_expect_eq(shown(), 2);
    for (int i = 0; i < 3; i++)
        stage_beat(&n2, stage_digest(3, mixed), 3);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 0, "both ends agree");
}

Test(node_policy, a_change_knows_what_is_kept_out)
{
    static const char *const db[] = {"db", "10.0.0.2:9"}, *const mail[] = {"mail", "10.0.0.2:4"},
                             *const web_3[] = {"web-3", "10.0.0.2:5"};
    uint64_t rest = stage_digest(2, mixed + 2);

    rule("n2", true, "web*");
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 3, mixed, 0, NULL);
    stage_hush();
    change_list(db, NULL, rest + stage_digest(1, db), 3);
    cr_expect_eq(refused_total(), 1, "another backend of a name that is kept out");
    rest += stage_digest(1, mail);
    change_list(mail, NULL, rest + stage_digest(1, db), 4);
    cr_expect_eq(refused_total(), 2);
    rest += stage_digest(1, web_3);
    change_list(web_3, NULL, rest + stage_digest(1, db), 5);
    cr_expect_eq(shown(), 3);
    change_list(NULL, "db", rest, 4);
    cr_expect_eq(refused_total(), 1, "mail");
    change_list(NULL, "web", rest - stage_digest(1, mixed + 2), 3);
    cr_expect_eq(shown(), 2);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 0, "every digest was as told");
    n2.version++;
    stage_sync(&n2, 0, 3, mixed, 0, NULL);
    cr_expect_eq(shown(), 2);
    cr_expect(shows("web") && !shows("web-3"));
    cr_expect_eq(refused_total(), 1);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 0);
}

Test(node_policy, hundreds_that_are_kept_out_can_be_changed_one_by_one)
{
    static char names[600][8];
    const char *entry[] = {NULL, "10.0.0.2:1"};
    uint64_t digest = 0;

    rule("n2", true, "web*");
    stage_live(&n2);
    for (uint32_t i = 0; i < 600; i++) {
        snprintf(names[i], sizeof(names[i]), "x%u", i);
        entry[0] = names[i];
        digest += stage_digest(1, entry);
        stage_hush();
        change_list(entry, NULL, digest, i + 1);
        cr_assert_eq(refused_total(), i + 1);
    }
    for (uint32_t i = 600; i-- > 0;) {
        entry[0] = names[i];
        digest -= stage_digest(1, entry);
        stage_hush();
        change_list(NULL, names[i], digest, i);
        cr_assert_eq(refused_total(), i);
    }
    cr_expect_eq(shown(), 0);
}

Test(node_policy, who_asks_for_all_its_services_back_is_told_of_those_kept_out_too)
{
    const struct node_caller caller = {.peer_id = "n2", .ip = "10.0.0.2"};
    Meshd__V1__DeregisterRequest request = MESHD__V1__DEREGISTER_REQUEST__INIT;
    const Meshd__V1__DeregisterReply *reply;

    rule("n2", true, "web*");
    stage_register(&n2, 3, mixed);
    request.peer_id = (char *)"n2";
    request.incarnation = 500;
    request.version = 2;
    node_deregister(st.node, 9, &caller, &request);
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    reply = stage_reply(&meshd__v1__deregister_reply__descriptor);
    cr_expect_eq(reply->removed, 3);
    cr_expect_eq(shown(), 0);
}

static void begin_small(void)
{
    limits_default(&st.limits);
    st.limits.services_total = 4;
    stage_begin();
}

Test(node_policy_limits, what_is_kept_out_is_bounded_like_what_is_shown, .init = begin_small)
{
    static const char *const six[] = {"a", "h:1", "b", "h:1", "c", "h:1", "d", "h:1"};
    const struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 5, .version = 1};
    const Meshd__V1__SyncWanted *wanted;

    rule("*", true, NULL);
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 4, six, 0, NULL);
    stage_register(&n3, 2, six);
    cr_assert_eq(st.reply.status, STATUS_OK);
    cr_expect_eq(
        ((const Meshd__V1__RegisterReply *)stage_reply(&meshd__v1__register_reply__descriptor))
            ->refused_total,
        2);
    stage_hush();
    change("n3", true, "*"); /* n2 goes, and the room is n3's: but its names were not kept */
    cr_expect_not(stage_knows("n2"));
    cr_expect_eq(stage_peer_info("n3").count, 0);
    wanted = stage_heard(n2.link, KIND(SYNC_WANTED));
    cr_expect_null(wanted);
}

Test(node_policy_limits, names_that_were_not_kept_are_asked_for_again, .init = begin_small)
{
    static const char *const six[] = {"a", "h:1", "b", "h:1", "c", "h:1", "d", "h:1"};
    struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 5, .version = 1};
    const Meshd__V1__SyncWanted *wanted;

    rule("*", true, NULL);
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 4, six, 0, NULL);
    stage_live(&n3);
    n3.version = 2;
    stage_sync(&n3, 0, 2, six, 0, NULL);
    stage_hush();
    change("*", true, "*");
    wanted = stage_heard(n3.link, KIND(SYNC_WANTED));
    cr_assert_not_null(wanted);
    cr_expect_eq(wanted->version, 2, "so that the owner goes on above it");
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 0, "its names are here");
    cr_expect_eq(stage_peer_info("n2").count, 3, "and one beside the node's own");
}

/* ---- other rules ---- */

Test(node_policy, names_leave_the_maps_and_come_back_as_rules_change)
{
    uint32_t printed;
    uint64_t last_sync;

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 3, mixed, 0, NULL);
    cr_assert_eq(shown(), 3);
    stage_hush();
    printed = st.events[NODE_MAPS_CHANGED];
    last_sync = stage_peer_info("n2").version;
    change("n2", true, "web*");
    cr_expect(shows("web") && shows("web-2") && !shows("db"));
    cr_expect_str_eq(why_gone("db@10.0.0.2"), "not allowed");
    cr_expect_eq(denied(POLICY_REGISTER), 1);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed + 1);
    change("n2", true, "web");
    cr_expect(shows("web") && !shows("web-2") && !shows("db"));
    cr_expect_eq(denied(POLICY_REGISTER), 2, "only what was shown until now is refused anew");
    change("n2", true, "d*");
    cr_expect(!shows("web") && !shows("web-2") && shows("db"));
    change("n2", true, "*");
    cr_expect_eq(shown(), 3);
    cr_expect_eq(stage_peer_info("n2").version, last_sync);
    stage_beat(&n2, stage_digest(3, mixed), 3);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 0, "nothing was needed of the peer");
    cr_expect_eq(stage_peer_info("n2").digest, stage_digest(3, mixed));
}

Test(node_policy, rules_that_change_nothing_print_nothing)
{
    uint32_t printed;
    uint64_t revision;

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 3, mixed, 0, NULL);
    printed = st.events[NODE_MAPS_CHANGED];
    revision = registry_revision(st.registry);
    change("n?", true, "*");
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed);
    cr_expect_eq(registry_revision(st.registry), revision);
    cr_expect_str_eq(st.text[NODE_ENTRIES_REFUSED], "");
}

Test(node_policy, a_peer_that_may_have_no_link_any_more_is_told_so_and_its_rows_go)
{
    struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 5, .version = 1};
    const Meshd__V1__Goodbye *goodbye;

    stage_live(&n2);
    stage_live(&n3);
    n2.version = 2;
    stage_sync(&n2, 0, 3, mixed, 0, NULL);
    stage_hush();
    change("n3", true, "*");
    goodbye = stage_heard(n2.link, KIND(GOODBYE));
    cr_assert_not_null(goodbye);
    cr_expect_eq((int)goodbye->reason, GOODBYE(POLICY));
    cr_expect_str_eq(goodbye->text,
                     "policy rule 'default' does not let n2 have a link with this node");
    cr_expect_eq(st.ended, n2.link);
    cr_expect(st.flushed);
    cr_expect_not(stage_knows("n2"));
    cr_expect_not(shows("web"));
    cr_expect(stage_knows("n3"));
    cr_expect_str_eq(st.text[NODE_LINK_REFUSED], goodbye->text);
    stage_register(&n2, -1, NULL);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    change("*", true, "*");
    n2.version = 3;
    stage_live(&n2);
    cr_expect(stage_knows("n2"));
}

Test(node_policy, a_register_that_waits_for_a_probe_is_looked_at_again)
{
    struct stage_peer newer = {.id = "n2", .ip = "10.0.0.3", .incarnation = 600, .version = 1};

    stage_live(&n2);
    memset(&st.reply, 0, sizeof(st.reply));
    stage_register(&newer, -1, NULL);
    cr_assert_eq(st.reply.call, 0, "it waits");
    change("n3", true, "*");
    cr_expect_neq(st.reply.call, 0);
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect_not(stage_knows("n2"));
}

/* ---- dialling ---- */

static const struct node_addr there = {.ip = "10.0.0.9", .port = 7400};

static void welcome(void)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;
    uint8_t token[TOKEN_LEN] = {1}, body[512];
    struct node_call_result result = {.status = STATUS_OK, .body = body};

    reply.peer_id = (char *)"n2";
    reply.incarnation = 500;
    reply.token = (ProtobufCBinaryData){.len = TOKEN_LEN, .data = token};
    reply.wire_version = 1;
    result.body_len = protobuf_c_message_pack(&reply.base, body);
    node_call_done(st.node, st.call.call, &result);
}

static const char *state(void)
{
    static struct node_link_info info;

    cr_assert_geq(node_links(st.node, &info, 1), 1);
    return info.state;
}

Test(node_policy_dialling, who_answers_and_may_have_no_link_is_not_linked)
{
    struct node_link_info info;

    rule("n2", false, NULL);
    node_resolved(st.node, st.ask, 0, &there, 1);
    welcome();
    cr_expect_eq(st.n_dials, 0);
    cr_expect_str_eq(state(), "refused");
    node_links(st.node, &info, 1);
    cr_expect_str_eq(info.last_error,
                     "policy rule 'edge' does not let n2 have a link with this node");
    cr_expect_eq(st.events[NODE_LINK_REFUSED], 1);
    stage_wait(4000);
    cr_expect_eq(st.n_calls, 1, "at the slow pace");
    change("n2", true, NULL);
    stage_wait(100);
    node_resolved(st.node, st.ask, 0, &there, 1);
    cr_expect_eq(st.n_calls, 2, "who is welcome now is dialled at once");
    welcome();
    cr_expect_eq(st.n_dials, 1);
}

Test(node_policy_dialling, rules_that_change_between_register_and_hello_end_it)
{
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;
    uint64_t link;

    node_resolved(st.node, st.ask, 0, &there, 1);
    welcome();
    link = st.dial.link;
    node_link_up(st.node, link);
    rule("n2", false, NULL);
    reply.peer_id = (char *)"n2";
    reply.incarnation = 500;
    reply.nonce = 1;
    reply.wire_version = 1;
    stage_say_raw(link, NULL, 0, KIND(HELLO_REPLY), &reply.base);
    cr_expect_eq(st.ended, link);
    cr_expect_eq(st.n_sessions, 0);
    cr_expect_str_eq(state(), "refused");
}

/* ---- offers ---- */

static void offer(const struct node_caller *caller, const char *name)
{
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)"lease";
    request.name = (char *)name;
    request.backend_addr = (char *)"h:1";
    node_offer(st.node, 7, caller, &request);
}

static void withdraw(const struct node_caller *caller, const char *lease_id, const char *name)
{
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;

    request.lease_id = (char *)lease_id;
    request.name = (char *)name;
    node_withdraw(st.node, 8, caller, &request);
}

static const struct node_caller program = {.peer_id = "", .ip = "", .local = true};

Test(node_policy, a_local_program_offers_what_a_rule_of_its_own_says)
{
    rule("n2", true, NULL);
    offer(&program, "anything");
    cr_expect_eq(st.reply.status, STATUS_OK, "no rule is about it");
    rule(POLICY_LOCAL, false, "batch-*");
    offer(&program, "Batch-1");
    cr_expect_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    offer(&program, "web");
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    cr_expect_eq(st.reply.reason, REASON(POLICY));
    cr_expect_str_eq(st.reply.text, "policy rule 'edge' does not let @local offer this name");
    withdraw(&program, "", "anything");
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    withdraw(&program, "lease", "");
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED, "one of its names is not allowed");
    withdraw(&program, "lease", "batch-1");
    cr_expect_eq(st.reply.status, STATUS_OK);
    cr_expect_eq(denied(POLICY_OFFER), 3);
}

Test(node_policy, over_the_network_offers_need_a_rule_and_a_certificate)
{
    struct node_caller caller = {.peer_id = "n2", .subject = "n2", .ip = "10.0.0.2"};

    rule("n2", true, "batch-*");
    offer(&caller, "batch-1");
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED, "no certificate");
    caller.secure = true;
    offer(&caller, "batch-1");
    cr_expect_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    offer(&caller, "web");
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED);
    withdraw(&caller, "lease", "");
    cr_expect_eq(st.reply.status, STATUS_OK);
    cr_assert_eq(policy_keeper_set(st.policy, NULL, 0), 0);
    offer(&caller, "batch-1");
    cr_expect_eq(st.reply.status, STATUS_PERMISSION_DENIED, "no rule");
    cr_expect_str_eq(st.reply.text, "policy rule 'default' does not let n2 offer this name");
}

Test(node_policy, who_comes_over_the_network_holds_only_what_it_offered_itself)
{
    struct node_caller n2_there = {
        .peer_id = "n2", .subject = "n2", .ip = "10.0.0.2", .secure = true};
    struct node_caller n3_there = {
        .peer_id = "n3", .subject = "n3", .ip = "10.0.0.3", .secure = true};

    rule("n?", true, "*");
    offer(&program, "web");
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    offer(&n2_there, "web");
    cr_expect_eq(st.reply.status, STATUS_ALREADY_EXISTS, "though it knows the lease's id");
    withdraw(&n2_there, "", "web");
    cr_expect_eq(st.reply.status, STATUS_FAILED_PRECONDITION);
    withdraw(&n2_there, "lease", "");
    cr_expect_eq(st.reply.status, STATUS_NOT_FOUND);
    offer(&n2_there, "db");
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
    withdraw(&n3_there, "lease", "db");
    cr_expect_eq(st.reply.status, STATUS_FAILED_PRECONDITION);
    offer(&n2_there, "db");
    cr_expect_eq(st.reply.status, STATUS_OK, "renewed");
    withdraw(&n2_there, "", "db");
    cr_expect_eq(st.reply.status, STATUS_OK);
    offer(&n3_there, "db");
    cr_expect_eq(st.reply.status, STATUS_OK);
    withdraw(&program, "", "db");
    cr_expect_eq(st.reply.status, STATUS_OK, "this machine's programs may end any");
    withdraw(&program, "", "web");
    cr_expect_eq(st.reply.status, STATUS_OK, "nobody else has ended that one");
}
