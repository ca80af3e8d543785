/* What is told of forwards at their end: by which node, of which end, and with which words. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/inside.h"
#include "forward/peer.h"
#include "forward/record_rig.h"

TestSuite(record, .init = record_setup, .timeout = 60);

static uint16_t port_of(const struct sockaddr_storage *at)
{
    return ntohs(((const struct sockaddr_in *)at)->sin_port);
}

static void came_from(const struct kept *one, int client, enum side side)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;

    cr_assert_eq(getsockname(client, (struct sockaddr *)&at, &len), 0);
    cr_expect_eq(one->record.client.ss_family, AF_INET);
    cr_expect(memcmp(&((const struct sockaddr_in *)&one->record.client)->sin_addr, &at.sin_addr,
                     sizeof at.sin_addr) == 0);
    cr_expect_eq(port_of(&one->record.client), ntohs(at.sin_port));
    cr_expect_eq(port_of(&one->record.port), rig.sides[side].port);
}

/* One that is well; the client is left open. */
static int carry_one(enum side from)
{
    char got[64];
    int client = record_ask(from), backend = net_accept(listener);

    net_expect(backend, record_request, strlen(record_request));
    net_send(backend, "hello", 5);
    close(backend);
    cr_assert_eq(net_read_all(client, got, sizeof got), 5);
    shutdown(client, SHUT_WR);
    return client;
}

/* ---- what it says ---- */

Test(record, one_hop_is_told_once_with_both_ends_and_an_id_of_its_own)
{
    uint8_t first[FORWARD_ID_LEN], none[FORWARD_ID_LEN] = {0};
    struct kept *one;
    int client;

    record_start(DIALLER);
    client = carry_one(DIALLER);
    one = record_of(1, false);
    cr_expect_eq(one->record.end, FORWARD_DONE);
    cr_expect_str_eq(one->name, "web");
    cr_expect_str_eq(one->peer_id, "");
    cr_expect_str_eq(one->backend, addr);
    cr_expect_str_eq(one->text, "");
    cr_expect_eq(one->record.bytes_up, strlen(record_request));
    cr_expect_eq(one->record.bytes_down, 5);
    cr_expect_gt(one->record.name_us, 0);
    record_times_fit(&one->record);
    came_from(one, client, DIALLER);
    close(client);
    memcpy(first, one->record.id, sizeof first);
    cr_expect(memcmp(first, none, sizeof none) != 0);
    n_kept = 0;
    close(carry_one(DIALLER));
    cr_expect(memcmp(record_of(1, false)->record.id, first, sizeof first) != 0);
    record_finish();
}

static void both_hops(enum side from)
{
    const struct kept *one, *other;
    int client;

    record_start(!from);
    client = carry_one(from);
    one = record_of(2, false);
    other = record_of(2, true);
    cr_expect(memcmp(one->record.id, other->record.id, FORWARD_ID_LEN) == 0);
    cr_expect_str_eq(one->name, "web");
    cr_expect_str_eq(other->name, "web");
    cr_expect_str_eq(one->peer_id, rig.sides[!from].peer_id);
    cr_expect_str_eq(other->peer_id, rig.sides[from].peer_id);
    cr_expect_str_eq(one->backend, "");
    cr_expect_str_eq(other->backend, addr);
    cr_expect_eq(one->record.end, FORWARD_DONE);
    cr_expect_eq(other->record.end, FORWARD_DONE);
    cr_expect_eq(one->record.bytes_up, strlen(record_request));
    cr_expect_eq(other->record.bytes_up, strlen(record_request));
    cr_expect_eq(one->record.bytes_down, 5);
    cr_expect_eq(other->record.bytes_down, 5);
    cr_expect_eq(other->record.name_us, 0, "the owner waits for no name");
    record_times_fit(&one->record);
    record_times_fit(&other->record);
    came_from(one, client, from);
    came_from(other, client, from);
    close(client);
    record_finish();
}

