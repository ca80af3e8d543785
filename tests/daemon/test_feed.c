/* From a registry to watchers: whatever happens to the maps, a copy that follows ends up as they
 * are. The copy's model (tests/gate/watcher.h) knows each name of one owner: even names are p0's,
 * odd ones p1's. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/feed.h"
#include "gate/watcher.h"

#define USED 300u /* of the names */

static struct rig rig;
static struct maps truth; /* value and told: what the registry holds */
static struct registry *reg;
static struct feed_source source;
static struct feed *feed;
static uint64_t versions;

static const char *const ids[] = {"p0", "p1"}, *const ips[] = {"192.0.2.0", "192.0.2.1"};
static bool there[2];

static void setup(void)
{
    rig_init(&rig);
    rig.epoch = 42;
    rig.watch_ops = feed_watch_ops(&source);
}

static void start(void)
{
    struct registry_settings settings = {.peer_id = "me", .epoch = 42, .limits = &rig.limits};

    cr_assert_eq(registry_new(&settings, &reg), 0);
    source = (struct feed_source){.peer_id = "me", .registry = reg};
    rig_start(&rig);
    cr_assert_eq(feed_start(rig.gate, "me", &rig.limits, &feed), 0);
}

static void teardown(void)
{
    feed_stop(feed);
    rig_stop(&rig);
    registry_free(reg);
}

static void show(void)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    truth.revision = snap->revision;
    memcpy(truth.told, truth.value, sizeof(truth.told));
    feed_show(feed, snap);
}

/* The owner's list becomes its names that have a value. */
static void put(int owner)
{
    struct list *none = list_empty(), *list;
    struct row *rows[USED];
    const char *label;
    char name[16], backend[32];
    size_t n = 0;

    cr_assert_eq(registry_peer_open(reg, ids[owner], ips[owner], 100, &label, NULL), 0);
    there[owner] = true;
    for (unsigned i = (unsigned)owner; i < USED; i += 2) {
        if (!truth.value[i])
            continue;
        maps_name(i, name);
        snprintf(backend, sizeof(backend), "10.0.0.1:%u", truth.value[i]);
        rows[n++] = row_new(name, strlen(name), backend, strlen(backend), label, 0);
    }
    cr_assert_eq(list_apply(none, rows, n, NULL, 0, &list), 0);
    cr_assert_eq(registry_put_list(reg, ids[owner], 1, ++versions, list, 100, NULL, NULL), 0);
    for (size_t i = 0; i < n; i++)
        row_unref(rows[i]);
    list_unref(list);
    list_unref(none);
}

static void change_some(int owner, unsigned most)
{
    for (unsigned k = (unsigned)rand() % most + 1; k > 0; k--) {
        unsigned i = (unsigned)rand() % (USED / 2) * 2 + (unsigned)owner;

        truth.value[i] = rand() % 3 ? (unsigned)rand() % 60000 + 1 : 0;
    }
    put(owner);
}

static void lose(int owner)
{
    if (!there[owner])
        return;
    there[owner] = false;
    for (unsigned i = (unsigned)owner; i < USED; i += 2)
        truth.value[i] = 0;
    cr_assert_eq(registry_peer_gone(reg, ids[owner], "left", 100, NULL), 0);
}

static void turn_state(int owner)
{
    struct registry_state state = {.connected = rand() % 2, .stale = rand() % 2};

    if (there[owner])
        cr_assert_eq(registry_peer_state(reg, ids[owner], &state, NULL), 0);
}

static void one_step(void)
{
    int owner = rand() % 2;

    switch (rand() % 12) {
    case 0:
        lose(owner);
        break;
    case 1:
    case 2:
        turn_state(owner);
        break;
    case 3:
        change_some(owner, USED);
        break;
    default:
        change_some(owner, 3);
        break;
    }
    show();
}

static const struct {
    const char *glob, *peer;
} asked[] = {{NULL, NULL}, {"s0007", NULL}, {"s00*", NULL}, {NULL, "p1"}, {"*4", "p0"}};
#define WATCHERS (sizeof(asked) / sizeof(*asked))

/* Something that concerns each of them, so that none learns only by its next sign of life how far
 * the maps are. */
static void touch_all(void)
{
    truth.value[4] = truth.value[4] % 60000 + 1;
    put(0);
    truth.value[7] = truth.value[7] % 60000 + 1;
    put(1);
    show();
}

static void follow_through(unsigned steps)
{
    static struct watcher w[WATCHERS];

    show();
    for (size_t i = 0; i < WATCHERS; i++) {
        Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;

        request.name_glob = (char *)(asked[i].glob ? asked[i].glob : "");
        request.peer = (char *)(asked[i].peer ? asked[i].peer : "");
        request.heartbeat_ms = 200;
        cr_assert_eq(watcher_open(&w[i], &rig, i % 2 ? SP_IPC : SP_TCP, &request), 0);
        cr_assert(watcher_reach(&w[i], 1));
    }
    for (unsigned step = 1; step <= steps; step++) {
        one_step();
        if (step % 10 != 0)
            continue;
        if (step % 100 != 0)
            touch_all();
        for (size_t i = 0; i < WATCHERS; i++) {
            cr_assert(watcher_reach(&w[i], truth.revision), "watcher %zu, step %u", i, step);
            cr_assert(watcher_agrees(&w[i], &truth, asked[i].glob, asked[i].peer),
                      "watcher %zu, step %u", i, step);
        }
    }
    for (size_t i = 0; i < WATCHERS; i++)
        watcher_close(&w[i]);
}

