/* meshcat diff between two nodes whose beliefs are fixed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "client/fake.h"
#include "client/run.h"

static struct fake fakes[2];
static struct run run;

#define S(text) ((char *)(text))

/* What a node of these tests says of one owner. */
struct owner {
    const char *label, *id;
    uint64_t digest;
    bool stale;
    bool draining;
    const char *services[4][3]; /* name, backend; "unhealthy" or "draining" or both, if not NULL */
};

struct belief {
    const char *id;
    bool draining;
    struct owner owners[4]; /* the first is itself */
    unsigned lists;         /* that were asked for */
};

static size_t count(const struct owner *owner)
{
    size_t n = 0;

    while (n < 4 && owner->services[n][0])
        n++;
    return n;
}

static bool says(const char *states, const char *state) { return states && strstr(states, state); }

/* The services of the owner with that label, and one of another owner, which is to be passed over.
 */
static void fill_services(struct belief *belief, const char *label,
                          Meshd__V1__IntrospectReply *reply, Meshd__V1__ServiceRow rows[8],
                          Meshd__V1__ServiceRow *list[8])
{
    for (size_t i = 0; i < 4 && belief->owners[i].id; i++) {
        const struct owner *owner = &belief->owners[i];

        for (size_t k = 0; k < count(owner) && reply->n_services < 7; k++) {
            Meshd__V1__ServiceRow *row = &rows[reply->n_services];

            if (strcmp(owner->label, label) != 0 && k > 0)
                continue;
            meshd__v1__service_row__init(row);
            row->name = S(owner->services[k][0]);
            row->backend_addr = S(owner->services[k][1]);
            row->peer_id = S(owner->id);
            row->healthy = !says(owner->services[k][2], "unhealthy");
            row->draining = says(owner->services[k][2], "draining") || owner->draining;
            list[reply->n_services++] = row;
        }
    }
    reply->services = list;
}

static void fill_peers(const struct belief *belief, Meshd__V1__IntrospectReply *reply,
                       Meshd__V1__PeerServicesRow rows[4], Meshd__V1__PeerServicesRow *list[4])
{
    for (size_t i = 1; i < 4 && belief->owners[i].id; i++) {
        Meshd__V1__PeerServicesRow *row = &rows[i];

        meshd__v1__peer_services_row__init(row);
        row->peer_ip = S(belief->owners[i].label);
        row->peer_id = S(belief->owners[i].id);
        row->digest = belief->owners[i].digest;
        row->services_total = (uint32_t)count(&belief->owners[i]);
        row->stale = belief->owners[i].stale;
        row->connected = !row->stale;
        row->draining = belief->owners[i].draining;
        list[reply->n_peer_services++] = row;
    }
    reply->peer_services = list;
}

static void serve(struct fake *f, int fd)
{
    struct belief *belief = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        const Meshd__V1__IntrospectRequest *request =
            (const Meshd__V1__IntrospectRequest *)call.request;
        Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
        Meshd__V1__NodeInfo node = MESHD__V1__NODE_INFO__INIT;
        Meshd__V1__ServiceRow rows[8], *services[8];
        Meshd__V1__PeerServicesRow peers[4], *list[4];

        reply.peer_id = S(belief->id);
        reply.epoch = 42;
        reply.revision = 7;
        reply.local_digest = belief->owners[0].digest;
        reply.local_total = (uint32_t)count(&belief->owners[0]);
        node.draining = belief->draining;
        reply.node = &node;
        if (request->sections[0] == MESHD__V1__SECTION__SECTION_PEERS) {
            fill_peers(belief, &reply, peers, list);
        } else {
            fill_services(belief, request->peer, &reply, rows, services);
            belief->lists++;
        }
        fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        fake_call_fini(&call);
    }
}

static void start(struct belief *a, struct belief *b)
{
    fake_start(&fakes[0], SP_TCP, serve, a);
    fake_start(&fakes[1], SP_TCP, serve, b);
}

static void stop(void)
{
    fake_stop(&fakes[0]);
    fake_stop(&fakes[1]);
}

static void setup(void) { alarm(60); }

TestSuite(diff, .init = setup);

