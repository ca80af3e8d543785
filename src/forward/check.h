/* check - one look at a backend, as forward_check promises it (forward.h). */
#ifndef FORWARD_CHECK_H
#define FORWARD_CHECK_H

#include "forward/worker.h"

/* Those that run are told to nobody. */
void checks_worker_stop(struct worker *worker);

#endif
