/* staging - what a peer says of its list, gathered part by part and applied at once.
 *
 * A full list or a change to a known version. Entries are checked as they come; those that cannot
 * be accepted are counted, and remembered by name and hash so that the digest of what was *offered*
 * can be kept up. Those that the policy keeps out of the maps are kept beside them: other rules may
 * let them in. Bounded by limits.services_per_peer and what the peer has
 * there already, and by REFUSED_MAX, whatever arrives.
 */
#ifndef NODE_STAGING_H
#define NODE_STAGING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "node/known.h"
#include "registry/registry.h"

struct staging {
    bool full;
    struct row **puts;
    size_t n_puts, cap_puts;
    char **removed;
    size_t n_removed, cap_removed;
    uint64_t digest, count; /* of all entries that came, refused ones included */
    struct refused_set refused;
    uint64_t rows;   /* counted in node.staged_rows */
    uint64_t denied; /* puts that the policy will keep out, more or less */
};
void staging_init(struct staging *st, bool full);
void staging_fini(struct node *n, struct staging *st);

/* The entries and names of one message. 0 or -ENOMEM. */
int staging_add(struct node *n, struct staging *st, const struct peer *p,
                Meshd__V1__Service *const *entries, size_t n_entries);
int staging_remove(struct node *n, struct staging *st, char *const *names, size_t n_names);

enum staging_outcome {
    STAGING_E_DIFFERS = 1, /* digest or count are not those told: nothing has changed */
    STAGING_E_STALE,       /* the registry knows a newer pair */
};
struct staging_told {
    bool checked; /* compare with digest and count */
    uint64_t digest, count;
};
/* The peer's list becomes what was staged, in one change of the maps. 0, an outcome, -ENOMEM. */
int staging_apply(struct node *n, struct peer *p, struct staging *st, uint64_t incarnation,
                  uint64_t version, const struct staging_told *told);
/* Other rules are in force: what the peer offered is shown, or not, as they say. 0 or -ENOMEM. */
int staging_policy_changed(struct node *n, struct peer *p);

#endif
