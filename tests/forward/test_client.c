/* One client's life: waiting, joining, and what it is told otherwise. */
#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "forward/client_rig.h"
#include "forward/reply.h"

/* ---- replies ---- */

Test(client, an_answer_arrives_although_the_client_had_more_to_say, .init = client_begin,
     .fini = client_end)
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
    client_start();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fd =
            client_ask_text(PLAIN, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 99999\r\n\r\n");

        WAIT_FOR(fake_carry_held() == 1);
        say(fd, body, sizeof(body)); /* stays in the kernel */
        FAKE_SET(end, rows[i].end);
        fake_carry_answer();
        client_expect_status(fd, rows[i].status);
        say_text(fd, "and more"); /* is read still */
        close(fd);
        RIG_WAIT(&rig, c.clients == 0);
        cr_assert_geq(rig_count(&rig).ends[rows[i].end], 1);
    }
}

Test(client, the_answer_to_a_head_ends_with_its_own, .init = client_begin, .fini = client_end)
{
    static const char *const asked[] = {
        "HEAD / HTTP/1.1\r\nHost: web\r\n\r\n", /* refused by the carry */
        "HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", /* is no request */
    };

    FAKE_SET(end, FORWARD_NO_OWNER);
    client_start();
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        int fd = client_ask_text(PLAIN, asked[i]);
        char text[4096];

        cr_assert_gt(hear_all(fd, text, sizeof(text)), 0);
        cr_assert(strstr(text, "\r\nContent-Length: "), "%s", text);
        cr_expect_str_eq(strstr(text, "\r\n\r\n"), "\r\n\r\n");
    }
}

Test(client, who_goes_on_sending_after_the_answer_is_heard_for_two_seconds_at_most,
     .init = client_begin, .fini = client_end)
{
    static char junk[32768];
    uint64_t began_ms;
    int fd;

    FAKE_SET(begins, FORWARD_NO_SUCH_NAME);
    client_start();
    began_ms = now_ms();
    fd = client_ask_text(PLAIN, REQUEST);
    client_expect_status(fd, 404);
    while (send(fd, junk, sizeof(junk), MSG_NOSIGNAL) > 0)
        ;
    cr_assert_geq(now_ms() - began_ms, 1999);
    cr_assert_lt(now_ms() - began_ms, WAIT_MS);
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
}

Test(client, a_protocol_without_words_for_it_is_reset, .init = client_begin, .fini = client_end)
{
    int fd;

    FAKE_SET(end, FORWARD_BACKEND_REFUSED);
    client_start();
    fd = dial_port(rig.ports[MAPPED]);
    cr_assert(fd < 0 || hears_reset(fd)); /* it may be there before connect(2) is back */
    if (fd >= 0)
        close(fd);
    fd = client_ask_text(WITH_DEFAULT, "SSH-2.0-x\r\n");
    cr_assert(hears_reset(fd));
    close(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_BACKEND_REFUSED] == 2 && c.clients == 0);
}

/* ---- waiting ---- */

