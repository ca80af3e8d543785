/* fake - a node of the tests: a plain socket that speaks SP and frames, right or wrong, as a test
 * tells it to. One connection at a time, on a thread of its own; or, if a test asks for that, each
 * on its own. */
#ifndef TESTS_CLIENT_FAKE_H
#define TESTS_CLIENT_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "wire/check.h"
#include "wire/sp.h"

#define FAKE_MANY 64u /* connections of one fake, in all */

struct fake {
    char url[160]; /* to dial */
    char dir[64];  /* of the Unix socket; "" for TCP */
    uint16_t port; /* for TCP */
    enum sp_framing framing;
    int fd;
    /* Called with each connection, which is closed after it. */
    void (*serve)(struct fake *fake, int fd);
    void *ctx;
    pthread_t thread;
    bool many;
    pthread_t threads[FAKE_MANY]; /* of the connections, if many */
    int fds[FAKE_MANY];
    size_t n;
};

void fake_start(struct fake *fake, enum sp_framing framing,
                void (*serve)(struct fake *fake, int fd), void *ctx);
/* The same with connections side by side: serve runs on several threads. */
void fake_start_many(struct fake *fake, enum sp_framing framing,
                     void (*serve)(struct fake *fake, int fd), void *ctx);
/* Listens and never accepts; with a full backlog, so that not even a connect succeeds. */
void fake_black_hole(struct fake *fake, enum sp_framing framing);
void fake_stop(struct fake *fake);
/* A port that nobody listens on, nor can as long as the test's process lives. */
uint16_t fake_free_port(void);

struct fake_call {
    uint32_t id;
    const char *method; /* "Lookup" */
    const Meshd__V1__CallHeader *header;
    const ProtobufCMessage *request;
    struct arena arena;
};

/* The greeting of a REP socket, and the other's. False: the other is gone. */
bool fake_greet(int fd);
/* The next request; false: the other is gone. fake_call_fini ends it. */
bool fake_read(struct fake *fake, int fd, struct fake_call *out_call);
void fake_call_fini(struct fake_call *call);
void fake_reply(struct fake *fake, int fd, const struct fake_call *call, unsigned status,
                Meshd__V1__Reason reason, const char *text, const ProtobufCMessage *message);
void fake_send(int fd, const void *data, size_t len);
/* Waits until the other closes. */
void fake_drain(int fd);

#endif
