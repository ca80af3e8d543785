/* kept - the rows that a Watch has told so far, so that a new picture tells only what is different.
 *
 * Between kept_picture and the end of its sweep, rows of the picture before stay until the sweep
 * takes those that were not told again.
 *
 * Threads:   one at a time.
 * Ownership: rows are the store's; one that is taken out or replaced is the caller's, by free(3).
 */
#ifndef CLIENT_KEPT_H
#define CLIENT_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/client.h>
#include <meshd/v1/mesh.pb-c.h>
#include "client/hashed.h"

struct kept_row {
    struct mesh_instance instance; /* its strings are behind it */
    struct kept_row *next, *prev;  /* the holder's own, as is `of`; NULL in a new row */
    void *of;
    uint64_t picture; /* the last one that it was told in */
    UT_hash_handle hh;
    char text[];
};

struct kept {
    struct kept_row *rows;
    size_t n;
    uint64_t picture;
    bool in_picture;
    struct kept_row *sweep; /* looked at next */
    bool sweeping;
};

void kept_fini(struct kept *kept); /* of one that was zeroed at first */

enum kept_outcome {
    KEPT_NEW = 1,
    KEPT_CHANGED, /* its address, owner or state; *out_old is the row that was replaced */
    KEPT_SAME,    /* nothing but its last sign of life, perhaps */
};
/* A row as it is told now. -ENOMEM; -EINVAL: no row can be so; -E2BIG: too many. */
int kept_put(struct kept *kept, const Meshd__V1__ServiceRow *row, struct kept_row **out_row,
             struct kept_row **out_old);
/* Takes a row out; NULL: it was not there. */
struct kept_row *kept_take(struct kept *kept, const Meshd__V1__ServiceRow *row);

void kept_picture(struct kept *kept); /* a new one begins */
/* It is complete: takes out the next row that was not in it; NULL: there is none any more. */
struct kept_row *kept_sweep(struct kept *kept);

#endif
