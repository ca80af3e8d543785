/* front - TLS in front of a fake node: takes connections, ends TLS, and carries what is inside to
 * the fake's TCP port and back. Each connection has a thread of its own. */
#ifndef TESTS_CLIENT_FRONT_H
#define TESTS_CLIENT_FRONT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include "base/lock.h"
#include "tls/tls.h"

#define FRONT_MANY 256u /* connections of one front, in all */

struct front_conn {
    struct front *front;
    int fd;
    pthread_t thread;
};

struct front {
    char url[64]; /* tls://127.0.0.1:port */
    uint16_t to;  /* the fake's port */
    int fd;
    size_t step; /* at most so many bytes go into a record; 0: as they come */
    struct tls_keeper *keeper;
    pthread_t thread;
    struct mutex lock;
    struct { /* only with lock held */
        struct front_conn conns[FRONT_MANY];
        size_t n;
        char fingerprint[65]; /* of the last that was let in */
    } held;
    atomic_uint let_in, refused;
    atomic_uint ended;  /* by the client, in order */
    atomic_size_t sent; /* bytes towards clients, without what TLS adds */
};

void front_start(struct front *front, const struct tls_settings *settings, uint16_t to);
/* Cuts all connections off, without a word; new ones are taken as before. */
void front_cut(struct front *front);
void front_stop(struct front *front);
void front_fingerprint(struct front *front, char out_fingerprint[65]);

#endif