#define GOLDEN(code_, out_, ...)                                                                   \
    RUN_PRINTS(&run, code_, out_, "diff", fakes[0].url, fakes[1].url + strlen("tcp://"),           \
               __VA_ARGS__)

Test(diff, zero_and_nothing_when_they_agree)
{
    struct belief a = {"n1",
                       false,
                       {{"local", "n1", 5, false, false, {{"web", "h:80"}}},
                        {"10.0.0.2", "n2", 6, false, false, {{"db", "h:1"}}}},
                       0};
    struct belief b = {"n2",
                       false,
                       {{"local", "n2", 6, false, false, {{"db", "h:1"}}},
                        {"10.0.0.1", "n1", 5, false, false, {{"web", "h:80"}}}},
                       0};

    start(&a, &b);
    GOLDEN(0, "", "-v");
    cr_expect(strstr(run.err, "knows 2; 0 differences"), "%s", run.err);
    RUN(&run, "diff", fakes[0].url, fakes[1].url, "--format", "json");
    cr_expect_eq(run.code, 0);
    cr_expect(strstr(run.out, "{\"nodes\":[{\"url\":\"tcp://127.0.0.1:") == run.out, "%s", run.out);
    cr_expect(
        strstr(run.out, "\"peer_id\":\"n2\",\"epoch\":42,\"revision\":7}],\"differences\":[]}"),
        "%s", run.out);
    stop();
    cr_expect_eq(a.lists + b.lists, 0); /* equal digests: no list was fetched */
}

/* n2's own list against what n1 has of it; n3 known to n1 only; n1 stale at n2. */
static struct belief
    one = {"n1",
           false,
           {{"local", "n1", 5, false, false, {{"web", "h:80"}}},
            {"10.0.0.2", "n2", 6, false, false, {{"mq", "h:2"}, {"db", "h:1"}, {"old", "h:9"}}},
            {"10.0.0.3", "n3", 7, false, false, {{"x", "h:3"}}}},
           0},
    two = {"n2",
           false,
           {{"local", "n2", 8, false, false, {{"db", "h:1"}, {"mq", "h:3"}, {"new", "h:4"}}},
            {"10.0.0.1", "n1", 5, true, false, {{"web", "h:80"}}}},
           0};

Test(diff, one_and_a_line_for_each_difference)
{
    start(&one, &two);
    GOLDEN(1,
           "OWNER  NAME  n1         n2\n"
           "n1     -     connected  stale\n"
           "n2     mq    h:2        h:3\n"
           "n2     new   -          h:4\n"
           "n2     old   h:9        -\n"
           "n3     -     connected  -\n",
           "--color=never");
    stop();
    cr_expect_eq(one.lists, 1);
    cr_expect_eq(two.lists, 1);
}

Test(diff, an_entry_in_another_state_is_a_difference_but_not_one_that_drains_with_its_owner)
{
    struct belief a = {
        .id = "n1",
        .owners = {
            {"local", "n1", 5,
             .services = {{"a", "h:1"}, {"b", "h:2", "draining"}, {"c", "h:3", "unhealthy"}}},
            {"10.0.0.2", "n2", 6, .services = {{"d", "h:4"}}}}};
    struct belief b = {.id = "n2",
                       .owners = {{"local", "n2", 7, .services = {{"d", "h:5", "unhealthy"}}},
                                  {"10.0.0.1", "n1", 8,
                                   .services = {{"a", "h:1", "unhealthy"},
                                                {"b", "h:2", "draining unhealthy"},
                                                {"c", "h:3"}}}}};

    start(&a, &b);
    GOLDEN(1,
           "OWNER  NAME  n1         n2\n"
           "n1     a     healthy    unhealthy\n"
           "n1     b     draining   draining, unhealthy\n"
           "n1     c     unhealthy  healthy\n"
           "n2     d     h:4        h:5\n"
           "n2     d     healthy    unhealthy\n",
           "--color=never");
    RUN(&run, "diff", fakes[0].url, fakes[1].url, "--format=jsonl");
    cr_expect(strstr(run.out, "{\"owner\":\"n1\",\"name\":\"a\",\"what\":\"state\","
                              "\"values\":[\"healthy\",\"unhealthy\"]}\n"),
              "%s", run.out);
    b.owners[1].draining = true;
    GOLDEN(1,
           "OWNER  NAME  n1         n2\n"
           "n1     -     connected  draining\n"
           "n1     a     healthy    unhealthy\n"
           "n1     b     healthy    unhealthy\n"
           "n1     c     unhealthy  healthy\n"
           "n2     d     h:4        h:5\n"
           "n2     d     healthy    unhealthy\n",
           "--color=never");
    stop();
}

