/* The side that dials: attempts, back-off, refusals. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "node/stage.h"

TestSuite(node_dialer, .init = stage_begin_dialling, .fini = stage_end);
TestSuite(node_dialer_expecting, .fini = stage_end);

static const struct node_addr there = {.ip = "10.0.0.9", .port = 7400};

static const char *state(void)
{
    static struct node_link_info info;

    cr_assert_geq(node_links(st.node, &info, 1), 1);
    return info.state;
}

static const char (*certificate)[LIMIT_PEER_ID + 1]; /* NULL: plaintext */

static void answer(uint32_t status, int reason, const char *text,
                   const Meshd__V1__RegisterReply *reply)
{
    uint8_t body[512];
    struct node_call_result result = {.status = status, .reason = (uint32_t)reason, .text = text};

    result.secure = certificate != NULL;
    result.names = certificate;
    if (reply) {
        result.body = body;
        result.body_len = protobuf_c_message_pack(&reply->base, body);
    }
    node_call_done(st.node, st.call.call, &result);
}

static void welcome(const char *id, uint64_t incarnation)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;
    uint8_t token[TOKEN_LEN] = {1, 2, 3};

    reply.peer_id = (char *)id;
    reply.incarnation = incarnation;
    reply.token = (ProtobufCBinaryData){.len = TOKEN_LEN, .data = token};
    reply.wire_version = 1;
    answer(STATUS_OK, 0, "", &reply);
}

static void resolved(void) { node_resolved(st.node, st.ask, 0, &there, 1); }

/* A live link with the peer at the other end. */
static struct stage_peer meet(const char *id)
{
    struct stage_peer peer = {.id = id, .ip = "10.0.0.9", .incarnation = 500, .version = 1};
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;
    const Meshd__V1__Hello *hello;

    welcome(id, 500);
    peer.link = st.dial.link;
    node_link_up(st.node, peer.link);
    hello = stage_heard(peer.link, KIND(HELLO));
    cr_assert_not_null(hello);
    reply.peer_id = (char *)id;
    reply.incarnation = 500;
    reply.nonce = 0x0908070605040302u;
    reply.wire_version = 1;
    stage_say_raw(peer.link, NULL, 0, KIND(HELLO_REPLY), &reply.base);
    for (int i = 0; i < 8; i++) {
        peer.session[i] = (uint8_t)(hello->nonce >> (56 - 8 * i));
        peer.session[8 + i] = (uint8_t)(9 - i);
    }
    stage_sync(&peer, 0, 0, NULL, 0, NULL);
    stage_ack(&peer, true);
    cr_assert_str_eq(state(), "live");
    return peer;
}

Test(node_dialer, registers_with_its_list_then_opens_the_link_to_the_address_that_answered)
{
    cr_expect_eq(st.n_calls, 0, "the name comes first");
    resolved();
    cr_assert_eq(st.n_calls, 1);
    cr_expect_str_eq(st.call.to.ip, "10.0.0.9");
    cr_expect_str_eq(st.call.request->peer_id, "n1");
    cr_expect_eq(st.call.request->incarnation, 1000);
    cr_expect(st.call.request->has_list);
    cr_assert_eq(st.call.request->n_services, 1);
    cr_expect_str_eq(st.call.request->services[0]->name, "own");
    cr_expect_leq(st.call.deadline_ms, 5000);
    welcome("n9", 500);
    cr_assert_eq(st.n_dials, 1);
    cr_expect_str_eq(st.dial.to.ip, "10.0.0.9");
    cr_expect_eq(st.dial.token[2], 3);
    cr_expect_str_eq(state(), "opening");
    node_link_up(st.node, st.dial.link);
    cr_expect_not_null(stage_heard(st.dial.link, KIND(HELLO)));
}

Test(node_dialer, is_live_after_hello_and_both_lists)
{
    resolved();
    meet("n9");
    cr_expect(stage_peer_info("n9").state.connected);
    cr_expect_str_eq(stage_peer_info("n9").label, "10.0.0.9");
    cr_expect_null(node_waits_for(st.node, &(size_t){0}));
}

