/* DATA connections that were opened ahead of need and died, noticed or not. */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/peer.h"

static struct rig rig;
static struct peer owner;

static void setup(void)
{
    rig_init(&rig);
    rig.settings.workers = 1;
}

TestSuite(warm, .init = setup, .timeout = 60);

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static int ask(enum side side)
{
    int fd = net_connect(rig.sides[side].port);

    net_send(fd, request, strlen(request));
    return fd;
}

static void answer_and_close(int client, int backend)
{
    char got[64];

    net_send(backend, "hello", 5);
    close(backend);
    MUST(net_read_all(client, got, sizeof got) == 5);
    close(client);
}

/* ---- between two nodes, with something between them that forgets ---- */

static bool is_warm(void *arg) { return rig_counters(&rig, *(enum side *)arg).warm > 0; }

static void one_more(enum side from, int listener)
{
    int client = ask(from), backend = net_accept(listener);

    net_expect(backend, request, strlen(request));
    answer_and_close(client, backend);
    RIG_WAIT(&rig, DIALLER, relayed, 0);
    RIG_WAIT(&rig, LISTENER, relayed, 0);
}

/* Not by how many were ever dialled: one that ends on its way never arrives. */
static bool all_have_arrived(void *arg)
{
    return rig_counters(&rig, DIALLER).warm == rig_counters(&rig, LISTENER).warm;
}

static void forgotten(enum side from)
{
    char addr[32];
    int listener = net_listen(addr);

    rig.through_middle = true;
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, !from, "web", addr);
    one_more(from, listener);
    if (from == LISTENER) {
        forward_data_wish(rig.sides[DIALLER].forward, 7, 2);
        rig_settle(rig.sides[DIALLER].forward); /* both are on their way, not just the first */
    }
    wait_until(is_warm, &from);
    wait_until(all_have_arrived, NULL);
    rig_forget_data(&rig);
    for (int i = 0; i < 3; i++) { /* the last one finds none, for the node that dials has some */
        one_more(from, listener);
        cr_assert(net_nobody_comes(listener), "the backend had it twice");
    }
    cr_assert_geq(rig_counters(&rig, from).data_dead, 1);
    close(listener);
    rig_end(&rig);
}

Test(warm, forgotten_ones_of_the_dialler_cost_its_clients_nothing_but_a_moment)
{
    forgotten(DIALLER);
}

Test(warm, forgotten_ones_of_the_listener_cost_its_clients_nothing_but_a_moment)
{
    forgotten(LISTENER);
}

static void broken(enum side from)
{
    char addr[32];
    int listener = net_listen(addr);

    rig.through_middle = true;
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, !from, "web", addr);
    for (int i = 0; i < 10; i++) {
        one_more(from, listener);
        forward_data_wish(rig.sides[DIALLER].forward, 7,
                          forward_data_wanted(rig.sides[LISTENER].forward, 7));
        wait_until(is_warm, &from);
        wait_until(all_have_arrived, NULL);
        rig_break_data(&rig);
        one_more(from, listener);
        cr_assert(net_nobody_comes(listener), "the backend had it twice");
    }
    close(listener);
    rig_end(&rig);
}

Test(warm, broken_ones_of_the_dialler_cost_its_clients_nothing) { broken(DIALLER); }

Test(warm, broken_ones_of_the_listener_cost_its_clients_nothing) { broken(LISTENER); }

/* ---- with an owner that the test plays ---- */

static void start(bool dialled)
{
    rig_start(&rig);
    peer_init(&owner, &rig, "a", 100, dialled);
    peer_offer(&owner, "web");
    peer_up(&owner);
}

static void end(void)
{
    RIG_WAIT(&rig, DIALLER, clients, 0);
    cr_assert_eq(forward_session_pending(rig.sides[DIALLER].forward, owner.link), 0);
    cr_assert(peer_heard_nothing(&owner));
    peer_down(&owner);
    rig_settle(rig.sides[DIALLER].forward);
    peer_fini(&owner);
    rig_end(&rig);
}

/* The owner dialled: one that waits at the node for a client. */
static int park(void)
{
    int status, data = peer_dial_data(&owner, DATA_FIRST_OTHER, NULL, &status);

    cr_assert_eq(status, 0);
    RIG_WAIT(&rig, DIALLER, warm, 1);
    RIG_WAIT(&rig, DIALLER, largest_warm, 1);
    return data;
}

static int dial_again(const uint8_t *id)
{
    struct data_header header = {.offset = 0};
    int status, data;

    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    data = peer_dial_data(&owner, DATA_FIRST_DIALLER, &header, &status);
    cr_assert_eq(status, 0);
    peer_expect_answer(data);
    peer_expect_header(data, id, strlen(request));
    return data;
}

Test(warm, one_that_is_claimed_needs_no_more_words)
{
    struct peer_forward forward;
    int client, data;

    start(false);
    data = park();
    client = ask(DIALLER);
    peer_next_forward(&owner, &forward);
    cr_assert_not(forward.dial_data);
    cr_expect_eq(rig_counters(&rig, DIALLER).largest_warm, 0);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, strlen(request));
    peer_say_header(data, forward.id, 0);
    answer_and_close(client, data);
    end();
}

