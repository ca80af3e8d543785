/* From accept to a whole head: whose request is taken, and what the others are told. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "support.h"
#include "web/head.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }
static void teardown(void) { rig_stop(&rig); }

TestSuite(web_arrival, .init = setup, .fini = teardown);

static void expect(const char *path, const char *body)
{
    struct reply reply = get(&rig, path, "");

    cr_expect_eq(reply.status, 200, "%s: %d", path, reply.status);
    cr_expect_str_eq(reply.body, body);
    reply_fini(&reply);
}

Test(web_arrival, a_request_may_come_a_byte_at_a_time)
{
    const char *text = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct reply reply;
    int fd;

    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    for (const char *c = text; *c; c++)
        cr_assert_eq(send(fd, c, 1, MSG_NOSIGNAL), 1);
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    close(fd);
}

Test(web_arrival, other_methods_bodies_and_nobodys_requests_are_refused_and_the_connection_ends)
{
    static const struct {
        const char *text;
        int status;
        const char *in_head;
    } cases[] = {
        {"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405,
         "\r\nAllow: GET, HEAD\r\n"},
        {"DELETE /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, ""},
        {"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, ""},
        {"get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, ""},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 400, ""},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
         "3\r\nabc\r\n0\r\n\r\n",
         400, ""},
        {"GET /healthz HTTP/1.1\r\n\r\n", 400, ""},
        {"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, ""},
        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400, ""},
        {"GET /healthz%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, ""},
        {"GET /healthz\r\n\r\n", 400, ""},
        {"rubbish\r\n\r\n", 400, ""},
        {"\x16\x03\x01\x02", 400, ""},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ""},
    };

    rig_start(&rig);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = rig_connect(&rig, NULL);
        struct reply reply;

        send_text(fd, cases[i].text);
        reply = reply_read(fd, false);
        cr_expect_eq(reply.status, cases[i].status, "%s%d", cases[i].text, reply.status);
        cr_expect(strstr(reply.head, cases[i].in_head));
        cr_expect(strstr(reply.head, "\r\nContent-Type: application/json\r\n"));
        cr_expect_eq(strncmp(reply.body, "{\"error\":{", 10), 0, "%s", reply.body);
        cr_expect_eq(reply.body[reply.len - 1], '\n');
        cr_expect(is_closed(fd));
        reply_fini(&reply);
        close(fd);
    }
    cr_expect_eq(atomic_load(&rig.asked), 0);
    cr_expect_eq(rig_count(&rig).requests, sizeof cases / sizeof *cases);
    cr_expect_eq(rig_count(&rig).refused, sizeof cases / sizeof *cases);
}

/* For each of them, libmicrohttpd keeps a record: it must never lack room for one. */
Test(web_arrival, a_head_with_as_many_records_as_may_be_is_answered)
{
    static const char *const lines[] = {"a:\n", "Cookie: a", "GET /healthz?"};
    char text[HEAD_BYTES + 1], *at;
    struct reply reply;

    rig_start(&rig);
    for (size_t i = 0; i < 3; i++) {
        int fd = rig_connect(&rig, NULL);

        at = stpcpy(text, i == 2 ? lines[2] : "GET /healthz HTTP/1.0\n");
        for (size_t n = 1; i != 1 && n < HEAD_RECORDS; n++)
            at = stpcpy(at, i == 2 ? "&" : lines[0]);
        if (i == 1) { /* and as many bytes, which are kept twice */
            at = stpcpy(at, lines[1]);
            for (size_t n = 3; n < HEAD_RECORDS; n++)
                at = stpcpy(at, ";a=b");
            memset(at, 'c', (size_t)(text + HEAD_BYTES - 2 - at));
            at = text + HEAD_BYTES - 2;
        }
        strcpy(at, i == 2 ? " HTTP/1.0\n\n" : "\n\n");
        send_text(fd, text);
        reply = reply_read(fd, false);
        cr_expect_eq(reply.status, i == 2 ? 400 : 200, "%zu: %d %s", i, reply.status, reply.body);
        cr_expect(strstr(reply.head, "\r\nContent-Type: application/json\r\n"));
        reply_fini(&reply);
        close(fd);
    }
}

/* While there are bytes that nobody has read, closing would be a reset. */
Test(web_arrival, who_is_refused_in_the_middle_of_a_long_body_still_reads_why)
{
    static char body[1 << 20];
    struct reply reply;
    int fd;

    rig.times.leave = 60000;
    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    memset(body, 'a', sizeof body - 1);
    send_text(fd, "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048575\r\n\r\n");
    send_text(fd, body);
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 405);
    cr_expect(strstr(reply.body, "GET and HEAD"));
    reply_fini(&reply);
    RIG_WAIT(&rig, c.connections == 1);
    close(fd);
    RIG_WAIT(&rig, c.connections == 0);
}

