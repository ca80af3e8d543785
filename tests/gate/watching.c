#include "gate/watching.h"

#include <criterion/criterion.h>
#include <string.h>
#include "forward/must.h"
#include "wire/status.h"

struct rig rig;
struct maps maps;

void watching_setup(void)
{
    rig_init(&rig);
    rig.epoch = 42;
    rig.watch_ops = maps_ops();
}

void watching_teardown(void)
{
    rig_stop(&rig);
    MUST(maps_pictures() == 0); /* every one was given back */
}

void watching_start(unsigned there)
{
    rig_start(&rig);
    memset(&maps, 0, sizeof(maps));
    maps.gate = rig.gate;
    for (unsigned i = 0; i < there; i++)
        maps.value[i] = 1;
    maps_tell(&maps, false);
}

Meshd__V1__WatchRequest watching_request(const char *glob, const char *peer)
{
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;

    if (glob)
        request.name_glob = (char *)glob;
    if (peer)
        request.peer = (char *)peer;
    return request;
}

void watching_open(struct watcher *w, enum sp_framing framing, const char *glob, const char *peer)
{
    Meshd__V1__WatchRequest request = watching_request(glob, peer);

    cr_assert_eq(watcher_open(w, &rig, framing, &request), STATUS_OK);
}

void watching_resume(struct watcher *w, const char *glob, uint64_t epoch, uint64_t revision)
{
    Meshd__V1__WatchRequest request = watching_request(glob, NULL);
    uint32_t value[MAPS_NAMES];

    memcpy(value, w->value, sizeof(value));
    request.from_epoch = epoch;
    request.from_revision = revision;
    cr_assert_eq(watcher_open(w, &rig, SP_TCP, &request), STATUS_OK);
    memcpy(w->value, value, sizeof(value));
}
