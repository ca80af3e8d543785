/* Tests of rpc/client: a call's every end, sessions one after another on one socket. */
#include "forward/must.h"
#include "rpc/client.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "rpc/canary.h"
#include "rpc/fake_gate.h"
#include "rpc/held_expiry.h"
#include "wire/frame.h"

#define MESSAGE_BYTES 1048576u
#define METHOD "/meshd.v1.Registry/RegisterServices"

static struct rpc_client *client;
static struct tally gones = TALLY_INIT, dones = TALLY_INIT;
static struct {
    int error;
    uint32_t status, reason;
    char text[300], body[300];
} last;

static void on_gone(void *ctx) { tally_add(&gones, 1); }

static void on_done(void *ctx, const struct rpc_result *result)
{
    last.error = result->error;
    last.status = result->status;
    last.reason = result->reason;
    snprintf(last.text, sizeof(last.text), "%s", result->text);
    snprintf(last.body, sizeof(last.body), "%.*s", (int)result->body_len,
             result->body_len ? (const char *)result->body : "");
    tally_add(&dones, 1);
}

static void setup(void)
{
    const struct rpc_client_settings settings = {
        .path = fake_path(0), .message_bytes = MESSAGE_BYTES, .gone = on_gone};

    alarm(100);
    cr_assert_eq(rpc_client_open(&settings, &client), 0);
}

static void teardown(void)
{
    rpc_client_close(client);
    MUST(canary_sing() == 0);
}

TestSuite(client, .init = setup, .fini = teardown);

static int call(uint32_t deadline_ms)
{
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;

    request.peer_id = (char *)"n1";
    return rpc_client_call(client, METHOD, &request.base, deadline_ms, on_done, NULL);
}

struct asked {
    uint8_t id[4];
    uint64_t call_id;
    uint32_t deadline_ms;
};

static struct asked read_call(int fd)
{
    size_t len;
    uint8_t *payload = fake_read(fd, &len);
    struct asked asked;
    struct frame_parts parts;
    Meshd__V1__CallHeader *header;

    cr_assert(payload, "the call comes");
    memcpy(asked.id, payload, 4);
    cr_assert(asked.id[0] & 0x80);
    cr_assert_eq(frame_split(payload + 4, len - 4, &parts), 0);
    header = meshd__v1__call_header__unpack(NULL, parts.header_len, parts.header);
    cr_assert_str_eq(header->method, METHOD);
    cr_assert_eq(header->wire_version, WIRE_VERSION_MAX);
    asked.call_id = header->call_id;
    asked.deadline_ms = header->deadline_ms;
    meshd__v1__call_header__free_unpacked(header, NULL);
    free(payload);
    return asked;
}

static void answer(int fd, const struct asked *asked, uint64_t call_id, const char *body)
{
    Meshd__V1__ReplyHeader header = MESHD__V1__REPLY_HEADER__INIT;
    uint8_t payload[500];
    size_t len;

    header.status = 9;
    header.reason = MESHD__V1__REASON__REASON_INCARNATION;
    header.text = (char *)"go on above 7";
    header.call_id = call_id;
    memcpy(payload, asked->id, 4);
    frame_pack(&header.base, NULL, payload + 4);
    len = 4 + frame_size(&header.base, NULL);
    memcpy(payload + len, body, strlen(body));
    cr_assert(fake_write(fd, payload, len + strlen(body)));
}

static int join(void)
{
    int fd = fake_join(fake_path(0), SP_REP0);

    cr_assert_geq(fd, 0);
    return fd;
}

static void quiet_and_end(int fd, uint64_t already_read)
{
    uint64_t had = tally_value(&gones), sent = rpc_client_quiet(client);

    cr_assert_geq(sent, already_read);
    cr_assert(fake_end(fd, sent - already_read));
    cr_assert(tally_wait(&gones, had + 1));
}

Test(client, call_is_answered_with_status_reason_text_and_body)
{
    int fd = join();
    struct asked asked;

    cr_assert_eq(call(5000), 0);
    asked = read_call(fd);
    cr_assert_eq(asked.deadline_ms, 5000);
    cr_assert_eq(call(5000), -EBUSY);
    answer(fd, &asked, asked.call_id, "the body");
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, 0);
    cr_assert_eq(last.status, 9);
    cr_assert_eq(last.reason, MESHD__V1__REASON__REASON_INCARNATION);
    cr_assert_str_eq(last.text, "go on above 7");
    cr_assert_str_eq(last.body, "the body");
    quiet_and_end(fd, 1);
}

