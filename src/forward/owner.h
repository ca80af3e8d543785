/* owner - a peer's client on its way to a backend of this node.
 *
 * A Forward names a service; what is dialled is what this node registered under it, and nothing
 * else. Joined once: a Forward whose id is known asks at most for another DATA connection.
 */
#ifndef FORWARD_OWNER_H
#define FORWARD_OWNER_H

#include <meshd/v1/mesh.pb-c.h>
#include "forward/data.h"

/* Any thread. */
void owner_forward(struct session *session, const Meshd__V1__Forward *forward);
/* The waiter's worker: a DATA connection with the other's header came for it; taken. */
void owner_data(struct waiter *waiter, struct data *data);
void owner_given_up(struct waiter *waiter); /* by a Cancel; nothing if it is joined */
void owner_session_over(struct worker *worker, struct session *session);
/* Other rules may be in force: what is pending and not allowed any more is refused. */
void owner_check_again(struct worker *worker);
void owner_worker_stop(struct worker *worker);

#endif
