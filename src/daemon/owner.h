/* owner - what all rows of one owner have in common, packed once for introspections and watchers.
 */
#ifndef DAEMON_OWNER_H
#define DAEMON_OWNER_H

#include <stdbool.h>
#include "registry/snapshot.h"
#include "wire/rows.h"

/* peer NULL: the node itself, whose id is self. with_link: the session to forward on, too. */
void owner_share(const struct snapshot_peer *peer, const char *self, bool with_link,
                 struct rows_shared *out);
/* What a row of the owner has for itself, borrowed from it; draining: its owner is about to leave.
 */
struct rows_row owner_row(const struct row *row, bool draining);

#endif
