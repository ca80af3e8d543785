/* pool - warm DATA connections of one session on one worker: how many, and when. And what the files
 * about DATA share (data.c, dial.c, arrive.c, meeting.c); for them only.
 */
#ifndef FORWARD_POOL_H
#define FORWARD_POOL_H

#include "forward/data.h"

#define CLAIM_MS 15000u /* a warm one is claimed no later, */
#define WARM_MS 20000u  /* ... and kept no longer by the other side */

/* One that waits for a header; counted there until data_unpool. */
void pool_add(struct data *data);
void pool_fill(struct worker *worker, struct session *session);
void pool_dial_failed(struct worker *worker, struct session *session);
void pool_close(struct worker *worker, struct session *session); /* the session is over */

/* data.c. Takes fd and tls (NULL: plaintext; known: after its handshake), also when it fails. */
struct data *data_new(struct worker *worker, struct session *session, int fd, struct tls *tls,
                      bool known);
void data_free(struct data *data); /* all but the leg */
void data_unpool(struct data *data);
void data_want(struct data *data); /* of the loop, as it is now */
void data_send(struct data *data, const void *bytes, size_t len, bool held);
void data_heard(struct data *data); /* the other's header is in data->in */
void data_die(struct data *data);   /* its event: DATA_DEAD */

/* dial.c. header: or NULL. */
struct data *data_begin(struct worker *worker, struct session *session, enum data_first first,
                        const struct data_header *header);
/* While it connects: 0, it is through; -EAGAIN: not yet (data_want); else it came to nothing. */
int data_open(struct data *data);

#endif
