/* picture - see picture.h. */
#include "web/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/cleanup.h"
#include "wire/json.h"

#define SESSION_BYTES 4u /* shown of a session id; whoever knew it whole could claim its data */
#define FLAGS (JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY)
#define TEXT_FIRST 65536u

bool picture_put(struct picture_text *text, const char *data, size_t len)
{
    if (text->len + len > text->cap) {
        size_t cap = text->cap ? text->cap : TEXT_FIRST;
        char *at;

        while (cap < text->len + len)
            cap *= 2;
        at = realloc(text->at, cap);
        if (!at)
            return false;
        text->at = at;
        text->cap = cap;
    }
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

json_t *picture_services_of(const struct snapshot_peer *peer, const char *self)
{
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT;
    char link[2 * SESSION_BYTES + 1] = "";

    row.ip = (char *)(peer ? peer->label : "local");
    row.peer_id = (char *)(peer ? peer->peer_id : self);
    row.connected = true;
    if (peer) {
        row.connected = peer->state.connected;
        row.stale = peer->state.stale;
        row.last_seen = peer->state.last_seen_s;
        for (size_t i = 0; peer->state.link_id && i < SESSION_BYTES; i++)
            snprintf(link + 2 * i, 3, "%02x", peer->state.session_id[i]);
    }
    row.link = link;
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
    Meshd__V1__PeerServicesRow row = MESHD__V1__PEER_SERVICES_ROW__INIT;

    row.peer_ip = (char *)peer->label;
    row.peer_id = (char *)peer->peer_id;
    row.last_sync = peer->last_sync_s;
    row.connected = peer->state.connected;
    row.stale = peer->state.stale;
    row.draining = peer->state.draining;
    row.incarnation = peer->incarnation;
    row.version = peer->version;
    row.last_seen = peer->state.last_seen_s;
    row.services_total = (uint32_t)list_count(peer->list);
    row.digest = list_digest(peer->list);
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
