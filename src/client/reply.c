/* reply - two passes: the first believes nothing and counts, the second fills. */
#include "client/reply.h"
#include <errno.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "client/bytes.h"
#include "client/list.h"
#include "wire/check.h"
#include "wire/frame.h"
#include "wire/routes.h"

#define FACTOR 10u /* as wire_unpack: bytes in memory for a byte of the wire */
#define SLACK 65536u

/* Fields of mesh.proto. */
enum { HEADER_STATUS = 1, HEADER_TEXT, HEADER_CALL_ID, HEADER_REASON, HEADER_MIN, HEADER_MAX };

int reply_split(const uint8_t *data, size_t len, struct reply *out)
{
    struct frame_parts parts;
    struct bytes_field field;
    struct bytes header;
    int r = frame_split(data, len, &parts);

    if (r < 0)
        return r;
    *out = (struct reply){.body = parts.body, .body_len = parts.body_len};
    out->answer.text = "";
    header = bytes_of(parts.header, parts.header_len);
    while (bytes_next(&header, &field)) {
        if (field.number == HEADER_TEXT && field.type == BYTES_TEXT) {
            out->answer.text = (const char *)field.inner.at;
            out->answer.text_len = bytes_len(&field.inner);
            if (!utf8_valid(field.inner.at, out->answer.text_len))
                return -EBADMSG;
            continue;
        }
        if (field.number >= HEADER_STATUS && field.number <= HEADER_MAX &&
            field.type != BYTES_VARINT)
            return -EBADMSG;
        switch (field.number) {
        case HEADER_STATUS:
            out->answer.status = (unsigned)field.value;
            break;
        case HEADER_CALL_ID:
            out->call_id = field.value;
            break;
        case HEADER_REASON:
            out->answer.reason = (unsigned)field.value;
            break;
        case HEADER_MIN:
            out->answer.wire_version_min = (unsigned)field.value;
            break;
        case HEADER_MAX:
            out->answer.wire_version_max = (unsigned)field.value;
            break;
        default:
            break;
        }
    }
    return header.bad ? -EBADMSG : 0;
}

/* ---- the first pass ---- */

/* A string field: well-formed, and how much it takes. */
static bool count_text(const struct bytes_field *field, size_t *text)
{
    if (field->type != BYTES_TEXT)
        return false;
    *text += bytes_len(&field->inner) + 1;
    return utf8_valid(field->inner.at, bytes_len(&field->inner));
}

static bool count_route(struct bytes route, struct list_size *size)
{
    struct bytes_field field;
    bool texts[ROUTE_BACKEND + 1] = {false};

    size->instances++;
    while (bytes_next(&route, &field)) {
        if (field.number > ROUTE_LAST_SEEN)
            continue;
        if (field.number > ROUTE_BACKEND) {
            if (field.type != BYTES_VARINT)
                return false;
            continue;
        }
        if (texts[field.number] || !count_text(&field, &size->text))
            return false; /* twice would take memory twice */
        texts[field.number] = true;
    }
    return !route.bad;
}

static bool count_result(struct bytes result, struct list_size *size, bool *bad_name)
{
    struct bytes_field field;
    bool named = false;

    size->groups++;
    while (bytes_next(&result, &field)) {
        switch (field.number) {
        case RESULT_NAME:
            if (named || !count_text(&field, &size->text))
                return false;
            named = true;
            break;
        case RESULT_ROUTES:
            if (field.type != BYTES_TEXT || !count_route(field.inner, size))
                return false;
            break;
        case RESULT_REASON:
            if (field.type != BYTES_VARINT)
                return false;
            *bad_name |= (uint32_t)field.value == MESHD__V1__REASON__REASON_BAD_NAME;
            break;
        default:
            break;
        }
    }
    return !result.bad;
}

/* ---- the second pass ---- */

static const char *text_of(struct mesh_list *list, const struct bytes *text)
{
    return list_text(list, (const char *)text->at, bytes_len(text));
}

static void fill_route(struct bytes route, const char *name, struct mesh_list *list)
{
    static const unsigned states[] = {
        [ROUTE_CONNECTED] = MESH_CONNECTED,
        [ROUTE_STALE] = MESH_STALE,
        [ROUTE_HEALTHY] = MESH_HEALTHY,
        [ROUTE_DRAINING] = MESH_DRAINING,
    };
    struct mesh_instance it = {.name = name, .node = "", .source = "", .address = ""};
    struct bytes_field field;

    while (bytes_next(&route, &field)) {
        switch (field.number) {
        case ROUTE_IP:
            it.source = text_of(list, &field.inner);
            break;
        case ROUTE_PEER_ID:
            it.node = text_of(list, &field.inner);
            break;
        case ROUTE_BACKEND:
            it.address = text_of(list, &field.inner);
            break;
        case ROUTE_CONNECTED:
        case ROUTE_STALE:
        case ROUTE_HEALTHY:
        case ROUTE_DRAINING:
            it.state &= ~states[field.number]; /* of a field that comes twice the last one counts */
            if (field.value)
                it.state |= states[field.number];
            break;
        case ROUTE_LAST_SEEN:
            it.last_seen = field.value;
            break;
        default:
            break;
        }
    }
    if (strcmp(it.source, "local") == 0)
        it.state |= MESH_LOCAL;
    list_put(list, &it);
}

static void fill_result(struct bytes result, struct mesh_list *list)
{
    struct bytes all = result;
    struct bytes_field field;
    const char *name = "";

    list_group(list);
    while (bytes_next(&result, &field))
        if (field.number == RESULT_NAME) {
            name = text_of(list, &field.inner);
            break; /* it comes first; routes before it are legal, so those begin anew */
        }
    while (bytes_next(&all, &field))
        if (field.number == RESULT_ROUTES)
            fill_route(field.inner, name, list);
}

static bool is_in(const struct reply_part *part, size_t result)
{
    return result >= part->first && result - part->first < part->n;
}

int reply_lookup(const uint8_t *data, size_t len, const struct reply_part *part,
                 struct mesh_list **out_list, bool *out_bad_name)
{
    struct bytes reply = bytes_of(data, len), again = reply;
    struct list_size size = {.instances = 0};
    struct bytes_field field;
    struct mesh_list *list;
    bool bad_name = false;
    size_t results = 0;
    int r;

    while (bytes_next(&reply, &field)) {
        if (field.number > LOOKUP_RESULTS)
            continue;
        if (field.type != (field.number < LOOKUP_RESULTS ? BYTES_VARINT : BYTES_TEXT))
            return -EBADMSG;
        if (field.number == LOOKUP_RESULTS && is_in(part, results++) &&
            !count_result(field.inner, &size, &bad_name))
            return -EBADMSG;
    }
    if (reply.bad || results != part->all || size.groups != part->n)
        return -EBADMSG;
    if (list_bytes(&size) / FACTOR > len + SLACK / FACTOR)
        return -E2BIG;
    r = list_new(&size, &list);
    if (r < 0)
        return r;
    results = 0;
    while (bytes_next(&again, &field))
        if (field.number == LOOKUP_RESULTS && is_in(part, results++))
            fill_result(field.inner, list);
    *out_list = list;
    *out_bad_name = bad_name;
    return 0;
}
