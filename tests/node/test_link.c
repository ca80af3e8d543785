/* A link's first words, its sessions, its signs of life and its end; all seen from the side that
 * was dialled. */
#include <criterion/criterion.h>
#include <string.h>
#include "node/stage.h"

TestSuite(node_link, .init = stage_begin, .fini = stage_end);

static const char *const one[] = {"web", "127.0.0.1:80"};
static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

static struct node_counters counters(void)
{
    struct node_counters c;

    node_counters(st.node, &c);
    return c;
}

static const char *state(void)
{
    static struct node_link_info info;

    cr_assert_eq(node_links(st.node, &info, 1), 1);
    return info.state;
}

static void lively(uint64_t ms)
{
    for (; ms >= 1000; ms -= 1000) {
        stage_beat(&n2, 0, 0);
        stage_wait(1000);
        stage_hush();
    }
}

Test(node_link, is_live_once_both_lists_are_in)
{
    stage_open(&n2);
    cr_expect_str_eq(state(), "syncing");
    cr_expect_eq(stage_count(n2.link, KIND(SYNC)), 1, "ours is sent at once");
    stage_sync(&n2, 0, 1, one, 0, NULL);
    cr_expect_str_eq(state(), "syncing");
    cr_expect_not(stage_peer_info("n2").state.connected);
    stage_ack(&n2, true);
    cr_expect_str_eq(state(), "live");
    cr_expect(stage_peer_info("n2").state.connected);
    cr_expect_eq(stage_peer_info("n2").state.link_id, n2.link);
    cr_expect_arr_eq(stage_peer_info("n2").state.session_id, n2.session, SESSION_ID_LEN);
    cr_expect_eq(st.events[NODE_LINK_LIVE], 1);
}

Test(node_link, believes_nothing_before_hello)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};
    const Meshd__V1__RegisterReply *reply;
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;

    stage_register(&n2, -1, NULL);
    reply = stage_reply(&meshd__v1__register_reply__descriptor);
    n2.link = NODE_LINK_ACCEPTED | 1;
    node_link_asked(st.node, n2.link, "n2", &from, reply->token.data);
    node_link_up(st.node, n2.link);
    stage_sync(&n2, 0, 1, one, 0, NULL);
    cr_expect_eq(counters().messages_other_session, 1);
    cr_expect_eq(stage_peer_info("n2").count, 0);
    stage_say_raw(n2.link, NULL, 0, KIND(SYNC), &sync.base);
    cr_expect_eq(st.ended, n2.link, "out of place");
}

Test(node_link, without_a_hello_in_time_is_ended)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};
    const Meshd__V1__RegisterReply *reply;

    stage_register(&n2, -1, NULL);
    reply = stage_reply(&meshd__v1__register_reply__descriptor);
    node_link_asked(st.node, NODE_LINK_ACCEPTED | 1, "n2", &from, reply->token.data);
    node_link_up(st.node, NODE_LINK_ACCEPTED | 1);
    stage_wait(9900);
    cr_expect_eq(st.ended, 0);
    stage_wait(1200);
    cr_expect_eq(st.ended, NODE_LINK_ACCEPTED | 1);
}

Test(node_link, drops_and_counts_messages_of_another_session)
{
    uint8_t other[SESSION_ID_LEN] = {9};
    Meshd__V1__Goodbye goodbye = MESHD__V1__GOODBYE__INIT;

    stage_live(&n2);
    goodbye.reason = GOODBYE(LEAVING);
    stage_say_raw(n2.link, other, SESSION_ID_LEN, KIND(GOODBYE), &goodbye.base);
    cr_expect_eq(counters().messages_other_session, 1);
    cr_expect_str_eq(state(), "live");
}

