/* staging - what a peer says of its list, gathered part by part and applied at once.
 *
 * A full list or a change to a known version. Entries are checked as they come; those that cannot
 * be accepted are counted, and remembered by name and hash so that the digest of what was *offered*
 * can be kept up. Bounded by limits.services_per_peer and REFUSED_MAX, whatever arrives.
 */
#ifndef NODE_STAGING_H
#define NODE_STAGING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "registry/registry.h"

#define REFUSED_MAX 256u       /* remembered with their names; more are only counted */
#define REFUSED_NAMED_MAX 100u /* named in a reply (mesh.proto) */

struct node;
struct peer;

struct refused {
    char *name;
    uint64_t hash;
    int reason;
};
struct refused_set {
    struct refused *at;
    size_t n, cap; /* n <= REFUSED_MAX */
    size_t total;  /* those forgotten included */
};
void refused_set_fini(struct refused_set *set);
/* The same as messages; *out_at is to be freed in one piece, its names are borrowed from set. */
int refused_set_messages(const struct refused_set *set, size_t *out_n,
                         Meshd__V1__Refused ***out_at);
const char *refused_text(int reason); /* a constant half sentence */

/* What is known of one peer's list. */
struct known_list {
    uint64_t incarnation, version; /* 0, 0: nothing yet */
    struct list *list;             /* its rows in the maps; NULL: none yet */
    uint64_t digest;               /* of what it offered, refused entries included */
    uint64_t count;
    struct refused_set refused;
};
void known_list_fini(struct known_list *known);

struct staging {
    bool full;
    struct row **puts;
    size_t n_puts, cap_puts;
    char **removed;
    size_t n_removed, cap_removed;
    uint64_t digest, count; /* of all entries that came, refused ones included */
    struct refused_set refused;
    uint64_t rows; /* counted in node.staged_rows */
};
void staging_init(struct staging *st, bool full);
void staging_fini(struct node *n, struct staging *st);

/* The entries and names of one message. 0 or -ENOMEM. */
int staging_add(struct node *n, struct staging *st, const char *label,
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

#endif
