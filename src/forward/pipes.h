/* pipes - a worker's pool of pipes, for bytes that go from socket to socket without a copy.
 *
 * A pipe is taken when bytes are about to enter it, and given back. Only empty ones are used again.
 *
 * Threads: the worker's.
 */
#ifndef FORWARD_PIPES_H
#define FORWARD_PIPES_H

#include "forward/worker.h"

struct pipe {
    struct ring ring; /* of the pool */
    int in, out;
    size_t size; /* a page for each slot; but a slot holds up to 32 KiB of a segment */
    size_t n;    /* bytes in it, kept by who has it */
    uint64_t given_ms;
};

/* An empty one; NULL: none can be had now. */
struct pipe *pipes_take(struct worker *worker);
/* Accepts NULL. One that is not empty is closed, and its bytes are lost. */
void pipes_give(struct worker *worker, struct pipe *pipe);
void pipes_fini(struct worker *worker); /* once all were given back */

#endif