Test(diff, jsonl_is_a_line_for_each_difference)
{
    start(&one, &two);
    GOLDEN(
        1,
        "{\"owner\":\"n1\",\"name\":null,\"what\":\"state\",\"values\":[\"connected\",\"stale\"]}\n"
        "{\"owner\":\"n2\",\"name\":\"mq\",\"what\":\"backend\",\"values\":[\"h:2\",\"h:3\"]}\n"
        "{\"owner\":\"n2\",\"name\":\"new\",\"what\":\"backend\",\"values\":[null,\"h:4\"]}\n"
        "{\"owner\":\"n2\",\"name\":\"old\",\"what\":\"backend\",\"values\":[\"h:9\",null]}\n"
        "{\"owner\":\"n3\",\"name\":null,\"what\":\"owner\",\"values\":[\"connected\",null]}\n",
        "--format=jsonl");
    GOLDEN(1, "", "-q");
    stop();
}

Test(diff, one_node_twice_is_named_by_its_urls)
{
    struct belief a = {"n1", true, {{"local", "n1", 5, false, false, {{NULL}}}}, 0};
    struct belief b = {"n1", false, {{"local", "n1", 5, false, false, {{NULL}}}}, 0};
    char want[2048];

    start(&a, &b);
    snprintf(want, sizeof(want), "OWNER  NAME  %-*s  %s\nn1     -     %-*s  connected\n",
             (int)strlen(fakes[0].url), fakes[0].url, fakes[1].url, (int)strlen(fakes[0].url),
             "draining");
    GOLDEN(1, want, "--timeout", "5");
    stop();
}

Test(diff, a_node_that_is_away_is_told_and_not_a_difference)
{
    struct belief a = {"n1", false, {{"local", "n1", 5, false, false, {{NULL}}}}, 0};
    char url[64];

    snprintf(url, sizeof(url), "127.0.0.1:%u", fake_free_port());
    fake_start(&fakes[0], SP_TCP, serve, &a);
    RUN(&run, "diff", fakes[0].url, url);
    cr_expect_eq(run.code, 3);
    cr_expect(strstr(run.err, url) && strstr(run.err, "Connection refused"), "%s", run.err);
    RUN(&run, "diff", "http://x", fakes[0].url, "--format", "json");
    cr_expect_eq(run.code, 2);
    cr_expect(strstr(run.err, "\"code\":\"USAGE\""), "%s", run.err);
    fake_stop(&fakes[0]);
}

static void says_nothing(struct fake *f, int fd)
{
    if (fake_greet(fd))
        fake_drain(fd);
}

static void cuts(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    fake_send(fd, "\0\0\0\0\0\0\1\0half", 12);
    fake_call_fini(&call);
}

/* Answers for digests, and dies when a list is asked for. */
static void dies_later(struct fake *f, int fd)
{
    struct fake_call call;
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    reply.peer_id = S("n1");
    reply.local_digest = 9;
    fake_reply(f, fd, &call, 0, 0, "", &reply.base);
    fake_call_fini(&call);
}

Test(diff, a_node_that_fails_half_way_is_told_and_nothing_is_shown)
{
    static const struct {
        void (*serve)(struct fake *f, int fd);
        int code;
    } cases[] = {{says_nothing, 4}, {cuts, 5}, {dies_later, 5}};
    struct belief a = {"n1", false, {{"local", "n1", 5, false, false, {{"web", "h:80"}}}}, 0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fake_start(&fakes[0], SP_TCP, serve, &a);
        fake_start(&fakes[1], SP_TCP, cases[i].serve, NULL);
        GOLDEN(cases[i].code, "", cases[i].code == 4 ? "--timeout=1" : "--timeout=20");
        cr_expect(strstr(run.err, fakes[1].url), "%s", run.err);
        stop();
    }
}
