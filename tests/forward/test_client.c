/* One client's life: the first words, waiting, joining, and what it is told otherwise. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "forward/ingress_rig.h"
#include "forward/reply.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }
static void teardown(void) { rig_stop(&rig); }

enum { PLAIN, WITH_DEFAULT, MAPPED };
static const struct forward_ingress ports[] = {[PLAIN] = {.name = ""},
                                               [WITH_DEFAULT] = {.fallback = "the-default"},
                                               [MAPPED] = {.name = "db"}};

static void start(void) { rig_start(&rig, 1, ports, 3); }

static const char request[] = "GET / HTTP/1.1\r\nHost: Web:80\r\n\r\n";

/* Asked for that name, with these first bytes. */
static void expect_asked(unsigned nth, const char *name, const void *first, size_t len)
{
    struct fake_ask ask;

    WAIT_FOR(fake_carry_begun() == nth);
    ask = fake_carry_last();
    cr_assert_str_eq(ask.name, name);
    cr_assert_eq(ask.first_len, len);
    if (len > 0)
        cr_assert_arr_eq(ask.first, first, len);
}

/* The client ends well with the backend that it was joined with. */
static void expect_joined(int fd, int backend)
{
    cr_assert_geq(backend, 0);
    say_text(backend, "down");
    cr_assert(hears_text(fd, "down"));
    say_text(fd, "up");
    cr_assert(hears_text(backend, "up"));
    shutdown(fd, SHUT_WR);
    cr_assert(hears_end(backend));
    close(backend);
    cr_assert(hears_end(fd));
    close(fd);
}

/* A whole answer with that status, of the length that it says, and then the end. */
static void expect_status(int fd, int status)
{
    char text[4096], line[64], *body, *length;
    ssize_t n = hear_all(fd, text, sizeof(text));

    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    cr_assert_gt(n, 0, "instead of %d", status);
    cr_assert_eq(strncmp(text, line, strlen(line)), 0, "%d is not: %s", status, text);
    cr_assert(strstr(text, "\r\nConnection: close\r\n"), "%s", text);
    length = strstr(text, "\r\nContent-Length: ");
    body = strstr(text, "\r\n\r\n");
    cr_assert(length && body, "%s", text);
    cr_assert_eq(strtoul(length + 18, NULL, 10), strlen(body + 4), "%s", text);
    cr_assert(strstr(body, "n1"), "%s", text); /* which node says so */
}

/* A fatal TLS alert, and then the end. */
static void expect_alert(int fd, uint8_t alert)
{
    const uint8_t record[] = {0x15, 3, 3, 0, 2, 2, alert};

    cr_assert(hears(fd, record, sizeof(record)));
    cr_assert(hears_end(fd));
    close(fd);
}

static int ask_port(unsigned port, const void *data, size_t len)
{
    int fd = dial_port(rig.ports[port]);

    cr_assert_geq(fd, 0);
    say(fd, data, len);
    return fd;
}

static int ask_text(unsigned port, const char *text) { return ask_port(port, text, strlen(text)); }

/* ---- first words ---- */

static void feed_cut(unsigned nth, const char *name, const void *data, size_t len, size_t step)
{
    int fd = dial_port(rig.ports[PLAIN]), backend;

    for (size_t at = 0; at < len; at += step) {
        say(fd, (const uint8_t *)data + at, len - at < step ? len - at : step);
        nap(); /* so that the parts mostly arrive as such */
    }
    expect_asked(nth, name, data, len);
    backend = take_backend(&rig);
    cr_assert(hears(backend, data, len));
    expect_joined(fd, backend);
}

