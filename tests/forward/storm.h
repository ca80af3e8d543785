/* storm - clients of two nodes at random, while sessions, messages and DATA connections are lost.
 *
 * Every client has a number of its own, and sends and awaits bytes that follow from it. A backend
 * says to each connection what it heard; nobody may hear what is another's, and no number may be
 * heard twice. In a rig that was not started.
 */
#ifndef TESTS_FORWARD_STORM_H
#define TESTS_FORWARD_STORM_H

#include "forward/rig.h"

struct storm {
    struct rig *rig;
    unsigned seed;
    unsigned threads; /* of clients, each ... */
    unsigned rounds;  /* ... at least so many, and until there were so many ... */
    unsigned faults;
    /* What came of it. */
    atomic_uint whole, refused, broken;
};
/* Runs all of it, and ends the rig; nothing is left. */
void storm_run(struct storm *storm);

#endif