Test(record, both_hops_of_the_diallers_client_share_the_id) { both_hops(DIALLER); }

Test(record, both_hops_of_the_listeners_client_share_the_id) { both_hops(LISTENER); }

/* ---- which are told ---- */

Test(record, only_those_that_are_wanted_are_told)
{
    int client;

    record_start(DIALLER);
    record_want(FORWARD_RECORDS_OFF);
    close(carry_one(DIALLER));
    client = record_ask_with(DIALLER, "GET / HTTP/1.1\r\nHost: other\r\n\r\n");
    cr_assert(net_has_ended(client));
    close(client);
    RIG_WAIT(&rig, DIALLER, clients, 0);
    cr_expect_eq(n_kept, 0);
    record_want(FORWARD_RECORDS_ERRORS);
    close(carry_one(DIALLER));
    close(net_connect(rig.sides[DIALLER].port));
    RIG_WAIT(&rig, DIALLER, ends[FORWARD_CLIENT_SILENT], 1);
    RIG_WAIT(&rig, DIALLER, clients, 0);
    cr_expect_eq(n_kept, 0);
    client = record_ask_with(DIALLER, "GET / HTTP/1.1\r\nHost: other\r\n\r\n");
    record_ended(1, FORWARD_NO_SUCH_NAME, "other", "nobody offers other");
    close(client);
    record_finish();
}

Test(record, an_end_is_an_error_unless_it_was_in_order_or_the_clients_wish)
{
    static const enum forward_end none[] = {FORWARD_DONE, FORWARD_CLIENT_RESET, FORWARD_CLIENT_GONE,
                                            FORWARD_CLIENT_SILENT};
    size_t errors = 0;

    for (unsigned how = 0; how < N_FORWARD_ENDS; how++)
        errors += forward_end_is_error(how);
    cr_expect_eq(errors, N_FORWARD_ENDS - sizeof none / sizeof *none);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        cr_expect_not(forward_end_is_error(none[i]));
    close(listener);
}

/* ---- ends before it is routed ---- */

static void refused(const char *words, enum forward_end how, const char *name, const char *text)
{
    int client;

    rig.limits.ingress_head_bytes = 1024;
    record_start(DIALLER);
    client = record_ask_with(DIALLER, words);
    record_ended(1, how, name, text);
    came_from(&kept[0], client, DIALLER);
    cr_expect_eq(kept[0].record.open_us, 0);
    cr_expect_eq(kept[0].record.bytes_down, 0);
    close(client);
    record_finish();
}

Test(record, a_request_without_a_name)
{
    refused("GET / HTTP/1.0\r\n\r\n", FORWARD_NO_NAME, "", "");
}

Test(record, a_request_that_makes_no_sense)
{
    refused("GET / HTTP/1.1\r\n\r\n", FORWARD_BAD_REQUEST, "", "HTTP/1.1 without a Host field");
}

Test(record, a_name_that_nobody_offers)
{
    refused("GET / HTTP/1.1\r\nHost: Other:80\r\n\r\n", FORWARD_NO_SUCH_NAME, "other",
            "nobody offers other");
}

Test(record, a_head_that_is_too_big)
{
    static char words[1200] = "GET / HTTP/1.1\r\nHost: web\r\nX: ";

    memset(words + strlen(words), 'a', 1100);
    refused(words, FORWARD_HEAD_TOO_BIG, "", "");
}

Test(record, a_client_that_says_nothing_and_leaves)
{
    record_start(DIALLER);
    close(net_connect(rig.sides[DIALLER].port));
    record_ended(1, FORWARD_CLIENT_SILENT, "", "");
    record_finish();
}

Test(record, a_client_that_is_too_slow)
{
    int client;

    rig.settings.route_ms = 500;
    record_start(DIALLER);
    client = record_ask_with(DIALLER, "GET / HT");
    record_ended(1, FORWARD_TOO_SLOW, "", "");
    cr_expect_geq(kept[0].record.total_us, 500000);
    close(client);
    record_finish();
}