Test(client, a_name_is_found_however_its_bytes_are_cut, .init = setup, .fini = teardown)
{
    static const size_t steps[] = {1, 2, 3, 7};
    uint8_t hello[512];
    size_t len = make_hello(hello, "Secure.Web");
    unsigned n = 0;

    start();
    for (size_t i = 0; i < 4; i++) {
        feed_cut(++n, "web", request, strlen(request), steps[i]);
        feed_cut(++n, "secure.web", hello, len, steps[i]);
    }
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(rig_count(&rig).accepted_http, 4);
    cr_assert_eq(rig_count(&rig).accepted_tls, 4);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_DONE], 8);
    cr_assert_geq(rig_count(&rig).largest_head, len);
    cr_assert(rig_adds_up(&rig));
}

Test(client, a_byte_marked_urgent_is_one_of_the_words, .init = setup, .fini = teardown)
{
    size_t at = sizeof("GET / HTTP/1.1\r\nHost: W") - 1;
    int fd;

    start();
    fd = ask_port(PLAIN, request, at);
    cr_assert_eq(send(fd, request + at, 1, MSG_OOB), 1);
    say_text(fd, request + at + 1);
    expect_asked(1, "web", request, strlen(request));
    close(take_backend(&rig));
    close(fd);
}

Test(client, a_few_bytes_decide_nothing_until_the_client_says_that_they_are_all, .init = setup,
     .fini = teardown)
{
    start();
    for (unsigned len = 1; len <= 3; len++) {
        int fd = ask_port(WITH_DEFAULT, "PIN", len);

        RIG_WAIT(&rig, c.unrouted == 1);
        cr_assert_eq(fake_carry_begun(), len - 1);
        shutdown(fd, SHUT_WR);
        expect_asked(len, "the-default", "PIN", len);
        close(take_backend(&rig));
        close(fd);
        RIG_WAIT(&rig, c.clients == 0);
    }
}

Test(client, without_a_name_the_default_takes_it_or_it_is_told_so, .init = setup, .fini = teardown)
{
    static const char old[] = "GET / HTTP/1.0\r\n\r\n",
                      preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static const char other[] = "SSH-2.0-x\r\n";
    static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
    uint8_t hello[512], frames[512];
    size_t len = make_hello(hello, NULL);
    const struct {
        const void *data;
        size_t len;
    } nameless[] = {
        {old, strlen(old)}, {preface, strlen(preface)}, {other, strlen(other)}, {hello, len}};
    ssize_t n;
    int fd;

    start();
    for (unsigned i = 0; i < 4; i++) {
        fd = ask_port(WITH_DEFAULT, nameless[i].data, nameless[i].len);
        expect_asked(i + 1, "the-default", nameless[i].data, nameless[i].len);
        close(take_backend(&rig));
        close(fd);
    }
    fd = ask_text(PLAIN, old);
    expect_status(fd, 400);
    close(fd);
    fd = ask_port(PLAIN, hello, len);
    expect_alert(fd, 112);
    fd = ask_text(PLAIN, preface);
    n = hear_all(fd, (char *)frames, sizeof(frames));
    cr_assert_gt(n, 9 + 17);
    cr_assert_arr_eq(frames, settings, 9);
    cr_assert_eq(frames[9 + 3], 7);       /* GOAWAY */
    cr_assert_eq(frames[9 + 9 + 7], 0xd); /* HTTP_1_1_REQUIRED */
    close(fd);
    fd = ask_text(PLAIN, other);
    cr_assert(hears_reset(fd));
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(fake_carry_begun(), 4);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_NO_NAME], 4);
    cr_assert_eq(rig_count(&rig).accepted_h2, 2);
    cr_assert_eq(rig_count(&rig).accepted_other, 2);
}

Test(client, what_is_no_request_is_told_so_whatever_the_default, .init = setup, .fini = teardown)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
    };
    static const uint8_t bad_hello[] = {0x16, 3, 1, 0, 4, 1, 0, 0, 0};
    int fd;

    start();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fd = ask_text(WITH_DEFAULT, bad[i]);
        expect_status(fd, 400);
        close(fd);
    }
    fd = ask_port(WITH_DEFAULT, bad_hello, sizeof(bad_hello));
    expect_alert(fd, 50);
    fd = ask_text(WITH_DEFAULT, "GET / HTTP/1.1\r\nHost: we"); /* and no more */
    shutdown(fd, SHUT_WR);
    expect_status(fd, 400);
    close(fd);
    cr_assert_eq(fake_carry_begun(), 0);
    RIG_WAIT(&rig, c.ends[FORWARD_BAD_REQUEST] == 6 && c.clients == 0);
}

