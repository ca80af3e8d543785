/* client - a mesh_client and its calls, from begin to their answers. How they travel side by side
 * is pipeline.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"
#include "client/pipeline.h"
#include "client/target.h"
#include "wire/status.h"

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000

enum mesh_status deadline_of(int deadline_ms, uint64_t *out_deadline_ms)
{
    if (deadline_ms < 1 || deadline_ms > DEADLINE_MS_MAX)
        return error_set(MESH_INVALID, "a deadline is 1 to %d ms, not %d", DEADLINE_MS_MAX,
                         deadline_ms);
    *out_deadline_ms = clock_ms() + (uint64_t)deadline_ms;
    return MESH_OK;
}

/* ---- a call ---- */

enum mesh_status client_call_new(struct mesh_client *client, const char *method, size_t body_len,
                                 uint64_t deadline_ms, struct mesh_call **out_call,
                                 uint8_t **out_body)
{
    struct mesh_call *call = malloc(sizeof(*call) + body_len);

    if (!call)
        return error_errno(-ENOMEM, method);
    *call = (struct mesh_call){
        .client = client,
        .method = method,
        .deadline_ms = deadline_ms,
        .body_len = body_len,
        .woken = PTHREAD_COND_INITIALIZER,
    };
    *out_body = call->body;
    *out_call = call;
    return MESH_OK;
}

enum mesh_status client_call_begin(struct mesh_call *call)
{
    struct mesh_client *client = call->client;
    int r = 0;

    mutex_lock(&client->lock);
    call->held.done = false;
    if (client->held.connected)
        r = pipeline_put(client, call);
    if (r == 0)
        pipeline_enlist(client, call);
    mutex_unlock(&client->lock);
    return r < 0 ? error_errno(r, call->method) : MESH_OK;
}

/* The answer to the request that the call was part of, into *out_reply. 0 or a negative errno. */
static int wait_for(struct mesh_call *call, struct reply *out_reply, bool *out_joined,
                    char out_why[TLS_WHY])
{
    struct mesh_client *client = call->client;
    const struct request *request;
    int r;

    mutex_lock(&client->lock);
    if (!call->held.done)
        pipeline_wait(client, call);
    r = call->held.error;
    snprintf(out_why, TLS_WHY, "%s", r < 0 && r == client->held.error ? client->held.why : "");
    request = call->held.request; /* it has left: nobody changes it any more */
    mutex_unlock(&client->lock);
    if (r == 0)
        r = reply_split(request->answer, request->answer_len, out_reply);
    /* A node that could not read the header of the call does not know its number. */
    if (r == 0 && out_reply->call_id != request->number &&
        (out_reply->answer.status == 0 || out_reply->call_id != 0))
        r = -EBADMSG;
    *out_joined = r == 0 && request->calls > 1;
    return r;
}

enum mesh_status client_call_answer(struct mesh_call *call, struct reply *out_reply)
{
    char why[TLS_WHY];
    enum mesh_status status;
    bool joined;

    for (;;) {
        int r = wait_for(call, out_reply, &joined, why);

        if (r < 0)
            return error_why(r, call->client->url, why);
        if (!out_reply->answer.status)
            return MESH_OK;
        if (!joined || out_reply->answer.status == STATUS_UNAVAILABLE ||
            out_reply->answer.reason == MESHD__V1__REASON__REASON_WIRE_VERSION ||
            clock_ms() >= call->deadline_ms)
            return error_answer(&out_reply->answer);
        /* It may be what the others asked, or that all together is too much. */
        call->alone = true;
        status = client_call_begin(call);
        if (status != MESH_OK)
            return status;
    }
}

void client_call_free(struct mesh_call *call)
{
    struct mesh_client *client = call ? call->client : NULL;

    if (!call)
        return;
    mutex_lock(&client->lock);
    pipeline_delist(client, call);
    pipeline_leave(client, call);
    mutex_unlock(&client->lock);
    pthread_cond_destroy(&call->woken);
    free(call);
}

