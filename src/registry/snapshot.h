/* snapshot - both maps as they were at one (epoch, revision), for readers that take their time.
 *
 * Unchanging and reference-counted; any thread. It holds references to the owners' lists, so it
 * costs a few words per peer however many services there are.
 */
#ifndef REGISTRY_SNAPSHOT_H
#define REGISTRY_SNAPSHOT_H

#include "registry/registry.h"

struct snapshot_peer {
    char label[LIMIT_LABEL_TEXT], ip[LIMIT_IP_TEXT], peer_id[LIMIT_PEER_ID + 1];
    struct list *list;
    struct registry_state state;
    uint64_t incarnation, version, last_sync_s;
};

struct snapshot {
    uint64_t epoch, revision;
    size_t services_total; /* local and of all peers */
    struct list *local;
    uint64_t local_version;
    size_t n_peers;
    struct snapshot_peer *peers; /* by address (v4 before v6, numerically), then peer id */
    unsigned refs;               /* atomic */
};

struct snapshot *snapshot_ref(struct snapshot *snap);
void snapshot_unref(struct snapshot *snap); /* accepts NULL */

#endif
