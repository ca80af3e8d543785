/* lock - pthread locks that clang's -Wthread-safety can check.
 *
 * struct rwlock prefers writers and must not be taken twice by one thread, not even for reading: a
 * writer waiting in between would deadlock it. Every function here aborts on misuse rather than
 * returning an error that nobody could handle.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <pthread.h>

#ifdef __clang__
#define CAPABILITY(name) __attribute__((capability(name)))
#define ACQUIRE(...) __attribute__((acquire_capability(__VA_ARGS__)))
#define ACQUIRE_SHARED(...) __attribute__((acquire_shared_capability(__VA_ARGS__)))
#define RELEASE(...) __attribute__((release_capability(__VA_ARGS__)))
#define RELEASE_SHARED(...) __attribute__((release_shared_capability(__VA_ARGS__)))
#define REQUIRES(...) __attribute__((requires_capability(__VA_ARGS__)))
#define REQUIRES_SHARED(...) __attribute__((requires_shared_capability(__VA_ARGS__)))
#define NO_THREAD_SAFETY __attribute__((no_thread_safety_analysis))
#else
#define CAPABILITY(name)
#define ACQUIRE(...)
#define ACQUIRE_SHARED(...)
#define RELEASE(...)
#define RELEASE_SHARED(...)
#define REQUIRES(...)
#define REQUIRES_SHARED(...)
#define NO_THREAD_SAFETY
#endif

struct CAPABILITY("rwlock") rwlock {
    pthread_rwlock_t os;
};

void rwlock_init(struct rwlock *lock);
void rwlock_fini(struct rwlock *lock);
void rwlock_read(struct rwlock *lock) ACQUIRE_SHARED(*lock);
void rwlock_read_done(struct rwlock *lock) RELEASE_SHARED(*lock);
void rwlock_write(struct rwlock *lock) ACQUIRE(*lock);
void rwlock_write_done(struct rwlock *lock) RELEASE(*lock);

struct CAPABILITY("mutex") mutex {
    pthread_mutex_t os;
};

void mutex_init(struct mutex *lock);
void mutex_fini(struct mutex *lock);
void mutex_lock(struct mutex *lock) ACQUIRE(*lock);
void mutex_unlock(struct mutex *lock) RELEASE(*lock);

#endif
