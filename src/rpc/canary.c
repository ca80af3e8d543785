/* canary - one song is one pair of sockets; its thread is its own, for nng_close may never return.
 */
#include "rpc/canary.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <nng/nng.h>
#include <nng/protocol/pair1/pair.h>
#include "base/lock.h"

#define LOOK_MS 100u
#define LOOKS 50u /* of LOOK_MS: a machine that stood still, or is too busy, has not looked */

struct song { /* shared by who sings and who listens; the last of them frees it */
    struct mutex lock;
    pthread_cond_t changed;
    unsigned users;
    unsigned removed; /* pipes whose REM_POST came */
    int result;       /* 1 while it lasts */
};

struct canary {
    uint32_t every_ms;
    void (*sick)(void *ctx);
    void *ctx;
    pthread_t thread;
    struct mutex lock;
    pthread_cond_t stop;
    bool stopping; /* with lock held */
    atomic_bool healthy;
};

static struct timespec after_ms(uint32_t ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static void song_release(struct song *song)
{
    unsigned left;

    mutex_lock(&song->lock);
    left = --song->users;
    mutex_unlock(&song->lock);
    if (left > 0)
        return;
    pthread_cond_destroy(&song->changed);
    mutex_fini(&song->lock);
    free(song);
}

static void pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct song *song = arg;

    mutex_lock(&song->lock);
    song->removed++;
    pthread_cond_broadcast(&song->changed);
    mutex_unlock(&song->lock);
}

/* Both sockets have lost their pipe, or the listener never had one. */
static int sing(struct song *song)
{
    static atomic_uint number;
    nng_socket a = NNG_SOCKET_INITIALIZER, b = NNG_SOCKET_INITIALIZER;
    char url[64];
    int rv;

    snprintf(url, sizeof(url), "inproc://canary-%u", atomic_fetch_add(&number, 1));
    rv = nng_pair1_open(&a);
    if (rv == 0)
        rv = nng_pair1_open(&b);
    if (rv == 0)
        rv = nng_pipe_notify(b, NNG_PIPE_EV_REM_POST, pipe_removed, song);
    if (rv == 0)
        rv = nng_listen(a, url, NULL, 0);
    if (rv == 0)
        rv = nng_dial(b, url, NULL, 0);
    /* Closing waits until the pipes are gone, and REM_POST comes first. */
    nng_close(b);
    nng_close(a);
    return rv == 0 ? 0 : -EIO;
}

static void *sing_thread(void *arg)
{
    struct song *song = arg;
    int r = sing(song);

    mutex_lock(&song->lock);
    song->result = r == 0 && song->removed == 0 ? -EIO : r;
    pthread_cond_broadcast(&song->changed);
    mutex_unlock(&song->lock);
    song_release(song);
    return NULL;
}

static int start_thread(struct song *song)
{
    pthread_attr_t attr;
    pthread_t thread;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return -r;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&thread, &attr, sing_thread, song);
    pthread_attr_destroy(&attr);
    return -r;
}

int canary_sing(void)
{
    struct song *song = calloc(1, sizeof(*song));
    int r;

    if (!song)
        return -ENOMEM;
    mutex_init(&song->lock);
    pthread_cond_init(&song->changed, NULL);
    song->users = 2;
    song->result = 1;
    r = start_thread(song);
    if (r < 0) {
        song->users = 1;
        song_release(song);
        return r;
    }
    mutex_lock(&song->lock);
    for (unsigned looks = 0; song->result == 1 && looks < LOOKS;) {
        struct timespec until = after_ms(LOOK_MS);

        looks += pthread_cond_clockwait(&song->changed, &song->lock.os, CLOCK_MONOTONIC, &until) ==
                 ETIMEDOUT;
    }
    r = song->result == 1 ? -ETIMEDOUT : song->result;
    mutex_unlock(&song->lock);
    song_release(song);
    return r;
}

static void *canary_thread(void *arg)
{
    struct canary *canary = arg;

    mutex_lock(&canary->lock);
    while (!canary->stopping) {
        struct timespec until = after_ms(canary->every_ms);
        int r;

        mutex_unlock(&canary->lock);
        /* Only silence means illness: a lack of memory or threads passes. */
        if (canary_sing() == -ETIMEDOUT) {
            atomic_store(&canary->healthy, false);
            canary->sick(canary->ctx);
            return NULL;
        }
        mutex_lock(&canary->lock);
        for (r = 0; !canary->stopping && r == 0;)
            r = pthread_cond_clockwait(&canary->stop, &canary->lock.os, CLOCK_MONOTONIC, &until);
    }
    mutex_unlock(&canary->lock);
    return NULL;
}

static void canary_free(struct canary *canary)
{
    pthread_cond_destroy(&canary->stop);
    mutex_fini(&canary->lock);
    free(canary);
}

int canary_start(uint32_t every_ms, void (*sick)(void *ctx), void *ctx, struct canary **out_canary)
{
    struct canary *canary = calloc(1, sizeof(*canary));
    int r;

    if (!canary)
        return -ENOMEM;
    canary->every_ms = every_ms;
    canary->sick = sick;
    canary->ctx = ctx;
    mutex_init(&canary->lock);
    pthread_cond_init(&canary->stop, NULL);
    atomic_init(&canary->healthy, true);
    r = pthread_create(&canary->thread, NULL, canary_thread, canary);
    if (r != 0) {
        canary_free(canary);
        return -r;
    }
    *out_canary = canary;
    return 0;
}

void canary_stop(struct canary *canary)
{
    if (!canary)
        return;
    mutex_lock(&canary->lock);
    canary->stopping = true;
    pthread_cond_signal(&canary->stop);
    mutex_unlock(&canary->lock);
    pthread_join(canary->thread, NULL);
    canary_free(canary);
}

bool canary_healthy(const struct canary *canary) { return atomic_load(&canary->healthy); }
