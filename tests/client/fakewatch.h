/* fakewatch - the Watch side of a fake node: one connection, right or wrong, as a test tells it. */
#ifndef TESTS_CLIENT_FAKEWATCH_H
#define TESTS_CLIENT_FAKEWATCH_H

#include "client/fake.h"
#include "wire/frame.h"

/* One connection of kind watch, after its request was read. */
struct fakewatch {
    struct fake *fake;
    int fd;
    uint64_t call_id;
    uint64_t from_epoch, from_revision;
    uint32_t heartbeat_ms;
    char name_glob[256], peer[256];
};

/* Reads preamble and request. False: the other is gone. */
bool fakewatch_begin(struct fakewatch *watch, struct fake *fake, int fd);
/* The answer to the preamble. */
void fakewatch_greet(const struct fakewatch *watch, unsigned status, Meshd__V1__Reason reason,
                     const char *text);

enum { FW_CONNECTED = 1, FW_STALE = 2, FW_HEALTHY = 4, FW_DRAINING = 8 };
struct fakewatch_event {
    Meshd__V1__WatchKind kind;
    const char *name, *source, *backend;
    unsigned state; /* FW_...; a source "local" is connected and healthy whatever it says */
};
#define FW_UP MESHD__V1__WATCH_KIND__WATCH_KIND_UP
#define FW_CHANGED MESHD__V1__WATCH_KIND__WATCH_KIND_CHANGED
#define FW_DOWN MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN

struct fakewatch_message {
    uint64_t epoch, revision;
    bool resync, synced;
    const struct fakewatch_event *events;
    size_t n;
};
/* A whole message as it travels, in a buffer that is the caller's to free. */
uint8_t *fakewatch_pack(const struct fakewatch *watch, const struct fakewatch_message *message,
                        size_t *out_len);
/* False: the other is gone. */
bool fakewatch_tell(const struct fakewatch *watch, const struct fakewatch_message *message);
/* A header with a status other than OK. */
void fakewatch_refuse(const struct fakewatch *watch, unsigned status, Meshd__V1__Reason reason,
                      const char *text);

#endif
