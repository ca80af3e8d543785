/* data - DATA connections until they are joined with a client or a backend, and who waits for
 * which.
 *
 * The side that dialled the link dials all of them; where the link has TLS so has each of them, a
 * session of its own with the same peer, resumed where that can be. Some are opened ahead of need:
 * each waits, on whichever worker it came to, for a header of the one side that may claim it. How
 * many follows the rate of openings; a warm one is used once, and thrown away after 20 s.
 *
 *   claimed or dialled here ── header said ──▶ the other's header read ──▶ DATA_JOINED ──▶
 * data_take waiting for a header ── it came ──▶ the meeting: who has that forward id? ──▶
 * carry_data, owner_data, or it waits for its Forward there
 *
 * The meeting knows every forward id that is pending on this node, with the worker it lives on: any
 * thread asks it, and mails go by id, so that nobody holds a pointer into another worker.
 */
#ifndef FORWARD_DATA_H
#define FORWARD_DATA_H

#include "forward/session.h"

struct recheck; /* recheck.h */

/* ---- the meeting ---- */

enum waiter_kind {
    WAITER_NOBODY,
    WAITER_CARRY, /* carry.c: a client of this node */
    WAITER_OWNER, /* owner.c: a client of a peer */
    WAITER_DATA,  /* a DATA connection that came before its Forward */
};

struct waiter {
    uint8_t id[FORWARD_ID_LEN];
    enum waiter_kind kind;
    struct worker *worker;
    struct session *session; /* a reference of whoever embeds it */
    UT_hash_handle hh;
};

int meeting_new(struct meeting **out_meeting);
void meeting_free(struct meeting *meeting); /* accepts NULL */
/* -EEXIST: the id is known; -ENOMEM. Any thread. */
int waiter_enter(struct forward *forward, struct waiter *waiter);
void waiter_leave(struct forward *forward, struct waiter *waiter); /* idempotent */
/* As waiter_leave, of one of owner.c: the id is remembered for a while. */
void waiter_joined(struct forward *forward, struct waiter *waiter);
/* On the waiter's worker: the one with that id, or NULL. */
struct waiter *waiter_find(struct worker *worker, const uint8_t id[FORWARD_ID_LEN]);
/* A waiter of owner.c comes: on any thread, before its worker is known. If a DATA connection waits
 * for it, it takes that one's place and worker, and *out_data is set; else worker stays what it is.
 * As waiter_enter; -EALREADY: it may be asking again, and the id was joined. */
struct data;
int waiter_enter_owner(struct forward *forward, struct waiter *waiter, bool asks_again,
                       struct data **out_data);
/* Posts to the worker of the waiter of that id if it is of the session and the kind; false: none.
 */
bool waiter_post(struct forward *forward, const struct session *session, enum waiter_kind kind,
                 const uint8_t id[FORWARD_ID_LEN], struct mail *mail);

/* A DATA connection with a header that nobody asked for by name: it goes to whom the id belongs, or
 * waits for its Forward, or is dropped. */
void meeting_bring(struct data *data);
/* It waits no more. True: an owner has taken it. */
bool waiter_leave_data(struct forward *forward, struct data *data);

/* ---- one connection ---- */

enum data_event {
    DATA_JOINED, /* the other side's header is there: data_take */
    DATA_DEAD,   /* it is gone already, and freed */
};
struct data {
    struct worker *worker;
    struct session *session; /* a reference */
    struct leg *leg;
    struct ring all;  /* worker->data */
    struct ring pool; /* of a pool's mine or theirs, or none */
    struct alarm alarm;
    bool ours;                 /* this side says the first header */
    bool dialled, answered;    /* answered: the preamble */
    bool connecting;           /* or its handshake is under way */
    bool said, has_header;     /* our header; the other's */
    bool dead;                 /* while an owner has taken it, but has not heard of it yet */
    bool revoked;              /* not let in any more */
    bool counted;              /* in session->nobodys */
    bool taken;                /* with the meeting's lock: by an owner, from WAITER_DATA */
    unsigned *pooled;          /* the pool's count it is in, or NULL */
    struct waiter waiter;      /* while it waits for a Forward */
    struct data_header header; /* the other's */
    struct bytes out;          /* what the kernel has not taken */
    struct bytes early;        /* of the stream, behind the header */
    size_t n_in;
    uint8_t in[PREAMBLE_REPLY_MAX + DATA_HEADER_LEN];
    void *ctx;
    void (*event)(void *ctx, enum data_event event); /* NULL: nobody's */
};

/* A warm one that this side may claim, with header said; NULL: none. */
struct data *data_claim(struct worker *worker, struct session *session,
                        const struct data_header *header, void *ctx,
                        void (*event)(void *ctx, enum data_event event));
/* A new one (this side dialled the link). header NULL: data_say later. NULL: it could not be begun.
 */
struct data *data_dial(struct worker *worker, struct session *session,
                       const struct data_header *header, void *ctx,
                       void (*event)(void *ctx, enum data_event event));
/* Says our header; an error shows as an event. held: with what is sent next (leg_hold). */
void data_say(struct data *data, const struct data_header *header, bool held);
/* Somebody's from now on. */
void data_own(struct data *data, void *ctx, void (*event)(void *ctx, enum data_event event));
/* Both headers are exchanged: the leg and what came behind the header; data is freed. */
struct leg *data_take(struct data *data, struct bytes *out_early);
void data_drop(struct data *data); /* accepts NULL; closes, tells nobody */
/* Its Forward was refused: closed when the other side has heard of it, or after a while. */
void data_spent(struct data *data);

/* A Forward of the session was sent, or received: pools follow. */
void pool_opened(struct worker *worker, struct session *session);
void pool_asked(struct worker *worker, struct session *session);

void data_session_over(struct worker *worker, struct session *session);
/* Those that recheck does not let in any more die, and are counted. */
void data_check_again(struct worker *worker, struct recheck *recheck);
void data_worker_stop(struct worker *worker);

/* ---- pools ---- */

int pools_new(struct session *session);
void pools_free(struct session *session);
uint32_t pools_wanted(struct session *session); /* any thread */
void pools_wished(struct session *session);     /* any thread: session->wish is another */

#endif
