/* The server: what is asked and how it is answered, and who is cut off when. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "support.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }
static void teardown(void) { rig_stop(&rig); }

TestSuite(web, .init = setup, .fini = teardown);

static void expect(const char *path, const char *body)
{
    struct reply reply = get(&rig, path, "");

    cr_expect_eq(reply.status, 200, "%s: %d", path, reply.status);
    cr_expect_str_eq(reply.body, body);
    reply_fini(&reply);
}

Test(web, questions_go_to_the_daemon_and_are_answered_once)
{
    rig_start(&rig);
    expect("/healthz", "{\"health\":\"\"}\n");
    expect("/readyz", "{\"ready\":\"\"}\n");
    expect("/v1/node", "{\"node\":\"\"}\n");
    expect("/v1/explain?name=WEB.", "{\"explain\":\"web\"}\n");
    expect("/v1/explain?name=%77eb", "{\"explain\":\"web\"}\n");
    cr_expect_eq(atomic_load(&rig.asked), 5);
    RIG_WAIT(&rig, atomic_load(&rig.dropped) == 5);
    cr_expect_eq(rig_count(&rig).requests, 5);
    cr_expect_eq(rig_count(&rig).refused, 0);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(web, every_answer_says_what_it_is_and_that_it_is_not_to_be_kept_or_run)
{
    static const char *const paths[] = {"/healthz", "/v1/services", "/nowhere", "/%00"};

    rig_start(&rig);
    for (size_t i = 0; i < 4; i++) {
        struct reply reply = get(&rig, paths[i], "Origin: http://evil.example\r\n");

        cr_expect(strstr(reply.head, "\r\nContent-Type: application/json\r\n"));
        cr_expect(strstr(reply.head, "\r\nCache-Control: no-store\r\n"));
        cr_expect(strstr(reply.head, "\r\nX-Content-Type-Options: nosniff\r\n"));
        cr_expect(strstr(reply.head, "\r\nContent-Security-Policy: default-src 'none'; "
                                     "frame-ancestors 'none'\r\n"));
        cr_expect(strstr(reply.head, "\r\nReferrer-Policy: no-referrer\r\n"));
        cr_expect(strstr(reply.head, " GMT\r\n"));
        cr_expect_not(strstr(reply.head, "Access-Control"));
        reply_fini(&reply);
    }
}

Test(web, errors_are_json_and_say_what_is_allowed)
{
    rig_start(&rig);
    expect_error(&rig, "/v1", "", 404, NOWHERE);
    expect_error(&rig, "/healthz/", "", 404, NOWHERE);
    expect_error(&rig, "/v1/explain", "", 400, "which name? ask for /v1/explain?name=NAME");
    expect_error(&rig, "/healthz?a=b", "", 400,
                 "an argument that is not known here; allowed: none");
    expect_error(&rig, "/v1/services?state=gone", "", 400,
                 "state: allowed: connected, stale, draining or unhealthy");
    expect_error(&rig, "/v1/explain?name=no.memory", "", 503,
                 "no memory for the answer; try again later");
    cr_expect_eq(rig_count(&rig).refused, 5); /* 503 is nobody's fault */
}

Test(web, a_head_asks_for_the_head_alone)
{
    static const struct {
        const char *path, *in_head;
    } cases[] = {
        {"/healthz", "\r\nContent-Length: 14\r\n"},
        {"/v1/services", "\r\nETag: "},
        {"/events", "\r\nContent-Type: text/event-stream\r\n"},
        {"/nowhere", "\r\nContent-Length: "},
        {"/%", "\r\nContent-Length: "},
    };
    char text[128], end;
    struct reply reply;

    rig_start(&rig);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = rig_connect(&rig, NULL);

        snprintf(text, sizeof text, "HEAD %s HTTP/1.1\r\nHost: localhost\r\n\r\n", cases[i].path);
        send_text(fd, text);
        reply = reply_read(fd, true);
        cr_expect(strstr(reply.head, cases[i].in_head), "%s", reply.head);
        cr_expect_eq(recv(fd, &end, 1, 0), 0, "%s: there is more", cases[i].path);
        reply_fini(&reply);
        close(fd);
    }
    RIG_WAIT(&rig, c.followers == 0);
}

