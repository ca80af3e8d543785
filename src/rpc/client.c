/* client - one call at a time on a REQ socket.
 *
 *   idle ── rpc_client_call ──▶ sending ── nng took it ──▶ receiving ── the answer ──▶ idle
 *
 * A send is done as soon as the pipe has it, so the sends that succeeded since the pipe came up are
 * the messages that its other end will see, each of them whole. The receive is posted only then:
 * before, a time-out of it would break nng's state machine.
 *
 * Each call has aios of its own. nng lets an aio go on while it is about to expire it, and what is
 * begun on the same aio by then is timed out in place of what has ended. Only freeing the aio waits
 * for that.
 */
#include "rpc/client.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "base/lock.h"
#include "rpc/socket.h"
#include "wire/check.h"
#include "wire/frame.h"

#define DEADLINE_MAX 600000u /* mesh.proto */

enum state { IDLE, SENDING, RECEIVING };

struct aios {
    nng_aio *send, *recv;
};

struct rpc_client {
    struct rpc_client_settings settings;
    nng_socket sock;
    struct mutex lock;
    pthread_cond_t moved_on; /* from SENDING */
    /* with lock held: */
    enum state state;
    struct aios call; /* the latest; not exchanged before it is done */
    struct aios old;  /* of the call before: its callbacks may still return */
    uint32_t pipe;    /* 0: none */
    uint64_t sent;    /* since the pipe came up */
    bool quiet;
    uint64_t call_id, deadline_ms;
    rpc_done *done; /* of the call under way */
    void *done_ctx;
};

static void give_up(rpc_done *done, void *ctx, int error)
{
    const struct rpc_result result = {.error = error, .text = ""};

    done(ctx, &result);
}

/* ---- a call ---- */

/* Waits for their callbacks. */
static void aios_free(struct aios *aios)
{
    nng_aio_free(aios->send); /* takes NULL */
    nng_aio_free(aios->recv);
}

static void on_sent(void *arg)
{
    struct rpc_client *client = arg;
    int r = rpc_errno(nng_aio_result(client->call.send));
    rpc_done *done;
    void *done_ctx;
    uint64_t now;

    mutex_lock(&client->lock);
    if (r == 0) {
        client->sent++;
        now = clock_ms();
        if (client->quiet)
            r = -ECANCELED;
        else if (now >= client->deadline_ms)
            r = -ETIMEDOUT;
    } else {
        nng_msg_free(nng_aio_get_msg(client->call.send));
    }
    nng_aio_set_msg(client->call.send, NULL);
    if (r == 0) {
        client->state = RECEIVING;
        nng_aio_set_timeout(client->call.recv, (nng_duration)(client->deadline_ms - now));
        nng_recv_aio(client->sock, client->call.recv);
    } else {
        client->state = IDLE;
    }
    done = client->done;
    done_ctx = client->done_ctx;
    pthread_cond_broadcast(&client->moved_on);
    mutex_unlock(&client->lock);
    if (r < 0)
        give_up(done, done_ctx, r);
}

/* Takes msg. */
static void read_reply(nng_msg *msg, uint64_t call_id, rpc_done *done, void *done_ctx)
{
    struct rpc_result result = {.error = -EBADMSG, .text = ""};
    const Meshd__V1__ReplyHeader *header;
    ProtobufCMessage *message;
    struct frame_parts parts;
    struct arena arena;
    int r;

    arena_init(&arena);
    r = frame_split(nng_msg_body(msg), nng_msg_len(msg), &parts);
    if (r == 0)
        r = wire_unpack(&meshd__v1__reply_header__descriptor, parts.header, parts.header_len,
                        &arena, &message);
    if (r == 0) {
        header = (const Meshd__V1__ReplyHeader *)message;
        if (header->call_id == call_id)
            result = (struct rpc_result){.status = header->status,
                                         .reason = (uint32_t)header->reason,
                                         .text = header->text,
                                         .body = parts.body,
                                         .body_len = parts.body_len};
    }
    done(done_ctx, &result);
    arena_fini(&arena);
    nng_msg_free(msg);
}

static void on_received(void *arg)
{
    struct rpc_client *client = arg;
    int r = rpc_errno(nng_aio_result(client->call.recv));
    nng_msg *msg = r == 0 ? nng_aio_get_msg(client->call.recv) : NULL;
    rpc_done *done;
    void *done_ctx;
    uint64_t call_id;

    mutex_lock(&client->lock);
    nng_aio_set_msg(client->call.recv, NULL);
    client->state = IDLE;
    done = client->done;
    done_ctx = client->done_ctx;
    call_id = client->call_id;
    mutex_unlock(&client->lock);
    if (msg)
        read_reply(msg, call_id, done, done_ctx);
    else
        give_up(done, done_ctx, r);
}

static int aios_alloc(struct rpc_client *client, struct aios *out_aios)
{
    int rv;

    *out_aios = (struct aios){NULL, NULL};
    rv = nng_aio_alloc(&out_aios->send, on_sent, client);
    if (rv == 0)
        rv = nng_aio_alloc(&out_aios->recv, on_received, client);
    if (rv != 0)
        aios_free(out_aios);
    return rpc_errno(rv);
}