Test(client, several_calls_in_one_session)
{
    int fd = join();

    for (uint64_t i = 1; i <= 100; i++) {
        struct asked asked;

        cr_assert_eq(call(5000), 0);
        asked = read_call(fd);
        answer(fd, &asked, asked.call_id, "");
        cr_assert(tally_wait(&dones, i));
        cr_assert_eq(last.error, 0);
    }
    quiet_and_end(fd, 100);
}

Test(client, call_waits_for_the_pipe)
{
    struct asked asked;
    int fd;

    cr_assert_eq(call(5000), 0);
    fd = join();
    asked = read_call(fd);
    answer(fd, &asked, asked.call_id, "");
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, 0);
    quiet_and_end(fd, 1);
}

Test(client, without_a_pipe_a_call_times_out)
{
    cr_assert_eq(call(50), 0);
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, -ETIMEDOUT);
    cr_assert_str_eq(last.text, "");
}

Test(client, without_an_answer_a_call_times_out_and_the_next_is_answered)
{
    int fd = join();
    struct asked old, asked;

    cr_assert_eq(call(50), 0);
    old = read_call(fd);
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, -ETIMEDOUT);
    cr_assert_eq(call(5000), 0);
    asked = read_call(fd);
    answer(fd, &old, old.call_id, "late");
    answer(fd, &asked, asked.call_id, "in time");
    cr_assert(tally_wait(&dones, 2));
    cr_assert_str_eq(last.body, "in time");
    quiet_and_end(fd, 2);
}

Test(client, deadline_must_be_finite_and_the_message_fit)
{
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;

    cr_assert_eq(call(0), -EINVAL);
    cr_assert_eq(call(600001), -EINVAL);
    request.peer_id = malloc(MESSAGE_BYTES + 1);
    memset(request.peer_id, 'x', MESSAGE_BYTES);
    request.peer_id[MESSAGE_BYTES] = '\0';
    cr_assert_eq(rpc_client_call(client, METHOD, &request.base, 100, on_done, NULL), -EMSGSIZE);
    free(request.peer_id);
    cr_assert_eq(tally_value(&dones), 0);
}

Test(client, answer_to_another_call_or_no_frame_is_a_bad_message)
{
    int fd = join();
    struct asked asked;

    cr_assert_eq(call(5000), 0);
    asked = read_call(fd);
    answer(fd, &asked, asked.call_id + 1, "");
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, -EBADMSG);
    cr_assert_eq(call(5000), 0);
    asked = read_call(fd);
    cr_assert(fake_write(fd, asked.id, 4));
    cr_assert(tally_wait(&dones, 2));
    cr_assert_eq(last.error, -EBADMSG);
    quiet_and_end(fd, 2);
}

Test(client, connection_that_ends_gives_the_call_up_at_once)
{
    uint64_t begun = clock_ms();
    int fd = join();

    cr_assert_eq(call(10000), 0);
    cr_assert(fake_end(fd, 1));
    cr_assert(tally_wait(&dones, 1));
    cr_assert(tally_wait(&gones, 1));
    cr_assert_eq(last.error, -ECONNRESET);
    cr_assert_lt(clock_ms() - begun, 5000);
}

Test(client, quiet_gives_up_the_call_and_lets_no_other_begin)
{
    int fd = join();
    uint64_t sent;

    cr_assert_eq(call(10000), 0);
    read_call(fd);
    sent = rpc_client_quiet(client);
    cr_assert_eq(sent, 1);
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, -ECANCELED);
    cr_assert_eq(call(1000), -EPIPE);
    cr_assert(fake_end(fd, 0));
    cr_assert(tally_wait(&gones, 1));
}

Test(client, quiet_without_a_pipe_gives_up_the_call_and_the_next_may_begin)
{
    struct asked asked;
    int fd;

    cr_assert_eq(call(10000), 0);
    cr_assert_eq(rpc_client_quiet(client), 0);
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, -ECANCELED);
    cr_assert_eq(call(10000), 0);
    fd = join();
    asked = read_call(fd);
    answer(fd, &asked, asked.call_id, "");
    cr_assert(tally_wait(&dones, 2));
    quiet_and_end(fd, 1);
}