Test(web, a_host_of_anothers_is_refused_on_loopback)
{
    int fd;
    struct reply reply;

    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /v1/services HTTP/1.1\r\nHost: evil.example:7480\r\n\r\n");
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 403);
    cr_expect(strstr(reply.body, "ask for localhost or 127.0.0.1"));
    reply_fini(&reply);
    close(fd);
    fd = rig_connect(&rig, NULL); /* no browser says that */
    send_text(fd, "GET /healthz HTTP/1.0\r\n\r\n");
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    close(fd);
}

Test(web, elsewhere_a_node_has_names_that_it_does_not_know)
{
    int fd;
    struct reply reply;

    rig.host = "";
    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: n1.example.org\r\n\r\n");
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    close(fd);
}

Test(web, when_the_main_loop_does_not_answer_the_node_is_not_well)
{
    rig.times.health = 1200;
    rig.times.asked = 1500;
    rig_start(&rig);
    atomic_store(&rig.hold, true);
    expect_error(&rig, "/healthz", "", 503, "the main loop has not answered for 1.2 s");
    rig_answer_held(&rig); /* too late: dropped */
    RIG_WAIT(&rig, atomic_load(&rig.dropped) == 1);
    expect_error(&rig, "/v1/node", "", 503, "the node has not answered for 1.5 s");
    atomic_store(&rig.hold, false);
    expect("/healthz", "{\"health\":\"\"}\n");
}

Test(web, an_answer_for_who_has_gone_is_dropped)
{
    int fd;

    rig.times.asked = rig.times.health = 300;
    rig_start(&rig);
    atomic_store(&rig.hold, true);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RIG_WAIT(&rig, atomic_load(&rig.asked) == 1);
    close(fd);
    rig_answer_held(&rig);
    RIG_WAIT(&rig, atomic_load(&rig.dropped) == 1 && c.connections == 0);
}

Test(web, who_is_asking_when_it_stops_is_cut_off)
{
    int fd, idle;

    rig_start(&rig);
    atomic_store(&rig.hold, true);
    idle = rig_connect(&rig, NULL);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RIG_WAIT(&rig, atomic_load(&rig.asked) == 1 && c.connections == 2);
    web_stop(rig.web);
    cr_expect(is_closed(fd));
    cr_expect(is_closed(idle));
    close(fd);
    close(idle);
    rig_answer_held(&rig); /* what comes after the end is dropped with it */
}

Test(web, at_the_limit_of_an_address_the_one_that_has_waited_longest_goes)
{
    int fds[4], other;
    struct reply reply;

    rig.limits.admin_per_source = 3;
    rig_start(&rig);
    other = rig_connect(&rig, "127.0.0.2");
    for (int i = 0; i < 3; i++)
        fds[i] = rig_connect(&rig, NULL);
    RIG_WAIT(&rig, c.connections == 4);
    fds[3] = rig_connect(&rig, NULL);
    cr_expect(is_closed(fds[0]));
    RIG_WAIT(&rig, c.closed_over_limit == 1 && c.connections == 4 && c.largest_source == 3);
    for (int i = 1; i < 5; i++) {
        int fd = i < 4 ? fds[i] : other;

        send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        reply = reply_read(fd, false);
        cr_expect_eq(reply.status, 200, "%d", i);
        reply_fini(&reply);
    }
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    close(other);
    RIG_WAIT(&rig, c.connections == 0 && c.largest_source == 0);
}

Test(web, who_is_being_answered_does_not_go_for_others)
{
    int fds[8], late;

    rig.limits.admin_connections = 8;
    rig_start(&rig);
    atomic_store(&rig.hold, true);
    for (int i = 0; i < 8; i++) {
        fds[i] = rig_connect(&rig, NULL);
        send_text(fds[i], "GET /v1/node HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    RIG_WAIT(&rig, atomic_load(&rig.asked) == 8);
    late = rig_connect(&rig, NULL);
    cr_expect(is_closed(late));
    cr_expect_eq(rig_count(&rig).connections, 8);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
    close(late);
}

/* ---- without descriptors: the node's other rooms may have used them up ---- */

#define FEW 64

/* What the process has left, but for sockets of clients that are yet to connect. */
struct shortage {
    struct rlimit all;
    int taken[FEW], n;
    int clients[8], n_clients;
};

static void shortage_begin(struct shortage *s)
{
    struct rlimit few;

    *s = (struct shortage){0};
    for (int i = 0; i < 8; i++)
        s->clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    getrlimit(RLIMIT_NOFILE, &s->all);
    few = s->all;
    few.rlim_cur = FEW;
    setrlimit(RLIMIT_NOFILE, &few);
    while ((s->taken[s->n] = dup(0)) >= 0)
        s->n++;
    cr_assert_gt(s->n, 1);
}

static void shortage_end(struct shortage *s)
{
    while (s->n)
        close(s->taken[--s->n]);
    setrlimit(RLIMIT_NOFILE, &s->all);
}

/* Asks for path, or says nothing (NULL). */
static int shortage_client(struct shortage *s, const char *path)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(rig.port)};
    int fd = s->clients[s->n_clients++];
    char text[128];

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    if (path) {
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
        send_text(fd, text);
    }
    return fd;
}

