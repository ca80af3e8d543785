/* What the port is told of sessions, for who carries clients over them; and draining. */
#include <criterion/criterion.h>
#include <string.h>
#include "node/stage.h"

TestSuite(node_session, .init = stage_begin, .fini = stage_end);

static const char *const one[] = {"web", "127.0.0.1:80"};
static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

static const Meshd__V1__LinkKind kinds[] = {KIND(FORWARDS), KIND(FORWARD_REPLIES), KIND(CANCEL)};

static struct node_counters counters(void)
{
    struct node_counters c;

    node_counters(st.node, &c);
    return c;
}

/* A body that nobody can read: it is not the node's to do so. */
static void forward(const void *session, size_t session_len, Meshd__V1__LinkKind kind)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    uint8_t data[64];
    size_t len;

    header.kind = kind;
    header.session_id.data = (uint8_t *)session;
    header.session_id.len = session_len;
    len = frame_size(&header.base, NULL);
    frame_pack(&header.base, NULL, data);
    memcpy(data + len, "\xff\xff", 2);
    node_link_message(st.node, n2.link, data, len + 2);
}

static void change_own(const char *backend)
{
    const struct node_caller local = {.peer_id = "", .ip = "", .local = true};
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)"lease";
    request.name = (char *)"lent";
    request.backend_addr = (char *)backend;
    node_offer(st.node, 7, &local, &request);
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
}

Test(node_session, is_told_before_anything_else_of_it)
{
    stage_open(&n2);
    cr_assert_eq(st.n_sessions, 1);
    cr_expect_eq(st.sessions_said, 0, "not even HelloReply was sent");
    cr_expect_eq(st.session.link, n2.link);
    cr_expect_arr_eq(st.session.session_id, n2.session, SESSION_ID_LEN);
    cr_expect_str_eq(st.session.peer_id, "n2");
    cr_expect_not(st.session.dialled);
    stage_sync(&n2, 0, 0, NULL, 0, NULL);
    stage_ack(&n2, true);
    cr_expect_eq(st.n_sessions, 1);
}

Test(node_session, forwards_are_handed_on_as_they_came)
{
    stage_live(&n2);
    for (size_t i = 0; i < 3; i++) {
        forward(n2.session, SESSION_ID_LEN, kinds[i]);
        cr_assert_eq(st.n_forwards, i + 1);
        cr_expect_eq(st.forward.link, n2.link);
        cr_expect_eq(st.forward.kind, (int)kinds[i]);
        cr_assert_eq(st.forward.len, 2);
        cr_expect_arr_eq(st.forward.body, "\xff\xff", 2);
    }
    cr_expect_eq(counters().messages_bad, 0);
    cr_expect_eq(st.ended, 0);
}

Test(node_session, forwards_of_another_session_are_dropped_and_counted)
{
    uint8_t other[SESSION_ID_LEN] = {9};

    stage_live(&n2);
    for (size_t i = 0; i < 3; i++)
        forward(other, SESSION_ID_LEN, kinds[i]);
    cr_expect_eq(counters().messages_other_session, 3);
    cr_expect_eq(st.n_forwards, 0);
    cr_expect_eq(st.ended, 0);
    forward(NULL, 0, KIND(FORWARDS));
    cr_expect_eq(st.ended, n2.link, "out of place");
    cr_expect_eq(st.n_forwards, 0);
}

Test(node_session, forwards_are_signs_of_life)
{
    stage_live(&n2);
    for (int i = 0; i < 40; i++) {
        forward(n2.session, SESSION_ID_LEN, kinds[i % 3]);
        stage_wait(1000);
    }
    cr_expect(stage_peer_info("n2").state.connected);
    cr_expect_eq(st.events[NODE_LINK_SUSPECT], 0);
}

Test(node_session, what_the_port_took_on_a_shorter_way_is_a_sign_of_life_too)
{
    stage_live(&n2);
    for (int i = 0; i < 10; i++) {
        st.spoke = true;
        stage_wait(4000);
    }
    cr_expect_eq(st.events[NODE_LINK_SUSPECT], 0);
    stage_wait(10100);
    cr_expect_eq(st.events[NODE_LINK_SUSPECT], 1);
    st.spoke = true;
    stage_wait(1100);
    cr_expect(stage_peer_info("n2").state.connected, "it speaks again");
}

