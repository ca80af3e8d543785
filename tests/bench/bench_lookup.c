/* bench_lookup - a Lookup through the gate, by an nng client, against bare nng REQ/REP with a
 * handler that does nothing, over tcp, in turn, in one run. Prints rates, latencies and their
 * ratios.
 *
 * usage: bench_lookup [ROUNDS=5] [SECONDS=1.0]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench_nng.h"
#include "bench_util.h"

#define ROUNDS_MAX 64

static void compare(const char *what, const char *bare, const char *mesh, unsigned in_flight,
                    unsigned sockets, int rounds, double seconds, const uint8_t *request,
                    size_t len)
{
    double rate[ROUNDS_MAX], latency[ROUNDS_MAX], bare_rate[ROUNDS_MAX], mesh_rate[ROUNDS_MAX];
    double bare_p50[ROUNDS_MAX], mesh_p50[ROUNDS_MAX], mesh_p99[ROUNDS_MAX];

    for (int i = 0; i < rounds; i++) {
        struct result a = measure(bare, in_flight, sockets, seconds, request, len);
        struct result b = measure(mesh, in_flight, sockets, seconds, request, len);

        rate[i] = b.rate / a.rate;
        latency[i] = b.p50 / a.p50;
        bare_rate[i] = a.rate;
        mesh_rate[i] = b.rate;
        bare_p50[i] = a.p50 * 1e6;
        mesh_p50[i] = b.p50 * 1e6;
        mesh_p99[i] = b.p99 * 1e6;
    }
    printf("%-28s bare %7.0f/s p50 %6.0f us | meshd %7.0f/s p50 %6.0f us p99 %6.0f us | rate x "
           "%.2f (%.2f to %.2f), latency x %.2f\n",
           what, median(bare_rate, (size_t)rounds), median(bare_p50, (size_t)rounds),
           median(mesh_rate, (size_t)rounds), median(mesh_p50, (size_t)rounds),
           median(mesh_p99, (size_t)rounds), median(rate, (size_t)rounds), rate[0],
           rate[rounds - 1], median(latency, (size_t)rounds));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 1.0;
    const char *extra[] = {"SERVICE_ADDR=web:127.0.0.1:80,db:127.0.0.1:5432", "LOG_MAPS=off", NULL};
    char bare_url[64], mesh_url[64];
    const char *names[] = {"web"};
    uint8_t *request;
    struct meshd mesh;
    size_t len;
    pid_t bare;

    if (rounds < 1 || rounds > ROUNDS_MAX || seconds <= 0)
        die("usage: bench_lookup [ROUNDS=5] [SECONDS=1.0]");
    bare = bare_start(64, bare_url);
    meshd_start(&mesh, "bench", "127.0.0.1", extra);
    snprintf(mesh_url, sizeof mesh_url, "tcp://127.0.0.1:%u", mesh.port);
    request = lookup_request(names, 1, &len);
    compare("1 in flight, 1 connection", bare_url, mesh_url, 1, 1, rounds, seconds, request, len);
    compare("64 in flight, 1 connection", bare_url, mesh_url, 64, 1, rounds, seconds, request, len);
    compare("64 in flight, 64 connections", bare_url, mesh_url, 64, 64, rounds, seconds, request,
            len);
    free(request);
    meshd_stop(&mesh);
    kill(bare, SIGKILL);
    waitpid(bare, NULL, 0);
    _exit(0); /* nng's own clean-up is not what is measured */
}
