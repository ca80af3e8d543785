/* replica - a copy of what a node knows: one thread follows the node and changes the table, readers
 * read it.
 *
 * What a Watch tells is kept row by row (kept.h). A name whose rows have changed is dirty, and gets
 * its new answer when the node has said that all up to some revision was told; in a picture, when
 * it is complete. Until then readers see what was before, so no reader ever sees half a picture or
 * half a change. The thread owns follow, kept and all of the table but its readers.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <meshd/client.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "client/error.h"
#include "client/following.h"
#include "client/inside.h"
#include "client/kept.h"
#include "client/table.h"
#include "client/target.h"
#include "wire/name.h"

#define HEARTBEAT_MS 1000u /* so old a copy may be said to be while its node is there */
#define PAUSE_MS 100u      /* before it begins anew, without memory, ... */
#define REFUSED_MS 5000u   /* ... or after the node has turned it down */

struct mesh_replica {
    char *url, *name;
    struct trust *trust; /* of tls://; else NULL */
    struct follow *follow;
    struct kept kept;
    struct table *table;
    struct table_name *dirty;
    int stop_fd;      /* readable when `stop` is set */
    atomic_bool stop; /* looked at between messages, which may come without end */
    bool running;
    pthread_t thread;
    bool complete;          /* it was, at least once */
    uint64_t connects_done; /* of followers before this one */
    /* As in struct mesh_replica_state; written by the thread, read by anybody. */
    atomic_int current;
    _Atomic uint64_t heard_ms, epoch, revision, instances, changes, resyncs, reconnects;
};

struct mesh_reader {
    struct mesh_replica *replica;
    struct table_reader *table;
    struct mesh_list list;
};

/* ---- what was told ---- */

static void make_dirty(struct mesh_replica *replica, struct table_name *name)
{
    if (name->dirty)
        return;
    name->dirty = true;
    name->next_dirty = replica->dirty;
    replica->dirty = name;
}

static void link_row(struct mesh_replica *replica, struct table_name *name, struct kept_row *row)
{
    row->of = name;
    row->prev = NULL;
    row->next = name->rows;
    if (row->next)
        row->next->prev = row;
    name->rows = row;
    name->n_rows++;
    make_dirty(replica, name);
}

/* Takes row, which is out of the store already. */
static void drop_row(struct mesh_replica *replica, struct kept_row *row)
{
    struct table_name *name = row->of;

    if (row->next)
        row->next->prev = row->prev;
    if (row->prev)
        row->prev->next = row->next;
    else
        name->rows = row->next;
    name->n_rows--;
    make_dirty(replica, name);
    free(row);
}

static void count_change(struct mesh_replica *replica)
{
    if (replica->complete)
        atomic_fetch_add(&replica->changes, 1);
}

static int put_row(struct mesh_replica *replica, const Meshd__V1__ServiceRow *told)
{
    struct kept_row *row, *old = NULL;
    struct table_name *name;
    int r = 0;

    /* What cannot be a row is passed over: a later version may have more kinds. */
    if (!name_is_canon(told->name, strlen(told->name)))
        return 0;
    name = table_find(replica->table, told->name);
    if (!name) {
        r = table_add(replica->table, told->name, &name);
        if (r < 0)
            return r;
        make_dirty(replica, name); /* should nothing come of it, it goes again */
    }
    r = kept_put(&replica->kept, told, &row, &old);
    if (r == KEPT_SAME || r == -EINVAL)
        return 0;
    if (r < 0)
        return r;
    if (old)
        drop_row(replica, old);
    link_row(replica, name, row);
    count_change(replica);
    return 0;
}

static void take_row(struct mesh_replica *replica, struct kept_row *row)
{
    if (!row)
        return;
    drop_row(replica, row);
    count_change(replica);
}

static int apply_event(struct mesh_replica *replica, const Meshd__V1__WatchEvent *event)
{
    if (!event->row)
        return 0;
    switch (event->kind) {
    case MESHD__V1__WATCH_KIND__WATCH_KIND_UP:
    case MESHD__V1__WATCH_KIND__WATCH_KIND_CHANGED:
        return put_row(replica, event->row);
    case MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN:
        take_row(replica, kept_take(&replica->kept, event->row));
        return 0;
    default:
        return 0;
    }
}

/* Readers see what was told. After -ENOMEM the rest stays dirty, for the picture that comes then.
 */
static int publish(struct mesh_replica *replica)
{
    while (replica->dirty) {
        struct table_name *name = replica->dirty, *next = name->next_dirty;
        int r;

        name->dirty = false;
        r = table_answer(replica->table, name);
        if (r < 0) {
            name->dirty = true;
            return r;
        }
        replica->dirty = next;
    }
    atomic_store(&replica->instances, replica->kept.n);
    return 0;
}

