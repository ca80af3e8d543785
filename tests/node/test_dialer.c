/* The side that dials: attempts, back-off, refusals, and other dials while it runs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "node/dialling.h"

TestSuite(node_dialer, .init = stage_begin_dialling, .fini = stage_end);

Test(node_dialer, registers_with_its_list_then_opens_the_link_to_the_address_that_answered)
{
    cr_expect_eq(st.n_calls, 0, "the name comes first");
    dialling_resolved();
    cr_assert_eq(st.n_calls, 1);
    cr_expect_str_eq(st.call.to.ip, "10.0.0.9");
    cr_expect_str_eq(st.call.request->peer_id, "n1");
    cr_expect_eq(st.call.request->incarnation, 1000);
    cr_expect(st.call.request->has_list);
    cr_assert_eq(st.call.request->n_services, 1);
    cr_expect_str_eq(st.call.request->services[0]->name, "own");
    cr_expect_leq(st.call.deadline_ms, 5000);
    dialling_welcome("n9", 500);
    cr_assert_eq(st.n_dials, 1);
    cr_expect_str_eq(st.dial.to.ip, "10.0.0.9");
    cr_expect_eq(st.dial.token[2], 3);
    cr_expect_str_eq(dialling_state(), "opening");
    node_link_up(st.node, st.dial.link);
    cr_expect_not_null(stage_heard(st.dial.link, KIND(HELLO)));
}

Test(node_dialer, is_live_after_hello_and_both_lists)
{
    dialling_resolved();
    dialling_meet("n9");
    cr_expect(stage_peer_info("n9").state.connected);
    cr_expect_str_eq(stage_peer_info("n9").label, "10.0.0.9");
    cr_expect_null(node_waits_for(st.node, &(size_t){0}));
}

Test(node_dialer, tells_the_port_of_its_session_and_what_the_peer_wishes)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;
    const Meshd__V1__Heartbeat *ours;
    struct stage_peer peer;

    dialling_resolved();
    st.wanted = 12;
    peer = dialling_meet("n9");
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

        dialling_resolved();
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

    dialling_resolved();
    stage_wait(60000); /* calls without any answer at all */
    attempts = st.n_calls;
    cr_expect_geq(attempts, 6);
}

Test(node_dialer, a_resolver_that_does_not_answer_costs_half_a_second_once_an_answer_is_known)
{
    const struct node_call_result refused = {.error = -ECONNREFUSED, .text = "refused"};

    dialling_resolved();
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

    dialling_resolved();
    dialling_welcome("n9", 500);
    node_link_down(st.node, st.dial.link, STATUS_UNAUTHENTICATED, REASON(TOKEN), "unknown token");
    cr_expect_str_eq(dialling_state(), "dialling");
    stage_wait(1000);
    cr_expect_geq(st.n_calls, calls + 1);
}

/* The waits have grown to their longest. */
static void cut_for_long(void)
{
    const struct node_call_result cut = {.error = -ETIMEDOUT, .text = "cut"};

    dialling_resolved();
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
        dialling_welcome("n9", 500);
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
        dialling_answer(STATUS_FAILED_PRECONDITION, REASON(INCARNATION), "known", &reply);
        stage_wait(150);
        cr_expect_eq(st.n_calls, i == 0 ? calls + 1 : calls,
                     "the first time it is asked again, and later as often as others");
        stage_wait(10000);
    }
}

Test(node_dialer, goes_on_above_the_incarnation_known_there)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;

    dialling_resolved();
    reply.known_incarnation = 7777;
    dialling_answer(STATUS_FAILED_PRECONDITION, REASON(INCARNATION), "known", &reply);
    cr_expect_eq(node_incarnation(st.node), 7778);
    cr_expect_eq(st.events[NODE_INCARNATION], 1);
    stage_wait(700);
    cr_expect_eq(st.call.request->incarnation, 7778);
}

Test(node_dialer, stops_when_it_met_itself)
{
    dialling_resolved();
    dialling_welcome("n1", 1000);
    cr_expect_str_eq(dialling_state(), "refused");
    cr_expect_eq(st.events[NODE_LINK_REFUSED], 1);
    stage_wait(60000);
    cr_expect_eq(st.n_calls, 1);
}

Test(node_dialer, ends_a_silent_session_and_dials_anew)
{
    struct stage_peer peer;
    size_t calls;

    dialling_resolved();
    peer = dialling_meet("n9");
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
    dialling_resolved();
    stage_hush();
    dialling_welcome("n9", 900);
    cr_expect_eq(st.n_dials, 0);
    probe = stage_heard(first.link, KIND(HEARTBEAT));
    cr_assert_not_null(probe);
    beat.incarnation = 400;
    beat.version = 1;
    beat.echo = probe->probe;
    stage_say(&first, KIND(HEARTBEAT), &beat.base);
    cr_expect_str_eq(dialling_state(), "refused");
    cr_expect(stage_peer_info("n9").state.connected);
}

