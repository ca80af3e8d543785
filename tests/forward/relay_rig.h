/* relay_rig - a worker with relays, and the two far ends of each as sockets of the test.
 *
 * With MESHD_TEST_TLS=client or =backend that leg is TLS, and its far end is wrapped (trust.h).
 * What an end sends is a function of its seed and the offset, so that every byte received can be
 * told to be right by itself.
 */
#ifndef TESTS_FORWARD_RELAY_RIG_H
#define TESTS_FORWARD_RELAY_RIG_H

#include <pthread.h>
#include <stdatomic.h>
#include "forward/inside.h"
#include "forward/relay.h"
#include "forward/trust.h"

#define WAIT_MS 20000

struct rig {
    struct forward forward;
    struct worker worker;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_size_t turns; /* of the worker */
};
void rig_start(struct rig *rig, uint32_t idle_ms, uint32_t half_close_ms); /* on its own thread */
void rig_stop(struct rig *rig); /* relays that are left are cut off, the pipes closed */

/* One relay and its far ends. */
struct joined {
    struct rig *rig;
    int client, backend;         /* of the test, non-blocking */
    int client_leg, backend_leg; /* descriptors of the legs */
    struct tls *client_tls, *backend_tls;
    struct bytes up, down; /* handed in */
    struct relay *relay;
    bool inside, ended_inside; /* relay_begin; `ended` was called in it */
    bool ended;                /* with the rig's lock held, as what follows */
    enum forward_end end;
    uint64_t up_bytes, down_bytes;
};
/* Connects the far ends with sockets for the legs. buffer: of the sockets, 0: as it comes. */
void joined_init(struct joined *joined, struct rig *rig, int buffer);
void joined_begin(struct joined *joined); /* on the worker's thread; comes back when it has begun */
void joined_start(struct joined *joined, struct rig *rig, int buffer); /* both */
bool joined_ended(struct joined *joined); /* waits for it; false: deadline */
bool joined_runs(struct joined *joined);
void joined_fini(struct joined *joined); /* the far ends go, and so the relay */
/* Runs a function on the worker's thread and waits for it. */
void rig_do(struct rig *rig, void (*what)(void *arg), void *arg);

/* What one end does in pump(). */
struct talk {
    int fd;
    uint64_t seed, peer_seed;
    size_t send, sent; /* to send in all; then FIN, */
    bool keep_open;    /* unless */
    size_t chunk;      /* at most that much at once; 0: as it comes */
    size_t received;   /* right ones */
    bool shut, eof, wrong;
    int error; /* of a read: ECONNRESET */
};
uint8_t byte_at(uint64_t seed, size_t at);
void fill(uint8_t *data, size_t len, uint64_t seed, size_t at);
/* The two ends: talks[0] the client's, which sends up bytes, talks[1] the backend's. */
void joined_talks(const struct joined *joined, size_t up, size_t down, struct talk talks[2]);
/* Until each has sent all and has seen an end; until: or, if not 0, until the last has received so
 * many bytes. False: deadline, or something wrong. */
bool pump(struct talk *talks, size_t n, size_t until);
/* Sends until nothing is taken any more for quiet_ms; how much was. */
size_t send_until_blocked(struct talk *talk, int quiet_ms);
/* Reads until an end: all of it right? */
bool drain(struct talk *talk);
bool quiet(int fd, int ms);                       /* nothing to be read came, and no end */
size_t turns_in(struct rig *rig, int fd, int ms); /* of the loop, while that is quiet */
bool readable(int fd);                            /* waits for it */
void reset(int *fd);                              /* RST */
size_t heap_bytes(void);
uint64_t now_ms(void);
size_t open_descriptors(void);
unsigned test_seed(void);

#endif
