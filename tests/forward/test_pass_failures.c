/* Two forward rooms, and what clients are told when something between them or behind them fails. */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/inside.h"
#include "forward/must.h"
#include "forward/rig.h"

#define MANY 100

static struct rig rig;
static char addr[32];
static int listener;

static void setup(void)
{
    rig_init(&rig);
    listener = net_listen(addr);
}

TestSuite(failures, .init = setup, .timeout = 60);

static void start(enum side owner)
{
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, owner, "web", addr);
}

static void end(void)
{
    if (listener >= 0)
        close(listener);
    rig_end(&rig);
}

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static int ask(enum side from)
{
    int fd = net_connect(rig.sides[from].port);

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

static void expect(enum side from, const char *status, const char *text)
{
    is_answered(ask(from), status, text);
}

/* ---- the owner's backend, and the owner ---- */

static void nobody_listens(enum side from, enum side owner, const char *text)
{
    close(listener);
    listener = -1;
    start(owner);
    expect(from, "502", text);
    cr_assert_eq(rig_counters(&rig, from).ends[FORWARD_BACKEND_REFUSED], 1);
    cr_assert_eq(rig_counters(&rig, owner).forwards_refused, from != owner);
    end();
}

Test(failures, a_local_backend_that_refuses_is_a_502)
{
    nobody_listens(DIALLER, DIALLER, "web at d: Connection refused");
}

Test(failures, a_backend_of_the_listener_that_refuses_is_a_502)
{
    nobody_listens(DIALLER, LISTENER, "web at l: Connection refused");
}

Test(failures, a_backend_of_the_dialler_that_refuses_is_a_502)
{
    nobody_listens(LISTENER, DIALLER, "web at d: Connection refused");
}

static void says_nothing(enum side from, enum side owner)
{
    int fds[8], hole;
    struct sockaddr_in at;
    char hole_addr[32];

    rig.settings.route_ms = 1800;
    hole = net_listen_at(&at);
    listen(hole, 0);
    for (size_t i = 0; i < 8; i++) { /* until there is no room for another */
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fds[i], (struct sockaddr *)&at, sizeof at);
    }
    start(owner);
    snprintf(hole_addr, sizeof hole_addr, "127.0.0.1:%u", ntohs(at.sin_port));
    rig_offer(&rig, owner, "web", hole_addr);
    expect(from, "504", "Connection timed out");
    for (size_t i = 0; i < 8; i++)
        close(fds[i]);
    close(hole);
    end();
}

Test(failures, a_local_backend_that_says_nothing_is_a_504) { says_nothing(DIALLER, DIALLER); }

Test(failures, a_backend_of_the_listener_that_says_nothing_is_a_504_in_time)
{
    says_nothing(DIALLER, LISTENER);
}

Test(failures, a_backend_of_the_dialler_that_says_nothing_is_a_504_in_time)
{
    says_nothing(LISTENER, DIALLER);
}

Test(failures, a_name_that_was_withdrawn_a_moment_ago_is_a_503)
{
    start(LISTENER);
    rig_withdraw(&rig, LISTENER);
    expect(DIALLER, "503", "web at l: not registered here any more");
    cr_assert(net_nobody_comes(listener));
    end();
}

Test(failures, a_name_that_nobody_has_heard_of_is_a_404)
{
    int fd;

    start(LISTENER);
    fd = net_connect(rig.sides[DIALLER].port);
    net_send(fd, "GET / HTTP/1.1\r\nHost: other\r\n\r\n", 31);
    is_answered(fd, "404", "nobody offers other");
    end();
}

static bool refuses(void *forward) { return forward_refuses(forward); }

Test(failures, an_owner_that_leaves_serves_what_is_on_its_way_and_then_is_a_503)
{
    int client, backend;

    start(LISTENER);
    forward_drain(rig.sides[LISTENER].forward);
    client = ask(DIALLER);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    close(backend);
    cr_assert(net_has_ended(client));
    close(client);
    wait_until(refuses, rig.sides[LISTENER].forward);
    expect(DIALLER, "503", "the node is about to leave");
    end();
}

static void a_service_is_full(enum side from, enum side owner)
{
    int client, backend;

    rig.limits.forwards_per_service = 1;
    start(owner);
    client = ask(from);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    expect(from, "503", "over limits.forwards_per_service");
    close(backend);
    cr_assert(net_has_ended(client));
    close(client);
    RIG_WAIT(&rig, from, clients, 0);
    RIG_WAIT(&rig, owner, largest_service, 0);
    client = ask(from);
    backend = net_accept(listener);
    close(client);
    close(backend);
    end();
}

