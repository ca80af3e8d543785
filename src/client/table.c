/* table - see table.h. Open addressing: an array of names, doubled by making another one.
 *
 * Why seq_cst: a reader publishes its epoch and then loads pointers; the writer takes a pointer out
 * and then looks at the epochs. In the one order of all these operations either the writer sees the
 * reader's epoch, or the reader no longer sees the pointer. On the readers' side this costs one
 * store with its barrier per lookup; loads cost nothing more than any other.
 */
#include "client/table.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/lock.h"
#include "base/random.h"
#include "base/rank.h"

#define CACHE_LINE 64
#define SLOTS_MIN 64u

/* What waits to be freed, the oldest first: the beginning of everything that readers see. */
struct retired {
    struct retired *next;
    uint64_t epoch; /* in which it was replaced */
};

struct answer {
    struct retired retired; /* first */
    size_t n, text_len;
    const char *text; /* all strings of the instances, behind them */
    struct mesh_instance at[];
};

struct name {
    struct retired retired; /* first */
    uint64_t hash;
    struct answer *_Atomic answer; /* NULL: not found */
    struct table_name writer;
    size_t len;
    char text[];
};

struct slots {
    struct retired retired; /* first */
    size_t mask;
    struct name *_Atomic at[]; /* NULL: the end of a search; &removed: go on */
};

struct table_reader {
    _Alignas(CACHE_LINE) _Atomic uint64_t epoch; /* 0: it holds nothing */
    _Alignas(CACHE_LINE) struct table *table;
    struct table_reader *next, *prev;
};

struct table {
    struct slots *_Atomic slots;
    _Atomic uint64_t epoch; /* from 1 */
    uint64_t key[2];
    size_t used, removed; /* of the slots: not NULL; and of these, names that are gone */
    bool turned;          /* nothing was replaced in this epoch */
    struct retired *oldest, *newest;
    struct mutex readers_lock;
    struct table_reader *readers; /* with readers_lock held */
};

static struct name removed;

/* ---- the writer ---- */

static struct slots *slots_new(size_t n)
{
    struct slots *slots = calloc(1, sizeof(*slots) + n * sizeof(slots->at[0]));

    if (slots)
        slots->mask = n - 1;
    return slots;
}

int table_new(struct table **out_table)
{
    struct table *table = calloc(1, sizeof(*table));
    struct slots *slots = slots_new(SLOTS_MIN);

    if (!table || !slots) {
        free(table);
        free(slots);
        return -ENOMEM;
    }
    atomic_init(&table->slots, slots);
    atomic_init(&table->epoch, 1);
    table->turned = true;
    random_bytes(table->key, sizeof(table->key));
    mutex_init(&table->readers_lock);
    *out_table = table;
    return 0;
}

static void free_retired(struct table *table, uint64_t before)
{
    while (table->oldest && table->oldest->epoch < before) {
        struct retired *next = table->oldest->next;

        free(table->oldest);
        table->oldest = next;
    }
    if (!table->oldest)
        table->newest = NULL;
}

void table_free(struct table *table)
{
    struct slots *slots;

    if (!table)
        return;
    free_retired(table, UINT64_MAX);
    slots = atomic_load(&table->slots);
    for (size_t i = 0; i <= slots->mask; i++) {
        struct name *name = atomic_load(&slots->at[i]);

        if (!name || name == &removed)
            continue;
        free(atomic_load(&name->answer));
        free(name);
    }
    free(slots);
    mutex_fini(&table->readers_lock);
    free(table);
}

static void retire(struct table *table, void *what)
{
    struct retired *retired = what;

    if (!retired)
        return;
    retired->next = NULL;
    retired->epoch = atomic_load(&table->epoch);
    if (table->newest)
        table->newest->next = retired;
    else
        table->oldest = retired;
    table->newest = retired;
    table->turned = false;
}

void table_turn(struct table *table)
{
    uint64_t oldest = UINT64_MAX;

    if (!table->turned)
        atomic_fetch_add(&table->epoch, 1);
    table->turned = true;
    if (!table->oldest)
        return;
    mutex_lock(&table->readers_lock);
    for (struct table_reader *reader = table->readers; reader; reader = reader->next) {
        uint64_t epoch = atomic_load(&reader->epoch);

        if (epoch != 0 && epoch < oldest)
            oldest = epoch;
    }
    mutex_unlock(&table->readers_lock);
    free_retired(table, oldest);
}