/* A call takes effect when it is about to time out, and nng's thread for that stands still: until
 * the next call is under way. */
Test(client, time_out_of_a_call_that_was_sent_in_its_last_moment_does_not_end_the_next)
{
    struct asked asked;
    int fd;

    held_expiry_arm();
    cr_assert_eq(call(20), 0);
    held_expiry_wait();
    fd = join();
    read_call(fd);
    cr_assert(tally_wait(&dones, 1));
    cr_assert_eq(last.error, -ETIMEDOUT);
    quiet_and_end(fd, 1);
    cr_assert_eq(call(10000), 0);
    held_expiry_release();
    fd = join();
    asked = read_call(fd);
    answer(fd, &asked, asked.call_id, "");
    cr_assert(tally_wait(&dones, 2));
    cr_assert_eq(last.error, 0);
    quiet_and_end(fd, 1);
}

Test(client, time_out_of_a_call_that_was_answered_in_its_last_moment_does_not_end_the_next)
{
    struct asked asked;
    int fd = join();

    cr_assert_eq(call(5000), 0); /* so that the pipe is there for the one that has little time */
    asked = read_call(fd);
    answer(fd, &asked, asked.call_id, "");
    cr_assert(tally_wait(&dones, 1));
    held_expiry_arm();
    cr_assert_eq(call(500), 0);
    asked = read_call(fd);
    held_expiry_wait();
    answer(fd, &asked, asked.call_id, "");
    cr_assert(tally_wait(&dones, 2));
    cr_assert_eq(last.error, 0);
    cr_assert_eq(call(10000), 0);
    asked = read_call(fd);
    cr_assert_eq(canary_sing(), 0); /* so long that the answer is waited for by now */
    held_expiry_release();
    answer(fd, &asked, asked.call_id, "the body");
    cr_assert(tally_wait(&dones, 3));
    cr_assert_eq(last.error, 0);
    cr_assert_str_eq(last.body, "the body");
    quiet_and_end(fd, 3);
}

/* A large request stands half-read in the pipe when the session ends. */
static void storm_session(uint64_t *seed, uint64_t n)
{
    static const uint32_t sizes[] = {100, 5000, 300000, 900000};
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;
    uint32_t size = sizes[fake_random(seed, 4)], how = fake_random(seed, 4);
    uint64_t sent, read = 0;
    int fd = -1;

    request.peer_id = malloc(size + 1);
    memset(request.peer_id, 'x', size);
    request.peer_id[size] = '\0';
    if (fake_random(seed, 2))
        fd = join();
    cr_assert_eq(rpc_client_call(client, METHOD, &request.base,
                                 how == 3 ? 1 + fake_random(seed, 5) : 5000, on_done, NULL),
                 0);
    if (fd < 0)
        fd = join();
    if (how < 2) {
        size_t len;
        uint8_t *payload = fake_read(fd, &len);

        cr_assert(payload);
        read++;
        if (how == 0) { /* answered: by a frame that is not even one */
            cr_assert(fake_write(fd, payload, 4));
            cr_assert(tally_wait(&dones, n));
        }
        free(payload);
    } else if (how == 2) {
        fake_read_within(fd, 0, &(size_t){0});
    }
    sent = rpc_client_quiet(client);
    cr_assert_geq(sent, read);
    cr_assert(fake_end(fd, sent - read), "session %llu", (unsigned long long)n);
    cr_assert(tally_wait(&gones, n), "session %llu", (unsigned long long)n);
    cr_assert(tally_wait(&dones, n));
    cr_assert_eq(tally_value(&dones), n);
    free(request.peer_id);
}

Test(client, storm_of_sessions_on_one_socket, .timeout = 0)
{
    uint64_t sessions = fake_sessions(300), seed = fake_seed();

    alarm(0);
    for (uint64_t i = 1; i <= sessions; i++) {
        storm_session(&seed, i);
        if (i % 100 == 0)
            cr_assert_eq(canary_sing(), 0);
    }
}
