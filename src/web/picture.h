/* picture - rows of both maps, as messages of mesh.proto and as JSON, as wire_json and jansson
 * would write it: with the names of mesh.proto, in the order of its fields.
 *
 * What an owner's rows have in common is one object, in which the rest is set for each row. Pure.
 */
#ifndef WEB_PICTURE_H
#define WEB_PICTURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <meshd/v1/mesh.pb-c.h>
#include "registry/snapshot.h"
#include "wire/frame.h"

struct picture_text { /* grows as it is written to; free(at) */
    char *at;
    size_t len, cap;
};
/* False: no memory. */
bool picture_put(struct picture_text *text, const char *data, size_t len);
bool picture_value(struct picture_text *text, const json_t *json);

/* The session of an owner's link, as rows, links and candidates show it: the first 8 of its 32 hex
 * digits. Whoever knew all of them could claim DATA connections of it where there is no TLS. */
#define PICTURE_SESSION_BYTES 4u
#define PICTURE_SESSION_TEXT (2 * PICTURE_SESSION_BYTES + 1)
void picture_session(const uint8_t session_id[SESSION_ID_LEN], char out[PICTURE_SESSION_TEXT]);

/* What a row of services has of its owner (peer NULL: the node itself, whose id is self), and a row
 * of peer_services without its services, as messages; for who packs them, too. Texts are borrowed
 * from the arguments, `link` (filled here) among them. */
void picture_service_row(const struct snapshot_peer *peer, const char *self,
                         char link[PICTURE_SESSION_TEXT], Meshd__V1__ServiceRow *out);
void picture_peer_row(const struct snapshot_peer *peer, Meshd__V1__PeerServicesRow *out);

/* The rows of one owner; peer NULL: the node's own, whose id is self. NULL: no memory. */
json_t *picture_services_of(const struct snapshot_peer *peer, const char *self);
json_t *picture_infos_of(const struct snapshot_peer *peer);
/* One of them; peer and common are that owner's. */
bool picture_service(struct picture_text *text, json_t *common, const struct snapshot_peer *peer,
                     const struct row *row);
bool picture_info(struct picture_text *text, json_t *common, const struct row *row);

/* One row of peer_services, up to the list of its services and from there on. */
bool picture_peer_begin(struct picture_text *text, const struct snapshot_peer *peer);
bool picture_peer_end(struct picture_text *text, const struct snapshot_peer *peer);

#endif
