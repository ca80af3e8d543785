/* call - requests out, replies in, over one socket that is never waited for without a deadline. */
#include "client/call.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"
#include "client/stream.h"
#include "wire/check.h"
#include "wire/frame.h"

#define REQUEST_ID_LEN 4u       /* the only word of a client's backtrace */
#define LAST_WORD 0x80000000u   /* marks it */
#define DEADLINE_MS_MAX 600000u /* of CallHeader */

struct call_conn {
    struct stream stream;
    bool broken;      /* a message was cut or made no sense: nothing after it can be trusted */
    uint32_t next_id; /* of the SP request, without its top bit */
    uint64_t next_call;
};

/* A reply and the memory of its message, as one. */
struct reply_full {
    struct call_reply reply; /* first: what the caller holds */
    struct arena arena;
};

static void free_bytesp(uint8_t **bytes) { free(*bytes); }

void call_close(struct call_conn *conn)
{
    if (!conn)
        return;
    stream_close(&conn->stream);
    free(conn);
}

void call_closep(struct call_conn **conn) { call_close(*conn); }

int call_fd(const struct call_conn *conn) { return conn->stream.channel.fd; }

int call_idle(struct call_conn *conn)
{
    int r = stream_receive(&conn->stream);

    /* What TLS has to say of itself is none of ours. */
    return r == -EAGAIN ? 0 : r == 0 ? -EPROTO : r;
}

void call_reply_free(struct call_reply *reply)
{
    struct reply_full *full = (struct reply_full *)reply;

    if (!full)
        return;
    arena_fini(&full->arena);
    free(full);
}

void call_reply_freep(struct call_reply **reply) { call_reply_free(*reply); }

/* Opens what stream became; it is closed on failure. */
static int conn_new(struct stream *stream, struct call_conn **out_conn)
{
    struct call_conn *conn = calloc(1, sizeof(*conn));

    if (!conn) {
        stream_close(stream);
        return -ENOMEM;
    }
    conn->stream = *stream;
    /* At random, so that a node that mixes up its clients does not go unnoticed. */
    conn->next_id = (uint32_t)random_u64();
    conn->next_call = 1;
    *out_conn = conn;
    return 0;
}

int call_adopt(int fd, enum sp_framing framing, uint64_t deadline_ms, struct call_conn **out_conn)
{
    char why[TLS_WHY];
    struct stream stream;
    int r = stream_adopt(&stream, fd, framing, NULL, deadline_ms, why);

    return r < 0 ? r : conn_new(&stream, out_conn);
}

int call_open(const char *url, struct trust *trust, uint64_t deadline_ms, char out_why[TLS_WHY],
              struct call_conn **out_conn)
{
    struct stream stream;
    int r = stream_open(&stream, url, trust, deadline_ms, out_why);

    return r < 0 ? r : conn_new(&stream, out_conn);
}

static int send_request(struct call_conn *conn, const char *method, const ProtobufCMessage *request,
                        uint32_t id, uint64_t call_id, uint64_t deadline_ms)
{
    CLEANUP(free_bytesp) uint8_t *bytes = NULL;
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    size_t head = sp_head_len(conn->stream.framing), frame, payload, sent;
    uint64_t now = clock_ms();
    uint32_t word = htobe32(id);
    char name[128];
    int r;

    if (now >= deadline_ms)
        return -ETIMEDOUT;
    snprintf(name, sizeof(name), "/%s/%s", meshd__v1__registry__descriptor.name, method);
    header.method = name;
    header.call_id = call_id;
    header.deadline_ms =
        deadline_ms - now > DEADLINE_MS_MAX ? DEADLINE_MS_MAX : (uint32_t)(deadline_ms - now);
    header.wire_version = WIRE_VERSION_MAX;

    frame = frame_size(&header.base, request);
    if (frame > CALL_MESSAGE_MAX - REQUEST_ID_LEN)
        return -EMSGSIZE;
    payload = REQUEST_ID_LEN + frame;
    bytes = malloc(head + payload);
    if (!bytes)
        return -ENOMEM;
    sp_head_pack(conn->stream.framing, payload, bytes);
    memcpy(bytes + head, &word, REQUEST_ID_LEN);
    frame_pack(&header.base, request, bytes + head + REQUEST_ID_LEN);
    r = stream_send(&conn->stream, bytes, head + payload, deadline_ms, &sent);
    if (r < 0 && (r != -ETIMEDOUT || sent)) /* otherwise nothing was begun, it is whole */
        conn->broken = true;
    return r;
}

