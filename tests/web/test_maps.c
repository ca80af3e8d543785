/* Both maps: what is in them, what is asked for, and what it costs to show them. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "support.h"
#include "wire/json.h"

#define MANY 50000u

static struct rig rig;

static void setup(void) { rig_init(&rig); }
static void teardown(void) { rig_stop(&rig); }

TestSuite(maps, .init = setup, .fini = teardown);

static json_t *load(const struct reply *reply)
{
    json_t *json = json_loadb(reply->body, reply->len, 0, NULL);

    cr_assert(json, "no JSON: %s", reply->body);
    return json;
}

/* "key key ..." of the rows. */
static void expect_rows(const char *path, const char *list, const char *member, const char *total,
                        const char *wanted)
{
    struct reply reply = get(&rig, path, "");
    json_t *json, *row;
    char keys[512] = "";
    size_t i;

    cr_assert_eq(reply.status, 200, "%s", reply.body);
    json = load(&reply);
    json_array_foreach(json_object_get(json, list), i, row)
    {
        strcat(keys, i ? " " : "");
        strcat(keys, json_string_value(json_object_get(row, member)));
    }
    cr_expect_str_eq(keys, wanted, "%s: %s", path, keys);
    cr_expect_eq((size_t)json_integer_value(json_object_get(json, total)),
                 json_array_size(json_object_get(json, list)));
    json_decref(json);
    reply_fini(&reply);
}

static void services(const char *query, const char *wanted)
{
    char path[256];

    snprintf(path, sizeof path, "/v1/services%s", query);
    expect_rows(path, "services", "key", "services_total", wanted);
}

static void peers(const char *query, const char *wanted)
{
    char path[256];

    snprintf(path, sizeof path, "/v1/peers%s", query);
    expect_rows(path, "peer_services", "peer_ip", "peers_total", wanted);
}

Test(maps, services_are_filtered_by_name_peer_and_state)
{
    rig_start(&rig);
    services("", "db@local web@local api@192.0.2.1 web@192.0.2.1 old@192.0.2.2");
    services("?name=web", "web@local web@192.0.2.1");
    services("?name=*b&peer=local", "db@local web@local");
    services("?peer=me", "db@local web@local");
    services("?peer=p1", "api@192.0.2.1 web@192.0.2.1");
    services("?peer=192.0.2.2", "old@192.0.2.2");
    services("?peer=nobody", "");
    services("?state=connected", "db@local web@local api@192.0.2.1 web@192.0.2.1");
    services("?state=stale", "old@192.0.2.2");
    services("?state=draining", "api@192.0.2.1");
    services("?state=unhealthy", "web@local");
    services("?state=unhealthy&name=db", "");
}

Test(maps, peers_are_filtered_likewise_and_one_without_a_match_is_left_out)
{
    rig_start(&rig);
    peers("", "192.0.2.1 192.0.2.2");
    peers("?name=web", "192.0.2.1");
    peers("?state=stale", "192.0.2.2");
    peers("?state=connected", "192.0.2.1");
    peers("?state=draining", "192.0.2.1");
    peers("?state=unhealthy", "");
    peers("?peer=p2", "192.0.2.2");
    peers("?peer=local", "");
}

Test(maps, a_peer_that_drains_does_so_with_all_it_has)
{
    struct registry_state state = {.connected = true, .draining = true, .last_seen_ms = 1};

    registry_peer_state(rig.reg, "p1", &state, NULL);
    rig_start(&rig);
    services("?state=draining", "api@192.0.2.1 web@192.0.2.1");
    peers("?state=draining", "192.0.2.1");
}

