/* One writer, several readers. */
#include <criterion/criterion.h>
#include "registry/threads_body.h"

Test(registry_threads, readers_never_see_the_maps_disagree) { cr_expect_eq(threads_body(), 0); }