Test(node_dialer, tells_the_port_of_its_session_and_what_the_peer_wishes)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;
    const Meshd__V1__Heartbeat *ours;
    struct stage_peer peer;

    resolved();
    st.wanted = 12;
    peer = meet("n9");
    cr_assert_eq(st.n_sessions, 1);
    cr_expect_eq(st.session.link, peer.link);
    cr_expect_arr_eq(st.session.session_id, peer.session, SESSION_ID_LEN);
    cr_expect_str_eq(st.session.peer_id, "n9");
    cr_expect(st.session.dialled);
    cr_expect_eq(st.sessions_said, 0);
    beat.incarnation = 500;
    beat.version = 1;
    beat.data_wanted = 5;
    stage_say(&peer, KIND(HEARTBEAT), &beat.base);
    cr_assert_eq(st.n_wishes, 1);
    cr_expect_eq(st.wish_link, peer.link);
    cr_expect_eq(st.wish, 5);
    stage_wait(3100);
    ours = stage_heard(peer.link, KIND(HEARTBEAT));
    cr_assert_not_null(ours);
    cr_expect_eq(ours->data_wanted, 0, "it dials them itself");
}

Test(node_dialer, backs_off_with_jitter_from_100_ms_and_never_waits_more_than_10_s)
{
    const struct node_call_result refused = {.error = -ECONNREFUSED, .text = "refused"};
    uint64_t begun = st.now_ms, waited = 0, longest = 0;

    for (int i = 0; i < 40; i++) {
        size_t calls = st.n_calls;

        resolved();
        cr_assert_eq(st.n_calls, calls + 1);
        node_call_done(st.node, st.call.call, &refused);
        st.ask = 0;
        begun = st.now_ms;
        while (st.ask == 0) {
            st.now_ms += 10;
            if (node_next_ms(st.node) <= st.now_ms)
                node_tick(st.node);
        }
        waited = st.now_ms - begun;
        cr_expect_geq(waited, 50);
        cr_expect_leq(waited, 10000);
        if (i == 0)
            cr_expect_leq(waited, 120);
        longest = waited > longest ? waited : longest;
    }
    cr_expect_geq(longest, 5000);
    cr_expect_eq(st.events[NODE_DIAL_FAILED], 1, "told once");
}

Test(node_dialer, begins_attempts_at_most_10_s_apart_even_when_nothing_answers)
{
    size_t attempts;

    resolved();
    stage_wait(60000); /* calls without any answer at all */
    attempts = st.n_calls;
    cr_expect_geq(attempts, 6);
}

Test(node_dialer, a_resolver_that_does_not_answer_costs_half_a_second_once_an_answer_is_known)
{
    const struct node_call_result refused = {.error = -ECONNREFUSED, .text = "refused"};

    resolved();
    node_call_done(st.node, st.call.call, &refused);
    stage_wait(800);
    cr_expect_eq(st.n_calls, 2);
}

Test(node_dialer, takes_the_next_address_at_the_next_attempt)
{
    const struct node_addr both[] = {{.ip = "10.0.0.8", .port = 7400},
                                     {.ip = "10.0.0.9", .port = 7400}};
    const struct node_call_result refused = {.error = -ECONNREFUSED, .text = "refused"};

    node_resolved(st.node, st.ask, 0, both, 2);
    cr_expect_str_eq(st.call.to.ip, "10.0.0.8");
    node_call_done(st.node, st.call.call, &refused);
    stage_wait(1000);
    cr_expect_str_eq(st.call.to.ip, "10.0.0.9");
}

Test(node_dialer, a_typed_refusal_of_the_token_leads_back_to_dialling)
{
    size_t calls = st.n_calls;

    resolved();
    welcome("n9", 500);
    node_link_down(st.node, st.dial.link, STATUS_UNAUTHENTICATED, REASON(TOKEN), "unknown token");
    cr_expect_str_eq(state(), "dialling");
    stage_wait(1000);
    cr_expect_geq(st.n_calls, calls + 1);
}

