/* printer - a bounded queue of pictures and the thread that prints them. */
#include "daemon/printer.h"

#include <errno.h>
#include <stdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"

#define QUEUE 64u /* pictures; each holds references only */
#define PRINTER_NICE 5
#define LATE_MS 100u /* the newest picture begins within this time */

struct waiting {
    struct snapshot *snap;
    uint64_t since_ms;
};

struct printer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    char peer_id[LIMIT_PEER_ID + 1];
    int fd;
    struct { /* only with lock held */
        enum print_what what;
        struct waiting queue[QUEUE];
        unsigned first, n;
        bool stopping, done;
        struct printer_counters counters;
    } held;
};

static int write_block(void *ctx, const char *text, size_t len)
{
    struct printer *p = ctx;

    return log_block(p->fd, "registry", text, len);
}

/* With the lock held: forgets all but the newest. */
static void skip_to_newest(struct printer *p)
{
    while (p->held.n > 1) {
        snapshot_unref(p->held.queue[p->held.first].snap);
        p->held.first = (p->held.first + 1) % QUEUE;
        p->held.n--;
        p->held.counters.skipped++;
    }
}

static void *run(void *arg)
{
    struct printer *p = arg;
    enum print_what what;

    /* Ten thousand rows take milliseconds: on a busy machine the mesh comes first. (On Linux this
     * is one thread's; that it may fail does not matter.) */
    setpriority(PRIO_PROCESS, 0, PRINTER_NICE); /* of this thread, says Linux */
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct waiting next;
        int r;

        while (!p->held.n && !p->held.stopping)
            pthread_cond_wait(&p->wake, &p->lock);
        if (!p->held.n)
            break;
        if (p->held.stopping || clock_ms() - p->held.queue[p->held.first].since_ms > LATE_MS)
            skip_to_newest(p);
        next = p->held.queue[p->held.first];
        p->held.first = (p->held.first + 1) % QUEUE;
        p->held.n--;
        what = p->held.what;
        pthread_mutex_unlock(&p->lock);
        r = print_maps(next.snap, p->peer_id, what, write_block, p);
        snapshot_unref(next.snap);
        pthread_mutex_lock(&p->lock);
        if (r)
            p->held.counters.failed++;
        else
            p->held.counters.printed++;
    }
    p->held.done = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int printer_start(const char *peer_id, enum print_what what, int fd, struct printer **out_printer)
{
    struct printer *p = calloc(1, sizeof *p);
    pthread_condattr_t attr;
    int r;

    if (!p)
        return -ENOMEM;
    snprintf(p->peer_id, sizeof p->peer_id, "%s", peer_id);
    p->held.what = what;
    p->fd = fd;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attr);
    pthread_condattr_destroy(&attr);
    r = pthread_create(&p->thread, NULL, run, p);
    if (r) {
        free(p);
        return -r;
    }
    *out_printer = p;
    return 0;
}

void printer_set(struct printer *p, enum print_what what)
{
    pthread_mutex_lock(&p->lock);
    p->held.what = what;
    pthread_mutex_unlock(&p->lock);
}

void printer_show(struct printer *p, struct snapshot *snap)
{
    pthread_mutex_lock(&p->lock);
    if (p->held.what == PRINT_NOTHING) {
        pthread_mutex_unlock(&p->lock);
        snapshot_unref(snap);
        return;
    }
    if (p->held.n == QUEUE)
        skip_to_newest(p);
    p->held.queue[(p->held.first + p->held.n) % QUEUE] =
        (struct waiting){.snap = snap, .since_ms = clock_ms()};
    p->held.n++;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void printer_stop(struct printer *p, uint32_t grace_ms)
{
    struct timespec until;
    bool done;

    if (!p)
        return;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += grace_ms / 1000;
    until.tv_nsec += (long)(grace_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&p->lock);
    p->held.stopping = true;
    pthread_cond_broadcast(&p->wake);
    while (!p->held.done && pthread_cond_timedwait(&p->wake, &p->lock, &until) != ETIMEDOUT)
        ;
    done = p->held.done;
    pthread_mutex_unlock(&p->lock);
    if (!done) {
        pthread_detach(p->thread); /* stuck in write(2); the process is about to end */
        return;
    }
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void printer_counters(struct printer *p, struct printer_counters *out_counters)
{
    pthread_mutex_lock(&p->lock);
    *out_counters = p->held.counters;
    pthread_mutex_unlock(&p->lock);
}