Test(client, an_unknown_name_is_not_given_to_the_default, .init = setup, .fini = teardown)
{
    uint8_t hello[512];
    size_t len = make_hello(hello, "nowhere");
    int fd;

    FAKE_SET(begins, FORWARD_NO_SUCH_NAME);
    start();
    fd = ask_text(WITH_DEFAULT, "GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n");
    expect_status(fd, 404);
    close(fd);
    fd = ask_port(WITH_DEFAULT, hello, len);
    expect_alert(fd, 112);
    fd = ask_text(WITH_DEFAULT, "CONNECT nowhere:443 HTTP/1.1\r\nHost: nowhere:443\r\n\r\n");
    expect_status(fd, 404);
    close(fd);
    expect_asked(3, "nowhere", NULL, 0);
    RIG_WAIT(&rig, c.ends[FORWARD_NO_SUCH_NAME] == 3 && c.clients == 0);
}

Test(client, a_head_above_the_limit_is_told_so, .init = setup, .fini = teardown)
{
    char head[9000];
    int fd;

    rig.forward.limits.ingress_head_bytes = 4096;
    start();
    memset(head, 'x', sizeof(head));
    memcpy(head, "GET /", 5);
    fd = ask_port(WITH_DEFAULT, head, sizeof(head));
    expect_status(fd, 431);
    close(fd);
    /* One that just fits. */
    memcpy(head + 4, "/ HTTP/1.1\r\nHost: web\r\nX: ", 26);
    memcpy(head + 4092, "\r\n\r\nbody", 8);
    fd = ask_port(WITH_DEFAULT, head, 4100);
    WAIT_FOR(fake_carry_begun() == 1);
    close(fd);
    close(take_backend(&rig));
    RIG_WAIT(&rig, c.ends[FORWARD_HEAD_TOO_BIG] == 1 && c.clients == 0);
    cr_assert_eq(rig_count(&rig).largest_head, 4096);
}

Test(client, a_slow_head_has_one_deadline_for_all_of_it, .init = setup, .fini = teardown)
{
    uint64_t began_ms;
    struct pollfd wait = {.events = POLLIN};
    int fd, silent;

    rig.forward.route_ms = 800;
    start();
    began_ms = now_ms();
    silent = dial_port(rig.ports[PLAIN]);
    fd = ask_text(PLAIN, "GET /");
    wait.fd = fd;
    while (poll(&wait, 1, 20) == 0 && now_ms() - began_ms < WAIT_MS)
        say_text(fd, "x");
    cr_assert_geq(now_ms() - began_ms, 799);
    expect_status(fd, 408);
    close(fd);
    cr_assert(hears_end(silent)); /* without a word */
    close(silent);
    fd = ask_text(PLAIN, "GE");
    expect_status(fd, 408);
    close(fd);
    fd = ask_text(PLAIN, "\x16\x03\x01\x01");
    cr_assert_lt(hear_all(fd, (char[64]){0}, 64), 8); /* an alert at most */
    close(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_TOO_SLOW] == 4 && c.clients == 0);
}

Test(client, who_leaves_without_a_byte_is_let_go_silently, .init = setup, .fini = teardown)
{
    int fd;

    start();
    fd = dial_port(rig.ports[PLAIN]);
    shutdown(fd, SHUT_WR);
    cr_assert(hears_end(fd));
    close(fd);
    fd = dial_port(rig.ports[PLAIN]);
    RIG_WAIT(&rig, c.accepted == 2);
    break_off(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_CLIENT_SILENT] == 2 && c.clients == 0);
}

