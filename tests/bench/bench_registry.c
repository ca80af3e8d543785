/* The registry alone: memory of 100,000 services, rows per second into both maps, lookups,
 * pictures. Prints; asserts nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "registry/snapshot.h"

#define SERVICES 100000u
#define LIST 1000u
#define LISTS 100u

static void must(int r)
{
    if (r != 0) {
        fprintf(stderr, "bench_registry: unexpected %d\n", r);
        exit(1);
    }
}

/* KiB that are this process's own. */
static long rss_anon(void)
{
    char line[256];
    long kib = -1;
    FILE *file = fopen("/proc/self/status", "r");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

static struct registry *new_registry(void)
{
    struct limits limits;
    struct registry_settings settings = {.peer_id = "bench", .epoch = 1, .limits = &limits};
    struct registry *reg = NULL;

    limits_default(&limits);
    must(registry_new(&settings, &reg));
    return reg;
}

/* Names of 20 bytes, backends of 15: made before the clock runs. */
static char names[SERVICES][21];

static void make_names(void)
{
    for (unsigned i = 0; i < SERVICES; i++)
        snprintf(names[i], sizeof(names[i]), "service-%07u.prod", i);
}

static struct list *make_list(const char *label, unsigned first, unsigned n, unsigned port)
{
    struct row **rows = malloc(n * sizeof(*rows));
    struct list *none = list_empty(), *list = NULL;
    char backend[32];

    must(!rows);
    snprintf(backend, sizeof(backend), "10.20.1.10:%04u", port);
    for (unsigned i = 0; i < n; i++) {
        rows[i] = row_new(names[first + i], 20, backend, 15, label, 0);
        must(!rows[i]);
    }
    must(list_apply(none, rows, n, NULL, 0, &list));
    for (unsigned i = 0; i < n; i++)
        row_unref(rows[i]);
    free(rows);
    list_unref(none);
    return list;
}

static void put(struct registry *reg, unsigned peer, unsigned version, unsigned first, unsigned n)
{
    char id[16], ip[32];
    const char *label;
    struct list *list;

    snprintf(id, sizeof(id), "peer-%u", peer);
    snprintf(ip, sizeof(ip), "10.20.%u.%u", peer / 250, peer % 250);
    must(registry_peer_open(reg, id, ip, 1, &label, NULL));
    list = make_list(label, first, n, 1000 + version % 9000);
    must(registry_put_list(reg, id, 1, version, list, 1, NULL, NULL));
    list_unref(list);
}

static void memory(void)
{
    struct registry *reg = new_registry();
    long before = rss_anon();

    put(reg, 0, 1, 0, SERVICES);
    printf("memory: %u services: %.1f MB (aim: 35)\n", SERVICES,
           (double)(rss_anon() - before) / 1e3);
    registry_free(reg);
}

static double million_rows(uint64_t ns) { return (double)LISTS * LIST * 1e3 / (double)ns; }

static void rates(struct registry *reg)
{
    uint64_t start = clock_ns(), fresh, changed, repeated;

    for (unsigned p = 0; p < LISTS; p++)
        put(reg, p, 1, p * LIST, LIST);
    fresh = clock_ns() - start;
    start = clock_ns();
    for (unsigned p = 0; p < LISTS; p++)
        put(reg, p, 2, p * LIST, LIST);
    changed = clock_ns() - start;
    start = clock_ns();
    for (unsigned p = 0; p < LISTS; p++)
        put(reg, p, 9002, p * LIST, LIST);
    repeated = clock_ns() - start;
    printf("put: lists of %u rows, million rows/s: new %.2f, changed %.2f, repeated %.2f "
           "(aim: 1.5)\n",
           LIST, million_rows(fresh), million_rows(changed), million_rows(repeated));
}

/* What one read costs that no cache has: the measure for the lookups in no order. */
static double cold_read_ns(void)
{
    const unsigned n = 8u << 20, reads = 2000000;
    unsigned *next = malloc(n * sizeof(*next)), at = 0;
    uint64_t start;

    must(!next);
    for (unsigned i = 0; i < n; i++)
        next[i] = (i * 1664525u + 1013904223u) & (n - 1); /* one cycle through all */
    start = clock_ns();
    for (unsigned i = 0; i < reads; i++)
        at = next[at];
    start = clock_ns() - start;
    free(next);
    return (double)start / reads + (at > n);
}

static void lookups(struct registry *reg)
{
    struct registry_route at[4];
    struct registry_routes routes = {.at = at, .cap = 4};
    const unsigned n = 1000000;
    uint64_t start, ns;
    unsigned found = 0, i;

    start = clock_ns();
    for (i = 0; i < n; i++) {
        registry_lookup(reg, names[i * 7919 % SERVICES], 20, &routes);
        found += (unsigned)routes.n;
        registry_routes_fini(&routes);
    }
    ns = clock_ns() - start;
    printf("lookup: %.0f ns each, one route, among %u names in no order (aim: 300)", (double)ns / n,
           SERVICES);
    start = clock_ns();
    for (i = 0; i < n; i++) {
        registry_lookup(reg, names[0], 20, &routes);
        found += (unsigned)routes.n;
        registry_routes_fini(&routes);
    }
    printf(", %.0f ns for one name again and again; %u found\n", (double)(clock_ns() - start) / n,
           found);
    printf("cold read: %.0f ns each\n", cold_read_ns());
}

static void pictures(void)
{
    struct registry *reg = new_registry();
    struct snapshot *snap = NULL;
    const unsigned n = 200000;
    uint64_t start;

    for (unsigned p = 0; p < 10; p++)
        put(reg, p, 1, p * LIST, LIST);
    start = clock_ns();
    for (unsigned i = 0; i < n; i++) {
        must(registry_snapshot(reg, &snap));
        snapshot_unref(snap);
    }
    printf("snapshot: %.0f ns with 10 peers of %u rows (aim: 3000)\n",
           (double)(clock_ns() - start) / n, LIST);
    registry_free(reg);
}

static void deltas(struct registry *reg)
{
    struct list *list, *next = NULL;
    struct row *row;
    const unsigned n = 20000;
    const char *label;
    uint64_t start;

    must(registry_peer_open(reg, "large", "10.99.0.1", 1, &label, NULL));
    list = make_list(label, 0, SERVICES, 80);
    must(registry_put_list(reg, "large", 1, 1, list, 1, NULL, NULL));
    start = clock_ns();
    for (unsigned i = 0; i < n; i++) {
        char backend[16];
        row = row_new(names[i * 7919 % SERVICES], 20, backend,
                      (size_t)snprintf(backend, sizeof(backend), "h:%u", i), label, 0);
        must(list_apply(list, &row, 1, NULL, 0, &next));
        must(registry_put_list(reg, "large", 1, 2 + i, next, 1, NULL, NULL));
        row_unref(row);
        list_unref(list);
        list = next;
    }
    printf("delta: %.1f us for one row of a list of %u\n", (double)(clock_ns() - start) / n / 1e3,
           SERVICES);
    list_unref(list);
    start = clock_ns();
    must(registry_peer_gone(reg, "large", "left", 1, NULL));
    printf("gone: %.1f ms for a peer with %u rows\n", (double)(clock_ns() - start) / 1e6, SERVICES);
}

int main(void)
{
    struct registry *reg;

    make_names();
    memory();
    pictures();
    reg = new_registry();
    rates(reg);
    lookups(reg);
    deltas(reg);
    registry_free(reg);
    return 0;
}
