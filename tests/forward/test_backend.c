/* Dials of backends: by address and by name, what fails and how, and what is left of it. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include "forward/backend.h"
#include "forward/hosts.h"
#include "forward/inside.h"
#include "forward/names.h"

static struct forward forward;
static struct worker worker; /* its loop is run by the test */
static bool dialling;

static void setup(void)
{
    const struct names_how how = {.resolve = hosts_resolve, .again_ms = 3600000};

    alarm(60);
    cr_assert_eq(names_new_by(&forward, &how, &forward.names), 0);
    cr_assert_eq(names_start(forward.names), 0);
    cr_assert_eq(worker_init(&worker, &forward, 0), 0);
}

static void teardown(void)
{
    names_stop(forward.names);
    worker_fini(&worker);
    names_free(forward.names);
}

/* ---- dials ---- */

struct dial {
    struct backend_try *attempt;
    unsigned told;
    int error;
    struct leg *leg;
};

static void on_done(void *ctx, int error, struct leg *leg)
{
    struct dial *dial = ctx;

    cr_assert_not(dialling, "told from within backend_dial");
    dial->told++;
    dial->error = error;
    dial->leg = leg;
}

static void dial(struct dial *d, const char *host, uint16_t port, uint32_t ms)
{
    char backend[LIMIT_BACKEND + 1];

    *d = (struct dial){0};
    snprintf(backend, sizeof(backend), "%s:%u", host, port);
    uv_update_time(&worker.loop);
    dialling = true;
    cr_assert_eq(backend_dial(&worker, backend, ms, d, on_done, &d->attempt), 0);
    dialling = false;
}

static void wait_told(struct dial *d)
{
    while (!d->told)
        worker_turn(&worker, true);
    cr_assert_eq(d->told, 1);
    cr_assert_eq(d->leg != NULL, d->error == 0);
}

static int dial_error(const char *host, uint16_t port, uint32_t ms)
{
    struct dial d;

    dial(&d, host, port, ms);
    wait_told(&d);
    leg_close(d.leg);
    return d.error;
}

/* ---- backends ---- */

static int bound(const char *ip, uint16_t *port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(*port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(*port)};
    bool is_v6 = inet_pton(AF_INET6, ip, &v6.sin6_addr) == 1;
    struct sockaddr *addr = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t len = is_v6 ? sizeof(v6) : sizeof(v4);
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (!is_v6)
        cr_assert_eq(inet_pton(AF_INET, ip, &v4.sin_addr), 1);
    if (fd < 0 || bind(fd, addr, len) < 0 || getsockname(fd, addr, &len) < 0) {
        close(fd);
        return -1;
    }
    *port = ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
    return fd;
}

static int listener(const char *ip, uint16_t *port)
{
    int fd = bound(ip, port);

    if (fd >= 0)
        cr_assert_eq(listen(fd, 128), 0);
    return fd;
}

/* Its queue is full: SYNs are dropped. filler keeps it so. */
static void make_black_hole(int fd, int *out_filler)
{
    struct sockaddr_in at;
    socklen_t len = sizeof(at);

    cr_assert_eq(listen(fd, 0), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *out_filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(*out_filler, (struct sockaddr *)&at, len), 0);
}

/* Bound to one port of two addresses. */
static void bind_both(const char *a, const char *b, int *out_a, int *out_b, uint16_t *out_port)
{
    for (int i = 0; i < 50; i++) {
        *out_port = 0;
        *out_a = bound(a, out_port);
        *out_b = bound(b, out_port);
        if (*out_b >= 0)
            return;
        close(*out_a);
    }
    cr_assert_fail("no port is free on both");
}

static size_t open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void expect_peer(struct leg *leg, const char *ip)
{
    struct sockaddr_in at;
    socklen_t len = sizeof(at);
    char text[INET_ADDRSTRLEN];

    cr_assert_eq(getpeername(leg->fd, (struct sockaddr *)&at, &len), 0);
    cr_expect_str_eq(inet_ntop(AF_INET, &at.sin_addr, text, sizeof(text)), ip);
}

/* ---- by address ---- */

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    getsockopt(fd, level, name, &value, &len);
    return value;
}

