/* A replica against a fake node that goes on when the test says so. */
#include <criterion/criterion.h>
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <meshd/client.h>
#include "client/fakewatch.h"
#include "client/replica_body.h"
#include "wire/status.h"

#define LONG_MS 20000

static struct fake fake;
static void (*script[4])(struct fakewatch *watch);
static unsigned served;
static char asked[256];
static uint32_t asked_heartbeat;
static sem_t go;
static struct mesh_replica *replica;
static struct mesh_reader *reader;

static void serve(struct fake *f, int fd)
{
    unsigned i = served++;
    struct fakewatch at;

    if (!fakewatch_begin(&at, f, fd))
        return;
    memcpy(asked, at.name_glob, sizeof(asked));
    asked_heartbeat = at.heartbeat_ms;
    while (i > 0 && (i > 3 || !script[i]))
        i--;
    script[i](&at);
}

static void start(void (*first)(struct fakewatch *), void (*second)(struct fakewatch *))
{
    script[0] = first;
    script[1] = second;
    sem_init(&go, 0, 0);
    fake_start(&fake, SP_TCP, serve, NULL);
    cr_assert_eq(mesh_replica_open(fake.url, NULL, LONG_MS, &replica), MESH_OK, "%s",
                 mesh_error_text());
    cr_assert_eq(mesh_reader_open(replica, &reader), MESH_OK);
}

static void stop(void)
{
    sem_post(&go);
    mesh_reader_close(reader);
    mesh_replica_close(replica);
    fake_stop(&fake);
}

static void tell(struct fakewatch *to, uint64_t revision, bool resync, bool synced,
                 const struct fakewatch_event *events, size_t n)
{
    fakewatch_tell(to, &(struct fakewatch_message){.epoch = 7,
                                                   .revision = revision,
                                                   .resync = resync,
                                                   .synced = synced,
                                                   .events = events,
                                                   .n = n});
}

#define UP(name, source, backend, state)                                                           \
    {                                                                                              \
        FW_UP, name, source, backend, state                                                        \
    }

static const struct fakewatch_event first[] = {
    UP("billing", "10.0.0.9", "stale:1", FW_STALE),
    UP("billing", "10.0.0.5", "unhealthy:1", FW_CONNECTED),
    UP("billing", "10.0.0.8", "draining:1", FW_CONNECTED | FW_HEALTHY | FW_DRAINING),
    UP("billing", "10.0.0.7", "connected:1", FW_CONNECTED | FW_HEALTHY),
    UP("billing", "10.0.0.6", "away:1", 0),
    UP("billing", "local", "local:1", 0),
    UP("web", "10.0.0.7", "web:1", FW_CONNECTED),
};

static void picture(struct fakewatch *to)
{
    fakewatch_greet(to, 0, 0, "");
    tell(to, 0, true, false, first, 3);
    tell(to, 40, false, true, first + 3, 4);
}

static void picture_and_wait(struct fakewatch *to)
{
    picture(to);
    fake_drain(to->fd);
}

/* The addresses of an answer in their order, or the status. */
static const char *look_up(const char *name)
{
    static char line[512];
    const struct mesh_list *list;
    enum mesh_status status = mesh_replica_lookup(reader, name, &list);
    size_t len = 0;

    if (status != MESH_OK)
        return mesh_status_text(status);
    for (size_t i = 0; i < mesh_list_count(list); i++)
        len += (size_t)snprintf(line + len, sizeof(line) - len, "%s%s", i ? " " : "",
                                mesh_list_at(list, i)->address);
    return line;
}

static struct mesh_replica_state state(void)
{
    struct mesh_replica_state now;

    mesh_replica_state(replica, &now);
    return now;
}

/* Another thread is at work: there is no event to wait for but what it does. */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        for (int i_ = 0; !(condition) && i_ < LONG_MS; i_++)                                       \
            poll(NULL, 0, 1);                                                                      \
        cr_assert(condition);                                                                      \
    } while (0)

Test(replica, answers_best_first)
{
    start(picture_and_wait, NULL);
    cr_expect_str_eq(look_up("billing"),
                     "local:1 connected:1 draining:1 unhealthy:1 away:1 stale:1");
    cr_expect_str_eq(look_up("web"), "web:1");
    cr_expect_str_eq(look_up("nobody"), "not found");
    cr_expect_str_eq(mesh_error_text(), "nobody offers nobody");
    stop();
}

Test(replica, takes_any_spelling_of_a_name)
{
    start(picture_and_wait, NULL);
    cr_expect_str_eq(look_up("Web."), "web:1");
    cr_expect_str_eq(look_up("WEB:80"), "web:1");
    cr_expect_str_eq(look_up("no spaces"), "invalid argument");
    cr_expect_str_eq(look_up(""), "invalid argument");
    stop();
}

