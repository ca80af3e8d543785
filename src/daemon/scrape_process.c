/* scrape_process - the names and meanings are those that every client library of Prometheus uses:
 * https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
 */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "daemon/scrape.h"

static void gauge(struct metrics *out, const char *name, const char *help, uint64_t value)
{
    metrics_family(out, METRICS_GAUGE, name, help);
    metrics_value(out, NULL, 0, value);
}

static uint64_t us_of(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000 + (uint64_t)time->tv_usec;
}

static void memory(struct metrics *out)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long long pages, resident, page = (unsigned long long)sysconf(_SC_PAGESIZE);

    if (!file)
        return;
    if (fscanf(file, "%llu %llu", &pages, &resident) == 2) {
        gauge(out, "process_virtual_memory_bytes", "Virtual memory size in bytes.", pages * page);
        gauge(out, "process_resident_memory_bytes", "Resident memory size in bytes.",
              resident * page);
    }
    fclose(file);
}

/* Whoever watches how many are left must be told when there are none, and then even to count them
 * takes one. */
static void descriptors(struct metrics *out)
{
    DIR *dir = opendir("/proc/self/fd");
    bool none_left = !dir && errno == EMFILE, limited;
    struct rlimit most;
    uint64_t n = 0;

    limited = getrlimit(RLIMIT_NOFILE, &most) == 0;
    if (dir) {
        for (const struct dirent *at = readdir(dir); at; at = readdir(dir))
            n += at->d_name[0] != '.';
        closedir(dir);
        n--; /* dir's own */
    } else if (limited && none_left) {
        n = most.rlim_cur;
    }
    if (n)
        gauge(out, "process_open_fds", "Number of open file descriptors.", n);
    if (limited)
        gauge(out, "process_max_fds", "Maximum number of open file descriptors.", most.rlim_cur);
}

void scrape_process(struct metrics *out, uint64_t started_s)
{
    struct rusage used;

    if (getrusage(RUSAGE_SELF, &used) == 0) {
        metrics_family(out, METRICS_COUNTER, "process_cpu_seconds_total",
                       "Total user and system CPU time spent in seconds.");
        metrics_us(out, NULL, 0, us_of(&used.ru_utime) + us_of(&used.ru_stime));
    }
    memory(out);
    descriptors(out);
    gauge(out, "process_start_time_seconds",
          "Start time of the process since unix epoch in seconds.", started_s);
}