static uint64_t hash_of(const struct table *table, const char *name, size_t len)
{
    return hash_sip13(table->key, name, len);
}

static bool is(const struct name *name, uint64_t hash, const char *text, size_t len)
{
    return name->hash == hash && name->len == len && memcmp(name->text, text, len) == 0;
}

/* The slot of a name, or NULL. Readers and the writer search alike. */
static inline struct name *_Atomic *search(struct slots *slots, uint64_t hash, const char *text,
                                           size_t len, struct name **out_name)
{
    for (size_t i = hash & slots->mask;; i = (i + 1) & slots->mask) {
        struct name *name = atomic_load(&slots->at[i]);

        if (!name)
            return NULL;
        if (name != &removed && is(name, hash, text, len)) {
            *out_name = name;
            return &slots->at[i];
        }
    }
}

struct table_name *table_find(struct table *table, const char *text)
{
    size_t len = strlen(text);
    struct name *name = NULL;

    if (!search(atomic_load(&table->slots), hash_of(table, text, len), text, len, &name))
        return NULL;
    return &name->writer;
}

/* Into an array that nobody reads yet, or one with room. */
static void put(struct slots *slots, struct name *name)
{
    size_t i = name->hash & slots->mask;

    while (atomic_load(&slots->at[i]))
        i = (i + 1) & slots->mask;
    atomic_store(&slots->at[i], name);
}

/* Room for one more: an array is never more than half full, so that searches stay short. */
static int make_room(struct table *table)
{
    struct slots *old = atomic_load(&table->slots), *slots;
    size_t n = old->mask + 1;

    if ((table->used + 1) * 2 <= n)
        return 0;
    if ((table->used - table->removed + 1) * 4 > n)
        n *= 2; /* else it is full of names that are gone */
    slots = slots_new(n);
    if (!slots)
        return -ENOMEM;
    for (size_t i = 0; i <= old->mask; i++) {
        struct name *name = atomic_load(&old->at[i]);

        if (name && name != &removed)
            put(slots, name);
    }
    atomic_store(&table->slots, slots);
    table->used -= table->removed;
    table->removed = 0;
    retire(table, old);
    return 0;
}

int table_add(struct table *table, const char *text, struct table_name **out_name)
{
    size_t len = strlen(text);
    struct name *name;
    int r = make_room(table);

    if (r < 0)
        return r;
    name = calloc(1, sizeof(*name) + len + 1);
    if (!name)
        return -ENOMEM;
    name->hash = hash_of(table, text, len);
    name->len = len;
    memcpy(name->text, text, len);
    atomic_init(&name->answer, NULL);
    put(atomic_load(&table->slots), name);
    table->used++;
    *out_name = &name->writer;
    return 0;
}

/* ---- answers ---- */

struct ranked {
    const struct kept_row *row;
    unsigned rank;
    uint64_t tie;
};

static int by_rank(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;

    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->tie != b->tie)
        return a->tie < b->tie ? -1 : 1;
    return strcmp(a->row->instance.source, b->row->instance.source);
}

static struct ranked rank(const struct kept_row *row, uint64_t name_hash)
{
    const struct mesh_instance *it = &row->instance;

    return (struct ranked){
        .row = row,
        .rank = rank_of(it->state & MESH_LOCAL, it->state & MESH_CONNECTED, it->state & MESH_STALE,
                        it->state & MESH_HEALTHY, it->state & MESH_DRAINING),
        .tie = rank_tie(name_hash, hash_entry(it->node, strlen(it->node), "", 0, 0)),
    };
}

static size_t text_len(const struct mesh_instance *it)
{
    return strlen(it->node) + strlen(it->source) + strlen(it->address) + 3;
}

static const char *copy(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *begin = memcpy(*at, text, size);

    *at += size;
    return begin;
}

static struct answer *answer_of(const struct ranked *ranked, size_t n, const struct name *name)
{
    size_t len = name->len + 1;
    struct answer *answer;
    const char *shared;
    char *at;

