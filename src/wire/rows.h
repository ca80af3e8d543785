/* rows - the rows of an introspection, encoded straight from their parts.
 *
 * A reply has rows by the ten thousand, of which most fields are the owner's and the same in all of
 * its rows. protobuf-c would walk descriptors field by field, twice; here an owner's share is
 * packed once and copied. The bytes are those of IntrospectReply's fields `services` and
 * `peer_services` (fields in another order within a row, which protobuf allows); rows_attach hands
 * them to the reply as one unknown field, which protobuf-c copies as it is.
 */
#ifndef WIRE_ROWS_H
#define WIRE_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>

#define ROWS_SHARED_MAX 512u /* packed: label, peer id, link, numbers and flags */

struct rows_row {    /* what a row has for itself; borrowed */
    const char *key; /* "name@source", its first name_len bytes the name */
    size_t key_len, name_len;
    const char *backend;
    size_t backend_len;
    bool healthy, draining;
};

struct rows { /* borrows data; nothing is written past cap */
    uint8_t *data;
    size_t len, cap;
    ProtobufCMessageUnknownField field; /* of rows_attach */
};

struct rows_shared { /* what all rows of one owner have in common, packed */
    uint8_t data[ROWS_SHARED_MAX];
    size_t len;
};

/* From a message without the fields that differ (those of struct rows_row; services). False: too
 * long. */
bool rows_share(struct rows_shared *out, const ProtobufCMessage *common);

/* One row of `services`. False: no room, and nothing was written. */
bool rows_put_service(struct rows *rows, const struct rows_shared *owner,
                      const struct rows_row *row);

/* One row of `peer_services`: begin, infos, end. The place that begin returns is end's; what begin
 * and end need of the room was set aside by begin. */
bool rows_peer_begin(struct rows *rows, const struct rows_shared *peer, size_t *out_place);
bool rows_put_info(struct rows *rows, const struct rows_row *row);
void rows_peer_end(struct rows *rows, const struct rows_shared *peer, size_t place);

/* One field `events` of a WatchReply: kind, the row, and why unless it is "". False as above. */
bool rows_put_event(struct rows *rows, const struct rows_shared *owner, Meshd__V1__WatchKind kind,
                    const char *why, const struct rows_row *row);

/* The rows become part of reply, which borrows them until it was packed. */
void rows_attach(struct rows *rows, Meshd__V1__IntrospectReply *reply);

#endif
