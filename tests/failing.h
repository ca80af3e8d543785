/* failing - makes one allocation of the static rooms fail, and counts those that are alive; those
 * of the libraries go their own way. Needs the linker's --wrap= of malloc, calloc, realloc and
 * free, and is for one file of a program.
 */
#ifndef TESTS_FAILING_H
#define TESTS_FAILING_H

#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);

static __thread long until_failure = -1; /* on this thread; negative: none fails */
static long alive;                       /* on all */

static bool fails(void) { return until_failure >= 0 && until_failure-- == 0; }

static void *counted(void *p)
{
    __atomic_add_fetch(&alive, p != NULL, __ATOMIC_RELAXED);
    return p;
}

void *__wrap_malloc(size_t size) { return fails() ? NULL : counted(__real_malloc(size)); }

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *p, size_t size)
{
    void *moved = fails() ? NULL : __real_realloc(p, size);

    return p ? moved : counted(moved);
}

void __wrap_free(void *p)
{
    __atomic_sub_fetch(&alive, p != NULL, __ATOMIC_RELAXED);
    __real_free(p);
}

#endif