Test(client, who_breaks_off_amid_its_words_is_let_go_at_once, .init = setup, .fini = teardown)
{
    start();
    for (unsigned i = 0; i < 200; i++) {
        int fd = ask_text(PLAIN, "GET /");

        /* Words and reset come together, or one by one. */
        if (i % 2)
            RIG_WAIT(&rig, c.accepted == i + 1);
        break_off(fd);
    }
    RIG_WAIT(&rig, c.accepted == 200 && c.clients == 0);
    cr_assert_eq(fake_carry_begun(), 0);
    cr_assert(rig_adds_up(&rig));
}

/* ---- replies ---- */

Test(client, an_answer_arrives_although_the_client_had_more_to_say, .init = setup, .fini = teardown)
{
    static const struct {
        enum forward_end end;
        int status;
    } rows[] = {
        {FORWARD_BACKEND_REFUSED, 502}, {FORWARD_OWNER_LOST, 502},        {FORWARD_NO_OWNER, 503},
        {FORWARD_DRAINING, 503},        {FORWARD_BACKEND_TIMED_OUT, 504}, {FORWARD_OVER_LIMIT, 503},
    };
    static char body[60000];

    FAKE_SET(holds, true);
    start();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fd = ask_text(PLAIN, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 99999\r\n\r\n");

        WAIT_FOR(fake_carry_held() == 1);
        say(fd, body, sizeof(body)); /* stays in the kernel */
        FAKE_SET(end, rows[i].end);
        fake_carry_answer();
        expect_status(fd, rows[i].status);
        say_text(fd, "and more"); /* is read still */
        close(fd);
        RIG_WAIT(&rig, c.clients == 0);
        cr_assert_geq(rig_count(&rig).ends[rows[i].end], 1);
    }
}

Test(client, the_answer_to_a_head_ends_with_its_own, .init = setup, .fini = teardown)
{
    static const char *const asked[] = {
        "HEAD / HTTP/1.1\r\nHost: web\r\n\r\n", /* refused by the carry */
        "HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", /* is no request */
    };

    FAKE_SET(end, FORWARD_NO_OWNER);
    start();
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        int fd = ask_text(PLAIN, asked[i]);
        char text[4096];

        cr_assert_gt(hear_all(fd, text, sizeof(text)), 0);
        cr_assert(strstr(text, "\r\nContent-Length: "), "%s", text);
        cr_expect_str_eq(strstr(text, "\r\n\r\n"), "\r\n\r\n");
    }
}

Test(client, who_goes_on_sending_after_the_answer_is_heard_for_two_seconds_at_most, .init = setup,
     .fini = teardown)
{
    static char junk[32768];
    uint64_t began_ms;
    int fd;

    FAKE_SET(begins, FORWARD_NO_SUCH_NAME);
    start();
    began_ms = now_ms();
    fd = ask_text(PLAIN, request);
    expect_status(fd, 404);
    while (send(fd, junk, sizeof(junk), MSG_NOSIGNAL) > 0)
        ;
    cr_assert_geq(now_ms() - began_ms, 1999);
    cr_assert_lt(now_ms() - began_ms, WAIT_MS);
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
}

Test(client, a_protocol_without_words_for_it_is_reset, .init = setup, .fini = teardown)
{
    int fd;

    FAKE_SET(end, FORWARD_BACKEND_REFUSED);
    start();
    fd = dial_port(rig.ports[MAPPED]);
    cr_assert(fd < 0 || hears_reset(fd)); /* it may be there before connect(2) is back */
    if (fd >= 0)
        close(fd);
    fd = ask_text(WITH_DEFAULT, "SSH-2.0-x\r\n");
    cr_assert(hears_reset(fd));
    close(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_BACKEND_REFUSED] == 2 && c.clients == 0);
}

/* ---- waiting ---- */