static void note_status(struct mesh_replica *replica)
{
    struct follow_status status;
    uint64_t connects;

    follow_status(replica->follow, &status);
    connects = replica->connects_done + status.connects;
    atomic_store(&replica->heard_ms, status.heard_ms);
    atomic_store(&replica->epoch, status.epoch);
    atomic_store(&replica->revision, status.revision);
    atomic_store(&replica->reconnects, connects > 0 ? connects - 1 : 0);
}

/* 0, or -ENOMEM, -E2BIG: it must begin anew. */
static int apply(struct mesh_replica *replica, const Meshd__V1__WatchReply *reply)
{
    struct kept_row *row;
    int r;

    if (reply->resync) {
        atomic_store(&replica->current, 0);
        if (replica->complete)
            atomic_fetch_add(&replica->resyncs, 1);
        kept_picture(&replica->kept);
    }
    for (size_t i = 0; i < reply->n_events; i++) {
        r = apply_event(replica, reply->events[i]);
        if (r < 0)
            return r;
    }
    if (reply->synced)
        while ((row = kept_sweep(&replica->kept)))
            take_row(replica, row);
    if (!replica->kept.in_picture && reply->revision != 0) {
        r = publish(replica);
        if (r < 0)
            return r;
    }
    note_status(replica);
    if (reply->synced) {
        replica->complete = true;
        atomic_store(&replica->current, 1);
    }
    table_turn(replica->table);
    return 0;
}

/* ---- the thread ---- */

/* True: it was told to stop. timeout_ms as of poll(2). */
static bool wait_for_news(struct mesh_replica *replica, int timeout_ms)
{
    struct pollfd p[2] = {
        {.fd = replica->stop_fd, .events = POLLIN},
        {.fd = timeout_ms < 0 ? follow_fd(replica->follow) : -1, .events = POLLIN},
    };

    poll(p, 2, timeout_ms);
    return p[0].revents != 0;
}

/* With a follower that knows nothing and so is told everything. True: it was told to stop. */
static bool begin_anew(struct mesh_replica *replica, int pause_ms)
{
    struct follow_status status;
    struct follow *fresh;

    atomic_store(&replica->current, 0);
    for (;;) {
        if (wait_for_news(replica, pause_ms))
            return true;
        if (following_new(replica->url, replica->trust, replica->name, HEARTBEAT_MS, &fresh) ==
            MESH_OK)
            break;
        pause_ms = PAUSE_MS;
    }
    follow_status(replica->follow, &status);
    replica->connects_done += status.connects;
    follow_free(replica->follow);
    replica->follow = fresh;
    return false;
}

/* All that has come so far. True: it was told to stop. */
static bool follow_on(struct mesh_replica *replica)
{
    while (!atomic_load(&replica->stop)) {
        const Meshd__V1__WatchReply *reply;
        int r = follow_next(replica->follow, 0, &reply);

        if (r == 0)
            r = apply(replica, reply);
        if (r == -ETIMEDOUT)
            return false;
        if (r == FOLLOW_LOST)
            atomic_store(&replica->current, 0);
        else if (r != 0)
            return begin_anew(replica, r == FOLLOW_ENDED ? REFUSED_MS : PAUSE_MS);
    }
    return true;
}

static void *run(void *arg)
{
    struct mesh_replica *replica = arg;

    while (!wait_for_news(replica, -1) && !follow_on(replica))
        ;
    return NULL;
}

static int start_thread(struct mesh_replica *replica)
{
    sigset_t all, before;
    int r;

    replica->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (replica->stop_fd < 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&replica->thread, NULL, run, replica);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        return -r;
    pthread_setname_np(replica->thread, "mesh-replica");
    replica->running = true;
    return 0;
}

/* ---- the public door ---- */

void mesh_replica_close(struct mesh_replica *replica)
{
    if (!replica)
        return;
    if (replica->running) {
        atomic_store(&replica->stop, true);
        eventfd_write(replica->stop_fd, 1);
        pthread_join(replica->thread, NULL);
    }
    if (replica->stop_fd >= 0)
        close(replica->stop_fd);
    follow_free(replica->follow);
    kept_fini(&replica->kept);
    table_free(replica->table);
    trust_unref(replica->trust);
    free(replica->url);
    free(replica->name);
    free(replica);
}

static void closep(struct mesh_replica **replica) { mesh_replica_close(*replica); }

static int make(const char *url, const char *name, struct mesh_replica **out_replica)
{
    CLEANUP(closep) struct mesh_replica *replica = calloc(1, sizeof(*replica));
    int r = 0;

    if (!replica)
        return -ENOMEM;
    replica->stop_fd = -1;
    if (!url)
        r = target_choose(false, &replica->url);
    else if (!(replica->url = strdup(url)))
        r = -ENOMEM;
    if (r == 0 && name && !(replica->name = strdup(name)))
        r = -ENOMEM;
    if (r == 0)
        r = table_new(&replica->table);
    if (r < 0)
        return r;
    *out_replica = TAKE(&replica);
    return 0;
}