Test(failures, a_local_service_that_is_full_is_a_503) { a_service_is_full(DIALLER, DIALLER); }

Test(failures, a_service_of_the_listener_that_is_full_is_a_503)
{
    a_service_is_full(DIALLER, LISTENER);
}

Test(failures, a_service_of_the_dialler_that_is_full_is_a_503)
{
    a_service_is_full(LISTENER, DIALLER);
}

/* ---- the link ---- */

Test(failures, a_link_that_is_down_is_a_503)
{
    start(LISTENER);
    rig_link_down(&rig);
    expect(DIALLER, "503", "no owner of web is connected");
    rig_link_up(&rig);
    end();
}

static bool all_are_sent(void *arg) { return atomic_load(&rig.sent_forwards) == MANY; }

/* Many at once, whose Forwards are on their way. */
static void all_are_answered(enum side from)
{
    int clients[MANY], backend;

    start(!from);
    atomic_store(&rig.hold, true);
    for (int i = 0; i < MANY; i++)
        clients[i] = ask(from);
    wait_until(all_are_sent, NULL);
    RIG_WAIT(&rig, from, pending, MANY);
    cr_assert_eq(forward_session_pending(rig.sides[from].forward, 7), MANY);
    rig_link_down(&rig);
    for (int i = 0; i < MANY; i++)
        is_answered(clients[i], "502", "the link broke");
    RIG_WAIT(&rig, from, pending, 0);
    rig_release(&rig); /* of a session that is over */
    cr_assert(net_nobody_comes(listener));
    rig_link_up(&rig);
    clients[0] = ask(from);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    close(clients[0]);
    close(backend);
    end();
}

Test(failures, all_clients_of_the_dialler_are_answered_when_the_link_breaks)
{
    all_are_answered(DIALLER);
}

Test(failures, all_clients_of_the_listener_are_answered_when_the_link_breaks)
{
    all_are_answered(LISTENER);
}

Test(failures, all_backends_that_wait_for_data_are_reset_when_the_link_breaks)
{
    int clients[MANY], backends[MANY];

    rig.limits.data_warm_per_link = 0;
    start(LISTENER);
    rig_gate_rests(&rig, true);
    for (int i = 0; i < MANY; i++)
        clients[i] = ask(DIALLER);
    for (int i = 0; i < MANY; i++)
        backends[i] = net_accept(listener);
    rig_link_down(&rig);
    for (int i = 0; i < MANY; i++)
        is_answered(clients[i], "502", "the link broke");
    for (int i = 0; i < MANY; i++) {
        cr_assert(net_is_reset(backends[i]));
        close(backends[i]);
    }
    rig_gate_rests(&rig, false); /* what comes now is of a session that is over */
    if (!rig.tls)                /* else nothing was said yet */
        RIG_WAIT(&rig, LISTENER, data_unexpected, MANY);
    end();
}

/* ---- the client ---- */

static void client_gives_up(enum side from)
{
    int client, backend;

    rig.settings.workers = 1;
    start(!from);
    rig.lose = true; /* the owner does not hear of the Forward */
    client = ask(from);
    RIG_WAIT(&rig, from, pending, 1);
    net_reset(client);
    RIG_WAIT(&rig, from, pending, 0);
    RIG_WAIT(&rig, from, ends[FORWARD_CLIENT_GONE], 1);
    rig.lose = false;
    client = ask(from);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    net_reset(client);
    cr_assert(net_is_reset(backend));
    close(backend);
    end();
}

Test(failures, a_client_of_the_dialler_that_gives_up_leaves_nothing) { client_gives_up(DIALLER); }

Test(failures, a_client_of_the_listener_that_gives_up_leaves_nothing) { client_gives_up(LISTENER); }

/* ---- DATA ---- */

static void no_data(enum side from, const char *text)
{
    start(!from);
    atomic_store(&rig.gate_deaf, true);
    expect(from, "502", text);
    RIG_WAIT(&rig, !from, served, 0);
    while (!net_nobody_comes(listener)) { /* it may have been connected meanwhile */
        int backend = net_accept(listener);

        cr_assert(net_has_ended(backend));
        close(backend);
    }
    end();
}

Test(failures, a_gate_that_takes_no_data_is_a_502_for_the_dialler)
{
    no_data(DIALLER, "web at l: ");
}

Test(failures, a_gate_that_takes_no_data_is_a_502_for_the_listener)
{
    no_data(LISTENER, "web at d: the owner gave up");
}
