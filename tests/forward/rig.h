/* rig - two nodes' forward rooms in one process, joined by a link of the test's own.
 *
 * Side DIALLER has dialled side LISTENER. Messages go straight to the other room unless the link is
 * told to hold, lose or refuse them. DATA connections are accepted by a thread that plays the gate,
 * and pass through a middle if the test wants one; with MESHD_TEST_TLS set they are TLS. Backends
 * and clients are sockets of the test.
 */
#ifndef TESTS_FORWARD_RIG_H
#define TESTS_FORWARD_RIG_H

#include <pthread.h>
#include <stdatomic.h>
#include "forward/forward.h"
#include "forward/middle.h"
#include "forward/net.h"
#include "forward/trust.h"
#include "registry/registry.h"

enum side { DIALLER, LISTENER };

struct rig_line { /* an end of a link, as forward_session_info.line */
    struct rig *rig;
    enum side from;
    struct peer *peer; /* who hears what is said on it; NULL: the other side */
};

struct rig_side {
    struct rig_line line;
    struct registry *registry;
    struct forward *forward;
    struct list *local;
    uint64_t version;
    char peer_id[8];
    uint16_t port;   /* of its automatic ingress port */
    uint16_t mapped; /* of the one that is mapped to "db" */
};

struct rig_held {
    struct rig_held *next;
    enum side to;
    int kind;
    uint8_t session_id[SESSION_ID_LEN];
    size_t len;
    uint8_t bytes[];
};

struct rig_coming { /* a DATA connection until its preamble was read */
    int fd;
    struct tls *tls;
    size_t n;
    uint8_t data[256];
};

struct rig {
    struct rig_side sides[2];
    struct forward_settings settings; /* to be changed before rig_start; ingress is the rig's */
    struct limits limits;
    uint8_t session_id[SESSION_ID_LEN];
    size_t descriptors; /* before the test's */
    /* The gate of LISTENER. */
    bool tls;               /* DATA is; to be changed before rig_start, as what follows */
    const char *gate_shows; /* whose certificate; NULL: the listener's */
    bool through_middle;
    struct middle middle;
    int gate_fd, wake[2];
    struct sockaddr_storage gate_at;
    pthread_t gate;
    atomic_bool gate_deaf;     /* what is accepted is reset at once */
    bool gate_resting;         /* its thread's, as what follows */
    struct rig_coming *coming; /* DATA connections that it has not handed on */
    size_t n_coming;
    atomic_int gate_heard;
    /* The link. */
    pthread_mutex_t lock;
    struct rig_held *held, **last;
    atomic_bool hold, lose;
    atomic_int refuse;        /* what ops.send returns, if not 0 */
    atomic_int sent[16];      /* messages by kind */
    atomic_int sent_forwards; /* Forwards in them */
    atomic_size_t largest;    /* bytes of one message */
};

void rig_init(struct rig *rig);
void rig_start(struct rig *rig);
/* Everything of the test is closed by now: insists on nothing being left, and ends the rig. */
void rig_end(struct rig *rig);
void rig_stop(struct rig *rig);              /* in the midst of whatever there is */
void rig_check_descriptors(struct rig *rig); /* after that, and what the test has itself */
/* A service of that side, known to the other one too. */
void rig_offer(struct rig *rig, enum side side, const char *name, const char *backend);
void rig_offer_as(struct rig *rig, enum side side, const char *name, const char *backend,
                  unsigned row_flags);
/* The same, but the other side has not heard of it. */
void rig_change_here(struct rig *rig, enum side side, const char *name, const char *backend,
                     unsigned row_flags);
void rig_withdraw(struct rig *rig, enum side side); /* all of them; nobody else hears of it */
void rig_link_up(struct rig *rig);
void rig_link_down(struct rig *rig);
void rig_release(struct rig *rig);     /* holds no more; what was held is delivered */
void rig_forget_data(struct rig *rig); /* the DATA connections that there are, without a word */
void rig_gate_rests(struct rig *rig, bool rests); /* who comes meanwhile waits */
void rig_break_data(struct rig *rig);
void rig_end_data(struct rig *rig); /* the middle says that both sides have ended */
struct forward_counters rig_counters(struct rig *rig, enum side side);
/* Waits until a counter (offsetof struct forward_counters) of that side is so much. */
void rig_wait_counter(struct rig *rig, enum side side, size_t offset, uint64_t value);
#define RIG_WAIT(rig, side, field, value)                                                          \
    rig_wait_counter(rig, side, offsetof(struct forward_counters, field), value)

/* Nothing of the worker happens from stall_begin, which waits for that, to stall_end. */
struct stall;
struct stall *stall_begin(struct forward *forward, unsigned worker);
void stall_end(struct stall *stall);
/* stall_begin in its two parts. */
struct stall *stall_post(struct forward *forward, unsigned worker);
void stall_wait(struct stall *stall);
/* Everything that was posted to the workers before was read. */
void rig_settle(struct forward *forward);

#endif
