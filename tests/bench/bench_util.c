/* bench_util - processes, clocks and order statistics for the benchmarks. */
#include "bench_util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READY_S 10.0

void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double percentile(double *values, size_t n, double p)
{
    size_t at = (size_t)(p * (double)n);

    qsort(values, n, sizeof *values, by_value);
    return values[at < n ? at : n - 1];
}

double median(double *values, size_t n) { return percentile(values, n, 0.5); }

uint16_t free_port(const char *ip)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, ip, &addr.sin_addr);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        die("no free port on %s: %s", ip, strerror(errno));
    close(fd);
    return ntohs(addr.sin_port);
}

static void run_child(const struct meshd *m, const char *peer_id, const char *const *extra)
{
    char bind_to[32], name[96], runtime[128], log[160];
    int out = open(m->log, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    snprintf(bind_to, sizeof bind_to, "%s:%u", m->ip, m->port);
    snprintf(name, sizeof name, "%s", peer_id);
    snprintf(runtime, sizeof runtime, "%s", m->dir);
    snprintf(log, sizeof log, "%s", "warn");
    setenv("PEER_NAME", name, 1);
    setenv("PEER_BIND_ADDR", bind_to, 1);
    setenv("RUNTIME_DIRECTORY", runtime, 1);
    setenv("LOG_LEVEL", log, 1);
    for (; extra && *extra; extra++)
        putenv((char *)*extra);
    execl(MESHD_PATH, MESHD_PATH, (char *)NULL);
    _exit(127);
}

static int connects(const struct meshd *m)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(m->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    inet_pton(AF_INET, m->ip, &addr.sin_addr);
    r = connect(fd, (struct sockaddr *)&addr, sizeof addr);
    close(fd);
    return r == 0;
}

void meshd_start(struct meshd *out, const char *peer_id, const char *ip, const char *const *extra)
{
    double until = now_s() + READY_S;

    memset(out, 0, sizeof *out);
    snprintf(out->ip, sizeof out->ip, "%s", ip);
    snprintf(out->dir, sizeof out->dir, "%s/meshd-bench-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
    if (!mkdtemp(out->dir))
        die("no temporary directory: %s", strerror(errno));
    snprintf(out->socket, sizeof out->socket, "%s/%s/meshd.sock", out->dir, peer_id);
    snprintf(out->log, sizeof out->log, "%s/log", out->dir);
    out->port = free_port(ip);
    out->pid = fork();
    if (out->pid == 0)
        run_child(out, peer_id, extra);
    while (!connects(out)) {
        if (now_s() > until || waitpid(out->pid, NULL, WNOHANG) != 0)
            die("meshd did not start; see %s", out->log);
        poll(NULL, 0, 5);
    }
}

void meshd_stop(struct meshd *m)
{
    char command[160];

    kill(m->pid, SIGTERM);
    waitpid(m->pid, NULL, 0);
    snprintf(command, sizeof command, "rm -rf '%s'", m->dir);
    if (system(command) != 0)
        fprintf(stderr, "%s is left behind\n", m->dir);
}

void meshd_memory(const struct meshd *m, long *out_anon_kb, long *out_rss_kb)
{
    char path[64], line[160];
    FILE *f;

    *out_anon_kb = *out_rss_kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)m->pid);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "RssAnon:", 8) == 0)
            *out_anon_kb = strtol(line + 8, NULL, 10);
        if (strncmp(line, "VmRSS:", 6) == 0)
            *out_rss_kb = strtol(line + 6, NULL, 10);
    }
    if (f)
        fclose(f);
}

double meshd_cpu_s(const struct meshd *m)
{
    unsigned long user = 0, system_ticks = 0;
    char path[64];
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)m->pid);
    f = fopen(path, "r");
    if (f && fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                    &system_ticks) != 2)
        user = system_ticks = 0;
    if (f)
        fclose(f);
    return (double)(user + system_ticks) / (double)sysconf(_SC_CLK_TCK);
}
