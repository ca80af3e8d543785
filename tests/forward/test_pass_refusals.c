/* A node that does not serve what a peer asks of it, or not to the end. */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/owner.h"
#include "forward/requester.h"

TestSuite(refusals, .init = requester_setup, .timeout = 60);

/* ---- refusals ---- */

static void is_refused(Meshd__V1__Refusal refusal, const char *why)
{
    char text[LIMIT_STATUS_TEXT + 1];

    cr_assert_eq(peer_next_reply(&peer, id, text), (int)refusal, "%s", text);
    cr_assert_str_eq(text, why);
}

#define IS_REFUSED(refusal, why) is_refused(MESHD__V1__REFUSAL__REFUSAL_##refusal, why)

static void makes_no_sense(Meshd__V1__Forward *forward)
{
    peer_forward(&peer, forward);
    IS_REFUSED(NOT_ALLOWED, "a Forward that makes no sense");
}

Test(refusals, a_forward_that_makes_no_sense_is_refused)
{
    static const char *const names[] = {"WEB", "", "web.", "a..b", "web:80", "127.0.0.1"};
    static uint8_t large[LIMIT_FIRST_BYTES + 1];
    Meshd__V1__Forward forward;

    requester_start(false);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        forward = peer_forward_of(id, names[i]);
        makes_no_sense(&forward);
    }
    forward = peer_forward_of(id, "web");
    forward.remaining_ms = 0;
    makes_no_sense(&forward);
    forward.remaining_ms = 600001;
    makes_no_sense(&forward);
    forward = peer_forward_of(id, "web");
    forward.client_ip.len = 3;
    makes_no_sense(&forward);
    forward = peer_forward_of(id, "web");
    forward.server_port = 65536;
    makes_no_sense(&forward);
    forward = peer_forward_of(id, "web");
    forward.first_bytes = (ProtobufCBinaryData){.len = sizeof large, .data = large};
    makes_no_sense(&forward);
    requester_end();
}

Test(refusals, a_name_that_is_not_registered_here_is_refused)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "other");
    int data;

    requester_start(false);
    data = dial_with_header(&peer, 0);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    peer_forward(&peer, &forward);
    IS_REFUSED(NO_SUCH_NAME, "not registered here any more");
    close(data);
    id[0]++; /* none is used again */
    forward = peer_forward_of(id, "web");
    rig_withdraw(&rig, DIALLER);
    peer_forward(&peer, &forward);
    IS_REFUSED(NO_SUCH_NAME, "not registered here any more");
    requester_end();
}

/* Nothing is passed on: two that have it of each other would pass it round for ever. */
Test(refusals, a_name_that_only_a_peer_offers_is_refused)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "other");
    struct peer other;

    requester_start(false);
    peer_init(&other, &rig, "b", 101, false);
    peer_offer(&other, "other");
    peer_up(&other);
    peer_offer(&peer, "other"); /* as does the one that asks */
    peer_forward(&peer, &forward);
    IS_REFUSED(NO_SUCH_NAME, "not registered here any more");
    cr_assert(peer_heard_nothing(&other));
    peer_down(&other);
    peer_fini(&other);
    requester_end();
}

Test(refusals, a_backend_that_refuses_is_a_refusal)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "gone");
    char addr[32];
    int refusing;

    requester_start(false);
    refusing = net_refuse(addr);
    rig_offer(&rig, DIALLER, "gone", addr);
    peer_forward(&peer, &forward);
    IS_REFUSED(BACKEND_REFUSED, "Connection refused");
    close(refusing);
    requester_end();
}

Test(refusals, a_silent_backend_is_refused_in_time)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "hole");
    int fds[8], listener;
    struct sockaddr_in at;
    char addr[32];

    requester_start(false);
    listener = net_listen_at(&at);
    listen(listener, 0);
    for (size_t i = 0; i < 8; i++) { /* until there is no room for another */
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fds[i], (struct sockaddr *)&at, sizeof at);
    }
    snprintf(addr, sizeof addr, "127.0.0.1:%u", ntohs(at.sin_port));
    rig_offer(&rig, DIALLER, "hole", addr);
    forward.remaining_ms = 400;
    peer_forward(&peer, &forward);
    IS_REFUSED(BACKEND_TIMED_OUT, "Connection timed out");
    for (size_t i = 0; i < 8; i++)
        close(fds[i]);
    close(listener);
    requester_end();
}

static bool refuses(void *forward) { return forward_refuses(forward); }

Test(refusals, a_node_that_drains_serves_what_was_on_its_way_and_refuses_what_comes_later)
{
    struct forward *forward;
    int backend;

    requester_start(false);
    forward = rig.sides[DIALLER].forward;
    forward_drain(forward);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    peer_cancel(&peer, id);
    cr_assert(net_is_reset(backend));
    close(backend);
    wait_until(refuses, forward);
    id[0]++;
    forward_with("first", 5, false);
    IS_REFUSED(DRAINING, "the node is about to leave");
    requester_end();
}