Test(node_link, ends_with_goodbye_protocol_when_a_message_cannot_be_read)
{
    static const uint8_t junk[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const Meshd__V1__Goodbye *goodbye;

    stage_live(&n2);
    node_link_message(st.node, n2.link, junk, sizeof(junk));
    goodbye = stage_heard(n2.link, KIND(GOODBYE));
    cr_assert_not_null(goodbye);
    cr_expect_eq(goodbye->reason, GOODBYE(PROTOCOL));
    cr_expect_eq(st.ended, n2.link);
    cr_expect(st.flushed);
    cr_expect_eq(counters().messages_bad, 1);
    cr_expect(stage_peer_info("n2").state.stale, "nothing goes");
}

Test(node_link, ends_with_goodbye_protocol_when_a_message_is_out_of_place)
{
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;

    stage_live(&n2);
    stage_say_raw(n2.link, NULL, 0, KIND(HELLO), &hello.base);
    cr_expect_not_null(stage_heard(n2.link, KIND(GOODBYE)));
    cr_expect_eq(st.ended, n2.link);
}

Test(node_link, sends_heartbeats_both_ways_every_3_s_that_overtake_lists)
{
    stage_live(&n2);
    stage_hush();
    for (int i = 0; i < 12; i++) {
        stage_wait(1000);
        stage_beat(&n2, 0, 0);
    }
    cr_expect_eq(stage_count(n2.link, KIND(HEARTBEAT)), 4);
    cr_expect_eq(st.said[0].urgency, NODE_URGENT);
}

Test(node_link, is_suspect_after_three_missed_heartbeats_and_live_when_it_speaks_again)
{
    stage_live(&n2);
    stage_wait(9500);
    cr_expect_str_eq(state(), "live");
    stage_wait(600);
    cr_expect_str_eq(state(), "suspect");
    cr_expect(stage_peer_info("n2").state.stale);
    cr_expect_not(stage_peer_info("n2").state.connected);
    cr_expect_eq(st.events[NODE_LINK_SUSPECT], 1);
    cr_expect_eq(st.ended, 0, "the side that was dialled keeps it");
    stage_beat(&n2, 0, 0);
    cr_expect_str_eq(state(), "live");
    cr_expect(stage_peer_info("n2").state.connected);
    cr_expect_not(stage_peer_info("n2").state.stale);
}

Test(node_link, lives_as_long_as_1_KiB_a_second_of_one_message_comes)
{
    stage_live(&n2);
    for (int i = 0; i < 40; i++) {
        st.received += 1100;
        stage_wait(1000);
    }
    cr_expect_str_eq(state(), "live");
    for (int i = 0; i < 12; i++) {
        st.received += 500;
        stage_wait(1000);
    }
    cr_expect_str_eq(state(), "suspect", "500 B/s are no life");
}

Test(node_link, rows_go_at_peer_timeout_from_the_last_sign_of_life)
{
    stage_live(&n2);
    lively(10000);
    node_link_down(st.node, n2.link, 0, 0, "closed");
    cr_expect(stage_peer_info("n2").state.stale, "at once");
    cr_expect_eq(st.events[NODE_LINK_LOST], 1);
    stage_wait(28500);
    cr_expect(stage_knows("n2"));
    stage_wait(1000);
    cr_expect_not(stage_knows("n2"));
    cr_expect_str_eq(st.text[NODE_PEER_GONE], "timed out");
}

Test(node_link, a_suspect_one_is_ended_at_peer_timeout)
{
    stage_live(&n2);
    stage_wait(30500);
    cr_expect_not(stage_knows("n2"));
    cr_expect_eq(st.ended, n2.link);
}

Test(node_link, goodbye_leaving_takes_the_entries_along_at_once)
{
    Meshd__V1__Goodbye goodbye = MESHD__V1__GOODBYE__INIT;
    struct registry_tombstone *tombstones;

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 1, 1, one, 0, NULL);
    cr_expect_eq(stage_peer_info("n2").count, 1);
    goodbye.reason = GOODBYE(LEAVING);
    stage_say(&n2, KIND(GOODBYE), &goodbye.base);
    cr_expect_not(stage_knows("n2"));
    cr_assert_eq(registry_tombstones(st.registry, 1, &tombstones), 1);
    cr_expect_str_eq(tombstones->why, "left");
    free(tombstones);
    cr_expect_eq(st.events[NODE_PEER_GONE], 1);
    cr_expect_eq(st.events[NODE_LINK_LOST], 0, "who leaves in order is not lost");
}

Test(node_link, goodbye_duplicate_takes_nothing_along)
{
    Meshd__V1__Goodbye goodbye = MESHD__V1__GOODBYE__INIT;

    stage_live(&n2);
    goodbye.reason = GOODBYE(DUPLICATE);
    stage_say(&n2, KIND(GOODBYE), &goodbye.base);
    cr_expect(stage_knows("n2"));
    cr_expect_eq(st.events[NODE_LINK_LOST], 0);
}

Test(node_link, a_newer_one_of_the_same_dialler_replaces_the_older)
{
    struct stage_peer newer = n2;
    const Meshd__V1__Goodbye *goodbye;

    stage_live(&n2);
    stage_open(&newer);
    goodbye = stage_heard(n2.link, KIND(GOODBYE));
    cr_assert_not_null(goodbye);
    cr_expect_eq(goodbye->reason, GOODBYE(REPLACED));
    cr_expect_eq(st.ended, n2.link);
    stage_sync(&newer, 0, 0, NULL, 0, NULL);
    stage_ack(&newer, true);
    cr_expect(stage_peer_info("n2").state.connected);
    cr_expect_eq(stage_peer_info("n2").state.link_id, newer.link);
}

