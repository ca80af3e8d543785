/* Clients of a node whose owners are played by the test: what is tried again, and what never is. */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/peer.h"

#define OWNERS 4

static struct rig rig;
static struct peer owners[OWNERS];
static const char *const ids[OWNERS] = {"a", "b", "c", "e"};

static void setup(void)
{
    rig_init(&rig);
    rig.settings.workers = 1;
    rig.limits.data_warm_per_link = 0;
}

TestSuite(owners, .init = setup, .timeout = 60);

/* All of them offer "web" and "db"; dialled by the node, or not. */
static void start(unsigned n, bool dialled)
{
    rig_start(&rig);
    for (unsigned i = 0; i < n; i++) {
        peer_init(&owners[i], &rig, ids[i], 100 + i, dialled);
        peer_offer(&owners[i], "web");
        peer_offer(&owners[i], "db");
        peer_up(&owners[i]);
    }
}

static void end(unsigned n)
{
    RIG_WAIT(&rig, DIALLER, clients, 0);
    for (unsigned i = 0; i < n; i++) {
        cr_assert_eq(forward_session_pending(rig.sides[DIALLER].forward, owners[i].link), 0);
        cr_assert(peer_heard_nothing(&owners[i]), "%s", owners[i].id);
        peer_down(&owners[i]);
    }
    rig_settle(rig.sides[DIALLER].forward);
    for (unsigned i = 0; i < n; i++)
        peer_fini(&owners[i]);
    rig_end(&rig);
}

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static int ask(void)
{
    int fd = net_connect(rig.sides[DIALLER].port);

    net_send(fd, request, strlen(request));
    return fd;
}

static void is_answered(int client, const char *status, const char *text)
{
    char got[2048];

    net_read_all(client, got, sizeof got);
    cr_assert(strncmp(got + strlen("HTTP/1.1 "), status, 3) == 0, "%s", got);
    cr_assert_neq(strstr(got, text), NULL, "not \"%s\": %s", text, got);
    close(client);
}

/* Which of the first n was asked. */
static struct peer *asked(unsigned n)
{
    for (;; usleep(200))
        for (unsigned i = 0; i < n; i++)
            if (!peer_heard_nothing(&owners[i]))
                return &owners[i];
}

/* The client's request, at the owner's end of the DATA connection. */
static void pass_and_close(int client, int data)
{
    char got[64];

    net_send(data, "hello", 5);
    close(data);
    MUST(net_read_all(client, got, sizeof got) == 5);
    close(client);
}

/* ---- joined ---- */

Test(owners, one_that_was_dialled_is_joined_by_its_header)
{
    struct peer_forward forward;
    int client, data;

    start(1, true);
    client = ask();
    peer_next_forward(&owners[0], &forward);
    cr_assert_eq(forward.n_first, strlen(request));
    cr_assert_arr_eq(forward.first, request, strlen(request));
    cr_assert_str_eq(forward.name, "web");
    cr_assert_not(forward.dial_data);
    data = peer_accept_data(&owners[0]);
    peer_expect_header(data, forward.id, strlen(request));
    peer_say_header(data, forward.id, 0);
    pass_and_close(client, data);
    end(1);
}

Test(owners, one_that_dialled_is_asked_to_dial_data)
{
    struct peer_forward forward;
    struct data_header header = {.offset = 0};
    int client, data, status;

    start(1, false);
    client = ask();
    peer_next_forward(&owners[0], &forward);
    cr_assert(forward.dial_data);
    memcpy(header.forward_id, forward.id, FORWARD_ID_LEN);
    data = peer_dial_data(&owners[0], DATA_FIRST_DIALLER, &header, &status);
    cr_assert_eq(status, 0);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, strlen(request));
    pass_and_close(client, data);
    end(1);
}

Test(owners, what_comes_behind_the_header_reaches_the_client)
{
    struct peer_forward forward;
    struct data_header header = {.offset = 0};
    int client, data, status;

    start(1, false);
    client = net_connect(rig.sides[DIALLER].mapped);
    peer_next_forward(&owners[0], &forward);
    cr_assert_eq(forward.n_first, 0);
    memcpy(header.forward_id, forward.id, FORWARD_ID_LEN);
    data = peer_dial_data(&owners[0], DATA_FIRST_DIALLER, &header, &status);
    net_send(data, "welcome", 7);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, 0);
    net_expect(client, "welcome", 7);
    pass_and_close(client, data);
    end(1);
}

/* The node's own header is written to a connection that is broken already: what is read of it
 * afterwards looks like an end. */
Test(owners, one_that_breaks_off_behind_its_header_does_not_look_like_an_empty_answer)
{
    struct data_header header = {.offset = 0};
    struct peer_forward forward;
    struct stall *stall;
    int client, status;

    start(1, false);
    client = ask();
    peer_next_forward(&owners[0], &forward);
    memcpy(header.forward_id, forward.id, FORWARD_ID_LEN);
    stall = stall_begin(rig.sides[DIALLER].forward, 0);
    net_reset(peer_dial_data(&owners[0], DATA_FIRST_DIALLER, &header, &status));
    trust_unwrapped(); /* so that the node's end is reset, too */
    stall_end(stall);
    peer_next_cancel(&owners[0], forward.id);
    is_answered(client, "502", "the DATA connection broke");
    end(1);
}

