/* Watching: whoever is told, and however slowly it reads, ends up with what is there. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "gate/watching.h"
#include "wire/status.h"

Test(watch, a_picture_comes_first_and_then_the_news_on_both_sockets, .init = watching_setup,
     .fini = watching_teardown)
{
    struct watcher w[2];

    watching_start(5);
    for (int i = 0; i < 2; i++) {
        watching_open(&w[i], i ? SP_IPC : SP_TCP, NULL, NULL);
        cr_assert(watcher_reach(&w[i], maps.revision));
        cr_expect_eq(w[i].resyncs, 1u);
        cr_expect_eq(w[i].synceds, 1u);
        cr_expect_eq(w[i].events, 5u);
        cr_expect_eq(w[i].epoch, 42u);
        cr_assert(watcher_agrees(&w[i], &maps, NULL, NULL));
    }
    maps_set(&maps, 1, 7); /* changed */
    maps_set(&maps, 2, 0); /* went */
    maps_set(&maps, 9, 3); /* came */
    for (int i = 0; i < 2; i++) {
        cr_assert(watcher_reach(&w[i], maps.revision));
        cr_expect_eq(w[i].events, 8u);
        cr_expect_eq(w[i].resyncs, 1u);
        cr_assert(watcher_agrees(&w[i], &maps, NULL, NULL));
        watcher_close(&w[i]);
    }
    RIG_WAIT(&rig, c.watchers == 0);
}

Test(watch, each_hears_of_what_it_asked_for_only, .init = watching_setup, .fini = watching_teardown)
{
    static const struct {
        const char *glob, *peer;
        unsigned events; /* of the picture of ten, and of the changes of 3, 4 and 1003 */
    } cases[] = {{"s0003", NULL, 1 + 1}, {"s000?", "p1", 5 + 1}, {NULL, "192.0.2.0", 5 + 1},
                 {"*3", NULL, 1 + 2},    {"s0003", "p0", 0},     {"nothing", NULL, 0}};
    struct watcher w[6];

    watching_start(10);
    for (int i = 0; i < 6; i++) {
        watching_open(&w[i], SP_TCP, cases[i].glob, cases[i].peer);
        cr_assert(watcher_reach(&w[i], maps.revision));
    }
    maps_set(&maps, 3, 2);
    maps_set(&maps, 4, 2);
    maps_set(&maps, 1003, 2);
    for (int i = 0; i < 6; i++) {
        while (w[i].events < cases[i].events)
            cr_assert(watcher_read(&w[i]), "case %d", i);
        watcher_close(&w[i]);
        cr_expect_eq(w[i].events, cases[i].events, "case %d: %u events", i, w[i].events);
    }
}

Test(watch, a_stream_goes_on_where_it_was, .init = watching_setup, .fini = watching_teardown)
{
    struct watcher w;
    uint64_t from;

    watching_start(100);
    watching_open(&w, SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w, maps.revision));
    from = w.revision;
    watcher_close(&w);
    for (unsigned i = 0; i < 50; i++)
        maps_set(&maps, i % 20, i + 2);
    watching_resume(&w, NULL, 42, from);
    cr_assert(watcher_reach(&w, maps.revision));
    cr_expect_eq(w.resyncs, 0u);
    cr_expect_eq(w.events, 50u);
    cr_assert(watcher_agrees(&w, &maps, NULL, NULL));
    watcher_close(&w);
    watching_resume(&w, NULL, 42, maps.revision);
    cr_assert(watcher_reach(&w, maps.revision));
    cr_expect_eq(w.events + w.resyncs, 0u, "there was nothing to tell");
    cr_expect_eq(w.synceds, 1u);
    watcher_close(&w);
}

Test(watch, a_place_that_is_not_known_gets_a_picture, .init = watching_setup,
     .fini = watching_teardown)
{
    struct watcher w = {.fd = -1};

    rig.limits.watch_log_bytes = 65536;
    watching_start(100);
    for (unsigned i = 0; i < 1000; i++) /* more than the log keeps */
        maps_set(&maps, i % 20, i + 2);
    const struct {
        uint64_t epoch, revision;
    } places[] = {{43, maps.revision}, {42, maps.revision + 1}, {42, 1}, {42, 0}, {0, 0}};
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        watching_resume(&w, NULL, places[i].epoch, places[i].revision);
        cr_assert(watcher_reach(&w, maps.revision));
        cr_expect_eq(w.resyncs, 1u, "place %zu", i);
        cr_assert(watcher_agrees(&w, &maps, NULL, NULL));
        watcher_close(&w);
    }
    cr_expect_leq(rig_count(&rig).watch_log_bytes, 65536u);
}

