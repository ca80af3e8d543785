/* A node whose clients come from a peer that the test plays, which knows the rules and breaks them.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/random.h"
#include "forward/must.h"
#include "forward/requester.h"
#include "forward/segments.h"
#include "wire/status.h"

static struct peer other;

TestSuite(requester, .init = requester_setup, .timeout = 60);

static void pass_and_close(int data, int backend)
{
    net_send(data, "on", 2);
    net_expect(backend, "on", 2);
    net_send(backend, "back", 4);
    net_expect(data, "back", 4);
    close(data);
    cr_assert(net_has_ended(backend));
    close(backend);
}

/* ---- joined ---- */

Test(requester, its_bytes_reach_the_backend_before_data_is_there)
{
    int data, backend;

    requester_start(false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    expect_accepted();
    data = dial_with_header(&peer, 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    requester_end();
}

Test(requester, data_may_come_before_its_forward)
{
    int data, backend;

    requester_start(false);
    data = dial_with_header(&peer, 5);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_waiting, 0);
    requester_end();
}

Test(requester, of_two_data_connections_the_younger_is_taken)
{
    int first, data, backend;

    rig.settings.open_ms = 1000;
    requester_start(false);
    first = dial_with_header(&peer, 5);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    data = dial_with_header(&peer, 5);
    RIG_WAIT(&rig, DIALLER, data_waiting, 2);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    cr_assert(net_has_ended(first)); /* after open_timeout */
    close(first);
    pass_and_close(data, backend);
    requester_end();
}

Test(requester, a_younger_data_connection_replaces_one_whose_forward_has_just_come)
{
    int first, data, backend;
    struct stall *stall;

    requester_start(false);
    first = dial_with_header(&peer, 5);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    stall = stall_begin(rig.sides[DIALLER].forward, 0);
    data = dial_with_header(&peer, 5);
    forward_with("first", 5, false);
    stall_end(stall);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    cr_assert(net_has_ended(first));
    close(first);
    pass_and_close(data, backend);
    requester_end();
}

Test(requester, a_side_that_was_dialled_has_data_dialled_for_it)
{
    int data, backend;

    requester_start(true);
    forward_with("first", 5, true);
    data = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_header(data, id, 0);
    peer_say_header(data, id, 5);
    pass_and_close(data, backend);
    requester_end();
}

Test(requester, a_second_forward_has_data_dialled_once_more)
{
    int lost, data, backend;

    requester_start(true);
    forward_with("first", 5, true);
    lost = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_header(lost, id, 0);
    forward_with("", 0, true);
    cr_assert(net_has_ended(lost));
    close(lost);
    data = peer_accept_data(&peer);
    peer_expect_header(data, id, 0);
    peer_say_header(data, id, 5);
    pass_and_close(data, backend);
    requester_end();
}

Test(requester, a_third_forward_has_no_data_dialled)
{
    int lost, data, backend;

    requester_start(true);
    forward_with("first", 5, true);
    lost = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    forward_with("", 0, true);
    data = peer_accept_data(&peer);
    peer_expect_header(data, id, 0);
    forward_with("", 0, true);
    rig_settle(rig.sides[DIALLER].forward);
    cr_assert(net_nobody_comes(peer.fd));
    peer_say_header(data, id, 5);
    pass_and_close(data, backend);
    close(lost);
    requester_end();
}

/* It may have been in doubt about the first one until that was joined. */
Test(requester, an_id_that_was_joined_has_nothing_dialled_for_it_any_more)
{
    int data, backend;

    requester_start(true);
    forward_with("first", 5, true);
    data = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_header(data, id, 0);
    peer_say_header(data, id, 5);
    net_send(data, "join", 4);
    net_expect(backend, "join", 4);
    forward_with("", 0, true);
    peer_next_cancel(&peer, id);
    pass_and_close(data, backend);
    RIG_WAIT(&rig, DIALLER, served, 0);
    forward_with("", 0, true);
    peer_next_cancel(&peer, id);
    cr_assert(net_nobody_comes(peer.fd));
    requester_end();
}

Test(requester, a_side_that_was_dialled_claims_a_warm_connection)
{
    int data, backend;

    rig.limits.data_warm_per_link = 1;
    requester_start(true);
    forward_data_wish(rig.sides[DIALLER].forward, peer.link, 1);
    data = peer_accept_data(&peer);
    peer_say_header(data, id, 5);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    forward_data_wish(rig.sides[DIALLER].forward, peer.link, 0);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    requester_end();
}

Test(requester, what_came_behind_the_header_follows_the_first_bytes)
{
    int data, backend;

    requester_start(false);
    data = dial_with_header(&peer, 5);
    net_send(data, "more", 4);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "firstmore", 9);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    requester_end();
}