Test(feed, copies_are_what_the_maps_are, .init = setup, .fini = teardown)
{
    srand(test_seed());
    start();
    follow_through(600);
    cr_expect_eq(rig_count(&rig).watch_resyncs, 0u);
}

Test(feed, copies_agree_although_most_is_too_much_to_be_remembered, .init = setup, .fini = teardown)
{
    srand(test_seed());
    rig.limits.watch_log_bytes = 16384; /* about forty events */
    start();
    follow_through(600);
    cr_expect_gt(rig_count(&rig).watch_resyncs, 0u);
}

/* One name of a peer of its own. */
static void put_one(const char *id, unsigned name, unsigned value)
{
    struct list *none = list_empty(), *list;
    struct row *row;
    const char *label;
    char text[16], backend[32];

    cr_assert_eq(registry_peer_open(reg, id, "192.0.2.9", 100, &label, NULL), 0);
    maps_name(name, text);
    snprintf(backend, sizeof(backend), "10.0.0.1:%u", value);
    row = row_new(text, strlen(text), backend, strlen(backend), label, 0);
    cr_assert_eq(list_apply(none, &row, 1, NULL, 0, &list), 0);
    cr_assert_eq(registry_put_list(reg, id, 1, ++versions, list, 100, NULL, NULL), 0);
    truth.value[name] = value;
    row_unref(row);
    list_unref(list);
    list_unref(none);
}

Test(feed, what_goes_is_told_before_what_comes_under_its_label, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;
    static struct watcher w;

    start();
    put_one("q", 2, 5); /* its label is the address alone */
    put_one("m", 3, 9); /* between b and q in the order of peers */
    show();
    cr_assert_eq(watcher_open(&w, &rig, SP_IPC, &request), 0);
    cr_assert(watcher_reach(&w, truth.revision));
    cr_assert_eq(registry_peer_gone(reg, "q", "left", 100, NULL), 0);
    put_one("b", 2, 7);
    show();
    cr_assert(watcher_reach(&w, truth.revision));
    cr_expect(watcher_agrees(&w, &truth, NULL, NULL));
    cr_expect_eq(w.value[2], 7);
    watcher_close(&w);
}

Test(feed, whoever_asks_after_a_change_is_told_of_it, .init = setup, .fini = teardown)
{
    static struct watcher w;
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;

    srand(test_seed());
    start();
    show();
    for (int i = 0; i < 300; i++) {
        request.from_epoch = rand() % 2 ? 42 : 0;
        request.from_revision = w.revision;
        request.name_glob = (char *)(rand() % 2 ? "s0007" : "");
        one_step();
        memset(&w, 0, sizeof(w));
        cr_assert_eq(watcher_open(&w, &rig, SP_IPC, &request), 0);
        while (w.synceds == 0)
            cr_assert(watcher_read(&w));
        cr_assert_geq(w.revision, truth.revision, "step %d", i);
        watcher_close(&w);
    }
}

/* While nobody watches nothing is compared; who comes then is told all the same. */
Test(feed, who_comes_after_many_changes_is_told_what_is_there, .init = setup, .fini = teardown)
{
    srand(test_seed());
    start();
    for (int i = 0; i < 200; i++)
        one_step();
    cr_expect_eq(rig_count(&rig).watch_log_bytes, 0u);
    follow_through(50);
}

/* A change of one service, told and taken, n times. */
static void change_one(struct watcher *w, unsigned n)
{
    for (; n > 0; n--) {
        truth.value[2] = truth.value[2] % 60000 + 1;
        put(0);
        show();
        cr_assert(watcher_reach(w, truth.revision));
    }
}

Test(feed, changes_are_remembered_in_no_more_memory_than_their_limit_says, .init = setup,
     .fini = teardown)
{
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;
    static struct watcher w;
    size_t before, full, later;
    uint64_t used = 0;

    rig.limits.watch_log_bytes = 262144;
    rig.limits.tombstones = 16;
    start();
    cr_assert_eq(watcher_open(&w, &rig, SP_IPC, &request), 0);
    change_one(&w, 20); /* as many as make all that is made once */
    before = heap_bytes();
    while (rig_count(&rig).watch_log_bytes > used) {
        used = rig_count(&rig).watch_log_bytes;
        change_one(&w, 10);
    }
    full = heap_bytes();
    cr_expect_gt(used, rig.limits.watch_log_bytes * 9 / 10);
    /* What malloc takes for itself is not counted. */
    cr_expect_leq(full, before + rig.limits.watch_log_bytes * 9 / 8, "%zu, %zu before", full,
                  before);
    change_one(&w, 2000);
    later = heap_bytes();
    cr_expect_leq(later, full + 16384, "%zu, %zu when it was full", later, full);
    cr_expect_leq(rig_count(&rig).watch_log_bytes, rig.limits.watch_log_bytes);
    watcher_close(&w);
}
