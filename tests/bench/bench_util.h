/* bench_util - what the benchmarks share: a clock, percentiles, a meshd process, its memory. */
#ifndef TESTS_BENCH_UTIL_H
#define TESTS_BENCH_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

double now_s(void);
/* Sorts; p in 0..1. */
double percentile(double *values, size_t n, double p);
double median(double *values, size_t n);

uint16_t free_port(const char *ip);

struct meshd {
    pid_t pid;
    char ip[16], dir[96], socket[160], log[128];
    uint16_t port;
};

/* Starts meshd at ip on a free port with the environment `extra` ("NAME=value", NULL at the end)
 * and waits until it answers. Ends the benchmark with a message if it does not. */
void meshd_start(struct meshd *out, const char *peer_id, const char *ip, const char *const *extra);
void meshd_stop(struct meshd *m);
/* kB of RssAnon and RssFile + RssShmem; seconds of CPU used so far. */
void meshd_memory(const struct meshd *m, long *out_anon_kb, long *out_rss_kb);
double meshd_cpu_s(const struct meshd *m);

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

#endif