/* ---- its header and the answer ---- */

static void ask_anew(int *out_data, int *out_backend)
{
    random_bytes(id, sizeof id);
    *out_data = dial_with_header(&peer, 5);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    forward_with("first", 5, false);
    *out_backend = net_accept(backend_fd);
    net_expect(*out_backend, "first", 5);
}

Test(requester, an_answer_that_is_quick_comes_in_one_segment_with_the_header)
{
    unsigned together = 0;

    if (trust_wanted())
        cr_skip_test("of plaintext: a session holds nothing back");
    requester_start(false);
    for (unsigned i = 0; i < 50 && !together; i++) {
        int data, backend;

        ask_anew(&data, &backend);
        net_send(backend, "answer", 6);
        peer_expect_answer(data);
        peer_expect_header(data, id, 0);
        net_expect(data, "answer", 6);
        together += data_segments_in(data) == 1;
        pass_and_close(data, backend);
    }
    cr_assert(together);
    requester_end();
}

/* Who waits for it waits for less than TCP would hold it back by itself, which is 200 ms. */
Test(requester, an_answer_that_does_not_come_is_waited_for_no_longer_than_a_moment)
{
    uint64_t shortest = UINT64_MAX;

    requester_start(false);
    for (unsigned i = 0; i < 20 && shortest > 100; i++) {
        uint64_t begun, took;
        int data, backend;

        ask_anew(&data, &backend);
        begun = clock_ms();
        peer_expect_answer(data);
        peer_expect_header(data, id, 0);
        took = clock_ms() - begun;
        if (took < shortest)
            shortest = took;
        pass_and_close(data, backend);
    }
    cr_assert_leq(shortest, 100, "%lu ms", (unsigned long)shortest);
    requester_end();
}

Test(requester, a_reset_behind_a_header_is_one)
{
    int data, backend;

    requester_start(false);
    ask_anew(&data, &backend);
    net_reset(backend);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    cr_assert(net_is_reset(data));
    close(data);
    requester_end();
}

/* ---- rules that are broken ---- */

