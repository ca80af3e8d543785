/* Every allocation of libmeshd's calls fails once, for each of them: the function says so, nothing
 * is leaked, and the client goes on. Needs the linker's --wrap for malloc, calloc, realloc, strdup;
 * only the test's own thread is ever failed. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/client.h>
#include "client/answers.h"
#include "client/fake.h"
#include "client/front.h"
#include "tls/support.h"

#define SOON 20000
#define MOST 400u /* allocations of one round */

static _Thread_local unsigned until_failure; /* 0: none fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t size);
char *__wrap_strdup(const char *text);

static bool fails(void) { return until_failure > 0 && until_failure-- == 1; }

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }

void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

char *__wrap_strdup(const char *text) { return fails() ? NULL : __real_strdup(text); }

static void introspect(struct fake *f, int fd, const struct fake_call *call)
{
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT, *rows[] = {&row};
    Meshd__V1__PeerServiceInfo info = MESHD__V1__PEER_SERVICE_INFO__INIT, *infos[] = {&info};
    Meshd__V1__PeerServicesRow peer = MESHD__V1__PEER_SERVICES_ROW__INIT, *peers[] = {&peer};
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;

    peer.peer_ip = (char *)"10.0.0.7";
    peer.services = infos;
    peer.n_services = 1;
    reply.services = rows;
    reply.peer_services = peers;
    reply.n_services = reply.n_peer_services = 1;
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void explain(struct fake *f, int fd, const struct fake_call *call)
{
    Meshd__V1__Route route = MESHD__V1__ROUTE__INIT;
    Meshd__V1__Candidate candidate = MESHD__V1__CANDIDATE__INIT, *candidates[] = {&candidate};
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;

    candidate.route = &route;
    reply.candidates = candidates;
    reply.n_candidates = 1;
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void serve(struct fake *f, int fd)
{
    Meshd__V1__OfferReply nothing = MESHD__V1__OFFER_REPLY__INIT;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        if (strcmp(call.method, "Lookup") == 0)
            answer_lookup(f, fd, &call);
        else if (strcmp(call.method, "Introspect") == 0)
            introspect(f, fd, &call);
        else if (strcmp(call.method, "Explain") == 0)
            explain(f, fd, &call);
        else
            fake_reply(f, fd, &call, 0, 0, "", &nothing.base);
        fake_call_fini(&call);
    }
}

static int on_candidate(void *ctx, const struct mesh_instance *it, int chosen, const char *why)
{
    return 0;
}

static int on_pair(void *ctx, const char *key, const char *value) { return 0; }

static enum mesh_status look_up(struct mesh_client *client)
{
    const char *names[] = {"web", "db", "nobody"};
    struct mesh_list *list = NULL;
    enum mesh_status status = mesh_lookup_many(client, names, 3, SOON, &list);

    cr_expect_eq(list != NULL, status == MESH_OK);
    mesh_list_free(list);
    return status;
}

static enum mesh_status fetch(struct mesh_client *client)
{
    struct mesh_maps *maps = NULL;
    enum mesh_status status = mesh_maps_fetch(client, NULL, SOON, &maps);

    cr_expect_eq(maps != NULL, status == MESH_OK);
    mesh_maps_free(maps);
    return status;
}

static enum mesh_status offer(struct mesh_client *client)
{
    const struct mesh_offer as = {.size = sizeof(as), .check = "http:/up"};
    struct mesh_lease *lease = NULL;
    enum mesh_status status = mesh_register_with(client, "web", "127.0.0.1:80", &as, SOON, &lease);

    cr_expect_eq(lease != NULL, status == MESH_OK);
    if (lease)
        cr_expect_eq(mesh_lease_change(lease, "127.0.0.1:81", NULL, SOON), MESH_OK);
    mesh_lease_close(lease);
    return status;
}

static enum mesh_status step(struct mesh_client *client, unsigned number)
{
    switch (number) {
    case 0:
        return look_up(client);
    case 1:
        return mesh_explain(client, "web", SOON, on_candidate, NULL);
    case 2:
        return fetch(client);
    case 3:
        return mesh_introspect(client, "services", SOON, on_pair, NULL);
    default:
        return offer(client);
    }
}

/* All functions once, the nth allocation of them fails. True: there is no nth. */
static bool round_of(const char *url, const struct mesh_tls *tls, unsigned nth)
{
    struct mesh_client *client = NULL;
    unsigned failed = 0;
    enum mesh_status status;

    until_failure = nth;
    status = mesh_client_open_tls(url, tls, SOON, &client);
    if (status != MESH_OK) {
        cr_expect_eq(status, MESH_NO_MEMORY, "%u: %s", nth, mesh_error_text());
        cr_expect_null(client);
        return false;
    }
    for (unsigned i = 0; i < 5; i++) {
        status = step(client, i);
        cr_expect(status == MESH_OK || status == MESH_NO_MEMORY, "%u: step %u: %s: %s", nth, i,
                  mesh_status_text(status), mesh_error_text());
        failed += status != MESH_OK;
    }
    cr_expect_leq(failed, 1, "%u: one allocation failed, and more than one function", nth);
    mesh_client_close(client);
    if (until_failure == 0)
        return false;
    until_failure = 0;
    return true;
}

Test(client_memory, an_allocation_that_fails_is_told_and_does_no_harm)
{
    struct fake fake;
    unsigned nth = 1;

    alarm(100);
    while (nth < MOST) {
        bool done;

        fake_start_many(&fake, SP_IPC, serve, NULL);
        done = round_of(fake.url, NULL, nth++);
        until_failure = 0;
        fake_stop(&fake);
        if (done)
            break;
    }
    cr_expect_gt(nth, 20);
    cr_expect_lt(nth, MOST);
}

Test(client_memory, nor_does_one_that_fails_inside_tls)
{
    struct issued *ca = issue_ca(NULL, "the mesh");
    struct tls_settings node = node_settings("n1", ca, issue_node(ca, "n1"));
    struct tls_settings mine = node_settings("me", ca, issue_node(ca, "me"));
    struct mesh_tls tls = {
        .size = sizeof(tls), .ca = mine.ca, .cert = mine.cert, .key = mine.key, .node = "n1"};
    struct front front;
    struct fake fake;
    unsigned nth = 1;

    alarm(100);
    while (nth < MOST) {
        bool done;

        fake_start_many(&fake, SP_TCP, serve, NULL);
        front_start(&front, &node, fake.port);
        done = round_of(front.url, &tls, nth++);
        until_failure = 0;
        front_stop(&front);
        fake_stop(&fake);
        if (done)
            break;
    }
    cr_expect_gt(nth, 30);
    cr_expect_lt(nth, MOST);
}
