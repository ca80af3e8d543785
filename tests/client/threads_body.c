/* threads_body - see threads_body.h. */
#include "client/threads_body.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <meshd/client.h>
#include "client/answers.h"
#include "client/fake.h"
#include "client/front.h"
#include "tls/support.h"

#define THREADS 8
#define ROUNDS 60
#define RING 5
#define BREAK_AFTER 400 /* requests of one connection */
#define DEADLINE_MS 60000

static struct mesh_client *client;
static atomic_int wrong;

static void serve_and_break(struct fake *fake, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    for (int i = 0; i < BREAK_AFTER && fake_read(fake, fd, &call); i++) {
        answer_lookup(fake, fd, &call);
        fake_call_fini(&call);
    }
}

static void check(struct mesh_call *call, const char *name)
{
    struct mesh_list *list;

    if (mesh_call_wait(call, &list) != MESH_OK) {
        fprintf(stderr, "%s: %s\n", name, mesh_error_text());
        atomic_fetch_add(&wrong, 1);
        return;
    }
    if (mesh_list_count(list) != 1 || strcmp(mesh_list_at(list, 0)->name, name) != 0)
        atomic_fetch_add(&wrong, 1);
    mesh_list_free(list);
}

/* Rings of calls, one of which is cancelled now and then. */
static void *run(void *arg)
{
    unsigned me = *(unsigned *)arg;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct mesh_call *calls[RING];
        char names[RING][32];

        for (unsigned i = 0; i < RING; i++) {
            const char *name = names[i];

            snprintf(names[i], sizeof(names[i]), "t%u.r%u.c%u", me, round, i);
            if (mesh_lookup_begin(client, &name, 1, DEADLINE_MS, &calls[i]) != MESH_OK) {
                atomic_fetch_add(&wrong, 1);
                return NULL;
            }
        }
        for (unsigned i = RING; i-- > 0;) {
            if ((me + round + i) % 17 == 0)
                mesh_call_cancel(calls[i]);
            else
                check(calls[i], names[i]);
        }
    }
    return NULL;
}

/* ---- leases: each with a thread of its own, on a node that breaks off with every other call ----
 */

#define LEASE_ROUNDS 5

static void serve_leases(struct fake *fake, int fd)
{
    Meshd__V1__OfferReply yes = MESHD__V1__OFFER_REPLY__INIT;
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(fake, fd, &call))
        return;
    fake_reply(fake, fd, &call, 0, 0, "", &yes.base);
    fake_call_fini(&call);
}

static void *lease(void *arg)
{
    const struct mesh_offer drained = {.size = sizeof(drained), .check = "tcp", .draining = 1};

    for (int round = 0; round < LEASE_ROUNDS; round++) {
        struct mesh_lease *lease;

        if (mesh_register(arg, "web", "127.0.0.1:80", DEADLINE_MS, &lease) != MESH_OK) {
            fprintf(stderr, "lease: %s\n", mesh_error_text());
            atomic_fetch_add(&wrong, 1);
            return NULL;
        }
        if (mesh_lease_change(lease, NULL, &drained, DEADLINE_MS) != MESH_OK) {
            fprintf(stderr, "lease: %s\n", mesh_error_text());
            atomic_fetch_add(&wrong, 1);
        }
        mesh_lease_state(lease);
        mesh_lease_service(lease);
        mesh_lease_close(lease);
    }
    return NULL;
}

static void lease_bodies(void)
{
    struct mesh_client *local;
    pthread_t threads[2];
    struct fake fake;

    fake_start_many(&fake, SP_IPC, serve_leases, NULL);
    if (mesh_client_open(fake.url, DEADLINE_MS, &local) != MESH_OK) {
        atomic_fetch_add(&wrong, 1);
        return;
    }
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, lease, local);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    mesh_client_close(local);
    fake_stop(&fake);
}

static enum mesh_status open_tls(struct front *front, uint16_t port)
{
    struct issued *ca = issue_ca(NULL, "the mesh");
    struct tls_settings node = node_settings("n1", ca, issue_node(ca, "n1"));
    struct tls_settings program = node_settings("program", ca, issue_node(ca, "program"));
    struct mesh_tls tls = {
        .size = sizeof(tls), .ca = program.ca, .cert = program.cert, .key = program.key};

    front_start(front, &node, port);
    return mesh_client_open_tls(front->url, &tls, DEADLINE_MS, &client);
}

int threads_body(bool over_tls)
{
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    struct front front;
    struct fake fake;

    fake_start(&fake, SP_TCP, serve_and_break, NULL);
    if ((over_tls ? open_tls(&front, fake.port)
                  : mesh_client_open(fake.url, DEADLINE_MS, &client)) != MESH_OK)
        return 1;
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, run, &numbers[i]) != 0)
            return 1;
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    mesh_client_close(client);
    if (over_tls)
        front_stop(&front);
    fake_stop(&fake);
    if (!over_tls)
        lease_bodies();
    return atomic_load(&wrong);
}
