/* list - an owner's rows in chunks, behind one directory.
 *
 * Always true: names ascend strictly; every chunk but the last has CHUNK_LEAST to CHUNK_ROWS rows;
 * a chunk and a list never change once somebody else can see them. So a change copies the chunks
 * that it touches and the directory, and shares the rest.
 */
#include "registry/list.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "registry/row.h"

#define CHUNK_ROWS 64 /* a change of one row copies this many pointers and references */
#define CHUNK_LEAST 16

struct chunk {
    unsigned refs; /* atomic */
    unsigned n;
    uint64_t digest;
    struct row *rows[];
};

struct span {
    struct chunk *chunk;
    size_t first; /* index of its first row in the list */
};

struct list {
    unsigned refs; /* atomic */
    size_t n_chunks, count;
    uint64_t digest;
    struct span spans[];
};

static struct list empty = {.refs = 1};

/* ---- Chunks and lists ---- */

int list_name_cmp(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int r = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return r != 0 ? r : (a_len > b_len) - (a_len < b_len);
}

static int row_cmp(const struct row *a, const struct row *b)
{
    return list_name_cmp(a->name, a->name_len, b->name, b->name_len);
}

static struct chunk *chunk_new(struct row *const *rows, size_t n)
{
    struct chunk *chunk = malloc(sizeof(*chunk) + n * sizeof(chunk->rows[0]));

    if (!chunk)
        return NULL;
    chunk->refs = 1;
    chunk->n = (unsigned)n;
    chunk->digest = 0;
    for (size_t i = 0; i < n; i++) {
        chunk->rows[i] = row_ref(rows[i]);
        chunk->digest += rows[i]->hash;
    }
    return chunk;
}

