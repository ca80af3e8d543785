/* route - who may carry a client to a service, in the order of choice, and why.
 *
 * The name itself is looked up first, then, label by label from the left, the wildcard that covers
 * it ("*.b.c" before "*.c"; never the bare parent). Order: by rank (base/rank.h); among equals the
 * one with the fewest forwards of this node; then a stable hash; behind all of them whoever cannot
 * be forwarded to now: no session to do it on, or a service of this node that is draining. Any
 * thread.
 */
#ifndef FORWARD_ROUTE_H
#define FORWARD_ROUTE_H

#include "forward/end.h"
#include "forward/inside.h"
#include "registry/registry.h"

#define ROUTES_MAX 16u

struct session;

struct route_list {
    struct registry_route at[ROUTES_MAX]; /* in the order of choice */
    struct session *sessions[ROUTES_MAX]; /* references; NULL: local, or none to forward on */
    uint32_t active[ROUTES_MAX];
    struct registry_routes routes;
    char matched[LIMIT_NAME + 1];
};
/* False: nobody offers it, and there is nothing to end. route_list_fini otherwise. */
bool route_find(struct forward *forward, const char *name, size_t name_len,
                struct route_list *out_list);
void route_list_fini(struct route_list *list);
/* Whether that one can be forwarded to now. */
bool route_usable(const struct route_list *list, size_t index);
/* Why none of them can: FORWARD_DRAINING, or FORWARD_NO_OWNER. */
enum forward_end route_unusable(const struct route_list *list);

/* Remembers the last failure of a name at an owner, for people to see; bounded. */
int failures_new(struct failures **out_failures);
void failures_free(struct failures *failures);
void failure_note(struct forward *forward, const char *name, const char *peer_id,
                  enum forward_end end, const char *text);

#endif