static int keep_packed(struct reply_full *full, const uint8_t *data, size_t len)
{
    uint8_t *copy = arena_alloc(&full->arena, len ? len : 1);

    if (!copy)
        return full->arena.error;
    full->reply.packed = len ? memcpy(copy, data, len) : copy;
    full->reply.packed_len = len;
    return 0;
}

/* A reply's frame, without its backtrace. */
static int decode(const uint8_t *data, size_t len, uint64_t call_id,
                  const ProtobufCMessageDescriptor *type, struct reply_full *full)
{
    const Meshd__V1__ReplyHeader *header;
    ProtobufCMessage *message = NULL;
    struct frame_parts parts;
    int r = frame_split(data, len, &parts);

    if (r == 0)
        r = wire_unpack(&meshd__v1__reply_header__descriptor, parts.header, parts.header_len,
                        &full->arena, &message);
    if (r < 0)
        return r;
    header = (const Meshd__V1__ReplyHeader *)message;
    /* A node that could not read the header of the call does not know its number. */
    if (header->call_id != call_id && (header->status == STATUS_OK || header->call_id != 0))
        return -EBADMSG;
    full->reply = (struct call_reply){
        .status = header->status,
        .reason = header->reason,
        .text = header->text,
        .wire_version_min = header->wire_version_min,
        .wire_version_max = header->wire_version_max,
    };
    if (header->status != STATUS_OK && parts.body_len == 0)
        return 0;
    r = wire_unpack(type, parts.body, parts.body_len, &full->arena, &message);
    if (r == 0)
        r = keep_packed(full, parts.body, parts.body_len);
    if (r == 0)
        full->reply.message = message;
    return r;
}

/* Waits for the reply to id and decodes it into full. Breaks off on all but a timeout. */
static int receive_reply(struct call_conn *conn, uint32_t id, uint64_t call_id,
                         const ProtobufCMessageDescriptor *type, uint64_t deadline_ms,
                         struct reply_full *full)
{
    for (;;) {
        const uint8_t *payload;
        size_t len, backtrace;
        uint32_t word;
        int r = stream_next(&conn->stream, &payload, &len);

        if (r == -EAGAIN) {
            r = stream_receive_by(&conn->stream, deadline_ms);
            if (r < 0)
                return r;
            continue;
        }
        if (r < 0)
            return r;
        if (sp_backtrace(payload, len, &backtrace) < 0 || backtrace != REQUEST_ID_LEN)
            return -EBADMSG;
        memcpy(&word, payload, REQUEST_ID_LEN);
        if (be32toh(word) == id)
            return decode(payload + backtrace, len - backtrace, call_id, type, full);
    }
}

int call_invoke(struct call_conn *conn, const char *method, const ProtobufCMessage *request,
                uint64_t deadline_ms, struct call_reply **out_reply)
{
    const ProtobufCMethodDescriptor *desc =
        protobuf_c_service_descriptor_get_method_by_name(&meshd__v1__registry__descriptor, method);
    uint32_t id = conn->next_id++ | LAST_WORD;
    uint64_t call_id = conn->next_call++;
    struct reply_full *full;
    int r;

    assert(desc && request->descriptor == desc->input);
    if (conn->broken)
        return -ENOTCONN;
    r = send_request(conn, method, request, id, call_id, deadline_ms);
    if (r < 0)
        return r;
    full = calloc(1, sizeof(*full));
    if (!full)
        return -ENOMEM;
    arena_init(&full->arena);
    r = receive_reply(conn, id, call_id, desc->output, deadline_ms, full);
    if (r < 0) {
        conn->broken = r != -ETIMEDOUT && r != -ENOMEM;
        call_reply_free(&full->reply);
        return r;
    }
    *out_reply = &full->reply;
    return 0;
}