/* Until the copy is complete. */
static enum mesh_status fill(struct mesh_replica *replica, uint64_t deadline_ms)
{
    while (!replica->complete) {
        const Meshd__V1__WatchReply *reply;
        enum mesh_status status = following_first(replica->follow, deadline_ms, &reply);
        int r;

        if (status != MESH_OK)
            return status;
        r = apply(replica, reply);
        if (r < 0)
            return error_errno(r, "mesh_replica_open");
        if (!replica->complete && clock_ms() >= deadline_ms)
            return following_error(replica->follow, -ETIMEDOUT);
    }
    return MESH_OK;
}

enum mesh_status mesh_replica_open_tls(const char *url, const struct mesh_tls *tls,
                                       const char *name, int deadline_ms,
                                       struct mesh_replica **out_replica)
{
    CLEANUP(closep) struct mesh_replica *replica = NULL;
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);
    int r;

    if (status != MESH_OK)
        return status;
    r = make(url, name, &replica);
    if (r < 0)
        return error_errno(r, "mesh_replica_open");
    status = trust_open(replica->url, tls, &replica->trust);
    if (status == MESH_OK)
        status = following_new(replica->url, replica->trust, name, HEARTBEAT_MS, &replica->follow);
    if (status == MESH_OK)
        status = fill(replica, deadline);
    if (status != MESH_OK)
        return status;
    r = start_thread(replica);
    if (r < 0)
        return error_errno(r, "mesh_replica_open");
    *out_replica = TAKE(&replica);
    return MESH_OK;
}

enum mesh_status mesh_replica_open(const char *url, const char *name, int deadline_ms,
                                   struct mesh_replica **out_replica)
{
    return mesh_replica_open_tls(url, NULL, name, deadline_ms, out_replica);
}

void mesh_replica_state(struct mesh_replica *replica, struct mesh_replica_state *out_state)
{
    uint64_t heard = atomic_load(&replica->heard_ms), now = clock_ms();

    *out_state = (struct mesh_replica_state){
        .current = atomic_load(&replica->current),
        .age_ms = now > heard ? now - heard : 0,
        .epoch = atomic_load(&replica->epoch),
        .revision = atomic_load(&replica->revision),
        .instances = atomic_load(&replica->instances),
        .changes = atomic_load(&replica->changes),
        .resyncs = atomic_load(&replica->resyncs),
        .reconnects = atomic_load(&replica->reconnects),
    };
}

enum mesh_status mesh_reader_open(struct mesh_replica *replica, struct mesh_reader **out_reader)
{
    struct mesh_reader *reader = calloc(1, sizeof(*reader));
    int r = reader ? table_reader_open(replica->table, &reader->table) : -ENOMEM;

    if (r < 0) {
        free(reader);
        return error_errno(r, "mesh_reader_open");
    }
    reader->replica = replica;
    *out_reader = reader;
    return MESH_OK;
}

void mesh_reader_close(struct mesh_reader *reader)
{
    if (!reader)
        return;
    table_reader_close(reader->table);
    list_fini(&reader->list);
    free(reader);
}

/* Of a name that is not there as it is spelled: perhaps it is under its canonical spelling. */
static int look_up_again(struct mesh_reader *reader, const char *name, size_t len,
                         enum name_error *out_wrong)
{
    char canon[LIMIT_NAME + 1];

    *out_wrong = name_canon(name, len, canon);
    if (*out_wrong || strcmp(canon, name) == 0)
        return TABLE_ABSENT;
    return table_look_up(reader->table, canon, strlen(canon), &reader->list);
}

enum mesh_status mesh_replica_lookup(struct mesh_reader *reader, const char *name,
                                     const struct mesh_list **out_list)
{
    int current = atomic_load_explicit(&reader->replica->current, memory_order_acquire);
    enum name_error wrong = NAME_OK;
    size_t len;
    int r;

    if (!name)
        return error_set(MESH_INVALID, "that is no name of a service");
    len = strlen(name);
    /* Every name in the table is canonical, so one that is found needs not be looked at. */
    r = table_look_up(reader->table, name, len, &reader->list);
    if (r == TABLE_ABSENT)
        r = look_up_again(reader, name, len, &wrong);
    if (wrong)
        return error_set(MESH_INVALID, "the name %s", name_error_text(wrong));
    if (r == TABLE_ABSENT)
        return error_set(MESH_NOT_FOUND, "nobody offers %s", name);
    if (r < 0)
        return error_errno(r, "mesh_replica_lookup");
    reader->list.current = current;
    *out_list = &reader->list;
    return MESH_OK;
}
