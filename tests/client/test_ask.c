/* libmeshd's questions about the mesh: explain, maps in pages, pairs. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/client.h>
#include "client/fake.h"
#include "wire/status.h"

#define SOON 20000

static struct fake fake;
static struct mesh_client *client;
static atomic_int asked;

static void start(void (*serve)(struct fake *fake, int fd), void *ctx)
{
    alarm(60);
    fake_start(&fake, SP_TCP, serve, ctx);
    cr_assert_eq(mesh_client_open(fake.url, SOON, &client), MESH_OK, "%s", mesh_error_text());
}

static void stop(void)
{
    mesh_client_close(client);
    fake_stop(&fake);
}

TestSuite(ask);

/* ---- explain ---- */

static void explain(struct fake *f, int fd)
{
    Meshd__V1__Route routes[2] = {MESHD__V1__ROUTE__INIT, MESHD__V1__ROUTE__INIT};
    Meshd__V1__Candidate c[2] = {MESHD__V1__CANDIDATE__INIT, MESHD__V1__CANDIDATE__INIT};
    Meshd__V1__Candidate *at[2] = {&c[0], &c[1]};
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
    struct fake_call call;

    routes[0].ip = (char *)"local";
    routes[0].backend_addr = (char *)"127.0.0.1:1";
    routes[0].connected = 1;
    routes[1].ip = (char *)"10.0.0.7";
    routes[1].stale = 1;
    c[0].route = &routes[0];
    c[0].chosen = 1;
    c[0].why = (char *)"local";
    c[1].route = &routes[1];
    c[1].why = (char *)"its link is lost";
    reply.name = (char *)"web";
    reply.candidates = at;
    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        const char *name = ((const Meshd__V1__ExplainRequest *)call.request)->name;

        reply.n_candidates = strcmp(name, "web") == 0 ? 2 : 0;
        fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        fake_call_fini(&call);
    }
}

struct told {
    int n, stop_at, chosen;
    unsigned states[4];
    char why[64];
};

static int on_candidate(void *ctx, const struct mesh_instance *it, int chosen, const char *why)
{
    struct told *told = ctx;

    told->states[told->n++] = it->state;
    told->chosen += chosen;
    snprintf(told->why, sizeof(told->why), "%s", why);
    cr_expect_str_eq(it->name, "web");
    return told->n == told->stop_at;
}

Test(ask, candidates_are_visited_in_the_order_of_choice)
{
    struct told told = {.n = 0}, first = {.stop_at = 1};

    start(explain, NULL);
    cr_assert_eq(mesh_explain(client, "web", SOON, on_candidate, &told), MESH_OK);
    cr_expect_eq(told.n, 2);
    cr_expect_eq(told.chosen, 1);
    cr_expect_eq(told.states[0], MESH_LOCAL | MESH_CONNECTED);
    cr_expect_eq(told.states[1], MESH_STALE);
    cr_expect_str_eq(told.why, "its link is lost");
    cr_assert_eq(mesh_explain(client, "web", SOON, on_candidate, &first), MESH_OK);
    cr_expect_eq(first.n, 1);
    cr_expect_eq(mesh_explain(client, "other", SOON, on_candidate, &told), MESH_NOT_FOUND);
    cr_expect_eq(mesh_explain(client, "no name", SOON, on_candidate, &told), MESH_INVALID);
    stop();
}

/* ---- pages ---- */

/* Two pages; the second is not found the first ctx times. */
static void pages(struct fake *f, int fd)
{
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT, *rows[] = {&row};
    Meshd__V1__PeerServiceInfo info = MESHD__V1__PEER_SERVICE_INFO__INIT, *infos[] = {&info};
    Meshd__V1__PeerServicesRow peer = MESHD__V1__PEER_SERVICES_ROW__INIT, *peers[] = {&peer};
    int lost = *(int *)f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        const Meshd__V1__IntrospectRequest *request = (const void *)call.request;
        Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
        int second = request->page_token.len != 0;

        atomic_fetch_add(&asked, 1);
        if (second && lost-- > 0) {
            fake_reply(f, fd, &call, STATUS_NOT_FOUND, 0, "too late", NULL);
            fake_call_fini(&call);
            continue;
        }
        row.name = (char *)(second ? "zoo" : "api");
        row.ip = (char *)(second ? "10.0.0.7" : "local");
        row.peer_id = (char *)(second ? "n7" : "n1");
        row.connected = row.healthy = 1;
        row.last_seen = 5;
        info.name = (char *)(second ? "zoo" : "bee");
        info.backend_addr = (char *)"10.0.0.7:1";
        info.healthy = !second;
        info.draining = second;
        peer.peer_ip = (char *)"10.0.0.7";
        peer.peer_id = (char *)"n7";
        peer.connected = 1;
        peer.last_sync = 3;
        peer.last_seen = 4;
        peer.services = infos;
        peer.n_services = 1;
        reply.epoch = 9;
        reply.revision = 77;
        reply.services = rows;
        reply.n_services = 1;
        reply.peer_services = peers;
        reply.n_peer_services = 1;
        if (!second)
            reply.next_page_token = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)"two"};
        fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        fake_call_fini(&call);
    }
}

