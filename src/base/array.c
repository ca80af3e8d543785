/* array - see array.h. */
#include "base/array.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int array_room(void *array_at, size_t *cap, size_t count, size_t size, size_t first)
{
    size_t want = *cap ? *cap : first, bytes;
    void *array;

    if (count <= *cap)
        return 0;
    while (want < count && want <= SIZE_MAX / 2)
        want *= 2;
    if (want < count || __builtin_mul_overflow(want, size, &bytes))
        return -ENOMEM;
    memcpy(&array, array_at, sizeof(array)); /* whatever it points to */
    array = realloc(array, bytes);
    if (!array)
        return -ENOMEM;
    memcpy(array_at, &array, sizeof(array));
    *cap = want;
    return 0;
}