static void expect_the_same_without_bytes(const struct peer_forward *first)
{
    struct peer_forward again;

    peer_next_forward(&owner, &again);
    cr_assert_arr_eq(again.id, first->id, FORWARD_ID_LEN);
    cr_assert_eq(again.n_first, 0);
    cr_assert(again.dial_data);
    cr_assert_leq(again.remaining_ms, first->remaining_ms);
}

Test(warm, one_that_breaks_when_it_is_claimed_is_replaced_by_the_owner_once)
{
    struct peer_forward forward;
    int client, data;

    start(false);
    data = park();
    client = ask(DIALLER);
    peer_next_forward(&owner, &forward);
    net_reset(data);
    expect_the_same_without_bytes(&forward);
    data = dial_again(forward.id);
    answer_and_close(client, data);
    end();
}

Test(warm, one_that_the_owner_does_not_hear_of_is_replaced_by_the_owner_once)
{
    struct peer_forward forward;
    int client, lost, data;

    start(false);
    lost = park();
    client = ask(DIALLER);
    peer_next_forward(&owner, &forward);
    peer_reply(&owner, forward.id, MESHD__V1__REFUSAL__REFUSAL_NONE, "");
    expect_the_same_without_bytes(&forward);
    data = dial_again(forward.id);
    cr_assert(net_has_ended(lost));
    answer_and_close(client, data);
    close(lost);
    end();
}

Test(warm, one_that_the_owner_hears_of_late_is_joined_all_the_same)
{
    struct peer_forward forward;
    int client, data;

    start(false);
    data = park();
    client = ask(DIALLER);
    peer_next_forward(&owner, &forward);
    peer_reply(&owner, forward.id, MESHD__V1__REFUSAL__REFUSAL_NONE, "");
    expect_the_same_without_bytes(&forward);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, strlen(request));
    peer_say_header(data, forward.id, 0);
    answer_and_close(client, data);
    end();
}

/* Then what the owner says of the second question is about an id that is joined. */
Test(warm, one_that_the_owner_hears_of_late_is_joined_though_it_gives_up_the_other)
{
    struct peer_forward forward;
    int client, data;

    start(false);
    data = park();
    client = ask(DIALLER);
    peer_next_forward(&owner, &forward);
    peer_reply(&owner, forward.id, MESHD__V1__REFUSAL__REFUSAL_NONE, "");
    expect_the_same_without_bytes(&forward);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, strlen(request));
    peer_cancel(&owner, forward.id);
    rig_settle(rig.sides[DIALLER].forward);
    peer_say_header(data, forward.id, 0);
    answer_and_close(client, data);
    end();
}

/* The owner opens another one before it is asked to: what asks for it must not leave any more. */
Test(warm, one_that_breaks_and_is_replaced_in_the_same_moment_is_not_asked_for)
{
    struct data_header header = {.offset = 0};
    struct peer_forward forward;
    struct stall *stall;
    int client, data, status;

    start(false);
    data = park();
    client = ask(DIALLER);
    peer_next_forward(&owner, &forward);
    memcpy(header.forward_id, forward.id, FORWARD_ID_LEN);
    stall = stall_begin(rig.sides[DIALLER].forward, 0);
    net_reset(data);
    data = peer_dial_data(&owner, DATA_FIRST_DIALLER, &header, &status);
    cr_assert_eq(status, 0);
    stall_end(stall);
    peer_expect_answer(data);
    peer_expect_header(data, forward.id, strlen(request));
    answer_and_close(client, data);
    end();
}

Test(warm, the_second_loss_is_told)
{
    struct peer_forward forward;
    char got[1024];
    int client, data;

    start(true);
    rig_settle(rig.sides[DIALLER].forward);
    client = ask(DIALLER); /* dials, and makes the pool grow */
    peer_next_forward(&owner, &forward);
    data = peer_accept_data(&owner);
    peer_expect_header(data, forward.id, strlen(request));
    net_reset(data);
    peer_next_cancel(&owner, forward.id);
    net_read_all(client, got, sizeof got);
    cr_assert(strncmp(got, "HTTP/1.1 502", 12) == 0);
    cr_assert_neq(strstr(got, "the DATA connection broke"), NULL);
    close(client);
    end();
}

Test(warm, a_loss_costs_no_more_time_than_the_forward_had)
{
    struct peer_forward forward;
    char got[1024];
    int client, data;

    rig.settings.route_ms = 60000;
    rig.settings.open_ms = 1500;
    start(false);
    data = park();
    client = ask(DIALLER);
    peer_next_forward(&owner, &forward);
    net_reset(data);
    expect_the_same_without_bytes(&forward);
    peer_next_cancel(&owner, forward.id);
    net_read_all(client, got, sizeof got);
    cr_assert(strncmp(got, "HTTP/1.1 504", 12) == 0);
    cr_assert_eq(rig_counters(&rig, DIALLER).ends[FORWARD_OWNER_SILENT], 1);
    close(client);
    end();
}
