/* index - a hash table over uthash in which an addition cannot fail.
 *
 * Room is made first, by index_reserve, the only call that allocates. The table is split into
 * shards that grow one by one, so that no growth touches more than a shard's nodes while readers
 * wait. Nodes are embedded and borrowed. The caller locks: index_find may run beside other
 * index_find.
 */
#ifndef REGISTRY_INDEX_H
#define REGISTRY_INDEX_H

#include <stdbool.h>
#include <stddef.h>

#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, len, hashv) ((hashv) = hash_keyed((key), (len)))
#include <uthash.h>
#include "base/hash.h"

struct index_node {
    UT_hash_handle hh; /* key, keylen and hashv are set by index_node_init */
};

struct index_shard;

struct index {
    struct index_shard *shards;
    unsigned bits; /* 2^bits shards */
    size_t count;
};

int index_init(struct index *index, unsigned bits); /* 1 to 16 bits; 0 or -ENOMEM */
void index_fini(struct index *index); /* accepts a zeroed one; nodes are not touched */

/* key is borrowed while the node lives. */
void index_node_init(struct index_node *node, const char *key, size_t len);

size_t index_shards(const struct index *index);
size_t index_shard_of(const struct index *index, const struct index_node *node);

/* Whether one shard has to grow before it can take more nodes, and the growing: 0 or -ENOMEM. */
bool index_must_grow(const struct index *index, size_t shard, size_t more);
int index_reserve(struct index *index, size_t shard, size_t more);

/* Memory that index_add or index_remove of the node will touch begins its way into the cache: first
 * what leads to its neighbours, some nodes later (next) the neighbours. For batches, where waiting
 * for memory is most of the work. */
void index_warm(const struct index *index, const struct index_node *node);
void index_warm_next(const struct index *index, const struct index_node *node);

void index_add(struct index *index, struct index_node *node); /* room was reserved */
void index_remove(struct index *index, struct index_node *node);
struct index_node *index_find(const struct index *index, const char *key, size_t len,
                              unsigned hash);

#endif
