/* A node whose clients come from a peer that the test plays, which knows the rules and breaks them.
 */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/random.h"
#include "forward/must.h"
#include "forward/owner.h"
#include "forward/peer.h"
#include "wire/status.h"

static struct rig rig;
static struct peer peer, other;
static int backend_fd;
static uint8_t id[FORWARD_ID_LEN];

static void setup(void)
{
    rig_init(&rig);
    rig.settings.workers = 1;
    rig.limits.data_warm_per_link = 0;
    rig.settings.open_ms = 400;
    random_bytes(id, sizeof id);
}

TestSuite(requester, .init = setup, .timeout = 60);

/* A node with a service "web"; the peer dialled it, or was dialled. */
static void start(bool dialled)
{
    char addr[32];

    backend_fd = net_listen(addr);
    rig_start(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    peer_init(&peer, &rig, "a", 100, dialled);
    peer_up(&peer);
}

static void end(void)
{
    RIG_WAIT(&rig, DIALLER, served, 0);
    cr_assert_eq(forward_session_pending(rig.sides[DIALLER].forward, peer.link), 0);
    cr_assert(peer_heard_nothing(&peer));
    peer_down(&peer);
    rig_settle(rig.sides[DIALLER].forward);
    cr_assert(net_nobody_comes(backend_fd));
    peer_fini(&peer);
    close(backend_fd);
    rig_end(&rig);
}

static void forward_with(const char *first, size_t len, bool dial_data)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");

    forward.first_bytes = (ProtobufCBinaryData){.len = len, .data = (uint8_t *)first};
    forward.dial_data = dial_data;
    peer_forward(&peer, &forward);
}

static int dial_with_header(struct peer *from, uint64_t offset)
{
    struct data_header header = {.offset = offset};
    int status, data;

    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    data = peer_dial_data(from, DATA_FIRST_DIALLER, &header, &status);
    cr_assert_eq(status, 0);
    return data;
}

static void expect_accepted(void)
{
    char text[LIMIT_STATUS_TEXT + 1];

    cr_assert_eq(peer_next_reply(&peer, id, text), MESHD__V1__REFUSAL__REFUSAL_NONE, "%s", text);
}

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

    start(false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    expect_accepted();
    data = dial_with_header(&peer, 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    end();
}

Test(requester, data_may_come_before_its_forward)
{
    int data, backend;

    start(false);
    data = dial_with_header(&peer, 5);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_waiting, 0);
    end();
}

Test(requester, of_two_data_connections_the_younger_is_taken)
{
    int first, data, backend;

    start(false);
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
    end();
}

Test(requester, a_younger_data_connection_replaces_one_whose_forward_has_just_come)
{
    int first, data, backend;
    struct stall *stall;

    start(false);
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
    end();
}

Test(requester, a_side_that_was_dialled_has_data_dialled_for_it)
{
    int data, backend;

    start(true);
    forward_with("first", 5, true);
    data = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    net_expect(backend, "first", 5);
    peer_expect_header(data, id, 0);
    peer_say_header(data, id, 5);
    pass_and_close(data, backend);
    end();
}

Test(requester, a_second_forward_has_data_dialled_once_more)
{
    int lost, data, backend;

    start(true);
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
    end();
}

Test(requester, a_side_that_was_dialled_claims_a_warm_connection)
{
    int data, backend;

    rig.limits.data_warm_per_link = 1;
    start(true);
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
    end();
}

Test(requester, what_came_behind_the_header_follows_the_first_bytes)
{
    int data, backend;

    start(false);
    data = dial_with_header(&peer, 5);
    net_send(data, "more", 4);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    net_expect(backend, "firstmore", 9);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    pass_and_close(data, backend);
    end();
}

/* ---- rules that are broken ---- */

Test(requester, one_id_is_joined_once)
{
    int data, backend;

    start(false);
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
    end();
}

Test(requester, a_wrong_offset_ends_it)
{
    int data, backend;

    start(false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    data = dial_with_header(&peer, 4);
    cr_assert(net_is_reset(backend));
    cr_assert(net_has_ended(data));
    close(data);
    close(backend);
    cr_assert_eq(rig_counters(&rig, DIALLER).messages_bad, 1);
    end();
}

Test(requester, a_guessed_id_waits_in_vain)
{
    int data;

    start(false);
    data = dial_with_header(&peer, 0);
    cr_assert(net_has_ended(data));
    close(data);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_late, 1);
    end();
}

Test(requester, another_sessions_id_is_nobodys)
{
    int data, stolen, backend;

    start(false);
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
    end();
}

Test(requester, a_header_before_its_turn_ends_the_connection)
{
    struct data_header header = {.offset = 0};
    int status, data;

    start(false);
    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    data = peer_dial_data(&peer, DATA_FIRST_OTHER, &header, &status);
    cr_assert_eq(status, 0);
    cr_assert(net_has_ended(data));
    close(data);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_unexpected, 1);
    end();
}

Test(requester, data_needs_a_session_that_its_peer_dialled)
{
    int status, data;

    start(true);
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
    end();
}

