/* known - what one peer offered: what of it is in the maps, what the policy keeps out of them, and
 * what could not be accepted.
 */
#ifndef NODE_KNOWN_H
#define NODE_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>

#define REFUSED_MAX 256u       /* remembered with their names; more are only counted */
#define REFUSED_NAMED_MAX 100u /* named in a reply (mesh.proto) */

struct list;
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
/* Copies name; past REFUSED_MAX it is only counted. 0 or -ENOMEM. */
int refused_set_add(struct refused_set *set, const char *name, uint64_t hash, int reason);
struct refused *refused_set_find(const struct refused_set *set, const char *name); /* or NULL */
void refused_set_drop(struct refused_set *set, struct refused *entry);

/* What is known of one peer's list. */
struct known_list {
    uint64_t incarnation, version; /* 0, 0: nothing yet */
    struct list *list;             /* its rows in the maps; NULL: none yet */
    struct list *offered;          /* and those that the policy keeps out; NULL likewise */
    uint64_t digest;               /* of what it offered, refused entries included */
    uint64_t count;
    struct refused_set refused;
};
void known_list_fini(struct node *n, struct known_list *known);
/* Takes both; 0 or more of offered are not in list. */
void known_list_set(struct node *n, struct known_list *known, struct list *offered,
                    struct list *list);
size_t known_list_refused(const struct known_list *known); /* entries left out, for any reason */
/* Some of them, and why; *out_at is to be freed in one piece, its names are borrowed from p. */
int known_list_refused_messages(struct node *n, const struct peer *p, size_t *out_n,
                                Meshd__V1__Refused ***out_at);
/* Whether entries are not kept that other rules could let in: only their owner knows them. */
bool known_list_has_forgotten(const struct known_list *known);

#endif
