/* seen - a table of the backends that failed their last client.
 *
 * What comes of one backend is told in the order in which it is noted here: under the lock, which
 * ops.backend_seen may be called with, as it does not block.
 */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/seen.h"

#include <errno.h>
#include <string.h>
#include <uthash.h>
#include "base/hash.h"
#include "base/lock.h"

/* A client, or a peer, may leave a dial next to no time: then its end says nothing of the backend.
 * A second is what a lost SYN costs (RFC 6298 2). */
#define FAIR_MS 1000u
#define KEY_MAX (LIMIT_NAME + 1 + LIMIT_BACKEND)

struct failed {
    UT_hash_handle hh; /* a table of uthash is in the order of what was added */
    char key[];        /* name, NUL, backend */
};

struct seen {
    uint64_t most;
    atomic_size_t n; /* of by_key */
    struct mutex lock;
    struct failed *by_key; /* with lock held */
};

int seen_new(const struct limits *limits, struct seen **out_seen)
{
    struct seen *seen = calloc(1, sizeof(*seen));

    if (!seen)
        return -ENOMEM;
    /* Who fails now is a service of now, or was one; more than that are never needed. */
    seen->most = limits->services_per_peer;
    mutex_init(&seen->lock);
    *out_seen = seen;
    return 0;
}

static void forget_locked(struct seen *seen, struct failed *failed) REQUIRES(seen->lock)
{
    HASH_DEL(seen->by_key, failed);
    atomic_fetch_sub(&seen->n, 1);
    free(failed);
}

void seen_free(struct seen *seen)
{
    if (!seen)
        return;
    mutex_lock(&seen->lock);
    while (seen->by_key)
        forget_locked(seen, seen->by_key);
    mutex_unlock(&seen->lock);
    mutex_fini(&seen->lock);
    free(seen);
}

/* Without memory the next failure is remembered. */
static void remember_locked(struct seen *seen, const char *key, size_t len) REQUIRES(seen->lock)
{
    struct failed *failed;

    if (atomic_load(&seen->n) >= seen->most)
        forget_locked(seen, seen->by_key); /* the oldest */
    failed = calloc(1, sizeof(*failed) + len);
    if (!failed)
        return;
    memcpy(failed->key, key, len);
    HASH_ADD_KEYPTR(hh, seen->by_key, failed->key, len, failed);
    if (failed->hh.tbl)
        atomic_fetch_add(&seen->n, 1);
    else
        free(failed);
}

/* True: it is to be told. */
static bool note_locked(struct seen *seen, const char *key, size_t len, bool well)
    REQUIRES(seen->lock)
{
    struct failed *failed;

    HASH_FIND(hh, seen->by_key, key, len, failed);
    if (!failed && well)
        return false;
    if (failed)
        forget_locked(seen, failed);
    if (!well)
        remember_locked(seen, key, len);
    return true;
}

/* Whether a dial that ended so shows how the backend is. */
static bool says_something(const struct forward *forward, uint32_t ms, int error)
{
    uint32_t fair_ms = forward->dial_ms < FAIR_MS ? forward->dial_ms : FAIR_MS;

    switch (-error) {
    case 0:
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENOENT: /* it does not resolve */
        return true;
    case ETIMEDOUT:
        return ms >= fair_ms;
    default:
        return false; /* this node's own want: of memory, descriptors, ports ... */
    }
}

void seen_dialled(struct forward *forward, const char *name, const char *backend, uint32_t ms,
                  int error)
{
    struct seen *seen = forward->seen;
    size_t name_len = strlen(name), len = name_len + 1 + strlen(backend);
    char key[KEY_MAX];

    if (!forward->ops.backend_seen || (error == 0 && atomic_load(&seen->n) == 0) ||
        !says_something(forward, ms, error) || len > sizeof(key))
        return;
    memcpy(key, name, name_len + 1);
    memcpy(key + name_len + 1, backend, len - name_len - 1);
    mutex_lock(&seen->lock);
    if (note_locked(seen, key, len, error == 0))
        forward->ops.backend_seen(forward->ops.ctx, name, backend, error);
    mutex_unlock(&seen->lock);
}
