/* rank - the order in which the owners of one name are chosen, the same wherever it is asked for.
 *
 * The lower rank comes first; among equals the lower tie, which spreads names over owners and is
 * the same on every node and in every program. Pure. */
#ifndef BASE_RANK_H
#define BASE_RANK_H

#include <stdbool.h>
#include <stdint.h>

/* Local, connected, draining, not connected (yet), stale. */
static inline unsigned rank_of(bool local, bool connected, bool stale, bool draining)
{
    if (local)
        return 0;
    if (stale)
        return 4;
    if (!connected)
        return 3;
    return draining ? 2 : 1;
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
