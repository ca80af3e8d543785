/* picture - see picture.h. */
#include "web/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/array.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "wire/json.h"

#define FLAGS (JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY)
#define TEXT_FIRST 65536u

bool picture_put(struct picture_text *text, const char *data, size_t len)
{
    if (array_room(&text->at, &text->cap, text->len + len, 1, TEXT_FIRST) < 0)
        return false;
    memcpy(text->at + text->len, data, len);
    text->len += len;
    return true;
}

static int dumped(const char *data, size_t len, void *ctx)
{
    return picture_put(ctx, data, len) ? 0 : -1;
}

bool picture_value(struct picture_text *text, const json_t *json)
{
    return json && json_dump_callback(json, dumped, text, FLAGS) == 0;
}

void picture_session(const uint8_t session_id[SESSION_ID_LEN], char out[PICTURE_SESSION_TEXT])
{
    for (size_t i = 0; i < PICTURE_SESSION_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", session_id[i]);
}

void picture_service_row(const struct snapshot_peer *peer, const char *self,
                         char link[PICTURE_SESSION_TEXT], Meshd__V1__ServiceRow *out)
{
    meshd__v1__service_row__init(out);
    out->ip = (char *)(peer ? peer->label : "local");
    out->peer_id = (char *)(peer ? peer->peer_id : self);
    out->connected = true;
    link[0] = '\0';
    out->link = link;
    if (!peer)
        return;
    out->connected = peer->state.connected;
    out->stale = peer->state.stale;
    out->last_seen = clock_unix_s(peer->state.last_seen_ms, clock_offset_ms());
    if (peer->state.link_id)
        picture_session(peer->state.session_id, link);
}

void picture_peer_row(const struct snapshot_peer *peer, Meshd__V1__PeerServicesRow *out)
{
    meshd__v1__peer_services_row__init(out);
    out->peer_ip = (char *)peer->label;
    out->peer_id = (char *)peer->peer_id;
    out->last_sync = peer->last_sync_s;
    out->connected = peer->state.connected;
    out->stale = peer->state.stale;
    out->draining = peer->state.draining;
    out->incarnation = peer->incarnation;
    out->version = peer->version;
    out->last_seen = clock_unix_s(peer->state.last_seen_ms, clock_offset_ms());
    out->services_total = (uint32_t)list_count(peer->list);
    out->digest = list_digest(peer->list);
}

json_t *picture_services_of(const struct snapshot_peer *peer, const char *self)
{
    Meshd__V1__ServiceRow row;
    char link[PICTURE_SESSION_TEXT];

    picture_service_row(peer, self, link, &row);
    return wire_json(&row.base);
}

json_t *picture_infos_of(const struct snapshot_peer *peer)
{
    Meshd__V1__PeerServiceInfo info = MESHD__V1__PEER_SERVICE_INFO__INIT;

    info.source_peer = (char *)peer->label;
    return wire_json(&info.base);
}

/* Names and backends are ASCII: canonical. */
static bool set(json_t *json, const char *key, const char *value, size_t len)
{
    return json_object_set_new_nocheck(json, key, json_stringn_nocheck(value, len)) == 0;
}

static bool set_states(json_t *json, const struct row *row, bool draining)
{
    draining = draining || row->flags & ROW_DRAINING;
    return json_object_set_new_nocheck(json, "healthy",
                                       json_boolean(!(row->flags & ROW_UNHEALTHY))) == 0 &&
           json_object_set_new_nocheck(json, "draining", json_boolean(draining)) == 0;
}

bool picture_service(struct picture_text *text, json_t *common, const struct snapshot_peer *peer,
                     const struct row *row)
{
    return set_states(common, row, peer && peer->state.draining) &&
           set(common, "key", row->key, row->key_len) &&
           set(common, "name", row->name, row->name_len) &&
           set(common, "backend_addr", row->backend, row->backend_len) &&
           picture_value(text, common);
}

bool picture_info(struct picture_text *text, json_t *common, const struct row *row)
{
    return set_states(common, row, false) && set(common, "name", row->name, row->name_len) &&
           set(common, "backend_addr", row->backend, row->backend_len) &&
           picture_value(text, common);
}

static json_t *peer_of(const struct snapshot_peer *peer)
{
    Meshd__V1__PeerServicesRow row;

    picture_peer_row(peer, &row);
    return wire_json(&row.base);
}

/* The fields before `services`, or those behind it. */
static bool put_half(struct picture_text *text, const struct snapshot_peer *peer, bool first)
{
    CLEANUP(json_decrefp) json_t *json = peer_of(peer);
    bool before = true, ok = json && (!first || picture_put(text, "{", 1));
    const char *key;
    json_t *value;

    json_object_foreach(json, key, value)
    {
        bool is_services = strcmp(key, "services") == 0;

        if (ok && first && before) {
            ok = picture_put(text, "\"", 1) && picture_put(text, key, strlen(key)) &&
                 picture_put(text, "\":", 2) &&
                 (is_services ? picture_put(text, "[", 1)
                              : picture_value(text, value) && picture_put(text, ",", 1));
        } else if (ok && !first && !before) {
            ok = picture_put(text, ",\"", 2) && picture_put(text, key, strlen(key)) &&
                 picture_put(text, "\":", 2) && picture_value(text, value);
        }
        before = before && !is_services;
    }
    return ok;
}

bool picture_peer_begin(struct picture_text *text, const struct snapshot_peer *peer)
{
    return put_half(text, peer, true);
}

bool picture_peer_end(struct picture_text *text, const struct snapshot_peer *peer)
{
    return picture_put(text, "]", 1) && put_half(text, peer, false) && picture_put(text, "}", 1);
}
