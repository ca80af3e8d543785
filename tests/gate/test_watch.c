/* Watching: whoever is told, and however slowly it reads, ends up with what is there. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "gate/watcher.h"
#include "wire/status.h"

static struct rig rig;
static struct maps maps;

static void setup(void)
{
    rig_init(&rig);
    rig.epoch = 42;
    rig.watch_ops = maps_ops();
}

static void teardown(void)
{
    rig_stop(&rig);
    MUST(maps_pictures() == 0); /* every one was given back */
}

/* `there` of the names exist, with value 1. */
static void start(unsigned there)
{
    rig_start(&rig);
    memset(&maps, 0, sizeof(maps));
    maps.gate = rig.gate;
    for (unsigned i = 0; i < there; i++)
        maps.value[i] = 1;
    maps_tell(&maps, false);
}

static Meshd__V1__WatchRequest request_of(const char *glob, const char *peer)
{
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;

    if (glob)
        request.name_glob = (char *)glob;
    if (peer)
        request.peer = (char *)peer;
    return request;
}

static void open_watch(struct watcher *w, enum sp_framing framing, const char *glob,
                       const char *peer)
{
    Meshd__V1__WatchRequest request = request_of(glob, peer);

    cr_assert_eq(watcher_open(w, &rig, framing, &request), STATUS_OK);
}

static void resume(struct watcher *w, const char *glob, uint64_t epoch, uint64_t revision)
{
    Meshd__V1__WatchRequest request = request_of(glob, NULL);
    uint32_t value[MAPS_NAMES];

    memcpy(value, w->value, sizeof(value));
    request.from_epoch = epoch;
    request.from_revision = revision;
    cr_assert_eq(watcher_open(w, &rig, SP_TCP, &request), STATUS_OK);
    memcpy(w->value, value, sizeof(value));
}

