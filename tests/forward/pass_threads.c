/* A main() in which a storm goes over two forward rooms, for TSan: Criterion does not run there. */
#include <unistd.h>
#include "forward/must.h"
#include "forward/storm.h"

static struct rig rig;

int main(int argc, char **argv)
{
    struct storm storm = {.rig = &rig, .seed = 1, .threads = 6, .rounds = 20, .faults = 300};

    alarm(100);
    if (argc > 1)
        storm.seed = (unsigned)atoi(argv[1]);
    rig_init(&rig);
    storm_run(&storm);
    MUST(storm.whole > 0);
    return 0;
}
