/* secret - comparing what a stranger must not guess byte by byte. */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes as long for a near miss as for a wild guess. */
static inline bool secret_equal(const void *a, const void *b, size_t len)
{
    const volatile uint8_t *left = a, *right = b;
    volatile uint8_t differs = 0;

    for (size_t i = 0; i < len; i++)
        differs |= left[i] ^ right[i];
    return differs == 0;
}

#endif
