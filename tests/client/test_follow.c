/* One Watch, followed through what a node may do to it. The fake serves connections one after the
 * other, each by the next function of the test's script; the last one serves all that follow. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/clock.h"
#include "client/call.h"
#include "client/fakewatch.h"
#include "client/follow.h"

#define LONG_MS 20000u

struct scene {
    void (*script[4])(struct fakewatch *watch);
    atomic_uint served;
    struct fakewatch seen[4]; /* the requests */
};

static struct fake fake;
static struct scene scene;
static struct follow *follow;
static const Meshd__V1__WatchReply *reply;

static void serve(struct fake *f, int fd)
{
    unsigned i = atomic_load(&scene.served);
    struct fakewatch watch;

    if (!fakewatch_begin(&watch, f, fd))
        return;
    if (i < 4)
        scene.seen[i] = watch;
    atomic_fetch_add(&scene.served, 1);
    while (i > 0 && (i > 3 || !scene.script[i]))
        i--;
    scene.script[i](&watch);
}

static void start(enum sp_framing framing, void (*first)(struct fakewatch *),
                  void (*second)(struct fakewatch *), const struct follow_settings *more)
{
    struct follow_settings settings = more ? *more : (struct follow_settings){.heartbeat_ms = 0};

    memset(&scene, 0, sizeof(scene));
    scene.script[0] = first;
    scene.script[1] = second;
    fake_start(&fake, framing, serve, NULL);
    settings.url = fake.url;
    cr_assert_eq(follow_new(&settings, &follow), 0);
}

static void stop(void)
{
    follow_free(follow);
    fake_stop(&fake);
}

static int next(void) { return follow_next(follow, clock_ms() + LONG_MS, &reply); }

static struct follow_status status(void)
{
    struct follow_status now;

    follow_status(follow, &now);
    return now;
}

static const struct fakewatch_event two[] = {
    {FW_UP, "billing", "local", "127.0.0.1:80", 0},
    {FW_UP, "billing", "10.0.0.7", "10.0.0.7:4100", FW_CONNECTED | FW_HEALTHY},
};

static void picture(struct fakewatch *watch)
{
    fakewatch_greet(watch, 0, 0, "");
    fakewatch_tell(watch, &(struct fakewatch_message){.epoch = 7, .resync = true});
    fakewatch_tell(watch, &(struct fakewatch_message){
                              .epoch = 7, .revision = 40, .synced = true, .events = two, .n = 2});
}

static void picture_and_wait(struct fakewatch *watch)
{
    picture(watch);
    fake_drain(watch->fd);
}

static void expect_picture(void)
{
    cr_assert_eq(next(), 0);
    cr_expect(reply->resync && !reply->synced && reply->n_events == 0);
    cr_assert_eq(next(), 0);
    cr_expect(reply->synced);
    cr_assert_eq(reply->n_events, 2);
    cr_expect_str_eq(reply->events[1]->row->key, "billing@10.0.0.7");
    cr_expect_str_eq(reply->events[1]->row->backend_addr, "10.0.0.7:4100");
}

Test(follow, tells_the_picture_over_tcp)
{
    start(SP_TCP, picture_and_wait, NULL,
          &(struct follow_settings){.name_glob = "bill*", .peer = "local", .heartbeat_ms = 1000});
    expect_picture();
    cr_expect_str_eq(scene.seen[0].name_glob, "bill*");
    cr_expect_str_eq(scene.seen[0].peer, "local");
    cr_expect_eq(scene.seen[0].heartbeat_ms, 1000);
    cr_expect_eq(scene.seen[0].from_epoch, 0);
    cr_expect_eq(status().connected, 1);
    cr_expect_eq(status().connects, 1);
    cr_expect_eq(status().epoch, 7);
    cr_expect_eq(status().revision, 40);
    cr_expect_eq(status().wire_version_max, 1);
    cr_expect_geq(clock_ms(), status().heard_ms);
    cr_expect_eq(follow_next(follow, 0, &reply), -ETIMEDOUT);
    stop();
}

Test(follow, tells_the_picture_over_the_unix_socket)
{
    start(SP_IPC, picture_and_wait, NULL, NULL);
    expect_picture();
    stop();
}

Test(follow, gives_the_bytes_of_a_message_as_they_came)
{
    Meshd__V1__WatchReply *again;
    const uint8_t *data;
    size_t len;

    start(SP_TCP, picture_and_wait, NULL, NULL);
    cr_assert_eq(next(), 0);
    cr_assert_eq(next(), 0);
    follow_raw(follow, &data, &len);
    again = meshd__v1__watch_reply__unpack(NULL, len, data);
    cr_assert_not_null(again);
    cr_expect_eq(again->n_events, 2);
    meshd__v1__watch_reply__free_unpacked(again, NULL);
    stop();
}

