/* difference - what turned one snapshot into a later one: owner by owner, row by row.
 *
 * Costs what differs, and a look at each peer: lists share what did not change. Pure; any thread.
 */
#ifndef REGISTRY_DIFFERENCE_H
#define REGISTRY_DIFFERENCE_H

#include "registry/snapshot.h"

struct difference_owner {
    const struct snapshot_peer *before, *after; /* NULL: not there; both NULL: the node itself */
    const char *why; /* rows of it that go: "withdrawn"; of a peer that goes "left", "timed out" */
};

/* A return other than 0 stops, and is returned. */
struct difference_visit {
    void *ctx;
    /* Before the rows of each owner that came, went, or has another list or state now. */
    int (*owner)(void *ctx, const struct difference_owner *owner);
    /* (old, NULL) gone, (NULL, new) come, both: changed, the row itself or its owner's state. Peers
     * that went come first: a label, and so a key, may have passed to another peer. */
    int (*row)(void *ctx, struct row *before, struct row *after);
};

int snapshot_diff(const struct snapshot *from, const struct snapshot *to,
                  const struct difference_visit *visit);

#endif