/* What wire_json makes of the whole reply is the standard. */
Test(maps, documents_are_what_the_protocol_says_byte_by_byte)
{
    Meshd__V1__IntrospectReply whole = MESHD__V1__INTROSPECT_REPLY__INIT;
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT, *rows[] = {&row};
    Meshd__V1__PeerServicesRow peer = MESHD__V1__PEER_SERVICES_ROW__INIT, *of_peers[] = {&peer};
    Meshd__V1__PeerServiceInfo infos[2], *at[] = {&infos[0], &infos[1]};
    static const char *const not_of_services[] = {"peer_services", "next_page_token", "peers_total",
                                                  "node",          "limits",          "tombstones",
                                                  "local_digest",  "local_total"};
    static const char *const not_of_peers[] = {"services",     "next_page_token", "services_total",
                                               "node",         "limits",          "tombstones",
                                               "local_digest", "local_total"};
    struct registry_peer_info info;
    struct reply reply;
    json_t *json;
    char *text;

    rig_start(&rig);
    cr_assert_eq(registry_peer_get(rig.reg, "p1", &info), 0);
    whole.peer_id = (char *)"me";
    whole.epoch = registry_epoch(rig.reg);
    whole.revision = registry_revision(rig.reg);
    row = (Meshd__V1__ServiceRow){.base = row.base,
                                  .key = (char *)"web@192.0.2.1",
                                  .name = (char *)"web",
                                  .ip = (char *)"192.0.2.1",
                                  .backend_addr = (char *)"192.0.2.1:80",
                                  .connected = true,
                                  .last_seen = 1700000000,
                                  .peer_id = (char *)"p1",
                                  .healthy = true,
                                  .link = (char *)"abababab"};
    whole.services = rows;
    whole.n_services = whole.services_total = 1;
    json = wire_json(&whole.base);
    for (size_t i = 0; i < sizeof not_of_services / sizeof *not_of_services; i++)
        json_object_del(json, not_of_services[i]);
    text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII);
    reply = get(&rig, "/v1/services?name=web&peer=p1", "");
    cr_expect_eq(strncmp(reply.body, text, strlen(text)), 0, "%s%s", reply.body, text);
    cr_expect_str_eq(reply.body + strlen(text), "\n");
    json_decref(json);
    free(text);
    reply_fini(&reply);

    for (size_t i = 0; i < 2; i++) {
        meshd__v1__peer_service_info__init(&infos[i]);
        infos[i].name = (char *)(i ? "web" : "api");
        infos[i].backend_addr = (char *)(i ? "192.0.2.1:80" : "h:1");
        infos[i].source_peer = (char *)"192.0.2.1";
        infos[i].healthy = true;
        infos[i].draining = i == 0;
    }
    peer.peer_ip = (char *)"192.0.2.1";
    peer.peer_id = (char *)"p1";
    peer.services = at;
    peer.n_services = peer.services_total = 2;
    peer.connected = true;
    peer.incarnation = info.incarnation;
    peer.version = info.version;
    peer.last_seen = 1700000000;
    peer.digest = info.digest;
    whole.n_services = 0;
    whole.peer_services = of_peers;
    whole.n_peer_services = whole.peers_total = 1;
    reply = get(&rig, "/v1/peers?peer=p1", "");
    json = load(&reply);
    peer.last_sync = (uint64_t)json_integer_value(
        json_object_get(json_array_get(json_object_get(json, "peer_services"), 0), "last_sync"));
    json_decref(json);
    json = wire_json(&whole.base);
    for (size_t i = 0; i < sizeof not_of_peers / sizeof *not_of_peers; i++)
        json_object_del(json, not_of_peers[i]);
    text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII);
    cr_expect_eq(strncmp(reply.body, text, strlen(text)), 0, "%s%s", reply.body, text);
    cr_expect_str_eq(reply.body + strlen(text), "\n");
    json_decref(json);
    free(text);
    reply_fini(&reply);
}

Test(maps, who_has_the_revision_is_told_so_and_not_the_map)
{
    struct reply reply;
    char tag[128] = "", more[160];

    rig_start(&rig);
    reply = get(&rig, "/v1/services", "");
    sscanf(strstr(reply.head, "\r\nETag: "), "\r\nETag: %100s", tag);
    reply_fini(&reply);
    snprintf(more, sizeof more, "If-None-Match: %s\r\n", tag);
    reply = get(&rig, "/v1/services", more);
    cr_expect_eq(reply.status, 304);
    cr_expect_eq(reply.len, 0);
    cr_expect(strstr(reply.head, tag));
    reply_fini(&reply);
    put_local_text(rig.reg, 2, "db=127.0.0.1:5433");
    reply = get(&rig, "/v1/services", more);
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
}

static void put_many(void)
{
    const char *label;
    struct list *list = list_of_many("192.0.2.3", 0, MANY, "backend.example.org:8080");

    cr_assert_eq(registry_peer_open(rig.reg, "p3", "192.0.2.3", 1, &label, NULL), 0);
    cr_assert_eq(registry_put_list(rig.reg, "p3", 1, 1, list, 1, NULL, NULL), 0);
    list_unref(list);
}

Test(maps, a_large_map_is_whole_and_costs_no_memory_of_its_size)
{
    struct reply reply;
    size_t before, after;
    json_t *json;
    int fd;

    put_many();
    rig_start(&rig);
    before = mallinfo2().uordblks;
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n");
    cr_expect_eq(recv(fd, &(char){0}, 1, MSG_PEEK), 1); /* it goes out, and stops there */
    after = mallinfo2().uordblks;
    cr_expect_lt(after, before + (1u << 20), "%zu, %zu before", after, before);
    reply = reply_read(fd, false);
    close(fd);
    cr_expect_gt(reply.len, 10u << 20);
    json = load(&reply);
    cr_expect_eq(json_array_size(json_object_get(json, "services")), MANY + 5);
    cr_expect_eq(json_integer_value(json_object_get(json, "services_total")), MANY + 5);
    json_decref(json);
    reply_fini(&reply);
    reply = get(&rig, "/v1/peers?peer=p3", "");
    json = load(&reply);
    cr_expect_eq(json_array_size(json_object_get(
                     json_array_get(json_object_get(json, "peer_services"), 0), "services")),
                 MANY);
    json_decref(json);
    reply_fini(&reply);
}

