/* worker - a loop on a thread of its own, and what lives on it: legs, alarms, mail.
 *
 * A leg is a non-blocking socket under the loop, one side of a client's way. It is made once and
 * handed from whoever reads the first bytes to whoever relays, as its `owner` and `ready` are set.
 * Everything here belongs to the worker's thread, but worker_post.
 */
#ifndef FORWARD_WORKER_H
#define FORWARD_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <uv.h>
#include "base/cleanup.h"
#include "base/lock.h"
#include "base/ring.h"
#include "forward/forward.h"

struct epoll_event;
struct tls;

#define SCRATCH_BYTES 131072u
#define ALARM_SLOTS 256u
#define ALARM_STEP_MS 50u /* alarms ring this much late at most, never early */

struct worker;

/* ---- mail: work from other threads, in the order in which it was posted ---- */

struct mail {
    struct mail *next;
    /* Owns the mail from then on. While the worker stops (worker->stopping), only gives back what
     * it holds. */
    void (*read)(struct worker *worker, struct mail *mail);
};
void worker_post(struct worker *worker, struct mail *mail); /* any thread; cannot fail */

/* ---- alarms ---- */

struct alarm {
    struct ring ring;
    uint64_t at_ms;
    void (*fire)(struct alarm *alarm); /* it is off then; may be set again, or freed */
};
void alarm_init(struct alarm *alarm, void (*fire)(struct alarm *alarm));
/* In ms from now; one that is set is moved. */
void alarm_set(struct worker *worker, struct alarm *alarm, uint64_t ms);
void alarm_clear(struct worker *worker, struct alarm *alarm); /* off; idempotent */
static inline bool alarm_is_set(const struct alarm *alarm) { return !ring_empty(&alarm->ring); }

/* ---- legs (leg.c) ----
 *
 * Sockets in an epoll(7) of the worker's: in libuv's own, one look at one socket takes five system
 * calls, and each change two. With a TLS session or without: who has one does not notice, but that
 * nothing is spliced from one, and into one only where the kernel encrypts. */

struct leg {
    struct worker *worker;
    int fd;
    struct tls *tls; /* the leg's; NULL: plaintext */
    int wants;    /* of the loop: UV_READABLE, _WRITABLE, _DISCONNECT, or 0; UV_PRIORITIZED alone:
                     only an error */
    bool fragile; /* while it is open, an end of this process is an RST, not a FIN */
    bool listens; /* does not break when it is deaf: its owner clears that and wants again */
    bool deaf;    /* the kernel would not watch it: it was reset, and that is told */
    bool listed;  /* in worker->legs.listed */
    bool more;    /* of the session: it may have bytes that the socket has not */
    int ended;    /* likewise: what the next read says, for ever; 0: it is asked */
    int read_needs, write_needs; /* of the socket, to go on: the session may need the other */
    void *owner;
    /* events as wanted; those that were not are not told, but an end behind what is readable. After
     * an error on the socket events is what was wanted: the next read or write says what it is. */
    void (*ready)(struct leg *leg, int events);
    int failed;  /* 0, or the negative errno of a write before it is relayed: a socket tells that
                    once, and what is read of it then looks like an end in order */
    int watched; /* by the epoll: what is wanted, and maybe what was */
    struct ring held; /* worker->legs.held */
    uint64_t held_ms; /* since then */
    struct leg *next; /* of those that are gone, or listed */
};
/* Takes fd, which must be non-blocking, also when it fails: NULL, no memory, and fd was reset. */
struct leg *leg_new(struct worker *worker, int fd);
/* Takes the session, which is one of leg->fd. known: its handshake is over. */
void leg_secure(struct leg *leg, struct tls *tls, bool known);
void leg_want(struct leg *leg, int wants);
/* Of one with a session: 0, done; -EAGAIN: again once UV_READABLE is told; else as tls_handshake.
 */
int leg_handshake(struct leg *leg);
/* > 0; 0: the other side has ended, in order; -EAGAIN: not before UV_READABLE is told; else it is
 * broken: a session whose end was not said, too. */
ssize_t leg_recv(struct leg *leg, void *data, size_t len);
/* Bytes, or an end, that no event of the socket would tell of. */
bool leg_has_more(const struct leg *leg);
/* > 0: so many were taken; -EAGAIN: the same again once UV_WRITABLE is told, maybe with more behind
 * it; else it is broken. held: it leaves with what is sent next (leg_hold), if it is
 * plaintext. */
ssize_t leg_send(struct leg *leg, const void *data, size_t len, bool held);
/* Nothing more is sent. closing: leg_close comes next, which says what there is to say in
 * plaintext. 0; -EAGAIN: again once UV_WRITABLE is told; else it is broken. */
