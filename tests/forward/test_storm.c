/* Whatever happens, at random: what clients are told is true, and nothing is left. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/clock.h"
#include "forward/storm.h"

static struct rig rig;

Test(storm, each_client_has_its_own_bytes_whole_or_sees_that_it_has_not, .timeout = 100)
{
    const char *given = getenv("MESHD_TEST_SEED");
    struct storm storm = {.rig = &rig,
                          .seed = given ? (unsigned)atoi(given)
                                        : (unsigned)clock_ms() ^ ((unsigned)getpid() << 10),
                          .threads = 12,
                          .rounds = 40,
                          .faults = 150};

    rig_init(&rig);
    storm_run(&storm);
    cr_assert_gt(storm.whole, 0);
    fprintf(stderr, "storm: %u whole, %u refused, %u broken\n", storm.whole, storm.refused,
            storm.broken);
}
