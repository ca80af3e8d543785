/* privileges - who this process is, and what it may still do.
 *
 * A node that root starts may become another user (the setting `user`). Until then it is root, and
 * lends itself to that user for what happens in the user's own folder: there root would follow
 * whatever links it met. Main thread, before there is any other.
 */
#ifndef DAEMON_PRIVILEGES_H
#define DAEMON_PRIVILEGES_H

#include "daemon/config.h"

struct privileges_owner { /* whose the node's files are */
    uid_t uid;
    gid_t gid;
};

/* At the start: no program that is run can gain anything any more, memory is kept from the disk if
 * core_dumps says so. 0, or a negative errno after it was told: `user` is not this one, and only
 * root becomes another. */
int privileges_begin(const struct config *config);
/* The user to be, or who this process is and stays. */
struct privileges_owner privileges_owner(const struct config *config);
/* To be owner (perhaps with another group) for a while, and back. Nothing, when it is not root. */
int privileges_lend(const struct privileges_owner *owner);
void privileges_return(void); /* aborts when it cannot */
/* Becomes the user for good, gives up every capability unless it is root still, and, as `sandbox`
 * says, the system calls that a node has no use for: that they could not be is told, and no
 * failure. 0, or a negative errno after it was told: then nothing may be begun. */
int privileges_drop(const struct config *config);

#endif
