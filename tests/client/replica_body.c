/* Every name has three instances, whose addresses all carry one generation; the node changes the
 * three one after the other, in messages of which only the last says that it was all. So a reader
 * that sees two generations in one answer, or other than three instances, has seen half a change.
 * Names that come and go are there whole or not at all. */
#include "client/replica_body.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <meshd/client.h>
#include "client/fakewatch.h"

#define NAMES 60u
#define COMING 20u /* of these come and go */
#define SOURCES 3u
#define ROUNDS 4u  /* connections */
#define STORM 150u /* changes between pictures */
#define READERS 3
#define PER_MESSAGE 10u /* names of a picture */

struct shared {
    struct mesh_replica *replica;
    unsigned generation, round; /* of the fake's thread */
    atomic_uint over, stop, wrong, looked;
};

static struct shared shared;

static void wrong(const char *what, const char *name)
{
    fprintf(stderr, "# not as it must be: %s: %s\n", name, what);
    atomic_fetch_add(&shared.wrong, 1);
}

/* ---- the node ---- */

static const char *const sources[SOURCES] = {"local", "10.0.0.1", "10.0.0.2"};

struct texts {
    struct fakewatch_event events[PER_MESSAGE];
    char name[PER_MESSAGE][32], backend[32];
    size_t n;
};

static void texts_begin(struct texts *texts)
{
    texts->n = 0;
    snprintf(texts->backend, sizeof(texts->backend), "h:%u", shared.generation);
}

static void texts_add(struct texts *texts, unsigned i, const char *source,
                      Meshd__V1__WatchKind kind)
{
    char *name = texts->name[texts->n];

    snprintf(name, sizeof(texts->name[0]), "svc-%u", i);
    texts->events[texts->n++] =
        (struct fakewatch_event){kind, name, source, texts->backend, FW_CONNECTED | FW_HEALTHY};
}

static bool tell(struct fakewatch *to, struct texts *texts, uint64_t revision, bool resync,
                 bool synced)
{
    return fakewatch_tell(to, &(struct fakewatch_message){.epoch = 1,
                                                          .revision = revision,
                                                          .resync = resync,
                                                          .synced = synced,
                                                          .events = texts->events,
                                                          .n = texts->n});
}

/* with: those that come and go are there. Source by source, so that each name is in many messages.
 */
static bool picture(struct fakewatch *to, bool with)
{
    unsigned n = with ? NAMES : NAMES - COMING;
    struct texts texts;

    shared.generation++;
    for (unsigned at = 0; at < n * SOURCES; at += PER_MESSAGE) {
        bool last = at + PER_MESSAGE >= n * SOURCES;

        texts_begin(&texts);
        for (unsigned k = at; k < at + PER_MESSAGE && k < n * SOURCES; k++)
            texts_add(&texts, k % n, sources[k / n], FW_UP);
        if (!tell(to, &texts, last ? shared.generation : 0, at == 0, last))
            return false;
    }
    return true;
}

static bool storm(struct fakewatch *to)
{
    struct texts texts;

    for (unsigned i = 0; i < STORM * SOURCES; i++) {
        unsigned change = i / SOURCES, s = i % SOURCES;

        shared.generation += s == 0;
        texts_begin(&texts);
        texts_add(&texts, change % (NAMES - COMING), sources[s], FW_CHANGED);
        texts_add(&texts, NAMES - COMING + change % COMING, sources[s],
                  change / COMING % 2 ? FW_UP : FW_DOWN);
        if (!tell(to, &texts, s == SOURCES - 1 ? shared.generation : 0, false, false))
            return false;
    }
    return true;
}

static void serve(struct fake *fake, int fd)
{
    struct fakewatch to;

    if (!fakewatch_begin(&to, fake, fd))
        return;
    fakewatch_greet(&to, 0, 0, "");
    if (!picture(&to, shared.round % 2) || !storm(&to) || !picture(&to, true) || !storm(&to))
        return;
    if (++shared.round < ROUNDS)
        return; /* and the replica comes again */
    atomic_store(&shared.over, 1);
    fake_drain(fd);
}

/* ---- readers ---- */

static void check(const char *name, const struct mesh_list *list)
{
    const struct mesh_instance *first = mesh_list_at(list, 0);

    if (mesh_list_count(list) != SOURCES) {
        wrong("some of it", name);
        return;
    }
    if (strcmp(first->source, "local") != 0)
        wrong("not the local one first", name);
    for (size_t i = 0; i < SOURCES; i++) {
        const struct mesh_instance *it = mesh_list_at(list, i);

        if (strcmp(it->name, name) != 0)
            wrong("another name", name);
        if (strcmp(it->address, first->address) != 0)
            wrong("two generations", name);
    }
}

static void *read_on(void *arg)
{
    struct mesh_reader *reader = NULL;

    for (unsigned i = 0; !atomic_load(&shared.stop); i++) {
        unsigned at = i % NAMES;
        const struct mesh_list *list;
        enum mesh_status status;
        char name[32];

        if (i % 1000 == 0) {
            mesh_reader_close(reader);
            if (mesh_reader_open(shared.replica, &reader) != MESH_OK)
                abort();
        }
        snprintf(name, sizeof(name), "svc-%u", at);
        status = mesh_replica_lookup(reader, name, &list);
        if (status == MESH_OK)
            check(name, list);
        else if (status != MESH_NOT_FOUND || at < NAMES - COMING)
            wrong(mesh_status_text(status), name);
        if (i % 100 == 0) {
            struct mesh_replica_state state;

            mesh_replica_state(shared.replica, &state);
            if (state.instances < (size_t)(NAMES - COMING) * SOURCES)
                wrong("instances are missing", "state");
        }
        atomic_fetch_add(&shared.looked, 1);
    }
    mesh_reader_close(reader);
    return NULL;
}

int replica_body(void)
{
    pthread_t readers[READERS];
    struct mesh_replica_state state;
    struct fake fake;

    memset(&shared, 0, sizeof(shared));
    fake_start(&fake, SP_IPC, serve, NULL);
    if (mesh_replica_open(fake.url, NULL, 20000, &shared.replica) != MESH_OK)
        abort();
    for (int i = 0; i < READERS; i++)
        if (pthread_create(&readers[i], NULL, read_on, NULL) != 0)
            abort();
    do {
        sched_yield();
        mesh_replica_state(shared.replica, &state);
    } while (!atomic_load(&shared.over) || state.revision < shared.generation ||
             atomic_load(&shared.looked) < NAMES);
    atomic_store(&shared.stop, 1);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    if (!state.current || state.reconnects != ROUNDS - 1 || state.resyncs < ROUNDS)
        wrong("its counts", "state");
    fprintf(stderr, "# %u lookups, %llu changes, %llu pictures\n", atomic_load(&shared.looked),
            (unsigned long long)state.changes, (unsigned long long)state.resyncs);
    mesh_replica_close(shared.replica);
    fake_stop(&fake);
    return (int)atomic_load(&shared.wrong);
}