Test(client, breaking_off_is_giving_up, .init = setup, .fini = teardown)
{
    int fd;

    FAKE_SET(holds, true);
    start();
    fd = ask_text(PLAIN, request);
    WAIT_FOR(fake_carry_held() == 1);
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 1);
    /* Also after the client had ended its side ... */
    fd = ask_text(PLAIN, request);
    WAIT_FOR(fake_carry_held() == 1);
    shutdown(fd, SHUT_WR);
    nap();
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 2);
    /* ... and from a mapped port. */
    fd = dial_port(rig.ports[MAPPED]);
    WAIT_FOR(fake_carry_held() == 1);
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 3);
    RIG_WAIT(&rig, c.ends[FORWARD_CLIENT_GONE] == 3 && c.clients == 0);
    cr_assert(rig_adds_up(&rig));
}

static uint64_t cpu_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

Test(client, ending_ones_side_is_no_giving_up_and_costs_nothing, .init = setup, .fini = teardown)
{
    uint64_t began_ms, used_ms;
    int fd, backend;

    FAKE_SET(holds, true);
    start();
    fd = ask_text(PLAIN, request);
    shutdown(fd, SHUT_WR);
    WAIT_FOR(fake_carry_held() == 1);
    used_ms = cpu_ms();
    for (began_ms = now_ms(); now_ms() - began_ms < 300;)
        poll(NULL, 0, 300);
    cr_assert_lt(cpu_ms() - used_ms, 150); /* the loop does not turn */
    cr_assert_eq(fake_carry_cancelled(), 0);
    fake_carry_answer();
    backend = take_backend(&rig);
    cr_assert(hears_text(backend, request));
    cr_assert(hears_end(backend));
    say_text(backend, "answer");
    close(backend);
    cr_assert(hears_text(fd, "answer"));
    cr_assert(hears_end(fd));
    close(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_DONE] == 1 && c.clients == 0);
}

Test(client, urgent_data_while_waiting_costs_nothing, .init = setup, .fini = teardown)
{
    uint64_t began_ms, used_ms;
    int fd;

    FAKE_SET(holds, true);
    start();
    fd = ask_text(PLAIN, request);
    WAIT_FOR(fake_carry_held() == 1);
    cr_assert_eq(send(fd, "!", 1, MSG_OOB), 1);
    shutdown(fd, SHUT_WR);
    used_ms = cpu_ms();
    for (began_ms = now_ms(); now_ms() - began_ms < 300;)
        poll(NULL, 0, 300);
    cr_assert_lt(cpu_ms() - used_ms, 150);
    fake_carry_answer();
    close(take_backend(&rig));
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
}

Test(client, a_carry_that_never_ends_is_ended_after_the_deadline, .init = setup, .fini = teardown)
{
    int fd;

    rig.forward.route_ms = 500;
    FAKE_SET(holds, true);
    start();
    fd = ask_text(PLAIN, request);
    WAIT_FOR(fake_carry_held() == 1);
    cr_assert_leq(fake_carry_last().left_ms, 500);
    expect_status(fd, 504);
    cr_assert_eq(fake_carry_cancelled(), 1);
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
}

/* ---- joining ---- */

Test(client, bytes_behind_the_head_are_delivered_once_and_in_order, .init = setup, .fini = teardown)
{
    static const size_t delivered[] = {0, 10, 58};
    static const char both[] =
        "GET /1 HTTP/1.1\r\nHost: web\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n";

    FAKE_SET(holds, true);
    FAKE_SET(early, "early ");
    start();
    for (unsigned i = 0; i < 3; i++) {
        int fd = ask_text(PLAIN, both), backend;

        expect_asked(i + 1, "web", both, strlen(both));
        say_text(fd, "while waiting");
        FAKE_SET(delivered, delivered[i]);
        fake_carry_answer();
        backend = take_backend(&rig);
        cr_assert(hears_text(backend, both));
        cr_assert(hears_text(backend, "while waiting"));
        cr_assert(hears_text(fd, "early "));
        expect_joined(fd, backend);
    }
}