Test(replica, an_answer_has_all_that_is_known)
{
    const struct mesh_list *list;
    const struct mesh_instance *it;
    size_t n;

    start(picture_and_wait, NULL);
    cr_assert_eq(mesh_replica_lookup(reader, "web", &list), MESH_OK);
    cr_expect_eq(mesh_list_current(list), 1);
    cr_assert_eq(mesh_list_count(list), 1);
    it = mesh_list_of(list, 0, &n);
    cr_expect_eq(n, 1);
    cr_expect_str_eq(it->name, "web");
    cr_expect_str_eq(it->node, "10.0.0.7");
    cr_expect_str_eq(it->source, "10.0.0.7");
    cr_expect_eq(it->state, MESH_CONNECTED);
    stop();
}

Test(replica, says_how_it_stands)
{
    start(picture_and_wait, NULL);
    cr_expect_eq(state().current, 1);
    cr_expect_eq(state().epoch, 7);
    cr_expect_eq(state().revision, 40);
    cr_expect_eq(state().instances, 7);
    cr_expect_eq(state().changes, 0);
    cr_expect_eq(state().resyncs, 0);
    cr_expect_eq(state().reconnects, 0);
    cr_expect_eq(asked_heartbeat, 1000);
    stop();
}

static void changes(struct fakewatch *to)
{
    const struct fakewatch_event events[] = {
        UP("web", "10.0.0.7", "web:2", FW_CONNECTED),
        {FW_DOWN, "billing", "local", "local:1", 0},
        UP("db", "10.0.0.7", "db:1", FW_CONNECTED),
        {FW_DOWN, "nobody", "10.0.0.7", "x:1", 0},
        UP("Not Canonical", "10.0.0.7", "x:1", FW_CONNECTED),
    };
    const struct fakewatch_event gone = {FW_DOWN, "db", "10.0.0.7", "db:1", 0};

    picture(to);
    sem_wait(&go);
    tell(to, 41, false, false, events, 5);
    sem_wait(&go);
    tell(to, 42, false, false, &gone, 1);
    fake_drain(to->fd);
}

Test(replica, follows_changes)
{
    start(changes, NULL);
    sem_post(&go);
    AWAIT(state().revision == 41);
    cr_expect_str_eq(look_up("web"), "web:2");
    cr_expect_str_eq(look_up("billing"), "connected:1 draining:1 unhealthy:1 away:1 stale:1");
    cr_expect_str_eq(look_up("db"), "db:1");
    cr_expect_eq(state().changes, 3);
    cr_expect_eq(state().instances, 7);
    sem_post(&go);
    AWAIT(state().revision == 42);
    cr_expect_str_eq(look_up("db"), "not found");
    stop();
}

static const unsigned states[] = {FW_CONNECTED | FW_HEALTHY, FW_CONNECTED,
                                  FW_CONNECTED | FW_HEALTHY | FW_DRAINING,
                                  FW_CONNECTED | FW_DRAINING};

/* The one at 10.0.0.7 goes through all of them, in messages of their own. */
static void states_change(struct fakewatch *to)
{
    struct fakewatch_event event = {FW_CHANGED, "billing", "10.0.0.7", "connected:1", 0};

    picture(to);
    for (unsigned i = 0; i < 4; i++) {
        sem_wait(&go);
        event.state = states[3 - i];
        tell(to, 41 + i, false, false, &event, 1);
    }
    fake_drain(to->fd);
}

Test(replica, a_state_that_changes_alone_moves_an_instance_to_its_place)
{
    static const char *const order[] = {
        "local:1 draining:1 unhealthy:1 connected:1 away:1 stale:1",
        "local:1 draining:1 connected:1 unhealthy:1 away:1 stale:1", /* behind its equal */
        "local:1 draining:1 unhealthy:1 connected:1 away:1 stale:1", /* likewise */
        "local:1 connected:1 draining:1 unhealthy:1 away:1 stale:1",
    };
    const struct mesh_list *list;

    start(states_change, NULL);
    for (unsigned i = 0; i < 4; i++) {
        unsigned found = 0;

        sem_post(&go);
        AWAIT(state().revision == 41 + i);
        cr_expect_str_eq(look_up("billing"), order[i]);
        cr_assert_eq(mesh_replica_lookup(reader, "billing", &list), MESH_OK);
        for (size_t k = 0; k < mesh_list_count(list); k++) {
            const struct mesh_instance *it = mesh_list_at(list, k);
            unsigned state = states[3 - i];

            if (strcmp(it->address, "connected:1") != 0)
                continue;
            found++;
            cr_expect_eq(it->state, MESH_CONNECTED | (state & FW_HEALTHY ? MESH_HEALTHY : 0u) |
                                        (state & FW_DRAINING ? MESH_DRAINING : 0u));
        }
        cr_expect_eq(found, 1);
    }
    stop();
}

static void half_then_whole(struct fakewatch *to)
{
    const struct fakewatch_event other = UP("web", "10.0.0.7", "web:9", FW_CONNECTED);

    picture(to);
    sem_wait(&go);
    tell(to, 0, true, false, &other, 1);
    sem_wait(&go);
    tell(to, 50, false, true, NULL, 0);
    fake_drain(to->fd);
}

