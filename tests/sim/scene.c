#include "sim/scene.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOSTS 128
#define TIMEOUT_MS 30000u
#define TWO_BEATS_MS 6000
/* The kernel of a dead process still delivers what it sent, up to 9 s later; and who was stopped
 * itself grants one heartbeat more. */
#define LAST_WORDS_MS 13000u

struct fakenet *net;

static struct { /* the newest pair that viewer knew of owner, in which of the viewer's lives */
    uint64_t incarnation, version;
    uint32_t life, gone;
} known[HOSTS][HOSTS];

void scene_make(const struct fakenet_settings *settings)
{
    const char *text = getenv("MESHD_TEST_SEED");
    struct fakenet_settings s = *settings;

    s.seed = text ? strtoull(text, NULL, 0) : s.seed;
    fprintf(stderr, "MESHD_TEST_SEED=%llu\n", (unsigned long long)s.seed);
    net = fakenet_new(&s);
}

void scene_end(void) { fakenet_free(net); }

void scene_add(size_t count)
{
    char id[32], ip[64], name[64], backend[64];

    for (size_t i = 0; i < count; i++) {
        struct fakenet_host *host;

        snprintf(id, sizeof(id), "n%zu", i);
        snprintf(ip, sizeof(ip), "10.0.%zu.%zu", i / 250, i % 250 + 1);
        host = fakenet_add(net, id, ip, 7400);
        snprintf(name, sizeof(name), "service-%zu", i);
        snprintf(backend, sizeof(backend), "127.0.0.1:%zu", 8000 + i);
        fakenet_service(host, name, backend);
    }
}

struct fakenet_host *scene_host(size_t index) { return fakenet_at(net, index); }

void scene_dial(size_t from, size_t to)
{
    struct fakenet_host *b = scene_host(to);

    fakenet_dial(scene_host(from), b->addr.ip, b->addr.port, NULL);
}

void scene_boot_all(void)
{
    for (size_t i = 0; i < fakenet_hosts(net); i++)
        fakenet_boot(scene_host(i));
}

static bool every_link(bool (*holds)(struct fakenet_host *a, struct fakenet_host *b))
{
    for (size_t i = 0; i < fakenet_hosts(net); i++) {
        struct fakenet_host *a = scene_host(i);

        for (size_t k = 0; a->node && !a->paused && k < a->n_dials; k++)
            for (size_t j = 0; j < fakenet_hosts(net); j++) {
                struct fakenet_host *b = scene_host(j);

                if (b->addr.port == a->dials[k].port && strcmp(b->addr.ip, a->dials[k].host) == 0 &&
                    b->node && !b->paused && !fakenet_is_cut(a, b) && !holds(a, b))
                    return false;
            }
    }
    return true;
}

static bool both_live(struct fakenet_host *a, struct fakenet_host *b)
{
    return fakenet_live(a, b) && fakenet_live(b, a);
}

bool scene_agrees(void *ctx) { return every_link(fakenet_linked); }

bool scene_live(void *ctx) { return every_link(both_live); }

/* No entry outlives its owner by more than peer_timeout. */
static void check_dead(struct fakenet_host *viewer, struct fakenet_host *owner)
{
    uint64_t since_ms = owner->died_ms > viewer->resumed_ms ? owner->died_ms : viewer->resumed_ms;

    if (!viewer->paused && !owner->node && owner->life > 0 &&
        fakenet_now(net) - since_ms > TIMEOUT_MS + LAST_WORDS_MS)
        cr_assert_eq(fakenet_rows(viewer, owner->id), -1, "%s outlived at %s", owner->id,
                     viewer->id);
}

void scene_check(void)
{
    struct registry_peer_info info;

    cr_assert_eq(fakenet_wrong(net), 0, "a session was told wrongly");
    for (size_t i = 0; i < fakenet_hosts(net); i++) {
        struct fakenet_host *a = scene_host(i);

        if (!a->node)
            continue;
        cr_assert_eq(registry_check(a->registry), 0, "the maps of %s disagree", a->id);
        for (size_t j = 0; j < fakenet_hosts(net) && j < HOSTS; j++) {
            check_dead(a, scene_host(j));
            if (registry_peer_get(a->registry, scene_host(j)->id, &info) != 0) {
                known[i][j].life = 0; /* with the record went what was known */
                continue;
            }
            /* A record that went and came again starts anew. */
            if (known[i][j].life == a->life && known[i][j].gone == a->events[NODE_PEER_GONE]) {
                cr_assert(info.incarnation > known[i][j].incarnation ||
                              (info.incarnation == known[i][j].incarnation &&
                               info.version >= known[i][j].version),
                          "at %s the version of %s went back", a->id, scene_host(j)->id);
            }
            known[i][j].incarnation = info.incarnation;
            known[i][j].version = info.version;
            known[i][j].life = a->life;
            known[i][j].gone = a->events[NODE_PEER_GONE];
        }
    }
}

void scene_ring(size_t count)
{
    scene_add(count);
    for (size_t i = 0; i < count; i++)
        scene_dial(i, (i + 1) % count);
}

void scene_heals(void)
{
    cr_assert(fakenet_run_until(net, HEAL_MS, scene_live, NULL), "not live within 12 s");
    cr_assert(fakenet_run_until(net, TWO_BEATS_MS, scene_agrees, NULL),
              "no agreement 2 heartbeats later");
    scene_check();
}

size_t scene_links_live(const struct fakenet_host *host)
{
    struct node_counters counters;

    node_counters(host->node, &counters);
    return counters.links_live;
}
