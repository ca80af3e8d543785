/* A main() in which a storm goes over two forward rooms, for TSan: Criterion does not run there. */
#include <unistd.h>
#include "forward/must.h"
#include "forward/storm.h"

static struct rig rig;

int main(void)
{
    struct storm storm = {.rig = &rig, .seed = 1, .threads = 6, .rounds = 20, .faults = 80};

    alarm(100);
    rig_init(&rig);
    storm_run(&storm);
    MUST(storm.whole > 0);
    return 0;
}
