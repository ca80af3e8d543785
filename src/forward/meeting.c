/* meeting - every forward id that is pending here, and on which worker. */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/data.h"

#include <errno.h>
#include <string.h>
#include "base/hash.h"

struct meeting {
    struct mutex lock;
    struct waiter *by_id; /* with lock held */
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
    mutex_fini(&meeting->lock);
    free(meeting);
}

static struct waiter *find_locked(struct meeting *meeting, const uint8_t *id)
{
    struct waiter *waiter;

    HASH_FIND(hh, meeting->by_id, id, FORWARD_ID_LEN, waiter);
    return waiter;
}

static int add_locked(struct meeting *meeting, struct waiter *waiter)
{
    HASH_ADD(hh, meeting->by_id, id, FORWARD_ID_LEN, waiter);
    return waiter->hh.tbl ? 0 : -ENOMEM;
}

static void remove_locked(struct meeting *meeting, struct waiter *waiter)
{
    HASH_DEL(meeting->by_id, waiter);
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

int waiter_enter_owner(struct forward *forward, struct waiter *waiter, struct data **out_data)
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
    if (!there)
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

enum meet waiter_meet(struct forward *forward, struct data *data, struct worker **out_worker)
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