Test(watch, a_picture_comes_first_and_then_the_news_on_both_sockets, .init = setup,
     .fini = teardown)
{
    struct watcher w[2];

    start(5);
    for (int i = 0; i < 2; i++) {
        open_watch(&w[i], i ? SP_IPC : SP_TCP, NULL, NULL);
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

Test(watch, each_hears_of_what_it_asked_for_only, .init = setup, .fini = teardown)
{
    static const struct {
        const char *glob, *peer;
        unsigned events; /* of the picture of ten, and of the changes of 3, 4 and 1003 */
    } cases[] = {{"s0003", NULL, 1 + 1}, {"s000?", "p1", 5 + 1}, {NULL, "192.0.2.0", 5 + 1},
                 {"*3", NULL, 1 + 2},    {"s0003", "p0", 0},     {"nothing", NULL, 0}};
    struct watcher w[6];

    start(10);
    for (int i = 0; i < 6; i++) {
        open_watch(&w[i], SP_TCP, cases[i].glob, cases[i].peer);
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

Test(watch, a_stream_goes_on_where_it_was, .init = setup, .fini = teardown)
{
    struct watcher w;
    uint64_t from;

    start(100);
    open_watch(&w, SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w, maps.revision));
    from = w.revision;
    watcher_close(&w);
    for (unsigned i = 0; i < 50; i++)
        maps_set(&maps, i % 20, i + 2);
    resume(&w, NULL, 42, from);
    cr_assert(watcher_reach(&w, maps.revision));
    cr_expect_eq(w.resyncs, 0u);
    cr_expect_eq(w.events, 50u);
    cr_assert(watcher_agrees(&w, &maps, NULL, NULL));
    watcher_close(&w);
    resume(&w, NULL, 42, maps.revision);
    cr_assert(watcher_reach(&w, maps.revision));
    cr_expect_eq(w.events + w.resyncs, 0u, "there was nothing to tell");
    cr_expect_eq(w.synceds, 1u);
    watcher_close(&w);
}

Test(watch, a_place_that_is_not_known_gets_a_picture, .init = setup, .fini = teardown)
{
    struct watcher w = {.fd = -1};

    rig.limits.watch_log_bytes = 65536;
    start(100);
    for (unsigned i = 0; i < 1000; i++) /* more than the log keeps */
        maps_set(&maps, i % 20, i + 2);
    const struct {
        uint64_t epoch, revision;
    } places[] = {{43, maps.revision}, {42, maps.revision + 1}, {42, 1}, {42, 0}, {0, 0}};
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        resume(&w, NULL, places[i].epoch, places[i].revision);
        cr_assert(watcher_reach(&w, maps.revision));
        cr_expect_eq(w.resyncs, 1u, "place %zu", i);
        cr_assert(watcher_agrees(&w, &maps, NULL, NULL));
        watcher_close(&w);
    }
    cr_expect_leq(rig_count(&rig).watch_log_bytes, 65536u);
}

Test(watch, who_does_not_read_gets_a_picture_and_holds_little, .init = setup, .fini = teardown)
{
    enum { SLOW = 20 };
    static struct watcher w[SLOW];
    struct gate_counters count;

    rig.limits.watch_log_bytes = 65536;
    start(MAPS_NAMES);
    for (int i = 0; i < SLOW; i++)
        open_watch(&w[i], i % 2 ? SP_IPC : SP_TCP, NULL, NULL);
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

Test(watch, pictures_of_slow_readers_are_few, .init = setup, .fini = teardown)
{
    enum { MANY = 40 };
    static struct watcher w[MANY];

    rig.limits.pinned_snapshots = 3;
    rig.limits.gate_buffer_bytes = 1048576;
    start(MAPS_NAMES);
    for (int i = 0; i < MANY; i++) {
        open_watch(&w[i], SP_IPC, NULL, NULL);
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

Test(watch, a_silent_stream_gives_signs_of_life, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of("nothing", NULL);
    struct watcher w;

    start(10);
    request.heartbeat_ms = 200;
    cr_assert_eq(watcher_open(&w, &rig, SP_TCP, &request), STATUS_OK);
    cr_assert(watcher_reach(&w, 1));
    maps_set(&maps, 1, 5);
    while (w.signs < 2 || w.revision < maps.revision)
        cr_assert(watcher_read(&w));
    cr_expect_eq(w.events, 0u);
    watcher_close(&w);
}

Test(watch, a_reset_is_told_as_a_picture, .init = setup, .fini = teardown)
{
    struct watcher w[2];

    start(10);
    open_watch(&w[0], SP_TCP, NULL, NULL);
    open_watch(&w[1], SP_TCP, "s0001", NULL);
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

Test(watch, whoever_comes_before_the_first_picture_waits_for_it, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of(NULL, NULL);
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

Test(watch, a_request_is_known_however_it_is_cut, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of("s000*", NULL);
    uint8_t bytes[1024];
    size_t len;

    start(10);
    for (int framing = SP_TCP; framing <= SP_IPC; framing++) {
        len =
            watcher_request(framing, "/meshd.v1.Registry/Watch", WIRE_VERSION_MAX, &request, bytes);
        for (size_t cut = 0; cut <= len; cut++) {
            struct watcher w = {.framing = framing};

            w.fd = framing == SP_TCP ? dial_gate(&rig) : dial_unix(rig.unix_path);
            cr_assert(send_all(w.fd, bytes, cut));
            if (cut > 0 && cut < len)
                nap();
            cr_assert(send_all(w.fd, bytes + cut, len - cut));
            cr_assert_eq(watcher_greeted(&w), STATUS_OK);
            cr_assert(watcher_reach(&w, maps.revision), "cut at %zu", cut);
            cr_assert(watcher_agrees(&w, &maps, "s000*", NULL));
            watcher_close(&w);
        }
    }
    cr_expect_eq(rig_count(&rig).closed_bad_message, 0u);
}

static void expect_refused(const uint8_t *bytes, size_t len, unsigned status)
{
    struct watcher w = {.framing = SP_TCP};

    w.fd = dial_gate(&rig);
    cr_assert(send_all(w.fd, bytes, len));
    cr_assert_eq(watcher_greeted(&w), STATUS_OK);
    cr_assert(watcher_read(&w));
    cr_expect_eq(w.status, status, "status %u: %s", w.status, w.text);
    cr_expect(closed_by_gate(w.fd));
    watcher_close(&w);
}

Test(watch, what_is_no_request_is_refused_by_its_status, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of(NULL, NULL);
    char long_glob[400];
    uint8_t bytes[1024];
    size_t len;

    start(10);
    len = watcher_request(SP_TCP, "/meshd.v1.Registry/Lookup", WIRE_VERSION_MAX, &request, bytes);
    expect_refused(bytes, len, STATUS_UNIMPLEMENTED);
    len =
        watcher_request(SP_TCP, "/meshd.v1.Registry/Watch", WIRE_VERSION_MAX + 1, &request, bytes);
    expect_refused(bytes, len, STATUS_FAILED_PRECONDITION);
    memset(long_glob, 'x', sizeof(long_glob));
    long_glob[399] = '\0';
    request.name_glob = long_glob;
    len = watcher_request(SP_TCP, "/meshd.v1.Registry/Watch", WIRE_VERSION_MAX, &request, bytes);
    expect_refused(bytes, len, STATUS_INVALID_ARGUMENT);
    request.name_glob = (char *)"s";
    len = watcher_request(SP_TCP, "/meshd.v1.Registry/Watch", WIRE_VERSION_MAX, &request, bytes);
    bytes[len - 2] = 0xff; /* the glob's length */
    expect_refused(bytes, len, STATUS_INVALID_ARGUMENT);
    memset(bytes + PREAMBLE_HEAD + 12, 0xff, 8);
    expect_refused(bytes, len, STATUS_INVALID_ARGUMENT);
    RIG_WAIT(&rig, c.watchers == 0 && c.connections == 0);
}

Test(watch, who_may_not_is_told_why_at_once_or_with_the_next_heartbeat, .init = setup,
     .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of("s*", NULL);
    struct watcher w;

    start(10);
    atomic_store(&maps_shut, 1);
    cr_assert_eq(watcher_open(&w, &rig, SP_TCP, &request), STATUS_OK);
    cr_assert(watcher_read(&w));
    cr_expect_eq(w.status, STATUS_PERMISSION_DENIED);
    cr_expect_str_eq(w.text, "not 127.0.0.1");
    cr_expect_eq(w.events, 0u);
    cr_expect_not(watcher_read(&w));
    watcher_close(&w);
    atomic_store(&maps_shut, 0);
    request.heartbeat_ms = 200;
    cr_assert_eq(watcher_open(&w, &rig, SP_IPC, &request), STATUS_OK);
    cr_assert(watcher_reach(&w, maps.revision));
    atomic_store(&maps_shut, 1);
    while (w.status == STATUS_OK)
        cr_assert(watcher_read(&w));
    cr_expect_eq(w.status, STATUS_PERMISSION_DENIED);
    cr_expect_str_eq(w.text, "not a program");
    cr_expect_not(watcher_read(&w));
    watcher_close(&w);
    RIG_WAIT(&rig, c.watchers == 0);
    atomic_store(&maps_shut, 0);
}

/* Its heartbeats are as seldom as it likes. */
Test(watch, who_may_not_any_more_is_told_when_all_are_looked_at_again, .init = setup,
     .fini = teardown)
{
    static const enum sp_framing framings[] = {SP_TCP, SP_IPC};
    Meshd__V1__WatchRequest request = request_of("s*", NULL);
    struct watcher w[2];

    start(10);
    request.heartbeat_ms = 60000;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(watcher_open(&w[i], &rig, framings[i], &request), STATUS_OK);
        cr_assert(watcher_reach(&w[i], maps.revision));
    }
    gate_check_again(rig.gate); /* and stays, if it still may */
    maps_set(&maps, 1, 77);
    for (int i = 0; i < 2; i++)
        cr_assert(watcher_reach(&w[i], maps.revision));
    atomic_store(&maps_shut, 1);
    gate_check_again(rig.gate);
    for (int i = 0; i < 2; i++) {
        while (w[i].status == STATUS_OK)
            cr_assert(watcher_read(&w[i]));
        cr_expect_eq(w[i].status, STATUS_PERMISSION_DENIED);
        watcher_close(&w[i]);
    }
    RIG_WAIT(&rig, c.watchers == 0);
    atomic_store(&maps_shut, 0);
}

Test(watch, nothing_may_follow_the_request, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of(NULL, NULL);
    uint8_t bytes[1024];
    struct watcher w;
    size_t len =
        watcher_request(SP_TCP, "/meshd.v1.Registry/Watch", WIRE_VERSION_MAX, &request, bytes);

    start(10);
    cr_assert_eq(watcher_open(&w, &rig, SP_TCP, &request), STATUS_OK);
    cr_assert(watcher_reach(&w, maps.revision));
    cr_assert(send_all(w.fd, "x", 1));
    cr_expect(closed_by_gate(w.fd));
    watcher_close(&w);
    bytes[len] = 'x'; /* at once */
    w.fd = dial_gate(&rig);
    cr_assert(send_all(w.fd, bytes, len + 1));
    cr_expect(closed_by_gate(w.fd));
    watcher_close(&w);
    memset(bytes + PREAMBLE_HEAD, 0xff, 8); /* a length that nobody has room for */
    w.fd = dial_gate(&rig);
    cr_assert(send_all(w.fd, bytes, len));
    cr_expect(closed_by_gate(w.fd));
    watcher_close(&w);
    RIG_WAIT(&rig, c.closed_bad_message == 3);
}

Test(watch, one_too_many_is_told_so, .init = setup, .fini = teardown)
{
    struct watcher w[3];
    Meshd__V1__WatchRequest request = request_of(NULL, NULL);

    rig.limits.watchers = 2;
    start(10);
    for (int i = 0; i < 2; i++)
        open_watch(&w[i], SP_TCP, NULL, NULL);
    cr_expect_eq(watcher_open(&w[2], &rig, SP_TCP, &request), STATUS_RESOURCE_EXHAUSTED);
    cr_expect(strstr(w[2].text, "limits.watchers") != NULL);
    cr_expect_eq(rig_count(&rig).closed_over_watchers, 1u);
    watcher_close(&w[0]);
    watcher_close(&w[2]);
    RIG_WAIT(&rig, c.watchers == 1);
    open_watch(&w[0], SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w[0], maps.revision));
    watcher_close(&w[0]);
    watcher_close(&w[1]);
}

Test(watch, who_never_asks_is_closed_in_time, .init = setup, .fini = teardown)
{
    static const uint8_t preamble[] = {'M', 'S', 'H', 'D', 1, 4, 0, 0};
    struct watcher w = {.framing = SP_TCP};

    rig.first_bytes_ms = 1000;
    start(10);
    w.fd = dial_gate(&rig);
    cr_assert(send_all(w.fd, preamble, sizeof(preamble)));
    cr_assert_eq(watcher_greeted(&w), STATUS_OK);
    cr_expect(closed_by_gate(w.fd));
    watcher_close(&w);
    cr_expect_eq(rig_count(&rig).closed_first_bytes_late, 1u);
}

Test(watch, a_gate_that_stops_says_so, .init = setup)
{
    struct watcher w;
    pthread_t quits;

    start(10);
    open_watch(&w, SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w, maps.revision));
    pthread_create(&quits, NULL, rig_quit, &rig);
    cr_assert(watcher_read(&w));
    cr_expect_eq(w.status, STATUS_UNAVAILABLE);
    watcher_close(&w);
    pthread_join(quits, NULL);
    rig_stop(&rig);
    cr_assert_eq(maps_pictures(), 0u);
}

/* Come, read a little, go, at random, while everything changes. */
Test(watch, watchers_come_and_go_while_everything_changes, .init = setup, .fini = teardown)
{
    enum { PLACES = 30 };
    static struct watcher w[PLACES];
    char glob[PLACES][16];
    size_t heap, descriptors;

    srand(test_seed());
    rig.limits.watch_log_bytes = 65536 * 2;
    start(500);
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
            open_watch(&w[i], rand() % 2 ? SP_TCP : SP_IPC, glob[i], NULL);
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

Test(watch, signs_of_life_come_while_others_are_told_something, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of("nothing*", NULL);
    struct watcher w;
    pthread_t changes;
    uint64_t revision;

    start(100);
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

Test(watch, who_goes_on_is_synced_only_once_it_was_told_all, .init = setup, .fini = teardown)
{
    struct watcher w;
    uint64_t from;

    start(MAPS_NAMES);
    open_watch(&w, SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w, maps.revision));
    from = w.revision;
    watcher_close(&w);
    for (unsigned round = 2; round < 5; round++) { /* far more than one message holds */
        for (unsigned i = 0; i < MAPS_NAMES; i++)
            maps.value[i] = round;
        maps_tell(&maps, false);
    }
    resume(&w, NULL, 42, from);
    while (w.synceds == 0)
        cr_assert(watcher_read(&w));
    cr_expect_eq(w.resyncs, 0u);
    cr_expect_eq(w.revision, maps.revision);
    cr_expect(watcher_agrees(&w, &maps, NULL, NULL));
    watcher_close(&w);
}

/* Opens watchers that do not read, and gives them more than they may hold, until the gate's buffers
 * are in use as far as watchers may. Returns how many. */
static int crowd(struct watcher *w, int most)
{
    Meshd__V1__WatchRequest request = request_of(NULL, NULL);
    int n = 0;

    for (; n < most && watcher_open(&w[n], &rig, SP_IPC, &request) == STATUS_OK; n++) {
        if (n % 20 != 19)
            continue;
        for (unsigned i = 0; i < MAPS_NAMES; i++)
            maps.value[i]++;
        maps_tell(&maps, false);
    }
    return n;
}

Test(watch, a_crowd_that_does_not_read_leaves_room_for_calls, .init = setup, .fini = teardown)
{
    enum { MANY = 300 };
    static struct watcher w[MANY];
    uint8_t request[1024], reply[1024];
    size_t len = make_request(request, 5, 500);
    int n, fd;

    rig.limits.gate_buffer_bytes = 2097152;
    start(MAPS_NAMES);
    n = crowd(w, MANY);
    RIG_WAIT(&rig, c.buffer_bytes > rig.limits.gate_buffer_bytes / 2);
    for (int i = 0; i < 20; i++) {
        fd = req_client(&rig);
        cr_assert(send_message(fd, SP_TCP, request, len));
        cr_assert_eq(recv_message(fd, SP_TCP, reply, sizeof(reply)), (ssize_t)len, "call %d", i);
        close(fd);
    }
    for (int i = 0; i < n; i++)
        watcher_close(&w[i]);
    RIG_WAIT(&rig, c.watchers == 0);
}

Test(watch, a_gate_whose_buffers_are_full_stops_all_the_same, .init = setup)
{
    enum { MANY = 300 };
    static struct watcher w[MANY];
    static uint8_t most_of_a_request[60000];
    struct preamble link = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_LINK, .has_token = 1};
    uint8_t bytes[PREAMBLE_MAX];
    pthread_t quits;
    int asks, client, n;

    memcpy(link.peer_id, "n9", 3);
    rig.limits.gate_buffer_bytes = 2097152;
    start(MAPS_NAMES);
    asks = dial_gate(&rig);
    cr_assert(send_all(asks, bytes, preamble_pack(&link, bytes)));
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, NULL));
    client = req_client(&rig);
    sp_head_pack(SP_TCP, 200000, bytes);
    cr_assert(send_all(client, bytes, 8));
    cr_assert(send_all(client, most_of_a_request, sizeof(most_of_a_request)));
    n = crowd(w, MANY);
    RIG_WAIT(&rig, c.buffer_bytes > rig.limits.gate_buffer_bytes / 2);
    pthread_create(&quits, NULL, rig_quit, &rig);
    pthread_join(quits, NULL); /* the test's time-out is for the one that never returns */
    for (int i = 0; i < n; i++)
        watcher_close(&w[i]);
    close(asks);
    close(client);
    rig_stop(&rig);
    cr_assert_eq(maps_pictures(), 0u);
}

Test(watch, what_there_was_when_it_asked_is_waited_for, .init = setup, .fini = teardown)
{
    Meshd__V1__WatchRequest request = request_of("s0001", NULL);
    struct watcher w[2];

    start(10);
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
