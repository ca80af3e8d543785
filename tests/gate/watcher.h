/* watcher - the other end of a watch: a socket that asks, and what it has been told, kept as a copy
 * of the maps. */
#ifndef TESTS_GATE_WATCHER_H
#define TESTS_GATE_WATCHER_H

#include <meshd/v1/mesh.pb-c.h>
#include "gate/maps.h"
#include "gate/support.h"

struct watcher {
    int fd;
    enum sp_framing framing;
    uint32_t value[MAPS_NAMES];
    bool in_picture, seen[MAPS_NAMES];
    uint64_t epoch, revision; /* of the last message that had one */
    unsigned messages, events, resyncs, synceds, signs;
    unsigned status; /* of the last ReplyHeader */
    char text[256];
};

/* The bytes of preamble and request; at most 1,024. */
size_t watcher_request(enum sp_framing framing, const char *method, uint32_t wire_version,
                       const Meshd__V1__WatchRequest *request, uint8_t *out);
/* Connects, asks and reads the preamble's answer; its status. On the Unix socket with SP_IPC. */
unsigned watcher_open(struct watcher *w, struct rig *rig, enum sp_framing framing,
                      const Meshd__V1__WatchRequest *request);
/* The preamble's answer of a connection on which everything was sent; its status. */
unsigned watcher_greeted(struct watcher *w);
/* Reads one message and applies it. False: the end, or a time-out. */
bool watcher_read(struct watcher *w);
/* Reads until it was told everything up to revision, at least one picture whole. */
bool watcher_reach(struct watcher *w, uint64_t revision);
/* Whether its copy is what the maps were when last told, as far as the request asked. */
bool watcher_agrees(const struct watcher *w, const struct maps *maps, const char *glob,
                    const char *peer);
void watcher_close(struct watcher *w);

#endif