Test(node_dialer, a_refused_hello_is_told_and_tried_again)
{
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;

    dialling_resolved();
    dialling_welcome("n9", 500);
    node_link_up(st.node, st.dial.link);
    reply.peer_id = (char *)"n9";
    reply.reason = REASON(WIRE_VERSION);
    reply.text = (char *)"no wire version in common";
    stage_say_raw(st.dial.link, NULL, 0, KIND(HELLO_REPLY), &reply.base);
    cr_expect_eq(st.ended, st.dial.link);
    cr_expect_str_eq(dialling_state(), "refused");
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
    dialling_resolved();
    cr_expect_not(st.call.request->has_list);
    cr_expect_eq(st.call.request->n_services, 0);
    cr_expect_eq(st.call.request->count, 5001);
}

Test(node_dialer, a_list_that_took_too_long_is_left_to_sync)
{
    const struct node_call_result late = {.error = -ETIMEDOUT, .text = "timed out"};

    dialling_resolved();
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
    dialling_resolved();
    dialling_welcome("n9", 900);
    cr_expect_eq(st.n_dials, 0);
    stage_wait(1600);
    cr_expect_eq(st.ended, first.link);
    cr_expect_eq(st.n_dials, 1);
    cr_expect_str_eq(dialling_state(), "opening");
}

Test(node_dialer, an_attempt_begun_under_an_older_incarnation_begins_anew)
{
    struct stage_peer other = {.id = "n2", .ip = "10.0.0.2", .incarnation = 400, .version = 1};
    Meshd__V1__SyncWanted wish = MESHD__V1__SYNC_WANTED__INIT;

    stage_live(&other);
    dialling_resolved();
    dialling_welcome("n9", 500);
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

    dialling_resolved();
    dialling_welcome("not a peer id", 500);
    cr_expect_str_eq(dialling_state(), "refused");
    stage_wait(11000);
    node_call_done(st.node, st.call.call, &junk);
    cr_expect_str_eq(dialling_state(), "refused");
    cr_expect_eq(st.n_dials, 0);
}

Test(node_dialer, another_peer_behind_the_link_than_the_one_that_answered_is_refused)
{
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;

    dialling_resolved();
    dialling_welcome("n9", 500);
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
    dialling_resolved();
    node_stop(st.node);
    cr_expect_eq(node_next_ms(st.node), UINT64_MAX);
    dialling_welcome("n9", 500);
    cr_expect_eq(st.n_dials, 0);
}

/* ---- other dials while it runs ---- */

Test(node_dialer, dials_that_will_not_do_change_nothing)
{
    struct node_dial dials[] = {{.host = "10.0.0.8", .port = 7400}, {.host = "10.0.0.7"}};
    struct stage_peer n2;

    dialling_resolved();
    n2 = dialling_meet("n2");
    cr_expect_eq(node_set_dials(st.node, dials, 2), -EINVAL);
    st.limits.peers = 1;
    node_set_limits(st.node, &st.limits);
    dials[1].port = 7400;
    cr_expect_eq(node_set_dials(st.node, dials, 2), -ENOSPC);
    cr_expect_str_eq(dialling_state(), "live");
    cr_expect_eq(st.ended, 0);
    cr_expect_null(stage_heard(n2.link, KIND(GOODBYE)));
    cr_expect_eq(node_links(st.node, NULL, 0), 1);
}

Test(node_dialer, a_peer_that_is_dialled_no_more_is_told_that_this_node_leaves)
{
    struct stage_peer n2;
    const Meshd__V1__Goodbye *goodbye;

    dialling_resolved();
    n2 = dialling_meet("n2");
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
    dialling_resolved();
    cr_expect_eq(st.n_calls, 0);
    cr_assert_eq(node_set_dials(st.node, &(struct node_dial){.host = "10.0.0.9", .port = 7400}, 1),
                 0);
    dialling_resolved();
    cr_assert_eq(st.n_calls, 1);
    cr_assert_eq(node_set_dials(st.node, NULL, 0), 0);
    dialling_welcome("n2", 500);
    cr_expect_eq(st.n_dials, 0);
    stage_wait(60000);
    cr_expect_eq(st.n_calls, 1);
}

Test(node_dialer, a_dial_that_is_gone_waits_for_no_probe)
{
    struct stage_peer older = {.id = "n2", .ip = "10.0.0.2", .incarnation = 400, .version = 1};

    stage_live(&older);
    dialling_resolved();
    dialling_welcome("n2", 500);
    cr_assert_eq(node_set_dials(st.node, NULL, 0), 0);
    stage_wait(5000);
    cr_expect_eq(st.n_dials, 0);
    cr_expect(stage_knows("n2"), "its own link is no dial's");
}
