/* server - one call per REP context: received, checked, run, answered, and again.
 *
 * A call's memory is made once, at the start: its context, two aios and an arena.
 */
#include "rpc/server.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include "base/clock.h"
#include "rpc/socket.h"
#include "wire/frame.h"

#define CONN_LEN 4u          /* the connection number in front of a call and its reply */
#define SEND_MS 10000        /* the gate always drains its lanes; if not, the reply is given up */
#define DEADLINE_MAX 600000u /* mesh.proto */
#define METHOD_MAX 128u
#define CLOSE_MS 1000u
#define REPLY_FACTOR 16u /* of message_bytes: what building one reply may take in memory */

struct rpc_call {
    struct rpc_server *server;
    nng_ctx ctx;
    nng_aio *recv, *send;
    struct arena arena;
    struct rpc_caller caller;
    uint64_t call_id, deadline_ms;
    bool has_deadline;
};

struct counters {
    atomic_uint_fast64_t in_progress, calls, failed, bad_header, bad_message, bad_version;
    atomic_uint_fast64_t unknown_method, late, dropped, largest_request, largest_reply;
};

struct rpc_server {
    struct rpc_server_settings settings;
    const ProtobufCServiceDescriptor *descriptor;
    nng_socket sock;
    struct counters counters;
    struct rpc_server *next_leaked;
    unsigned n_calls;
    struct rpc_call calls[];
};

/* Servers closed while calls were unanswered: their memory may still be used by who answers. */
static _Atomic(struct rpc_server *) leaked;

