/* index - see index.h.
 *
 * uthash frees its table with the last item and doubles it when an addition finds a long chain. So
 * each shard keeps one node of its own (the table stays), with uthash's own growth switched off
 * (an addition allocates nothing); index_reserve doubles the buckets instead.
 */
#include "registry/index.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define NODES_PER_BUCKET 2 /* more cost a lookup cache misses, fewer cost 16 bytes each */

struct index_shard {
    struct index_node *head; /* NULL, or &first: the shard's own node is the oldest */
    struct index_node first; /* under the empty key, which nobody uses */
};

int index_init(struct index *index, unsigned bits)
{
    assert(bits >= 1 && bits <= 16);
    index->shards = calloc((size_t)1 << bits, sizeof(*index->shards));
    if (!index->shards)
        return -ENOMEM;
    index->bits = bits;
    index->count = 0;
    return 0;
}

void index_fini(struct index *index)
{
    for (size_t i = 0; index->shards && i < index_shards(index); i++) {
        struct index_shard *shard = &index->shards[i];
        if (shard->head)
            HASH_CLEAR(hh, shard->head);
    }
    free(index->shards);
    index->shards = NULL;
    index->count = 0;
}

void index_node_init(struct index_node *node, const char *key, size_t len)
{
    node->hh.key = key;
    node->hh.keylen = (unsigned)len;
    node->hh.hashv = hash_keyed(key, len);
}

size_t index_shards(const struct index *index) { return (size_t)1 << index->bits; }

/* The upper bits choose the shard, because uthash chooses the bucket by the lower ones. */
static struct index_shard *shard_of(const struct index *index, unsigned hash)
{
    return &index->shards[hash >> (32 - index->bits)];
}

size_t index_shard_of(const struct index *index, const struct index_node *node)
{
    return (size_t)(shard_of(index, node->hh.hashv) - index->shards);
}

bool index_must_grow(const struct index *index, size_t shard, size_t more)
{
    const struct index_node *head = index->shards[shard].head;

    if (!head)
        return more > 0;
    return head->hh.tbl->num_items + more > (size_t)head->hh.tbl->num_buckets * NODES_PER_BUCKET;
}

int index_reserve(struct index *index, size_t shard, size_t more)
{
    struct index_shard *s = &index->shards[shard];
    int oomed = 0;

    if (!s->head && more > 0) {
        HASH_ADD_KEYPTR_BYHASHVALUE(hh, s->head, "", 0, 0, &s->first);
        if (!s->head)
            return -ENOMEM;
        s->head->hh.tbl->noexpand = 1;
    }
    while (index_must_grow(index, shard, more)) {
        HASH_EXPAND_BUCKETS(hh, s->head->hh.tbl, oomed);
        if (oomed)
            return -ENOMEM;
        s->head->hh.tbl->noexpand = 1;
    }
    return 0;
}

static UT_hash_bucket *bucket_of(const struct index_shard *shard, const struct index_node *node)
{
    const UT_hash_table *table = shard->head->hh.tbl;

    return &table->buckets[node->hh.hashv & (table->num_buckets - 1)];
}

void index_warm(const struct index *index, const struct index_node *node)
{
    const struct index_shard *shard = shard_of(index, node->hh.hashv);

    if (!shard->head)
        return;
    __builtin_prefetch(bucket_of(shard, node), 1);
    __builtin_prefetch(shard->head->hh.tbl->tail, 1);
}

void index_warm_next(const struct index *index, const struct index_node *node)
{
    const struct index_shard *shard = shard_of(index, node->hh.hashv);

    if (shard->head)
        __builtin_prefetch(bucket_of(shard, node)->hh_head, 1);
}

void index_add(struct index *index, struct index_node *node)
{
    struct index_shard *shard = shard_of(index, node->hh.hashv);

    assert(shard->head);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, shard->head, node->hh.key, node->hh.keylen, node->hh.hashv,
                                node);
    index->count++;
}

void index_remove(struct index *index, struct index_node *node)
{
    struct index_shard *shard = shard_of(index, node->hh.hashv);

    HASH_DELETE(hh, shard->head, node);
    index->count--;
}

struct index_node *index_find(const struct index *index, const char *key, size_t len, unsigned hash)
{
    struct index_shard *shard = shard_of(index, hash);
    struct index_node *node;

    if (len == 0)
        return NULL; /* the shard's own node is nobody's */
    HASH_FIND_BYHASHVALUE(hh, shard->head, key, len, hash, node);
    return node;
}