/* The waits have grown to their longest. */
static void cut_for_long(void)
{
    const struct node_call_result cut = {.error = -ETIMEDOUT, .text = "cut"};

    resolved();
    for (unsigned i = 0; i < 8; i++) {
        node_call_done(st.node, st.call.call, &cut);
        stage_wait(10000);
    }
}

/* status 0: the link is closed. */
static void cut_then_closed(uint32_t status, int reason)
{
    size_t calls;

    cut_for_long();
    for (unsigned i = 0; i < 5; i++) {
        calls = st.n_calls;
        welcome("n9", 500);
        node_link_down(st.node, st.dial.link, status, reason, "timed out");
        stage_wait(150);
        cr_expect_eq(st.n_calls, i == 0 ? calls + 1 : calls,
                     "the first time it is asked again, and later as often as others");
        stage_wait(10000);
    }
}

Test(node_dialer, who_was_forgotten_after_a_long_cut_is_back_within_a_moment)
{
    cut_then_closed(STATUS_UNAUTHENTICATED, REASON(TOKEN));
}

Test(node_dialer, whose_first_link_after_a_long_cut_breaks_is_back_within_a_moment)
{
    cut_then_closed(0, 0);
}

Test(node_dialer, who_is_known_above_its_incarnation_after_a_long_cut_is_back_within_a_moment)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;
    size_t calls;

    cut_for_long();
    for (unsigned i = 0; i < 5; i++) {
        calls = st.n_calls;
        reply.known_incarnation = node_incarnation(st.node) + 10;
        answer(STATUS_FAILED_PRECONDITION, REASON(INCARNATION), "known", &reply);
        stage_wait(150);
        cr_expect_eq(st.n_calls, i == 0 ? calls + 1 : calls,
                     "the first time it is asked again, and later as often as others");
        stage_wait(10000);
    }
}

Test(node_dialer, goes_on_above_the_incarnation_known_there)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;

    resolved();
    reply.known_incarnation = 7777;
    answer(STATUS_FAILED_PRECONDITION, REASON(INCARNATION), "known", &reply);
    cr_expect_eq(node_incarnation(st.node), 7778);
    cr_expect_eq(st.events[NODE_INCARNATION], 1);
    stage_wait(700);
    cr_expect_eq(st.call.request->incarnation, 7778);
}

Test(node_dialer, stops_when_it_met_itself)
{
    resolved();
    welcome("n1", 1000);
    cr_expect_str_eq(state(), "refused");
    cr_expect_eq(st.events[NODE_LINK_REFUSED], 1);
    stage_wait(60000);
    cr_expect_eq(st.n_calls, 1);
}

Test(node_dialer, ends_a_silent_session_and_dials_anew)
{
    struct stage_peer peer;
    size_t calls;

    resolved();
    peer = meet("n9");
    calls = st.n_calls;
    stage_wait(10000);
    cr_expect_eq(st.ended, peer.link);
    cr_expect_eq(st.events[NODE_LINK_SUSPECT], 1);
    cr_expect(stage_peer_info("n9").state.stale);
    stage_wait(1000);
    cr_expect_gt(st.n_calls, calls);
}

Test(node_dialer, a_session_that_answers_where_another_instance_was_met_wins)
{
    struct stage_peer first = {.id = "n9", .ip = "10.0.0.2", .incarnation = 400, .version = 1};
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;
    const Meshd__V1__Heartbeat *probe;

    stage_live(&first); /* n9 dialled us; and at 10.0.0.9 there is another n9 */
    resolved();
    stage_hush();
    welcome("n9", 900);
    cr_expect_eq(st.n_dials, 0);
    probe = stage_heard(first.link, KIND(HEARTBEAT));
    cr_assert_not_null(probe);
    beat.incarnation = 400;
    beat.version = 1;
    beat.echo = probe->probe;
    stage_say(&first, KIND(HEARTBEAT), &beat.base);
    cr_expect_str_eq(state(), "refused");
    cr_expect(stage_peer_info("n9").state.connected);
}

