/* service - how many forwards each service of this node has, over all workers. Any thread. */
#ifndef FORWARD_SERVICE_H
#define FORWARD_SERVICE_H

#include <stdbool.h>
#include "base/limits.h"

struct services;
struct service; /* one name's count */

/* limits: borrowed until services_free. */
int services_new(const struct limits *limits, struct services **out_services);
void services_free(struct services *services); /* accepts NULL */
/* One more; service_leave ends it. NULL: over limits.forwards_per_service, or no memory. */
struct service *service_enter(struct services *services, const char *name);
void service_leave(struct services *services, struct service *service); /* accepts NULL */
uint64_t services_count(struct services *services, const char *name);   /* what one name has now */
uint64_t services_largest(struct services *services);

#endif
