/* Ports: where they listen, who is let in, what happens without descriptors and at the end. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "forward/ingress_rig.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }
static void teardown(void) { rig_stop(&rig); }

static const struct forward_ingress automatic[] = {{.fallback = "fallback"}};
static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/* The descriptor, in this process, of the other end of a client's connection. */
static int other_end(int fd)
{
    struct sockaddr_in own = {0}, peer = {0};
    socklen_t len = sizeof(own);

    cr_assert_eq(getsockname(fd, (struct sockaddr *)&own, &len), 0);
    for (int other = 3; other < 1024; other++) {
        len = sizeof(peer);
        if (getpeername(other, (struct sockaddr *)&peer, &len) == 0 && peer.sin_family == AF_INET &&
            peer.sin_port == own.sin_port)
            return other;
    }
    return -1;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert_eq(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

Test(ingress, a_port_says_where_it_listens_and_is_bound_once, .init = setup, .fini = teardown)
{
    struct forward_ingress again[] = {{.host = "127.0.0.1", .name = "", .fallback = ""}};
    struct forward other = {0};
    char expected[64], text[64] = "untouched";

    rig_start(&rig, 1, automatic, 1);
    snprintf(expected, sizeof(expected), "127.0.0.1:%u", rig.ports[0]);
    cr_assert_str_eq(rig.text[0], expected);
    again[0].port = rig.ports[0];
    cr_assert_eq(ingress_new(&other, again, 1), 0);
    cr_assert_eq(ingress_listen(&other, 0, text, sizeof(text)), -EADDRINUSE);
    cr_assert_str_eq(text, "untouched");
    ingress_free(&other);
}

Test(ingress, a_port_without_a_host_takes_clients_of_both_families, .init = setup, .fini = teardown)
{
    static const struct forward_ingress ports[] = {{.host = "", .name = "mapped"}};
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct fake_ask ask;
    int fd, probe = socket(AF_INET6, SOCK_STREAM, 0), v6;
    bool has_v6 = probe >= 0 && bind(probe, (struct sockaddr *)&to, sizeof(to)) == 0;

    close(probe);
    FAKE_SET(holds, true);
    rig_start(&rig, 1, ports, 1);
    fd = dial_port(rig.ports[0]);
    cr_assert_geq(fd, 0);
    WAIT_FOR(fake_carry_begun() == 1);
    ask = fake_carry_last();
    cr_assert(IN6_IS_ADDR_V4MAPPED(&ask.tuple.client.ip));
    cr_assert_eq(ask.tuple.server.port, rig.ports[0]);
    close(fd);
    if (!has_v6)
        return;
    cr_assert_eq(strncmp(rig.text[0], "[::]:", 5), 0, "%s", rig.text[0]);
    v6 = socket(AF_INET6, SOCK_STREAM, 0);
    to.sin6_port = htons(rig.ports[0]);
    cr_assert_eq(connect(v6, (struct sockaddr *)&to, sizeof(to)), 0);
    WAIT_FOR(fake_carry_begun() == 2);
    ask = fake_carry_last();
    cr_assert(IN6_IS_ADDR_LOOPBACK(&ask.tuple.client.ip));
    cr_assert(IN6_IS_ADDR_LOOPBACK(&ask.tuple.server.ip));
    close(v6);
}

Test(ingress, a_client_is_not_delayed, .init = setup, .fini = teardown)
{
    int fd, end;

    rig_start(&rig, 1, automatic, 1);
    fd = dial_port(rig.ports[0]);
    RIG_WAIT(&rig, c.clients == 1);
    end = other_end(fd);
    cr_assert_geq(end, 0);
    cr_expect_eq(option(end, IPPROTO_TCP, TCP_NODELAY), 1);
    close(fd);
}

Test(ingress, over_ingress_connections_the_next_is_closed_and_its_place_can_be_had_later,
     .init = setup, .fini = teardown)
{
    int fds[3];

    rig.forward.limits.ingress_connections = 2;
    rig_start(&rig, 2, automatic, 1);
    for (int i = 0; i < 3; i++) {
        fds[i] = dial_port(rig.ports[0]);
        RIG_WAIT(&rig, c.accepted == (uint64_t)i + 1);
    }
    cr_assert(hears_reset(fds[2]));
    RIG_WAIT(&rig, c.clients == 2 && c.closed_over_limit == 1);
    close(fds[0]);
    RIG_WAIT(&rig, c.clients == 1);
    close(fds[2]);
    fds[2] = dial_port(rig.ports[0]);
    RIG_WAIT(&rig, c.clients == 2 && c.closed_over_limit == 1);
    close(fds[1]);
    close(fds[2]);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert(rig_adds_up(&rig));
}

Test(ingress, one_address_has_its_share_and_another_its_own, .init = setup, .fini = teardown)
{
    int fds[4];

    rig.forward.limits.ingress_unrouted_per_source = 2;
    rig.forward.limits.ingress_per_source = 3;
    FAKE_SET(holds, true);
    rig_start(&rig, 1, automatic, 1);
    for (int i = 0; i < 2; i++)
        fds[i] = dial_port(rig.ports[0]);
    RIG_WAIT(&rig, c.unrouted == 2);
    fds[2] = dial_port(rig.ports[0]);
    cr_assert(hears_reset(fds[2])); /* not before the others have said where to */
    close(fds[2]);
    say_text(fds[0], request);
    WAIT_FOR(fake_carry_held() == 1);
    fds[2] = dial_port(rig.ports[0]);
    RIG_WAIT(&rig, c.clients == 3 && c.unrouted == 2);
    say_text(fds[2], request);
    WAIT_FOR(fake_carry_held() == 2);
    fds[3] = dial_port(rig.ports[0]);
    cr_assert(hears_reset(fds[3])); /* three in all */
    close(fds[3]);
    fds[3] = dial_from("127.0.0.9", rig.ports[0]);
    RIG_WAIT(&rig, c.clients == 4 && c.closed_over_limit == 2);
    for (int i = 0; i < 4; i++)
        break_off(fds[i]);
    RIG_WAIT(&rig, c.clients == 0 && c.unrouted == 0);
    cr_assert(rig_adds_up(&rig));
    for (int i = 0; i < 2; i++)
        fds[i] = dial_port(rig.ports[0]);
    RIG_WAIT(&rig, c.clients == 2 && c.closed_over_limit == 2);
    close(fds[0]);
    close(fds[1]);
}

Test(ingress, without_descriptors_clients_are_turned_away_and_later_ones_served, .init = setup,
     .fini = teardown)
{
    struct rlimit old, tight;
    int fds[8], other;
    uint64_t began_ms;

    FAKE_SET(holds, true);
    rig_start(&rig, 1, automatic, 1);
    close(dial_port(rig.ports[0]));
    RIG_WAIT(&rig, c.accepted == 1 && c.clients == 0); /* the worker has all that it needs */
    for (int i = 0; i < 8; i++)
        cr_assert_geq(fds[i] = socket(AF_INET, SOCK_STREAM, 0), 0);
    cr_assert_geq(other = dup(fds[7]), 0);
    close(other); /* the lowest that is free */
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    tight = (struct rlimit){.rlim_cur = (rlim_t)other, .rlim_max = old.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &tight), 0);
    began_ms = now_ms();
    for (int i = 0; i < 8; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET,
                                 .sin_port = htons(rig.ports[0]),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

        cr_assert_eq(connect(fds[i], (struct sockaddr *)&to, sizeof(to)), 0);
    }
    RIG_WAIT(&rig, c.closed_no_descriptor >= 2);
    cr_assert_geq(now_ms() - began_ms, 100); /* between the two */
    RIG_WAIT(&rig, c.accepted == 1 + c.closed_no_descriptor);
    cr_assert(hears_reset(fds[0]));
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    say_text(fds[7], request);
    WAIT_FOR(fake_carry_begun() == 1);
    for (int i = 0; i < 8; i++)
        break_off(fds[i]);
    RIG_WAIT(&rig, c.accepted == 9 && c.clients == 0);
    cr_assert(rig_adds_up(&rig));
}

Test(ingress, a_drained_port_serves_its_queue_and_takes_nobody_else, .init = setup,
     .fini = teardown)
{
    int fds[64], backend, late;

    rig_start(&rig, 2, automatic, 1);
    rig_hold(&rig);
    for (int i = 0; i < 64; i++)
        cr_assert_geq(fds[i] = dial_port(rig.ports[0]), 0);
    rig_drain(&rig);
    RIG_WAIT(&rig, c.clients == 64);
    late = dial_port(rig.ports[0]);
    cr_assert_eq(late, -ECONNREFUSED);
    for (int i = 0; i < 64; i++) {
        say_text(fds[i], request);
        backend = take_backend(&rig);
        cr_assert(hears_text(backend, request));
        say_text(backend, "answer");
        cr_assert(hears_text(fds[i], "answer"));
        close(backend);
        close(fds[i]);
    }
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_DONE], 64);
}

