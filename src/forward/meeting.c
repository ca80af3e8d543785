/* meeting - every forward id that is pending here, and on which worker. */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/hash.h"
#include "forward/carry.h"
#include "forward/owner.h"
#include "forward/recheck.h"
#include "tls/tls.h"

/* Joined ids. Who is in doubt asks again 300 ms after an id was joined (DOUBT_MS in carry.c), or
 * later by what messages wait for: at 16,000 joins a second the last ones are those of a second. */
#define REMEMBERED 16384u

struct remembered {
    uint8_t id[FORWARD_ID_LEN];
    UT_hash_handle hh; /* tbl NULL: not remembered, or there was no memory */
};

struct meeting {
    struct mutex lock;
    struct { /* with lock held */
        struct waiter *by_id;
        struct remembered *joined;          /* by id */
        size_t n_joined;                    /* ever */
        struct remembered last[REMEMBERED]; /* ... of which these are the last */
    } held;
};

int meeting_new(struct meeting **out_meeting)
{
    struct meeting *meeting = calloc(1, sizeof(*meeting));

    if (!meeting)
        return -ENOMEM;
    mutex_init(&meeting->lock);
    *out_meeting = meeting;
    return 0;
}

void meeting_free(struct meeting *meeting)
{
    if (!meeting)
        return;
    HASH_CLEAR(hh, meeting->held.joined);
    mutex_fini(&meeting->lock);
    free(meeting);
}

/* Bytes of ids are compared where the keyed hashes agree only, so that the time tells a guesser
 * nothing; who may guess at all has named a session first. */
static struct waiter *find_locked(struct meeting *meeting, const uint8_t *id)
{
    struct waiter *waiter;

    HASH_FIND(hh, meeting->held.by_id, id, FORWARD_ID_LEN, waiter);
    return waiter;
}

static int add_locked(struct meeting *meeting, struct waiter *waiter)
{
    HASH_ADD(hh, meeting->held.by_id, id, FORWARD_ID_LEN, waiter);
    return waiter->hh.tbl ? 0 : -ENOMEM;
}

static void remove_locked(struct meeting *meeting, struct waiter *waiter)
{
    HASH_DEL(meeting->held.by_id, waiter);
    waiter->hh.tbl = NULL;
}

int waiter_enter(struct forward *forward, struct waiter *waiter)
{
    struct meeting *meeting = forward->meeting;
    int r = -EEXIST;

    mutex_lock(&meeting->lock);
    if (!find_locked(meeting, waiter->id))
        r = add_locked(meeting, waiter);
    mutex_unlock(&meeting->lock);
    return r;
}

void waiter_leave(struct forward *forward, struct waiter *waiter)
{
    mutex_lock(&forward->meeting->lock);
    if (waiter->hh.tbl)
        remove_locked(forward->meeting, waiter);
    mutex_unlock(&forward->meeting->lock);
}

/* In the place of the oldest. */
static void remember_locked(struct meeting *meeting, const uint8_t *id)
{
    struct remembered *one = &meeting->held.last[meeting->held.n_joined++ % REMEMBERED];

    if (one->hh.tbl)
        HASH_DEL(meeting->held.joined, one);
    memcpy(one->id, id, FORWARD_ID_LEN);
    HASH_ADD(hh, meeting->held.joined, id, FORWARD_ID_LEN, one);
}

void waiter_joined(struct forward *forward, struct waiter *waiter)
{
    struct meeting *meeting = forward->meeting;

    mutex_lock(&meeting->lock);
    remember_locked(meeting, waiter->id);
    if (waiter->hh.tbl)
        remove_locked(meeting, waiter);
    mutex_unlock(&meeting->lock);
}

static bool was_joined_locked(const struct meeting *meeting, const uint8_t *id)
{
    const struct remembered *found;

    HASH_FIND(hh, meeting->held.joined, id, FORWARD_ID_LEN, found);
    return found != NULL;
}

bool waiter_leave_data(struct forward *forward, struct data *data)
{
    bool taken;

    mutex_lock(&forward->meeting->lock);
    taken = data->taken;
    if (data->waiter.hh.tbl)
        remove_locked(forward->meeting, &data->waiter);
    mutex_unlock(&forward->meeting->lock);
    return taken;
}

struct waiter *waiter_find(struct worker *worker, const uint8_t id[FORWARD_ID_LEN])
{
    struct meeting *meeting = worker->forward->meeting;
    struct waiter *waiter;

    mutex_lock(&meeting->lock);
    waiter = find_locked(meeting, id);
    if (waiter && waiter->worker != worker)
        waiter = NULL;
    mutex_unlock(&meeting->lock);
    return waiter;
}

int waiter_enter_owner(struct forward *forward, struct waiter *waiter, bool asks_again,
                       struct data **out_data)
{
    struct meeting *meeting = forward->meeting;
    struct waiter *there;
    struct data *data = NULL;
    int r = -EEXIST;

