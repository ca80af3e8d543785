/* names - a table of hosts, a thread that knows when to ask, and threads that ask.
 *
 * getaddrinfo blocks for as long as it likes and cannot be called off. So it has threads of its
 * own: libuv's pool lets two slow names stop all others, and the daemon's with them. They are few,
 * made as they are needed, and detached: one that hangs when the end comes is left behind with a
 * reference to the table's shell, and touches nothing else. Some of them are kept free for names
 * that a dial waits for.
 *
 * The keeper thread compares lists, which may take a while and must hold up nobody, and wakes
 * names whose time has come.
 */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/names.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <string.h>
#include <uthash.h>
#include "base/clock.h"
#include "base/hash.h"
#include "forward/inside.h"
#include "forward/tuple.h"
#include "registry/list.h"
#include "wire/name.h"

#define AGAIN_MS 30000u
#define FAILED_MS 1000u /* so long a failure is an answer */
#define ASKING_MAX 16u  /* threads */
#define AHEAD_MAX 8u    /* of them for names that no dial waits for */

/* What is asked first, first. */
enum queue { QUEUE_DIALLED, QUEUE_NEW, QUEUE_KNOWN, N_QUEUES };
enum name_state { NAME_RESTS, NAME_QUEUED, NAME_ASKED };

struct name {
    UT_hash_handle hh;
    enum name_state state;
    bool ahead;        /* while it is asked: nobody waited when that began */
    struct ring place; /* in resting, or in a queue */
    struct ring waits;
    size_t rows;             /* of the local list that name it */
    uint64_t due_ms;         /* while it rests */
    struct addresses answer; /* the last good one; n 0: none yet */
    int error;               /* of the last query */
    uint64_t error_ms;       /* when that came */
    char host[];
};

struct names {
    struct forward *forward;
    struct names_how how;
    atomic_uint refs; /* whoever made it, and each thread that asks */
    atomic_bool stopped;
    pthread_t keeper;
    bool keeping;
    struct list *applied; /* the keeper's: the list that `rows` are counted of */
    struct mutex lock;
    pthread_cond_t due, work; /* for the keeper; for threads that ask */
    struct {                  /* only with lock held */
        struct name *by_host;
        struct ring queues[N_QUEUES];
        struct ring resting; /* by due_ms */
        size_t n_queued;
        unsigned threads, idle, ahead;
        struct list *shown;
    } held;
};

/* ---- the table ---- */

static struct name *name_find_locked(struct names *names, const char *host) REQUIRES(names->lock)
{
    struct name *name;

    HASH_FIND(hh, names->held.by_host, host, strlen(host), name);
    return name;
}

/* NULL: no memory. It rests, and is due. */
static struct name *name_get_locked(struct names *names, const char *host) REQUIRES(names->lock)
{
    struct name *name = name_find_locked(names, host);
    size_t len = strlen(host);

    if (name)
        return name;
    name = calloc(1, sizeof(*name) + len + 1);
    if (!name)
        return NULL;
    memcpy(name->host, host, len + 1);
    ring_init(&name->place);
    ring_init(&name->waits);
    HASH_ADD(hh, names->held.by_host, host[0], len, name);
    if (!name->hh.tbl) {
        free(name);
        return NULL;
    }
    return name;
}

static void unqueue_locked(struct names *names, struct name *name) REQUIRES(names->lock)
{
    ring_drop(&name->place);
    if (name->state == NAME_QUEUED)
        names->held.n_queued--;
    name->state = NAME_RESTS;
}

static void name_forget_locked(struct names *names, struct name *name) REQUIRES(names->lock)
{
    unqueue_locked(names, name);
    HASH_DEL(names->held.by_host, name);
    free(name);
}

/* ---- threads that ask ---- */

static void names_unref(struct names *names)
{
    if (atomic_fetch_sub(&names->refs, 1) > 1)
        return;
    pthread_cond_destroy(&names->due);
    pthread_cond_destroy(&names->work);
    mutex_fini(&names->lock);
    free(names);
}

