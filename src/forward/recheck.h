/* recheck - who would still be let in, after the material that decides has become another.
 *
 * What is joined, warm or waiting is gone through by each worker; what was let in before the change
 * but is not there yet (a handshake under way, a connection in the gate's hands or in a mail) is
 * asked when it comes, for a while.
 *
 * Threads: the worker's.
 */
#ifndef FORWARD_RECHECK_H
#define FORWARD_RECHECK_H

#include "forward/worker.h"

#define RECHECK_CERTIFICATES 512u

struct recheck { /* one pass: who has many connections is looked at once */
    struct {
        char fingerprint[65];
        bool in;
    } known[RECHECK_CERTIFICATES];
    size_t n;
};
/* Whether the other side of it would be let in now; always without TLS. */
bool recheck_leg(struct recheck *recheck, struct leg *leg);
/* The same of one that has just come; counted if it would not. */
bool recheck_late(struct worker *worker, struct leg *leg);

#endif
