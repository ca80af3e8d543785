/* Watching: who asks in another way than it should, who may not, whoever is too many, and the end.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include "gate/watching.h"
#include "wire/status.h"

Test(watch_ends, a_request_is_known_however_it_is_cut, .init = watching_setup,
     .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request("s000*", NULL);
    uint8_t bytes[1024];
    size_t len;

    watching_start(10);
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

Test(watch_ends, what_is_no_request_is_refused_by_its_status, .init = watching_setup,
     .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request(NULL, NULL);
    char long_glob[400];
    uint8_t bytes[1024];
    size_t len;

    watching_start(10);
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

Test(watch_ends, who_may_not_is_told_why_at_once_or_with_the_next_heartbeat, .init = watching_setup,
     .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request("s*", NULL);
    struct watcher w;

    watching_start(10);
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
Test(watch_ends, who_may_not_any_more_is_told_when_all_are_looked_at_again, .init = watching_setup,
     .fini = watching_teardown)
{
    static const enum sp_framing framings[] = {SP_TCP, SP_IPC};
    Meshd__V1__WatchRequest request = watching_request("s*", NULL);
    struct watcher w[2];

    watching_start(10);
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

Test(watch_ends, nothing_may_follow_the_request, .init = watching_setup, .fini = watching_teardown)
{
    Meshd__V1__WatchRequest request = watching_request(NULL, NULL);
    uint8_t bytes[1024];
    struct watcher w;
    size_t len =
        watcher_request(SP_TCP, "/meshd.v1.Registry/Watch", WIRE_VERSION_MAX, &request, bytes);

    watching_start(10);
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

Test(watch_ends, one_too_many_is_told_so, .init = watching_setup, .fini = watching_teardown)
{
    struct watcher w[3];
    Meshd__V1__WatchRequest request = watching_request(NULL, NULL);

    rig.limits.watchers = 2;
    watching_start(10);
    for (int i = 0; i < 2; i++)
        watching_open(&w[i], SP_TCP, NULL, NULL);
    cr_expect_eq(watcher_open(&w[2], &rig, SP_TCP, &request), STATUS_RESOURCE_EXHAUSTED);
    cr_expect(strstr(w[2].text, "limits.watchers") != NULL);
    cr_expect_eq(rig_count(&rig).closed_over_watchers, 1u);
    watcher_close(&w[0]);
    watcher_close(&w[2]);
    RIG_WAIT(&rig, c.watchers == 1);
    watching_open(&w[0], SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w[0], maps.revision));
    watcher_close(&w[0]);
    watcher_close(&w[1]);
}

Test(watch_ends, who_never_asks_is_closed_in_time, .init = watching_setup,
     .fini = watching_teardown)
{
    static const uint8_t preamble[] = {'M', 'S', 'H', 'D', 1, 4, 0, 0};
    struct watcher w = {.framing = SP_TCP};

    rig.first_bytes_ms = 1000;
    watching_start(10);
    w.fd = dial_gate(&rig);
    cr_assert(send_all(w.fd, preamble, sizeof(preamble)));
    cr_assert_eq(watcher_greeted(&w), STATUS_OK);
    cr_expect(closed_by_gate(w.fd));
    watcher_close(&w);
    cr_expect_eq(rig_count(&rig).closed_first_bytes_late, 1u);
}

Test(watch_ends, a_gate_that_stops_says_so, .init = watching_setup)
{
    struct watcher w;
    pthread_t quits;

    watching_start(10);
    watching_open(&w, SP_TCP, NULL, NULL);
    cr_assert(watcher_reach(&w, maps.revision));
    pthread_create(&quits, NULL, rig_quit, &rig);
    cr_assert(watcher_read(&w));
    cr_expect_eq(w.status, STATUS_UNAVAILABLE);
    watcher_close(&w);
    pthread_join(quits, NULL);
    rig_stop(&rig);
    cr_assert_eq(maps_pictures(), 0u);
}

/* Opens watchers that do not read, and gives them more than they may hold, until the gate's buffers
 * are in use as far as watchers may. Returns how many. */
static int crowd(struct watcher *w, int most)
{
    Meshd__V1__WatchRequest request = watching_request(NULL, NULL);
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

Test(watch_ends, a_crowd_that_does_not_read_leaves_room_for_calls, .init = watching_setup,
     .fini = watching_teardown)
{
    enum { MANY = 300 };
    static struct watcher w[MANY];
    uint8_t request[1024], reply[1024];
    size_t len = make_request(request, 5, 500);
    int n, fd;

    rig.limits.gate_buffer_bytes = 2097152;
    watching_start(MAPS_NAMES);
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

Test(watch_ends, a_gate_whose_buffers_are_full_stops_all_the_same, .init = watching_setup)
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
    watching_start(MAPS_NAMES);
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
