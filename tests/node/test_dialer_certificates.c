/* The side that dials: by its certificate it is known who is at the other end. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "node/dialling.h"

TestSuite(node_dialer_certificates, .init = stage_begin_dialling, .fini = stage_end);
TestSuite(node_dialer_expecting, .fini = stage_end);

static const char of_n3_and_n4[LIMIT_CERT_NAMES][LIMIT_PEER_ID + 1] = {"n3", "n4"};

static void begin_expecting(void)
{
    st.expected = "n4";
    stage_begin_dialling();
}

Test(node_dialer_expecting, who_is_expected_must_have_the_certificate_before_anything_is_said,
     .init = begin_expecting)
{
    dialling_resolved();
    cr_expect_str_eq(st.call.expect, "n4");
    dialling_certificate = of_n3_and_n4;
    dialling_welcome("n4", 500);
    cr_assert_eq(st.n_dials, 1);
    cr_expect_str_eq(st.dial.expect, "n4");
}

Test(node_dialer_certificates, opens_a_link_only_to_whom_answered_and_proved_it)
{
    dialling_resolved();
    cr_expect_str_empty(st.call.expect, "anybody of the mesh will do");
    dialling_certificate = of_n3_and_n4;
    dialling_welcome("n3", 500);
    cr_assert_eq(st.n_dials, 1);
    cr_expect_str_eq(st.dial.expect, "n3");
}

Test(node_dialer_certificates, believes_nothing_of_a_peer_whose_certificate_names_others)
{
    dialling_resolved();
    dialling_certificate = of_n3_and_n4;
    dialling_welcome("n2", 500);
    cr_expect_eq(st.n_dials, 0);
    cr_expect_str_eq(dialling_state(), "refused");
    cr_expect_str_eq(st.text[NODE_LINK_REFUSED],
                     "its certificate names n3, but it says that it is n2");
    cr_expect_not(stage_knows("n2"));
    stage_wait(11000);
    cr_expect_geq(st.n_calls, 2, "it is tried again, slowly");
}

Test(node_dialer_certificates, does_not_stop_for_somebody_else_who_claims_to_be_this_node)
{
    dialling_resolved();
    dialling_certificate = of_n3_and_n4;
    dialling_welcome("n1", 500);
    cr_expect_str_eq(dialling_state(), "refused");
    stage_wait(11000);
    cr_assert_eq(st.n_calls, 2);
    dialling_answer(STATUS_FAILED_PRECONDITION, REASON(SELF), "the peer id is this node's own",
                    NULL);
    cr_expect_str_eq(dialling_state(), "refused");
    stage_wait(11000);
    cr_expect_eq(st.n_calls, 3);
}

Test(node_dialer_certificates, a_certificate_that_will_not_do_is_a_refusal)
{
    const struct node_call_result revoked = {.error = -EACCES,
                                             .text = "its certificate is revoked"};

    dialling_resolved();
    node_call_done(st.node, st.call.call, &revoked);
    cr_expect_str_eq(dialling_state(), "refused");
    cr_expect_str_eq(st.text[NODE_LINK_REFUSED], "its certificate is revoked");
}

Test(node_dialer_certificates, a_live_link_that_is_ended_for_its_certificate_says_so)
{
    struct stage_peer peer;

    dialling_resolved();
    peer = dialling_meet("n9");
    node_link_down(st.node, peer.link, STATUS_PERMISSION_DENIED, REASON(IDENTITY),
                   "its certificate is revoked");
    cr_expect_str_eq(st.text[NODE_LINK_LOST], "closed: its certificate is revoked");
    cr_expect_not(stage_peer_info("n9").state.connected);
}

Test(node_dialer_certificates, who_was_turned_away_is_tried_at_once_when_there_is_reason_to)
{
    dialling_resolved();
    dialling_answer(STATUS_PERMISSION_DENIED, 0, "no", NULL);
    cr_expect_str_eq(dialling_state(), "refused");
    cr_expect_eq(st.n_calls, 1);
    node_retry(st.node);
    stage_wait(100);
    dialling_resolved();
    cr_expect_eq(st.n_calls, 2, "well before 10 s are over");
    node_retry(st.node);
    stage_wait(100);
    cr_expect_eq(st.n_calls, 2, "an attempt under way is left alone");
}
