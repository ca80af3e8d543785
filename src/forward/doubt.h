/* doubt - a joined client whose connection with its owner was reset: by the backend, which the
 * owner passes on, or because the owner, or the way to it, is gone? On the wire these are the same.
 * An owner whose process dies resets both at once: the link ends a moment before or after. One that
 * falls silent, or a cut cable, is noticed on the link seconds earlier than on a stream, which may
 * last without its link as well: nothing is known then. So the record of such a client is told a
 * moment later, and what became of the link with it. Counters do not wait.
 *
 * Threads: the worker's.
 */
#ifndef FORWARD_DOUBT_H
#define FORWARD_DOUBT_H

#include "forward/passage.h"

/* Of a client whose backend is at a peer, as for record_tell. True: its end is counted, and told of
 * later; false: there is no doubt, no record is wanted, or there is no room: LIMIT_DOUBTS, for its
 * client is not among those that limits count any more. */
bool doubt_begin(struct worker *worker, const struct tuple *tuple, uint64_t begun_us,
                 const struct passage *passage, const struct record_end *end);
void doubts_worker_stop(struct worker *worker); /* tells what is known now */

#endif
