/* lock - pthread locks that abort on misuse.
 *
 * The analysis is off in the bodies: it sees a plain pthread call there, and trusts the header. */
#include "base/lock.h"
#include <stdlib.h>

/* Every error of these calls is a mistake in this program: the same thread twice, or a lock that
 * is not held. */
static void must(int error)
{
    if (error != 0)
        abort();
}

void rwlock_init(struct rwlock *lock)
{
    pthread_rwlockattr_t attr;

    must(pthread_rwlockattr_init(&attr));
    must(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
    must(pthread_rwlock_init(&lock->os, &attr));
    must(pthread_rwlockattr_destroy(&attr));
}

void rwlock_fini(struct rwlock *lock) { must(pthread_rwlock_destroy(&lock->os)); }

void rwlock_read(struct rwlock *lock) NO_THREAD_SAFETY { must(pthread_rwlock_rdlock(&lock->os)); }

void rwlock_read_done(struct rwlock *lock) NO_THREAD_SAFETY
{
    must(pthread_rwlock_unlock(&lock->os));
}

void rwlock_write(struct rwlock *lock) NO_THREAD_SAFETY { must(pthread_rwlock_wrlock(&lock->os)); }

void rwlock_write_done(struct rwlock *lock) NO_THREAD_SAFETY
{
    must(pthread_rwlock_unlock(&lock->os));
}

void mutex_init(struct mutex *lock)
{
    pthread_mutexattr_t attr;

    must(pthread_mutexattr_init(&attr));
    /* So that a second lock or a foreign unlock is an error rather than a hang. */
    must(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK));
    must(pthread_mutex_init(&lock->os, &attr));
    must(pthread_mutexattr_destroy(&attr));
}

void mutex_fini(struct mutex *lock) { must(pthread_mutex_destroy(&lock->os)); }

void mutex_lock(struct mutex *lock) NO_THREAD_SAFETY { must(pthread_mutex_lock(&lock->os)); }

void mutex_unlock(struct mutex *lock) NO_THREAD_SAFETY { must(pthread_mutex_unlock(&lock->os)); }
