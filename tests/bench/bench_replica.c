/* bench_replica - lookups in a replica of a real node, by one thread and by two, while nothing
 * changes and while 1,000 offers a second do; and how long a change takes until it is seen.
 * Prints figures; asserts nothing.
 *
 * usage: bench_replica [ROUNDS=3] [SECONDS=1.0] [NAMES=10000]
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <meshd/client.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "base/random.h"
#include "bench_util.h"
#include "client/call.h"

#define CALL_MS 10000u
#define READERS_MAX 2
#define CHANGES_S 1000u
#define SAMPLES 200000u
#define CHUNK 4096u /* lookups between looks at the clock */

static unsigned n_names = 10000;
static char (*names)[32];
static unsigned *ports; /* of each name, as offered last */
static struct meshd node;
static struct mesh_replica *replica;

/* ---- offers ---- */

static struct call_conn *call_node(void)
{
    struct call_conn *conn;
    char url[200], why[TLS_WHY];

    snprintf(url, sizeof url, "ipc://%s", node.socket);
    if (call_open(url, NULL, clock_ms() + CALL_MS, why, &conn) < 0)
        die("no connection to %s", url);
    return conn;
}

static void offer(struct call_conn *conn, unsigned i)
{
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;
    struct call_reply *reply;
    char backend[32];
    int r;

    ports[i] = ports[i] % 60000 + 1;
    snprintf(backend, sizeof backend, "127.0.0.1:%u", ports[i]);
    request.lease_id = request.name = names[i];
    request.backend_addr = backend;
    r = call_invoke(conn, "Offer", &request.base, clock_ms() + CALL_MS, &reply);
    if (r < 0 || reply->status != 0)
        die("an offer was not taken: %s", r < 0 ? strerror(-r) : reply->text);
    call_reply_free(reply);
}

/* ---- readers ---- */

struct job {
    pthread_t thread;
    double seconds;
    double rate; /* out */
};

static void shuffle(unsigned *order)
{
    for (unsigned i = 0; i < n_names; i++)
        order[i] = i;
    for (unsigned i = n_names - 1; i > 0; i--) {
        unsigned k = (unsigned)(random_u64() % (i + 1)), t = order[i];

        order[i] = order[k];
        order[k] = t;
    }
}

static void *read_on(void *arg)
{
    struct job *job = arg;
    unsigned *order = malloc(n_names * sizeof *order), at = 0;
    struct mesh_reader *reader;
    const struct mesh_list *list;
    double begun, took;
    size_t n = 0;

    shuffle(order);
    if (mesh_reader_open(replica, &reader) != MESH_OK)
        die("no reader: %s", mesh_error_text());
    begun = now_s();
    do {
        for (unsigned i = 0; i < CHUNK; i++) {
            if (mesh_replica_lookup(reader, names[order[at]], &list) != MESH_OK)
                die("%s: %s", names[order[at]], mesh_error_text());
            at = at + 1 < n_names ? at + 1 : 0;
        }
        n += CHUNK;
        took = now_s() - begun;
    } while (took < job->seconds);
    job->rate = (double)n / took;
    mesh_reader_close(reader);
    free(order);
    return NULL;
}

/* Lookups a second of all of them. */
static double readers_run(int n, double seconds)
{
    struct job jobs[READERS_MAX];
    double rate = 0;

    for (int i = 0; i < n; i++) {
        jobs[i].seconds = seconds;
        if (pthread_create(&jobs[i].thread, NULL, read_on, &jobs[i]) != 0)
            die("no thread");
    }
    for (int i = 0; i < n; i++) {
        pthread_join(jobs[i].thread, NULL);
        rate += jobs[i].rate;
    }
    return rate;
}

/* ---- changes ---- */

struct changer {
    pthread_t thread;
    atomic_int stop;
    double *seen_ms;  /* from before the offer was sent until a reader has it */
    double *after_ms; /* from its reply on */
    size_t n;
};

static void await(struct mesh_reader *reader, unsigned i)
{
    const struct timespec pause = {.tv_nsec = 20000};
    const struct mesh_list *list;
    char backend[32];

    snprintf(backend, sizeof backend, "127.0.0.1:%u", ports[i]);
    while (mesh_replica_lookup(reader, names[i], &list) != MESH_OK ||
           strcmp(mesh_list_at(list, 0)->address, backend) != 0)
        nanosleep(&pause, NULL);
}