Test(ingress, who_is_not_joined_when_a_worker_stops_is_reset, .init = setup, .fini = teardown)
{
    static const struct forward_ingress ports[] = {{.fallback = ""}, {.name = "mapped"}};
    int reading, carried, parting;
    char text[2048];

    FAKE_SET(holds, true);
    FAKE_SET(begins, FORWARD_NO_SUCH_NAME);
    rig_start(&rig, 1, ports, 2);
    parting = dial_port(rig.ports[0]);
    say_text(parting, request);
    cr_assert_gt(hear_all(parting, text, sizeof(text)), 0);
    FAKE_SET(begins, FORWARD_DONE);
    reading = dial_port(rig.ports[0]);
    say_text(reading, "GET / HT");
    carried = dial_port(rig.ports[1]);
    WAIT_FOR(fake_carry_held() == 1);
    RIG_WAIT(&rig, c.clients >= 2);
    rig_stop(&rig);
    cr_assert(hears_reset(reading));
    cr_assert(hears_reset(carried));
    cr_assert_eq(fake_carry_cancelled(), 1);
    close(reading);
    close(carried);
    close(parting);
}

#define KINDS 12u /* odd: of a mapped port */
/* One client of kind `kind`, through to its end. */
static void one_client(unsigned kind)
{
    char text[2048];
    int fd, backend;

    FAKE_SET(end, kind / 2 == 3 ? FORWARD_BACKEND_REFUSED : FORWARD_DONE);
    FAKE_SET(holds, kind / 2 == 5);
    fd = dial_port(rig.ports[kind % 2]);
    if (fd < 0 && kind == 7) /* the reset was there before connect(2) was back */
        return;
    cr_assert_geq(fd, 0);
    switch (kind / 2) {
    case 0: /* joined, ended by the backend */
        say_text(fd, request);
        backend = take_backend(&rig);
        cr_assert(hears_text(backend, request));
        close(backend);
        cr_assert(hears_end(fd));
        close(fd);
        break;
    case 1: /* joined, broken off */
        say_text(fd, request);
        backend = take_backend(&rig);
        cr_assert(hears_text(backend, request));
        break_off(fd);
        cr_assert(hears_reset(backend));
        close(backend);
        break;
    case 2: /* not a word; a mapped port joins it nevertheless */
        close(fd);
        if (kind % 2)
            close(take_backend(&rig));
        break;
    case 3: /* refused */
        if (kind % 2) {
            cr_assert(hears_reset(fd));
        } else {
            say_text(fd, request);
            cr_assert_gt(hear_all(fd, text, sizeof(text)), 0);
        }
        close(fd);
        break;
    case 4: /* no request, or gone amid it */
        if (kind % 2) {
            backend = take_backend(&rig);
            break_off(fd);
            cr_assert(hears_reset(backend));
            close(backend);
        } else {
            say_text(fd, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
            cr_assert_gt(hear_all(fd, text, sizeof(text)), 0);
            close(fd);
        }
        break;
    case 5: /* gone while it waits */
        say_text(fd, request);
        WAIT_FOR(fake_carry_held() == 1);
        break_off(fd);
        WAIT_FOR(fake_carry_held() == 0);
        break;
    }
}

Test(ingress, five_thousand_clients_of_all_kinds_leave_nothing_behind, .init = setup,
     .fini = teardown, .timeout = 110)
{
    static const struct forward_ingress ports[] = {{.fallback = "fallback"}, {.name = "mapped"}};
    size_t before;

    rig_start(&rig, 2, ports, 2);
    FAKE_SET(in_passage, true);
    for (unsigned i = 0; i < KINDS; i++)
        one_client(i); /* what is opened once */
    RIG_WAIT(&rig, c.clients == 0);
    before = open_descriptors();
    for (unsigned i = 0; i < 5000; i++)
        one_client(i % KINDS);
    RIG_WAIT(&rig, c.clients == 0 && c.unrouted == 0 && c.relayed == 0);
    WAIT_FOR(open_descriptors() <= before + 4); /* pooled pipes */
    cr_assert_eq(atomic_load(&rig.forward.clients), 0);
    cr_assert(rig_adds_up(&rig));
    cr_assert_gt(fake_carry_left(), 1000);
    cr_assert_gt(fake_carry_cancelled(), 800);
}