Test(node_session, wishes_go_to_who_dialled_and_are_heard_by_nobody_else)
{
    const Meshd__V1__Heartbeat *beat;
    Meshd__V1__Heartbeat wish = MESHD__V1__HEARTBEAT__INIT;

    st.wanted = 12;
    stage_live(&n2);
    stage_hush();
    stage_wait(3000);
    beat = stage_heard(n2.link, KIND(HEARTBEAT));
    cr_assert_not_null(beat);
    cr_expect_eq(beat->data_wanted, 12);
    wish.incarnation = 500;
    wish.version = 1;
    wish.data_wanted = 5;
    stage_say(&n2, KIND(HEARTBEAT), &wish.base);
    cr_expect_eq(st.n_wishes, 0);
}

/* ---- draining ---- */

Test(node_session, draining_is_told_at_once_and_ends_nothing)
{
    const Meshd__V1__Heartbeat *beat;

    stage_live(&n2);
    stage_hush();
    node_drain(st.node);
    beat = stage_heard(n2.link, KIND(HEARTBEAT));
    cr_assert_not_null(beat);
    cr_expect(beat->draining);
    cr_expect_eq(st.ended, 0);
    node_drain(st.node);
    cr_expect_eq(stage_count(n2.link, KIND(HEARTBEAT)), 1, "once");
    forward(n2.session, SESSION_ID_LEN, KIND(FORWARDS));
    cr_expect_eq(st.n_forwards, 1);
    for (int i = 0; i < 10; i++) {
        stage_beat(&n2, 0, 0);
        stage_wait(3000);
    }
    beat = stage_heard(n2.link, KIND(HEARTBEAT));
    cr_expect(beat->draining);
    cr_expect(stage_peer_info("n2").state.connected);
}

Test(node_session, while_draining_calls_are_answered_and_links_taken)
{
    struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 600, .version = 1};
    const Meshd__V1__Sync *sync;

    change_own("127.0.0.1:80");
    node_drain(st.node);
    stage_register(&n3, 0, NULL);
    cr_assert_eq(st.reply.status, STATUS_OK);
    change_own("127.0.0.1:81");
    stage_live(&n3);
    sync = stage_heard(n3.link, KIND(SYNC));
    cr_expect(sync->draining, "whoever comes is told");
    change_own("127.0.0.1:82");
    stage_ack(&n3, true);
    sync = stage_heard(n3.link, KIND(SYNC));
    cr_expect(sync->draining);
}

Test(node_session, a_sync_that_did_not_say_draining_is_followed_by_a_heartbeat_that_does)
{
    const Meshd__V1__Heartbeat *beat;

    stage_live(&n2);
    change_own("127.0.0.1:81");
    cr_assert_not(((const Meshd__V1__Sync *)stage_heard(n2.link, KIND(SYNC)))->draining);
    node_drain(st.node);
    stage_hush();
    change_own("127.0.0.1:82"); /* the next one, which has to wait */
    cr_assert_eq(st.n_said, 0);
    stage_say(&n2, KIND(SYNC_ACK),
              &(Meshd__V1__SyncAck){.base.descriptor = &meshd__v1__sync_ack__descriptor,
                                    .incarnation = 1000,
                                    .version = 2,
                                    .applied = true}
                   .base);
    beat = stage_heard(n2.link, KIND(HEARTBEAT));
    cr_assert_not_null(beat);
    cr_expect(beat->draining);
    cr_expect(((const Meshd__V1__Sync *)stage_heard(n2.link, KIND(SYNC)))->draining);
    stage_hush();
}

Test(node_session, after_draining_goodbye_is_the_last_message)
{
    stage_live(&n2);
    node_drain(st.node);
    stage_wait(1000);
    node_stop(st.node);
    cr_assert_eq(st.said[st.n_said - 1].header->kind, KIND(GOODBYE));
    cr_expect_eq(st.ended, n2.link);
    cr_expect(st.flushed);
    stage_register(&n2, 1, one);
    cr_expect_eq(st.reply.reason, REASON(DRAINING));
}
