/* arrive - a DATA connection that the gate hands over, with its preamble read. */
#include "forward/pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "forward/recheck.h"
#include "tls/tls.h"
#include "wire/status.h"

struct arrived_mail {
    struct mail mail;
    int fd;
    struct tls *tls;
    enum data_first first;
    struct session *session;
    size_t n_rest;
    uint8_t rest[];
};

static void arrive(struct worker *worker, const struct arrived_mail *m)
{
    struct data *data = data_new(worker, m->session, m->fd, m->tls, true);

    if (!data) {
        atomic_fetch_sub(&m->session->nobodys, 1);
        return;
    }
    data->counted = true;
    if (!recheck_late(worker, data->leg)) {
        data->revoked = true;
        data_die(data);
        return;
    }
    data->ours = m->first == DATA_FIRST_OTHER;
    alarm_set(worker, &data->alarm, data->ours ? CLAIM_MS : WARM_MS);
    if (m->n_rest < DATA_HEADER_LEN) {
        memcpy(data->in, m->rest, m->n_rest);
        data->n_in = m->n_rest;
        pool_add(data);
        data_want(data);
        return;
    }
    memcpy(data->in, m->rest, DATA_HEADER_LEN);
    if (!bytes_copy(&data->early, m->rest + DATA_HEADER_LEN, m->n_rest - DATA_HEADER_LEN)) {
        data_drop(data);
        return;
    }
    data_heard(data);
}

static void read_arrived(struct worker *worker, struct mail *mail)
{
    struct arrived_mail *m = CONTAINER_OF(mail, struct arrived_mail, mail);

    if (worker->stopping || atomic_load(&m->session->over)) {
        tls_free(m->tls);
        close(m->fd);
        atomic_fetch_sub(&m->session->nobodys, 1);
    } else {
        arrive(worker, m);
    }
    session_unref(m->session);
    free(m);
}

/* One that was handed over in plaintext where TLS is spoken, or the other way round, or whose
 * certificate names somebody else, is none of the session's. */
static bool is_of(const struct session *session, const struct tls *tls,
                  const struct preamble *preamble)
{
    const char *peer_id = session->info.peer_id;

    return !session->info.dialled && strcmp(peer_id, preamble->peer_id) == 0 &&
           (tls != NULL) == (session->forward->tls != NULL) &&
           (!tls || tls_names(tls_peer(tls), peer_id));
}

int forward_data(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                 const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                 const char **out_text)
{
    struct forward *forward = ctx;
    struct session *session = session_by_id(forward, preamble->token);
    struct arrived_mail *m;

    if (!session || !is_of(session, tls, preamble)) {
        session_unref(session);
        atomic_fetch_add(&forward->count.data_unexpected, 1);
        *out_text = "no such session of a link that this peer dialled";
        return STATUS_UNAUTHENTICATED;
    }
    if (!session_may(session)) {
        session_unref(session);
        atomic_fetch_add(&forward->count.data_unexpected, 1);
        *out_text = "the policy does not let that peer have a link with this node";
        return STATUS_PERMISSION_DENIED;
    }
    /* Two full pools, and those that are quicker than their Forwards, as all are when the link's
     * own connection waits for a packet that was lost. */
    if (atomic_fetch_add(&session->nobodys, 1) >=
        2 * forward->limits.data_warm_per_link + forward->limits.forwards_pending) {
        atomic_fetch_sub(&session->nobodys, 1);
        session_unref(session);
        *out_text = "too many DATA connections of this link that no Forward waits for";
        return STATUS_RESOURCE_EXHAUSTED;
    }
    m = calloc(1, sizeof(*m) + rest_len);
    if (!m) {
        atomic_fetch_sub(&session->nobodys, 1);
        session_unref(session);
        *out_text = "out of memory";
        return STATUS_RESOURCE_EXHAUSTED;
    }
    m->mail.read = read_arrived;
    m->fd = fd;
    m->tls = tls;
    m->first = preamble->first;
    m->session = session;
    m->n_rest = rest_len;
    if (rest_len)
        memcpy(m->rest, rest, rest_len);
    atomic_fetch_add(&forward->count.data_accepted, 1);
    worker_post(forward_next_worker(forward), &m->mail);
    return 0;
}
