/* neighbours - what each peer has links with, as it says itself, while somebody looks at the mesh.
 *
 * Heartbeats say that somebody does, and each is answered with Neighbours. What a peer says is
 * shown and nothing is decided by it.
 */
#ifndef NODE_NEIGHBOURS_H
#define NODE_NEIGHBOURS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>

struct link;
struct node;
struct node_neighbour;

struct neighbours {            /* of one link */
    struct node_neighbour *at; /* of the peer; NULL: it has told of none */
    size_t n;
    uint32_t total;
    uint64_t came_ms;
    uint64_t told_ms; /* ours; 0: never */
};

void neighbours_look(struct node *n);
bool neighbours_wanted(const struct node *n);
void neighbours_tell(struct node *n, struct link *l);
/* False: no honest peer says that. */
bool neighbours_on_message(struct node *n, struct link *l, const Meshd__V1__Neighbours *said);
void neighbours_tick(struct node *n, struct link *l); /* forgets what is out of date */
void neighbours_forget(struct link *l);

#endif