static struct name *pick_locked(struct names *names) REQUIRES(names->lock)
{
    for (unsigned queue = 0; queue < N_QUEUES; queue++) {
        struct ring *ring = &names->held.queues[queue];
        struct name *name;

        if (ring_empty(ring))
            continue;
        if (queue != QUEUE_DIALLED && names->held.ahead == AHEAD_MAX)
            break;
        name = CONTAINER_OF(ring->next, struct name, place);
        unqueue_locked(names, name);
        name->state = NAME_ASKED;
        name->ahead = queue != QUEUE_DIALLED;
        names->held.ahead += name->ahead;
        return name;
    }
    return NULL;
}

/* NULL: the end. */
static struct name *next_locked(struct names *names) REQUIRES(names->lock)
{
    while (!atomic_load(&names->stopped)) {
        struct name *name = pick_locked(names);

        if (name)
            return name;
        names->held.idle++;
        pthread_cond_wait(&names->work, &names->lock.os);
        names->held.idle--;
    }
    return NULL;
}

/* RFC 8305 4: the resolver's order, but families take turns; each address once. */
static void arrange(const struct in6_addr *found, size_t n, struct addresses *out)
{
    bool taken[NAMES_FOUND] = {false};

    out->n = 0;
    while (out->n < NAMES_ADDRESSES) {
        size_t at = n;

        for (size_t i = 0; i < n; i++) {
            if (taken[i])
                continue;
            if (at == n)
                at = i;
            if (out->n > 0 &&
                IN6_IS_ADDR_V4MAPPED(&found[i]) == IN6_IS_ADDR_V4MAPPED(&out->at[out->n - 1]))
                continue;
            at = i;
            break;
        }
        if (at == n)
            return;
        out->at[out->n++] = found[at];
        for (size_t i = at; i < n; i++)
            taken[i] |= memcmp(&found[i], &found[at], sizeof(*found)) == 0;
    }
}

static void answered_locked(struct names *names, struct name *name, const struct in6_addr *found,
                            int n) REQUIRES(names->lock)
{
    uint64_t now = clock_ms();

    atomic_fetch_add(&names->forward->count.resolves, 1);
    if (n > 0) {
        arrange(found, (size_t)n, &name->answer);
        name->error = 0;
    } else {
        atomic_fetch_add(&names->forward->count.resolves_failed, 1);
        name->error = n < 0 ? n : -ENOENT;
        name->error_ms = now;
    }
    while (!ring_empty(&name->waits)) {
        struct names_wait *wait = CONTAINER_OF(name->waits.next, struct names_wait, ring);

        ring_drop(&wait->ring);
        wait->error = name->error;
        wait->found = name->answer;
        wait->posted = true;
        worker_post(wait->worker, &wait->mail);
    }
    names->held.ahead -= name->ahead;
    name->state = NAME_RESTS;
    name->due_ms = now + names->how.again_ms;
    if (ring_empty(&names->held.resting))
        pthread_cond_signal(&names->due);
    ring_push(&names->held.resting, &name->place);
}

static void *ask_for_names(void *arg)
{
    struct names *names = arg;
    struct name *name;

    mutex_lock(&names->lock);
    while ((name = next_locked(names)) != NULL) {
        struct in6_addr found[NAMES_FOUND];
        char host[LIMIT_NAME + 1];
        int n;

        memcpy(host, name->host, strlen(name->host) + 1);
        mutex_unlock(&names->lock);
        n = names->how.resolve(host, found, NAMES_FOUND);
        mutex_lock(&names->lock);
        if (atomic_load(&names->stopped))
            break; /* the name may be gone, and more */
        answered_locked(names, name, found, n);
    }
    mutex_unlock(&names->lock);
    names_unref(names);
    return NULL;
}

