/* fake_gate - the gate's side of an nng socket, on plain sockets: SP over IPC, whole messages, and
 * sessions that end in order. Everything has a deadline of FAKE_MS; nothing sleeps.
 */
#ifndef TESTS_RPC_FAKE_GATE_H
#define TESTS_RPC_FAKE_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "wire/sp.h"

#define FAKE_MS 20000

/* A path for a socket of this process, in $TMPDIR; slot is 0 to 7. Any thread. */
const char *fake_path(unsigned slot);

/* Connects to an nng socket and exchanges hellos as `protocol`. A blocking descriptor, or -1. */
int fake_join(const char *path, enum sp_protocol protocol);
bool fake_write(int fd, const void *payload, size_t len);
/* The payload of the next message, for the caller to free; NULL: end, or nothing in time. */
uint8_t *fake_read(int fd, size_t *out_len);
/* As fake_read with a time of its own. */
uint8_t *fake_read_within(int fd, int ms, size_t *out_len);
/* Ends in order: reads `left` whole messages more, shuts the write side, drains until nng closes.
 * Closes fd in any case. False: nng did not close, or closed before. */
bool fake_end(int fd, uint64_t left);

/* A request as the gate puts it on a lane: connection number, hops words, request id, connection
 * number, frame. For the caller to free. */
uint8_t *fake_request(uint32_t conn, unsigned hops, uint32_t id, const void *frame, size_t len,
                      size_t *out_len);

/* Two joined nng sockets, whole messages between them. */
struct fake_message {
    struct fake_message *next;
    size_t len, done;
    uint8_t data[]; /* head and payload */
};
struct fake_side {
    int fd;
    struct fake_message *first, **last; /* read here, to be written on the other side */
    struct fake_message *reading;
    uint8_t head[9];
    size_t head_len;
    size_t queued;     /* bytes in the list */
    uint64_t messages; /* whole ones, read */
    bool shut, closed;
};
struct fake_relay {
    struct fake_side side[2];
};
bool fake_relay_join(struct fake_relay *relay, const char *a, const char *b,
                     enum sp_protocol as_to_a, enum sp_protocol as_to_b);
/* Relays for ms; what is read is held back while more than 1 MiB waits for the other side. */
void fake_relay_run(struct fake_relay *relay, int ms);
/* Ends both sides in order; sent[i]: messages that nng's socket i was handed. deliver: all of them
 * still reach the other side, otherwise only what was begun. False: nng did not close. */
bool fake_relay_end(struct fake_relay *relay, const uint64_t sent[2], bool deliver);

/* A number that threads change and a test waits for. */
struct tally {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t value;
};
#define TALLY_INIT                                                                                 \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0                                     \
    }
void tally_add(struct tally *tally, uint64_t n);
uint64_t tally_value(struct tally *tally);
bool tally_wait(struct tally *tally, uint64_t at_least); /* at most FAKE_MS */
bool tally_wait_ms(struct tally *tally, uint64_t at_least, int ms);

/* From the environment, or the default. */
uint64_t fake_sessions(uint64_t def); /* MESHD_TEST_SESSIONS */
uint64_t fake_seed(void);             /* MESHD_TEST_SEED; printed */
uint32_t fake_random(uint64_t *state, uint32_t below);

#endif
