/* What is told of backends as clients meet them: every failure, and the first that is well again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/rig.h"
#include "forward/seen.h"

#define KEPT 64u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char told[KEPT][LIMIT_NAME + LIMIT_BACKEND + 32]; /* with the lock */
static size_t n_told;

static void on_seen(void *ctx, const char *name, const char *backend, int error)
{
    pthread_mutex_lock(&lock);
    if (n_told < KEPT)
        snprintf(told[n_told], sizeof told[n_told], "%s %s %d", name, backend, error);
    n_told++;
    pthread_mutex_unlock(&lock);
}

/* Since the last call, parted by commas. */
static const char *all_told(void)
{
    static char all[4096];
    size_t n = 0;

    all[0] = '\0';
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_told; i++)
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", told[i]);
    n_told = 0;
    pthread_mutex_unlock(&lock);
    return all;
}

/* ---- alone ---- */

static struct forward forward;
static struct limits limits;

static void setup(void)
{
    limits_default(&limits);
    limits.services_per_peer = 3;
    forward.ops.backend_seen = on_seen;
    forward.dial_ms = 5000;
    cr_assert_eq(seen_new(&limits, &forward.seen), 0);
}

static void teardown(void) { seen_free(forward.seen); }

static void ends(const char *name, const char *backend, int error)
{
    seen_dialled(&forward, name, backend, 5000, error);
}

Test(seen, each_failure_is_told_and_the_first_success_behind_it, .init = setup, .fini = teardown)
{
    ends("web", "a:1", 0);
    cr_expect_str_eq(all_told(), "");
    ends("web", "a:1", -ECONNREFUSED);
    ends("web", "a:1", -ETIMEDOUT);
    cr_expect_str_eq(all_told(), "web a:1 -111, web a:1 -110");
    ends("web", "a:1", 0);
    ends("web", "a:1", 0);
    cr_expect_str_eq(all_told(), "web a:1 0");
    ends("web", "a:1", -ENOENT);
    ends("web", "a:1", 0);
    cr_expect_str_eq(all_told(), "web a:1 -2, web a:1 0");
}

Test(seen, each_name_and_each_backend_has_its_own, .init = setup, .fini = teardown)
{
    ends("web", "a:1", -ECONNREFUSED);
    all_told();
    ends("web", "b:1", 0);
    ends("db", "a:1", 0);
    ends("we", "ba:1", 0); /* the same bytes but for where the name ends */
    cr_expect_str_eq(all_told(), "");
    ends("web", "a:1", 0);
    cr_expect_str_eq(all_told(), "web a:1 0");
}

Test(seen, what_is_no_fault_of_the_backend_is_not_told, .init = setup, .fini = teardown)
{
    static const int own[] = {-ENOMEM,        -EMFILE, -ENFILE, -ENOBUFS,
                              -EADDRNOTAVAIL, -EINVAL, -EPERM,  -ECANCELED};
    static const int its[] = {-ECONNREFUSED, -ECONNRESET, -EHOSTUNREACH,
                              -ENETUNREACH,  -ETIMEDOUT,  -ENOENT};

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        ends("web", "a:1", own[i]);
    cr_expect_str_eq(all_told(), "");
    for (size_t i = 0; i < sizeof its / sizeof *its; i++) {
        ends("web", "a:1", its[i]);
        cr_expect_str_neq(all_told(), "", "%d", its[i]);
    }
}

/* Else who asks for a service in no time at all could have it look as if it were ill. */
Test(seen, a_time_out_after_next_to_no_time_says_nothing, .init = setup, .fini = teardown)
{
    seen_dialled(&forward, "web", "a:1", 999, -ETIMEDOUT);
    cr_expect_str_eq(all_told(), "");
    seen_dialled(&forward, "web", "a:1", 999, -ECONNREFUSED);
    seen_dialled(&forward, "web", "a:1", 1000, -ETIMEDOUT);
    cr_expect_str_eq(all_told(), "web a:1 -111, web a:1 -110");
    forward.dial_ms = 200; /* so long every client has */
    seen_dialled(&forward, "web", "a:1", 199, -ETIMEDOUT);
    seen_dialled(&forward, "web", "a:1", 200, -ETIMEDOUT);
    cr_expect_str_eq(all_told(), "web a:1 -110");
}

