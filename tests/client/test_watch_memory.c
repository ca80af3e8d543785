/* Every allocation of a watch and of a replica fails once, for each of them: nothing is lost, told
 * twice or leaked, and in the end all is known. Needs the linker's --wrap for malloc, calloc and
 * realloc; the fake's own never fail. */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/fakewatch.h"
#include "client/watch.h"

#define LONG_MS 20000
#define EVENTS 40u

static atomic_ulong until_failure; /* 0: none fails */
static _Thread_local bool exempt;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static bool fails(void)
{
    return !exempt && atomic_load(&until_failure) > 0 && atomic_fetch_sub(&until_failure, 1) == 1;
}

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }

void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

static struct fake fake;

/* A picture of EVENTS rows, half of them of one name; then all of them at another address; then the
 * first one goes. */
static void serve(struct fake *f, int fd)
{
    struct fakewatch_event events[EVENTS];
    struct fakewatch_message message = {.epoch = 1, .events = events, .n = EVENTS};
    char names[EVENTS][16], sources[EVENTS][16];
    struct fakewatch to;

    exempt = true;
    if (!fakewatch_begin(&to, f, fd))
        return;
    fakewatch_greet(&to, 0, 0, "");
    for (unsigned i = 0; i < EVENTS; i++) {
        snprintf(names[i], sizeof(names[i]), i % 2 ? "many" : "svc-%u", i);
        snprintf(sources[i], sizeof(sources[i]), "10.0.0.%u", i);
        events[i] = (struct fakewatch_event){FW_UP, names[i], sources[i], "h:1", FW_CONNECTED};
    }
    message.resync = message.synced = true;
    message.revision = 1;
    fakewatch_tell(&to, &message);
    for (unsigned i = 0; i < EVENTS; i++) {
        events[i].kind = FW_CHANGED;
        events[i].backend = "h:2";
    }
    message.resync = message.synced = false;
    message.revision = 2;
    fakewatch_tell(&to, &message);
    events[0].kind = FW_DOWN;
    message.n = 1;
    message.revision = 3;
    fakewatch_tell(&to, &message);
    fake_drain(fd);
}

/* One watch from its beginning to the last change. True: no allocation failed. */
static bool watch_once(unsigned long nth)
{
    unsigned told[5] = {0};
    struct mesh_watch *watch;
    enum mesh_status status;

    atomic_store(&until_failure, nth);
    status = watch_open_url(fake.url, NULL, "*", LONG_MS, &watch);
    if (status == MESH_OK) {
        while (told[MESH_DOWN] == 0) {
            const struct mesh_instance *it;
            enum mesh_change change;

            status = mesh_watch_next(watch, LONG_MS, &change, &it);
            cr_assert(status == MESH_OK || status == MESH_NO_MEMORY, "%s", mesh_error_text());
            if (status == MESH_OK)
                told[change]++;
        }
        cr_expect_eq(told[MESH_UP], EVENTS, "allocation %lu: %u", nth, told[MESH_UP]);
        cr_expect_eq(told[MESH_CHANGED], EVENTS);
        cr_expect_eq(told[MESH_SYNCED], 1);
        mesh_watch_close(watch);
    } else {
        cr_assert_eq(status, MESH_NO_MEMORY, "%s", mesh_error_text());
    }
    return atomic_exchange(&until_failure, 0) > 0;
}

Test(watch_memory, no_allocation_of_a_watch_is_taken_for_granted)
{
    unsigned long nth = 1;

    fake_start(&fake, SP_IPC, serve, NULL);
    while (!watch_once(nth))
        nth++;
    cr_expect_gt(nth, 2 * EVENTS);
    fake_stop(&fake);
}

static void expect_all_known(struct mesh_replica *replica)
{
    const struct mesh_list *list;
    struct mesh_reader *reader;

    exempt = true;
    cr_assert_eq(mesh_reader_open(replica, &reader), MESH_OK);
    cr_assert_eq(mesh_replica_lookup(reader, "many", &list), MESH_OK);
    cr_expect_eq(mesh_list_count(list), EVENTS / 2);
    for (size_t i = 0; i < mesh_list_count(list); i++)
        cr_expect_str_eq(mesh_list_at(list, i)->address, "h:2");
    cr_expect_eq(mesh_replica_lookup(reader, "svc-2", &list), MESH_OK);
    cr_expect_eq(mesh_replica_lookup(reader, "svc-0", &list), MESH_NOT_FOUND);
    mesh_reader_close(reader);
    exempt = false;
}

/* Likewise. Without memory a replica begins anew, on its own. */
static bool replicate_once(unsigned long nth)
{
    struct mesh_replica *replica;
    struct mesh_replica_state state;
    enum mesh_status status;

    atomic_store(&until_failure, nth);
    status = mesh_replica_open(fake.url, NULL, LONG_MS, &replica);
    if (status == MESH_OK) {
        for (int i = 0; i < LONG_MS; i++) {
            mesh_replica_state(replica, &state);
            if (state.revision == 3 && state.current)
                break;
            poll(NULL, 0, 1);
        }
        cr_assert_eq(state.revision, 3, "allocation %lu", nth);
        cr_expect_eq(state.instances, EVENTS - 1);
        expect_all_known(replica);
        mesh_replica_close(replica);
    } else {
        cr_assert_eq(status, MESH_NO_MEMORY, "%s", mesh_error_text());
    }
    return atomic_exchange(&until_failure, 0) > 0;
}

Test(watch_memory, no_allocation_of_a_replica_is_taken_for_granted)
{
    unsigned long nth = 1;

    fake_start(&fake, SP_IPC, serve, NULL);
    /* By steps that hit every kind of allocation: those in the thread cost a pause each. */
    while (!replicate_once(nth))
        nth += nth < 130 ? 1 : 7;
    cr_expect_gt(nth, 3 * EVENTS);
    fake_stop(&fake);
}
