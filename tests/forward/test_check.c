/* Looks at backends: what is asked, what counts as an answer, and that it ends in time. The
 * worker's loop is run by the test, between what its backends say. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/check.h"
#include "forward/hosts.h"
#include "forward/http_status.h"
#include "forward/inside.h"
#include "forward/names.h"
#include "forward/net.h"

#define LONG_MS 20000u

static struct forward forward;
static struct worker worker;
static struct {
    unsigned n;
    uint64_t number;
    int error;
    char text[LIMIT_STATUS_TEXT + 1];
} told;

static void on_checked(void *ctx, uint64_t number, int error, const char *text)
{
    told.n++;
    told.number = number;
    told.error = error;
    snprintf(told.text, sizeof(told.text), "%s", text);
}

static void setup(void)
{
    const struct names_how how = {.resolve = hosts_resolve, .again_ms = 3600000};

    alarm(60);
    forward.ops.checked = on_checked;
    forward.workers = &worker;
    forward.n_workers = 1;
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

TestSuite(check, .init = setup, .fini = teardown);

static void begin(const char *backend, enum proxy_version proxy, const char *path, uint32_t ms)
{
    memset(&told, 0, sizeof(told));
    uv_update_time(&worker.loop);
    cr_assert_eq(forward_check(&forward, 42, backend, proxy, path, ms), 0);
}

static void expect_told(int error, const char *text)
{
    while (told.n == 0)
        worker_turn(&worker, true);
    worker_turn(&worker, false);
    cr_assert_eq(told.n, 1);
    cr_expect_eq(told.number, 42);
    cr_expect_eq(told.error, error, "%d and not %d: %s", told.error, error, told.text);
    cr_expect_str_eq(told.text, text);
}

static void expect_nothing_left(void)
{
    while (!ring_empty(&worker.checks))
        worker_turn(&worker, true);
    worker_turn(&worker, false);
    cr_expect_eq(worker.alarms.n, 0);
    cr_expect_eq(worker.legs.n, 0);
    cr_expect_eq(told.n, 1);
}

/* Turns the worker until there is something to read, or to accept. */
static void until_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    while (poll(&one, 1, 0) == 0)
        worker_turn(&worker, false); /* alarm() is the deadline */
}

static int accepted(int listener)
{
    until_readable(listener);
    return net_accept(listener);
}

/* The whole request, with a NUL. */
static size_t read_request(int fd, char *out, size_t size)
{
    size_t n = 0;

    do {
        ssize_t got;

        until_readable(fd);
        got = recv(fd, out + n, size - 1 - n, 0);
        cr_assert_gt(got, 0);
        n += (size_t)got;
        out[n] = '\0';
    } while (n < 4 || memcmp(out + n - 4, "\r\n\r\n", 4) != 0);
    return n;
}