static void heartbeats(struct fakewatch *watch)
{
    picture(watch);
    for (uint64_t i = 0; i < 5; i++)
        fakewatch_tell(watch, &(struct fakewatch_message){.epoch = 7, .revision = 41 + i});
    fake_drain(watch->fd);
}

Test(follow, signs_of_life_move_the_revision_on)
{
    start(SP_TCP, heartbeats, NULL, NULL);
    expect_picture();
    for (uint64_t i = 0; i < 5; i++) {
        cr_assert_eq(next(), 0);
        cr_expect_eq(reply->n_events, 0);
        cr_expect_eq(status().revision, 41 + i);
    }
    stop();
}

static void changes(struct fakewatch *watch)
{
    struct fakewatch_event event = {FW_DOWN, "billing", "local", "127.0.0.1:80", 0};

    fakewatch_greet(watch, 0, 0, "");
    fakewatch_tell(watch,
                   &(struct fakewatch_message){
                       .epoch = 7, .revision = 50, .synced = true, .events = &event, .n = 1});
    fake_drain(watch->fd);
}

Test(follow, goes_on_where_it_was_after_a_loss)
{
    start(SP_TCP, picture, changes, NULL);
    expect_picture();
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -ECONNRESET);
    cr_expect_eq(status().connected, 0);
    cr_assert_eq(next(), 0);
    cr_expect_eq(scene.seen[1].from_epoch, 7);
    cr_expect_eq(scene.seen[1].from_revision, 40);
    cr_expect_eq(reply->events[0]->kind, FW_DOWN);
    cr_expect_eq(status().connects, 2);
    cr_expect_eq(status().error, 0);
    stop();
}

Test(follow, begins_where_it_is_told)
{
    start(SP_TCP, changes, NULL, &(struct follow_settings){.from_epoch = 9, .from_revision = 900});
    cr_assert_eq(next(), 0);
    cr_expect_eq(scene.seen[0].from_epoch, 9);
    cr_expect_eq(scene.seen[0].from_revision, 900);
    stop();
}

static void half_a_picture(struct fakewatch *watch)
{
    picture(watch);
    fakewatch_tell(watch, &(struct fakewatch_message){.epoch = 7, .resync = true});
}

Test(follow, goes_on_from_nothing_after_half_a_picture)
{
    start(SP_TCP, half_a_picture, changes, NULL);
    expect_picture();
    cr_assert_eq(next(), 0);
    cr_expect(reply->resync);
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_assert_eq(next(), 0);
    cr_expect_eq(scene.seen[1].from_epoch, 0);
    cr_expect_eq(scene.seen[1].from_revision, 0);
    stop();
}

static void greets_and_is_silent(struct fakewatch *watch)
{
    fakewatch_greet(watch, 0, 0, "");
    fake_drain(watch->fd);
}

Test(follow, takes_a_silent_node_for_lost)
{
    uint64_t begun = clock_ms();

    start(SP_TCP, greets_and_is_silent, NULL, &(struct follow_settings){.heartbeat_ms = 1});
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -ETIMEDOUT);
    cr_expect_geq(clock_ms() - begun, 3 * 200 + 500);
    cr_expect_eq(scene.seen[0].heartbeat_ms, 200);
    stop();
}

static void half_a_message(struct fakewatch *watch)
{
    size_t len;
    uint8_t *data =
        fakewatch_pack(watch, &(struct fakewatch_message){.epoch = 7, .events = two, .n = 2}, &len);

    fakewatch_greet(watch, 0, 0, "");
    fake_send(watch->fd, data, len / 2);
    free(data);
}

Test(follow, half_a_message_is_none)
{
    start(SP_TCP, half_a_message, picture_and_wait, NULL);
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -ECONNRESET);
    expect_picture();
    stop();
}

static void byte_by_byte(struct fakewatch *watch)
{
    static const size_t steps[] = {1, 2, 3, 7};
    const uint8_t greeting[] = {'M', 'S', 'H', 'D', 1, 0, 0, 2, 'o', 'k'};

    for (size_t i = 0; i < sizeof(greeting); i++)
        fake_send(watch->fd, greeting + i, 1);
    for (size_t s = 0; s < 4; s++) {
        struct fakewatch_message message = {.epoch = 7, .revision = s + 1, .events = two, .n = 2};
        size_t len;
        uint8_t *data = fakewatch_pack(watch, &message, &len);

        for (size_t at = 0; at < len; at += steps[s])
            fake_send(watch->fd, data + at, len - at < steps[s] ? len - at : steps[s]);
        free(data);
    }
    fake_drain(watch->fd);
}

