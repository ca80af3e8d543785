/* libmeshd over tls://: what lasts, leases, watches and replicas. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "client/answers.h"
#include "client/fakewatch.h"
#include "client/follow.h"
#include "client/tls_stage.h"

/* Less than the 9.5 s of silence after which a watch wakes by itself. */
#define SILENT_MS 8000

TestSuite(client_tls_follow, .init = stage_setup);

static void serve_offers(struct fake *f, int fd)
{
    Meshd__V1__OfferReply yes = MESHD__V1__OFFER_REPLY__INIT;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        fake_reply(f, fd, &call, 0, 0, "", &yes.base);
        fake_call_fini(&call);
        sem_post(&told);
    }
}

Test(client_tls_follow, a_lease_is_made_and_made_again)
{
    struct mesh_lease *lease;

    stage_start(serve_offers, NULL);
    stage_open();
    cr_assert_eq(mesh_register(client, "web", "127.0.0.1:80", SOON, &lease), MESH_OK, "%s",
                 mesh_error_text());
    sem_wait(&told);
    cr_expect_eq(atomic_load(&front.let_in), 2);
    cr_expect_eq(mesh_lease_state(lease), MESH_OK);
    front_cut(&front);
    sem_wait(&told); /* renewed, or the test ends by its alarm */
    cr_expect_eq(atomic_load(&front.let_in), 3);
    mesh_lease_close(lease);
    sem_wait(&told); /* withdrawn */
    stage_stop();
}

static const struct fakewatch_event web = {FW_UP, "web", "local", "h:1", 0};

/* Serves the client's own connection; false: it is a watch. */
static bool serves_calls(struct fake *f, int fd)
{
    char first = '\0';

    if (recv(fd, &first, 1, MSG_PEEK) == 1 && first != '\0')
        return false;
    serve_answers(f, fd);
    return true;
}

/* A picture of many messages and one change after it. */
static void tells(struct fake *f, int fd)
{
    struct fakewatch watch;
    uint64_t revision = 1;

    if (serves_calls(f, fd) || !fakewatch_begin(&watch, f, fd))
        return;
    fakewatch_greet(&watch, 0, 0, "");
    if (!fakewatch_tell(&watch, &(struct fakewatch_message){.epoch = 9, .resync = true}))
        return;
    for (unsigned i = 0; i < 500; i++) {
        char name[32];
        struct fakewatch_event event = {FW_UP, name, "local", "h:1", 0};

        snprintf(name, sizeof(name), "svc-%u", i);
        if (!fakewatch_tell(&watch,
                            &(struct fakewatch_message){.epoch = 9, .events = &event, .n = 1}))
            return;
    }
    fakewatch_tell(&watch,
                   &(struct fakewatch_message){.epoch = 9, .revision = revision++, .synced = true});
    sem_wait(&told);
    fakewatch_tell(&watch,
                   &(struct fakewatch_message){
                       .epoch = 9, .revision = revision++, .synced = true, .events = &web, .n = 1});
    fake_drain(fd);
}

/* As a loop does it: asked until there is nothing, then not before the descriptor says so. */
static enum mesh_change next_change(struct mesh_watch *watch, const struct mesh_instance **instance)
{
    enum mesh_change change;
    enum mesh_status status;

    while ((status = mesh_watch_next(watch, 1, &change, instance)) != MESH_OK) {
        struct pollfd at = {.fd = mesh_watch_fd(watch), .events = POLLIN};

        cr_assert_eq(status, MESH_TIMEOUT, "%s", mesh_error_text());
        cr_assert_eq(poll(&at, 1, SILENT_MS), 1);
    }
    return change;
}

Test(client_tls_follow, a_watch_tells_everything_to_who_polls)
{
    const struct mesh_instance *instance;
    struct mesh_watch *watch;

    for (size_t step = 0; step < 30; step += 29) {
        stage_start(tells, NULL);
        front.step = step;
        stage_open();
        cr_assert_eq(mesh_watch_open(client, NULL, SOON, &watch), MESH_OK, "%s", mesh_error_text());
        for (unsigned i = 0; i < 500; i++)
            cr_assert_eq(next_change(watch, &instance), MESH_UP);
        cr_assert_eq(next_change(watch, &instance), MESH_SYNCED);
        sem_post(&told);
        cr_assert_eq(next_change(watch, &instance), MESH_UP);
        cr_expect_str_eq(instance->name, "web");
        cr_assert_eq(next_change(watch, &instance), MESH_SYNCED);
        front_cut(&front);
        cr_assert_eq(next_change(watch, &instance), MESH_AWAY);
        cr_assert_eq(next_change(watch, &instance), MESH_DOWN); /* the new picture has no web */
        sem_post(&told);
        mesh_watch_close(watch);
        stage_stop();
    }
}

