/* ring - lists without an end, whose members need not know which one they are in. Pure. */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <stdbool.h>

struct ring {
    struct ring *prev, *next;
};

static inline void ring_init(struct ring *ring) { ring->prev = ring->next = ring; }

static inline bool ring_empty(const struct ring *ring) { return ring->next == ring; }

/* Out of whatever ring it is in; a member of none stays one. */
static inline void ring_drop(struct ring *member)
{
    member->prev->next = member->next;
    member->next->prev = member->prev;
    ring_init(member);
}

/* At the end. */
static inline void ring_push(struct ring *ring, struct ring *member)
{
    member->prev = ring->prev;
    member->next = ring;
    ring->prev->next = member;
    ring->prev = member;
}

/* All of from at the end of ring, in their order. */
static inline void ring_move(struct ring *ring, struct ring *from)
{
    if (ring_empty(from))
        return;
    from->next->prev = ring->prev;
    ring->prev->next = from->next;
    from->prev->next = ring;
    ring->prev = from->prev;
    ring_init(from);
}

#endif