Test(client, breaking_off_is_giving_up, .init = client_begin, .fini = client_end)
{
    int fd;

    FAKE_SET(holds, true);
    client_start();
    fd = client_ask_text(PLAIN, REQUEST);
    WAIT_FOR(fake_carry_held() == 1);
    break_off(fd);
    WAIT_FOR(fake_carry_cancelled() == 1);
    /* Also after the client had ended its side ... */
    fd = client_ask_text(PLAIN, REQUEST);
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

Test(client, ending_ones_side_is_no_giving_up_and_costs_nothing, .init = client_begin,
     .fini = client_end)
{
    uint64_t began_ms, used_ms;
    int fd, backend;

    FAKE_SET(holds, true);
    client_start();
    fd = client_ask_text(PLAIN, REQUEST);
    shutdown(fd, SHUT_WR);
    WAIT_FOR(fake_carry_held() == 1);
    used_ms = cpu_ms();
    for (began_ms = now_ms(); now_ms() - began_ms < 300;)
        poll(NULL, 0, 300);
    cr_assert_lt(cpu_ms() - used_ms, 150); /* the loop does not turn */
    cr_assert_eq(fake_carry_cancelled(), 0);
    fake_carry_answer();
    backend = take_backend(&rig);
    cr_assert(hears_text(backend, REQUEST));
    cr_assert(hears_end(backend));
    say_text(backend, "answer");
    close(backend);
    cr_assert(hears_text(fd, "answer"));
    cr_assert(hears_end(fd));
    close(fd);
    RIG_WAIT(&rig, c.ends[FORWARD_DONE] == 1 && c.clients == 0);
}

Test(client, urgent_data_while_waiting_costs_nothing, .init = client_begin, .fini = client_end)
{
    uint64_t began_ms, used_ms;
    int fd;

    FAKE_SET(holds, true);
    client_start();
    fd = client_ask_text(PLAIN, REQUEST);
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

Test(client, a_carry_that_never_ends_is_ended_after_the_deadline, .init = client_begin,
     .fini = client_end)
{
    int fd;

    rig.forward.route_ms = 500;
    FAKE_SET(holds, true);
    client_start();
    fd = client_ask_text(PLAIN, REQUEST);
    WAIT_FOR(fake_carry_held() == 1);
    cr_assert_leq(fake_carry_last().left_ms, 500);
    client_expect_status(fd, 504);
    cr_assert_eq(fake_carry_cancelled(), 1);
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
}

/* ---- joining ---- */

Test(client, bytes_behind_the_head_are_delivered_once_and_in_order, .init = client_begin,
     .fini = client_end)
{
    static const size_t delivered[] = {0, 10, 58};
    static const char both[] =
        "GET /1 HTTP/1.1\r\nHost: web\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n";

    FAKE_SET(holds, true);
    FAKE_SET(early, "early ");
    client_start();
    for (unsigned i = 0; i < 3; i++) {
        int fd = client_ask_text(PLAIN, both), backend;

        client_expect_asked(i + 1, "web", both, strlen(both));
        say_text(fd, "while waiting");
        FAKE_SET(delivered, delivered[i]);
        fake_carry_answer();
        backend = take_backend(&rig);
        cr_assert(hears_text(backend, both));
        cr_assert(hears_text(backend, "while waiting"));
        cr_assert(hears_text(fd, "early "));
        client_expect_joined(fd, backend);
    }
}

Test(client, a_tunnel_is_announced_once_the_backend_is_there, .init = client_begin,
     .fini = client_end)
{
    static const char head[] = "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n";
    struct pollfd wait = {.events = POLLIN};
    int fd, backend;

    FAKE_SET(holds, true);
    FAKE_SET(early, "early ");
    client_start();
    fd = dial_port(rig.ports[PLAIN]);
    say_text(fd, head);
    client_expect_asked(1, "web", NULL, 0);
    wait.fd = fd;
    cr_assert_eq(poll(&wait, 1, 20), 0);
    fake_carry_answer();
    backend = take_backend(&rig);
    cr_assert(hears_text(fd, reply_connected));
    cr_assert(hears_text(fd, "early "));
    client_expect_joined(fd, backend);

    fd = dial_port(rig.ports[PLAIN]);
    say(fd, "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\nhello", sizeof(head) + 4);
    client_expect_asked(2, "web", "hello", 5);
    fake_carry_answer();
    backend = take_backend(&rig);
    cr_assert(hears_text(backend, "hello"));
    cr_assert(hears_text(fd, reply_connected));
    cr_assert(hears_text(fd, "early "));
    client_expect_joined(fd, backend);

    FAKE_SET(end, FORWARD_BACKEND_REFUSED);
    fd = client_ask_text(PLAIN, head);
    WAIT_FOR(fake_carry_held() == 1);
    fake_carry_answer();
    client_expect_status(fd, 502);
    close(fd);
    RIG_WAIT(&rig, c.clients == 0);
    cr_assert_eq(rig_count(&rig).accepted_connect, 3);
}

Test(client, on_a_mapped_port_the_backend_may_speak_first, .init = client_begin, .fini = client_end)
{
    int fd, backend;

    FAKE_SET(in_passage, true);
    client_start();
    fd = dial_port(rig.ports[MAPPED]);
    client_expect_asked(1, "db", NULL, 0);
    cr_assert_geq(fake_carry_last().left_ms, 9000);
    backend = take_backend(&rig);
    say_text(backend, "220 welcome\r\n");
    cr_assert(hears_text(fd, "220 welcome\r\n"));
    cr_assert_eq(fake_carry_left(), 0);
    client_expect_joined(fd, backend);
    WAIT_FOR(fake_carry_left() == 1);
    RIG_WAIT(&rig, c.ends[FORWARD_DONE] == 1 && c.clients == 0);
    cr_assert_eq(rig_count(&rig).accepted_mapped, 1);
    cr_assert_eq(rig_count(&rig).accepted_other, 0);
}

Test(client, the_backend_is_told_both_ends_of_the_connection, .init = client_begin,
     .fini = client_end)
{
    struct sockaddr_in own = {0};
    socklen_t len = sizeof(own);
    struct endpoint end;
    struct fake_ask ask;
    int fd;

    FAKE_SET(holds, true);
    client_start();
    fd = client_ask_text(PLAIN, REQUEST);
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