Test(seen, as_many_are_remembered_as_there_may_be_services, .init = setup, .fini = teardown)
{
    ends("a", "a:1", -ECONNREFUSED);
    ends("b", "a:1", -ECONNREFUSED);
    ends("c", "a:1", -ECONNREFUSED);
    ends("a", "a:1", -ECONNREFUSED);
    ends("d", "a:1", -ECONNREFUSED); /* b failed longest ago */
    all_told();
    ends("b", "a:1", 0);
    cr_expect_str_eq(all_told(), "");
    ends("a", "a:1", 0);
    ends("c", "a:1", 0);
    ends("d", "a:1", 0);
    cr_expect_str_eq(all_told(), "a a:1 0, c a:1 0, d a:1 0");
}

/* ---- by real clients ---- */

static struct rig rig;
static char addr[32];
static int listener;

/* A port of the test's, where nobody listens yet. */
static int bound(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    MUST(bind(fd, (struct sockaddr *)&at, len) == 0);
    MUST(getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    net_set_timeouts(fd);
    snprintf(addr, sizeof addr, "127.0.0.1:%u", ntohs(at.sin_port));
    return fd;
}

static void start(enum side owner)
{
    rig_init(&rig);
    rig.settings.ops.backend_seen = on_seen;
    listener = bound();
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, owner, "web", addr);
}

static void end(void)
{
    close(listener);
    rig_end(&rig);
}

static int ask(enum side from)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    int fd = net_connect(rig.sides[from].port);

    net_send(fd, request, strlen(request));
    return fd;
}

static void fails(enum side from)
{
    int client = ask(from);

    cr_assert(net_has_ended(client));
    close(client);
}

static void is_well(enum side from)
{
    int client = ask(from);

    close(net_accept(listener));
    cr_assert(net_has_ended(client));
    close(client);
}

/* Told by the node whose backend it is, and by nobody else. */
static void met_by_clients(enum side from, enum side owner)
{
    char expected[160];

    start(owner);
    fails(from);
    fails(from);
    snprintf(expected, sizeof expected, "web %s %d, web %s %d", addr, -ECONNREFUSED, addr,
             -ECONNREFUSED);
    cr_expect_str_eq(all_told(), expected);
    cr_assert_eq(listen(listener, 16), 0);
    is_well(from);
    is_well(from);
    snprintf(expected, sizeof expected, "web %s 0", addr);
    cr_expect_str_eq(all_told(), expected);
    end();
}

Test(seen, clients_of_this_node_show_how_its_backend_is) { met_by_clients(DIALLER, DIALLER); }

Test(seen, clients_of_a_peer_show_how_a_backend_is_to_its_owner)
{
    met_by_clients(DIALLER, LISTENER);
}

Test(seen, a_client_that_gives_up_and_one_over_a_limit_show_nothing)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    int fillers[8], client;

    rig_init(&rig);
    rig.limits.forwards_per_service = 1;
    rig.settings.ops.backend_seen = on_seen;
    listener = net_listen(addr);
    listen(listener, 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    for (size_t i = 0; i < 8; i++) { /* until there is no room for another */
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fillers[i], (struct sockaddr *)&at, len);
    }
    rig_start(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    client = ask(DIALLER);
    RIG_WAIT(&rig, DIALLER, largest_service, 1);
    fails(DIALLER); /* over forwards_per_service */
    net_reset(client);
    RIG_WAIT(&rig, DIALLER, ends[FORWARD_CLIENT_GONE], 1);
    cr_expect_str_eq(all_told(), "");
    for (size_t i = 0; i < 8; i++)
        close(fillers[i]);
    end();
}
