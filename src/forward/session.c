/* session - a table by link number and by session id; what a session's end sets going. */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/session.h"

#include <errno.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/secret.h"
#include "forward/carry.h"
#include "forward/data.h"
#include "forward/outbox.h"
#include "forward/owner.h"
#include "policy/policy.h"

struct sessions {
    struct rwlock lock;
    struct session *by_link; /* with lock held */
    struct session *by_id;   /* likewise, by the hash of the id */
    uint64_t hash_key[2];    /* set before it is shared */
    struct carried *carried; /* likewise, by peer id */
};

int sessions_new(struct sessions **out_sessions)
{
    struct sessions *sessions = calloc(1, sizeof(*sessions));

    if (!sessions)
        return -ENOMEM;
    rwlock_init(&sessions->lock);
    random_bytes(sessions->hash_key, sizeof(sessions->hash_key));
    *out_sessions = sessions;
    return 0;
}

static void remove_locked(struct sessions *sessions, struct session *session)
{
    HASH_DELETE(by_link, sessions->by_link, session);
    HASH_DELETE(by_id, sessions->by_id, session);
}

void sessions_free(struct sessions *sessions)
{
    struct session *session, *next;

    if (!sessions)
        return;
    HASH_ITER(by_link, sessions->by_link, session, next)
    {
        remove_locked(sessions, session);
        session_unref(session);
    }
    rwlock_fini(&sessions->lock);
    free(sessions);
}

bool sessions_any(struct sessions *sessions, uint64_t *out_link)
{
    struct session *session;

    rwlock_read(&sessions->lock);
    session = sessions->by_link;
    if (session)
        *out_link = session->info.link;
    rwlock_read_done(&sessions->lock);
    return session != NULL;
}

uint64_t sessions_most_warm(struct sessions *sessions)
{
    struct session *session;
    uint64_t most = 0;

    rwlock_read(&sessions->lock);
    for (session = sessions->by_link; session; session = session->by_link.next)
        for (int ours = 0; ours < 2; ours++)
            if (atomic_load(&session->warm[ours]) > most)
                most = atomic_load(&session->warm[ours]);
    rwlock_read_done(&sessions->lock);
    return most;
}

/* ---- whom a peer carries, whichever session they came by ---- */

static struct carried *carried_take_locked(struct sessions *sessions, const char *peer_id)
{
    struct carried *carried;

    HASH_FIND_STR(sessions->carried, peer_id, carried);
    if (!carried) {
        carried = calloc(1, sizeof(*carried));
        if (!carried)
            return NULL;
        memcpy(carried->peer_id, peer_id, strlen(peer_id) + 1);
        HASH_ADD_STR(sessions->carried, peer_id, carried);
        if (!carried->hh.tbl) {
            free(carried);
            return NULL;
        }
    }
    carried->sessions++;
    return carried;
}

static void carried_drop(struct sessions *sessions, struct carried *carried)
{
    if (!carried)
        return;
    rwlock_write(&sessions->lock);
    if (--carried->sessions == 0) {
        HASH_DEL(sessions->carried, carried);
        free(carried);
    }
    rwlock_write_done(&sessions->lock);
}

/* ---- references ---- */

struct session *session_ref(struct session *session)
{
    atomic_fetch_add_explicit(&session->refs, 1, memory_order_relaxed);
    return session;
}

void session_unref(struct session *session)
{
    if (!session || atomic_fetch_sub(&session->refs, 1) != 1)
        return;
    carried_drop(session->forward->sessions, session->carried);
    outboxes_free(session);
    pools_free(session);
    free(session);
}

struct session *session_by_link(struct forward *forward, uint64_t link,
                                const uint8_t session_id[SESSION_ID_LEN])
{
    struct session *session;

    rwlock_read(&forward->sessions->lock);
    HASH_FIND(by_link, forward->sessions->by_link, &link, sizeof(link), session);
    if (session && !secret_equal(session->info.session_id, session_id, SESSION_ID_LEN))
        session = NULL;
    if (session)
        session_ref(session);
    rwlock_read_done(&forward->sessions->lock);
    return session;
}

static uint64_t hash_of_id(const struct sessions *sessions, const uint8_t id[SESSION_ID_LEN])
{
    return hash_sip13(sessions->hash_key, id, SESSION_ID_LEN);
}

/* The id is a secret, with which strangers try their luck. How long the look-up takes depends on
 * its hash alone, under a key that nobody knows: of an id that is nearly right that is as far away
 * as of any other. The id itself is then compared whole. */
struct session *session_by_id(struct forward *forward, const uint8_t session_id[SESSION_ID_LEN])
{
    uint64_t id_hash = hash_of_id(forward->sessions, session_id);
    struct session *session;

    rwlock_read(&forward->sessions->lock);
    HASH_FIND(by_id, forward->sessions->by_id, &id_hash, sizeof(id_hash), session);
    if (session && !secret_equal(session->info.session_id, session_id, SESSION_ID_LEN))
        session = NULL;
    if (session)
        session_ref(session);
    rwlock_read_done(&forward->sessions->lock);
    return session;
}

