/* A main() in which workers dial, names come, go and are asked for, and addresses are counted, all
 * at once; for TSan: Criterion does not run there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "forward/backend.h"
#include "forward/hosts.h"
#include "forward/inside.h"
#include "forward/names.h"
#include "forward/source.h"
#include "registry/list.h"

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #expr);                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define WORKERS 3u
#define CHAINS 8u
#define DIALS 600u /* of each chain */
#define HOSTS 10u

static struct forward forward;
static struct worker workers[WORKERS];
static uint16_t port;
static atomic_uint running = WORKERS * CHAINS;

struct chain { /* one dial after another */
    struct worker *worker;
    struct backend_try *attempt;
    struct alarm alarm;
    unsigned n;
    unsigned seed;
    struct in6_addr ip;
};
static struct chain chains[WORKERS][CHAINS];

static void next_dial(struct chain *chain);

static void over(struct chain *chain)
{
    chain->attempt = NULL;
    source_leave(forward.sources, &chain->ip, chain->n % 2);
    next_dial(chain);
}

static void on_done(void *ctx, int error, struct leg *leg)
{
    struct chain *chain = ctx;

    MUST(error == 0 || error == -ENOENT || error == -ETIMEDOUT);
    if (leg)
        leg_reset(leg);
    alarm_clear(chain->worker, &chain->alarm);
    over(chain);
}

static void on_alarm(struct alarm *alarm)
{
    struct chain *chain = CONTAINER_OF(alarm, struct chain, alarm);

    backend_cancel(chain->attempt);
    over(chain);
}

static void next_dial(struct chain *chain)
{
    char backend[64];
    unsigned host;

    if (chain->n++ == DIALS) {
        atomic_fetch_sub(&running, 1);
        return;
    }
    host = (unsigned)rand_r(&chain->seed) % (HOSTS + 1);
    chain->ip.s6_addr[15] = (uint8_t)host;
    MUST(source_enter(forward.sources, &chain->ip));
    if (chain->n % 2)
        source_routed(forward.sources, &chain->ip);
    if (host == HOSTS)
        snprintf(backend, sizeof(backend), "127.0.0.1:%u", port);
    else
        snprintf(backend, sizeof(backend), "h%u.test:%u", host, port);
    MUST(backend_dial(chain->worker, backend, 10000, chain, on_done, &chain->attempt) == 0);
    if (chain->n % 7 == 0)
        alarm_set(chain->worker, &chain->alarm, 0);
}

static void begin(struct worker *worker)
{
    for (unsigned i = 0; i < CHAINS; i++) {
        struct chain *chain = &chains[worker->index][i];

        chain->worker = worker;
        chain->seed = worker->index * CHAINS + i;
        alarm_init(&chain->alarm, on_alarm);
        next_dial(chain);
    }
}

static void end(struct worker *worker) {}

static void *serve(void *arg)
{
    int client;

    while ((client = accept(*(int *)arg, NULL, NULL)) >= 0)
        close(client);
    return NULL;
}

/* Every other host, or the others. */
static void show(unsigned odd)
{
    struct row *rows[HOSTS / 2];
    struct list *empty = list_empty();
    struct snapshot snap;

    for (unsigned i = 0; i < HOSTS / 2; i++) {
        char name[16], backend[64];

        snprintf(name, sizeof(name), "s%u", i);
        snprintf(backend, sizeof(backend), "h%u.test:%u", i * 2 + odd, port);
        rows[i] = row_new(name, strlen(name), backend, strlen(backend), "local", 0);
    }
    MUST(list_apply(empty, rows, HOSTS / 2, NULL, 0, &snap.local) == 0);
    names_show(forward.names, &snap);
    for (unsigned i = 0; i < HOSTS / 2; i++)
        row_unref(rows[i]);
    list_unref(empty);
    list_unref(snap.local);
}

int main(void)
{
    const struct names_how how = {.resolve = hosts_resolve, .again_ms = 2};
    const struct worker_body body = {.begin = begin, .end = end};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint64_t clients, unrouted;
    struct limits limits;
    pthread_t server;

    alarm(100);
    MUST(bind(fd, (struct sockaddr *)&at, len) == 0 && listen(fd, 1024) == 0);
    MUST(getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    port = ntohs(at.sin_port);
    MUST(pthread_create(&server, NULL, serve, &fd) == 0);
    for (unsigned i = 0; i + 1 < HOSTS; i++) { /* one that there is not */
        char host[16];

        snprintf(host, sizeof(host), "h%u.test", i);
        hosts_set(host, i % 2 ? "127.0.0.1" : "127.0.0.1 127.0.0.2");
    }
    limits_default(&limits);
    MUST(sources_new(&limits, &forward.sources) == 0);
    MUST(names_new_by(&forward, &how, &forward.names) == 0);
    MUST(names_start(forward.names) == 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        MUST(worker_init(&workers[i], &forward, i) == 0);
        MUST(worker_start(&workers[i], &body) == 0);
    }
    for (unsigned i = 0; atomic_load(&running) > 0; i++) {
        show(i % 2);
        source_largest(forward.sources, &clients, &unrouted);
        MUST(clients <= WORKERS * CHAINS && unrouted <= clients);
    }
    names_stop(forward.names);
    for (unsigned i = 0; i < WORKERS; i++) {
        worker_stop(&workers[i]);
        worker_fini(&workers[i]);
    }
    names_free(forward.names);
    source_largest(forward.sources, &clients, &unrouted);
    MUST(clients == 0 && unrouted == 0);
    sources_free(forward.sources);
    shutdown(fd, SHUT_RDWR);
    pthread_join(server, NULL);
    close(fd);
    MUST(hosts_wait_inside(0));
    return 0;
}