Test(node_link, a_session_id_is_the_diallers_nonce_then_the_others)
{
    stage_live(&n2);
    for (int i = 0; i < 8; i++)
        cr_expect_eq(n2.session[i], i + 1);
}

Test(node_link, a_probe_is_answered_at_once)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;
    const Meshd__V1__Heartbeat *echo;

    stage_live(&n2);
    stage_hush();
    beat.incarnation = 500;
    beat.version = 1;
    beat.probe = 77;
    stage_say(&n2, KIND(HEARTBEAT), &beat.base);
    echo = stage_heard(n2.link, KIND(HEARTBEAT));
    cr_assert_not_null(echo);
    cr_expect_eq(echo->echo, 77);
}

Test(node_link, after_a_jump_of_the_clock_nobody_is_dead_before_what_came_was_read)
{
    stage_live(&n2);
    lively(6000);
    st.now_ms += 60000; /* stopped, and now awake */
    node_tick(st.node);
    cr_expect(stage_knows("n2"));
    cr_expect_str_eq(state(), "live");
    stage_beat(&n2, 0, 0);
    stage_wait(5000);
    cr_expect_str_eq(state(), "live");
    st.now_ms += 60000;
    node_tick(st.node);
    stage_wait(3100);
    cr_expect_not(stage_knows("n2"), "the grace is one heartbeat");
}

Test(node_link, stopping_says_draining_then_goodbye_as_the_last_message)
{
    const Meshd__V1__Heartbeat *beat;
    const Meshd__V1__Goodbye *goodbye;

    stage_live(&n2);
    stage_hush();
    node_stop(st.node);
    beat = stage_heard(n2.link, KIND(HEARTBEAT));
    cr_assert_not_null(beat);
    cr_expect(beat->draining);
    cr_assert_eq(st.said[st.n_said - 1].header->kind, KIND(GOODBYE));
    goodbye = st.said[st.n_said - 1].body;
    cr_expect_eq(goodbye->reason, GOODBYE(LEAVING));
    cr_expect_eq(st.said[st.n_said - 1].urgency, NODE_BULK);
    cr_expect_eq(st.ended, n2.link);
    cr_expect(st.flushed);
}

Test(node_link, draining_of_a_peer_is_shown)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    stage_live(&n2);
    beat.incarnation = 500;
    beat.version = 1;
    beat.draining = true;
    stage_say(&n2, KIND(HEARTBEAT), &beat.base);
    cr_expect(stage_peer_info("n2").state.draining);
}

Test(node_link, that_takes_no_answer_is_ended)
{
    stage_live(&n2);
    st.queue_full = true;
    n2.version = 2;
    stage_sync(&n2, 1, 1, one, 0, NULL);
    stage_wait(100);
    cr_expect_eq(st.ended, n2.link);
}

Test(node_link, a_first_sync_that_does_not_get_on_is_given_up)
{
    stage_open(&n2);
    for (int i = 0; i < 12; i++) {
        stage_beat(&n2, 0, 0);
        stage_wait(1000);
    }
    cr_expect_eq(st.ended, n2.link);
}

Test(node_link, without_a_wire_version_in_common_is_refused_by_name)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};
    const Meshd__V1__RegisterReply *reply;
    const Meshd__V1__HelloReply *answer;
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;

    stage_register(&n2, -1, NULL);
    reply = stage_reply(&meshd__v1__register_reply__descriptor);
    n2.link = NODE_LINK_ACCEPTED | 1;
    node_link_asked(st.node, n2.link, "n2", &from, reply->token.data);
    node_link_up(st.node, n2.link);
    hello.peer_id = (char *)"n2";
    hello.incarnation = 500;
    hello.wire_version_min = 2;
    hello.wire_version_max = 3;
    stage_say_raw(n2.link, NULL, 0, KIND(HELLO), &hello.base);
    answer = stage_heard(n2.link, KIND(HELLO_REPLY));
    cr_assert_not_null(answer);
    cr_expect_eq(answer->reason, REASON(WIRE_VERSION));
    cr_expect_eq(st.ended, n2.link);
}

Test(node_link, asked_for_while_the_node_ends_is_refused_as_draining)
{
    const struct node_addr from = {.ip = "10.0.0.2", .port = 5000};
    const uint8_t token[TOKEN_LEN] = {0};

    node_stop(st.node);
    node_link_asked(st.node, NODE_LINK_ACCEPTED | 1, "n2", &from, token);
    cr_expect_eq(st.refused_reason, REASON(DRAINING));
}

Test(node_link, a_kind_that_nobody_knows_breaks_the_protocol)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    stage_live(&n2);
    stage_say(&n2, (Meshd__V1__LinkKind)99, &beat.base);
    cr_expect_eq(st.ended, n2.link);
    cr_expect_not_null(stage_heard(n2.link, KIND(GOODBYE)));
}
