/* follow_wire - see follow_wire.h. */
#include "client/follow_wire.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HOP_LEN 4u /* in front of every PAIR1 payload */
#define HOPS_MAX 255u
#define HEARTBEAT_MIN_MS 200u
#define HEARTBEAT_MAX_MS 60000u

uint32_t follow_wire_heartbeat(uint32_t ms)
{
    if (ms == 0)
        return 0;
    if (ms < HEARTBEAT_MIN_MS)
        return HEARTBEAT_MIN_MS;
    return ms > HEARTBEAT_MAX_MS ? HEARTBEAT_MAX_MS : ms;
}

int follow_wire_request(const struct follow_settings *settings, enum sp_framing framing,
                        uint64_t call_id, uint8_t **out_data, size_t *out_len)
{
    const struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_WATCH};
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;
    size_t head = sp_head_len(framing), payload;
    uint32_t hops = htobe32(1);
    uint8_t *data, *at;

    header.method = (char *)"/meshd.v1.Registry/Watch";
    header.call_id = call_id;
    header.wire_version = WIRE_VERSION_MAX;
    request.from_epoch = settings->from_epoch;
    request.from_revision = settings->from_revision;
    if (settings->name_glob)
        request.name_glob = (char *)settings->name_glob;
    if (settings->peer)
        request.peer = (char *)settings->peer;
    request.heartbeat_ms = settings->heartbeat_ms;

    payload = HOP_LEN + frame_size(&header.base, &request.base);
    data = malloc(PREAMBLE_MAX + head + payload);
    if (!data)
        return -ENOMEM;
    at = data + preamble_pack(&preamble, data);
    sp_head_pack(framing, payload, at);
    memcpy(at + head, &hops, HOP_LEN);
    frame_pack(&header.base, &request.base, at + head + HOP_LEN);
    *out_data = data;
    *out_len = (size_t)(at - data) + head + payload;
    return 0;
}

int follow_wire_open(const uint8_t *payload, size_t len, uint64_t call_id, struct arena *arena,
                     const Meshd__V1__ReplyHeader **out_header, struct frame_parts *out_parts)
{
    const Meshd__V1__ReplyHeader *header;
    ProtobufCMessage *message = NULL;
    uint32_t hops;
    int r;

    if (len < HOP_LEN)
        return -EBADMSG;
    memcpy(&hops, payload, HOP_LEN);
    if (be32toh(hops) > HOPS_MAX)
        return -EBADMSG;
    r = frame_split(payload + HOP_LEN, len - HOP_LEN, out_parts);
    if (r == 0)
        r = wire_unpack(&meshd__v1__reply_header__descriptor, out_parts->header,
                        out_parts->header_len, arena, &message);
    if (r < 0)
        return r;
    header = (const Meshd__V1__ReplyHeader *)message;
    /* A node that could not read the header of the call does not know its number. */
    if (header->call_id != call_id && (header->status == STATUS_OK || header->call_id != 0))
        return -EBADMSG;
    *out_header = header;
    return 0;
}
