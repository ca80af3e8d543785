/* bench_client - lookups by libmeshd, in flight side by side from one thread: against bare nng
 * (REQ client, REP server with a handler that does nothing), in turn, in one run; and lookups of
 * 100 names.
 *
 * usage: bench_client [tls] [ROUNDS=5] [SECONDS=1.0]
 *   tls    instead: the same lookups of a node with TLS against one without, in turn
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <meshd/client.h>
#include "bench_nng.h"
#include "bench_util.h"
#include "tls/support.h"

#define ROUNDS_MAX 64
#define RING 64u
#define MANY 100u
#define DEADLINE_MS 10000

static double cpu_s(void)
{
    struct rusage use;

    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void need(enum mesh_status status)
{
    if (status != MESH_OK)
        die("%s: %s", mesh_status_text(status), mesh_error_text());
}

struct figures {
    double rate, client_us, server_us; /* calls a second; CPU for each call */
};

/* in_flight lookups of the n names for `seconds`; each answer must have an instance per name. */
static struct figures ring(struct mesh_client *client, const struct meshd *mesh,
                           const char *const *names, size_t n, unsigned in_flight, double seconds)
{
    struct mesh_call *calls[RING];
    double begin = now_s(), until = begin + seconds, cpu = cpu_s(), server = meshd_cpu_s(mesh);
    struct figures out;
    size_t done = 0;

    for (unsigned i = 0; i < in_flight; i++)
        need(mesh_lookup_begin(client, names, n, DEADLINE_MS, &calls[i]));
    for (unsigned at = 0, running = in_flight; running; at = (at + 1) % in_flight) {
        struct mesh_list *list;

        need(mesh_call_wait(calls[at], &list));
        if (mesh_list_count(list) != n)
            die("%zu instances of %zu names", mesh_list_count(list), n);
        mesh_list_free(list);
        done++;
        if (running == in_flight && now_s() < until)
            need(mesh_lookup_begin(client, names, n, DEADLINE_MS, &calls[at]));
        else
            running--;
    }
    out.rate = (double)done / (now_s() - begin);
    out.client_us = (cpu_s() - cpu) / (double)done * 1e6;
    out.server_us = (meshd_cpu_s(mesh) - server) / (double)done * 1e6;
    return out;
}

static void compare(struct mesh_client *client, const struct meshd *mesh, const char *bare,
                    const char *const *names, unsigned in_flight, int rounds, double seconds)
{
    double rate[ROUNDS_MAX], bare_rate[ROUNDS_MAX], ratio[ROUNDS_MAX], us[ROUNDS_MAX];
    double server_us[ROUNDS_MAX];
    size_t len, n = (size_t)rounds;
    uint8_t *request = lookup_request(names, 1, &len);

    for (int i = 0; i < rounds; i++) {
        struct result a = measure(bare, in_flight, 1, seconds, request, len);
        struct figures b = ring(client, mesh, names, 1, in_flight, seconds);

        bare_rate[i] = a.rate;
        rate[i] = b.rate;
        ratio[i] = b.rate / a.rate;
        us[i] = b.client_us;
        server_us[i] = b.server_us;
    }
    printf("%2u in flight, 1 name    bare nng %7.0f/s | libmeshd %7.0f/s, CPU client %5.1f us, "
           "meshd %5.1f us | x %.2f\n",
           in_flight, median(bare_rate, n), median(rate, n), median(us, n), median(server_us, n),
           median(ratio, n));
    fflush(stdout);
    free(request);
}

static void many(struct mesh_client *client, const struct meshd *mesh, const char *const *names,
                 unsigned in_flight, int rounds, double seconds)
{
    double rate[ROUNDS_MAX], us[ROUNDS_MAX], server_us[ROUNDS_MAX];
    size_t n = (size_t)rounds;

    for (int i = 0; i < rounds; i++) {
        struct figures f = ring(client, mesh, names, MANY, in_flight, seconds);

        rate[i] = f.rate;
        us[i] = f.client_us;
        server_us[i] = f.server_us;
    }
    printf("%2u in flight, %u names %8.0f names/s, one call %6.1f us, CPU client %5.1f us, meshd "
           "%5.1f us\n",
           in_flight, MANY, median(rate, n) * MANY, 1e6 * in_flight / median(rate, n),
           median(us, n), median(server_us, n));
    fflush(stdout);
}

/* ---- with TLS and without ---- */

static struct mesh_client *open_tls(const struct meshd *mesh, const struct tls_settings *mine)
{
    struct mesh_tls tls = {
        .size = sizeof tls, .ca = mine->ca, .cert = mine->cert, .key = mine->key};
    struct mesh_client *client;
    char url[64];

    snprintf(url, sizeof url, "tls://127.0.0.1:%u", mesh->port);
    need(mesh_client_open_tls(url, &tls, DEADLINE_MS, &client));
    return client;
}

