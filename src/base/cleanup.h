/* cleanup - free on every way out of a scope, and hand on what must outlive it.
 *
 *   CLEANUP(row_freep) struct row *row = NULL;   freed when the scope ends
 *   return attach(TAKE(&row));                   unless it was taken
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define TAKE(p)                                                                                    \
    ({                                                                                             \
        __typeof__(*(p)) taken_ = *(p);                                                            \
        *(p) = NULL;                                                                               \
        taken_;                                                                                    \
    })
#define CONTAINER_OF(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

#endif