Test(backend, a_v4_address_is_connected_and_nothing_is_delayed, .init = setup, .fini = teardown)
{
    uint16_t port = 0;
    int fd = listener("127.0.0.1", &port);
    struct dial d;

    dial(&d, "127.0.0.1", port, 5000);
    wait_told(&d);
    cr_assert_eq(d.error, 0);
    cr_expect_eq(d.leg->wants, 0);
    cr_expect(fcntl(d.leg->fd, F_GETFL) & O_NONBLOCK);
    cr_expect_eq(option(d.leg->fd, IPPROTO_TCP, TCP_NODELAY), 1);
    leg_close(d.leg);
    close(fd);
}

Test(backend, a_v6_address_is_connected, .init = setup, .fini = teardown)
{
    uint16_t port = 0;
    int fd = listener("::1", &port);

    if (fd < 0)
        cr_skip_test("no IPv6 here");
    cr_expect_eq(dial_error("[::1]", port, 5000), 0);
    close(fd);
}

Test(backend, a_refusal_is_told_as_such, .init = setup, .fini = teardown)
{
    uint16_t port = 0;
    int fd = bound("127.0.0.1", &port); /* and nobody listens */

    cr_expect_eq(dial_error("127.0.0.1", port, 5000), -ECONNREFUSED);
    close(fd);
}

Test(backend, what_is_no_address_begins_nothing, .init = setup, .fini = teardown)
{
    struct backend_try *attempt = NULL;

    cr_expect_eq(backend_dial(&worker, "127.0.0.1", 1000, NULL, on_done, &attempt), -EINVAL);
    cr_expect_null(attempt);
}

Test(backend, one_that_is_silent_times_out_in_time, .init = setup, .fini = teardown)
{
    uint16_t port = 0;
    int fd = bound("127.0.0.1", &port), filler;
    uint64_t begun_us;

    make_black_hole(fd, &filler);
    begun_us = uv_hrtime() / 1000;
    cr_expect_eq(dial_error("127.0.0.1", port, 300), -ETIMEDOUT);
    cr_expect_geq(uv_hrtime() / 1000 - begun_us, 299000);
    cr_expect_lt(uv_hrtime() / 1000 - begun_us, 20000000); /* the kernel would take minutes */
    close(filler);
    close(fd);
}

Test(backend, no_descriptor_left_is_told_as_such, .init = setup, .fini = teardown)
{
    struct rlimit limit;
    struct dial d;
    int fd = dup(0);

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)fd;
    close(fd);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    dial(&d, "127.0.0.1", 9, 1000);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    wait_told(&d);
    cr_expect_eq(d.error, -EMFILE);
}

/* With one port to choose from, the kernel connects a socket with itself. */
Test(backend, a_connection_with_itself_is_a_refusal, .init = setup, .fini = teardown)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK};
    static const char range[] = "40000 40000";
    int fd, wrote;

    if (unshare(CLONE_NEWNET) < 0)
        cr_skip_test("no network namespaces for this user");
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
    close(fd);
    fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
    wrote = (int)write(fd, range, strlen(range));
    close(fd);
    if (wrote < 0)
        cr_skip_test("the range of ports cannot be set");
    cr_expect_eq(dial_error("127.0.0.1", 40000, 5000), -ECONNREFUSED);
}

/* ---- by name ---- */

Test(backend, a_name_of_the_hosts_file_is_connected)
{
    uint16_t port = 0;
    int fd = listener("127.0.0.1", &port);

    alarm(60);
    cr_assert_eq(names_new(&forward, &forward.names), 0);
    cr_assert_eq(names_start(forward.names), 0);
    cr_assert_eq(worker_init(&worker, &forward, 0), 0);
    cr_expect_eq(dial_error("localhost", port, 20000), 0);
    cr_expect_eq(dial_error("localhost", port, 20000), 0);
    cr_expect_eq(atomic_load(&forward.count.resolves), 1);
    teardown();
    close(fd);
}

Test(backend, a_name_that_does_not_resolve_is_told_as_such, .init = setup, .fini = teardown)
{
    cr_expect_eq(dial_error("none.test", 80, 20000), -ENOENT);
    cr_expect_eq(dial_error("none.test", 80, 20000), -ENOENT, "of what is known");
}