Test(refusals, forwards_of_one_service_have_a_limit)
{
    uint8_t first[FORWARD_ID_LEN];
    int backend;

    rig.limits.forwards_per_service = 1;
    requester_start(false);
    forward_with("", 0, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    memcpy(first, id, sizeof id);
    id[0]++;
    forward_with("", 0, false);
    IS_REFUSED(OVER_LIMIT, "over limits.forwards_per_service");
    peer_cancel(&peer, first);
    cr_assert(net_is_reset(backend));
    close(backend);
    RIG_WAIT(&rig, DIALLER, served, 0);
    forward_with("", 0, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    peer_cancel(&peer, id);
    close(backend);
    requester_end();
}

Test(refusals, pending_forwards_have_a_limit)
{
    uint8_t first[FORWARD_ID_LEN];
    int backend;

    rig.limits.forwards_pending = 1;
    requester_start(false);
    forward_with("", 0, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    memcpy(first, id, sizeof id);
    id[0]++;
    forward_with("", 0, false);
    IS_REFUSED(OVER_LIMIT, "over limits.forwards_pending");
    peer_cancel(&peer, first);
    close(backend);
    requester_end();
}

/* ---- ends before it is joined ---- */

Test(refusals, a_cancel_resets_the_backend)
{
    int backend, data;

    rig.settings.open_ms = 1000;
    requester_start(false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    peer_cancel(&peer, id);
    cr_assert(net_is_reset(backend));
    RIG_WAIT(&rig, DIALLER, served, 0);
    data = dial_with_header(&peer, 5); /* comes too late */
    cr_assert(net_has_ended(data));
    close(data);
    close(backend);
    requester_end();
}

Test(refusals, a_cancel_is_no_end_in_order_for_who_was_told_that_it_is_joined)
{
    int backend, data;

    requester_start(true);
    forward_with("first", 5, true);
    data = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    peer_expect_header(data, id, 0);
    peer_cancel(&peer, id);
    cr_assert(net_is_reset(data));
    close(data);
    close(backend);
    requester_end();
}

Test(refusals, the_end_of_the_session_resets_the_backend)
{
    int backend;

    requester_start(false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    peer_down(&peer);
    cr_assert(net_is_reset(backend));
    close(backend);
    requester_end();
}

Test(refusals, nobody_who_comes_for_it_ends_it_in_time)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");
    int backend;

    requester_start(false);
    forward.remaining_ms = 1000;
    peer_forward(&peer, &forward);
    backend = net_accept(backend_fd);
    expect_accepted();
    cr_assert(net_is_reset(backend));
    close(backend);
    requester_end();
}

Test(refusals, a_forward_that_is_read_after_its_session_has_ended_dials_nobody)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");
    struct session *session;

    requester_start(false);
    session = session_by_link(rig.sides[DIALLER].forward, peer.link, peer.session_id);
    peer_down(&peer);
    rig_settle(rig.sides[DIALLER].forward);
    owner_forward(session, &forward);
    RIG_WAIT(&rig, DIALLER, served, 0);
    session_unref(session);
    requester_end();
}

Test(refusals, a_forward_whose_data_cannot_be_dialled_is_given_up)
{
    int backend;

    requester_start(true);
    close(peer.fd);
    forward_with("first", 5, true);
    peer_next_cancel(&peer, id);
    RIG_WAIT(&rig, DIALLER, served, 0);
    peer.fd = net_listen_at(&peer.at);
    while (!net_nobody_comes(backend_fd)) { /* it may have been connected meanwhile */
        backend = net_accept(backend_fd);
        cr_assert(net_has_ended(backend));
        close(backend);
    }
    requester_end();
}

/* What ends the first of two Forwards with one id, said twice, is read when the second is known but
 * has not begun. */
Test(refusals, a_cancel_said_twice_ends_the_next_forward_of_that_id)
{
    struct forward *forward;
    struct stall *first, *second;

    requester_start(false);
    forward = rig.sides[DIALLER].forward;
    first = stall_begin(forward, 0);
    forward_with("", 0, false);
    peer_cancel(&peer, id);
    second = stall_post(forward, 0);
    peer_cancel(&peer, id);
    stall_end(first);
    stall_wait(second);
    close(net_accept(backend_fd));
    forward_with("", 0, false);
    stall_end(second);
    requester_end();
}

Test(refusals, an_id_asked_for_twice_dials_data_for_the_next_forward_of_it_once)
{
    struct forward *forward;
    struct stall *first, *second;
    int data, backend;

    requester_start(true);
    forward = rig.sides[DIALLER].forward;
    first = stall_begin(forward, 0);
    forward_with("", 0, true);
    peer_cancel(&peer, id);
    second = stall_post(forward, 0);
    forward_with("", 0, true);
    stall_end(first);
    stall_wait(second);
    close(net_accept(backend_fd));
    close(net_accept(peer.fd));
    forward_with("", 0, true);
    stall_end(second);
    data = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    peer_expect_header(data, id, 0);
    peer_say_header(data, id, 0);
    close(data);
    cr_assert(net_has_ended(backend));
    close(backend);
    cr_assert(net_nobody_comes(peer.fd));
    requester_end();
}