Test(node_dialer, a_refused_hello_is_told_and_tried_again)
{
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;

    resolved();
    welcome("n9", 500);
    node_link_up(st.node, st.dial.link);
    reply.peer_id = (char *)"n9";
    reply.reason = REASON(WIRE_VERSION);
    reply.text = (char *)"no wire version in common";
    stage_say_raw(st.dial.link, NULL, 0, KIND(HELLO_REPLY), &reply.base);
    cr_expect_eq(st.ended, st.dial.link);
    cr_expect_str_eq(state(), "refused");
    cr_expect_str_eq(st.text[NODE_LINK_REFUSED], "no wire version in common");
    stage_wait(11000);
    cr_expect_geq(st.n_calls, 2);
}

Test(node_dialer, a_list_too_large_for_one_message_is_left_to_sync)
{
    const struct node_caller program = {.peer_id = "", .ip = "", .local = true};
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;
    char name[300];

    request.lease_id = (char *)"lease";
    request.name = name;
    request.backend_addr = (char *)"127.0.0.1:80";
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "%060d.%060d.%060d.s%d", 0, 0, 0, i);
        node_offer(st.node, 1, &program, &request);
    }
    resolved();
    cr_expect_not(st.call.request->has_list);
    cr_expect_eq(st.call.request->n_services, 0);
    cr_expect_eq(st.call.request->count, 5001);
}

Test(node_dialer, a_list_that_took_too_long_is_left_to_sync)
{
    const struct node_call_result late = {.error = -ETIMEDOUT, .text = "timed out"};

    resolved();
    cr_expect(st.call.request->has_list);
    node_call_done(st.node, st.call.call, &late);
    stage_wait(1000);
    cr_assert_eq(st.n_calls, 2);
    cr_expect_not(st.call.request->has_list);
    cr_expect_eq(st.call.request->count, 1);
}

Test(node_dialer, an_older_session_that_does_not_answer_gives_way)
{
    struct stage_peer first = {.id = "n9", .ip = "10.0.0.2", .incarnation = 400, .version = 1};

    stage_live(&first);
    resolved();
    welcome("n9", 900);
    cr_expect_eq(st.n_dials, 0);
    stage_wait(1600);
    cr_expect_eq(st.ended, first.link);
    cr_expect_eq(st.n_dials, 1);
    cr_expect_str_eq(state(), "opening");
}

Test(node_dialer, an_attempt_begun_under_an_older_incarnation_begins_anew)
{
    struct stage_peer other = {.id = "n2", .ip = "10.0.0.2", .incarnation = 400, .version = 1};
    Meshd__V1__SyncWanted wish = MESHD__V1__SYNC_WANTED__INIT;

    stage_live(&other);
    resolved();
    welcome("n9", 500);
    wish.incarnation = 5000;
    stage_say(&other, KIND(SYNC_WANTED), &wish.base);
    cr_expect_eq(st.ended, st.dial.link);
    stage_wait(700);
    cr_expect_eq(st.n_calls, 2);
    cr_expect_eq(st.call.request->incarnation, 5001);
    cr_expect_eq(st.events[NODE_DIAL_FAILED], 0);
}

Test(node_dialer, a_name_without_an_address_is_told)
{
    node_resolved(st.node, st.ask, -ENOENT, NULL, 0);
    cr_expect_eq(st.n_calls, 0);
    cr_expect_eq(st.events[NODE_DIAL_FAILED], 1);
    cr_expect_str_eq(st.text[NODE_DIAL_FAILED], "its name has no address");
    cr_expect_str_eq(st.at[NODE_DIAL_FAILED], "10.0.0.9:7400", "as it is configured");
}

Test(node_dialer, a_name_that_nobody_answers_for_is_told_as_that)
{
    node_resolved(st.node, st.ask, -EAGAIN, NULL, 0);
    cr_expect_str_eq(st.text[NODE_DIAL_FAILED],
                     "its name cannot be looked up now: no name server answers");
    stage_wait(1000);
    node_resolved(st.node, st.ask, -ENOMEM, NULL, 0);
    cr_expect_str_eq(st.text[NODE_DIAL_FAILED],
                     "its name cannot be looked up: Cannot allocate memory");
}

