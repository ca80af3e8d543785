/* fail_malloc - makes one malloc of the static rooms fail; needs the linker's --wrap=malloc. */
#ifndef TESTS_FAIL_MALLOC_H
#define TESTS_FAIL_MALLOC_H

#include <stddef.h>

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static unsigned long mallocs_until_failure; /* 0: none fails */

void *__wrap_malloc(size_t size)
{
    if (mallocs_until_failure > 0 && --mallocs_until_failure == 0)
        return NULL;
    return __real_malloc(size);
}

#endif
