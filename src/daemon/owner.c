/* owner - a ServiceRow without what differs from row to row, and that; a session in digits. */
#include "daemon/owner.h"

#include <stdio.h>
#include <stdlib.h>

void owner_session(const uint8_t session_id[SESSION_ID_LEN], char out[OWNER_SESSION_TEXT])
{
    for (size_t i = 0; i < OWNER_SESSION_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", session_id[i]);
}

void owner_share(const struct snapshot_peer *peer, const char *self, bool with_link,
                 struct rows_shared *out)
{
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT;
    char link[OWNER_SESSION_TEXT] = "";

    row.ip = (char *)(peer ? peer->label : "local");
    row.peer_id = (char *)(peer ? peer->peer_id : self);
    row.connected = true;
    if (peer) {
        row.connected = peer->state.connected;
        row.stale = peer->state.stale;
        row.last_seen = peer->state.last_seen_s;
        if (with_link && peer->state.link_id)
            owner_session(peer->state.session_id, link);
    }
    row.link = link;
    if (!rows_share(out, &row.base))
        abort(); /* its parts are bounded, far below ROWS_SHARED_MAX */
}

struct rows_row owner_row(const struct row *row, bool draining)
{
    return (struct rows_row){.key = row->key,
                             .key_len = row->key_len,
                             .name_len = row->name_len,
                             .backend = row->backend,
                             .backend_len = row->backend_len,
                             .healthy = !(row->flags & ROW_UNHEALTHY),
                             .draining = draining || row->flags & ROW_DRAINING};
}
