/* The public watch against a fake node. */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "client/fakewatch.h"
#include "client/watch.h"
#include "wire/status.h"

#define LONG_MS 20000

static struct fake fake;
static void (*script[4])(struct fakewatch *watch);
static atomic_uint served;
static char asked[4][256];
static struct mesh_watch *watch;

static void serve(struct fake *f, int fd)
{
    unsigned i = atomic_load(&served);
    struct fakewatch at;

    if (!fakewatch_begin(&at, f, fd))
        return;
    if (i < 4)
        memcpy(asked[i], at.name_glob, sizeof(asked[i]));
    atomic_fetch_add(&served, 1);
    while (i > 0 && (i > 3 || !script[i]))
        i--;
    script[i](&at);
}

static void start(void (*first)(struct fakewatch *), void (*second)(struct fakewatch *))
{
    script[0] = first;
    script[1] = second;
    fake_start(&fake, SP_TCP, serve, NULL);
}

static void open_it(const char *name)
{
    cr_assert_eq(watch_open_url(fake.url, NULL, name, LONG_MS, &watch), MESH_OK, "%s",
                 mesh_error_text());
}

static void stop(void)
{
    mesh_watch_close(watch);
    fake_stop(&fake);
}

/* The next change as one line: "UP billing@local 127.0.0.1:80". */
static const char *next(void)
{
    static const char *const names[] = {"UP", "CHANGED", "DOWN", "SYNCED", "AWAY"};
    static char line[512];
    enum mesh_change change;
    const struct mesh_instance *it;
    enum mesh_status status = mesh_watch_next(watch, LONG_MS, &change, &it);

    if (status != MESH_OK)
        return mesh_status_text(status);
    if (!it)
        return names[change];
    snprintf(line, sizeof(line), "%s %s@%s %s", names[change], it->name, it->source, it->address);
    return line;
}