Test(client, a_tunnel_is_announced_once_the_backend_is_there, .init = setup, .fini = teardown)
{
    static const char head[] = "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n";
    struct pollfd wait = {.events = POLLIN};
    int fd, backend;

    FAKE_SET(holds, true);
    FAKE_SET(early, "early ");
    start();
    fd = dial_port(rig.ports[PLAIN]);
    say_text(fd, head);
    expect_asked(1, "web", NULL, 0);
    wait.fd = fd;
    cr_assert_eq(poll(&wait, 1, 20), 0);
    fake_carry_answer();
    backend = take_backend(&rig);
    cr_assert(hears_text(fd, reply_connected));
    cr_assert(hears_text(fd, "early "));
    expect_joined(fd, backend);

    fd = dial_port(rig.ports[PLAIN]);
    say(fd, "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\nhello", sizeof(head) + 4);
    expect_asked(2, "web", "hello", 5);
    fake_carry_answer();
    backend = take_backend(&rig);
    cr_assert(hears_text(backend, "hello"));
    cr_assert(hears_text(fd, reply_connected));
    cr_assert(hears_text(fd, "early "));
    expect_joined(fd, backend);

    FAKE_SET(end, FORWARD_BACKEND_REFUSED);
    fd = ask_text(PLAIN, head);
    WAIT_FOR(fake_carry_held() == 1);
    fake_carry_answer();
    expect_status(fd, 502);
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(rig_count(&rig).accepted_connect, 3);
}

Test(client, on_a_mapped_port_the_backend_may_speak_first, .init = setup, .fini = teardown)
{
    int fd, backend;

    FAKE_SET(in_passage, true);
    start();
    fd = dial_port(rig.ports[MAPPED]);
    expect_asked(1, "db", NULL, 0);
    cr_assert_geq(fake_carry_last().left_ms, 9000);
    backend = take_backend(&rig);
    say_text(backend, "220 welcome\r\n");
    cr_assert(hears_text(fd, "220 welcome\r\n"));
    cr_assert_eq(fake_carry_left(), 0);
    expect_joined(fd, backend);
    WAIT_FOR(fake_carry_left() == 1);
    RIG_WAIT(&rig, c.ends[FORWARD_DONE] == 1 && c.clients == 0);
    cr_assert_eq(rig_count(&rig).accepted_mapped, 1);
    cr_assert_eq(rig_count(&rig).accepted_other, 0);
}

Test(client, the_backend_is_told_both_ends_of_the_connection, .init = setup, .fini = teardown)
{
    struct sockaddr_in own = {0};
    socklen_t len = sizeof(own);
    struct endpoint end;
    struct fake_ask ask;
    int fd;

    FAKE_SET(holds, true);
    start();
    fd = ask_text(PLAIN, request);
    WAIT_FOR(fake_carry_begun() == 1);
    ask = fake_carry_last();
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&own, &len), 0);
    cr_assert_eq(ask.tuple.client.port, ntohs(own.sin_port));
    cr_assert_eq(ask.tuple.server.port, rig.ports[PLAIN]);
    endpoint_of_bytes((const uint8_t *)&own.sin_addr, 4, 0, &end);
    cr_assert_arr_eq(&ask.tuple.client.ip, &end.ip, sizeof(end.ip));
    cr_assert_arr_eq(&ask.tuple.server.ip, &end.ip, sizeof(end.ip));
    close(fd);
}

/* ---- PROXY headers ---- */

static const struct forward_network trusted[] = {
    {.ip = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 0}, .bits = 96 + 24}}; /* 127.0.0.0/24 */
static const struct forward_ingress proxied[] = {
    {.fallback = "the-default", .proxy_from = trusted, .n_proxy_from = 1},
    {.name = "db", .proxy_from = trusted, .n_proxy_from = 1},
};

