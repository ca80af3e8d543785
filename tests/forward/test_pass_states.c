/* Two forward rooms, and where clients go when a service is draining or unhealthy. */
#include <criterion/criterion.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/rig.h"

static struct rig rig;
static char addr[2][32]; /* by side: a backend of its service */
static int listener[2];

static void setup(void)
{
    rig_init(&rig);
    for (int side = 0; side < 2; side++)
        listener[side] = net_listen(addr[side]);
    rig_start(&rig);
    rig_link_up(&rig);
}

TestSuite(states, .init = setup, .timeout = 60);

static void end(void)
{
    for (int side = 0; side < 2; side++)
        if (listener[side] >= 0)
            close(listener[side]);
    rig_end(&rig);
}

static void offer(enum side side, unsigned flags)
{
    rig_offer_as(&rig, side, "web", addr[side], flags);
}

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static int ask(enum side from)
{
    int fd = net_connect(rig.sides[from].port);

    net_send(fd, request, strlen(request));
    return fd;
}

static void join(enum side from, enum side owner, int *out_client, int *out_backend)
{
    *out_client = ask(from);
    *out_backend = net_accept(listener[owner]);
    net_expect(*out_backend, request, strlen(request));
}

static void part(int client, int backend)
{
    close(backend);
    cr_assert(net_has_ended(client));
    close(client);
}

static void goes_to(enum side from, enum side owner)
{
    int client, backend;

    join(from, owner, &client, &backend);
    part(client, backend);
}

static void is_refused(enum side from, const char *text)
{
    int client = ask(from);
    char got[2048];

    net_read_all(client, got, sizeof got);
    cr_assert(strncmp(got, "HTTP/1.1 503 ", 13) == 0, "%s", got);
    cr_assert_neq(strstr(got, "every owner is draining"), NULL, "%s", got);
    cr_assert_neq(strstr(got, text), NULL, "not \"%s\": %s", text, got);
    close(client);
}

Test(states, a_local_service_that_is_draining_is_a_503)
{
    offer(DIALLER, ROW_DRAINING);
    is_refused(DIALLER, "web is draining here, and no other owner is connected");
    cr_assert_eq(rig_counters(&rig, DIALLER).ends[FORWARD_DRAINING], 1);
    cr_assert(net_nobody_comes(listener[DIALLER]));
    offer(DIALLER, 0);
    goes_to(DIALLER, DIALLER);
    end();
}

Test(states, a_service_of_a_peer_that_is_draining_is_refused_by_it_at_once)
{
    offer(LISTENER, ROW_DRAINING);
    is_refused(DIALLER, "web at l: draining: the service takes no new clients");
    cr_assert_eq(rig_counters(&rig, LISTENER).forwards_refused, 1);
    cr_assert(net_nobody_comes(listener[LISTENER]));
    offer(LISTENER, 0);
    goes_to(DIALLER, LISTENER);
    end();
}

Test(states, a_client_goes_to_another_owner_while_one_is_draining)
{
    offer(DIALLER, ROW_DRAINING);
    offer(LISTENER, 0);
    goes_to(DIALLER, LISTENER);
    goes_to(LISTENER, LISTENER);
    offer(LISTENER, ROW_UNHEALTHY); /* it may take clients nonetheless, and the other will not */
    goes_to(DIALLER, LISTENER);
    offer(DIALLER, 0);
    offer(LISTENER, ROW_DRAINING);
    goes_to(LISTENER, DIALLER);
    end();
}

/* The other side has not heard of it: it is refused there, and goes to the next. */
Test(states, a_refusal_of_a_draining_owner_is_answered_by_another)
{
    offer(LISTENER, 0);
    offer(DIALLER, ROW_UNHEALTHY);
    rig_change_here(&rig, LISTENER, "web", addr[LISTENER], ROW_DRAINING);
    goes_to(DIALLER, DIALLER);
    cr_assert_eq(rig_counters(&rig, LISTENER).forwards_refused, 1);
    cr_assert_eq(rig_counters(&rig, DIALLER).forward_retries, 1);
    end();
}

Test(states, an_unhealthy_backend_is_not_chosen_while_another_is_there)
{
    offer(DIALLER, ROW_UNHEALTHY);
    offer(LISTENER, 0);
    for (int side = 0; side < 2; side++)
        goes_to((enum side)side, LISTENER);
    cr_assert(net_nobody_comes(listener[DIALLER]));
    end();
}

Test(states, an_unhealthy_backend_is_tried_when_the_others_fail)
{
    offer(DIALLER, ROW_UNHEALTHY);
    offer(LISTENER, 0);
    close(listener[LISTENER]);
    listener[LISTENER] = -1;
    for (int side = 0; side < 2; side++)
        goes_to((enum side)side, DIALLER);
    end();
}

Test(states, a_service_whose_backends_all_look_unhealthy_is_still_tried)
{
    offer(DIALLER, ROW_UNHEALTHY);
    for (int side = 0; side < 2; side++)
        goes_to((enum side)side, DIALLER);
    offer(LISTENER, ROW_UNHEALTHY);
    goes_to(DIALLER, DIALLER);
    goes_to(LISTENER, LISTENER);
    end();
}

Test(states, a_change_of_state_touches_no_client_that_is_joined)
{
    static const unsigned flags[] = {ROW_DRAINING, ROW_UNHEALTHY, ROW_DRAINING | ROW_UNHEALTHY,
                                     ROW_PROXY_V2, 0};
    int clients[2], backends[2];

    offer(DIALLER, 0);
    for (int side = 0; side < 2; side++)
        join((enum side)side, DIALLER, &clients[side], &backends[side]);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        offer(DIALLER, flags[i]);
        for (int side = 0; side < 2; side++) {
            net_send(clients[side], "up", 2);
            net_expect(backends[side], "up", 2);
            net_send(backends[side], "down", 4);
            net_expect(clients[side], "down", 4);
        }
    }
    for (int side = 0; side < 2; side++)
        part(clients[side], backends[side]);
    end();
}

/* Its row says how it wants to hear of clients: from the next one on. */
Test(states, how_clients_are_introduced_changes_with_the_row)
{
    for (int side = 0; side < 2; side++) {
        int client, backend;

        offer(DIALLER, ROW_PROXY_V1);
        client = ask((enum side)side);
        backend = net_accept(listener[DIALLER]);
        net_expect(backend, "PROXY ", 6);
        net_reset(client);
        close(backend);
        offer(DIALLER, 0);
        goes_to((enum side)side, DIALLER);
    }
    end();
}
