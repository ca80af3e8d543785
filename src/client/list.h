/* list - the answer to a lookup: instances, their strings behind them, and who belongs to which
 * name asked.
 *
 * Its size is told before anything is put in, so pointers never move: list_new makes one allocation
 * of it, list_reserve uses memory that was large enough before. Then, for each name asked: a
 * list_group, and a list_put per instance of it, whose strings come from list_text.
 *
 * Threads:   whoever fills it, alone; once it is filled, all.
 */
#ifndef CLIENT_LIST_H
#define CLIENT_LIST_H

#include <stddef.h>
#include <stdint.h>
#include <meshd/client.h>

struct list_size {
    size_t instances, groups;
    size_t text; /* bytes of all strings, each with its NUL; one that is used twice counts once */
};

struct list_group {
    size_t first, n; /* of the instances */
};

struct mesh_list {
    int current; /* as mesh_list_current; 1 at first */
    size_t n, n_groups;
    struct mesh_instance *at;
    struct list_group *groups;
    char *text;            /* where the next string goes */
    struct list_size room; /* what is left of the size */
    void *memory;          /* of list_reserve; NULL: it is one allocation with the list */
    size_t memory_len;
};

/* Bytes that a list of this size takes beside itself. */
size_t list_bytes(const struct list_size *size);

/* An empty list with room for that much, in one allocation, ended by mesh_list_free. 0, -ENOMEM. */
int list_new(const struct list_size *size, struct mesh_list **out_list);

/* For a list in memory of the caller's that was zeroed at first: empties it and makes room. What
 * was in it is gone, also on failure. No malloc when it was as large before. 0, -ENOMEM. */
int list_reserve(struct mesh_list *list, const struct list_size *size);
void list_fini(struct mesh_list *list); /* of such a list */

/* A copy with a NUL. */
const char *list_text(struct mesh_list *list, const char *text, size_t len);
/* Begins the instances of the next name asked. */
void list_group(struct mesh_list *list);
/* One more instance of the last group; its strings are of list_text, or outlive the list. */
void list_put(struct mesh_list *list, const struct mesh_instance *instance);

#endif
