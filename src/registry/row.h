/* row - what lies behind a struct row: its references and its place in the services map.
 *
 * Inside the registry room only. index.c keeps the nodes; the rest of the place is written by the
 * writer with services_lock held, while the row is in its owner's list.
 */
#ifndef REGISTRY_ROW_H
#define REGISTRY_ROW_H

#include <string.h>
#include "base/cleanup.h"
#include "registry/index.h"
#include "registry/list.h"

struct peer;

/* What a lookup reads lies together, from the end of by_name to the name, the first of the texts:
 * it waits for memory as few times as can be. */
struct entry {
    struct row row;
    struct index_node by_key;
    struct index_node by_name; /* in the index for the first row of its name only */
    struct entry *next, *prev; /* the rows of one name, in no order; prev NULL: the first */
    struct peer *owner;
    unsigned refs; /* atomic */
    uint8_t flags; /* the row's, once more: where a lookup passes by */
    char text[];   /* name, key, backend */
};

static inline struct entry *entry_of(const struct row *row)
{
    return CONTAINER_OF(row, struct entry, row);
}

/* For two rows of one name. */
static inline bool row_same(const struct row *a, const struct row *b)
{
    return a->hash == b->hash && a->flags == b->flags && a->backend_len == b->backend_len &&
           memcmp(a->backend, b->backend, a->backend_len) == 0;
}

#endif
