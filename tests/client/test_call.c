/* The client's calls: connecting, framing, matching, deadlines, and strangers at the other end. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "client/call.h"
#include "client/fake.h"

static struct fake fake;

static void setup(void) { alarm(60); }

TestSuite(call, .init = setup);

static char why[TLS_WHY];

static uint64_t in(unsigned ms) { return clock_ms() + ms; }

static int ask(struct call_conn *conn, unsigned ms, struct call_reply **out_reply)
{
    Meshd__V1__LookupRequest request = MESHD__V1__LOOKUP_REQUEST__INIT;
    char *names[] = {(char *)"web"};

    request.names = names;
    request.n_names = 1;
    return call_invoke(conn, "Lookup", &request.base, in(ms), out_reply);
}

/* Opens and asks; the error of either. */
static int open_and_ask(unsigned ms)
{
    struct call_conn *conn = NULL;
    struct call_reply *reply = NULL;
    int r = call_open(fake.url, NULL, in(ms), why, &conn);

    if (r == 0)
        r = ask(conn, ms, &reply);
    call_reply_free(reply);
    call_close(conn);
    return r;
}

/* Answers every Lookup with its first name and the revision in ctx. */
static void answer(struct fake *f, int fd)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    Meshd__V1__LookupResult result = MESHD__V1__LOOKUP_RESULT__INIT, *results[] = {&result};
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        result.name = ((const Meshd__V1__LookupRequest *)call.request)->names[0];
        reply.results = results;
        reply.n_results = 1;
        reply.revision = 7;
        fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        fake_call_fini(&call);
    }
}

static void calls_are_answered(enum sp_framing framing)
{
    struct call_conn *conn;

    fake_start(&fake, framing, answer, NULL);
    cr_assert_eq(call_open(fake.url, NULL, in(5000), why, &conn), 0);
    for (int i = 0; i < 3; i++) {
        struct call_reply *reply;
        const Meshd__V1__LookupReply *message;

        cr_assert_eq(ask(conn, 5000, &reply), 0);
        cr_expect_eq(reply->status, STATUS_OK);
        cr_expect_str_eq(reply->text, "");
        message = (const Meshd__V1__LookupReply *)reply->message;
        cr_expect_eq(message->revision, 7);
        cr_expect_str_eq(message->results[0]->name, "web");
        call_reply_free(reply);
    }
    call_close(conn);
    fake_stop(&fake);
}

Test(call, calls_over_tcp_are_answered) { calls_are_answered(SP_TCP); }

Test(call, calls_over_a_unix_socket_are_answered) { calls_are_answered(SP_IPC); }

Test(call, a_name_with_several_addresses_reaches_the_one_that_listens)
{
    struct call_conn *conn;
    struct addrinfo *found;
    char url[64];

    /* localhost is often ::1 first, where nobody listens. */
    if (getaddrinfo("localhost", NULL, NULL, &found) != 0)
        cr_skip("localhost has no address here: /etc/hosts is missing");
    freeaddrinfo(found);
    fake_start(&fake, SP_TCP, answer, NULL);
    snprintf(url, sizeof(url), "tcp://localhost:%u", fake.port);
    cr_assert_eq(call_open(url, NULL, in(5000), why, &conn), 0);
    call_close(conn);
    fake_stop(&fake);
}

Test(call, a_refused_connection_is_told_at_once)
{
    struct call_conn *conn;
    uint64_t began = clock_ms();
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", fake_free_port());
    cr_expect_eq(call_open(url, NULL, in(30000), why, &conn), -ECONNREFUSED);
    cr_expect_eq(call_open("ipc:///nowhere/meshd.sock", NULL, in(30000), why, &conn), -ENOENT);
    cr_expect_lt(clock_ms() - began, 5000);
}

Test(call, what_is_no_url_is_told)
{
    static const char *const bad[] = {
        "",           "tcp://",           "tcp://host",    "tcp://host:0x",
        "tcp://:1:2", "tcp://host:70000", "http://host:1", "ipc://",
        "host:1"};
    struct call_conn *conn;
    char path[300] = "ipc:///";

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_expect_eq(call_open(bad[i], NULL, in(1000), why, &conn), -EINVAL, "%s", bad[i]);
    cr_expect_eq(call_open("tls://127.0.0.1:1", NULL, in(1000), why, &conn), -EINVAL);
    memset(path + 7, 'a', 200);
    cr_expect_eq(call_open(path, NULL, in(1000), why, &conn), -ENAMETOOLONG);
}

