/* The server: what is asked and how it is answered, and who is cut off when. */
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

/* The node's other rooms may have used them up. */
Test(web, without_descriptors_it_waits_and_goes_on)
{
    struct rlimit all, few;
    int fds[64], n = 0, fd;
    struct reply reply;

    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    RIG_WAIT(&rig, c.connections == 1);
    getrlimit(RLIMIT_NOFILE, &all);
    few = all;
    few.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &few);
    close(fd);
    RIG_WAIT(&rig, c.connections == 0);
    fd = rig_connect(&rig, NULL);
    RIG_WAIT(&rig, c.connections == 1);
    while ((fds[n] = dup(0)) >= 0)
        n++;
    cr_assert_gt(n, 1);
    close(fds[--n]); /* one for the client's side, none for the server's */
    close(fd);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while (n)
        close(fds[--n]);
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    close(fd);
    setrlimit(RLIMIT_NOFILE, &all);
}