Test(backend, a_name_without_an_answer_times_out_in_time, .init = setup, .fini = teardown)
{
    hosts_hold("slow.test", true);
    cr_expect_eq(dial_error("slow.test", 80, 100), -ETIMEDOUT);
    hosts_hold("slow.test", false);
}

Test(backend, the_second_address_is_dialled_when_the_first_refuses, .init = setup, .fini = teardown)
{
    uint16_t port;
    int a, b;
    uint64_t fastest_us = UINT64_MAX;

    bind_both("127.0.0.1", "127.0.0.2", &a, &b, &port);
    listen(b, 128);
    hosts_set("two.test", "127.0.0.1 127.0.0.2");
    for (int i = 0; i < 20; i++) {
        uint64_t begun_us = uv_hrtime() / 1000, took_us;
        struct dial d;

        dial(&d, "two.test", port, 20000);
        wait_told(&d);
        took_us = uv_hrtime() / 1000 - begun_us;
        if (took_us < fastest_us)
            fastest_us = took_us;
        cr_assert_eq(d.error, 0);
        expect_peer(d.leg, "127.0.0.2");
        leg_close(d.leg);
    }
    cr_expect_lt(fastest_us, 240000, "it does not wait for its turn");
    close(a);
    close(b);
}

Test(backend, the_second_address_has_its_turn_while_the_first_is_silent, .init = setup,
     .fini = teardown)
{
    uint16_t port;
    int a, b, filler;
    size_t open;
    struct dial d;
    uint64_t begun_us;

    bind_both("127.0.0.1", "127.0.0.2", &a, &b, &port);
    make_black_hole(a, &filler);
    listen(b, 1);
    hosts_set("two.test", "127.0.0.1 127.0.0.2");
    open = open_descriptors();
    begun_us = uv_hrtime() / 1000;
    dial(&d, "two.test", port, 20000);
    wait_told(&d);
    cr_assert_eq(d.error, 0);
    cr_expect_geq(uv_hrtime() / 1000 - begun_us, 249000);
    expect_peer(d.leg, "127.0.0.2");
    cr_expect_eq(open_descriptors(), open + 1, "the first is closed");
    leg_close(d.leg);
    close(filler);
    close(a);
    close(b);
}

Test(backend, a_refusal_says_more_than_a_time_out, .init = setup, .fini = teardown)
{
    uint16_t port;
    int a, b, filler;

    bind_both("127.0.0.1", "127.0.0.2", &a, &b, &port);
    make_black_hole(a, &filler);
    hosts_set("two.test", "127.0.0.1 127.0.0.2");
    cr_expect_eq(dial_error("two.test", port, 500), -ECONNREFUSED);
    close(filler);
    close(a);
    close(b);
}

Test(backend, when_all_addresses_refuse_so_does_the_backend, .init = setup, .fini = teardown)
{
    uint16_t port;
    int a, b;

    bind_both("127.0.0.1", "127.0.0.2", &a, &b, &port);
    hosts_set("two.test", "127.0.0.1 127.0.0.2");
    cr_expect_eq(dial_error("two.test", port, 20000), -ECONNREFUSED);
    close(a);
    close(b);
}

/* ---- cancelled ---- */

/* Whatever was on its way has come once another dial, begun later, is told. */
static void expect_never_told(const struct dial *d)
{
    uint16_t port = 0;
    int fd = listener("127.0.0.1", &port);

    cr_expect_eq(dial_error("127.0.0.1", port, 5000), 0);
    worker_turn(&worker, false);
    cr_expect_eq(d->told, 0);
    close(fd);
}

Test(backend, cancelled_while_it_connects_it_is_not_told, .init = setup, .fini = teardown)
{
    uint16_t port = 0, refused = 0;
    int fd = listener("127.0.0.1", &port), closed = bound("127.0.0.1", &refused);
    size_t open = open_descriptors();
    struct dial d;

    dial(&d, "127.0.0.1", port, 5000);
    backend_cancel(d.attempt);
    expect_never_told(&d);
    dial(&d, "127.0.0.1", refused, 5000);
    backend_cancel(d.attempt);
    expect_never_told(&d);
    cr_expect_eq(open_descriptors(), open);
    cr_expect_eq(worker.alarms.n, 0);
    close(fd);
    close(closed);
}