Test(call, a_connect_that_hangs_ends_at_the_deadline)
{
    for (int framing = SP_TCP; framing <= SP_IPC; framing++) {
        uint64_t began = clock_ms();

        fake_black_hole(&fake, (enum sp_framing)framing);
        began = clock_ms();
        cr_expect_eq(open_and_ask(150), -ETIMEDOUT);
        cr_expect_geq(clock_ms() - began, 150);
        cr_expect_lt(clock_ms() - began, 5000);
        fake_stop(&fake);
    }
}

static void silent(struct fake *f, int fd) { fake_drain(fd); }

Test(call, a_node_that_does_not_greet_ends_at_the_deadline)
{
    fake_start(&fake, SP_TCP, silent, NULL);
    cr_expect_eq(open_and_ask(100), -ETIMEDOUT);
    fake_stop(&fake);
}

static void closes(struct fake *f, int fd) {}

Test(call, a_node_that_closes_before_it_greets_is_told)
{
    fake_start(&fake, SP_TCP, closes, NULL);
    cr_expect_eq(open_and_ask(5000), -ECONNRESET);
    fake_stop(&fake);
}

/* Says ctx, a string of 8 bytes, as its greeting. */
static void greets_so(struct fake *f, int fd)
{
    fake_send(fd, f->ctx, 8);
    fake_drain(fd);
}

Test(call, another_greeting_is_a_protocol_error)
{
    static const char *const greetings[] = {"SSH-2.0-", "\0SP\0\0\x11\0\0", "\0SP\0\0\x31\0\1",
                                            "\0SP\1\0\x31\0\0"};

    for (size_t i = 0; i < sizeof(greetings) / sizeof(*greetings); i++) {
        fake_start(&fake, SP_TCP, greets_so, (void *)greetings[i]);
        cr_expect_eq(open_and_ask(5000), -EPROTO, "greeting %zu", i);
        fake_stop(&fake);
    }
}

struct bytes {
    const void *data;
    size_t len;
};

/* Greets, reads the request, says the bytes of ctx and closes. */
static void says(struct fake *f, int fd)
{
    const struct bytes *bytes = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    fake_send(fd, bytes->data, bytes->len);
    fake_call_fini(&call);
}

static int after(enum sp_framing framing, const void *data, size_t len)
{
    struct bytes bytes = {data, len};
    int r;

    fake_start(&fake, framing, says, &bytes);
    r = open_and_ask(5000);
    fake_stop(&fake);
    return r;
}

Test(call, a_length_over_the_limit_is_refused_before_anything_is_allocated)
{
    cr_expect_eq(after(SP_TCP, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), -EMSGSIZE);
    cr_expect_eq(after(SP_TCP, "\0\0\0\0\1\0\0\1", 8), -EMSGSIZE);
    cr_expect_eq(after(SP_IPC, "\1\0\0\0\0\1\0\0\1", 9), -EMSGSIZE);
}

Test(call, an_answer_that_is_cut_is_told)
{
    cr_expect_eq(after(SP_TCP, "", 0), -ECONNRESET);
    cr_expect_eq(after(SP_TCP, "\0\0\0", 3), -ECONNRESET);
    cr_expect_eq(after(SP_TCP, "\0\0\0\0\0\1\0\0abcd", 12), -ECONNRESET);
}

Test(call, an_answer_that_is_none_is_a_protocol_error)
{
    cr_expect_eq(after(SP_IPC, "\2\0\0\0\0\0\0\0\4", 9), -EPROTO);
    cr_expect_eq(after(SP_TCP, "\0\0\0\0\0\0\0\4\1\2\3\4", 12), -EBADMSG,
                 "no end of the backtrace");
    cr_expect_eq(after(SP_TCP, "\0\0\0\0\0\0\0\0", 8), -EBADMSG, "empty");
}

/* A frame with the request's own id in front that decodes to nothing. */
static void answers_garbage(struct fake *f, int fd)
{
    struct fake_call call;
    uint8_t data[8 + 4 + 4] = {0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0x7f, 1, 2, 3};

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    memcpy(data + 8, &call.id, 4);
    fake_send(fd, data, sizeof(data));
    fake_drain(fd);
    fake_call_fini(&call);
}

Test(call, after_garbage_the_connection_is_of_no_more_use)
{
    struct call_conn *conn;
    struct call_reply *reply;

    fake_start(&fake, SP_TCP, answers_garbage, NULL);
    cr_assert_eq(call_open(fake.url, NULL, in(5000), why, &conn), 0);
    cr_expect_eq(ask(conn, 5000, &reply), -EBADMSG);
    cr_expect_eq(ask(conn, 5000, &reply), -ENOTCONN);
    call_close(conn);
    fake_stop(&fake);
}