static void *change_on(void *arg)
{
    struct changer *changer = arg;
    struct call_conn *conn = call_node();
    struct mesh_reader *reader;
    double next = now_s();

    if (mesh_reader_open(replica, &reader) != MESH_OK)
        die("no reader: %s", mesh_error_text());
    while (!atomic_load(&changer->stop)) {
        unsigned i = (unsigned)(random_u64() % n_names);
        double sent = now_s(), answered;

        offer(conn, i);
        answered = now_s();
        await(reader, i);
        if (changer->n < SAMPLES) {
            changer->seen_ms[changer->n] = (now_s() - sent) * 1e3;
            changer->after_ms[changer->n++] = (now_s() - answered) * 1e3;
        }
        next += 1.0 / CHANGES_S;
        if (next < now_s())
            next = now_s(); /* a machine that cannot keep up shows it in the number of changes */
        else
            nanosleep(&(struct timespec){.tv_nsec = (long)((next - now_s()) * 1e9)}, NULL);
    }
    mesh_reader_close(reader);
    call_close(conn);
    return NULL;
}

static void changer_start(struct changer *changer)
{
    *changer = (struct changer){.seen_ms = malloc(SAMPLES * sizeof(double)),
                                .after_ms = malloc(SAMPLES * sizeof(double))};
    if (pthread_create(&changer->thread, NULL, change_on, changer) != 0)
        die("no thread");
}

static void changer_end(struct changer *changer, double seconds)
{
    atomic_store(&changer->stop, 1);
    pthread_join(changer->thread, NULL);
    printf("    %5.0f changes/s; seen after %.3f ms (p50), %.3f (p99), %.3f (worst);"
           " after the reply %.3f, %.3f\n",
           (double)changer->n / seconds, percentile(changer->seen_ms, changer->n, 0.5),
           percentile(changer->seen_ms, changer->n, 0.99),
           percentile(changer->seen_ms, changer->n, 1.0),
           percentile(changer->after_ms, changer->n, 0.5),
           percentile(changer->after_ms, changer->n, 0.99));
    free(changer->seen_ms);
    free(changer->after_ms);
}

/* ---- the whole ---- */

static void set_up(void)
{
    static const char *const quiet[] = {"LOG_MAPS=off", NULL};
    struct mesh_reader *reader;
    struct call_conn *conn;
    double begun;
    char url[64];

    names = calloc(n_names, sizeof *names);
    ports = calloc(n_names, sizeof *ports);
    meshd_start(&node, "bench", "127.0.0.1", quiet);
    conn = call_node();
    for (unsigned i = 0; i < n_names; i++) {
        snprintf(names[i], sizeof names[i], "service-%05u.example", i);
        offer(conn, i);
    }
    call_close(conn);
    snprintf(url, sizeof url, "tcp://%s:%u", node.ip, (unsigned)node.port);
    begun = now_s();
    if (mesh_replica_open(url, NULL, 60000, &replica) != MESH_OK)
        die("no replica: %s", mesh_error_text());
    /* What was offered last may have come after the picture. */
    if (mesh_reader_open(replica, &reader) != MESH_OK)
        die("no reader: %s", mesh_error_text());
    await(reader, n_names - 1);
    mesh_reader_close(reader);
    printf("%u names, complete after %.1f ms\n", n_names, (now_s() - begun) * 1e3);
}

static void run_round(double seconds)
{
    const struct timespec alone = {.tv_sec = (time_t)seconds,
                                   .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};

    for (int n = 1; n <= READERS_MAX; n++)
        printf("  %d reader(s), no changes: %.0f lookups/s\n", n, readers_run(n, seconds));
    for (int n = 0; n <= READERS_MAX; n++) {
        struct changer changer;
        double begun = now_s();

        changer_start(&changer);
        if (n == 0) {
            nanosleep(&alone, NULL);
            printf("  no readers:\n");
        } else {
            printf("  %d reader(s), with changes: %.0f lookups/s\n", n, readers_run(n, seconds));
        }
        changer_end(&changer, now_s() - begun);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 3;
    double seconds = argc > 2 ? atof(argv[2]) : 1.0;

    if (argc > 3)
        n_names = (unsigned)atoi(argv[3]);
    if (rounds < 1 || seconds <= 0 || n_names < 1)
        die("usage: bench_replica [ROUNDS=3] [SECONDS=1.0] [NAMES=10000]");
    set_up();
    for (int i = 0; i < rounds; i++)
        run_round(seconds);
    mesh_replica_close(replica);
    meshd_stop(&node);
    free(names);
    free(ports);
    return 0;
}
