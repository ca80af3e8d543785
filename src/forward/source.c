/* source - addresses by hash, in shards with a lock each, so that workers seldom meet. */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/source.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>
#include "base/hash.h"
#include "base/origin.h"
#include "base/lock.h"

#define SHARD_BITS 4u /* the highest of the hash: uthash takes the lowest */
#define N_SHARDS (1u << SHARD_BITS)

struct source {
    UT_hash_handle hh;
    struct in6_addr ip;
    uint64_t clients, unrouted;
};

struct shard {
    struct mutex lock;
    struct source *by_ip; /* only with lock held */
};
struct sources {
    const struct limits *limits;
    struct shard shards[N_SHARDS];
};

int sources_new(const struct limits *limits, struct sources **out_sources)
{
    struct sources *sources = calloc(1, sizeof(*sources));

    if (!sources)
        return -ENOMEM;
    sources->limits = limits;
    for (size_t i = 0; i < N_SHARDS; i++)
        mutex_init(&sources->shards[i].lock);
    *out_sources = sources;
    return 0;
}

static void forget_locked(struct shard *shard, struct source *source) REQUIRES(shard->lock)
{
    HASH_DEL(shard->by_ip, source);
    free(source);
}

void sources_free(struct sources *sources)
{
    for (size_t i = 0; sources && i < N_SHARDS; i++) {
        struct shard *shard = &sources->shards[i];
        struct source *source, *next;

        mutex_lock(&shard->lock);
        HASH_ITER(hh, shard->by_ip, source, next)
        forget_locked(shard, source);
        mutex_unlock(&shard->lock);
        mutex_fini(&shard->lock);
    }
    free(sources);
}

static struct shard *shard_of(struct sources *sources, unsigned hash)
{
    return &sources->shards[hash >> (32 - SHARD_BITS)];
}

static struct source *find_locked(struct shard *shard, const struct in6_addr *ip, unsigned hash)
    REQUIRES(shard->lock)
{
    struct source *source;

    HASH_FIND_BYHASHVALUE(hh, shard->by_ip, ip, sizeof(*ip), hash, source);
    return source;
}

static struct source *get_locked(struct shard *shard, const struct in6_addr *ip, unsigned hash)
    REQUIRES(shard->lock)
{
    struct source *source = find_locked(shard, ip, hash);

    if (source)
        return source;
    source = calloc(1, sizeof(*source));
    if (!source)
        return NULL;
    source->ip = *ip;
    HASH_ADD_BYHASHVALUE(hh, shard->by_ip, ip, sizeof(*ip), hash, source);
    if (!source->hh.tbl) {
        free(source);
        return NULL;
    }
    return source;
}

bool source_enter(struct sources *sources, const struct in6_addr *ip)
{
    const struct in6_addr key = origin_of(ip);
    unsigned hash = hash_keyed(&key, sizeof(key));
    struct shard *shard = shard_of(sources, hash);
    struct source *source;
    bool enters;

    mutex_lock(&shard->lock);
    source = get_locked(shard, &key, hash);
    enters = source && source->clients < sources->limits->ingress_per_source &&
             source->unrouted < sources->limits->ingress_unrouted_per_source;
    if (enters) {
        source->clients++;
        source->unrouted++;
    }
    mutex_unlock(&shard->lock);
    return enters;
}

void source_routed(struct sources *sources, const struct in6_addr *ip)
{
    const struct in6_addr key = origin_of(ip);
    unsigned hash = hash_keyed(&key, sizeof(key));
    struct shard *shard = shard_of(sources, hash);

    mutex_lock(&shard->lock);
    find_locked(shard, &key, hash)->unrouted--;
    mutex_unlock(&shard->lock);
}

void source_leave(struct sources *sources, const struct in6_addr *ip, bool was_routed)
{
    const struct in6_addr key = origin_of(ip);
    unsigned hash = hash_keyed(&key, sizeof(key));
    struct shard *shard = shard_of(sources, hash);
    struct source *source;

    mutex_lock(&shard->lock);
    source = find_locked(shard, &key, hash);
    source->unrouted -= !was_routed;
    if (--source->clients == 0)
        forget_locked(shard, source);
    mutex_unlock(&shard->lock);
}

void source_largest(struct sources *sources, uint64_t *out_clients, uint64_t *out_unrouted)
{
    uint64_t clients = 0, unrouted = 0;

    for (size_t i = 0; i < N_SHARDS; i++) {
        struct shard *shard = &sources->shards[i];

        mutex_lock(&shard->lock);
        for (const struct source *source = shard->by_ip; source; source = source->hh.next) {
            if (source->clients > clients)
                clients = source->clients;
            if (source->unrouted > unrouted)
                unrouted = source->unrouted;
        }
        mutex_unlock(&shard->lock);
    }
    *out_clients = clients;
    *out_unrouted = unrouted;
}