Test(watch, who_does_not_read_gets_a_picture_and_holds_little, .init = watching_setup,
     .fini = watching_teardown)
{
    enum { SLOW = 20 };
    static struct watcher w[SLOW];
    struct gate_counters count;

    rig.limits.watch_log_bytes = 65536;
    watching_start(MAPS_NAMES);
    for (int i = 0; i < SLOW; i++)
        watching_open(&w[i], i % 2 ? SP_IPC : SP_TCP, NULL, NULL);
    for (unsigned round = 2; round < 60; round++) { /* more than sockets and shares hold */
        for (unsigned i = 0; i < MAPS_NAMES; i++)
            maps.value[i] = i % 7 ? round : 0;
        for (unsigned i = 0; i < 100; i++)
            maps.value[i] = 0;
        maps_tell(&maps, round % 10 == 0);
        for (unsigned i = 0; i < 100; i++)
            maps_set(&maps, i, round);
    }
    RIG_WAIT(&rig, c.watch_resyncs >= SLOW / 2);
    count = rig_count(&rig);
    cr_expect_leq(count.buffer_bytes, SLOW * 2 * 65536u);
    cr_expect_leq(count.watch_pictures, rig.limits.pinned_snapshots + 1);
    for (int i = 0; i < SLOW; i++) {
        cr_assert(watcher_reach(&w[i], maps.revision), "watcher %d", i);
        cr_assert(watcher_agrees(&w[i], &maps, NULL, NULL), "watcher %d", i);
        watcher_close(&w[i]);
    }
    RIG_WAIT(&rig, c.watchers == 0 && c.watch_pictures == 1);
}

Test(watch, pictures_of_slow_readers_are_few, .init = watching_setup, .fini = watching_teardown)
{
    enum { MANY = 40 };
    static struct watcher w[MANY];

    rig.limits.pinned_snapshots = 3;
    rig.limits.gate_buffer_bytes = 1048576;
    watching_start(MAPS_NAMES);
    for (int i = 0; i < MANY; i++) {
        watching_open(&w[i], SP_IPC, NULL, NULL);
        maps_set(&maps, (unsigned)i, 5000 + (unsigned)i);
    }
    RIG_WAIT(&rig, c.watchers == MANY);
    cr_expect_leq(rig_count(&rig).watch_pictures, 4u);
    for (int i = 0; i < MANY; i++) {
        cr_assert(watcher_reach(&w[i], maps.revision), "watcher %d", i);
        cr_assert(watcher_agrees(&w[i], &maps, NULL, NULL), "watcher %d", i);
        watcher_close(&w[i]);
    }
}

Test(watch, a_silent_stream_gives_signs_of_life, .init = watching_setup, .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request("nothing", NULL);
    struct watcher w;

    watching_start(10);
    request.heartbeat_ms = 200;
    cr_assert_eq(watcher_open(&w, &rig, SP_TCP, &request), STATUS_OK);
    cr_assert(watcher_reach(&w, 1));
    maps_set(&maps, 1, 5);
    while (w.signs < 2 || w.revision < maps.revision)
        cr_assert(watcher_read(&w));
    cr_expect_eq(w.events, 0u);
    watcher_close(&w);
}

Test(watch, a_reset_is_told_as_a_picture, .init = watching_setup, .fini = watching_teardown)
{
    struct watcher w[2];

    watching_start(10);
    watching_open(&w[0], SP_TCP, NULL, NULL);
    watching_open(&w[1], SP_TCP, "s0001", NULL);
    for (int i = 0; i < 2; i++)
        cr_assert(watcher_reach(&w[i], maps.revision));
    maps.value[1] = 9;
    maps.value[2] = 0;
    maps_tell(&maps, true);
    for (int i = 0; i < 2; i++) {
        cr_assert(watcher_reach(&w[i], maps.revision));
        cr_expect_eq(w[i].resyncs, 2u);
        cr_assert(watcher_agrees(&w[i], &maps, i ? "s0001" : NULL, NULL));
        watcher_close(&w[i]);
    }
}

Test(watch, whoever_comes_before_the_first_picture_waits_for_it, .init = watching_setup,
     .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request(NULL, NULL);
    struct watcher w;

    rig_start(&rig);
    memset(&maps, 0, sizeof(maps));
    maps.gate = rig.gate;
    maps.value[3] = 1;
    request.heartbeat_ms = 200;
    cr_assert_eq(watcher_open(&w, &rig, SP_TCP, &request), STATUS_OK);
    cr_assert(watcher_read(&w));
    cr_expect_eq(w.signs, 1u);
    maps_tell(&maps, false);
    cr_assert(watcher_reach(&w, maps.revision));
    cr_assert(watcher_agrees(&w, &maps, NULL, NULL));
    watcher_close(&w);
}