/* A space now and then is how others come to have their turn. */
static void expect_parts(const char *path, const char *list, const char *key, const char *wanted)
{
    struct reply reply = get(&rig, path, "");
    json_t *json = load(&reply), *row = json_array_get(json_object_get(json, list), 0);
    size_t spaces = 0;

    for (const char *c = reply.body; *c; c++)
        spaces += *c == ' ';
    cr_expect_geq(spaces, MANY / 1000, "%s: %zu", path, spaces);
    cr_expect_eq(json_array_size(json_object_get(json, list)), *wanted ? 1u : 0u);
    if (*wanted)
        cr_expect_str_eq(json_string_value(json_object_get(row, key)), wanted);
    json_decref(json);
    reply_fini(&reply);
}

Test(maps, looking_for_few_of_many_is_done_in_parts)
{
    char last[64], path[128];

    put_many();
    rig_start(&rig);
    expect_parts("/v1/services?name=*????????x", "services", "key", "");
    expect_parts("/v1/peers?name=*????????x", "peer_services", "peer_ip", "");
    snprintf(last, sizeof last, "svc-%06u", MANY - 1);
    snprintf(path, sizeof path, "/v1/peers?name=*%s", last);
    expect_parts(path, "peer_services", "peer_ip", "192.0.2.3");
    strcat(last, "@192.0.2.3");
    snprintf(path, sizeof path, "/v1/services?name=*%.10s", last);
    expect_parts(path, "services", "key", last);
}

/* It takes all as it comes, so that there is always more to write at once. */
Test(maps, who_asks_for_much_keeps_nobody_waiting)
{
    enum { ASKED = 64 };
    struct reply reply;
    int busy;

    put_many();
    rig_start(&rig);
    busy = rig_connect(&rig, NULL);
    for (int i = 0; i < ASKED; i++)
        send_text(busy, "GET /v1/services?name=*????????x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    cr_expect_eq(recv(busy, &(char){0}, 1, MSG_PEEK), 1); /* it has begun */
    reply = get(&rig, "/healthz", "");
    cr_expect_eq(reply.status, 200);
    cr_expect_lt(rig_count(&rig).requests, ASKED);
    reply_fini(&reply);
    close(busy);
}

Test(maps, who_takes_nothing_is_cut_off_and_keeps_no_picture)
{
    int fds[4];
    struct reply reply;

    put_many();
    rig.limits.pinned_snapshots = 4;
    rig.times.unread = 1000;
    rig_start(&rig);
    for (int i = 0; i < 4; i++) {
        fds[i] = rig_connect(&rig, NULL);
        send_text(fds[i], "GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cr_expect_eq(recv(fds[i], &(char){0}, 1, MSG_PEEK), 1);
    }
    expect_error(&rig, "/v1/services", "", 503,
                 "too many readers of the maps at once (limits.pinned_snapshots); try again in a "
                 "moment");
    RIG_WAIT(&rig, c.closed_unread == 4 && c.connections == 0);
    reply = get(&rig, "/v1/services?name=db", "");
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

Test(maps, who_takes_a_little_now_and_then_is_cut_off_in_the_end)
{
    int fd;
    uint64_t begun;

    put_many();
    rig.times.unread = 2000;
    rig.times.answer = 2500;
    rig_start(&rig);
    fd = rig_connect(&rig, NULL);
    send_text(fd, "GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n");
    begun = rig_now_ms();
    while (rig_count(&rig).closed_unread == 0 && rig_now_ms() - begun < WAIT_MS) {
        static char bytes[65536];

        for (int i = 0; i < 20; i++)
            rig_nap();
        recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    }
    cr_expect_eq(rig_count(&rig).closed_unread, 1);
    cr_expect_geq(rig_now_ms() - begun, 2400);
    close(fd);
}

/* Else those two would keep the maps from all others for as long as an answer may take. */
Test(maps, who_takes_long_goes_when_there_are_no_pictures_left)
{
    int fds[2];
    uint64_t begun = rig_now_ms();
    static char bytes[65536];

    put_many();
    rig.times.unread = 2000;
    rig.limits.pinned_snapshots = 2;
    rig_start(&rig);
    for (int i = 0; i < 2; i++) {
        fds[i] = rig_connect(&rig, NULL);
        send_text(fds[i], "GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cr_expect_eq(recv(fds[i], bytes, 1, MSG_PEEK), 1);
    }
    while (rig_count(&rig).closed_over_limit == 0 && rig_now_ms() - begun < WAIT_MS) {
        struct reply reply = get(&rig, "/v1/services?peer=local", "");

        cr_expect_eq(reply.status, 503);
        reply_fini(&reply);
        for (int i = 0; i < 40; i++) {
            rig_nap();
            recv(fds[i % 2], bytes, 8192,
                 MSG_DONTWAIT); /* each time round it is seen to take some */
        }
    }
    cr_expect_eq(rig_count(&rig).closed_over_limit, 1);
    cr_expect_geq(rig_now_ms() - begun, 2000);
    for (unsigned status = 503; status != 200;) {
        struct reply reply = get(&rig, "/v1/services?peer=local", "");

        cr_assert_lt(rig_now_ms() - begun, 2 * WAIT_MS);
        status = (unsigned)reply.status;
        reply_fini(&reply);
    }
    close(fds[0]);
    close(fds[1]);
}