Test(follow, puts_a_message_together_from_any_pieces)
{
    start(SP_IPC, byte_by_byte, NULL, NULL);
    for (uint64_t i = 1; i <= 4; i++) {
        cr_assert_eq(next(), 0);
        cr_expect_eq(status().revision, i);
        cr_expect_eq(reply->n_events, 2);
    }
    stop();
}

static void garbage(struct fakewatch *watch)
{
    fake_send(watch->fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
}

static void garbage_after_the_greeting(struct fakewatch *watch)
{
    const uint8_t bytes[] = {0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, 200, 200};

    fakewatch_greet(watch, 0, 0, "");
    fake_send(watch->fd, bytes, sizeof(bytes));
    fake_drain(watch->fd);
}

Test(follow, garbage_loses_the_connection)
{
    start(SP_TCP, garbage, garbage_after_the_greeting, NULL);
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -EBADMSG);
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -EBADMSG);
    stop();
}

static void too_long(struct fakewatch *watch)
{
    uint8_t head[SP_HEAD_MAX];

    fakewatch_greet(watch, 0, 0, "");
    sp_head_pack(SP_TCP, (uint64_t)CALL_MESSAGE_MAX + 1, head);
    fake_send(watch->fd, head, 8);
    fake_drain(watch->fd);
}

Test(follow, a_message_over_the_limit_loses_the_connection)
{
    start(SP_TCP, too_long, picture_and_wait, NULL);
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -EMSGSIZE);
    expect_picture();
    stop();
}

static void many_events(struct fakewatch *watch)
{
    static struct fakewatch_event events[20000];

    for (size_t i = 0; i < 20000; i++)
        events[i] = two[i % 2];
    fakewatch_greet(watch, 0, 0, "");
    fakewatch_tell(watch, &(struct fakewatch_message){
                              .epoch = 7, .revision = 1, .events = events, .n = 20000});
    picture(watch);
    fake_drain(watch->fd);
}

Test(follow, a_long_message_comes_whole)
{
    start(SP_TCP, many_events, NULL, NULL);
    cr_assert_eq(next(), 0);
    cr_expect_eq(reply->n_events, 20000);
    cr_expect_str_eq(reply->events[19999]->row->key, "billing@10.0.0.7");
    stop();
}

static void another_preamble(struct fakewatch *watch)
{
    const uint8_t bytes[] = {'M', 'S', 'H', 'D', 2, 0, 0, 0};

    fake_send(watch->fd, bytes, sizeof(bytes));
    fake_drain(watch->fd);
}

Test(follow, another_version_of_the_preamble_is_the_end)
{
    start(SP_TCP, another_preamble, NULL, NULL);
    cr_assert_eq(next(), FOLLOW_ENDED);
    cr_expect_eq(status().reason, MESHD__V1__REASON__REASON_WIRE_VERSION);
    cr_expect_eq(next(), FOLLOW_ENDED);
    stop();
}

static void another_version(struct fakewatch *watch)
{
    fakewatch_greet(watch, 0, 0, "");
    fakewatch_refuse(watch, STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION,
                     "wire version 1 is not spoken here");
    fake_drain(watch->fd);
}

Test(follow, a_refusal_in_a_header_is_the_end)
{
    start(SP_TCP, another_version, NULL, NULL);
    cr_assert_eq(next(), FOLLOW_ENDED);
    cr_expect_eq(status().status, STATUS_FAILED_PRECONDITION);
    cr_expect_eq(status().reason, MESHD__V1__REASON__REASON_WIRE_VERSION);
    cr_expect_str_eq(status().text, "wire version 1 is not spoken here");
    cr_expect_eq(status().wire_version_max, 1);
    stop();
}

static void forbidden(struct fakewatch *watch)
{
    fakewatch_greet(watch, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_POLICY, "not you");
}

Test(follow, a_refusal_in_the_preamble_is_the_end)
{
    start(SP_TCP, forbidden, NULL, NULL);
    cr_assert_eq(next(), FOLLOW_ENDED);
    cr_expect_eq(status().status, STATUS_PERMISSION_DENIED);
    cr_expect_eq(status().reason, MESHD__V1__REASON__REASON_POLICY);
    cr_expect_str_eq(status().text, "not you");
    stop();
}