/* Without memory for a thread the name waits for one that there is, or for the next one asked. */
static void new_thread_locked(struct names *names) REQUIRES(names->lock)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    atomic_fetch_add(&names->refs, 1);
    if (pthread_create(&thread, &attr, ask_for_names, names) == 0)
        names->held.threads++;
    else
        atomic_fetch_sub(&names->refs, 1);
    pthread_attr_destroy(&attr);
}

static void queue_locked(struct names *names, struct name *name, enum queue queue)
    REQUIRES(names->lock)
{
    unqueue_locked(names, name);
    ring_push(&names->held.queues[queue], &name->place);
    name->state = NAME_QUEUED;
    names->held.n_queued++;
    if (names->held.n_queued > names->held.idle &&
        names->held.threads < (queue == QUEUE_DIALLED ? ASKING_MAX : AHEAD_MAX))
        new_thread_locked(names);
    pthread_cond_signal(&names->work);
}

/* ---- dials ---- */

int names_ask(struct names *names, const char *host, struct names_wait *wait)
{
    struct name *name;
    int r = NAMES_E_LATER;

    mutex_lock(&names->lock);
    name = name_get_locked(names, host);
    if (!name) {
        r = -ENOMEM;
    } else if (name->answer.n > 0) {
        wait->found = name->answer;
        r = 0;
    } else if (atomic_load(&names->stopped)) {
        r = -ECANCELED;
    } else if (name->state != NAME_ASKED && name->error < 0 &&
               clock_ms() - name->error_ms < FAILED_MS) {
        r = name->error;
    } else {
        wait->posted = false;
        ring_push(&name->waits, &wait->ring);
        if (name->state != NAME_ASKED)
            queue_locked(names, name, QUEUE_DIALLED);
    }
    mutex_unlock(&names->lock);
    return r;
}

bool names_leave(struct names *names, struct names_wait *wait)
{
    bool posted;

    mutex_lock(&names->lock);
    posted = wait->posted;
    if (!posted)
        ring_drop(&wait->ring);
    mutex_unlock(&names->lock);
    return !posted;
}

/* ---- the keeper ---- */

static bool host_to_ask(const struct row *row, char out_host[LIMIT_NAME + 1])
{
    struct in6_addr ip;
    uint16_t port;

    return row && addr_split(row->backend, row->backend_len, out_host, &port) == 0 &&
           inet_pton(AF_INET, out_host, &ip) != 1 && inet_pton(AF_INET6, out_host, &ip) != 1;
}

/* Either may be NULL. Where there is no memory, the host is asked for when it is dialled. */
static void move_row_locked(struct names *names, const char *was, const char *is)
    REQUIRES(names->lock)
{
    struct name *name = is ? name_get_locked(names, is) : NULL;

    if (name && name->rows++ == 0 && name->state == NAME_RESTS && name->answer.n == 0)
        queue_locked(names, name, QUEUE_NEW);
    name = was ? name_find_locked(names, was) : NULL;
    if (name && name->rows > 0 && --name->rows == 0 && name->state != NAME_ASKED &&
        ring_empty(&name->waits))
        name_forget_locked(names, name);
}

static int row_changed(void *ctx, struct row *before, struct row *after)
{
    struct names *names = ctx;
    char was[LIMIT_NAME + 1], is[LIMIT_NAME + 1];
    bool went = host_to_ask(before, was), came = host_to_ask(after, is);

    if (went || came) {
        mutex_lock(&names->lock);
        move_row_locked(names, went ? was : NULL, came ? is : NULL);
        mutex_unlock(&names->lock);
    }
    return atomic_load(&names->stopped);
}

/* Returns when there is more to do; 0: not before something is told. */
static uint64_t wake_due_locked(struct names *names) REQUIRES(names->lock)
{
    uint64_t now = clock_ms();

    while (!ring_empty(&names->held.resting)) {
        struct name *name = CONTAINER_OF(names->held.resting.next, struct name, place);

        if (name->due_ms > now)
            return name->due_ms;
        if (name->rows > 0)
            queue_locked(names, name, QUEUE_KNOWN);
        else
            name_forget_locked(names, name); /* was dialled, but never named, or no more */
    }
    return 0;
}

