/* rows - each part behind its length; an owner's share is copied as it is. */
#include "wire/rows.h"

#include <assert.h>
#include <string.h>
#include "wire/encode.h"

#define EVENT_KIND_TAG 0x08u /* field 1, a varint */
#define HEAD_MAX 6u          /* a tag and a length below 2^35 */

enum { REPLY_SERVICES = 4, REPLY_PEER_SERVICES = 5 };
enum { SERVICE_KEY = 1, SERVICE_NAME = 2, SERVICE_BACKEND = 4 };
enum { SERVICE_HEALTHY = 9, SERVICE_DRAINING = 10 };
enum { PEER_SERVICES = 4 };
enum { REPLY_EVENTS = 5, EVENT_ROW = 2, EVENT_WHY = 3 };
enum { INFO_NAME = 1, INFO_BACKEND = 2, INFO_SOURCE = 3, INFO_HEALTHY = 4, INFO_DRAINING = 5 };

static bool has_room(const struct rows *rows, size_t len) { return rows->cap - rows->len >= len; }

bool rows_share(struct rows_shared *out, const ProtobufCMessage *common)
{
    size_t len = protobuf_c_message_get_packed_size(common);

    if (len > sizeof out->data)
        return false;
    out->len = protobuf_c_message_pack(common, out->data);
    return true;
}

static uint8_t *put_true(uint8_t *at, unsigned number)
{
    return encode_varint(encode_tag(at, number, ENCODE_VARINT), 1);
}

static size_t state_len(const struct rows_row *row)
{
    return 2 * ((size_t)row->healthy + row->draining);
}

static uint8_t *put_state(uint8_t *at, unsigned healthy, unsigned draining,
                          const struct rows_row *row)
{
    if (row->healthy)
        at = put_true(at, healthy);
    if (row->draining)
        at = put_true(at, draining);
    return at;
}

static size_t service_len(const struct rows_shared *owner, const struct rows_row *row)
{
    return encode_part_len(row->key_len) + encode_part_len(row->name_len) +
           encode_part_len(row->backend_len) + state_len(row) + owner->len;
}

/* One ServiceRow of len bytes, with its tag and length. */
static uint8_t *put_service(uint8_t *at, unsigned number, size_t len,
                            const struct rows_shared *owner, const struct rows_row *row)
{
    at = encode_part_head(at, number, len);
    at = encode_part(at, SERVICE_KEY, row->key, row->key_len);
    at = encode_part(at, SERVICE_NAME, row->key, row->name_len);
    at = encode_part(at, SERVICE_BACKEND, row->backend, row->backend_len);
    at = put_state(at, SERVICE_HEALTHY, SERVICE_DRAINING, row);
    memcpy(at, owner->data, owner->len);
    return at + owner->len;
}

bool rows_put_service(struct rows *rows, const struct rows_shared *owner,
                      const struct rows_row *row)
{
    size_t len = service_len(owner, row);
    uint8_t *at = rows->data + rows->len;

    if (!has_room(rows, len + HEAD_MAX))
        return false;
    at = put_service(at, REPLY_SERVICES, len, owner, row);
    rows->len = (size_t)(at - rows->data);
    return true;
}

bool rows_put_event(struct rows *rows, const struct rows_shared *owner, Meshd__V1__WatchKind kind,
                    const char *why, const struct rows_row *row)
{
    size_t row_len = service_len(owner, row), why_len = strlen(why);
    size_t len = 2 + encode_part_len(row_len) + (why_len ? encode_part_len(why_len) : 0);
    uint8_t *at = rows->data + rows->len;

    if (!has_room(rows, len + HEAD_MAX))
        return false;
    at = encode_part_head(at, REPLY_EVENTS, len);
    *at++ = EVENT_KIND_TAG;
    *at++ = (uint8_t)kind;
    at = put_service(at, EVENT_ROW, row_len, owner, row);
    if (why_len)
        at = encode_part(at, EVENT_WHY, why, why_len);
    rows->len = (size_t)(at - rows->data);
    return true;
}

bool rows_peer_begin(struct rows *rows, const struct rows_shared *peer, size_t *out_place)
{
    if (!has_room(rows, HEAD_MAX + peer->len))
        return false;
    *out_place = rows->len;
    rows->len += HEAD_MAX + peer->len; /* closed up by rows_peer_end */
    return true;
}

bool rows_put_info(struct rows *rows, const struct rows_row *row)
{
    const char *label = row->key + row->name_len + 1;
    size_t label_len = row->key_len - row->name_len - 1;
    size_t len = encode_part_len(row->name_len) + encode_part_len(row->backend_len) +
                 encode_part_len(label_len) + state_len(row);
    uint8_t *at = rows->data + rows->len;

    if (!has_room(rows, len + HEAD_MAX))
        return false;
    at = encode_part_head(at, PEER_SERVICES, len);
    at = encode_part(at, INFO_NAME, row->key, row->name_len);
    at = encode_part(at, INFO_BACKEND, row->backend, row->backend_len);
    at = encode_part(at, INFO_SOURCE, label, label_len);
    at = put_state(at, INFO_HEALTHY, INFO_DRAINING, row);
    rows->len = (size_t)(at - rows->data);
    return true;
}

void rows_peer_end(struct rows *rows, const struct rows_shared *peer, size_t place)
{
    size_t infos_at = place + HEAD_MAX + peer->len, infos_len = rows->len - infos_at;
    uint8_t *at = encode_part_head(rows->data + place, REPLY_PEER_SERVICES, peer->len + infos_len);

    assert((size_t)(at - rows->data) <= place + HEAD_MAX);
    memcpy(at, peer->data, peer->len);
    at += peer->len;
    memmove(at, rows->data + infos_at, infos_len);
    rows->len = (size_t)(at - rows->data) + infos_len;
}

void rows_attach(struct rows *rows, Meshd__V1__IntrospectReply *reply)
{
    if (!rows->len)
        return;
    /* protobuf-c writes an unknown field as its tag and then its data, whatever that is: the first
     * row's tag is taken off, the rest follows as it stands. */
    rows->field = (ProtobufCMessageUnknownField){.tag = rows->data[0] >> 3,
                                                 .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
                                                 .len = rows->len - 1,
                                                 .data = rows->data + 1};
    reply->base.n_unknown_fields = 1;
    reply->base.unknown_fields = &rows->field;
}