/* ---- ends on the way ---- */

static void backend_refuses(enum side from, enum side owner, const char *text)
{
    size_t n = from == owner ? 1 : 2;
    int client;

    shutdown(listener, SHUT_RD);
    record_start(owner);
    client = record_ask(from);
    record_ended(n, FORWARD_BACKEND_REFUSED, "web", text);
    cr_expect_str_eq(record_of(n, false)->backend, n == 1 ? addr : "");
    if (n == 2) {
        const struct kept *other = record_of(2, true);

        cr_expect_eq(other->record.end, FORWARD_BACKEND_REFUSED);
        cr_expect_str_eq(other->text, "Connection refused");
        cr_expect_str_eq(other->backend, addr);
        cr_expect(memcmp(other->record.id, record_of(2, false)->record.id, FORWARD_ID_LEN) == 0);
        cr_expect_str_eq(record_of(2, false)->peer_id, rig.sides[owner].peer_id);
    }
    close(client);
    record_finish();
}

Test(record, a_backend_of_this_node_that_refuses)
{
    backend_refuses(DIALLER, DIALLER, "web at d: Connection refused");
}

Test(record, a_backend_of_a_peer_that_refuses_is_told_by_both)
{
    backend_refuses(DIALLER, LISTENER, "web at l: Connection refused");
}

Test(record, a_client_that_gives_up_on_its_way)
{
    int client;

    record_start(LISTENER);
    atomic_store(&rig.lose, true); /* the owner does not hear of the Forward */
    client = record_ask(DIALLER);
    RIG_WAIT(&rig, DIALLER, pending, 1);
    net_reset(client);
    record_ended(1, FORWARD_CLIENT_GONE, "web", "");
    cr_expect_str_eq(kept[0].peer_id, "l");
    record_finish();
}

Test(record, an_owner_that_says_nothing)
{
    int client;

    rig.settings.open_ms = 100;
    record_start(DIALLER);
    atomic_store(&rig.lose, true);
    client = record_ask(LISTENER);
    record_ended(1, FORWARD_OWNER_SILENT, "web", "web at d: no answer in time");
    close(client);
    atomic_store(&rig.lose, false);
    record_finish();
}

Test(record, a_link_that_breaks_is_told_by_both)
{
    int client, backend;

    rig.limits.data_warm_per_link = 0;
    record_start(LISTENER);
    rig_gate_rests(&rig, true); /* no DATA */
    client = record_ask(DIALLER);
    backend = net_accept(listener);
    rig_link_down(&rig);
    record_ended(2, FORWARD_OWNER_LOST, "web", "web at l: the link broke");
    cr_expect_eq(record_of(2, true)->record.end, FORWARD_OWNER_LOST);
    cr_expect_str_eq(record_of(2, true)->text, "the link broke");
    close(client);
    close(backend);
    rig_gate_rests(&rig, false);
    rig_link_up(&rig);
    record_finish();
}

Test(record, a_service_without_an_owner_that_is_connected)
{
    int client;

    record_start(LISTENER);
    rig_link_down(&rig);
    client = record_ask(DIALLER);
    record_ended(1, FORWARD_NO_OWNER, "web", "no owner of web is connected");
    close(client);
    rig_link_up(&rig);
    record_finish();
}

Test(record, a_service_that_has_all_it_may_have)
{
    int first, second, backend;

    rig.limits.forwards_per_service = 1;
    record_start(DIALLER);
    first = record_ask(DIALLER);
    backend = net_accept(listener);
    net_expect(backend, record_request, strlen(record_request));
    second = record_ask(DIALLER);
    record_ended(1, FORWARD_OVER_LIMIT, "web", "web at d: over limits.forwards_per_service");
    close(second);
    close(backend);
    close(first);
    record_finish();
}

static bool refuses(void *forward) { return forward_refuses(forward); }

