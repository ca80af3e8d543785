/* What a client says first, and what a proxy in front of it says for it. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/client_rig.h"

/* ---- first words ---- */

static void feed_cut(unsigned nth, const char *name, const void *data, size_t len, size_t step)
{
    int fd = dial_port(rig.ports[PLAIN]), backend;

    for (size_t at = 0; at < len; at += step) {
        say(fd, (const uint8_t *)data + at, len - at < step ? len - at : step);
        nap(); /* so that the parts mostly arrive as such */
    }
    client_expect_asked(nth, name, data, len);
    backend = take_backend(&rig);
    cr_assert(hears(backend, data, len));
    client_expect_joined(fd, backend);
}

Test(client_words, a_name_is_found_however_its_bytes_are_cut, .init = client_begin,
     .fini = client_end)
{
    static const size_t steps[] = {1, 2, 3, 7};
    uint8_t hello[512];
    size_t len = make_hello(hello, "Secure.Web");
    unsigned n = 0;

    client_start();
    for (size_t i = 0; i < 4; i++) {
        feed_cut(++n, "web", REQUEST, strlen(REQUEST), steps[i]);
        feed_cut(++n, "secure.web", hello, len, steps[i]);
    }
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(rig_count(&rig).accepted_http, 4);
    cr_assert_eq(rig_count(&rig).accepted_tls, 4);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_DONE], 8);
    cr_assert_geq(rig_count(&rig).largest_head, len);
    cr_assert(rig_adds_up(&rig));
}

Test(client_words, a_byte_marked_urgent_is_one_of_the_words, .init = client_begin,
     .fini = client_end)
{
    size_t at = sizeof("GET / HTTP/1.1\r\nHost: W") - 1;
    int fd;

    client_start();
    fd = client_ask_port(PLAIN, REQUEST, at);
    cr_assert_eq(send(fd, &REQUEST[at], 1, MSG_OOB), 1);
    say_text(fd, &REQUEST[at + 1]);
    client_expect_asked(1, "web", REQUEST, strlen(REQUEST));
    close(take_backend(&rig));
    close(fd);
}

Test(client_words, a_few_bytes_decide_nothing_until_the_client_says_that_they_are_all,
     .init = client_begin, .fini = client_end)
{
    client_start();
    for (unsigned len = 1; len <= 3; len++) {
        int fd = client_ask_port(WITH_DEFAULT, "PIN", len);

        RIG_WAIT(&rig, c.unrouted == 1);
        cr_assert_eq(fake_carry_begun(), len - 1);
        shutdown(fd, SHUT_WR);
        client_expect_asked(len, "the-default", "PIN", len);
        close(take_backend(&rig));
        close(fd);
        RIG_WAIT(&rig, c.clients == 0);
    }
}

Test(client_words, without_a_name_the_default_takes_it_or_it_is_told_so, .init = client_begin,
     .fini = client_end)
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

    client_start();
    for (unsigned i = 0; i < 4; i++) {
        fd = client_ask_port(WITH_DEFAULT, nameless[i].data, nameless[i].len);
        client_expect_asked(i + 1, "the-default", nameless[i].data, nameless[i].len);
        close(take_backend(&rig));
        close(fd);
    }
    fd = client_ask_text(PLAIN, old);
    client_expect_status(fd, 400);
    close(fd);
    fd = client_ask_port(PLAIN, hello, len);
    client_expect_alert(fd, 112);
    fd = client_ask_text(PLAIN, preface);
    n = hear_all(fd, (char *)frames, sizeof(frames));
    cr_assert_gt(n, 9 + 17);
    cr_assert_arr_eq(frames, settings, 9);
    cr_assert_eq(frames[9 + 3], 7);       /* GOAWAY */
    cr_assert_eq(frames[9 + 9 + 7], 0xd); /* HTTP_1_1_REQUIRED */
    close(fd);
    fd = client_ask_text(PLAIN, other);
    cr_assert(hears_reset(fd));
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(fake_carry_begun(), 4);
    cr_assert_eq(rig_count(&rig).ends[FORWARD_NO_NAME], 4);
    cr_assert_eq(rig_count(&rig).accepted_h2, 2);
    cr_assert_eq(rig_count(&rig).accepted_other, 2);
}

