/* passage - a client that was joined: whom it counts for, and which way it goes. The worker's
 * thread.
 */
#ifndef FORWARD_PASSAGE_H
#define FORWARD_PASSAGE_H

#include "forward/record.h"
#include "forward/session.h"

struct service;

struct passage {
    struct session *session; /* a reference; NULL: local */
    struct service *service; /* NULL: not local */
    struct row *row;         /* a reference */
    unsigned tries;
    uint64_t named_us, joined_us;
    uint8_t id[FORWARD_ID_LEN]; /* not local */
};

bool passage_may(const struct passage *passage); /* other rules are in force: may it go on? */
void passage_end(struct worker *worker, struct passage *passage); /* accepts NULL */
/* What is written is borrowed from it. */
void passage_way(const struct passage *passage, struct way *out_way);

#endif
