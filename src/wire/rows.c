/* rows - each part behind its length; an owner's share is copied as it is. */
#include "wire/rows.h"

#include <assert.h>
#include <string.h>
#include "wire/encode.h"

#define EVENT_KIND_TAG 0x08u /* field 1, a varint */
#define HEAD_MAX 6u          /* a tag and a length below 2^35 */

enum { REPLY_SERVICES = 4, REPLY_PEER_SERVICES = 5 };
enum { SERVICE_KEY = 1, SERVICE_NAME = 2, SERVICE_BACKEND = 4 };
enum { PEER_SERVICES = 4 };
enum { REPLY_EVENTS = 5, EVENT_ROW = 2, EVENT_WHY = 3 };
enum { INFO_NAME = 1, INFO_BACKEND = 2, INFO_SOURCE = 3 };

static bool has_room(const struct rows *rows, size_t len) { return rows->cap - rows->len >= len; }

bool rows_share(struct rows_shared *out, const ProtobufCMessage *common)
{
    size_t len = protobuf_c_message_get_packed_size(common);

    if (len > sizeof out->data)
        return false;
    out->len = protobuf_c_message_pack(common, out->data);
    return true;
}

/* One ServiceRow of len bytes, with its tag and length. */
static uint8_t *put_service(uint8_t *at, unsigned number, size_t len,
                            const struct rows_shared *owner, const char *key, size_t key_len,
                            size_t name_len, const char *backend, size_t backend_len)
{
    at = encode_part_head(at, number, len);
    at = encode_part(at, SERVICE_KEY, key, key_len);
    at = encode_part(at, SERVICE_NAME, key, name_len);
    at = encode_part(at, SERVICE_BACKEND, backend, backend_len);
    memcpy(at, owner->data, owner->len);
    return at + owner->len;
}

bool rows_put_service(struct rows *rows, const struct rows_shared *owner, const char *key,
                      size_t key_len, size_t name_len, const char *backend, size_t backend_len)
{
    size_t len = encode_part_len(key_len) + encode_part_len(name_len) +
                 encode_part_len(backend_len) + owner->len;
    uint8_t *at = rows->data + rows->len;

    if (!has_room(rows, len + HEAD_MAX))
        return false;
    at = put_service(at, REPLY_SERVICES, len, owner, key, key_len, name_len, backend, backend_len);
    rows->len = (size_t)(at - rows->data);
    return true;
}

bool rows_put_event(struct rows *rows, const struct rows_shared *owner, Meshd__V1__WatchKind kind,
                    const char *why, const char *key, size_t key_len, size_t name_len,
                    const char *backend, size_t backend_len)
{
    size_t row = encode_part_len(key_len) + encode_part_len(name_len) +
                 encode_part_len(backend_len) + owner->len;
    size_t why_len = strlen(why),
           len = 2 + encode_part_len(row) + (why_len ? encode_part_len(why_len) : 0);
    uint8_t *at = rows->data + rows->len;

    if (!has_room(rows, len + HEAD_MAX))
        return false;
    at = encode_part_head(at, REPLY_EVENTS, len);
    *at++ = EVENT_KIND_TAG;
    *at++ = (uint8_t)kind;
    at = put_service(at, EVENT_ROW, row, owner, key, key_len, name_len, backend, backend_len);
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

bool rows_put_info(struct rows *rows, const char *name, size_t name_len, const char *backend,
                   size_t backend_len, const char *label, size_t label_len)
{
    size_t len =
        encode_part_len(name_len) + encode_part_len(backend_len) + encode_part_len(label_len);
    uint8_t *at = rows->data + rows->len;

    if (!has_room(rows, len + HEAD_MAX))
        return false;
    at = encode_part_head(at, PEER_SERVICES, len);
    at = encode_part(at, INFO_NAME, name, name_len);
    at = encode_part(at, INFO_BACKEND, backend, backend_len);
    at = encode_part(at, INFO_SOURCE, label, label_len);
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