/* Keeps fd open: what it frees would be one for the node. */
static void expect_answer(int fd, int status, const char *body)
{
    struct reply reply = reply_read(fd, false);

    cr_expect_eq(reply.status, status, "%d", reply.status);
    cr_expect_str_eq(reply.body, body);
    reply_fini(&reply);
}

static void shortage_clients_leave(struct shortage *s)
{
    for (int i = 0; i < 8; i++)
        close(s->clients[i]);
}

Test(web, without_descriptors_probes_are_answered_and_nobody_else)
{
    static const char *const paths[] = {"/healthz", "/readyz",  "/metrics", "/v1/node",
                                        "/events",  "/healthz", "/readyz",  "/metrics"};
    static const char *const bodies[] = {"{\"health\":\"\"}\n", "{\"ready\":\"\"}\n",
                                         "{\"metrics\":\"\"}\n"};
    struct shortage s;

    rig.times.leave = 60000;
    rig_start(&rig);
    shortage_begin(&s);
    for (int i = 0; i < 8; i++) {
        int fd = shortage_client(&s, paths[i]);

        if (i == 3 || i == 4)
            expect_answer(
                fd, 503,
                "{\"error\":{\"status\":503,\"text\":\"the node has no descriptors left, but "
                "for /healthz, /readyz and /metrics; try again later\"}}\n");
        else
            expect_answer(fd, 200, bodies[i < 3 ? i : i - 5]);
    }
    /* Two were refused; and one that had its answer, and stayed, went for the last. */
    cr_expect_eq(rig_count(&rig).closed_no_descriptor, 2 + 1);
    cr_expect_eq(dup(0), -1);
    shortage_end(&s);
    shortage_clients_leave(&s);
    RIG_WAIT(&rig, c.connections == 0);
    expect("/v1/node", "{\"node\":\"\"}\n");
}

Test(web, without_descriptors_who_says_nothing_keeps_no_probe_out)
{
    struct shortage s;
    int fds[7];

    rig.times.head = 60000;
    rig_start(&rig);
    shortage_begin(&s);
    for (int i = 0; i < 7; i++) {
        fds[i] = shortage_client(&s, NULL);
        if (i >= 4)
            cr_expect(is_closed(fds[i - 4]));
        RIG_WAIT(&rig, c.connections == (i < 4 ? (uint64_t)i + 1 : 4));
    }
    expect_answer(shortage_client(&s, "/healthz"), 200, "{\"health\":\"\"}\n");
    cr_expect_eq(rig_count(&rig).closed_no_descriptor, 4);
    shortage_end(&s);
    shortage_clients_leave(&s);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(web, without_descriptors_the_fifth_at_once_waits_for_the_first)
{
    struct shortage s;
    int fds[5];

    rig_start(&rig);
    atomic_store(&rig.hold, true);
    shortage_begin(&s);
    for (int i = 0; i < 4; i++)
        fds[i] = shortage_client(&s, "/healthz");
    RIG_WAIT(&rig, atomic_load(&rig.asked) == 4);
    fds[4] = shortage_client(&s, "/healthz");
    rig_answer_held(&rig); /* the last of them */
    RIG_WAIT(&rig, atomic_load(&rig.asked) == 5);
    rig_answer_held(&rig);
    expect_answer(fds[4], 200, "{\"health\":\"\"}\n");
    shortage_end(&s);
    shortage_clients_leave(&s);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(web, without_descriptors_a_probe_has_its_time_in_all)
{
    struct shortage s;
    int fd;

    rig.times.head = 5000;
    rig.times.leave = 60000;
    rig_start(&rig);
    shortage_begin(&s);
    fd = shortage_client(&s, "/healthz");
    expect_answer(fd, 200, "{\"health\":\"\"}\n"); /* and does not go */
    RIG_WAIT(&rig, c.connections == 0 && c.closed_late == 1);
    shortage_end(&s);
    shortage_clients_leave(&s);
}
