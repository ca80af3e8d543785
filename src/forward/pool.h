/* pool - warm DATA connections of one session on one worker: how many, and when. For data.c and
 * meeting.c only.
 */
#ifndef FORWARD_POOL_H
#define FORWARD_POOL_H

#include "forward/data.h"

/* One that waits for a header; counted there until data_unpool. */
void pool_add(struct data *data);
void pool_fill(struct worker *worker, struct session *session);
void pool_dial_failed(struct worker *worker, struct session *session);
void pool_close(struct worker *worker, struct session *session); /* the session is over */

/* data.c */
struct data *data_new(struct worker *worker, struct session *session, int fd); /* fd is taken */
void data_free(struct data *data);                                             /* all but the leg */
struct data *data_begin(struct worker *worker, struct session *session, enum data_first first,
                        const struct data_header *header); /* header: or NULL */
void data_unpool(struct data *data);

#endif