static void expect_maps(int lost, int questions)
{
    const struct mesh_peer *peer;
    struct mesh_maps *maps = NULL;

    atomic_store(&asked, 0);
    start(pages, &lost);
    cr_assert_eq(mesh_maps_fetch(client, NULL, SOON, &maps), MESH_OK, "%s", mesh_error_text());
    cr_expect_eq(asked, questions);
    cr_expect_eq(mesh_maps_epoch(maps), 9);
    cr_expect_eq(mesh_maps_revision(maps), 77);
    cr_assert_eq(mesh_maps_services(maps), 2);
    cr_expect_str_eq(mesh_maps_service_at(maps, 0)->name, "api");
    cr_expect_eq(mesh_maps_service_at(maps, 0)->state, MESH_LOCAL | MESH_CONNECTED | MESH_HEALTHY);
    cr_expect_eq(mesh_maps_service_at(maps, 0)->last_seen, 0);
    cr_expect_str_eq(mesh_maps_service_at(maps, 1)->node, "n7");
    cr_expect_eq(mesh_maps_service_at(maps, 1)->last_seen, 5);
    cr_expect_null(mesh_maps_service_at(maps, 2));
    cr_assert_eq(mesh_maps_peers(maps), 1, "a peer that goes on in the next page is one peer");
    peer = mesh_maps_peer_at(maps, 0);
    cr_expect_eq(peer->last_sync, 3);
    cr_assert_eq(peer->n_services, 2);
    cr_expect_str_eq(peer->services[0].name, "bee");
    cr_expect_str_eq(peer->services[1].name, "zoo");
    cr_expect_str_eq(peer->services[1].source, "10.0.0.7");
    cr_expect_eq(peer->state, MESH_CONNECTED);
    cr_expect_eq(peer->services[0].state, MESH_CONNECTED | MESH_HEALTHY);
    cr_expect_eq(peer->services[1].state, MESH_CONNECTED | MESH_DRAINING);
    cr_expect_null(mesh_maps_peer_at(maps, 1));
    mesh_maps_free(maps);
    stop();
}

Test(ask, maps_come_in_pages) { expect_maps(0, 2); }

Test(ask, maps_begin_anew_when_their_picture_is_gone) { expect_maps(2, 6); }

Test(ask, maps_that_never_hold_still_end_at_the_deadline)
{
    struct mesh_maps *maps = NULL;
    int lost = 1000000000;

    start(pages, &lost);
    cr_expect_eq(mesh_maps_fetch(client, NULL, 100, &maps), MESH_TIMEOUT);
    cr_expect_null(maps);
    stop();
}

/* ---- pairs ---- */

struct seen {
    char text[8192];
    int n, stop_at;
};

static int on_pair(void *ctx, const char *key, const char *value)
{
    struct seen *seen = ctx;
    size_t used = strlen(seen->text);

    snprintf(seen->text + used, sizeof(seen->text) - used, "%s=%s\n", key, value);
    return ++seen->n == seen->stop_at;
}

static void node(struct fake *f, int fd)
{
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
    Meshd__V1__NodeInfo info = MESHD__V1__NODE_INFO__INIT;
    Meshd__V1__LinkRow link = MESHD__V1__LINK_ROW__INIT, *links[] = {&link};
    char *addresses[] = {(char *)"127.0.0.1:7400", (char *)"[::1]:7400"};
    struct fake_call call;

    link.state = (char *)"live";
    info.peer_id = (char *)"n1";
    info.draining = 1;
    info.uptime_ms = 18446744073709551615ull;
    info.addresses = addresses;
    info.n_addresses = 2;
    info.links = links;
    info.n_links = 1;
    reply.node = &info;
    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        fake_call_fini(&call);
    }
}

Test(ask, what_a_node_says_of_itself_comes_in_pairs)
{
    static const char *const some[] = {
        "node.peer_id=n1\n",
        "node.draining=true\n",
        "node.uptime_ms=18446744073709551615\n",
        "node.links.0.state=live\n",
        "node.addresses.1=[::1]:7400\n",
        "node.nng_healthy=false\n",
    };
    struct seen seen = {.n = 0}, first = {.stop_at = 1};

    start(node, NULL);
    cr_assert_eq(mesh_introspect(client, "node", SOON, on_pair, &seen), MESH_OK);
    for (size_t i = 0; i < sizeof(some) / sizeof(*some); i++)
        cr_expect(strstr(seen.text, some[i]), "%s in\n%s", some[i], seen.text);
    cr_assert_eq(mesh_introspect(client, "node", SOON, on_pair, &first), MESH_OK);
    cr_expect_eq(first.n, 1);
    cr_expect_eq(mesh_introspect(client, "weather", SOON, on_pair, &seen), MESH_INVALID);
    cr_expect_eq(mesh_introspect(client, NULL, SOON, on_pair, &seen), MESH_INVALID);
    stop();
}

Test(ask, pairs_of_a_picture_that_went_away_end_with_a_timeout)
{
    struct seen seen = {.n = 0};
    int lost = 1;

    start(pages, &lost);
    cr_expect_eq(mesh_introspect(client, "services", SOON, on_pair, &seen), MESH_TIMEOUT);
    stop();
}

Test(ask, rows_are_numbered_across_pages)
{
    struct seen seen = {.n = 0};
    int lost = 0;

    start(pages, &lost);
    cr_assert_eq(mesh_introspect(client, "services", SOON, on_pair, &seen), MESH_OK);
    cr_expect(strstr(seen.text, "services.0.name=api\n"));
    cr_expect(strstr(seen.text, "services.1.name=zoo\n"));
    stop();
}