/* Come, read a little, go, at random, while everything changes. */
Test(watch, watchers_come_and_go_while_everything_changes, .init = watching_setup,
     .fini = watching_teardown)
{
    enum { PLACES = 30 };
    static struct watcher w[PLACES];
    char glob[PLACES][16];
    size_t heap, descriptors;

    srand(test_seed());
    rig.limits.watch_log_bytes = 65536 * 2;
    watching_start(500);
    for (int i = 0; i < PLACES; i++)
        w[i].fd = -1;
    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == (int)rig.lanes);
    descriptors = open_descriptors();
    heap = heap_bytes();
    for (int round = 0; round < (GATE_TLS ? 500 : 3000); round++) {
        int i = rand() % PLACES;

        maps.value[rand() % MAPS_NAMES] = (uint32_t)(rand() % 3);
        if (rand() % 3)
            maps_tell(&maps, rand() % 500 == 0);
        if (w[i].fd < 0) {
            if (rand() % 2)
                maps_name((unsigned)rand() % MAPS_NAMES, glob[i]);
            else
                snprintf(glob[i], sizeof(glob[i]), rand() % 2 ? "s*" : "*7*");
            watching_open(&w[i], rand() % 2 ? SP_TCP : SP_IPC, glob[i], NULL);
        } else if (rand() % 3 == 0) {
            watcher_close(&w[i]);
        } else if (rand() % 2) {
            cr_assert(watcher_reach(&w[i], 1));
        }
    }
    maps_tell(&maps, false);
    for (int i = 0; i < PLACES; i++) {
        if (w[i].fd < 0)
            continue;
        while (w[i].revision < maps.revision) /* at the latest by a sign of life */
            cr_assert(watcher_reach(&w[i], w[i].revision + 1), "watcher %d", i);
        cr_assert(watcher_agrees(&w[i], &maps, glob[i], NULL), "watcher %d of %s", i, glob[i]);
        watcher_close(&w[i]);
    }
    RIG_WAIT(&rig, c.watchers == 0 && c.connections == 0 && c.watch_pictures == 1);
    RIG_WAIT(&rig, open_descriptors() == descriptors);
    cr_expect_leq(heap_bytes(), heap + rig.limits.watch_log_bytes + 65536 * 4, "%zu, %zu before",
                  heap_bytes(), heap);
}

static atomic_bool enough;

/* As fast as the gate takes it, but never more than a few letters ahead. */
static void *change_without_end(void *arg)
{
    for (unsigned i = 0; !atomic_load(&enough); i++) {
        maps_set(&maps, i % 20, i + 2);
        if (i % 64 == 0)
            nap();
    }
    return NULL;
}

Test(watch, signs_of_life_come_while_others_are_told_something, .init = watching_setup,
     .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request("nothing*", NULL);
    struct watcher w;
    pthread_t changes;
    uint64_t revision;

    watching_start(100);
    request.heartbeat_ms = 200;
    cr_assert_eq(watcher_open(&w, &rig, SP_TCP, &request), STATUS_OK);
    cr_assert(watcher_reach(&w, 1));
    pthread_create(&changes, NULL, change_without_end, NULL);
    for (unsigned signs = 1; signs <= 4; signs++) {
        revision = w.revision;
        while (w.signs < signs)
            cr_assert(watcher_read(&w)); /* within its time-out */
        cr_expect_gt(w.revision, revision, "where to go on from moves, too");
    }
    atomic_store(&enough, true);
    pthread_join(changes, NULL);
    watcher_close(&w);
}

Test(watch, who_goes_on_is_synced_only_once_it_was_told_all, .init = watching_setup,
     .fini = watching_teardown)
{
    struct watcher w;
    uint64_t from;

    watching_start(MAPS_NAMES);
    watching_open(&w, SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w, maps.revision));
    from = w.revision;
    watcher_close(&w);
    for (unsigned round = 2; round < 5; round++) { /* far more than one message holds */
        for (unsigned i = 0; i < MAPS_NAMES; i++)
            maps.value[i] = round;
        maps_tell(&maps, false);
    }
    watching_resume(&w, NULL, 42, from);
    while (w.synceds == 0)
        cr_assert(watcher_read(&w));
    cr_expect_eq(w.resyncs, 0u);
    cr_expect_eq(w.revision, maps.revision);
    cr_expect(watcher_agrees(&w, &maps, NULL, NULL));
    watcher_close(&w);
}

Test(watch, what_there_was_when_it_asked_is_waited_for, .init = watching_setup,
     .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request("s0001", NULL);
    struct watcher w[2];

    watching_start(10);
    request.heartbeat_ms = 60000;
    atomic_store(&maps_ahead, maps.revision + 2);
    for (int i = 0; i < 2; i++) {
        request.from_epoch = i ? 42 : 0;
        request.from_revision = i;
        cr_assert_eq(watcher_open(&w[i], &rig, SP_TCP, &request), STATUS_OK);
    }
    RIG_WAIT(&rig, c.watches == 2);
    maps_set(&maps, 5, 7);
    maps_set(&maps, 1, 8);
    for (int i = 0; i < 2; i++) {
        while (w[i].synceds == 0)
            cr_assert(watcher_read(&w[i]));
        cr_expect_eq(w[i].revision, maps.revision);
        cr_expect_eq(w[i].value[1], 8u);
        watcher_close(&w[i]);
    }
    /* What never comes is not waited for longer than a heartbeat. */
    request.heartbeat_ms = 200;
    request.from_epoch = 0;
    atomic_store(&maps_ahead, maps.revision + 1000);
    cr_assert_eq(watcher_open(&w[0], &rig, SP_TCP, &request), STATUS_OK);
    while (w[0].synceds == 0)
        cr_assert(watcher_read(&w[0]));
    watcher_close(&w[0]);
}
