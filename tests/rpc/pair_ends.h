/* pair_ends - pairs of the tests, and what they told. */
#ifndef TESTS_RPC_PAIR_ENDS_H
#define TESTS_RPC_PAIR_ENDS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "rpc/fake_gate.h"
#include "rpc/pair.h"

#define MESSAGE_BYTES 1048576u
#define QUEUE_BYTES (4u << 20)

struct end { /* one pair and what it told */
    struct rpc_pair *pair;
    struct tally ups, messages, quiets, gones;
    uint64_t sent;          /* of the last quiet */
    uint64_t session, next; /* numbers expected of what arrives */
    bool disorder;
    pthread_mutex_t hold; /* `message` waits for it: a slow reader */
};

extern struct end near_end, far_end; /* far_end is opened by who needs it */

void ends_setup(void);
void ends_teardown(void);
void ends_open(struct end *end, unsigned slot);
int ends_join(void); /* a connection to near_end, which is up */
int ends_send(struct end *end, enum rpc_urgency urgency, uint64_t session, uint64_t number,
              size_t size);
/* What the other end of the wire reads: the number of the next message. */
uint64_t ends_read(int fd);
/* Ends the session of near_end, of which so much was read. */
void ends_quiet(int fd, uint64_t already_read);

#endif
