/* held_expiry - nng's threads that expire things let go of a lock just before they cancel what they
 * have chosen. That is the only lock they let go of by themselves, but for what cancelling takes;
 * so the first time is before it, and the second in it.
 */
#include "rpc/held_expiry.h"
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include "forward/must.h"
#include "rpc/fake_gate.h"

static _Atomic int stage; /* 0: not armed; 1: armed; 2: one is held, or let go on */
static sem_t held, go_on, over;

static bool expires(void)
{
    char name[16] = "";

    prctl(PR_GET_NAME, name);
    return strcmp(name, "nng:aio:expire") == 0;
}

static void wait_for(sem_t *sem)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FAKE_MS / 1000;
    MUST(sem_clockwait(sem, CLOCK_MONOTONIC, &until) == 0);
}

/* In place of libc's, for nng too. */
int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    static int (*_Atomic real)(pthread_mutex_t *);
    int (*unlock)(pthread_mutex_t *) = real, r, now;

    if (!unlock) {
        *(void **)&unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
        real = unlock;
    }
    r = unlock(mutex);
    now = stage;
    if (now == 0 || !expires())
        return r;
    if (now == 1 && atomic_compare_exchange_strong(&stage, &now, 2)) {
        sem_post(&held);
        wait_for(&go_on);
    } else if (now == 2 && atomic_compare_exchange_strong(&stage, &now, 0)) {
        sem_post(&over);
    }
    return r;
}

void held_expiry_arm(void)
{
    MUST(sem_init(&held, 0, 0) == 0 && sem_init(&go_on, 0, 0) == 0 && sem_init(&over, 0, 0) == 0);
    stage = 1;
}

void held_expiry_wait(void) { wait_for(&held); }

void held_expiry_release(void)
{
    sem_post(&go_on);
    wait_for(&over);
}