Test(requester, one_id_is_joined_once)
{
    int data, backend;

    requester_start(false);
    forward_with("first", 5, false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    expect_accepted();
    forward_with("first", 5, false);
    data = dial_with_header(&peer, 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    cr_assert_eq(rig_counters(&rig, DIALLER).forwards_received, 3);
    requester_end();
}

Test(requester, a_wrong_offset_ends_it)
{
    int data, backend;

    requester_start(false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    data = dial_with_header(&peer, 4);
    cr_assert(net_is_reset(backend));
    cr_assert(net_has_ended(data));
    close(data);
    close(backend);
    cr_assert_eq(rig_counters(&rig, DIALLER).messages_bad, 1);
    requester_end();
}

Test(requester, a_guessed_id_waits_in_vain)
{
    int data;

    rig.settings.open_ms = 1000;
    requester_start(false);
    data = dial_with_header(&peer, 0);
    cr_assert(net_has_ended(data));
    close(data);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_late, 1);
    requester_end();
}

Test(requester, another_sessions_id_is_nobodys)
{
    int data, stolen, backend;

    requester_start(false);
    peer_init(&other, &rig, "b", 101, false);
    peer_up(&other);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    expect_accepted();
    stolen = dial_with_header(&other, 5);
    cr_assert(net_has_ended(stolen));
    cr_assert_eq(rig_counters(&rig, DIALLER).data_unexpected, 1);
    peer_cancel(&other, id);
    data = dial_with_header(&peer, 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    close(stolen);
    peer_down(&other);
    peer_fini(&other);
    requester_end();
}

Test(requester, a_header_before_its_turn_ends_the_connection)
{
    struct data_header header = {.offset = 0};
    int status, data;

    requester_start(false);
    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    data = peer_dial_data(&peer, DATA_FIRST_OTHER, &header, &status);
    cr_assert_eq(status, 0);
    cr_assert(net_has_ended(data));
    close(data);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_unexpected, 1);
    requester_end();
}

/* As a program has that somebody forked and that has not come to its exec yet. */
Test(requester, a_closed_connection_is_heard_of_no_more_though_a_child_has_its_descriptor)
{
    int status, data;
    pid_t child;

    rig.limits.data_warm_per_link = 1;
    requester_start(false);
    data = peer_dial_data(&peer, DATA_FIRST_DIALLER, NULL, &status);
    cr_assert_eq(status, 0);
    RIG_WAIT(&rig, DIALLER, warm, 1);
    child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    peer_down(&peer);
    RIG_WAIT(&rig, DIALLER, warm, 0);
    net_send(data, "late", 4); /* to where nobody listens now */
    rig_settle(rig.sides[DIALLER].forward);
    cr_assert_eq(rig_counters(&rig, DIALLER).served, 0);
    kill(child, SIGKILL);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert(net_has_ended(data));
    close(data);
    peer_up(&peer);
    requester_end();
}

Test(requester, data_needs_a_session_that_its_peer_dialled)
{
    int status, data;

    requester_start(true);
    data = peer_dial_data(&peer, DATA_FIRST_DIALLER, NULL, &status);
    cr_assert_eq(status, STATUS_UNAUTHENTICATED);
    close(data);
    peer_init(&other, &rig, "b", 101, false);
    peer_up(&other);
    memcpy(peer.session_id, other.session_id, SESSION_ID_LEN);
    data = peer_dial_data(&peer, DATA_FIRST_DIALLER, NULL, &status); /* as a, with b's token */
    cr_assert_eq(status, STATUS_UNAUTHENTICATED);
    close(data);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_unexpected, 2);
    peer_down(&other);
    data = peer_dial_data(&other, DATA_FIRST_DIALLER, NULL, &status);
    cr_assert_eq(status, STATUS_UNAUTHENTICATED);
    close(data);
    peer_fini(&other);
    requester_end();
}

Test(requester, a_forward_that_no_honest_peer_sends_is_bad)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");
    const size_t lengths[] = {0, 15, 17};
    uint8_t longer[17] = {0}, garbage[] = {0xff, 0xff, 0xff};
    static uint8_t large[LIMIT_FORWARDS + 1];

    requester_start(false);
    forward.dial_data = true; /* it did not dial */
    peer_forward(&peer, &forward);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        forward = peer_forward_of(longer, "web");
        forward.forward_id.len = lengths[i];
        peer_forward(&peer, &forward);
    }
    cr_assert_eq(rig_counters(&rig, DIALLER).messages_bad, 4);
    for (int kind = 0; kind < 20; kind++)
        cr_assert(forward_message(rig.sides[DIALLER].forward, peer.link, peer.session_id, kind,
                                  garbage, sizeof garbage));
    cr_assert_eq(rig_counters(&rig, DIALLER).messages_bad, 24);
    cr_assert(forward_message(rig.sides[DIALLER].forward, peer.link, peer.session_id,
                              MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS, large, sizeof large));
    cr_assert_eq(rig_counters(&rig, DIALLER).messages_bad, 25);
    cr_assert_not(forward_message(rig.sides[DIALLER].forward, peer.link, id,
                                  MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS, large, 0));
    cr_assert_eq(rig_counters(&rig, DIALLER).forwards_received, 0);
    requester_end();
}