Test(replica, never_shows_half_a_picture)
{
    const struct mesh_list *list;

    start(half_then_whole, NULL);
    sem_post(&go);
    AWAIT(!state().current);
    cr_expect_str_eq(look_up("web"), "web:1");
    cr_expect_str_eq(look_up("billing"),
                     "local:1 connected:1 draining:1 unhealthy:1 away:1 stale:1");
    cr_assert_eq(mesh_replica_lookup(reader, "web", &list), MESH_OK);
    cr_expect_eq(mesh_list_current(list), 0);
    sem_post(&go);
    AWAIT(state().current);
    cr_expect_str_eq(look_up("web"), "web:9");
    cr_expect_str_eq(look_up("billing"), "not found");
    cr_expect_eq(state().resyncs, 1);
    stop();
}

static void picture_then_away(struct fakewatch *to)
{
    picture(to);
    sem_wait(&go);
}

static void back(struct fakewatch *to)
{
    const struct fakewatch_event other = UP("web", "10.0.0.7", "web:3", FW_CONNECTED);

    sem_wait(&go);
    fakewatch_greet(to, 0, 0, "");
    tell(to, 44, false, true, &other, 1);
    fake_drain(to->fd);
}

Test(replica, goes_on_answering_while_its_node_is_away)
{
    start(picture_then_away, back);
    sem_post(&go);
    AWAIT(!state().current);
    cr_expect_str_eq(look_up("web"), "web:1");
    sem_post(&go);
    AWAIT(state().current);
    cr_expect_str_eq(look_up("web"), "web:3");
    cr_expect_str_eq(look_up("billing"),
                     "local:1 connected:1 draining:1 unhealthy:1 away:1 stale:1");
    cr_expect_eq(state().reconnects, 1);
    cr_expect_eq(state().resyncs, 0);
    stop();
}

static void many(struct fakewatch *to)
{
    static struct fakewatch_event events[5000];
    static char names[5000][16];

    for (size_t i = 0; i < 5000; i++) {
        snprintf(names[i], sizeof(names[i]), "svc-%05zu", i);
        events[i] = (struct fakewatch_event)UP(names[i], "10.0.0.7", "h:1", FW_CONNECTED);
    }
    fakewatch_greet(to, 0, 0, "");
    tell(to, 1, true, true, events, 5000);
    sem_wait(&go);
    for (size_t i = 0; i < 4990; i++)
        events[i].kind = FW_DOWN;
    tell(to, 2, false, false, events, 4990);
    fake_drain(to->fd);
}

Test(replica, grows_and_shrinks)
{
    char name[16];

    start(many, NULL);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "svc-%05d", i);
        cr_assert_str_eq(look_up(name), "h:1");
    }
    sem_post(&go);
    AWAIT(state().revision == 2);
    cr_expect_eq(state().instances, 10);
    cr_expect_str_eq(look_up("svc-00001"), "not found");
    cr_expect_str_eq(look_up("svc-04999"), "h:1");
    stop();
}

Test(replica, needs_a_node_to_begin_with)
{
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", fake_free_port());
    cr_expect_eq(mesh_replica_open(url, NULL, LONG_MS, &replica), MESH_GONE);
    cr_expect_eq(mesh_replica_open("udp://x", NULL, LONG_MS, &replica), MESH_INVALID);
    cr_expect_eq(mesh_replica_open(url, "no spaces", LONG_MS, &replica), MESH_INVALID);
    cr_expect_eq(mesh_replica_open(url, NULL, 0, &replica), MESH_INVALID);
}

static void never_whole(struct fakewatch *to)
{
    fakewatch_greet(to, 0, 0, "");
    tell(to, 0, true, false, first, 3);
    fake_drain(to->fd);
}

Test(replica, half_a_picture_is_not_enough_to_begin_with)
{
    script[0] = never_whole;
    fake_start(&fake, SP_TCP, serve, NULL);
    cr_expect_eq(mesh_replica_open(fake.url, NULL, 100, &replica), MESH_TIMEOUT);
    fake_stop(&fake);
}

static void never_stops(struct fakewatch *to)
{
    const struct fakewatch_message again = {.epoch = 7, .revision = 40, .events = first, .n = 7};

    picture(to);
    while (fakewatch_tell(to, &again))
        ;
}

Test(replica, can_be_closed_while_its_node_never_stops)
{
    start(never_stops, NULL);
    cr_expect_str_eq(look_up("web"), "web:1");
    stop();
}

static void never_done(struct fakewatch *to)
{
    const struct fakewatch_message again = {.epoch = 7, .events = first, .n = 7};

    fakewatch_greet(to, 0, 0, "");
    while (fakewatch_tell(to, &again))
        ;
}

Test(replica, a_deadline_holds_though_a_picture_never_ends)
{
    script[0] = never_done;
    fake_start(&fake, SP_TCP, serve, NULL);
    cr_expect_eq(mesh_replica_open(fake.url, NULL, 100, &replica), MESH_TIMEOUT);
    fake_stop(&fake);
}

Test(replica, readers_never_see_half_a_change) { cr_expect_eq(replica_body(), 0); }