bool session_may(const struct session *session)
{
    char rule[POLICY_RULE_TEXT];

    return policy_allows(session->forward->policy, POLICY_LINK, session->info.peer_id, "", rule);
}

int session_send(struct session *session, int kind, const ProtobufCMessage *body)
{
    const struct forward_ops *ops = &session->forward->ops;

    if (atomic_load(&session->over))
        return -EPIPE;
    return ops->send(ops->ctx, session->info.line, kind, session->info.session_id, body);
}

void session_cancel(struct session *session, uint8_t id[FORWARD_ID_LEN])
{
    Meshd__V1__Cancel cancel = MESHD__V1__CANCEL__INIT;
    ProtobufCBinaryData ids = {.len = FORWARD_ID_LEN, .data = id};

    cancel.n_forward_ids = 1;
    cancel.forward_ids = &ids;
    session_send(session, MESHD__V1__LINK_KIND__LINK_KIND_CANCEL, &cancel.base);
}

/* ---- begin and end ---- */

static bool add_locked(struct sessions *sessions, struct session *session)
{
    session->carried = carried_take_locked(sessions, session->info.peer_id);
    if (!session->carried)
        return false;
    HASH_ADD(by_link, sessions->by_link, info.link, sizeof(session->info.link), session);
    if (!session->by_link.tbl)
        return false;
    HASH_ADD(by_id, sessions->by_id, id_hash, sizeof(session->id_hash), session);
    if (session->by_id.tbl)
        return true;
    HASH_DELETE(by_link, sessions->by_link, session);
    return false;
}

int forward_session_begin(struct forward *forward, const struct forward_session_info *info)
{
    struct session *session = calloc(1, sizeof(*session));
    bool added;

    if (!session)
        return -ENOMEM;
    session->info = *info;
    session->forward = forward;
    session->id_hash = hash_of_id(forward->sessions, info->session_id);
    atomic_init(&session->refs, 1);
    if (pools_new(session) < 0 || outboxes_new(session) < 0) {
        session_unref(session);
        return -ENOMEM;
    }
    forward_session_end(forward, info->link);
    rwlock_write(&forward->sessions->lock);
    added = add_locked(forward->sessions, session);
    rwlock_write_done(&forward->sessions->lock);
    if (added)
        return 0;
    session_unref(session);
    return -ENOMEM;
}

struct over_mail {
    struct mail mail;
    struct session *session;
};

static void read_over(struct worker *worker, struct mail *mail)
{
    struct over_mail *m = CONTAINER_OF(mail, struct over_mail, mail);

    if (!worker->stopping) {
        outbox_session_over(worker, m->session);
        carry_session_over(worker, m->session);
        owner_session_over(worker, m->session);
        data_session_over(worker, m->session);
    }
    session_unref(m->session);
    free(m);
}

/* A reference, or NULL. */
static struct session *find_by_link(struct forward *forward, uint64_t link)
{
    struct session *session;

    rwlock_read(&forward->sessions->lock);
    HASH_FIND(by_link, forward->sessions->by_link, &link, sizeof(link), session);
    if (session)
        session_ref(session);
    rwlock_read_done(&forward->sessions->lock);
    return session;
}

void forward_session_end(struct forward *forward, uint64_t link)
{
    struct session *session;

    rwlock_write(&forward->sessions->lock);
    HASH_FIND(by_link, forward->sessions->by_link, &link, sizeof(link), session);
    if (session)
        remove_locked(forward->sessions, session);
    rwlock_write_done(&forward->sessions->lock);
    if (!session)
        return;
    atomic_store(&session->over_ms, clock_ms());
    atomic_store(&session->over, true);
    for (unsigned i = 0; i < forward->n_workers; i++) {
        struct over_mail *mail = calloc(1, sizeof(*mail));

        if (!mail)
            continue; /* its pending Forwards end by their deadlines */
        mail->mail.read = read_over;
        mail->session = session_ref(session);
        worker_post(&forward->workers[i], &mail->mail);
    }
    session_unref(session);
}

size_t forward_session_pending(struct forward *forward, uint64_t link)
{
    struct session *session = find_by_link(forward, link);
    size_t pending = session ? atomic_load(&session->pending) : 0;

    session_unref(session);
    return pending;
}

uint32_t forward_data_wanted(struct forward *forward, uint64_t link)
{
    struct session *session = find_by_link(forward, link);
    uint32_t wanted = session ? pools_wanted(session) : 0;

    session_unref(session);
    return wanted;
}

void forward_data_wish(struct forward *forward, uint64_t link, uint32_t wanted)
{
    struct session *session = find_by_link(forward, link);

    if (!session)
        return;
    if (wanted > forward->limits.data_warm_per_link)
        wanted = (uint32_t)forward->limits.data_warm_per_link;
    if (atomic_exchange(&session->wish, wanted) != wanted)
        pools_wished(session);
    session_unref(session);
}
