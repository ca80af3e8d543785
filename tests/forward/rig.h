/* rig - two nodes' forward rooms in one process, joined by a link of the test's own.
 *
 * Side DIALLER has dialled side LISTENER. Messages go straight to the other room unless the link is
 * told to hold or lose them. DATA connections are accepted by a thread that plays the gate.
 * Backends and clients are sockets of the test.
 */
#ifndef TESTS_FORWARD_RIG_H
#define TESTS_FORWARD_RIG_H

#include <pthread.h>
#include <stdatomic.h>
#include "forward/forward.h"
#include "registry/registry.h"

#define WAIT_MS 10000

enum side { DIALLER, LISTENER };

struct rig_side {
    struct rig *rig;
    enum side side;
    struct registry *registry;
    struct forward *forward;
    struct list *local;
    uint64_t version;
    char peer_id[8];
    uint16_t port; /* of its one automatic ingress port */
};

struct rig_held {
    struct rig_held *next;
    enum side to;
    int kind;
    size_t len;
    uint8_t bytes[];
};

struct rig {
    struct rig_side sides[2];
    struct forward_settings settings; /* to be changed before rig_start; ingress is the rig's */
    struct limits limits;
    uint8_t session_id[SESSION_ID_LEN];
    uint64_t session_number;
    /* The gate of LISTENER. */
    int gate_fd, wake[2];
    struct sockaddr_storage gate_at;
    pthread_t gate;
    atomic_bool gate_deaf; /* what is accepted is closed at once */
    atomic_int gate_accepted;
    /* The link. */
    pthread_mutex_t lock;
    struct rig_held *held, **last;
    atomic_bool hold, lose;
    atomic_int sent[16]; /* messages by kind */
};

void rig_init(struct rig *rig);
void rig_start(struct rig *rig);
void rig_stop(struct rig *rig);
/* A service of that side, known to the other one too. */
void rig_offer(struct rig *rig, enum side side, const char *name, const char *backend);
void rig_link_up(struct rig *rig);
void rig_link_down(struct rig *rig);
void rig_release(struct rig *rig); /* holds no more; what was held is delivered */

/* --- sockets of the test: blocking, with WAIT_MS as their time-out --- */
int net_listen(char out_addr[32]); /* on 127.0.0.1; "127.0.0.1:port" */
int net_accept(int listener);
int net_connect(uint16_t port);
void net_send(int fd, const void *data, size_t len);
/* Exactly len bytes. */
void net_expect(int fd, const void *data, size_t len);
size_t net_read_all(int fd, char *out, size_t size); /* until the end; with a NUL */
bool net_is_reset(int fd);                           /* waits for it */
void net_reset(int fd);
void wait_until(bool (*is)(void *ctx), void *ctx); /* fails the test after WAIT_MS */

#endif
