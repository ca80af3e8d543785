/* owner - a ServiceRow without what differs from row to row. */
#include "daemon/owner.h"

#include <stdio.h>
#include <stdlib.h>

static void hex(const uint8_t *in, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", in[i]);
}

void owner_share(const struct snapshot_peer *peer, const char *self, bool with_link,
                 struct rows_shared *out)
{
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT;
    char link[2 * sizeof(peer->state.session_id) + 1] = "";

    row.ip = (char *)(peer ? peer->label : "local");
    row.peer_id = (char *)(peer ? peer->peer_id : self);
    row.connected = row.healthy = true;
    if (peer) {
        row.connected = peer->state.connected;
        row.stale = peer->state.stale;
        row.draining = peer->state.draining;
        row.last_seen = peer->state.last_seen_s;
        if (with_link && peer->state.link_id)
            hex(peer->state.session_id, sizeof(peer->state.session_id), link);
    }
    row.link = link;
    if (!rows_share(out, &row.base))
        abort(); /* its parts are bounded, far below ROWS_SHARED_MAX */
}