static void chunk_unref(struct chunk *chunk)
{
    if (__atomic_sub_fetch(&chunk->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (unsigned i = 0; i < chunk->n; i++)
        row_unref(chunk->rows[i]);
    free(chunk);
}

struct list *list_ref(struct list *list)
{
    __atomic_add_fetch(&list->refs, 1, __ATOMIC_RELAXED);
    return list;
}

void list_unref(struct list *list)
{
    if (!list || __atomic_sub_fetch(&list->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < list->n_chunks; i++)
        chunk_unref(list->spans[i].chunk);
    free(list);
}

void list_unrefp(struct list **list) { list_unref(*list); }

struct list *list_empty(void) { return list_ref(&empty); }

size_t list_count(const struct list *list) { return list->count; }

uint64_t list_digest(const struct list *list) { return list->digest; }

/* ---- Finding ---- */

struct place {
    size_t chunk, row; /* past the end: chunk == n_chunks, row == 0 */
};

/* The first row that is not below name. */
static struct place lower_bound(const struct list *list, const char *name, size_t name_len)
{
    size_t lo = 0, hi = list->n_chunks;
    struct place at;

    while (lo < hi) { /* the first chunk whose last row is not below */
        size_t mid = lo + (hi - lo) / 2;
        const struct chunk *chunk = list->spans[mid].chunk;
        const struct row *row = chunk->rows[chunk->n - 1];
        if (list_name_cmp(row->name, row->name_len, name, name_len) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    at.chunk = lo;
    at.row = 0;
    if (lo == list->n_chunks)
        return at;
    hi = list->spans[lo].chunk->n;
    for (lo = 0; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        const struct row *row = list->spans[at.chunk].chunk->rows[mid];
        if (list_name_cmp(row->name, row->name_len, name, name_len) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    at.row = lo;
    return at;
}

const struct row *list_find(const struct list *list, const char *name, size_t name_len)
{
    struct place at = lower_bound(list, name, name_len);
    const struct row *row;

    if (at.chunk == list->n_chunks)
        return NULL;
    row = list->spans[at.chunk].chunk->rows[at.row];
    return list_name_cmp(row->name, row->name_len, name, name_len) == 0 ? row : NULL;
}

void list_iter_seek(struct list_iter *it, const struct list *list, size_t index)
{
    size_t lo = 0, hi = list->n_chunks;

    it->list = list;
    if (index >= list->count) {
        it->chunk = list->n_chunks;
        it->index = 0;
        return;
    }
    while (hi - lo > 1) { /* the last span that does not begin after index */
        size_t mid = lo + (hi - lo) / 2;
        if (list->spans[mid].first <= index)
            lo = mid;
        else
            hi = mid;
    }
    it->chunk = lo;
    it->index = index - list->spans[lo].first;
}

void list_iter_init(struct list_iter *it, const struct list *list)
{
    it->list = list;
    it->chunk = it->index = 0;
}

struct row *list_iter_next(struct list_iter *it)
{
    const struct chunk *chunk;
    struct row *row;

    if (it->chunk == it->list->n_chunks)
        return NULL;
    chunk = it->list->spans[it->chunk].chunk;
    row = chunk->rows[it->index];
    if (++it->index == chunk->n) {
        it->chunk++;
        it->index = 0;
    }
    return row;
}

/* ---- Building ---- */

/* Rows go in by ascending names, one by one or by the chunk. Those pending are borrowed. */
struct builder {
    struct list *list; /* its spans have room for cap */
    size_t cap, n_pending;
    struct row *pending[2 * CHUNK_ROWS];
};

static int builder_init(struct builder *b, size_t cap)
{
    b->list = malloc(sizeof(*b->list) + cap * sizeof(b->list->spans[0]));
    if (!b->list)
        return -ENOMEM;
    *b->list = (struct list){.refs = 1};
    b->cap = cap;
    b->n_pending = 0;
    return 0;
}

static void builder_fini(struct builder *b)
{
    list_unref(b->list);
    b->list = NULL;
}

/* Takes the chunk, also when it fails. */
static int builder_span(struct builder *b, struct chunk *chunk)
{
    if (b->list->n_chunks == b->cap) {
        size_t cap = b->cap + b->cap / 2 + 4;
        struct list *list = realloc(b->list, sizeof(*list) + cap * sizeof(list->spans[0]));
        if (!list) {
            chunk_unref(chunk);
            return -ENOMEM;
        }
        b->list = list;
        b->cap = cap;
    }
    b->list->spans[b->list->n_chunks++] = (struct span){chunk, b->list->count};
    b->list->count += chunk->n;
    b->list->digest += chunk->digest;
    return 0;
}

static int builder_emit(struct builder *b, size_t n)
{
    struct chunk *chunk = chunk_new(b->pending, n);

    if (!chunk)
        return -ENOMEM;
    b->n_pending -= n;
    memmove(b->pending, b->pending + n, b->n_pending * sizeof(b->pending[0]));
    return builder_span(b, chunk);
}

static int builder_flush(struct builder *b)
{
    int r = 0;

    if (b->n_pending > CHUNK_ROWS)
        r = builder_emit(b, b->n_pending / 2);
    if (r == 0 && b->n_pending > 0)
        r = builder_emit(b, b->n_pending);
    return r;
}

static int builder_row(struct builder *b, struct row *row)
{
    b->pending[b->n_pending++] = row;
    return b->n_pending == 2 * CHUNK_ROWS ? builder_emit(b, CHUNK_ROWS) : 0;
}

/* The whole chunk: shared, unless that would leave a small chunk in the middle. The rows of a chunk
 * that is copied instead bring what is pending over CHUNK_LEAST, so the next one can be shared. */
static int builder_chunk(struct builder *b, struct chunk *chunk, bool last)
{
    int r = 0;

    if ((b->n_pending == 0 || b->n_pending >= CHUNK_LEAST) && (chunk->n >= CHUNK_LEAST || last)) {
        r = builder_flush(b);
        if (r < 0)
            return r;
        __atomic_add_fetch(&chunk->refs, 1, __ATOMIC_RELAXED);
        return builder_span(b, chunk);
    }
    for (unsigned i = 0; r == 0 && i < chunk->n; i++)
        r = builder_row(b, chunk->rows[i]);
    return r;
}

static int builder_finish(struct builder *b, struct list **out_list)
{
    struct list *list;
    int r = builder_flush(b);

    if (r < 0)
        return r;
    if (b->list->count == 0) {
        *out_list = list_empty();
        return 0;
    }
    /* Lists live long: what was guessed too large goes back. Cannot matter if that fails. */
    list = realloc(b->list, sizeof(*list) + b->list->n_chunks * sizeof(list->spans[0]));
    *out_list = list ? list : b->list;
    b->list = NULL;
    return 0;
}

/* ---- Changing ---- */

struct op {
    const char *name;
    struct row *row; /* NULL: the name goes */
    uint32_t name_len, seq;
};

static int op_cmp(const void *a, const void *b)
{
    const struct op *x = a, *y = b;
    int r = list_name_cmp(x->name, x->name_len, y->name, y->name_len);

    return r != 0 ? r : (x->seq > y->seq) - (x->seq < y->seq);
}

/* Sorts by name and keeps the last of each; returns how many are left. */
static size_t ops_settle(struct op *ops, size_t n)
{
    size_t kept = 0, i;

    for (i = 1; i < n && op_cmp(&ops[i - 1], &ops[i]) < 0; i++)
        ; /* an owner sends its list in order, so this is the usual case */
    if (i < n)
        qsort(ops, n, sizeof(*ops), op_cmp);
    for (i = 0; i < n; i++) {
        if (i + 1 < n &&
            list_name_cmp(ops[i].name, ops[i].name_len, ops[i + 1].name, ops[i + 1].name_len) == 0)
            continue;
        ops[kept++] = ops[i];
    }
    return kept;
}

/* One chunk with the ops whose names fall into it. */
static int merge_chunk(struct builder *b, const struct chunk *chunk, const struct op *ops, size_t n,
                       bool *changed)
{
    size_t i = 0, o = 0;
    int r = 0;

    while (r == 0 && (i < chunk->n || o < n)) {
        struct row *row = i < chunk->n ? chunk->rows[i] : NULL;
        const struct op *op = o < n ? &ops[o] : NULL;
        int cmp = !op    ? -1
                  : !row ? 1
                         : list_name_cmp(row->name, row->name_len, op->name, op->name_len);
        struct row *keep = cmp < 0 ? row : op->row;

        if (cmp == 0 && keep && row_same(row, keep))
            keep = row;
        if (cmp <= 0)
            i++;
        if (cmp >= 0)
            o++;
        if (keep != (cmp <= 0 ? row : NULL))
            *changed = true;
        if (keep)
            r = builder_row(b, keep);
    }
    return r;
}

/* The last chunk, not before from, that begins with name or below it: the one where name belongs.
 */
static size_t chunk_for(const struct list *list, size_t from, const struct op *op)
{
    size_t lo = from, hi = list->n_chunks;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        const struct row *first = list->spans[mid].chunk->rows[0];
        if (list_name_cmp(first->name, first->name_len, op->name, op->name_len) <= 0)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Chunks that are shared are not looked into: most of them are in no cache. */
static int apply_ops(struct builder *b, const struct list *base, const struct op *ops, size_t n,
                     bool *changed)
{
    static const struct chunk none = {.n = 0};
    const struct row *next;
    size_t c = 0, o = 0, end;
    int r = 0;

    if (base->n_chunks == 0)
        return merge_chunk(b, &none, ops, n, changed);
    while (r == 0 && c < base->n_chunks) {
        size_t touched = o < n ? chunk_for(base, c, &ops[o]) : base->n_chunks;
        for (; r == 0 && c < touched; c++)
            r = builder_chunk(b, base->spans[c].chunk, c + 1 == base->n_chunks);
        if (r < 0 || c == base->n_chunks)
            break;
        next = c + 1 < base->n_chunks ? base->spans[c + 1].chunk->rows[0] : NULL;
        for (end = o + 1; end < n; end++)
            if (next &&
                list_name_cmp(ops[end].name, ops[end].name_len, next->name, next->name_len) >= 0)
                break;
        r = merge_chunk(b, base->spans[c++].chunk, ops + o, end - o, changed);
        o = end;
    }
    return r;
}

static void opsp_free(struct op **ops) { free(*ops); }

int list_apply(struct list *base, struct row *const *puts, size_t n_puts,
               const char *const *removed, size_t n_removed, struct list **out_list)
{
    CLEANUP(builder_fini) struct builder b = {.list = NULL};
    CLEANUP(opsp_free) struct op *ops = NULL;
    size_t n = n_puts + n_removed;
    bool changed = false;
    int r;

    if (n == 0) {
        *out_list = list_ref(base);
        return 0;
    }
    ops = malloc(n * sizeof(*ops));
    if (!ops)
        return -ENOMEM;
    /* The removed come first, so that a put of the same name is the last and counts. */
    for (size_t i = 0; i < n_removed; i++)
        ops[i] = (struct op){removed[i], NULL, (uint32_t)strlen(removed[i]), (uint32_t)i};
    for (size_t i = 0, o = n_removed; i < n_puts; i++, o++)
        ops[o] = (struct op){puts[i]->name, puts[i], puts[i]->name_len, (uint32_t)o};
    n = ops_settle(ops, n);

    r = builder_init(&b, base->n_chunks + n / CHUNK_ROWS + 2);
    if (r == 0)
        r = apply_ops(&b, base, ops, n, &changed);
    if (r < 0)
        return r;
    if (!changed) {
        *out_list = list_ref(base);
        return 0;
    }
    return builder_finish(&b, out_list);
}

int list_splice(const struct list *left, const struct list *right, const char *name,
                size_t name_len, struct list **out_list)
{
    CLEANUP(builder_fini) struct builder b = {.list = NULL};
    struct place l = lower_bound(left, name, name_len), r = lower_bound(right, name, name_len);
    int e = builder_init(&b, left->n_chunks + right->n_chunks + 2);

    for (size_t c = 0; e == 0 && c < l.chunk; c++)
        e = builder_chunk(&b, left->spans[c].chunk, false);
    for (size_t i = 0; e == 0 && i < l.row; i++)
        e = builder_row(&b, left->spans[l.chunk].chunk->rows[i]);
    for (size_t c = r.chunk; e == 0 && c < right->n_chunks; c++) {
        struct chunk *chunk = right->spans[c].chunk;
        if (c > r.chunk || r.row == 0)
            e = builder_chunk(&b, chunk, c + 1 == right->n_chunks);
        else
            for (size_t i = r.row; e == 0 && i < chunk->n; i++)
                e = builder_row(&b, chunk->rows[i]);
    }
    return e < 0 ? e : builder_finish(&b, out_list);
}

/* ---- Comparing ---- */

static int diff(const struct list *from, const struct list *to, bool objects,
                int (*visit)(void *ctx, struct row *before, struct row *after), void *ctx)
{
    struct list_iter f, t;
    int r = 0;

    list_iter_init(&f, from);
    list_iter_init(&t, to);
    if (from == to)
        return 0;
    while (r == 0 && (f.chunk < from->n_chunks || t.chunk < to->n_chunks)) {
        struct chunk *fc = f.chunk < from->n_chunks ? from->spans[f.chunk].chunk : NULL;
        struct chunk *tc = t.chunk < to->n_chunks ? to->spans[t.chunk].chunk : NULL;
        struct row *before, *after;
        int cmp;

        /* Both lists ascend, so both stand before a chunk that they share at the same time. */
        if (fc == tc && f.index == 0 && t.index == 0) {
            f.chunk++;
            t.chunk++;
            continue;
        }
        before = fc ? fc->rows[f.index] : NULL;
        after = tc ? tc->rows[t.index] : NULL;
        cmp = !before ? 1 : !after ? -1 : before == after ? 0 : row_cmp(before, after);
        if (cmp <= 0)
            list_iter_next(&f);
        if (cmp >= 0)
            list_iter_next(&t);
        if (cmp < 0)
            r = visit(ctx, before, NULL);
        else if (cmp > 0)
            r = visit(ctx, NULL, after);
        else if (before != after && (objects || !row_same(before, after)))
            r = visit(ctx, before, after);
    }
    return r;
}

int list_diff(const struct list *from, const struct list *to,
              int (*visit)(void *ctx, struct row *before, struct row *after), void *ctx)
{
    return diff(from, to, false, visit, ctx);
}

int list_diff_objects(const struct list *from, const struct list *to,
                      int (*visit)(void *ctx, struct row *before, struct row *after), void *ctx)
{
    return diff(from, to, true, visit, ctx);
}

int list_check(const struct list *list)
{
    const struct row *last = NULL;
    uint64_t digest = 0;
    size_t count = 0;

    for (size_t c = 0; c < list->n_chunks; c++) {
        const struct chunk *chunk = list->spans[c].chunk;
        if (list->spans[c].first != count || chunk->n == 0 || chunk->n > CHUNK_ROWS ||
            (chunk->n < CHUNK_LEAST && c + 1 < list->n_chunks))
            return -EUCLEAN;
        for (unsigned i = 0; i < chunk->n; i++) {
            const struct row *row = chunk->rows[i];
            if (last && row_cmp(last, row) >= 0)
                return -EUCLEAN;
            digest += row->hash;
            last = row;
        }
        count += chunk->n;
    }
    return count == list->count && digest == list->digest ? 0 : -EUCLEAN;
}
