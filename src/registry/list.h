/* list - one owner's services: sorted by name, unchanging, shared by reference.
 *
 * A list never changes after it was made; a change makes a new list that shares all untouched
 * chunks with the old one. So a reader keeps a whole list by taking one reference, a difference
 * between two versions skips what they share, and 100,000 services move in one pointer. Rows and
 * lists may be used and unreferenced on any thread. Pure.
 */
#ifndef REGISTRY_LIST_H
#define REGISTRY_LIST_H

#include <stddef.h>
#include <stdint.h>
#include "base/hash.h"

enum row_flag {
    ROW_UNHEALTHY = ENTRY_UNHEALTHY, /* its backend does not answer */
    ROW_DRAINING = ENTRY_DRAINING,   /* it takes no new clients */
    /* Not told to anybody, and in no hash: how the owner introduces clients to the backend. */
    ROW_PROXY_V1 = 4,
    ROW_PROXY_V2 = 8,
};
#define ROW_TOLD (ROW_UNHEALTHY | ROW_DRAINING)

/* One service of one owner. name is canonical and key is "name@label"; all three end with a NUL and
 * lie in one allocation, which also holds the row's place in the services map (registry/row.h): a
 * row may be in one registry at a time. */
struct row {
    const char *key, *name, *backend;
    uint16_t name_len, key_len, backend_len;
    uint8_t flags; /* of enum row_flag */
    uint64_t hash; /* hash_entry of name, backend and what is told of the flags (base/hash.h) */
};

struct list; /* sorted rows, count and digest */

/* label: the source label, copied into the key. NULL: out of memory, or longer than LIMIT_NAME,
 * LIMIT_BACKEND, LIMIT_LABEL_TEXT allow. One reference, the caller's. */
struct row *row_new(const char *name, size_t name_len, const char *backend, size_t backend_len,
                    const char *label, unsigned flags);
struct row *row_ref(struct row *row);
void row_unref(struct row *row); /* accepts NULL */

struct list *list_ref(struct list *list);
void list_unref(struct list *list); /* accepts NULL */
void list_unrefp(struct list **list);
struct list *list_empty(void); /* a reference to the empty list, which is shared and never NULL */

/* As strcmp, for names with their lengths: the order of every list. */
int list_name_cmp(const char *a, size_t a_len, const char *b, size_t b_len);

size_t list_count(const struct list *list);
uint64_t list_digest(const struct list *list); /* the sum of the rows' hashes modulo 2^64 */
const struct row *list_find(const struct list *list, const char *name, size_t name_len);

struct list_iter {
    const struct list *list;
    size_t chunk, index;
};
void list_iter_init(struct list_iter *it, const struct list *list);
/* Begins at index, in order of names, or is at the end already; O(log n). */
void list_iter_seek(struct list_iter *it, const struct list *list, size_t index);
struct row *list_iter_next(struct list_iter *it); /* borrowed, or NULL at the end */

/* A new list: base with puts (each replaces its namesake) and without the removed names. puts and
 * removed may come in any order; a name twice: the last counts; a name in both: the put counts.
 * Takes nothing: rows get references of their own. A put that says what base has keeps base's
 * row. 0 or -ENOMEM. */
int list_apply(struct list *base, struct row *const *puts, size_t n_puts,
               const char *const *removed, size_t n_removed, struct list **out_list);

/* Calls visit for each name whose row differs: (old, NULL) gone, (NULL, new) come, both: another
 * backend or flags. Rows equal by pointer or by content are skipped. In order of names; a non-zero
 * return of visit stops and is returned. */
int list_diff(const struct list *from, const struct list *to,
              int (*visit)(void *ctx, struct row *before, struct row *after), void *ctx);
/* The same, and both is also called for rows of equal content that are two objects. */
int list_diff_objects(const struct list *from, const struct list *to,
                      int (*visit)(void *ctx, struct row *before, struct row *after), void *ctx);

/* What after the first half of a change from right to left is there: left's rows below name,
 * right's rows from name on. -ENOMEM. */
int list_splice(const struct list *left, const struct list *right, const char *name,
                size_t name_len, struct list **out_list);

/* Proves the order, counts, digests and chunk sizes. 0, or -EUCLEAN. For tests and debug builds. */
int list_check(const struct list *list);

#endif