Test(client_words, what_is_no_request_is_told_so_whatever_the_default, .init = client_begin,
     .fini = client_end)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
    };
    static const uint8_t bad_hello[] = {0x16, 3, 1, 0, 4, 1, 0, 0, 0};
    int fd;

    client_start();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fd = client_ask_text(WITH_DEFAULT, bad[i]);
        client_expect_status(fd, 400);
        close(fd);
    }
    fd = client_ask_port(WITH_DEFAULT, bad_hello, sizeof(bad_hello));
    client_expect_alert(fd, 50);
    fd = client_ask_text(WITH_DEFAULT, "GET / HTTP/1.1\r\nHost: we"); /* and no more */
    shutdown(fd, SHUT_WR);
    client_expect_status(fd, 400);
    close(fd);
    cr_assert_eq(fake_carry_begun(), 0);
    RIG_WAIT(&rig, c.ends[FORWARD_BAD_REQUEST] == 6 && c.clients == 0);
}

Test(client_words, an_unknown_name_is_not_given_to_the_default, .init = client_begin,
     .fini = client_end)
{
    uint8_t hello[512];
    size_t len = make_hello(hello, "nowhere");
    int fd;

    FAKE_SET(begins, FORWARD_NO_SUCH_NAME);
    client_start();
    fd = client_ask_text(WITH_DEFAULT, "GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n");
    client_expect_status(fd, 404);
    close(fd);
    fd = client_ask_port(WITH_DEFAULT, hello, len);
    client_expect_alert(fd, 112);
    fd = client_ask_text(WITH_DEFAULT, "CONNECT nowhere:443 HTTP/1.1\r\nHost: nowhere:443\r\n\r\n");
    client_expect_status(fd, 404);
    close(fd);
    client_expect_asked(3, "nowhere", NULL, 0);
    RIG_WAIT(&rig, c.ends[FORWARD_NO_SUCH_NAME] == 3 && c.clients == 0);
}

Test(client_words, a_head_above_the_limit_is_told_so, .init = client_begin, .fini = client_end)
{
    char head[9000];
    int fd;

    rig.forward.limits.ingress_head_bytes = 4096;
    client_start();
    memset(head, 'x', sizeof(head));
    memcpy(head, "GET /", 5);
    fd = client_ask_port(WITH_DEFAULT, head, sizeof(head));
    client_expect_status(fd, 431);
    close(fd);
    /* One that just fits. */
    memcpy(head + 4, "/ HTTP/1.1\r\nHost: web\r\nX: ", 26);
    memcpy(head + 4092, "\r\n\r\nbody", 8);
    fd = client_ask_port(WITH_DEFAULT, head, 4100);
    WAIT_FOR(fake_carry_begun() == 1);
    close(fd);
    close(take_backend(&rig));
    RIG_WAIT(&rig, c.ends[FORWARD_HEAD_TOO_BIG] == 1 && c.clients == 0);
    cr_assert_eq(rig_count(&rig).largest_head, 4096);
}

Test(client_words, a_slow_head_has_one_deadline_for_all_of_it, .init = client_begin,
     .fini = client_end)
{
    uint64_t began_ms;
    struct pollfd wait = {.events = POLLIN};
    int fd, silent;

    rig.forward.route_ms = 800;
    client_start();
    began_ms = now_ms();
    silent = dial_port(rig.ports[PLAIN]);
    fd = client_ask_text(PLAIN, "GET /");
    wait.fd = fd;
    while (poll(&wait, 1, 20) == 0 && now_ms() - began_ms < WAIT_MS)
        say_text(fd, "x");
    cr_assert_geq(now_ms() - began_ms, 799);
    client_expect_status(fd, 408);
    close(fd);
    cr_assert(hears_end(silent)); /* without a word */
    close(silent);
    fd = client_ask_text(PLAIN, "GE");
    client_expect_status(fd, 408);
    close(fd);
    fd = client_ask_text(PLAIN, "\x16\x03\x01\x01");
    cr_assert_lt(hear_all(fd, (char[64]){0}, 64), 8); /* an alert at most */
    close(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_TOO_SLOW] == 4 && c.clients == 0);
}

