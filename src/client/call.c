/* call - requests out, replies in, over one socket that is never waited for without a deadline. */
#include "client/call.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"
#include "client/connect.h"
#include "wire/check.h"
#include "wire/frame.h"

#define READ_STEP 65536u        /* the first buffer; it doubles as it fills */
#define REQUEST_ID_LEN 4u       /* the only word of a client's backtrace */
#define LAST_WORD 0x80000000u   /* marks it */
#define DEADLINE_MS_MAX 600000u /* of CallHeader */

struct call_conn {
    int fd;
    enum sp_framing framing;
    bool broken;      /* a message was cut or made no sense: nothing after it can be trusted */
    uint32_t next_id; /* of the SP request, without its top bit */
    uint64_t next_call;
    uint8_t *in; /* received and not yet used */
    size_t in_len, in_cap;
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
    close(conn->fd);
    free(conn->in);
    free(conn);
}

void call_closep(struct call_conn **conn) { call_close(*conn); }

void call_reply_free(struct call_reply *reply)
{
    struct reply_full *full = (struct reply_full *)reply;

    if (!full)
        return;
    arena_fini(&full->arena);
    free(full);
}

void call_reply_freep(struct call_reply **reply) { call_reply_free(*reply); }

static int send_all(struct call_conn *conn, const uint8_t *data, size_t len, uint64_t deadline_ms)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(conn->fd, data + sent, len - sent, MSG_NOSIGNAL);
        int r;

        if (n > 0) {
            sent += (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        r = errno == EPIPE ? -ECONNRESET : -errno;
        if (errno == EAGAIN)
            r = connect_wait(conn->fd, POLLOUT, deadline_ms);
        if (r == -ETIMEDOUT && sent == 0)
            return r; /* nothing was begun, the connection is whole */
        if (r < 0) {
            conn->broken = true;
            return r;
        }
    }
    return 0;
}

/* Makes room for what is on its way: never more than twice of what has come. */
static int grow(struct call_conn *conn, size_t need)
{
    size_t cap = conn->in_cap ? conn->in_cap * 2 : READ_STEP;
    uint8_t *in;

    if (cap > need)
        cap = need > READ_STEP ? need : READ_STEP;
    in = realloc(conn->in, cap);
    if (!in)
        return -ENOMEM;
    conn->in = in;
    conn->in_cap = cap;
    return 0;
}

/* At least one more byte, of a message of need bytes that is not whole yet. */
static int receive_some(struct call_conn *conn, size_t need, uint64_t deadline_ms)
{
    int r;

    if (conn->in_len == conn->in_cap) {
        r = grow(conn, need);
        if (r < 0)
            return r;
    }
    for (;;) {
        ssize_t n = recv(conn->fd, conn->in + conn->in_len, conn->in_cap - conn->in_len, 0);

        if (n > 0) {
            conn->in_len += (size_t)n;
            return 0;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 || errno != EAGAIN) {
            conn->broken = true;
            return n == 0 ? -ECONNRESET : -errno;
        }
        r = connect_wait(conn->fd, POLLIN, deadline_ms);
        if (r < 0)
            return r;
    }
}

static void consume(struct call_conn *conn, size_t len)
{
    conn->in_len -= len;
    memmove(conn->in, conn->in + len, conn->in_len);
}

/* Waits for one whole message, which stays at the beginning of the buffer until it is consumed. */
static int receive_message(struct call_conn *conn, uint64_t deadline_ms, size_t *out_payload_len)
{
    size_t head = sp_head_len(conn->framing);

    for (;;) {
        uint64_t payload_len = 0;
        int r =
            sp_head_parse(conn->framing, conn->in, conn->in_len, CALL_MESSAGE_MAX, &payload_len);

        if (r == 0 && conn->in_len - head >= payload_len) {
            *out_payload_len = (size_t)payload_len;
            return 0;
        }
        if (r < 0 && r != -EAGAIN) {
            conn->broken = true;
            return r == -EMSGSIZE ? r : -EPROTO;
        }
        r = receive_some(conn, head + (size_t)payload_len, deadline_ms);
        if (r < 0)
            return r;
    }
}

static int greet(struct call_conn *conn, uint64_t deadline_ms)
{
    uint8_t hello[SP_HELLO_LEN];
    uint16_t protocol;
    int r;

    sp_hello_pack(SP_REQ0, hello);
    r = send_all(conn, hello, sizeof(hello), deadline_ms);
    while (r == 0 && conn->in_len < SP_HELLO_LEN)
        r = receive_some(conn, SP_HELLO_LEN, deadline_ms);
    if (r < 0)
        return r;
    if (sp_hello_parse(conn->in, &protocol) < 0 || protocol != SP_REP0)
        return -EPROTO;
    consume(conn, SP_HELLO_LEN);
    return 0;
}

int call_adopt(int fd, enum sp_framing framing, uint64_t deadline_ms, struct call_conn **out_conn)
{
    CLEANUP(call_closep) struct call_conn *conn = calloc(1, sizeof(*conn));
    int flags = fcntl(fd, F_GETFL), r;

    if (!conn) {
        close(fd);
        return -ENOMEM;
    }
    conn->fd = fd;
    conn->framing = framing;
    /* At random, so that a node that mixes up its clients does not go unnoticed. */
    conn->next_id = (uint32_t)random_u64();
    conn->next_call = 1;
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    r = greet(conn, deadline_ms);
    if (r < 0)
        return r;
    *out_conn = TAKE(&conn);
    return 0;
}

int call_open(const char *url, uint64_t deadline_ms, struct call_conn **out_conn)
{
    enum sp_framing framing;
    int fd, r;

    r = connect_url(url, deadline_ms, &framing, &fd);
    return r < 0 ? r : call_adopt(fd, framing, deadline_ms, out_conn);
}

static int send_request(struct call_conn *conn, const char *method, const ProtobufCMessage *request,
                        uint32_t id, uint64_t call_id, uint64_t deadline_ms)
{
    CLEANUP(free_bytesp) uint8_t *bytes = NULL;
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    size_t head = sp_head_len(conn->framing), frame, payload;
    uint64_t now = clock_ms();
    uint32_t word = htobe32(id);
    char name[128];

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
    sp_head_pack(conn->framing, payload, bytes);
    memcpy(bytes + head, &word, REQUEST_ID_LEN);
    frame_pack(&header.base, request, bytes + head + REQUEST_ID_LEN);
    return send_all(conn, bytes, head + payload, deadline_ms);
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

/* Waits for the reply to id and decodes it into full. */
static int receive_reply(struct call_conn *conn, uint32_t id, uint64_t call_id,
                         const ProtobufCMessageDescriptor *type, uint64_t deadline_ms,
                         struct reply_full *full)
{
    size_t head = sp_head_len(conn->framing);

    for (;;) {
        const uint8_t *payload;
        size_t len, backtrace;
        uint32_t word;
        int r = receive_message(conn, deadline_ms, &len);

        if (r < 0)
            return r;
        payload = conn->in + head;
        r = sp_backtrace(payload, len, &backtrace);
        if (r == 0 && backtrace == REQUEST_ID_LEN) {
            memcpy(&word, payload, REQUEST_ID_LEN);
            if (be32toh(word) != id) {
                consume(conn, head + len);
                continue;
            }
            r = decode(payload + backtrace, len - backtrace, call_id, type, full);
        } else {
            r = -EBADMSG;
        }
        consume(conn, head + len);
        if (r < 0)
            conn->broken = true;
        return r;
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
        call_reply_free(&full->reply);
        return r;
    }
    *out_reply = &full->reply;
    return 0;
}