/* ---- refusals ---- */

static void refused_with(Meshd__V1__Refusal refusal, const char *status, const char *text)
{
    struct peer_forward forward;
    int client;

    start(1, false);
    client = ask();
    peer_next_forward(&owners[0], &forward);
    peer_reply(&owners[0], forward.id, refusal, "said the owner");
    is_answered(client, status, text);
    end(1);
}

#define REFUSED(test, refusal, status, text)                                                       \
    Test(owners, test) { refused_with(MESHD__V1__REFUSAL__REFUSAL_##refusal, status, text); }

REFUSED(a_refused_backend_is_a_502, BACKEND_REFUSED, "502", "web at a: said the owner")
REFUSED(a_silent_backend_is_a_504, BACKEND_TIMED_OUT, "504", "web at a: said the owner")
REFUSED(a_draining_owner_is_a_503, DRAINING, "503", "every owner is draining")
REFUSED(a_full_owner_is_a_503, OVER_LIMIT, "503", "over a limit")
REFUSED(an_unwilling_owner_is_a_403, NOT_ALLOWED, "403", "the owner does not allow it")
REFUSED(an_owner_that_does_not_know_the_name_is_a_503, NO_SUCH_NAME, "503",
        "no owner of the service is connected")

Test(owners, a_refusal_that_nobody_knows_is_one)
{
    refused_with((Meshd__V1__Refusal)99, "503", "web at a: said the owner");
}

Test(owners, a_refusal_lets_another_be_tried_and_three_at_most)
{
    struct peer_forward forward;
    uint8_t seen[3][FORWARD_ID_LEN];
    struct peer *tried[3];
    int client;

    start(OWNERS, false);
    client = ask();
    for (int i = 0; i < 3; i++) {
        tried[i] = asked(OWNERS);
        peer_next_forward(tried[i], &forward);
        cr_assert_eq(forward.n_first, strlen(request));
        memcpy(seen[i], forward.id, FORWARD_ID_LEN);
        for (int j = 0; j < i; j++) {
            cr_assert_neq(tried[j], tried[i]);
            cr_assert_neq(memcmp(seen[j], seen[i], FORWARD_ID_LEN), 0);
        }
        /* A third of the time for each that is left. */
        cr_assert_leq(forward.remaining_ms, rig.settings.route_ms / 3 * (unsigned)(i + 1) + 10);
        peer_reply(tried[i], forward.id, MESHD__V1__REFUSAL__REFUSAL_OVER_LIMIT, "full");
    }
    is_answered(client, "503", "full");
    cr_assert_eq(rig_counters(&rig, DIALLER).forward_retries, 2);
    end(OWNERS);
}

Test(owners, the_first_that_takes_it_has_it)
{
    struct data_header header = {.offset = 0};
    struct peer_forward forward;
    int client, data, status;
    struct peer *peer;

    start(2, false);
    client = ask();
    peer = asked(2);
    peer_next_forward(peer, &forward);
    peer_reply(peer, forward.id, MESHD__V1__REFUSAL__REFUSAL_DRAINING, "");
    peer = peer == &owners[0] ? &owners[1] : &owners[0];
    peer_next_forward(peer, &forward);
    cr_assert(forward.n_first == strlen(request));
    memcpy(header.forward_id, forward.id, FORWARD_ID_LEN);
    data = peer_dial_data(peer, DATA_FIRST_DIALLER, &header, &status);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, strlen(request));
    pass_and_close(client, data);
    end(2);
}

Test(owners, clients_that_are_being_brought_there_have_a_limit)
{
    struct peer_forward forward;
    int client;

    rig.limits.forwards_pending = 1;
    start(1, false);
    client = ask();
    peer_next_forward(&owners[0], &forward);
    is_answered(ask(), "503", "over limits.forwards_pending");
    net_reset(client);
    peer_next_cancel(&owners[0], forward.id);
    RIG_WAIT(&rig, DIALLER, clients, 0);
    client = ask(); /* there is room again */
    peer_next_forward(&owners[0], &forward);
    net_reset(client);
    peer_next_cancel(&owners[0], forward.id);
    end(1);
}

/* ---- losses ---- */

Test(owners, a_link_that_breaks_answers_at_once_and_what_was_sent_is_not_sent_again)
{
    struct peer_forward forward;
    struct peer *peer;
    int client;

    start(2, false);
    client = ask();
    peer = asked(2);
    peer_next_forward(peer, &forward);
    peer_down(peer);
    is_answered(client, "502", "the link broke");
    end(2);
}

Test(owners, a_link_that_breaks_lets_another_be_tried_if_no_byte_was_sent)
{
    struct data_header header = {.offset = 0};
    struct peer_forward forward;
    int client, data, status;
    struct peer *peer;

    start(2, false);
    client = net_connect(rig.sides[DIALLER].mapped);
    peer = asked(2);
    peer_next_forward(peer, &forward);
    peer_down(peer);
    peer = peer == &owners[0] ? &owners[1] : &owners[0];
    peer_next_forward(peer, &forward);
    memcpy(header.forward_id, forward.id, FORWARD_ID_LEN);
    data = peer_dial_data(peer, DATA_FIRST_DIALLER, &header, &status);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, 0);
    pass_and_close(client, data);
    end(2);
}

