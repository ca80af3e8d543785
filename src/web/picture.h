/* picture - rows of both maps as JSON, as wire_json and jansson would write them: with the names of
 * mesh.proto, in the order of its fields.
 *
 * What an owner's rows have in common is one object, in which the rest is set for each row. Pure.
 */
#ifndef WEB_PICTURE_H
#define WEB_PICTURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "registry/snapshot.h"

struct picture_text { /* grows as it is written to; free(at) */
    char *at;
    size_t len, cap;
};
/* False: no memory. */
bool picture_put(struct picture_text *text, const char *data, size_t len);
bool picture_value(struct picture_text *text, const json_t *json);

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
