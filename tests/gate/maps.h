/* maps - a small world to be watched: numbered names, of which some are there, with a value each.
 * What the daemon's feed does with registries is done here with an array. */
#ifndef TESTS_GATE_MAPS_H
#define TESTS_GATE_MAPS_H

#include "gate/watch.h"

#define MAPS_NAMES 2000u

struct maps {
    struct gate *gate;
    uint64_t revision;
    uint32_t value[MAPS_NAMES], told[MAPS_NAMES]; /* 0: not there */
};

/* Their revision is that of the maps told last, unless maps_ahead is more. */
struct gate_watch_ops maps_ops(void);
extern _Atomic uint64_t maps_ahead;
extern _Atomic int maps_shut; /* 1: nobody may watch */
void maps_name(unsigned i,
               char out[16]); /* "s0007"; its owner is "p0" or "p1" at 192.0.2.0 or .1 */
/* One more revision; what differs from the one before is told, or with reset only a picture. */
void maps_tell(struct maps *maps, bool reset);
/* Changes one and tells. */
void maps_set(struct maps *maps, unsigned i, uint32_t value);
/* Pictures that somebody holds. */
unsigned maps_pictures(void);

#endif
