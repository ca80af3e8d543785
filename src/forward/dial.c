/* dial - a DATA connection of this side's dialling: connect, the handshake, what is said first. */
#include "forward/pool.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/recheck.h"
#include "gate/tcp.h"
#include "tls/tls.h"

static void connected(struct data *data)
{
    data->connecting = false;
    if (!data->event)
        alarm_set(data->worker, &data->alarm, data->ours ? CLAIM_MS : WARM_MS);
}

/* The session insists on the peer itself (data_begin). */
static int secured(struct data *data)
{
    struct worker *worker = data->worker;
    int r = leg_handshake(data->leg);

    if (r == -EAGAIN)
        return r;
    if (r < 0) {
        COUNT(worker, data_tls_failed, 1);
        return r;
    }
    if (tls_peer(data->leg->tls)->resumed)
        COUNT(worker, data_tls_resumed, 1);
    return recheck_late(worker, data->leg) ? 0 : -EACCES;
}

int data_open(struct data *data)
{
    int r = leg_error(data->leg);

    if (r == 0 && data->leg->tls)
        r = secured(data);
    if (r == 0)
        connected(data);
    return r;
}

/* What is said first, at once if the connect is through already, as it is on one host. Where nobody
 * listens it may have met itself (tcp_met_itself): then it reads its own preamble, which is no
 * answer to one. */
static bool open_plain(struct data *data, const void *bytes, size_t len)
{
    ssize_t n = leg_send(data->leg, bytes, len, false);

    if (n == (ssize_t)len) {
        connected(data);
        data_want(data);
        return true;
    }
    if (n != -EAGAIN)
        return false;
    data_send(data, bytes, len, false);
    return data->out.data != NULL;
}

/* The handshake goes as far as it can; what is said first waits for its end. */
static bool open_secure(struct data *data, const void *bytes, size_t len)
{
    int r;

    data_send(data, bytes, len, false);
    if (!data->out.data)
        return false;
    r = data_open(data);
    data_want(data);
    return r == 0 || r == -EAGAIN;
}

struct data *data_begin(struct worker *worker, struct session *session, enum data_first first,
                        const struct data_header *header)
{
    const struct forward_session_info *info = &session->info;
    struct preamble preamble = {
        .version = PREAMBLE_VERSION, .kind = PREAMBLE_DATA, .has_token = 1, .first = first};
    uint8_t bytes[PREAMBLE_MAX + DATA_HEADER_LEN];
    struct tls_keeper *tls_keeper = worker->forward->tls;
    const int on = 1;
    struct tls *tls = NULL;
    struct data *data;
    size_t len;
    int fd;

    if (!info->dialled || atomic_load(&session->over))
        return NULL;
    fd = tcp_dial(&info->to, &info->from);
    if (fd < 0)
        return NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (tls_keeper && tls_new(tls_keeper, TLS_CONNECT, fd, info->peer_id, true, &tls) < 0) {
        close(fd);
        return NULL;
    }
    data = data_new(worker, session, fd, tls, false);
    if (!data)
        return NULL;
    COUNT(worker, data_dialled, 1);
    data->dialled = data->connecting = true;
    data->ours = first == DATA_FIRST_DIALLER;
    data->said = header != NULL;
    memcpy(preamble.peer_id, worker->forward->peer_id, sizeof(preamble.peer_id));
    memcpy(preamble.token, info->session_id, TOKEN_LEN);
    len = preamble_pack(&preamble, bytes);
    if (header) {
        data_header_pack(header, bytes + len);
        len += DATA_HEADER_LEN;
    }
    alarm_set(worker, &data->alarm, worker->forward->dial_ms);
    if (tls ? open_secure(data, bytes, len) : open_plain(data, bytes, len))
        return data;
    data_drop(data);
    return NULL;
}

struct data *data_dial(struct worker *worker, struct session *session,
                       const struct data_header *header, void *ctx,
                       void (*event)(void *ctx, enum data_event event))
{
    struct data *data = data_begin(worker, session, DATA_FIRST_DIALLER, header);

    if (!data)
        return NULL;
    data_own(data, ctx, event);
    alarm_set(worker, &data->alarm, worker->forward->open_ms);
    return data;
}