    for (size_t i = 0; i < n; i++)
        len += text_len(&ranked[i].row->instance);
    answer = malloc(sizeof(*answer) + n * sizeof(answer->at[0]) + len);
    if (!answer)
        return NULL;
    answer->n = n;
    answer->text_len = len;
    answer->text = at = (char *)(answer->at + n);
    shared = copy(&at, name->text);
    for (size_t i = 0; i < n; i++) {
        const struct mesh_instance *it = &ranked[i].row->instance;

        answer->at[i] = (struct mesh_instance){
            .name = shared,
            .node = copy(&at, it->node),
            .source = copy(&at, it->source),
            .address = copy(&at, it->address),
            .last_seen = it->last_seen,
            .state = it->state,
        };
    }
    return answer;
}

static int answer_new(const struct name *name, struct answer **out_answer)
{
    uint64_t name_hash = hash_entry(name->text, name->len, "", 0, 0);
    size_t n = name->writer.n_rows, i = 0;
    struct ranked *ranked = malloc(n * sizeof(*ranked));

    if (!ranked)
        return -ENOMEM;
    for (const struct kept_row *row = name->writer.rows; row; row = row->next)
        ranked[i++] = rank(row, name_hash);
    if (n > 1)
        qsort(ranked, n, sizeof(*ranked), by_rank);
    *out_answer = answer_of(ranked, n, name);
    free(ranked);
    return *out_answer ? 0 : -ENOMEM;
}

int table_answer(struct table *table, struct table_name *writer)
{
    struct name *name = CONTAINER_OF(writer, struct name, writer);
    struct answer *fresh = NULL, *old;
    struct name *_Atomic *slot;
    int r;

    if (writer->n_rows > 0) {
        r = answer_new(name, &fresh);
        if (r < 0)
            return r;
    }
    old = atomic_exchange(&name->answer, fresh);
    retire(table, old);
    if (fresh)
        return 0;
    slot = search(atomic_load(&table->slots), name->hash, name->text, name->len, &name);
    atomic_store(slot, &removed);
    table->removed++;
    retire(table, name);
    return 0;
}

/* ---- readers ---- */

int table_reader_open(struct table *table, struct table_reader **out_reader)
{
    struct table_reader *reader = aligned_alloc(CACHE_LINE, sizeof(*reader));

    if (!reader)
        return -ENOMEM;
    atomic_init(&reader->epoch, 0);
    reader->table = table;
    reader->prev = NULL;
    mutex_lock(&table->readers_lock);
    reader->next = table->readers;
    if (reader->next)
        reader->next->prev = reader;
    table->readers = reader;
    mutex_unlock(&table->readers_lock);
    *out_reader = reader;
    return 0;
}

void table_reader_close(struct table_reader *reader)
{
    struct table *table = reader->table;

    mutex_lock(&table->readers_lock);
    if (reader->next)
        reader->next->prev = reader->prev;
    if (reader->prev)
        reader->prev->next = reader->next;
    else
        table->readers = reader->next;
    mutex_unlock(&table->readers_lock);
    free(reader);
}

/* The strings as one piece, and the pointers moved along with them. */
static int copy_answer(const struct answer *answer, struct mesh_list *list)
{
    const struct list_size size = {.instances = answer->n, .groups = 1, .text = answer->text_len};
    const char *text;
    int r = list_reserve(list, &size);

    if (r < 0)
        return r;
    list_group(list);
    text = list_text(list, answer->text, answer->text_len - 1);
    for (size_t i = 0; i < answer->n; i++) {
        struct mesh_instance it = answer->at[i];

        it.name = text + (it.name - answer->text);
        it.node = text + (it.node - answer->text);
        it.source = text + (it.source - answer->text);
        it.address = text + (it.address - answer->text);
        list_put(list, &it);
    }
    return 0;
}

int table_look_up(struct table_reader *reader, const char *text, size_t len, struct mesh_list *list)
{
    struct table *table = reader->table;
    uint64_t hash = hash_of(table, text, len);
    struct answer *answer = NULL;
    struct name *name = NULL;
    int r = TABLE_ABSENT;

    atomic_store(&reader->epoch, atomic_load(&table->epoch));
    if (search(atomic_load(&table->slots), hash, text, len, &name))
        answer = atomic_load(&name->answer);
    if (answer)
        r = copy_answer(answer, list);
    atomic_store_explicit(&reader->epoch, 0, memory_order_release);
    return r;
}