Test(node_dialer, an_answer_that_makes_no_sense_is_refused)
{
    const struct node_call_result junk = {.body = (const uint8_t *)"\xff\xff", .body_len = 2};

    resolved();
    welcome("not a peer id", 500);
    cr_expect_str_eq(state(), "refused");
    stage_wait(11000);
    node_call_done(st.node, st.call.call, &junk);
    cr_expect_str_eq(state(), "refused");
    cr_expect_eq(st.n_dials, 0);
}

Test(node_dialer, another_peer_behind_the_link_than_the_one_that_answered_is_refused)
{
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;

    resolved();
    welcome("n9", 500);
    node_link_up(st.node, st.dial.link);
    reply.peer_id = (char *)"n8";
    reply.incarnation = 500;
    reply.wire_version = 1;
    stage_say_raw(st.dial.link, NULL, 0, KIND(HELLO_REPLY), &reply.base);
    cr_expect_eq(st.ended, st.dial.link);
    cr_expect_not(stage_knows("n8"));
    cr_expect_not(stage_knows("n9"));
}

Test(node_dialer, a_node_that_ends_dials_no_more)
{
    resolved();
    node_stop(st.node);
    cr_expect_eq(node_next_ms(st.node), UINT64_MAX);
    welcome("n9", 500);
    cr_expect_eq(st.n_dials, 0);
}

/* ---- certificates ---- */

static const char of_n3_and_n4[LIMIT_CERT_NAMES][LIMIT_PEER_ID + 1] = {"n3", "n4"};

static void begin_expecting(void)
{
    st.expected = "n4";
    stage_begin_dialling();
}

Test(node_dialer_expecting, who_is_expected_must_have_the_certificate_before_anything_is_said,
     .init = begin_expecting)
{
    resolved();
    cr_expect_str_eq(st.call.expect, "n4");
    certificate = of_n3_and_n4;
    welcome("n4", 500);
    cr_assert_eq(st.n_dials, 1);
    cr_expect_str_eq(st.dial.expect, "n4");
}

Test(node_dialer, opens_a_link_only_to_whom_answered_and_proved_it)
{
    resolved();
    cr_expect_str_empty(st.call.expect, "anybody of the mesh will do");
    certificate = of_n3_and_n4;
    welcome("n3", 500);
    cr_assert_eq(st.n_dials, 1);
    cr_expect_str_eq(st.dial.expect, "n3");
}

Test(node_dialer, believes_nothing_of_a_peer_whose_certificate_names_others)
{
    resolved();
    certificate = of_n3_and_n4;
    welcome("n2", 500);
    cr_expect_eq(st.n_dials, 0);
    cr_expect_str_eq(state(), "refused");
    cr_expect_str_eq(st.text[NODE_LINK_REFUSED],
                     "its certificate names n3, but it says that it is n2");
    cr_expect_not(stage_knows("n2"));
    stage_wait(11000);
    cr_expect_geq(st.n_calls, 2, "it is tried again, slowly");
}

Test(node_dialer, does_not_stop_for_somebody_else_who_claims_to_be_this_node)
{
    resolved();
    certificate = of_n3_and_n4;
    welcome("n1", 500);
    cr_expect_str_eq(state(), "refused");
    stage_wait(11000);
    cr_assert_eq(st.n_calls, 2);
    answer(STATUS_FAILED_PRECONDITION, REASON(SELF), "the peer id is this node's own", NULL);
    cr_expect_str_eq(state(), "refused");
    stage_wait(11000);
    cr_expect_eq(st.n_calls, 3);
}

Test(node_dialer, a_certificate_that_will_not_do_is_a_refusal)
{
    const struct node_call_result revoked = {.error = -EACCES,
                                             .text = "its certificate is revoked"};

    resolved();
    node_call_done(st.node, st.call.call, &revoked);
    cr_expect_str_eq(state(), "refused");
    cr_expect_str_eq(st.text[NODE_LINK_REFUSED], "its certificate is revoked");
}

