/* outbox - Forwards of one worker to one peer that leave together.
 *
 * A message costs the link as much as a hundred Forwards in it. What one turn of the loop brings
 * leaves at its end. While many are under way they wait for others, but a small part of the time
 * that it takes anyway until one is joined. Worker's thread.
 */
#ifndef FORWARD_OUTBOX_H
#define FORWARD_OUTBOX_H

#include <meshd/v1/mesh.pb-c.h>
#include "forward/session.h"

struct outbox_item {
    struct ring ring;
    /* Fills in a message that points into what holds the item. */
    void (*fill)(struct outbox_item *item, Meshd__V1__Forward *forward);
    void (*failed)(struct outbox_item *item, int error); /* as session_send; it is out by then */
};

int outboxes_new(struct session *session);
void outboxes_free(struct session *session);
void outbox_add(struct worker *worker, struct session *session, struct outbox_item *item);
void outbox_remove(struct outbox_item *item); /* if it has not left; idempotent after ring_init */
/* A Forward of the session was joined, so long after it was added. */
void outbox_opened(struct worker *worker, struct session *session, uint64_t us);
void outbox_session_over(struct worker *worker, struct session *session);
void outboxes_flush(struct worker *worker); /* before the loop sleeps */

#endif