#define RECORD 16384u /* the longest; and the first buffer of follow */
#define AHEAD 200u    /* bytes that come before the record */

static uint8_t *pack(const struct fakewatch *watch, unsigned n, uint64_t revision, size_t *out_len)
{
    static struct fakewatch_event events[RECORD];
    const struct fakewatch_message message = {
        .epoch = 9, .revision = revision, .synced = true, .events = events, .n = n};

    for (unsigned i = 0; i < n; i++)
        events[i] = web;
    return fakewatch_pack(watch, &message, out_len);
}

/* The beginning of a long message; then in one record its end and a second one, of which follow's
 * buffer has room for a part only. */
static void overfills(struct fake *f, int fd)
{
    struct fakewatch watch;
    uint8_t *first = NULL, *second, record[RECORD];
    size_t len = 0, next_len, n = 0;

    if (!fakewatch_begin(&watch, f, fd))
        return;
    fakewatch_greet(&watch, 0, 0, "");
    second = pack(&watch, 3, 2, &next_len);
    while (len + next_len <= RECORD + AHEAD / 2) {
        free(first);
        first = pack(&watch, (unsigned)++n, 1, &len);
    }
    fake_send(fd, first, AHEAD);
    sem_wait(&told);
    memcpy(record, first + AHEAD, len - AHEAD);
    memcpy(record + len - AHEAD, second, next_len);
    fake_send(fd, record, len - AHEAD + next_len);
    free(first);
    free(second);
    fake_drain(fd);
}

/* Waits until the descriptor says that there is something to do, and does it once. */
static int follow_once(struct follow *follow, int ms, const Meshd__V1__WatchReply **reply)
{
    struct pollfd at = {.fd = follow_fd(follow), .events = POLLIN};

    cr_assert_eq(poll(&at, 1, ms), 1, "it says nothing");
    return follow_next(follow, 0, reply);
}

Test(client_tls_follow, what_lies_decrypted_and_unread_is_something_to_do)
{
    struct follow_settings settings = {.url = front.url};
    const Meshd__V1__WatchReply *reply;
    struct follow_status status;
    struct follow *follow;

    stage_start(overfills, NULL);
    cr_assert_eq(trust_open(front.url, &mine, &settings.trust), MESH_OK, "%s", mesh_error_text());
    cr_assert_eq(follow_new(&settings, &follow), 0);
    trust_unref(settings.trust);
    while (atomic_load(&front.sent) < PREAMBLE_HEAD + AHEAD)
        cr_assert_eq(follow_next(follow, clock_ms() + 5, &reply), -ETIMEDOUT);
    cr_assert_eq(follow_next(follow, 0, &reply), -ETIMEDOUT); /* has all that was sent */
    sem_post(&told);
    for (uint64_t revision = 1; revision <= 2; revision++) {
        int r;

        /* The second is there already; later, the time for the whole attempt would call, too. */
        while ((r = follow_once(follow, revision == 1 ? SOON : 2000, &reply)) == -ETIMEDOUT)
            ;
        cr_assert_eq(r, 0);
        cr_expect_eq(reply->revision, revision);
    }
    follow_status(follow, &status);
    cr_expect_eq(status.connects, 1);
    follow_free(follow);
    stage_stop();
}

Test(client_tls_follow, a_replica_follows_and_comes_back)
{
    const struct mesh_list *list;
    struct mesh_replica *replica;
    struct mesh_reader *reader;
    struct mesh_replica_state state;

    stage_start(tells, NULL);
    cr_assert_eq(mesh_replica_open_tls(front.url, &mine, NULL, SOON, &replica), MESH_OK, "%s",
                 mesh_error_text());
    cr_assert_eq(mesh_reader_open(replica, &reader), MESH_OK);
    cr_assert_eq(mesh_replica_lookup(reader, "svc-499", &list), MESH_OK);
    sem_post(&told);
    while (mesh_replica_lookup(reader, "web", &list) != MESH_OK)
        poll(NULL, 0, 1);
    front_cut(&front);
    do {
        mesh_replica_state(replica, &state);
        poll(NULL, 0, 1);
    } while (state.reconnects == 0 || !state.current);
    cr_expect_eq(mesh_replica_lookup(reader, "svc-0", &list), MESH_OK);
    sem_post(&told);
    mesh_reader_close(reader);
    mesh_replica_close(replica);
    stage_stop();
}