Test(node_dialer, a_live_link_that_is_ended_for_its_certificate_says_so)
{
    struct stage_peer peer;

    resolved();
    peer = meet("n9");
    node_link_down(st.node, peer.link, STATUS_PERMISSION_DENIED, REASON(IDENTITY),
                   "its certificate is revoked");
    cr_expect_str_eq(st.text[NODE_LINK_LOST], "closed: its certificate is revoked");
    cr_expect_not(stage_peer_info("n9").state.connected);
}

Test(node_dialer, who_was_turned_away_is_tried_at_once_when_there_is_reason_to)
{
    resolved();
    answer(STATUS_PERMISSION_DENIED, 0, "no", NULL);
    cr_expect_str_eq(state(), "refused");
    cr_expect_eq(st.n_calls, 1);
    node_retry(st.node);
    stage_wait(100);
    resolved();
    cr_expect_eq(st.n_calls, 2, "well before 10 s are over");
    node_retry(st.node);
    stage_wait(100);
    cr_expect_eq(st.n_calls, 2, "an attempt under way is left alone");
}

/* ---- other dials while it runs ---- */

Test(node_dialer, dials_that_will_not_do_change_nothing)
{
    struct node_dial dials[] = {{.host = "10.0.0.8", .port = 7400}, {.host = "10.0.0.7"}};
    struct stage_peer n2;

    resolved();
    n2 = meet("n2");
    cr_expect_eq(node_set_dials(st.node, dials, 2), -EINVAL);
    st.limits.peers = 1;
    node_set_limits(st.node, &st.limits);
    dials[1].port = 7400;
    cr_expect_eq(node_set_dials(st.node, dials, 2), -ENOSPC);
    cr_expect_str_eq(state(), "live");
    cr_expect_eq(st.ended, 0);
    cr_expect_null(stage_heard(n2.link, KIND(GOODBYE)));
    cr_expect_eq(node_links(st.node, NULL, 0), 1);
}

Test(node_dialer, a_peer_that_is_dialled_no_more_is_told_that_this_node_leaves)
{
    struct stage_peer n2;
    const Meshd__V1__Goodbye *goodbye;

    resolved();
    n2 = meet("n2");
    cr_assert(stage_knows("n2"));
    cr_assert_eq(node_set_dials(st.node, NULL, 0), 0);
    goodbye = stage_heard(n2.link, KIND(GOODBYE));
    cr_assert_not_null(goodbye);
    cr_expect_eq(goodbye->reason, GOODBYE(LEAVING));
    cr_expect_eq(st.ended, n2.link);
    cr_expect(st.flushed);
    cr_expect_not(stage_knows("n2"));
    cr_expect_eq(node_links(st.node, NULL, 0), 0);
    stage_wait(60000);
    cr_expect_eq(st.n_calls, 1, "it is dialled still");
}

Test(node_dialer, answers_to_a_dial_that_is_gone_are_nobodys)
{
    cr_assert_eq(node_set_dials(st.node, NULL, 0), 0);
    resolved();
    cr_expect_eq(st.n_calls, 0);
    cr_assert_eq(node_set_dials(st.node, &(struct node_dial){.host = "10.0.0.9", .port = 7400}, 1),
                 0);
    resolved();
    cr_assert_eq(st.n_calls, 1);
    cr_assert_eq(node_set_dials(st.node, NULL, 0), 0);
    welcome("n2", 500);
    cr_expect_eq(st.n_dials, 0);
    stage_wait(60000);
    cr_expect_eq(st.n_calls, 1);
}

Test(node_dialer, a_dial_that_is_gone_waits_for_no_probe)
{
    struct stage_peer older = {.id = "n2", .ip = "10.0.0.2", .incarnation = 400, .version = 1};

    stage_live(&older);
    resolved();
    welcome("n2", 500);
    cr_assert_eq(node_set_dials(st.node, NULL, 0), 0);
    stage_wait(5000);
    cr_expect_eq(st.n_dials, 0);
    cr_expect(stage_knows("n2"), "its own link is no dial's");
}