Test(requester, a_forward_that_no_honest_peer_sends_is_bad)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");
    const size_t lengths[] = {0, 15, 17};
    uint8_t longer[17] = {0}, garbage[] = {0xff, 0xff, 0xff};
    static uint8_t large[LIMIT_FORWARDS + 1];

    start(false);
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
    end();
}

/* ---- refusals ---- */

static void is_refused(Meshd__V1__Refusal refusal, const char *why)
{
    char text[LIMIT_STATUS_TEXT + 1];

    cr_assert_eq(peer_next_reply(&peer, id, text), refusal, "%s", text);
    cr_assert_str_eq(text, why);
}

#define IS_REFUSED(refusal, why) is_refused(MESHD__V1__REFUSAL__REFUSAL_##refusal, why)

static void makes_no_sense(Meshd__V1__Forward *forward)
{
    peer_forward(&peer, forward);
    IS_REFUSED(NOT_ALLOWED, "a Forward that makes no sense");
}

Test(requester, a_forward_that_makes_no_sense_is_refused)
{
    static const char *const names[] = {"WEB", "", "web.", "a..b", "web:80", "127.0.0.1"};
    static uint8_t large[LIMIT_FIRST_BYTES + 1];
    Meshd__V1__Forward forward;

    start(false);
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
    end();
}

Test(requester, a_name_that_is_not_registered_here_is_refused)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "other");
    int data;

    start(false);
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
    end();
}

/* Nothing is passed on: two that have it of each other would pass it round for ever. */
Test(requester, a_name_that_only_a_peer_offers_is_refused)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "other");

    start(false);
    peer_init(&other, &rig, "b", 101, false);
    peer_offer(&other, "other");
    peer_up(&other);
    peer_offer(&peer, "other"); /* as does the one that asks */
    peer_forward(&peer, &forward);
    IS_REFUSED(NO_SUCH_NAME, "not registered here any more");
    cr_assert(peer_heard_nothing(&other));
    peer_down(&other);
    peer_fini(&other);
    end();
}

Test(requester, a_backend_that_refuses_is_a_refusal)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "gone");
    char addr[32];

    start(false);
    close(net_listen(addr));
    rig_offer(&rig, DIALLER, "gone", addr);
    peer_forward(&peer, &forward);
    IS_REFUSED(BACKEND_REFUSED, "Connection refused");
    end();
}

Test(requester, a_silent_backend_is_refused_in_time)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "hole");
    int fds[8], listener;
    struct sockaddr_in at;
    char addr[32];

    start(false);
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
    end();
}

static bool refuses(void *forward) { return forward_refuses(forward); }

Test(requester, a_node_that_drains_serves_what_was_on_its_way_and_refuses_what_comes_later)
{
    struct forward *forward;
    int backend;

    start(false);
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
    end();
}

Test(requester, forwards_of_one_service_have_a_limit)
{
    uint8_t first[FORWARD_ID_LEN];
    int backend;

    rig.limits.forwards_per_service = 1;
    start(false);
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
    end();
}

Test(requester, pending_forwards_have_a_limit)
{
    uint8_t first[FORWARD_ID_LEN];
    int backend;

    rig.limits.forwards_pending = 1;
    start(false);
    forward_with("", 0, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    memcpy(first, id, sizeof id);
    id[0]++;
    forward_with("", 0, false);
    IS_REFUSED(OVER_LIMIT, "over limits.forwards_pending");
    peer_cancel(&peer, first);
    close(backend);
    end();
}

/* ---- ends before it is joined ---- */

Test(requester, a_cancel_resets_the_backend)
{
    int backend, data;

    start(false);
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
    end();
}

Test(requester, a_cancel_is_no_end_in_order_for_who_was_told_that_it_is_joined)
{
    int backend, data;

    start(true);
    forward_with("first", 5, true);
    data = peer_accept_data(&peer);
    backend = net_accept(backend_fd);
    peer_expect_header(data, id, 0);
    peer_cancel(&peer, id);
    cr_assert(net_is_reset(data));
    close(data);
    close(backend);
    end();
}

Test(requester, the_end_of_the_session_resets_the_backend)
{
    int backend;

    start(false);
    forward_with("first", 5, false);
    backend = net_accept(backend_fd);
    expect_accepted();
    peer_down(&peer);
    cr_assert(net_is_reset(backend));
    close(backend);
    end();
}

Test(requester, nobody_who_comes_for_it_ends_it_in_time)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");
    int backend;

    start(false);
    forward.remaining_ms = 200;
    peer_forward(&peer, &forward);
    backend = net_accept(backend_fd);
    expect_accepted();
    cr_assert(net_is_reset(backend));
    close(backend);
    end();
}

Test(requester, a_forward_that_is_read_after_its_session_has_ended_dials_nobody)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");
    struct session *session;

    start(false);
    session = session_by_link(rig.sides[DIALLER].forward, peer.link, peer.session_id);
    peer_down(&peer);
    rig_settle(rig.sides[DIALLER].forward);
    owner_forward(session, &forward);
    RIG_WAIT(&rig, DIALLER, served, 0);
    session_unref(session);
    end();
}

Test(requester, a_forward_whose_data_cannot_be_dialled_is_given_up)
{
    int backend;

    start(true);
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
    end();
}
