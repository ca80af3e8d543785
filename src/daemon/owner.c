/* owner - a ServiceRow without what differs from row to row, and that. */
#include "daemon/owner.h"

#include <stdlib.h>
#include "web/picture.h"

void owner_share(const struct snapshot_peer *peer, const char *self, bool with_link,
                 struct rows_shared *out)
{
    Meshd__V1__ServiceRow row;
    char link[PICTURE_SESSION_TEXT];

    picture_service_row(peer, self, link, &row);
    if (!with_link)
        link[0] = '\0';
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
