/* measure - how long the way to a peer and back takes, and how long after its owner made it a
 * change is to be seen here. No clock of one node is compared with another's. What a peer says is
 * for the figures alone: nothing is decided by it, and nothing it says is taken for longer than a
 * minute.
 */
#ifndef NODE_MEASURE_H
#define NODE_MEASURE_H

#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>

struct link;
struct node;
struct sync_out;

struct measure {           /* of one session */
    uint64_t peer_clock;   /* as its last heartbeat had it; 0: none did */
    uint64_t peer_came_us; /* when that was */
    uint64_t rtt_us;       /* smoothed; 0: not known yet */
};

uint64_t measure_now_us(const struct node *n); /* 0: the port has no such clock */

void measure_beat_out(const struct node *n, const struct link *l, Meshd__V1__Heartbeat *beat);
void measure_beat_in(const struct node *n, struct link *l, const Meshd__V1__Heartbeat *beat);

/* A change of the own list was made by the call at hand, if version says so. */
void measure_change(const struct node *n, struct sync_out *o);
/* Of a part that is about to be sent, for Sync.age_us. */
uint64_t measure_age_us(const struct node *n, const struct sync_out *o);
/* The message at hand brought sync's changes into the maps. */
void measure_visible(struct node *n, const struct link *l, const Meshd__V1__Sync *sync);

#endif