int leg_end(struct leg *leg, bool closing);
/* A stream is about to begin: if this process dies, the other end must not take that for an end. */
void leg_fragile(struct leg *leg);
/* What was sent last, with MSG_MORE, leaves with what is sent next, or in HELD_MS, or at the end.
 */
void leg_hold(struct leg *leg);
static inline void leg_sent(struct leg *leg) { ring_drop(&leg->held); }
/* Both accept NULL. What was written is still delivered. The leg may not be touched afterwards. */
void leg_close(struct leg *leg);
void leg_reset(struct leg *leg); /* RST; what was not delivered is lost */
/* The descriptor, for another worker, and its session or NULL (out_tls NULL: it has none); the leg
 * is gone. */
int leg_detach(struct leg *leg, struct tls **out_tls);
int leg_error(const struct leg *leg); /* SO_ERROR as 0 or a negative errno */

/* Of worker_turn. */
void legs_tell(struct worker *worker, const struct epoll_event *events, int n);
void legs_tell_listed(struct worker *worker);
void legs_let_go(struct worker *worker); /* what was held for HELD_MS */

/* ---- bytes that wait, on the heap ---- */

struct bytes {
    uint8_t *data;    /* NULL: none */
    size_t head, len; /* data[head..len) */
};
static inline size_t bytes_left(const struct bytes *bytes) { return bytes->len - bytes->head; }
static inline void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}
/* false: no memory. len 0 makes none. */
bool bytes_copy(struct bytes *bytes, const void *data, size_t len);

/* ---- the worker ---- */

/* Only the worker's thread writes its counters, so no read-modify-write is needed. */
#define COUNT(worker, field, n)                                                                    \
    __atomic_store_n(&(worker)->count.field, (worker)->count.field + (n), __ATOMIC_RELAXED)

/* begin: on its thread, before the loop runs. end: on its thread, once worker_stop was called, to
 * close what lives there; the thread ends when nothing is left under the loop. */
struct worker_body {
    void (*begin)(struct worker *worker);
    void (*end)(struct worker *worker);
    void (*turn)(struct worker *worker); /* after each turn of the loop, before it sleeps */
};
struct worker {
    struct forward *forward;
    unsigned index;
    struct worker_body body;
    bool started, stopping;
    uv_loop_t loop;
    uv_timer_t tick; /* runs while an alarm is set */
    bool soon;       /* the next turn, at the latest in a millisecond */
    int bell;        /* an eventfd(2) */
    uv_thread_t thread;
    struct forward_counters count; /* atomic */
    struct mail check;             /* forward_check_again: part of it, so that none is lost */
    atomic_bool check_posted;
    struct {
        struct ring slots[ALARM_SLOTS];
        size_t n;
        uint64_t step; /* the last whose slot was looked at */
    } alarms;
    struct {
        int epoll;          /* of them, and of the bell */
        size_t n;           /* that want something */
        bool telling;       /* some events are told still */
        struct leg *gone;   /* meanwhile */
        struct leg *listed; /* told in the next turn: deaf ones, and what waits in a session */
        struct ring held;   /* that have something to send still, oldest first */
    } legs;
    struct ring outboxes;                               /* that have something to send */
    struct ring clients, carries, served, relays, data; /* what lives here; for drain and stop */
    struct ring checks;                                 /* check.c */
    struct ring doubts;                                 /* doubt.c */
    size_t n_doubts;                                    /* in it */
    struct ingress_poll *listening;                     /* ingress.c */
    struct pipes *pipes;                                /* pipes.c */
    struct mutex mail_lock;
    struct { /* only with mail_lock held */
        struct mail *first, **last;
        bool asleep; /* or about to be: the bell wakes it */
    } mailbox;
    uint8_t scratch[SCRATCH_BYTES];
};
int worker_init(struct worker *worker, struct forward *forward, unsigned index);
int worker_start(struct worker *worker, const struct worker_body *body);
/* What worker_start's thread does again and again: waits, if it may, and tells what there is. */
void worker_turn(struct worker *worker, bool wait);
void worker_stop(struct worker *worker); /* asks, and waits for the thread; one that runs */
void worker_fini(
    struct worker *worker); /* after worker_stop, or never started; reads what mail is left */
static inline uint64_t worker_now(const struct worker *worker) { return uv_now(&worker->loop); }
/* Another turn in a millisecond, if nothing else brings one. */
static inline void worker_soon(struct worker *worker) { worker->soon = true; }
/* A phase ended that began at begun_us (uv_hrtime / 1000). Returns when it did. */
uint64_t worker_phase(struct worker *worker, enum forward_phase phase, uint64_t begun_us);

#endif
