/* owner - what all rows of one owner have in common, packed once for introspections and watchers.
 */
#ifndef DAEMON_OWNER_H
#define DAEMON_OWNER_H

#include <stdbool.h>
#include "registry/snapshot.h"
#include "wire/frame.h"
#include "wire/rows.h"

/* peer NULL: the node itself, whose id is self. with_link: the session to forward on, too. */
void owner_share(const struct snapshot_peer *peer, const char *self, bool with_link,
                 struct rows_shared *out);
/* What a row of the owner has for itself, borrowed from it; draining: its owner is about to leave.
 */
struct rows_row owner_row(const struct row *row, bool draining);

#define OWNER_SESSION_BYTES 4u
#define OWNER_SESSION_TEXT (2 * OWNER_SESSION_BYTES + 1)
/* The session of an owner's link, as rows, links and candidates show it: the first 8 of its 32 hex
 * digits. Whoever knew all of them could claim DATA connections of it where there is no TLS. */
void owner_session(const uint8_t session_id[SESSION_ID_LEN], char out[OWNER_SESSION_TEXT]);

#endif
