/* seen - backends of this node's services as their clients last met them. Any thread.
 *
 * What is told, through ops.backend_seen: each failure, and the first client that is well after
 * one. Who failed is remembered; nothing is looked up while nobody has.
 */
#ifndef FORWARD_SEEN_H
#define FORWARD_SEEN_H

#include "forward/inside.h"

int seen_new(const struct limits *limits, struct seen **out_seen);
void seen_free(struct seen *seen); /* accepts NULL */
/* A dial of the service's backend that had ms has ended: error 0, or negative as backend_dial's.
 * Not for one that was cancelled: that says nothing of the backend. */
void seen_dialled(struct forward *forward, const char *name, const char *backend, uint32_t ms,
                  int error);

#endif