void client_call_freep(struct mesh_call **call) { client_call_free(*call); }

void client_call_set_names(struct mesh_call *call, size_t n) { call->names = n; }

size_t client_call_names(const struct mesh_call *call, size_t *out_first, size_t *out_all)
{
    *out_first = call->held.first;
    *out_all = call->held.request->names;
    return call->names;
}

enum mesh_status client_ask(struct mesh_client *client, const char *method,
                            const ProtobufCMessage *request, uint64_t deadline_ms,
                            struct arena *arena, const ProtobufCMessage **out_message)
{
    CLEANUP(client_call_freep) struct mesh_call *call = NULL;
    const ProtobufCMethodDescriptor *desc = protobuf_c_service_descriptor_get_method_by_name(
        &meshd__v1__registry__descriptor, strrchr(method, '/') + 1);
    ProtobufCMessage *message;
    enum mesh_status status;
    struct reply reply;
    uint8_t *body;
    int r;

    status = client_call_new(client, method, protobuf_c_message_get_packed_size(request),
                             deadline_ms, &call, &body);
    if (status != MESH_OK)
        return status;
    protobuf_c_message_pack(request, body);
    status = client_call_begin(call);
    if (status == MESH_OK)
        status = client_call_answer(call, &reply);
    if (status != MESH_OK)
        return status;
    r = wire_unpack(desc->output, reply.body, reply.body_len, arena, &message);
    if (r < 0)
        return error_errno(r, client->url);
    *out_message = message;
    return MESH_OK;
}

/* ---- the client ---- */

void mesh_client_close(struct mesh_client *client)
{
    if (!client)
        return;
    stream_close(&client->stream);
    if (client->wake_fd >= 0)
        close(client->wake_fd);
    mutex_fini(&client->lock);
    trust_unref(client->trust);
    free(client->held.out);
    free(client->url);
    free(client);
}

static void client_closep(struct mesh_client **client) { mesh_client_close(*client); }

static int client_new(const char *url, struct mesh_client **out_client)
{
    CLEANUP(client_closep) struct mesh_client *client = calloc(1, sizeof(*client));
    int r = 0;

    if (!client)
        return -ENOMEM;
    client->stream.channel.fd = client->wake_fd = -1;
    mutex_init(&client->lock);
    backoff_init(&client->held.backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS);
    /* At random, so that a node that mixes up its clients does not go unnoticed. */
    client->held.next_id = (uint32_t)random_u64();
    client->held.next_call = 1;
    if (!url)
        r = target_choose(false, &client->url);
    else if (!(client->url = strdup(url)))
        r = -ENOMEM;
    if (r == 0 && (client->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        r = -errno;
    if (r == 0)
        *out_client = TAKE(&client);
    return r;
}

enum mesh_status mesh_client_open_tls(const char *url, const struct mesh_tls *tls, int deadline_ms,
                                      struct mesh_client **out_client)
{
    CLEANUP(client_closep) struct mesh_client *client = NULL;
    char why[TLS_WHY];
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);
    int r;

    if (status != MESH_OK)
        return status;
    r = client_new(url, &client);
    if (r < 0)
        return error_errno(r, "mesh_client_open");
    status = trust_open(client->url, tls, &client->trust);
    if (status != MESH_OK)
        return status;
    r = stream_open(&client->stream, client->url, client->trust, deadline, why);
    if (r < 0)
        return error_why(r, client->url, why);
    client->held.connected = true;
    *out_client = TAKE(&client);
    return MESH_OK;
}

enum mesh_status mesh_client_open(const char *url, int deadline_ms, struct mesh_client **out_client)
{
    return mesh_client_open_tls(url, NULL, deadline_ms, out_client);
}

const char *mesh_client_url(const struct mesh_client *client) { return client->url; }

struct trust *client_trust(const struct mesh_client *client) { return client->trust; }

enum mesh_status mesh_client_flush(struct mesh_client *client)
{
    mutex_lock(&client->lock);
    pipeline_send(client);
    mutex_unlock(&client->lock);
    return MESH_OK;
}