Test(record, an_owner_that_is_about_to_leave_and_what_it_refused)
{
    int client;

    record_start(LISTENER);
    forward_drain(rig.sides[LISTENER].forward);
    wait_until(refuses, rig.sides[LISTENER].forward);
    client = record_ask(DIALLER);
    record_ended(2, FORWARD_DRAINING, "web", "web at l: the node is about to leave");
    close(client);
    cr_expect_str_eq(record_of(2, true)->text, "the node is about to leave");
    cr_expect_eq(record_of(2, true)->record.end, FORWARD_DRAINING);
    record_finish();
}

/* ---- more than one try ---- */

Test(record, more_than_one_try_is_said_and_the_id_is_the_last_ones)
{
    struct peer peers[2];
    struct peer_forward forward;
    struct peer *peer = NULL;
    uint8_t id[FORWARD_ID_LEN];
    char text[64];
    int client;

    rig.limits.data_warm_per_link = 0;
    rig_start(&rig);
    record_want(FORWARD_RECORDS_ALL);
    for (unsigned i = 0; i < 2; i++) {
        peer_init(&peers[i], &rig, i ? "b" : "a", 100 + i, false);
        peer_offer(&peers[i], "web");
        peer_up(&peers[i]);
    }
    client = record_ask(DIALLER);
    for (int i = 0; i < 2; i++) {
        while (peer_heard_nothing(&peers[0]) && peer_heard_nothing(&peers[1]))
            usleep(200);
        peer = &peers[peer_heard_nothing(&peers[0])];
        peer_next_forward(peer, &forward);
        memcpy(id, forward.id, sizeof id);
        peer_reply(peer, id, MESHD__V1__REFUSAL__REFUSAL_DRAINING, "leaving");
    }
    wait_until(records_are, &(size_t){1});
    cr_expect_str_eq(kept[0].peer_id, peer->id);
    cr_expect(memcmp(kept[0].record.id, id, sizeof id) == 0);
    cr_expect_eq(kept[0].record.end, FORWARD_DRAINING);
    snprintf(text, sizeof text, "web at %s: leaving; 2 tries", peer->id);
    cr_expect_str_eq(kept[0].text, text);
    close(client);
    RIG_WAIT(&rig, DIALLER, clients, 0);
    for (unsigned i = 0; i < 2; i++)
        peer_down(&peers[i]);
    rig_settle(rig.sides[DIALLER].forward);
    for (unsigned i = 0; i < 2; i++)
        peer_fini(&peers[i]);
    record_finish();
}

/* ---- ends once it is joined ---- */

Test(record, a_client_that_breaks_off_is_told_by_both)
{
    int client, backend;

    record_join(&client, &backend);
    net_reset(client);
    record_both_ended(FORWARD_CLIENT_RESET, "");
    close(backend);
    record_finish();
}

/* Who is first to cut it off resets it, to the other. */
static void one_ended(enum forward_end how)
{
    cr_expect(record_of(2, false)->record.end == how || record_of(2, true)->record.end == how);
}

Test(record, who_is_idle_for_too_long)
{
    int client, backend;

    rig.settings.idle_ms = 1000;
    record_join(&client, &backend);
    one_ended(FORWARD_IDLE);
    close(client);
    close(backend);
    record_finish();
}

Test(record, who_is_half_closed_and_silent_for_too_long)
{
    int client, backend;

    rig.settings.half_close_ms = 500;
    record_join(&client, &backend);
    shutdown(client, SHUT_WR);
    one_ended(FORWARD_HALF_CLOSED);
    close(client);
    close(backend);
    record_finish();
}

Test(record, what_still_runs_at_the_end_is_told_by_both)
{
    int client, backend;

    record_join(&client, &backend);
    rig_link_down(&rig);
    rig_stop(&rig);
    cr_expect_eq(record_of(2, false)->record.end, FORWARD_DRAINED);
    cr_expect_str_eq(record_of(2, true)->name, "web");
    close(client);
    close(backend);
    close(listener);
    rig_check_descriptors(&rig);
}