static void print_beside(unsigned in_flight, size_t names, struct figures *plain,
                         struct figures *inside, size_t n)
{
    double rate[2][ROUNDS_MAX], us[2][ROUNDS_MAX], server_us[2][ROUNDS_MAX], ratio[ROUNDS_MAX];

    for (size_t i = 0; i < n; i++) {
        const struct figures *both[2] = {&plain[i], &inside[i]};

        for (int k = 0; k < 2; k++) {
            rate[k][i] = both[k]->rate;
            us[k][i] = both[k]->client_us;
            server_us[k][i] = both[k]->server_us;
        }
        ratio[i] = inside[i].rate / plain[i].rate;
    }
    printf(
        "%2u in flight, %3zu name%s tcp:// %7.0f/s, CPU client %5.1f us, meshd %5.1f us | tls:// "
        "%7.0f/s, CPU client %5.1f us, meshd %5.1f us | x %.2f\n",
        in_flight, names, names > 1 ? "s" : " ", median(rate[0], n), median(us[0], n),
        median(server_us[0], n), median(rate[1], n), median(us[1], n), median(server_us[1], n),
        median(ratio, n));
    fflush(stdout);
}

static void beside_plaintext(const char *const *names, const char *const *extra, int rounds,
                             double seconds)
{
    static const struct {
        unsigned in_flight;
        size_t names;
    } loads[] = {{1, 1}, {RING, 1}, {4, MANY}};
    const struct issued *ca = issue_ca(NULL, "bench");
    struct tls_settings node = node_settings("bench", ca, issue_node(ca, "bench"));
    struct tls_settings mine = node_settings("me", ca, issue_node(ca, "me"));
    char files[3][160], url[64];
    const char *tls_extra[] = {extra[0], extra[1], files[0], files[1], files[2], NULL};
    struct mesh_client *plain, *inside;
    struct meshd meshes[2];

    snprintf(files[0], sizeof files[0], "PEER_TLS_CA=%s", node.ca);
    snprintf(files[1], sizeof files[1], "PEER_TLS_CERT=%s", node.cert);
    snprintf(files[2], sizeof files[2], "PEER_TLS_KEY=%s", node.key);
    meshd_start(&meshes[0], "plain", "127.0.0.1", extra);
    meshd_start(&meshes[1], "bench", "127.0.0.1", tls_extra);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%u", meshes[0].port);
    need(mesh_client_open(url, DEADLINE_MS, &plain));
    inside = open_tls(&meshes[1], &mine);
    for (size_t k = 0; k < sizeof loads / sizeof *loads; k++) {
        struct figures figures[2][ROUNDS_MAX];

        for (int i = 0; i < rounds; i++) {
            figures[0][i] =
                ring(plain, &meshes[0], names, loads[k].names, loads[k].in_flight, seconds);
            figures[1][i] =
                ring(inside, &meshes[1], names, loads[k].names, loads[k].in_flight, seconds);
        }
        print_beside(loads[k].in_flight, loads[k].names, figures[0], figures[1], (size_t)rounds);
    }
    mesh_client_close(plain);
    mesh_client_close(inside);
    meshd_stop(&meshes[0]);
    meshd_stop(&meshes[1]);
}

int main(int argc, char **argv)
{
    bool tls = argc > 1 && strcmp(argv[1], "tls") == 0;
    int first = tls ? 2 : 1;
    int rounds = argc > first ? atoi(argv[first]) : 5;
    double seconds = argc > first + 1 ? strtod(argv[first + 1], NULL) : 1.0;
    static char names[MANY][32], services[MANY * 64] = "SERVICE_ADDR=";
    const char *extra[] = {services, "LOG_MAPS=off", NULL}, *at[MANY];
    struct mesh_client *client;
    char bare_url[64], url[64];
    struct meshd mesh;
    pid_t bare;

    if (rounds < 1 || rounds > ROUNDS_MAX || seconds <= 0)
        die("usage: bench_client [tls] [ROUNDS=5] [SECONDS=1.0]");
    for (unsigned i = 0; i < MANY; i++) {
        size_t len = strlen(services);

        snprintf(names[i], sizeof names[i], "service-%u", i);
        at[i] = names[i];
        snprintf(services + len, sizeof services - len, "%s%s:127.0.0.1:%u", i ? "," : "", names[i],
                 10000 + i);
    }
    if (tls) {
        beside_plaintext(at, extra, rounds, seconds);
        return 0;
    }
    bare = bare_start(64, bare_url);
    meshd_start(&mesh, "bench", "127.0.0.1", extra);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%u", mesh.port);
    need(mesh_client_open(url, DEADLINE_MS, &client));
    compare(client, &mesh, bare_url, at, 1, rounds, seconds);
    compare(client, &mesh, bare_url, at, RING, rounds, seconds);
    many(client, &mesh, at, 1, rounds, seconds);
    many(client, &mesh, at, 4, rounds, seconds);
    mesh_client_close(client);
    meshd_stop(&mesh);
    kill(bare, SIGKILL);
    waitpid(bare, NULL, 0);
    _exit(0); /* nng's own clean-up is not what is measured */
}