Test(web_arrival, who_is_refused_and_does_not_go_is_cut_off)
{
    struct reply reply;
    int fd;

    rig.times.leave = 300;
    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "rubbish\n\n");
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 400);
    reply_fini(&reply);
    RIG_WAIT(&rig, c.connections == 0);
    close(fd);
}

/* With room for a small part of an answer. */
static int connect_small(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(rig.port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int small = 4096;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* The kernel has all of it at once, and would keep it for whoever does not read. */
Test(web_arrival, who_does_not_read_a_short_answer_is_counted_and_cut_off_too)
{
    struct reply whole, cut;
    int fds[2];

    rig.times.unread = 700;
    rig_start(&rig);
    whole = get(&rig, "/", "");
    for (int i = 0; i < 2; i++) {
        fds[i] = connect_small();
        send_text(fds[i], "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if (i == 1)
            shutdown(fds[i], SHUT_WR);
    }
    RIG_WAIT(&rig, c.requests == 3 && c.closed_unread == 2 && c.connections == 0);
    for (int i = 0; i < 2; i++) {
        cut = reply_read(fds[i], false);
        cr_expect_lt(cut.len, whole.len);
        reply_fini(&cut);
        close(fds[i]);
    }
    reply_fini(&whole);
}

Test(web_arrival, who_resets_the_connection_has_nothing_left_to_read)
{
    const struct linger none = {.l_onoff = 1};
    static const char *const paths[] = {"/", "/events", "/v1/services"};
    char many[4096], *at = many;

    for (int i = 0; i < 200; i++)
        at += sprintf(at, "s%d=h:1 ", i);
    cr_assert_eq(put_text(rig.reg, "p3", "192.0.2.3", 1, many), 0);
    rig_start(&rig);
    for (unsigned i = 0; i < 3; i++) {
        int fd = connect_small();
        char text[64];

        snprintf(text, sizeof text, "GET %s HTTP/1.0\r\n\r\n", paths[i]);
        send_text(fd, text);
        RIG_WAIT(&rig, c.requests == i + 1);
        if (i == 1)
            RIG_WAIT(&rig, atomic_load(&rig.asked) >= 1); /* it has been told of the maps */
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
        close(fd);
    }
    RIG_WAIT(&rig, c.connections == 0);
    cr_expect_eq(rig_count(&rig).closed_unread, 0);
}

Test(web_arrival, an_absolute_target_is_a_path_of_its_host)
{
    rig_start(&rig);
    expect("http://127.0.0.1:7480/v1/explain?name=web", "{\"explain\":\"web\"}\n");
    expect_error(&rig, "http://localhost/", "X: y\r\nHost: a\r\n", 400,
                 "the head has more than one Host");
    expect_error(&rig, "http://localhost/http://localhost/", "", 404, NOWHERE);
}

Test(web_arrival, heads_and_paths_that_are_too_long_are_refused)
{
    char *path = calloc(1, 9002), *more = calloc(1, 17002);

    rig_start(&rig);
    memset(path, 'a', 9000);
    *path = '/';
    memset(more, 'b', 17000);
    memcpy(more, "X: ", 3);
    memcpy(more + 16998, "\r\n", 2);
    expect_error(&rig, path, "", 414, "the path is longer than 8192 bytes");
    expect_error(&rig, "/healthz", more, 431, "the head is longer than 16384 bytes");
    free(path);
    free(more);
}

Test(web_arrival, a_head_that_does_not_end_takes_no_more_memory_than_one_connection_may)
{
    static char head[1 << 20];
    struct reply reply;
    int fd;

    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    memset(head, 'a', sizeof head - 1);
    memcpy(head, "GET /", 5);
    send(fd, head, sizeof head - 1, MSG_NOSIGNAL);
    reply = reply_read(fd, false);
    cr_expect(reply.status == 414 || reply.status == 431 || reply.status == 0, "%d", reply.status);
    reply_fini(&reply);
    close(fd);
    expect("/healthz", "{\"health\":\"\"}\n");
}

Test(web_arrival, a_connection_carries_one_request_and_says_so)
{
    struct reply reply;
    char end;
    int fd;

    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
                  "GET /v1/node HTTP/1.1\r\nHost: evil.example\r\n\r\nrubbish");
    reply = reply_read(fd, false);
    cr_expect_str_eq(reply.body, "{\"health\":\"\"}\n");
    cr_expect(strstr(reply.head, "\r\nConnection: close\r\n"));
    cr_expect_eq(recv(fd, &end, 1, 0), 0);
    cr_expect_eq(rig_count(&rig).requests, 1);
    reply_fini(&reply);
    close(fd);
}

/* As `nc -N` does. */
Test(web_arrival, who_sends_no_more_after_the_request_is_answered)
{
    struct reply reply;
    int fd;

    rig_start(&rig);
    for (int i = 0; i < 2; i++) {
        atomic_store(&rig.hold, i > 0);
        fd = rig_connect(&rig, NULL);
        send_text(fd, "GET /healthz HTTP/1.0\r\n\r\n");
        shutdown(fd, SHUT_WR);
        if (i > 0) {
            RIG_WAIT(&rig, atomic_load(&rig.asked) == 2);
            rig_answer_held(&rig);
        }
        reply = reply_read(fd, false);
        cr_expect_eq(reply.status, 200, "%d: %d", i, reply.status);
        cr_expect(is_closed(fd));
        reply_fini(&reply);
        close(fd);
    }
}

Test(web_arrival, a_head_has_its_time_in_all_whatever_drips)
{
    int fd, silent;
    uint64_t begun = rig_now_ms();

    rig.times.head = 700;
    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    silent = rig_connect(&rig, NULL);
    while (rig_count(&rig).closed_late < 2 && rig_now_ms() - begun < WAIT_MS) {
        send(fd, "G", 1, MSG_NOSIGNAL);
        rig_nap();
    }
    cr_expect_eq(rig_count(&rig).closed_late, 2);
    cr_expect(is_closed(fd));
    cr_expect(is_closed(silent));
    close(fd);
    close(silent);
}

/* As on a busy machine: half a head and the end are there before anybody looks. */
Test(web_arrival, who_has_left_before_it_was_accepted_is_not_waited_for)
{
    int gone[3], fd;
    struct reply reply;

    rig.times.head = 60000;
    rig_listen(&rig);
    for (int i = 0; i < 3; i++) {
        gone[i] = rig_connect(&rig, NULL);
        if (i > 0)
            send_text(gone[i], "GET /healthz HTTP/1.1\r\nHost: loc");
        close(gone[i]);
    }
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    rig_start(&rig);
    reply = reply_read(fd, false);
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    RIG_WAIT(&rig, c.connections == 0);
    cr_expect_eq(rig_count(&rig).closed_late, 0);
    close(fd);
}

/* ---- what is taken, libmicrohttpd takes too ---- */

#define MUTATIONS 1000

static uint64_t rng;

static size_t draw(size_t below)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (size_t)((rng >> 33) % below);
}

/* Puts a piece of syntax, or any byte, somewhere into text, which has room. */
static size_t mutate(char *text, size_t len)
{
    static const char *const pieces[] = {
        "\"",
        "=",
        ";",
        ",",
        " ",
        "\t",
        "%41",
        "+",
        "&",
        "?",
        "#",
        "/",
        "\n",
        "\r\n",
        ":",
        "\xc3\xbc",
        "\nCookie: a=\"",
        "=\"",
        "Connection: close\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 0 \r\n",
        "Range: bytes=0-\r\n",
        "Upgrade: h2c\r\n",
        "Connection: upgrade\r\n",
        "http://localhost",
        "%2f",
        "&=",
        "=&",
        "\r",
    };
    char any[2] = {(char)(1 + draw(255))};
    const char *piece = draw(4) ? pieces[draw(sizeof pieces / sizeof *pieces)] : any;
    size_t at = draw(len), n = strlen(piece), over = draw(2) ? 0 : n < len - at ? n : len - at;

    memmove(text + at + n, text + at + over, len - at - over);
    memcpy(text + at, piece, n);
    return len + n - over;
}

/* The next head that is good, after some changes to a good one. */
static size_t next_good(char *text, size_t size)
{
    static const char *const good[] = {
        "GET /v1/explain?name=web HTTP/1.1\r\nHost: localhost\r\nCookie: a=b; c=\"d\"\r\n\r\n",
        "GET http://127.0.0.1/v1/services?name=w*&state=stale HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.0\nIf-None-Match: W/\"0\", *\nCookie: =\";=\nCookie: x\n\n",
    };

    for (;;) {
        struct head_error error;
        size_t seen = 0, len;

        snprintf(text, size, "%s", good[draw(3)]);
        len = strlen(text);
        for (size_t n = 1 + draw(5); n; n--)
            len = mutate(text, len);
        if (head_length(text, len, &seen) == len && head_take(text, len, true, &error))
            return len;
    }
}

Test(web_arrival, what_is_taken_is_answered_by_us_alone)
{
    const char *given = getenv("MESHD_TEST_SEED");
    char text[1024], answer[4096];
    uint64_t seed = given ? strtoull(given, NULL, 10) : rig_now_ms();

    rng = seed;
    fprintf(stderr, "MESHD_TEST_SEED=%" PRIu64 "\n", seed);
    rig_start(&rig);
    for (int i = 0; i < MUTATIONS; i++) {
        int fd = rig_connect(&rig, NULL);
        size_t len = next_good(text, sizeof text), n = 0;
        ssize_t got;

        cr_assert_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
        while ((got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0)
            n += (size_t)got;
        answer[n] = '\0';
        cr_expect(n && strstr(answer, "\r\nReferrer-Policy: no-referrer\r\n"), "%.*s%s", (int)len,
                  text, answer);
        cr_expect_not(n && strstr(answer + 1, "HTTP/1.1 "), "%.*s%s", (int)len, text, answer);
        close(fd);
    }
}
