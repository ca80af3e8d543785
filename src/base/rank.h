/* rank - the order in which the owners of one name are chosen, the same wherever it is asked for.
 *
 * The lower rank comes first; among equals the lower tie, which spreads names over owners and is
 * the same on every node and in every program. Pure. */
#ifndef BASE_RANK_H
#define BASE_RANK_H

#include <stdbool.h>
#include <stdint.h>

enum rank { /* in each of the first three pairs the local one comes first */
            RANK_GOOD = 0,
            RANK_DRAINING = 2,
            RANK_UNHEALTHY =
                4, /* an unhealthy backend is not chosen while another is there, but still tried */
            RANK_UNHEALTHY_DRAINING = 6,
            RANK_NOT_CONNECTED = 8, /* yet */
            RANK_STALE = 9,
};

/* healthy is of the entry; draining of the entry, or of its owner, which is about to leave. */
static inline unsigned rank_of(bool local, bool connected, bool stale, bool healthy, bool draining)
{
    unsigned remote = local ? 0 : 1;

    if (!local && stale)
        return RANK_STALE;
    if (!local && !connected)
        return RANK_NOT_CONNECTED;
    if (!healthy)
        return (draining ? RANK_UNHEALTHY_DRAINING : RANK_UNHEALTHY) + remote;
    return (draining ? RANK_DRAINING : RANK_GOOD) + remote;
}

/* Of hash_entry (base/hash.h) of the name and of the owner's peer id, each with an empty backend.
 */
static inline uint64_t rank_tie(uint64_t name_hash, uint64_t peer_hash)
{
    uint64_t h = name_hash ^ peer_hash;

    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdULL;
    return h ^ (h >> 33);
}

#endif