/* A backend that answers that, in pieces of one byte, and then waits for what the check does. */
static void look_at_answer(const char *answer, int error, const char *text)
{
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;

    begin(backend, PROXY_OFF, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    for (size_t i = 0; i < strlen(answer) && told.n == 0; i++) {
        net_send(fd, answer + i, 1);
        worker_turn(&worker, false);
    }
    expect_told(error, text);
    expect_nothing_left();
    cr_expect(net_is_reset(fd), "it is not left to the backend to close it");
    close(fd);
    close(listener);
}

/* ---- TCP ---- */

Test(check, a_backend_that_accepts_is_good_and_hears_nothing)
{
    char backend[32], byte;
    int listener = net_listen(backend), fd;

    begin(backend, PROXY_V2, NULL, LONG_MS);
    expect_told(0, "connected");
    fd = accepted(listener);
    cr_expect_leq(recv(fd, &byte, 1, 0), 0);
    close(fd);
    close(listener);
}

Test(check, a_backend_that_refuses_is_told_as_such)
{
    char backend[32];
    int listener = net_listen(backend);

    shutdown(listener, SHUT_RD); /* the port stays ours, and nobody listens */
    begin(backend, PROXY_OFF, NULL, LONG_MS);
    expect_told(-ECONNREFUSED, "Connection refused");
    begin(backend, PROXY_OFF, "/", LONG_MS);
    expect_told(-ECONNREFUSED, "Connection refused");
    close(listener);
}

Test(check, a_name_is_resolved_as_for_clients)
{
    char backend[32], by_name[64];
    int listener = net_listen(backend);

    hosts_set("here.test", "127.0.0.1");
    snprintf(by_name, sizeof(by_name), "here.test%s", strrchr(backend, ':'));
    begin(by_name, PROXY_OFF, NULL, LONG_MS);
    expect_told(0, "connected");
    begin("none.test:80", PROXY_OFF, NULL, LONG_MS);
    expect_told(-ENOENT, "its name does not resolve");
    close(listener);
}

/* ---- HTTP ---- */

Test(check, an_http_check_asks_for_its_path_and_says_who_asks)
{
    char backend[32], request[2048], expected[2048];
    int listener = net_listen(backend), fd;

    begin(backend, PROXY_OFF, "/healthz?full=1", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    snprintf(expected, sizeof(expected),
             "GET /healthz?full=1 HTTP/1.1\r\nHost: %s\r\nUser-Agent: meshd/" MESHD_VERSION
             "\r\nAccept: */*\r\nConnection: close\r\n\r\n",
             backend);
    cr_expect_str_eq(request, expected);
    net_send(fd, "HTTP/1.1 200 OK\r\n", 17);
    expect_told(0, "answered 200");
    close(fd);
    close(listener);
}

Test(check, the_longest_path_is_asked_for_whole)
{
    char backend[32], request[2048], path[LIMIT_CHECK_PATH + 2] = "/";
    int listener = net_listen(backend), fd;

    memset(path + 1, 'a', LIMIT_CHECK_PATH - 1);
    begin(backend, PROXY_V2, path, LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    cr_expect(strncmp(request + 16 + 4, path, LIMIT_CHECK_PATH) == 0);
    close(fd);
    expect_told(-EPROTO, "ended the connection without an answer");
    path[LIMIT_CHECK_PATH] = 'a';
    cr_expect_eq(forward_check(&forward, 1, backend, PROXY_OFF, path, 1000), -EINVAL);
    close(listener);
}

Test(check, a_backend_that_wants_a_proxy_header_is_told_that_there_is_no_client)
{
    static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;

    begin(backend, PROXY_V1, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    cr_expect(strncmp(request, "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n", 31) == 0);
    close(fd);
    expect_told(-EPROTO, "ended the connection without an answer");
    begin(backend, PROXY_V2, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    cr_expect(memcmp(request, v2, 16) == 0);
    cr_expect(strncmp(request + 16, "GET / HTTP/1.1\r\n", 16) == 0);
    close(fd);
    expect_told(-EPROTO, "ended the connection without an answer");
    close(listener);
}

Test(check, statuses_of_200_to_399_are_good_and_others_are_named)
{
    look_at_answer("HTTP/1.1 200 OK\r\n", 0, "answered 200");
    look_at_answer("HTTP/1.0 204 No Content\r\n\r\n", 0, "answered 204");
    look_at_answer("HTTP/1.1 399 \r\n", 0, "answered 399");
    look_at_answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\n", 0, "answered 302");
    look_at_answer("HTTP/1.1 101 Switching Protocols\r\n", -EPROTO, "answered 101");
    look_at_answer("HTTP/1.1 400 Bad\r\n", -EPROTO, "answered 400");
    look_at_answer("HTTP/1.1 503 Service Unavailable\r\n\r\n", -EPROTO, "answered 503");
    look_at_answer("SSH-2.0-OpenSSH_9.2\r\n", -EPROTO, "answered what is no HTTP/1.x");
}

/* Else it would find that in its log, every few seconds. */
Test(check, a_backend_may_say_all_of_its_answer_and_end_it_in_order)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwell";
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;

    begin(backend, PROXY_OFF, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    net_send(fd, answer, 20);
    expect_told(0, "answered 200");
    net_send(fd, answer + 20, sizeof(answer) - 21);
    shutdown(fd, SHUT_WR);
    expect_nothing_left();
    close(fd);
    close(listener);
}

Test(check, of_an_answer_without_end_a_little_is_read)
{
    static char much[1 << 20];
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;
    unsigned turns = 0;

    begin(backend, PROXY_OFF, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    net_send(fd, "HTTP/1.1 200 OK\r\n", 17);
    send(fd, much, sizeof(much), MSG_NOSIGNAL | MSG_DONTWAIT);
    expect_told(0, "answered 200");
    for (; !ring_empty(&worker.checks); turns++)
        worker_turn(&worker, false);
    cr_expect_lt(turns, 60, "so many bytes end it, not the time");
    expect_nothing_left();
    cr_expect(net_is_reset(fd));
    close(fd);
    close(listener);
}

Test(check, an_answer_that_ends_too_early_is_none)
{
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;

    begin(backend, PROXY_OFF, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    net_send(fd, "HTTP/1.1 200", 12);
    close(fd);
    expect_told(-EPROTO, "ended the connection without an answer");
    begin(backend, PROXY_OFF, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    net_reset(fd);
    expect_told(-ECONNRESET, "broke the connection off without an answer");
    close(listener);
}

/* ---- limits ---- */

Test(check, a_backend_that_accepts_and_says_nothing_is_given_up_in_time)
{
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;
    uint64_t begun_us = uv_hrtime() / 1000, took_us;

    begin(backend, PROXY_OFF, "/", 200);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    expect_told(-ETIMEDOUT, "connected and did not answer in time");
    took_us = uv_hrtime() / 1000 - begun_us;
    cr_expect_geq(took_us, 199000);
    cr_expect_lt(took_us, 20000000);
    cr_expect(net_is_reset(fd));
    close(fd);
    close(listener);
}

/* One deadline: bytes that come do not move it. */
Test(check, a_backend_that_goes_on_and_on_is_given_up_in_time)
{
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;

    begin(backend, PROXY_OFF, "/", 300);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    net_send(fd, "HTTP/1.1 100 \r\n", 15);
    while (told.n == 0) { /* a byte a turn: far below HTTP_STATUS_BYTES in that time */
        struct pollfd never = {.fd = -1};

        if (send(fd, "a", 1, MSG_NOSIGNAL) < 0)
            break;
        poll(&never, 1, 1);
        worker_turn(&worker, false);
    }
    expect_told(-ETIMEDOUT, "connected and did not answer in time");
    close(fd);
    close(listener);
}

Test(check, an_answer_without_end_is_read_up_to_a_length)
{
    static char much[HTTP_STATUS_BYTES];
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;

    memset(much, 'a', sizeof(much));
    begin(backend, PROXY_OFF, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    net_send(fd, "HTTP/1.1 100 \r\n", 15);
    net_send(fd, much, sizeof(much));
    expect_told(-EPROTO, "answered what is no HTTP/1.x");
    close(fd);
    close(listener);
}

Test(check, a_backend_that_does_not_accept_is_given_up_in_time)
{
    struct sockaddr_in at;
    socklen_t len = sizeof(at);
    char backend[32];
    int hole = net_listen(backend), filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(listen(hole, 0), 0);
    cr_assert_eq(getsockname(hole, (struct sockaddr *)&at, &len), 0);
    cr_assert_eq(connect(filler, (struct sockaddr *)&at, len), 0);
    begin(backend, PROXY_OFF, NULL, 200);
    expect_told(-ETIMEDOUT, "did not connect in time");
    close(filler);
    close(hole);
}

Test(check, what_would_change_the_request_is_not_asked_for)
{
    static const char *const paths[] = {"",    "healthz", "/a b",  "/a\r\nX: y",
                                        "/\t", "/\x7f",   "/\xe4", "http://a/"};
    static const char *const backends[] = {"", "127.0.0.1", "127.0.0.1:0", "a b:80", ":80"};

    memset(&told, 0, sizeof(told));
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
        cr_expect_eq(forward_check(&forward, 1, "127.0.0.1:80", PROXY_OFF, paths[i], 1000), -EINVAL,
                     "%s", paths[i]);
    for (size_t i = 0; i < sizeof(backends) / sizeof(*backends); i++)
        cr_expect_eq(forward_check(&forward, 1, backends[i], PROXY_OFF, NULL, 1000), -EINVAL, "%s",
                     backends[i]);
    worker_turn(&worker, false);
    cr_expect_eq(told.n, 0);
}

Test(check, many_at_once_are_each_told_once)
{
    enum { MANY = 200 };
    char backend[32];
    int listener = net_listen(backend);

    listen(listener, MANY);
    memset(&told, 0, sizeof(told));
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(
            forward_check(&forward, 42, i % 2 ? backend : "none.test:1", PROXY_OFF, NULL, LONG_MS),
            0);
    while (told.n < MANY)
        worker_turn(&worker, true);
    worker_turn(&worker, false);
    cr_expect_eq(told.n, MANY);
    cr_expect(ring_empty(&worker.checks));
    close(listener);
}

/* ---- the end ---- */

Test(check, the_end_of_the_worker_ends_those_that_run_and_tells_nobody)
{
    char backend[32], request[2048];
    int listener = net_listen(backend), fd;

    hosts_hold("slow.test", true);
    begin(backend, PROXY_OFF, "/", LONG_MS);
    fd = accepted(listener);
    read_request(fd, request, sizeof(request));
    cr_assert_eq(forward_check(&forward, 43, "slow.test:80", PROXY_OFF, NULL, LONG_MS), 0);
    worker_turn(&worker, false);
    cr_assert(hosts_wait_asked("slow.test", 1));
    cr_assert_eq(forward_check(&forward, 44, backend, PROXY_OFF, NULL, LONG_MS), 0); /* not read */
    checks_worker_stop(&worker);
    worker.stopping = true;
    worker_turn(&worker, false);
    worker.stopping = false; /* for teardown */
    cr_expect(net_is_reset(fd));
    cr_expect_eq(told.n, 0);
    cr_expect_eq(worker.alarms.n, 0);
    hosts_hold("slow.test", false);
    cr_expect(net_nobody_comes(listener));
    close(fd);
    close(listener);
}