static void expect_v4(const struct endpoint *end, const char *ip, uint16_t port)
{
    char text[INET_ADDRSTRLEN];

    cr_assert(IN6_IS_ADDR_V4MAPPED(&end->ip));
    inet_ntop(AF_INET, end->ip.s6_addr + 12, text, sizeof(text));
    cr_assert_str_eq(text, ip);
    cr_assert_eq(end->port, port);
}

Test(client, a_trusted_proxy_says_who_the_client_is, .init = setup, .fini = teardown)
{
    static const uint8_t v2[] = {0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 'Q', 'U', 'I',
                                 'T',  0x0a, 0x21, 0x11, 0, 12,   192,  0,   2,   1,
                                 192,  0,    2,    2,    0, 7,    0,    8};
    static const uint8_t local[] = {0x0d, 0x0a, 0x0d, 0x0a, 0,    0x0d, 0x0a, 'Q',
                                    'U',  'I',  'T',  0x0a, 0x20, 0,    0,    0};
    struct fake_ask ask;
    int fd;

    FAKE_SET(holds, true);
    rig.forward.limits.ingress_per_source = 1;
    rig_start(&rig, 1, proxied, 2);
    fd = ask_text(0, "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n");
    say_text(fd, request);
    expect_asked(1, "web", request, strlen(request));
    ask = fake_carry_last();
    expect_v4(&ask.tuple.client, "192.0.2.1", 5);
    expect_v4(&ask.tuple.server, "192.0.2.2", 6);
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 1);
    fd = ask_port(1, v2, sizeof(v2));
    expect_asked(2, "db", NULL, 0);
    ask = fake_carry_last();
    expect_v4(&ask.tuple.client, "192.0.2.1", 7);
    expect_v4(&ask.tuple.server, "192.0.2.2", 8);
    /* That client has its share now, and the proxy has not. */
    cr_assert(hears_reset(ask_port(1, v2, sizeof(v2))));
    RIG_WAIT(&rig, c.closed_over_limit == 1 && c.clients == 1);
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 2);
    fd = ask_port(1, local, sizeof(local));
    expect_asked(3, "db", NULL, 0);
    ask = fake_carry_last();
    cr_assert_eq(ask.tuple.server.port, rig.ports[1]);
    break_off(fd);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert(rig_adds_up(&rig));
}

Test(client, a_trusted_proxy_must_say_it_and_first, .init = setup, .fini = teardown)
{
    int fd;

    rig.forward.route_ms = 1000;
    rig_start(&rig, 1, proxied, 2);
    fd = ask_text(0, request);
    cr_assert(hears_reset(fd));
    close(fd);
    fd = ask_text(1, "PROXY TCP4 192.0.2.1 192"); /* and the end */
    shutdown(fd, SHUT_WR);
    cr_assert(hears_reset(fd));
    close(fd);
    fd = ask_text(1, "PROXY TCP4 192.0.2.1 192"); /* and no more */
    cr_assert(hears_reset(fd));
    close(fd);
    fd = dial_port(rig.ports[1]); /* a probe */
    shutdown(fd, SHUT_WR);
    cr_assert(hears_end(fd));
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(fake_carry_begun(), 0);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_BAD_REQUEST], 2);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_TOO_SLOW], 1);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_CLIENT_SILENT], 1);
}

Test(client, nobody_elses_word_is_taken_for_who_a_client_is, .init = setup, .fini = teardown)
{
    static const char said[] = "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n";
    struct fake_ask ask;
    int fd;

    FAKE_SET(holds, true);
    rig_start(&rig, 1, proxied, 2);
    fd = dial_from("127.0.1.1", rig.ports[0]); /* outside of the network */
    say_text(fd, said);
    expect_asked(1, "the-default", said, strlen(said));
    ask = fake_carry_last();
    cr_assert_eq(ask.tuple.server.port, rig.ports[0]);
    close(fd);
    fd = dial_from("127.0.1.1", rig.ports[1]);
    expect_asked(2, "db", NULL, 0);
    close(fd);
}
