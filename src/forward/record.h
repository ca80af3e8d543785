/* record - what a log is told of a client's way at its end, if anybody wants to know. Workers'
 * threads.
 */
#ifndef FORWARD_RECORD_H
#define FORWARD_RECORD_H

#include "forward/inside.h"
#include "forward/tuple.h"

/* How far a client has come: all NULL or 0, if it is not known (yet). What it points to is borrowed
 * from whoever says so. */
struct way {
    const char *name, *peer_id, *backend; /* peer_id NULL: one hop; backend: only of this node's */
    const uint8_t *id;                    /* of its Forward, the last one */
    unsigned tries;
    uint64_t named_us, joined_us; /* uv_hrtime / 1000 */
};

/* One that ends so: whether a record of it is wanted. */
bool record_wanted(const struct forward *forward, enum forward_end end);
/* The time as in struct way, or 0 if no record is wanted at all. */
uint64_t record_clock(const struct forward *forward);

struct record_end {
    enum forward_end end;
    const char *text; /* NULL, or as what forward_ends has: no more than that */
    uint64_t bytes_up, bytes_down;
    uint64_t ended_us; /* as in struct way; 0: now */
};
/* Of a client that began at begun_us, here (owner: at the other node), and has ended now; only if
 * it is wanted. */
void record_tell(struct forward *forward, const struct tuple *tuple, uint64_t begun_us, bool owner,
                 const struct way *way, const struct record_end *end);

#endif
