/* snapshot - taking the picture, and ending it. */
#include "registry/snapshot.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "registry/inside.h"

static void copy_peer(struct snapshot_peer *to, const struct peer *from)
{
    memcpy(to->label, from->label, from->label_len + 1);
    memcpy(to->ip, from->ip, strlen(from->ip) + 1);
    memcpy(to->peer_id, from->id, from->id_len + 1);
    to->list = list_ref(from->list);
    to->state = from->state;
    to->incarnation = from->incarnation;
    to->version = from->version;
    to->last_sync_s = from->last_sync_s;
}

static void fill_locked(struct registry *reg, struct snapshot *snap)
    REQUIRES_SHARED(reg->services_lock, reg->peer_services_lock)
{
    const struct peer *local = reg->peer_services.local;

    snap->epoch = reg->epoch;
    snap->revision = reg->both.revision;
    snap->services_total = reg->both.services;
    snap->local = list_ref(local->list);
    snap->local_version = local->version;
    snap->n_peers = reg->peer_services.n;
    for (size_t i = 0; i < snap->n_peers; i++)
        copy_peer(&snap->peers[i], reg->peer_services.sorted[i]);
    snap->refs = 1;
}

int registry_snapshot(struct registry *reg, struct snapshot **out_snapshot)
{
    struct snapshot *snap = NULL;
    size_t cap;

    rwlock_read(&reg->peer_services_lock);
    cap = reg->peer_services.n;
    rwlock_read_done(&reg->peer_services_lock);
    /* Allocating is for outside the locks, where more peers may come: then once more. */
    for (;;) {
        free(snap);
        snap = malloc(sizeof(*snap) + cap * sizeof(snap->peers[0]));
        if (!snap)
            return -ENOMEM;
        snap->peers = (struct snapshot_peer *)(snap + 1);
        registry_read(reg);
        if (reg->peer_services.n <= cap)
            break;
        cap = reg->peer_services.n;
        registry_read_done(reg);
    }
    fill_locked(reg, snap);
    registry_read_done(reg);
    count_up(&reg->reads.snapshots, 1);
    *out_snapshot = snap;
    return 0;
}

struct snapshot *snapshot_ref(struct snapshot *snap)
{
    __atomic_add_fetch(&snap->refs, 1, __ATOMIC_RELAXED);
    return snap;
}

void snapshot_unref(struct snapshot *snap)
{
    if (!snap || __atomic_sub_fetch(&snap->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    list_unref(snap->local);
    for (size_t i = 0; i < snap->n_peers; i++)
        list_unref(snap->peers[i].list);
    free(snap);
}
