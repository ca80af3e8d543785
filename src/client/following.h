/* following - what watches and replicas have in common: how they begin, and what went wrong.
 *
 * Failure is an enum mesh_status whose text is set (client/error.h). */
#ifndef CLIENT_FOLLOWING_H
#define CLIENT_FOLLOWING_H

#include <stdint.h>
#include <meshd/client.h>
#include "client/follow.h"

/* name: one name, any spelling; a pattern; or NULL for all. Nothing is dialled yet.
 * trust: for tls://, else NULL. */
enum mesh_status following_new(const char *url, struct trust *trust, const char *name,
                               uint32_t heartbeat_ms, struct follow **out_follow);
/* The next message while it is not known yet whether there is a meshd at all: a failure is one at
 * once, unless it is that of an attempt that took too long while there is still time. */
enum mesh_status following_first(struct follow *follow, uint64_t deadline_ms,
                                 const Meshd__V1__WatchReply **out_reply);
/* What follow_next has returned, other than 0. */
enum mesh_status following_error(const struct follow *follow, int r);

#endif
