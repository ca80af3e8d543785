/* carry - one client on its way to a backend: candidates in turn, within one budget.
 *
 * A local backend is dialled; an owner is sent a Forward and joined over a DATA connection. Another
 * candidate is tried only after a typed refusal, or when no byte of the client was sent to the one
 * before; at most CARRY_TRIES. Threads: the worker's.
 */
#ifndef FORWARD_CARRY_H
#define FORWARD_CARRY_H

#include "forward/end.h"
#include "forward/record.h"
#include "forward/tuple.h"
#include "forward/worker.h"

#define CARRY_TRIES 3u

struct carry;
struct session;
struct waiter;
struct data;
struct passage; /* passage.h */

struct carry_result {
    enum forward_end end; /* FORWARD_DONE: joined */
    struct leg *leg; /* connected with the backend or, through DATA, with the owner; the callee's */
    size_t delivered;   /* so many of `first` were sent already: the rest is the callee's to send */
    struct bytes early; /* what the backend said so far; the callee's */
    struct passage *passage;          /* passage_end when the client's connection ends */
    char text[LIMIT_STATUS_TEXT + 1]; /* not joined: why, with the owner's name, for people */
    struct way way;                   /* not joined: borrowed until `done` returns */
};

struct carry_ask {
    const char *name; /* canonical; copied */
    size_t name_len;
    struct tuple tuple;
    const uint8_t *first; /* what the client said that is for the backend; borrowed until the end */
    size_t first_len;
    uint64_t deadline_ms; /* on worker_now */
    void *ctx;
    /* Once, never from within carry_begin, never after carry_cancel. result is the caller's. */
    void (*done)(void *ctx, struct carry_result *result);
};
/* FORWARD_DONE: begun, and *out_carry is set. Else why it cannot be (FORWARD_NO_SUCH_NAME ...), and
 * out_text has it for people. */
enum forward_end carry_begin(struct worker *worker, const struct carry_ask *ask,
                             struct carry **out_carry, char out_text[LIMIT_STATUS_TEXT + 1]);
void carry_cancel(struct carry *carry); /* the client gave up: the owner is told */
/* What is written is borrowed from it. */
void carry_way(const struct carry *carry, struct way *out_way);

/* ---- for the rest of the room ---- */

/* The waiter's worker: a DATA connection of the owner came, with its header; taken. */
void carry_data(struct waiter *waiter, struct data *data);
/* The owner's answer; refusal as in mesh.proto. */
void carry_reply(struct waiter *waiter, int refusal, const char *text);
void carry_given_up(struct waiter *waiter); /* by the owner: a Cancel */
void carry_session_over(struct worker *worker, struct session *session);
void carry_worker_stop(struct worker *worker);

#endif
