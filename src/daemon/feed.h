/* feed - from snapshots to what watchers are told: a thread that compares each with the one before.
 *
 * A change costs what it changed: lists share what did not change, and are compared by what they do
 * not share. When changes come faster than they can be compared, those in between are told as one.
 * While nobody watches, nothing is compared: only the newest picture is handed on.
 * The pictures that the gate holds are snapshots; feed_watch_ops reads them for it.
 */
#ifndef DAEMON_FEED_H
#define DAEMON_FEED_H

#include "gate/watch.h"
#include "registry/snapshot.h"

struct feed;

/* What the gate asks, for gate_settings; borrowed for as long as the gate lives. */
struct feed_source {
    const char *peer_id; /* the node's own */
    struct registry *registry;
    struct policy_keeper *policy; /* NULL: everybody may watch */
};
struct gate_watch_ops feed_watch_ops(const struct feed_source *source);

/* gate is told by the feed's thread from now on, which must end before the gate is freed. */
int feed_start(struct gate *gate, const char *peer_id, const struct limits *limits,
               struct feed **out_feed);
/* Takes snap; any thread. In the order of revisions. */
void feed_show(struct feed *feed, struct snapshot *snap);
void feed_set_limits(struct feed *feed, const struct limits *limits); /* copied; any thread */
void feed_stop(struct feed *feed);                                    /* accepts NULL */

#endif