static void too_many(struct fakewatch *watch)
{
    fakewatch_greet(watch, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                    "too many watchers");
}

Test(follow, a_node_that_is_full_is_tried_again)
{
    start(SP_TCP, too_many, picture_and_wait, NULL);
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -EBUSY);
    cr_expect_eq(status().status, STATUS_RESOURCE_EXHAUSTED);
    cr_expect_str_eq(status().text, "too many watchers");
    expect_picture();
    cr_expect_eq(status().status, STATUS_OK);
    stop();
}

Test(follow, a_refused_connection_is_told_for_each_attempt)
{
    char url[64];
    struct follow_settings settings = {.url = url};

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", fake_free_port());
    cr_assert_eq(follow_new(&settings, &follow), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(next(), FOLLOW_LOST);
        cr_expect_eq(status().error, -ECONNREFUSED);
    }
    cr_expect_eq(status().connects, 0);
    cr_expect_eq(follow_next(follow, 0, &reply), -ETIMEDOUT); /* it waits before the next one */
    follow_free(follow);
}

Test(follow, no_socket_there_is_told)
{
    struct follow_settings settings = {.url = "ipc:///nowhere/at/all.sock"};

    cr_assert_eq(follow_new(&settings, &follow), 0);
    cr_assert_eq(next(), FOLLOW_LOST);
    cr_expect_eq(status().error, -ENOENT);
    follow_free(follow);
}

Test(follow, a_url_that_cannot_be_is_turned_down_at_once)
{
    struct follow_settings settings = {.url = "http://127.0.0.1:1"};

    cr_expect_eq(follow_new(&settings, &follow), -EINVAL);
    settings.url = "tls://127.0.0.1:1";
    cr_expect_eq(follow_new(&settings, &follow), -EINVAL);
}

Test(follow, an_attempt_never_outlasts_the_deadline)
{
    struct follow_settings settings = {0};
    uint64_t begun;

    fake_black_hole(&fake, SP_TCP);
    settings.url = fake.url;
    cr_assert_eq(follow_new(&settings, &follow), 0);
    begun = clock_ms();
    for (int i = 0; i < 10; i++)
        cr_expect_eq(follow_next(follow, clock_ms() + 2, &reply), -ETIMEDOUT);
    cr_expect_lt(clock_ms() - begun, 4000);
    follow_free(follow);
    fake_stop(&fake);
}

/* Each call is given no time at all; poll(2) says when to call. */
Test(follow, its_descriptor_says_when_there_is_something_to_do)
{
    struct pollfd p;
    unsigned told = 0, losses = 0;

    start(SP_TCP, picture, picture_and_wait, NULL);
    p = (struct pollfd){.fd = follow_fd(follow), .events = POLLIN};
    while (told < 4) {
        int r;

        cr_assert_eq(poll(&p, 1, LONG_MS), 1);
        r = follow_next(follow, 0, &reply);
        told += r == 0;
        losses += r == FOLLOW_LOST;
        cr_assert(r == 0 || r == FOLLOW_LOST || r == -ETIMEDOUT);
    }
    cr_expect_eq(losses, 1);
    cr_expect_eq(follow_next(follow, 0, &reply), -ETIMEDOUT);
    cr_expect_eq(poll(&p, 1, 0), 0);
    cr_expect_eq(p.fd, follow_fd(follow));
    stop();
}

Test(follow, its_descriptor_knows_of_a_message_that_is_here_already)
{
    struct pollfd p;

    start(SP_TCP, picture_and_wait, NULL, NULL);
    cr_assert_eq(next(), 0);
    p = (struct pollfd){.fd = follow_fd(follow), .events = POLLIN};
    cr_assert_eq(poll(&p, 1, LONG_MS), 1);
    cr_assert_eq(next(), 0);
    cr_expect(reply->synced);
    stop();
}

Test(follow, a_name_is_looked_up_without_being_waited_for)
{
    char url[64];
    struct follow_settings settings = {.url = url};
    int r;

    memset(&scene, 0, sizeof(scene));
    scene.script[0] = picture_and_wait;
    fake_start(&fake, SP_TCP, serve, NULL);
    snprintf(url, sizeof(url), "tcp://localhost:%u", fake.port);
    cr_assert_eq(follow_new(&settings, &follow), 0);
    do {
        struct pollfd p = {.fd = follow_fd(follow), .events = POLLIN};

        cr_assert_eq(poll(&p, 1, LONG_MS), 1);
        r = follow_next(follow, 0, &reply);
    } while (r == -ETIMEDOUT);
    cr_expect_eq(r, 0);
    stop();
}