    mutex_lock(&meeting->lock);
    there = find_locked(meeting, waiter->id);
    if (there && there->kind == WAITER_DATA && there->session == waiter->session) {
        data = CONTAINER_OF(there, struct data, waiter);
        remove_locked(meeting, there);
        there = NULL;
    }
    if (!there && asks_again && was_joined_locked(meeting, waiter->id))
        r = -EALREADY;
    else if (!there)
        r = add_locked(meeting, waiter);
    if (data && r == 0) {
        data->taken = true;
        waiter->worker = data->worker;
        *out_data = data;
    }
    mutex_unlock(&meeting->lock);
    return r;
}

bool waiter_post(struct forward *forward, const struct session *session, enum waiter_kind kind,
                 const uint8_t id[FORWARD_ID_LEN], struct mail *mail)
{
    struct meeting *meeting = forward->meeting;
    struct waiter *waiter;
    struct worker *worker = NULL;

    mutex_lock(&meeting->lock);
    waiter = find_locked(meeting, id);
    if (waiter && waiter->kind == kind && waiter->session == session)
        worker = waiter->worker;
    mutex_unlock(&meeting->lock);
    if (worker)
        worker_post(worker, mail);
    return worker != NULL;
}

/* ---- DATA whose header is there ---- */

/* It waits itself, or somebody on *out_worker has the id, or neither (another one waits with the
 * same id, or the id is another session's). */
enum meet { MEET_NOBODY, MEET_WAITS, MEET_WORKER };
static enum meet waiter_meet(struct forward *forward, struct data *data, struct worker **out_worker)
{
    struct meeting *meeting = forward->meeting;
    struct waiter *there;
    enum meet met = MEET_NOBODY;

    mutex_lock(&meeting->lock);
    there = find_locked(meeting, data->header.forward_id);
    if (there && there->kind == WAITER_DATA && there->session == data->session) {
        remove_locked(meeting, there); /* lost, or its peer would not have opened another */
        there = NULL;
    }
    if (!there) {
        memcpy(data->waiter.id, data->header.forward_id, FORWARD_ID_LEN);
        data->waiter.kind = WAITER_DATA;
        data->waiter.worker = data->worker;
        data->waiter.session = data->session;
        if (add_locked(meeting, &data->waiter) == 0)
            met = MEET_WAITS;
    } else if (there->kind != WAITER_DATA && there->session == data->session) {
        *out_worker = there->worker;
        met = MEET_WORKER;
    }
    mutex_unlock(&meeting->lock);
    return met;
}

struct moved_mail {
    struct mail mail;
    int fd;
    struct tls *tls;
    bool dialled, answered, said;
    struct session *session;
    struct data_header header;
    struct bytes early;
};

static void deliver(struct data *data)
{
    struct waiter *waiter = waiter_find(data->worker, data->header.forward_id);

    if (waiter && waiter->kind == WAITER_CARRY && waiter->session == data->session) {
        carry_data(waiter, data);
    } else if (waiter && waiter->kind == WAITER_OWNER && waiter->session == data->session) {
        owner_data(waiter, data);
    } else {
        COUNT(data->worker, data_late, 1);
        data_drop(data);
    }
}

static void read_moved(struct worker *worker, struct mail *mail)
{
    struct moved_mail *m = CONTAINER_OF(mail, struct moved_mail, mail);
    struct data *data = NULL;

    if (worker->stopping) {
        tls_free(m->tls);
        close(m->fd);
    } else {
        data = data_new(worker, m->session, m->fd, m->tls, true);
    }
    session_unref(m->session);
    if (data) {
        data->has_header = true;
        data->dialled = m->dialled;
        data->answered = m->answered;
        data->said = m->said;
        data->header = m->header;
        data->early = m->early;
        if (recheck_late(worker, data->leg)) {
            deliver(data);
        } else {
            data->revoked = true;
            data_die(data);
        }
    } else {
        bytes_free(&m->early);
    }
    free(m);
}

static void move(struct data *data, struct worker *worker)
{
    struct moved_mail *m = calloc(1, sizeof(*m));

    if (!m) {
        data_drop(data);
        return;
    }
    m->mail.read = read_moved;
    m->dialled = data->dialled;
    m->answered = data->answered;
    m->said = data->said;
    m->session = session_ref(data->session);
    m->header = data->header;
    m->early = data->early;
    data->early = (struct bytes){0};
    m->fd = leg_detach(data->leg, &m->tls);
    data_free(data);
    worker_post(worker, &m->mail);
}

void meeting_bring(struct data *data)
{
    struct worker *worker = NULL;

    switch (waiter_meet(data->worker->forward, data, &worker)) {
    case MEET_WAITS:
        COUNT(data->worker, data_waiting, 1);
        alarm_set(data->worker, &data->alarm, data->worker->forward->open_ms);
        /* Its Forward may have been refused before it came: then the other side ends it. */
        leg_want(data->leg, UV_DISCONNECT);
        break;
    case MEET_WORKER:
        if (worker == data->worker)
            deliver(data);
        else
            move(data, worker);
        break;
    case MEET_NOBODY:
        atomic_fetch_add(&data->worker->forward->count.data_unexpected, 1);
        data_drop(data);
        break;
    }
}