static void count(atomic_uint_fast64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void count_largest(atomic_uint_fast64_t *counter, uint64_t value)
{
    uint_fast64_t old = atomic_load_explicit(counter, memory_order_relaxed);

    while (value > old && !atomic_compare_exchange_weak(counter, &old, value))
        ;
}

static uint32_t read_u32(const uint8_t *in)
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

static void write_u32(uint8_t *out, uint32_t value)
{
    out[0] = (uint8_t)(value >> 24);
    out[1] = (uint8_t)(value >> 16);
    out[2] = (uint8_t)(value >> 8);
    out[3] = (uint8_t)value;
}

/* ---- the end of a call ---- */

/* Hands msg over, or receives again at once: the call is another's from then on. */
static void finish(struct rpc_call *call, nng_msg *msg)
{
    struct rpc_server *server = call->server;

    arena_reset(&call->arena);
    if (msg) {
        nng_aio_set_msg(call->send, msg);
        nng_ctx_send(call->ctx, call->send);
    } else {
        nng_ctx_recv(call->ctx, call->recv);
    }
    atomic_fetch_sub(&server->counters.in_progress, 1); /* last: rpc_server_close waits for it */
}

/* Only now: a second reply of a context would overwrite one that still waits for its lane, and to
 * wait for that on a thread of nng's is to wait for oneself. */
static void on_replied(void *arg)
{
    struct rpc_call *call = arg;

    if (nng_aio_result(call->send) != 0)
        nng_msg_free(nng_aio_get_msg(call->send));
    nng_aio_set_msg(call->send, NULL);
    nng_ctx_recv(call->ctx, call->recv);
}

/* At most LIMIT_STATUS_TEXT bytes of text, not cut within a character. */
static void clip(char out[LIMIT_STATUS_TEXT + 1], const char *text)
{
    size_t len = strlen(text);

    if (len > LIMIT_STATUS_TEXT) {
        len = LIMIT_STATUS_TEXT;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    }
    memcpy(out, text, len);
    out[len] = '\0';
}

struct answer {
    enum status status;
    Meshd__V1__Reason reason;
    const char *text;
    const ProtobufCMessage *message;
};

/* The reply as one message, or NULL without memory. */
static nng_msg *pack_reply(struct rpc_call *call, struct answer answer)
{
    struct rpc_server *server = call->server;
    Meshd__V1__ReplyHeader header = MESHD__V1__REPLY_HEADER__INIT;
    char text[LIMIT_STATUS_TEXT + 1];
    nng_msg *msg;
    uint8_t *out;
    size_t size;

    header.call_id = call->call_id;
    header.wire_version_min = WIRE_VERSION_MIN;
    header.wire_version_max = WIRE_VERSION_MAX;
    for (;;) {
        header.status = answer.status;
        header.reason = answer.reason;
        if (answer.text) {
            clip(text, answer.text);
            header.text = text;
        }
        size = frame_size(&header.base, answer.message);
        if (size <= server->settings.message_bytes)
            break;
        answer = (struct answer){.status = STATUS_RESOURCE_EXHAUSTED,
                                 .reason = MESHD__V1__REASON__REASON_LIMIT,
                                 .text = "the reply is larger than limits.message_bytes"};
    }
    if (nng_msg_alloc(&msg, CONN_LEN + size) != 0)
        return NULL;
    out = nng_msg_body(msg);
    write_u32(out, call->caller.conn);
    frame_pack(&header.base, answer.message, out + CONN_LEN);
    if (answer.status != STATUS_OK)
        count(&server->counters.failed);
    count_largest(&server->counters.largest_reply, size);
    return msg;
}

void rpc_call_reply(struct rpc_call *call, enum status status, Meshd__V1__Reason reason,
                    const char *text, const ProtobufCMessage *message)
{
    struct answer answer = {status, reason, text, message};
    nng_msg *msg;

    if (call->has_deadline && clock_ms() > call->deadline_ms) {
        count(&call->server->counters.late);
        answer = (struct answer){.status = STATUS_DEADLINE_EXCEEDED,
                                 .text = "the call's time was over before its answer"};
    }
    msg = pack_reply(call, answer);
    if (!msg)
        count(&call->server->counters.dropped);
    finish(call, msg);
}

/* The generated closure: NULL is a method's way of saying that it failed. */
static void answer_closure(const ProtobufCMessage *message, void *closure_data)
{
    if (message)
        rpc_call_reply(closure_data, STATUS_OK, MESHD__V1__REASON__REASON_NONE, NULL, message);
    else
        rpc_call_reply(closure_data, STATUS_INTERNAL, MESHD__V1__REASON__REASON_NONE,
                       "the method failed", NULL);
}

/* ---- from bytes to a method ---- */

/* A handler that was left out is a NULL among the function pointers behind the base. */
static bool has_handler(const struct rpc_server *server, unsigned index)
{
    void (*handler)(void);

    memcpy(&handler, (const char *)(&server->settings.service->base + 1) + index * sizeof(handler),
           sizeof(handler));
    return handler != NULL;
}

/* "/package.Service/Method" to the method's index; -ENOSYS: none such. */
static int find_method(const struct rpc_server *server, const char *path, unsigned *out_index)
{
    const ProtobufCServiceDescriptor *service = server->descriptor;
    size_t len = strlen(service->name);
    const ProtobufCMethodDescriptor *method;

    if (path[0] != '/' || strncmp(path + 1, service->name, len) != 0 || path[len + 1] != '/' ||
        strlen(path) > METHOD_MAX)
        return -ENOSYS;
    method = protobuf_c_service_descriptor_get_method_by_name(service, path + len + 2);
    if (!method || !has_handler(server, (unsigned)(method - service->methods)))
        return -ENOSYS;
    *out_index = (unsigned)(method - service->methods);
    return 0;
}

static struct answer refuse_body(struct rpc_server *server, int error)
{
    count(&server->counters.bad_message);
    if (error == -EBADMSG)
        return (struct answer){STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_NONE,
                               "the request is not a message of the method's type", NULL};
    return (struct answer){STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                           "the request needs more memory than a request may", NULL};
}

/* What stands in front of the message. Fills call; STATUS_OK and the method, or why not. */
static struct answer read_header(struct rpc_call *call, const struct frame_parts *parts,
                                 unsigned *out_method)
{
    struct rpc_server *server = call->server;
    ProtobufCMessage *message;
    const Meshd__V1__CallHeader *header;

    if (wire_unpack(&meshd__v1__call_header__descriptor, parts->header, parts->header_len,
                    &call->arena, &message) < 0) {
        count(&server->counters.bad_header);
        return (struct answer){STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_NONE,
                               "no call header in front of the request", NULL};
    }
    header = (const Meshd__V1__CallHeader *)message;
    call->call_id = header->call_id;
    if (header->wire_version < WIRE_VERSION_MIN || header->wire_version > WIRE_VERSION_MAX) {
        count(&server->counters.bad_version);
        return (struct answer){STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION,
                               "the call is of a wire version that is not spoken here", NULL};
    }
    if (find_method(server, header->method, out_method) < 0) {
        count(&server->counters.unknown_method);
        return (struct answer){STATUS_UNIMPLEMENTED, MESHD__V1__REASON__REASON_NONE,
                               "no such method here", NULL};
    }
    if (header->deadline_ms == 0 || header->deadline_ms > DEADLINE_MAX) {
        count(&server->counters.bad_header);
        return (struct answer){STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_NONE,
                               "deadline_ms must be 1 to 600000", NULL};
    }
    call->deadline_ms = clock_ms() + header->deadline_ms;
    call->has_deadline = true;
    return (struct answer){.status = STATUS_OK};
}

/* Checks the frame and, if it is right, unpacks its message. */
static struct answer read_frame(struct rpc_call *call, const uint8_t *data, size_t len,
                                unsigned *out_method, ProtobufCMessage **out_input)
{
    struct rpc_server *server = call->server;
    struct frame_parts parts;
    struct answer answer;
    int r;

    if (frame_split(data, len, &parts) < 0) {
        count(&server->counters.bad_header);
        return (struct answer){STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_NONE,
                               "not a frame of header and message", NULL};
    }
    answer = read_header(call, &parts, out_method);
    if (answer.status != STATUS_OK)
        return answer;
    r = wire_unpack(server->descriptor->methods[*out_method].input, parts.body, parts.body_len,
                    &call->arena, out_input);
    return r < 0 ? refuse_body(server, r) : answer;
}

/* Takes msg, a request with its connection number in front. */
static void run(struct rpc_call *call, nng_msg *msg)
{
    struct rpc_server *server = call->server;
    ProtobufCService *service = &server->settings.service->base;
    const uint8_t *data = nng_msg_body(msg);
    size_t len = nng_msg_len(msg);
    uint32_t conn = len < CONN_LEN ? 0 : read_u32(data);
    ProtobufCMessage *input = NULL;
    struct answer answer;
    unsigned method = 0;

    if (conn == 0 || conn >> 31) { /* the gate sends no such thing */
        count(&server->counters.dropped);
        nng_msg_free(msg);
        finish(call, NULL);
        return;
    }
    call->call_id = 0;
    call->has_deadline = false;
    if (!server->settings.who(server->settings.ctx, conn, &call->caller)) {
        count(&server->counters.dropped);
        answer = (struct answer){.status = STATUS_CANCELLED, .text = "the caller has gone"};
    } else {
        count_largest(&server->counters.largest_request, len - CONN_LEN);
        call->arena.cap = SIZE_MAX; /* wire_unpack has its own */
        answer = read_frame(call, data + CONN_LEN, len - CONN_LEN, &method, &input);
    }
    call->caller.conn = conn;
    nng_msg_free(msg); /* unpacked messages have copies of their own */
    if (answer.status != STATUS_OK) {
        rpc_call_reply(call, answer.status, answer.reason, answer.text, NULL);
        return;
    }
    call->arena.cap = call->arena.used + REPLY_FACTOR * server->settings.message_bytes;
    service->invoke(service, method, input, answer_closure, call);
    /* It may have been answered: the call is not ours any more. */
}

static void on_request(void *arg)
{
    struct rpc_call *call = arg;
    int rv = nng_aio_result(call->recv);
    nng_msg *msg;

    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    count(&call->server->counters.in_progress);
    if (rv != 0) {
        finish(call, NULL);
        return;
    }
    count(&call->server->counters.calls);
    msg = nng_aio_get_msg(call->recv);
    nng_aio_set_msg(call->recv, NULL);
    run(call, msg);
}

/* ---- the server's life ---- */

static int call_open(struct rpc_call *call, struct rpc_server *server)
{
    int rv = nng_ctx_open(&call->ctx, server->sock);

    call->server = server;
    arena_init(&call->arena);
    if (rv == 0)
        rv = nng_aio_alloc(&call->recv, on_request, call);
    if (rv == 0)
        rv = nng_aio_alloc(&call->send, on_replied, call);
    if (rv == 0)
        nng_aio_set_timeout(call->send, SEND_MS);
    return rpc_errno(rv);
}

static void call_close(struct rpc_call *call)
{
    nng_aio_stop(call->send); /* takes NULL, as all of these; its callback may receive */
    nng_aio_stop(call->recv);
    nng_ctx_close(call->ctx);
    nng_aio_free(call->recv);
    nng_aio_free(call->send);
    arena_fini(&call->arena);
}

/* Nothing is in progress. */
static void server_free(struct rpc_server *server)
{
    for (unsigned i = 0; i < server->n_calls; i++)
        call_close(&server->calls[i]);
    nng_close(server->sock);
    free(server);
}

int rpc_server_open(const struct rpc_server_settings *settings, struct rpc_server **out_server)
{
    struct rpc_server *server;
    int r;

    server = calloc(1, sizeof(*server) + settings->contexts * sizeof(server->calls[0]));
    if (!server)
        return -ENOMEM;
    server->settings = *settings;
    server->settings.path = NULL; /* the caller's, and not needed again */
    server->descriptor = settings->service->base.descriptor;
    r = rpc_errno(nng_rep0_open(&server->sock));
    if (r < 0) {
        free(server);
        return r;
    }
    /* nng counts every word, the request id and the gate's number too, and drops what has more. */
    r = rpc_errno(nng_socket_set_int(server->sock, NNG_OPT_MAXTTL, LIMIT_SP_HOPS + 2));
    while (r == 0 && server->n_calls < settings->contexts)
        r = call_open(&server->calls[server->n_calls++], server);
    if (r == 0)
        r = rpc_listen(server->sock, settings->path, settings->message_bytes);
    if (r < 0) {
        server_free(server);
        return r;
    }
    for (unsigned i = 0; i < server->n_calls; i++)
        nng_ctx_recv(server->calls[i].ctx, server->calls[i].recv);
    *out_server = server;
    return 0;
}

void rpc_server_close(struct rpc_server *server)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t until = clock_ms() + CLOSE_MS;

    if (!server)
        return;
    while (atomic_load(&server->counters.in_progress) != 0 && clock_ms() < until)
        nanosleep(&pause, NULL);
    if (atomic_load(&server->counters.in_progress) == 0) {
        server_free(server);
        return;
    }
    server->next_leaked = atomic_load(&leaked);
    while (!atomic_compare_exchange_weak(&leaked, &server->next_leaked, server))
        ;
}

const struct rpc_caller *rpc_call_caller(const struct rpc_call *call) { return &call->caller; }

uint64_t rpc_call_deadline_ms(const struct rpc_call *call) { return call->deadline_ms; }

struct arena *rpc_call_arena(struct rpc_call *call) { return &call->arena; }

void rpc_server_counters(struct rpc_server *server, struct rpc_server_counters *out_counters)
{
    struct counters *c = &server->counters;

    *out_counters = (struct rpc_server_counters){
        .in_progress = atomic_load(&c->in_progress),
        .calls = atomic_load(&c->calls),
        .failed = atomic_load(&c->failed),
        .bad_header = atomic_load(&c->bad_header),
        .bad_message = atomic_load(&c->bad_message),
        .bad_version = atomic_load(&c->bad_version),
        .unknown_method = atomic_load(&c->unknown_method),
        .late = atomic_load(&c->late),
        .dropped = atomic_load(&c->dropped),
        .largest_request = atomic_load(&c->largest_request),
        .largest_reply = atomic_load(&c->largest_reply),
    };
}
