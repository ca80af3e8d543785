/* What meshcat asks and prints of a node's own services: offer with a check, drain, enable, and
 * their backends; byte for byte, against a node whose answers are fixed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "client/fake.h"
#include "client/run.h"

#define S(text) ((char *)(text))

static struct fake fake;
static struct run run;

/* What the node was asked last; read after fake_stop. */
static struct {
    bool has_check, enable, draining;
    int kind, proxy;
    char path[64], name[64];
    uint32_t interval_ms, timeout_ms, rise, fall;
} asked;

static void introspect(struct fake *f, int fd, const struct fake_call *call)
{
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
    Meshd__V1__NodeInfo node = MESHD__V1__NODE_INFO__INIT;
    Meshd__V1__Check tcp = MESHD__V1__CHECK__INIT, http = MESHD__V1__CHECK__INIT;
    Meshd__V1__CheckRow rows[4], *at[4];

    for (int i = 0; i < 4; i++) {
        meshd__v1__check_row__init(&rows[i]);
        at[i] = &rows[i];
        rows[i].backend_addr = S("127.0.0.1:80");
    }
    tcp.kind = MESHD__V1__CHECK_KIND__CHECK_KIND_TCP;
    http.kind = MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP;
    http.path = S("/up");
    http.interval_ms = 5000;
    http.timeout_ms = 2000;
    http.rise = 2;
    http.fall = 3;
    rows[0].name = S("api");
    rows[0].check = &http;
    rows[0].why = S("answered 503");
    rows[0].since = 1234567890;
    rows[0].draining = true;
    rows[1].name = S("db");
    rows[1].why = S("connection refused");
    rows[2].name = S("mq");
    rows[2].check = &tcp;
    rows[2].healthy = true;
    rows[3].name = S("web");
    rows[3].healthy = rows[3].draining = true;
    node.checks = at;
    node.n_checks = 4;
    reply.node = &node;
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void offer(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__OfferRequest *request = (const Meshd__V1__OfferRequest *)call->request;
    Meshd__V1__OfferReply reply = MESHD__V1__OFFER_REPLY__INIT;

    asked.has_check = request->check;
    asked.draining = request->draining;
    asked.proxy = (int)request->proxy_protocol;
    if (request->check) {
        asked.kind = (int)request->check->kind;
        snprintf(asked.path, sizeof(asked.path), "%s", request->check->path);
        asked.interval_ms = request->check->interval_ms;
        asked.timeout_ms = request->check->timeout_ms;
        asked.rise = request->check->rise;
        asked.fall = request->check->fall;
    }
    reply.name = request->name;
    reply.version = 4;
    reply.draining = request->draining || strcmp(request->name, "held") == 0;
    reply.unhealthy = strcmp(request->name, "sick") == 0;
    reply.why = S(reply.unhealthy ? "answered 503" : "");
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void drain(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__DrainRequest *request = (const Meshd__V1__DrainRequest *)call->request;
    Meshd__V1__DrainReply reply = MESHD__V1__DRAIN_REPLY__INIT;

    snprintf(asked.name, sizeof(asked.name), "%s", request->name);
    asked.enable = request->enable;
    reply.changed = !request->enable;
    reply.version = 4;
    reply.draining = !request->enable || strcmp(request->name, "held") == 0;
    if (strcmp(request->name, "nobody") == 0)
        fake_reply(f, fd, call, 5, 0, "this node does not offer the name", NULL);
    else
        fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void serve(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        if (strcmp(call.method, "Introspect") == 0)
            introspect(f, fd, &call);
        else if (strcmp(call.method, "Offer") == 0)
            offer(f, fd, &call);
        else
            drain(f, fd, &call);
        fake_call_fini(&call);
    }
}

static void setup(void)
{
    alarm(100);
    fake_start(&fake, SP_IPC, serve, NULL);
}

static void teardown(void) { fake_stop(&fake); }

TestSuite(offers, .init = setup, .fini = teardown);

#define GOLDEN(code_, out_, ...) RUN_PRINTS(&run, code_, out_, "--dial", fake.url, __VA_ARGS__)

/* What was asked is there once the node has stopped. */
static void again(void)
{
    fake_stop(&fake);
    fake_start(&fake, SP_IPC, serve, NULL);
}

Test(offers, an_offer_has_no_check_unless_one_is_asked_for)
{
    RUN(&run, "offer", "web", "h:1", "--dial", fake.url);
    again();
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect_not(asked.has_check);
    cr_expect_not(asked.draining);
    cr_expect_eq(asked.proxy, 0);
}

Test(offers, a_check_is_asked_for_as_it_is_written)
{
    RUN(&run, "offer", "web", "h:1", "--check", "tcp", "--proxy-protocol", "v2", "--dial",
        fake.url);
    again();
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect(asked.has_check);
    cr_expect_eq(asked.kind, MESHD__V1__CHECK_KIND__CHECK_KIND_TCP);
    cr_expect_eq(asked.interval_ms, 0, "the default is the node's");
    cr_expect_eq(asked.proxy, 2);
    RUN(&run, "offer", "web", "h:1", "--check", "http:/up?full", "--check-interval", "0.5",
        "--check-timeout", "0.25", "--check-rise", "4", "--check-fall", "5", "--dial", fake.url);
    again();
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect_eq(asked.kind, MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP);
    cr_expect_str_eq(asked.path, "/up?full");
    cr_expect_eq(asked.interval_ms, 500);
    cr_expect_eq(asked.timeout_ms, 250);
    cr_expect_eq(asked.rise, 4);
    cr_expect_eq(asked.fall, 5);
}

Test(offers, one_that_drains_from_the_start_is_asked_for_and_shown)
{
    GOLDEN(0,
           "NAME  BACKEND  LEASE        VERSION  STATE\n"
           "web   h:1      meshcat:web  4        draining\n",
           "offer", "web", "h:1", "--draining");
    cr_expect_str_eq(run.err, "");
    again();
    cr_expect(asked.draining);
}

Test(offers, what_was_drained_by_hand_and_what_is_unhealthy_is_told)
{
    GOLDEN(0,
           "NAME  BACKEND  LEASE         VERSION  STATE\n"
           "held  h:1      meshcat:held  4        draining\n",
           "offer", "held", "h:1");
    cr_expect_str_eq(run.err, "meshcat: held: it was drained by hand, and is still; meshcat enable "
                              "held ends that\n");
    GOLDEN(0,
           "NAME  BACKEND  LEASE         VERSION  STATE\n"
           "sick  h:1      meshcat:sick  4        unhealthy\n",
           "offer", "sick", "h:1");
    cr_expect_str_eq(run.err, "meshcat: sick: its backend does not answer, as far as is known: "
                              "answered 503\n");
}

Test(offers, drain_and_enable_say_what_is_now)
{
    GOLDEN(0,
           "NAME  DRAINING  CHANGED  VERSION\n"
           "web   yes       yes      4\n",
           "drain", "WEB.");
    again();
    cr_expect_str_eq(asked.name, "web");
    cr_expect_not(asked.enable);
    GOLDEN(0,
           "NAME  DRAINING  CHANGED  VERSION\n"
           "web   no        no       4\n",
           "enable", "web");
    again();
    cr_expect(asked.enable);
    GOLDEN(0, "{\"name\":\"web\",\"changed\":true,\"version\":4,\"draining\":true}\n", "drain",
           "web", "--format", "json");
    GOLDEN(0, "", "drain", "web", "-q");
}

Test(offers, what_its_offer_has_drain_is_told_to_drain_on)
{
    GOLDEN(0,
           "NAME  DRAINING  CHANGED  VERSION\n"
           "held  yes       no       4\n",
           "enable", "held");
    cr_expect_str_eq(run.err, "meshcat: held: its offer has it drain still; that ends when it is "
                              "offered again without\n");
}

Test(offers, what_the_node_does_not_offer_does_not_drain)
{
    GOLDEN(1, "", "drain", "nobody");
    cr_expect_str_eq(run.err, "meshcat: nobody: this node does not offer it; meshcat services "
                              "--peer local lists what it does\n");
    GOLDEN(1, "", "enable", "nobody", "--format", "json");
    cr_expect(strstr(run.err, "\"status\":5"), "%s", run.err);
}

Test(offers, node_shows_how_its_backends_are)
{
    static const char table[] =
        "\n"
        "SERVICE  BACKEND       CHECK     STATE                SINCE                 WHY\n"
        "api      127.0.0.1:80  http:/up  unhealthy, draining  2009-02-13T23:31:30Z  answered 503\n"
        "db       127.0.0.1:80  -         unhealthy            -                     connection "
        "refused\n"
        "mq       127.0.0.1:80  tcp       healthy              -                     -\n"
        "web      127.0.0.1:80  -         draining             -                     -\n"
        "\n";

    RUN(&run, "node", "--dial", fake.url);
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect(strstr(run.out, table), "%s", run.out);
    RUN(&run, "node", "--dial", fake.url, "--format", "jsonl");
    cr_expect(strstr(run.out, "\n{\"kind\":\"check\",\"name\":\"api\",\"backend_addr\":"
                              "\"127.0.0.1:80\",\"check\":{\"kind\":\"http\","
                              "\"path\":\"/up\",\"interval_ms\":5000,\"timeout_ms\":2000,"
                              "\"rise\":2,\"fall\":3},\"healthy\":false,\"draining\":true,"
                              "\"why\":\"answered 503\",\"since\":1234567890,\"streak\":0}\n"),
              "%s", run.out);
    cr_expect(strstr(run.out, "\"name\":\"db\",\"backend_addr\":\"127.0.0.1:80\","
                              "\"check\":null,"),
              "%s", run.out);
}