Test(client_words, who_leaves_without_a_byte_is_let_go_silently, .init = client_begin,
     .fini = client_end)
{
    int fd;

    client_start();
    fd = dial_port(rig.ports[PLAIN]);
    shutdown(fd, SHUT_WR);
    cr_assert(hears_end(fd));
    close(fd);
    fd = dial_port(rig.ports[PLAIN]);
    RIG_WAIT(&rig, c.accepted == 2);
    break_off(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_CLIENT_SILENT] == 2 && c.clients == 0);
}

Test(client_words, who_breaks_off_amid_its_words_is_let_go_at_once, .init = client_begin,
     .fini = client_end)
{
    client_start();
    for (unsigned i = 0; i < 200; i++) {
        int fd = client_ask_text(PLAIN, "GET /");

        /* Words and reset come together, or one by one. */
        if (i % 2)
            RIG_WAIT(&rig, c.accepted == i + 1);
        break_off(fd);
    }
    RIG_WAIT(&rig, c.accepted == 200 && c.clients == 0);
    cr_assert_eq(fake_carry_begun(), 0);
    cr_assert(rig_adds_up(&rig));
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

Test(client_words, a_trusted_proxy_says_who_the_client_is, .init = client_begin, .fini = client_end)
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
    fd = client_ask_text(0, "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n");
    say_text(fd, REQUEST);
    client_expect_asked(1, "web", REQUEST, strlen(REQUEST));
    ask = fake_carry_last();
    expect_v4(&ask.tuple.client, "192.0.2.1", 5);
    expect_v4(&ask.tuple.server, "192.0.2.2", 6);
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 1);
    fd = client_ask_port(1, v2, sizeof(v2));
    client_expect_asked(2, "db", NULL, 0);
    ask = fake_carry_last();
    expect_v4(&ask.tuple.client, "192.0.2.1", 7);
    expect_v4(&ask.tuple.server, "192.0.2.2", 8);
    /* That client has its share now, and the proxy has not. */
    cr_assert(hears_reset(client_ask_port(1, v2, sizeof(v2))));
    RIG_WAIT(&rig, c.closed_over_limit == 1 && c.clients == 1);
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 2);
    fd = client_ask_port(1, local, sizeof(local));
    client_expect_asked(3, "db", NULL, 0);
    ask = fake_carry_last();
    cr_assert_eq(ask.tuple.server.port, rig.ports[1]);
    break_off(fd);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert(rig_adds_up(&rig));
}

Test(client_words, a_trusted_proxy_must_say_it_and_first, .init = client_begin, .fini = client_end)
{
    int fd;

    rig.forward.route_ms = 1000;
    rig_start(&rig, 1, proxied, 2);
    fd = client_ask_text(0, REQUEST);
    cr_assert(hears_reset(fd));
    close(fd);
    fd = client_ask_text(1, "PROXY TCP4 192.0.2.1 192"); /* and the end */
    shutdown(fd, SHUT_WR);
    cr_assert(hears_reset(fd));
    close(fd);
    fd = client_ask_text(1, "PROXY TCP4 192.0.2.1 192"); /* and no more */
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

Test(client_words, nobody_elses_word_is_taken_for_who_a_client_is, .init = client_begin,
     .fini = client_end)
{
    static const char said[] = "PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n";
    struct fake_ask ask;
    int fd;

    FAKE_SET(holds, true);
    rig_start(&rig, 1, proxied, 2);
    fd = dial_from("127.0.1.1", rig.ports[0]); /* outside of the network */
    say_text(fd, said);
    client_expect_asked(1, "the-default", said, strlen(said));
    ask = fake_carry_last();
    cr_assert_eq(ask.tuple.server.port, rig.ports[0]);
    close(fd);
    fd = dial_from("127.0.1.1", rig.ports[1]);
    client_expect_asked(2, "db", NULL, 0);
    close(fd);
}