static int pack_call(const struct rpc_client *client, const char *method, uint64_t call_id,
                     uint32_t deadline_ms, const ProtobufCMessage *request, nng_msg **out_msg)
{
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    size_t size;
    int rv;

    header.method = (char *)method;
    header.call_id = call_id;
    header.deadline_ms = deadline_ms;
    header.wire_version = WIRE_VERSION_MAX;
    size = frame_size(&header.base, request);
    if (size > client->settings.message_bytes)
        return -EMSGSIZE;
    rv = nng_msg_alloc(out_msg, size);
    if (rv != 0)
        return rpc_errno(rv);
    frame_pack(&header.base, request, nng_msg_body(*out_msg));
    return 0;
}

/* Why no call may begin now, or 0. */
static int refuse_locked(const struct rpc_client *client) REQUIRES(client->lock)
{
    if (client->state != IDLE)
        return -EBUSY;
    return client->quiet && client->pipe ? -EPIPE : 0;
}

int rpc_client_call(struct rpc_client *client, const char *method, const ProtobufCMessage *request,
                    uint32_t deadline_ms, rpc_done *done, void *ctx)
{
    struct aios spare; /* this call's, and then those of the last but one */
    nng_msg *msg = NULL;
    uint64_t call_id;
    int r;

    if (deadline_ms == 0 || deadline_ms > DEADLINE_MAX)
        return -EINVAL;
    mutex_lock(&client->lock);
    r = refuse_locked(client);
    call_id = client->call_id + 1;
    mutex_unlock(&client->lock);
    if (r == 0)
        r = pack_call(client, method, call_id, deadline_ms, request, &msg);
    if (r < 0)
        return r;
    r = aios_alloc(client, &spare);
    if (r < 0) {
        nng_msg_free(msg);
        return r;
    }
    mutex_lock(&client->lock);
    r = client->call_id + 1 == call_id ? refuse_locked(client) : -EBUSY;
    if (r == 0) {
        struct aios call = spare;

        spare = client->old;
        client->old = client->call;
        client->call = call;
        client->state = SENDING;
        client->quiet = false;
        client->call_id = call_id;
        client->deadline_ms = clock_ms() + deadline_ms;
        client->done = done;
        client->done_ctx = ctx;
        nng_aio_set_msg(client->call.send, msg);
        nng_aio_set_timeout(client->call.send, (nng_duration)deadline_ms);
        /* With the lock held, so that rpc_client_quiet finds it cancellable. nng never calls back
         * from in here. */
        nng_send_aio(client->sock, client->call.send);
    }
    mutex_unlock(&client->lock);
    aios_free(&spare);
    if (r < 0)
        nng_msg_free(msg);
    return r;
}

uint64_t rpc_client_quiet(struct rpc_client *client)
{
    uint64_t sent;

    mutex_lock(&client->lock);
    client->quiet = true;
    if (client->state == SENDING)
        nng_aio_cancel(client->call.send);
    /* Whether nng had taken it by then is known when its callback has run. */
    while (client->state == SENDING)
        pthread_cond_wait(&client->moved_on, &client->lock.os);
    if (client->state == RECEIVING)
        nng_aio_cancel(client->call.recv);
    sent = client->sent;
    mutex_unlock(&client->lock);
    return sent;
}

/* ---- sessions ---- */

/* Before anything is sent on it. */
static void pipe_added(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct rpc_client *client = arg;

    mutex_lock(&client->lock);
    client->pipe = (uint32_t)nng_pipe_id(pipe);
    client->sent = 0;
    client->quiet = false;
    mutex_unlock(&client->lock);
}

static void pipe_gone(void *arg)
{
    struct rpc_client *client = arg;

    client->settings.gone(client->settings.ctx);
}

static void pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct rpc_client *client = arg;

    mutex_lock(&client->lock);
    if (client->pipe == (uint32_t)nng_pipe_id(pipe)) {
        client->pipe = 0;
        client->sent = 0;
        client->quiet = false;
    }
    mutex_unlock(&client->lock);
    rpc_after_pipe(pipe_gone, client);
}

static int client_listen(struct rpc_client *client)
{
    int rv = nng_socket_set_ms(client->sock, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);

    if (rv == 0)
        rv = nng_pipe_notify(client->sock, NNG_PIPE_EV_ADD_PRE, pipe_added, client);
    if (rv == 0)
        rv = nng_pipe_notify(client->sock, NNG_PIPE_EV_REM_POST, pipe_removed, client);
    if (rv != 0)
        return rpc_errno(rv);
    return rpc_listen(client->sock, client->settings.path, client->settings.message_bytes);
}

int rpc_client_open(const struct rpc_client_settings *settings, struct rpc_client **out_client)
{
    struct rpc_client *client = calloc(1, sizeof(*client));
    int r;

    if (!client)
        return -ENOMEM;
    client->settings = *settings;
    r = rpc_errno(nng_req0_open(&client->sock));
    if (r < 0) {
        free(client);
        return r;
    }
    mutex_init(&client->lock);
    pthread_cond_init(&client->moved_on, NULL);
    r = client_listen(client);
    client->settings.path = NULL; /* the caller's, and not needed again */
    if (r < 0) {
        rpc_client_close(client);
        return r;
    }
    *out_client = client;
    return 0;
}

void rpc_client_close(struct rpc_client *client)
{
    if (!client)
        return;
    nng_aio_stop(client->call.send);
    nng_aio_stop(client->call.recv);
    nng_close(client->sock);
    aios_free(&client->call);
    aios_free(&client->old);
    pthread_cond_destroy(&client->moved_on);
    mutex_fini(&client->lock);
    free(client);
}