/* Answers with the number of another call. */
static void answers_another_call(struct fake *f, int fd)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    Meshd__V1__CallHeader header;
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    header = *call.header;
    header.call_id += 1;
    call.header = &header;
    fake_reply(f, fd, &call, 0, 0, "", &reply.base);
    fake_drain(fd);
    fake_call_fini(&call);
}

Test(call, an_answer_to_another_call_is_a_protocol_error)
{
    fake_start(&fake, SP_TCP, answers_another_call, NULL);
    cr_expect_eq(open_and_ask(5000), -EBADMSG);
    fake_stop(&fake);
}

/* Leaves the first request unanswered until the second has come; then answers both, in order. */
static void answers_late(struct fake *f, int fd)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    struct fake_call first, second;

    if (!fake_greet(fd) || !fake_read(f, fd, &first) || !fake_read(f, fd, &second))
        return;
    reply.revision = 1;
    fake_reply(f, fd, &first, 0, 0, "", &reply.base);
    reply.revision = 2;
    fake_reply(f, fd, &second, 0, 0, "", &reply.base);
    fake_drain(fd);
    fake_call_fini(&first);
    fake_call_fini(&second);
}

Test(call, a_late_answer_is_passed_over)
{
    struct call_conn *conn;
    struct call_reply *reply;

    fake_start(&fake, SP_TCP, answers_late, NULL);
    cr_assert_eq(call_open(fake.url, NULL, in(5000), why, &conn), 0);
    cr_expect_eq(ask(conn, 50, &reply), -ETIMEDOUT);
    cr_assert_eq(ask(conn, 5000, &reply), 0);
    cr_expect_eq(((const Meshd__V1__LookupReply *)reply->message)->revision, 2);
    call_reply_free(reply);
    call_close(conn);
    fake_stop(&fake);
}

/* Sends a good answer in pieces of ctx bytes. */
static void answers_in_pieces(struct fake *f, int fd)
{
    size_t step = *(const size_t *)f->ctx;
    int pair[2];
    char bytes[512];
    ssize_t n;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        abort();
    {
        struct fake_call call;

        if (!fake_greet(fd) || !fake_read(f, fd, &call))
            abort();
        fake_reply(f, pair[0], &call, STATUS_NOT_FOUND, MESHD__V1__REASON__REASON_POLICY, "no such",
                   NULL);
        fake_call_fini(&call);
    }
    close(pair[0]);
    while ((n = recv(pair[1], bytes, step, 0)) > 0)
        fake_send(fd, bytes, (size_t)n);
    close(pair[1]);
    fake_drain(fd);
}

Test(call, an_answer_may_come_in_pieces_and_without_a_message)
{
    for (size_t step = 1; step <= 7; step++) {
        struct call_conn *conn;
        struct call_reply *reply;

        fake_start(&fake, SP_IPC, answers_in_pieces, &step);
        cr_assert_eq(call_open(fake.url, NULL, in(5000), why, &conn), 0);
        cr_assert_eq(ask(conn, 5000, &reply), 0);
        cr_expect_eq(reply->status, STATUS_NOT_FOUND);
        cr_expect_eq(reply->reason, MESHD__V1__REASON__REASON_POLICY);
        cr_expect_str_eq(reply->text, "no such");
        cr_expect_eq(reply->wire_version_max, 3);
        cr_expect_null(reply->message);
        call_reply_free(reply);
        call_close(conn);
        fake_stop(&fake);
    }
}

/* Checks what the header of a call says. */
static void checks_header(struct fake *f, int fd)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    reply.revision = call.header->deadline_ms;
    reply.epoch = call.header->wire_version;
    fake_reply(f, fd, &call, 0, 0, "", &reply.base);
    fake_drain(fd);
    fake_call_fini(&call);
}

Test(call, the_node_is_told_how_much_time_is_left)
{
    struct call_conn *conn;
    struct call_reply *reply;
    const Meshd__V1__LookupReply *message;

    fake_start(&fake, SP_TCP, checks_header, NULL);
    cr_assert_eq(call_open(fake.url, NULL, in(5000), why, &conn), 0);
    cr_assert_eq(ask(conn, 4000, &reply), 0);
    message = (const Meshd__V1__LookupReply *)reply->message;
    cr_expect_leq(message->revision, 4000);
    cr_expect_gt(message->revision, 0);
    cr_expect_eq(message->epoch, 1);
    call_reply_free(reply);
    call_close(conn);
    fake_stop(&fake);
}
