/* source - how many clients an address has, over all workers: in all, and not routed yet. Of IPv6 a
 * /64 is one (base/origin.h). Any thread. */
#ifndef FORWARD_SOURCE_H
#define FORWARD_SOURCE_H

#include <netinet/in.h>
#include <stdbool.h>
#include "base/limits.h"

struct sources;

/* limits: borrowed until sources_free. */
int sources_new(const struct limits *limits, struct sources **out_sources);
void sources_free(struct sources *sources);
/* One client more, not routed yet. False: over a limit, or no memory; nothing was taken. */
bool source_enter(struct sources *sources, const struct in6_addr *ip);
void source_routed(struct sources *sources, const struct in6_addr *ip);
void source_leave(struct sources *sources, const struct in6_addr *ip, bool was_routed);
void source_largest(struct sources *sources, uint64_t *out_clients, uint64_t *out_unrouted);

#endif