#define EXPECT(line) cr_expect_str_eq(next(), line)
#define UP(name, source, backend)                                                                  \
    {                                                                                              \
        FW_UP, name, source, backend, FW_CONNECTED | FW_HEALTHY                                    \
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

static const struct fakewatch_event before[] = {
    UP("billing", "local", "127.0.0.1:80"),
    UP("billing", "10.0.0.7", "10.0.0.7:4100"),
    UP("web", "10.0.0.7", "10.0.0.7:80"),
};

static void picture(struct fakewatch *to)
{
    fakewatch_greet(to, 0, 0, "");
    tell(to, 0, true, false, before, 2);
    tell(to, 40, false, true, before + 2, 1);
}

static void picture_and_wait(struct fakewatch *to)
{
    picture(to);
    fake_drain(to->fd);
}

static void expect_picture(void)
{
    EXPECT("UP billing@local 127.0.0.1:80");
    EXPECT("UP billing@10.0.0.7 10.0.0.7:4100");
    EXPECT("UP web@10.0.0.7 10.0.0.7:80");
    EXPECT("SYNCED");
}

Test(watch, begins_with_all_that_is_known)
{
    enum mesh_change change;
    const struct mesh_instance *it;

    start(picture_and_wait, NULL);
    open_it(NULL);
    cr_assert_eq(mesh_watch_next(watch, LONG_MS, &change, &it), MESH_OK);
    cr_expect_eq(change, MESH_UP);
    cr_expect_str_eq(it->node, "n0");
    cr_expect_eq(it->state, MESH_LOCAL | MESH_CONNECTED | MESH_HEALTHY);
    EXPECT("UP billing@10.0.0.7 10.0.0.7:4100");
    EXPECT("UP web@10.0.0.7 10.0.0.7:80");
    EXPECT("SYNCED");
    cr_expect_str_eq(asked[0], "");
    cr_expect_eq(mesh_watch_next(watch, 1, &change, &it), MESH_TIMEOUT);
    stop();
}

static void changes(struct fakewatch *to)
{
    const struct fakewatch_event first[] = {
        UP("web", "10.0.0.7", "10.0.0.7:80"),   /* nothing new */
        UP("web", "10.0.0.7", "10.0.0.7:81"),   /* another address */
        UP("web", "10.0.0.8", "10.0.0.8:80"),   /* new */
        {FW_DOWN, "web", "10.0.0.9", "x:1", 0}, /* never told */
        {FW_DOWN, "web", "10.0.0.7", "10.0.0.7:81", 0},
        {FW_CHANGED, "web", "10.0.0.8", "10.0.0.8:80", FW_STALE},
        {MESHD__V1__WATCH_KIND__WATCH_KIND_NONE, "web", "10.0.0.8", "10.0.0.8:90", 0},
    };

    picture(to);
    tell(to, 41, false, false, first, 7);
    fake_drain(to->fd);
}

Test(watch, tells_changes_and_nothing_twice)
{
    enum mesh_change change;
    const struct mesh_instance *it;

    start(changes, NULL);
    open_it(NULL);
    expect_picture();
    EXPECT("CHANGED web@10.0.0.7 10.0.0.7:81");
    EXPECT("UP web@10.0.0.8 10.0.0.8:80");
    EXPECT("DOWN web@10.0.0.7 10.0.0.7:81");
    cr_assert_eq(mesh_watch_next(watch, LONG_MS, &change, &it), MESH_OK);
    cr_expect_eq(change, MESH_CHANGED);
    cr_expect_eq(it->state, MESH_STALE);
    cr_expect_eq(mesh_watch_next(watch, 1, &change, &it), MESH_TIMEOUT);
    stop();
}

static void another_picture(struct fakewatch *to)
{
    const struct fakewatch_event after[] = {
        UP("billing", "local", "127.0.0.1:80"),
        UP("billing", "10.0.0.7", "10.0.0.7:4200"),
        UP("db", "10.0.0.9", "10.0.0.9:5432"),
    };

    fakewatch_greet(to, 0, 0, "");
    tell(to, 0, true, false, after, 1);
    tell(to, 0, false, false, after + 1, 2);
    tell(to, 90, false, true, NULL, 0);
    fake_drain(to->fd);
}

Test(watch, tells_only_differences_after_a_loss)
{
    start(picture, another_picture);
    open_it("*");
    expect_picture();
    EXPECT("AWAY");
    EXPECT("CHANGED billing@10.0.0.7 10.0.0.7:4200");
    EXPECT("UP db@10.0.0.9 10.0.0.9:5432");
    EXPECT("DOWN web@10.0.0.7 10.0.0.7:80");
    EXPECT("SYNCED");
    cr_expect_str_eq(asked[1], "*");
    stop();
}

static void goes_on(struct fakewatch *to)
{
    const struct fakewatch_event down = {FW_DOWN, "web", "10.0.0.7", "10.0.0.7:80", 0};

    fakewatch_greet(to, 0, 0, "");
    tell(to, 41, false, false, &down, 1);
    tell(to, 41, false, true, NULL, 0);
    fake_drain(to->fd);
}

Test(watch, goes_on_without_a_picture_where_the_node_remembers)
{
    start(picture, goes_on);
    open_it(NULL);
    expect_picture();
    EXPECT("AWAY");
    EXPECT("DOWN web@10.0.0.7 10.0.0.7:80");
    EXPECT("SYNCED");
    stop();
}

static void never_whole(struct fakewatch *to)
{
    fakewatch_greet(to, 0, 0, "");
    tell(to, 0, true, false, before, 1);
}

Test(watch, half_a_picture_is_no_reason_to_be_away)
{
    start(never_whole, picture_and_wait);
    open_it(NULL);
    expect_picture();
    stop();
}

static void falls_behind(struct fakewatch *to)
{
    picture(to);
    tell(to, 0, true, false, before, 1);
    tell(to, 50, false, true, NULL, 0);
    fake_drain(to->fd);
}

Test(watch, another_picture_on_the_same_connection_tells_differences)
{
    start(falls_behind, NULL);
    open_it(NULL);
    expect_picture();
    EXPECT("DOWN billing@10.0.0.7 10.0.0.7:4100");
    EXPECT("DOWN web@10.0.0.7 10.0.0.7:80");
    EXPECT("SYNCED");
    stop();
}

Test(watch, its_descriptor_is_readable_from_the_beginning)
{
    struct pollfd p;
    unsigned told = 0;
    enum mesh_change change = MESH_UP;
    const struct mesh_instance *it;

    start(picture_and_wait, NULL);
    open_it(NULL);
    p = (struct pollfd){.fd = mesh_watch_fd(watch), .events = POLLIN};
    while (change != MESH_SYNCED) {
        cr_assert_eq(poll(&p, 1, LONG_MS), 1);
        while (mesh_watch_next(watch, 1, &change, &it) == MESH_OK)
            told++;
    }
    cr_expect_eq(told, 4);
    cr_expect_eq(poll(&p, 1, 0), 0);
    stop();
}

Test(watch, asks_for_one_name_in_its_canonical_spelling)
{
    start(picture_and_wait, NULL);
    open_it("Billing.");
    cr_expect_str_eq(asked[0], "billing");
    stop();
}

Test(watch, arguments_that_cannot_be_are_turned_down)
{
    enum mesh_change change;
    const struct mesh_instance *it;

    cr_expect_eq(watch_open_url("tcp://127.0.0.1:1", NULL, "no spaces", 1000, &watch),
                 MESH_INVALID);
    cr_expect_eq(watch_open_url("tcp://127.0.0.1:1", NULL, NULL, 0, &watch), MESH_INVALID);
    cr_expect_eq(watch_open_url("udp://127.0.0.1:1", NULL, NULL, 1000, &watch), MESH_INVALID);
    start(picture_and_wait, NULL);
    open_it(NULL);
    cr_expect_eq(mesh_watch_next(watch, 0, &change, &it), MESH_INVALID);
    stop();
}

Test(watch, a_node_that_is_not_there_is_told_at_once)
{
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", fake_free_port());
    cr_expect_eq(watch_open_url(url, NULL, NULL, LONG_MS, &watch), MESH_GONE);
    cr_expect_str_eq(mesh_error_text(), "watch: Connection refused");
}

Test(watch, a_node_that_says_nothing_is_given_the_time_there_is)
{
    fake_black_hole(&fake, SP_TCP);
    cr_expect_eq(watch_open_url(fake.url, NULL, NULL, 100, &watch), MESH_TIMEOUT);
    fake_stop(&fake);
}

static void forbidden(struct fakewatch *to)
{
    fakewatch_greet(to, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_POLICY, "not you");
}

Test(watch, a_refusal_says_why)
{
    start(forbidden, NULL);
    cr_expect_eq(watch_open_url(fake.url, NULL, NULL, LONG_MS, &watch), MESH_REFUSED);
    cr_expect_str_eq(mesh_error_text(), "PERMISSION_DENIED: not you");
    fake_stop(&fake);
}

static void full(struct fakewatch *to)
{
    fakewatch_greet(to, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT, "too many");
}

Test(watch, a_node_that_is_full_refuses)
{
    start(full, NULL);
    cr_expect_eq(watch_open_url(fake.url, NULL, NULL, LONG_MS, &watch), MESH_REFUSED);
    fake_stop(&fake);
}

static void no_meshd(struct fakewatch *to) { fake_send(to->fd, "HTTP/1.1 400 Bad\r\n", 18); }

Test(watch, something_else_that_answers_is_a_protocol_error)
{
    start(no_meshd, NULL);
    cr_expect_eq(watch_open_url(fake.url, NULL, NULL, LONG_MS, &watch), MESH_PROTOCOL);
    fake_stop(&fake);
}

Test(watch, is_over_when_the_node_refuses_to_go_on)
{
    start(picture, forbidden);
    open_it(NULL);
    expect_picture();
    EXPECT("AWAY");
    EXPECT("refused");
    EXPECT("refused");
    stop();
}

static void never_stops(struct fakewatch *to)
{
    const struct fakewatch_message again = {.epoch = 7, .revision = 40, .events = before, .n = 3};

    picture(to);
    while (fakewatch_tell(to, &again))
        ;
}

Test(watch, a_deadline_holds_however_much_is_told_that_is_not_new)
{
    enum mesh_change change;
    const struct mesh_instance *it;

    start(never_stops, NULL);
    open_it(NULL);
    expect_picture();
    cr_expect_eq(mesh_watch_next(watch, 50, &change, &it), MESH_TIMEOUT);
    stop();
}

/* A node that is not there when it is looked for again is waited for. */
Test(watch, tells_away_once_however_long_it_lasts)
{
    enum mesh_change change;
    const struct mesh_instance *it;

    start(picture, NULL);
    open_it(NULL);
    fake_stop(&fake);
    expect_picture();
    EXPECT("AWAY");
    cr_expect_eq(mesh_watch_next(watch, 400, &change, &it), MESH_TIMEOUT);
    mesh_watch_close(watch);
}