static void *keep(void *arg)
{
    struct names *names = arg;

    mutex_lock(&names->lock);
    while (!atomic_load(&names->stopped)) {
        struct timespec until;
        uint64_t due_ms;

        if (names->held.shown != names->applied) {
            struct list *next = list_ref(names->held.shown);

            mutex_unlock(&names->lock);
            list_diff(names->applied, next, row_changed, names);
            list_unref(names->applied);
            names->applied = next;
            mutex_lock(&names->lock);
            continue;
        }
        due_ms = wake_due_locked(names);
        until.tv_sec = (time_t)(due_ms / 1000);
        until.tv_nsec = (long)(due_ms % 1000) * 1000000;
        if (due_ms > 0)
            pthread_cond_timedwait(&names->due, &names->lock.os, &until);
        else
            pthread_cond_wait(&names->due, &names->lock.os);
    }
    mutex_unlock(&names->lock);
    return NULL;
}

void names_show(struct names *names, struct snapshot *snap)
{
    struct list *old = NULL;

    mutex_lock(&names->lock);
    if (names->held.shown != snap->local) {
        old = names->held.shown;
        names->held.shown = list_ref(snap->local);
        pthread_cond_signal(&names->due);
    }
    mutex_unlock(&names->lock);
    list_unref(old);
}

/* ---- the whole ---- */

static int resolve(const char *host, struct in6_addr *out, size_t cap)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    size_t n = 0;
    int r = getaddrinfo(host, NULL, &hints, &found);

    if (r != 0)
        return r == EAI_MEMORY ? -ENOMEM : -ENOENT;
    for (const struct addrinfo *ai = found; ai && n < cap; ai = ai->ai_next) {
        struct sockaddr_storage addr = {0};
        struct endpoint endpoint;

        memcpy(&addr, ai->ai_addr, ai->ai_addrlen);
        if (endpoint_from(&addr, &endpoint))
            out[n++] = endpoint.ip;
    }
    freeaddrinfo(found);
    return (int)n;
}

int names_new(struct forward *forward, struct names **out_names)
{
    const struct names_how how = {.resolve = resolve, .again_ms = AGAIN_MS};

    return names_new_by(forward, &how, out_names);
}

int names_new_by(struct forward *forward, const struct names_how *how, struct names **out_names)
{
    struct names *names = calloc(1, sizeof(*names));
    pthread_condattr_t attr;

    if (!names)
        return -ENOMEM;
    names->forward = forward;
    names->how = *how;
    names->refs = 1;
    names->applied = list_empty();
    names->held.shown = list_ref(names->applied);
    for (size_t i = 0; i < N_QUEUES; i++)
        ring_init(&names->held.queues[i]);
    ring_init(&names->held.resting);
    mutex_init(&names->lock);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&names->due, &attr);
    pthread_cond_init(&names->work, NULL);
    pthread_condattr_destroy(&attr);
    *out_names = names;
    return 0;
}

int names_start(struct names *names)
{
    int r = -pthread_create(&names->keeper, NULL, keep, names);

    names->keeping = r == 0;
    return r;
}

void names_stop(struct names *names)
{
    if (!names->keeping)
        return;
    names->keeping = false;
    mutex_lock(&names->lock);
    atomic_store(&names->stopped, true);
    pthread_cond_signal(&names->due);
    pthread_cond_broadcast(&names->work);
    mutex_unlock(&names->lock);
    pthread_join(names->keeper, NULL);
}

void names_free(struct names *names)
{
    struct name *name, *next;

    if (!names)
        return;
    names_stop(names);
    mutex_lock(&names->lock);
    HASH_ITER(hh, names->held.by_host, name, next)
    {
        assert(ring_empty(&name->waits));
        name_forget_locked(names, name);
    }
    mutex_unlock(&names->lock);
    list_unref(names->applied);
    list_unref(names->held.shown);
    names_unref(names);
}