Test(owners, an_owner_that_gives_up_after_bytes_were_sent_is_a_502)
{
    struct peer_forward forward;
    struct peer *peer;
    int client;

    start(2, false);
    client = ask();
    peer = asked(2);
    peer_next_forward(peer, &forward);
    peer_cancel(peer, forward.id);
    is_answered(client, "502", "the owner gave up");
    end(2);
}

static void silent_owner(uint16_t port, bool http)
{
    struct peer_forward forward;
    struct peer *peer;
    int client;

    rig.settings.route_ms = 1600;
    start(2, false);
    client = net_connect(http ? rig.sides[DIALLER].port : rig.sides[DIALLER].mapped);
    if (http)
        net_send(client, request, strlen(request));
    peer = asked(2);
    peer_next_forward(peer, &forward);
    cr_assert_leq(forward.remaining_ms, 800);
    peer_next_cancel(peer, forward.id);
    if (http) {
        is_answered(client, "504", "no answer in time");
    } else {
        peer = peer == &owners[0] ? &owners[1] : &owners[0];
        peer_next_forward(peer, &forward);
        peer_next_cancel(peer, forward.id);
        cr_assert(net_has_ended(client));
        close(client);
    }
    end(2);
}

Test(owners, silence_after_bytes_were_sent_is_a_504) { silent_owner(0, true); }

Test(owners, silence_lets_another_be_tried_if_no_byte_was_sent) { silent_owner(0, false); }

Test(owners, a_client_that_gives_up_is_cancelled)
{
    struct peer_forward forward;
    int client, data;

    start(1, true);
    client = ask();
    peer_next_forward(&owners[0], &forward);
    data = peer_accept_data(&owners[0]);
    peer_expect_header(data, forward.id, strlen(request));
    net_reset(client);
    peer_next_cancel(&owners[0], forward.id);
    cr_assert(net_has_ended(data));
    close(data);
    end(1);
}

Test(owners, an_answer_after_the_end_is_for_nobody)
{
    struct data_header header = {.offset = 0};
    struct peer_forward forward;
    int client, data, status;

    start(1, false);
    client = ask();
    peer_next_forward(&owners[0], &forward);
    net_reset(client);
    peer_next_cancel(&owners[0], forward.id);
    peer_reply(&owners[0], forward.id, MESHD__V1__REFUSAL__REFUSAL_NONE, "");
    peer_cancel(&owners[0], forward.id);
    memcpy(header.forward_id, forward.id, FORWARD_ID_LEN);
    data = peer_dial_data(&owners[0], DATA_FIRST_DIALLER, &header, &status);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1); /* for a Forward of the owner's own */
    peer_down(&owners[0]);
    cr_assert(net_has_ended(data));
    close(data);
    end(1);
}

Test(owners, a_mesh_port_that_refuses_data_is_a_502)
{
    struct peer_forward forward;
    int client;

    start(1, true);
    close(owners[0].fd);
    client = ask();
    is_answered(client, "502", "web at a: ");
    if (!peer_heard_nothing(&owners[0])) {
        peer_next_forward(&owners[0], &forward);
        peer_next_cancel(&owners[0], forward.id);
    }
    owners[0].fd = net_listen_at(&owners[0].at);
    end(1);
}

/* Where nobody listens a dial may meet itself, and reads what it has said. */
Test(owners, a_data_connection_that_hears_its_own_words_is_a_502)
{
    struct peer_forward forward;
    uint8_t words[4096]; /* all of them: a ClientHello is longer than a preamble */
    int client, data;
    ssize_t n;

    start(1, true);
    client = ask();
    data = net_accept(owners[0].fd);
    n = recv(data, words, sizeof words, 0);
    cr_assert_gt(n, 0);
    net_send(data, words, (size_t)n);
    is_answered(client, "502", "web at a: ");
    if (!peer_heard_nothing(&owners[0])) { /* a handshake may fail before the Forward leaves */
        peer_next_forward(&owners[0], &forward);
        peer_next_cancel(&owners[0], forward.id);
    }
    cr_assert(net_has_ended(data));
    close(data);
    end(1);
}

static void unsendable(int error, const char *text)
{
    int client;

    start(2, false);
    atomic_store(&rig.refuse, error);
    client = ask();
    is_answered(client, "503", text);
    cr_assert_eq(rig_counters(&rig, DIALLER).forward_retries, 1);
    atomic_store(&rig.refuse, 0);
    end(2);
}

Test(owners, a_full_queue_of_a_link_lets_another_be_tried)
{
    unsendable(-EAGAIN, "the link's queue is full");
}

Test(owners, a_link_that_is_gone_lets_another_be_tried) { unsendable(-EPIPE, "the link is gone"); }