Test(backend, cancelled_while_two_addresses_are_tried_it_leaves_nothing, .init = setup,
     .fini = teardown)
{
    uint16_t port;
    int a, b, fillers[2];
    size_t open;
    struct dial d;

    bind_both("127.0.0.1", "127.0.0.2", &a, &b, &port);
    make_black_hole(a, &fillers[0]);
    make_black_hole(b, &fillers[1]);
    hosts_set("two.test", "127.0.0.1 127.0.0.2");
    open = open_descriptors();
    dial(&d, "two.test", port, 20000);
    while (open_descriptors() < open + 2)
        worker_turn(&worker, true);
    backend_cancel(d.attempt);
    cr_expect_eq(open_descriptors(), open);
    cr_expect_eq(worker.alarms.n, 0);
    expect_never_told(&d);
    close(fillers[0]);
    close(fillers[1]);
    close(a);
    close(b);
}

Test(backend, cancelled_while_its_name_is_asked_for_it_is_not_told, .init = setup, .fini = teardown)
{
    struct dial d;

    hosts_hold("slow.test", true);
    dial(&d, "slow.test", 80, 20000);
    cr_assert(hosts_wait_asked("slow.test", 1));
    backend_cancel(d.attempt);
    hosts_hold("slow.test", false);
    expect_never_told(&d);
}

Test(backend, cancelled_while_the_answer_is_on_its_way_it_is_not_told, .init = setup,
     .fini = teardown)
{
    struct dial d;

    hosts_set("a.test", "127.0.0.1");
    dial(&d, "a.test", 80, 20000);
    while (atomic_load(&forward.count.resolves) == 0)
        sched_yield(); /* alarm() is the deadline */
    backend_cancel(d.attempt);
    expect_never_told(&d);
    dial(&d, "none.test", 80, 20000);
    wait_told(&d);
    dial(&d, "none.test", 80, 20000); /* known: the mail is on its way at once */
    backend_cancel(d.attempt);
    expect_never_told(&d);
}

/* ---- many ---- */

#define MANY 200

Test(backend, many_at_once_are_all_told, .init = setup, .fini = teardown)
{
    static struct dial dials[MANY];
    uint16_t port = 0, refused = 0;
    int fd = listener("127.0.0.1", &port), closed = bound("127.0.0.1", &refused), filler;
    uint16_t silent = 0;
    int hole = bound("127.0.0.1", &silent);
    static const int expected[] = {0, -ECONNREFUSED, -ETIMEDOUT, -ENOENT};
    const uint16_t ports[] = {port, refused, silent, 80};

    listen(fd, MANY);
    make_black_hole(hole, &filler);
    for (int i = 0; i < MANY; i++)
        dial(&dials[i], i % 4 == 3 ? "none.test" : "127.0.0.1", ports[i % 4],
             i % 4 == 2 ? 200 : 20000);
    for (int i = 0; i < MANY; i++) {
        wait_told(&dials[i]);
        cr_expect_eq(dials[i].error, expected[i % 4]);
        leg_close(dials[i].leg);
    }
    cr_expect_eq(worker.alarms.n, 0);
    close(filler);
    close(hole);
    close(closed);
    close(fd);
}

/* Those of dials that were cancelled, too. */
static void take_all(int fd)
{
    int client;

    while ((client = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0)
        close(client);
}

Test(backend, thousands_of_dials_leave_no_descriptor_open, .init = setup, .fini = teardown)
{
    uint16_t port = 0, refused = 0;
    int fd = listener("127.0.0.1", &port), closed = bound("127.0.0.1", &refused);
    size_t open = open_descriptors();

    fcntl(fd, F_SETFL, O_NONBLOCK);
    hosts_set("here.test", "127.0.0.1");
    for (int i = 0; i < 2000; i++) {
        struct dial d;

        dial(&d, i % 2 ? "127.0.0.1" : "here.test", i % 3 ? port : refused, 20000);
        if (i % 5 == 0) {
            backend_cancel(d.attempt);
            continue;
        }
        wait_told(&d);
        cr_assert_eq(d.error, i % 3 ? 0 : -ECONNREFUSED);
        leg_reset(d.leg);
        take_all(fd);
    }
    cr_expect_eq(open_descriptors(), open);
    close(closed);
    close(fd);
}
