/* Room in arrays. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include "base/array.h"

Test(array, grows_by_doubling_and_keeps_what_is_there)
{
    uint32_t *array = NULL;
    size_t cap = 0;

    for (uint32_t n = 0; n < 1000; n++) {
        cr_assert_eq(array_room(&array, &cap, n + 1, sizeof(*array), 3), 0);
        array[n] = n;
    }
    cr_expect_eq(cap, 3u << 9);
    for (uint32_t n = 0; n < 1000; n++)
        cr_expect_eq(array[n], n);
    free(array);
}

Test(array, many_at_once_get_their_room)
{
    char *array = NULL;
    size_t cap = 0;

    cr_assert_eq(array_room(&array, &cap, 0, 1, 16), 0);
    cr_expect_null(array);
    cr_assert_eq(array_room(&array, &cap, 100, 1, 16), 0);
    cr_expect_eq(cap, 128u);
    free(array);
}

Test(array, what_no_memory_could_hold_changes_nothing)
{
    uint64_t *array = NULL;
    size_t cap = 0;

    cr_assert_eq(array_room(&array, &cap, 5, sizeof(*array), 8), 0);
    array[4] = 7;
    cr_expect_eq(array_room(&array, &cap, SIZE_MAX, sizeof(*array), 8), -ENOMEM);
    cr_expect_eq(array_room(&array, &cap, SIZE_MAX / 4, sizeof(*array), 8), -ENOMEM);
    cr_expect_eq(cap, 8u);
    cr_expect_eq(array[4], 7u);
    free(array);
}
