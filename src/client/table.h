/* table - names to answers, read by any number of threads while one changes it.
 *
 * An answer never changes: a change makes another one and puts it in its place. So a lookup takes
 * no lock and waits for nobody: it copies the answer that it finds into the reader's own list. What
 * has been replaced is freed when no reader can hold it any more (by epochs: a reader publishes the
 * epoch in which it began; what was replaced in epoch e is freed once every reader at work has
 * begun after e). Only atomic operations keep the order, no fences, so that ThreadSanitizer follows
 * it. Names are spelled by strangers: the hash has a key.
 *
 * Threads:   one writer; each reader one thread at a time; table_reader_open and _close any.
 */
#ifndef CLIENT_TABLE_H
#define CLIENT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include "client/kept.h"
#include "client/list.h"

struct table;
struct table_reader;

int table_new(struct table **out_table);
void table_free(struct table *table); /* after all its readers; accepts NULL */

/* ---- the writer ---- */

/* A name and what the writer keeps with it. */
struct table_name {
    struct kept_row *rows; /* those that offer it, by next and prev */
    size_t n_rows;
    bool dirty; /* its answer is not that of its rows; then it is in a list by next_dirty */
    struct table_name *next_dirty;
};

struct table_name *table_find(struct table *table, const char *name);
/* A name that is not there yet, without rows and without an answer: as if it were not there. */
int table_add(struct table *table, const char *name, struct table_name **out_name);
/* Makes the answer that of the rows. Without rows the name is gone, and of no more use to the
 * caller. 0; -ENOMEM: nothing has changed. */
int table_answer(struct table *table, struct table_name *name);
/* Frees what no reader holds any more of what was replaced before. */
void table_turn(struct table *table);

/* ---- readers ---- */

int table_reader_open(struct table *table, struct table_reader **out_reader);
void table_reader_close(struct table_reader *reader);

enum table_outcome { TABLE_ABSENT = 1 };
/* Copies the answer into list (of list_reserve). 0, TABLE_ABSENT, -ENOMEM. */
int table_look_up(struct table_reader *reader, const char *name, size_t len,
                  struct mesh_list *list);

#endif
