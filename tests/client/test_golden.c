/* What meshcat prints, byte for byte, against a node whose answers are fixed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "client/fake.h"
#include "client/run.h"

static struct fake fake;
static struct run run;

static Meshd__V1__ServiceRow web = MESHD__V1__SERVICE_ROW__INIT, db = MESHD__V1__SERVICE_ROW__INIT;
static Meshd__V1__PeerServiceInfo db_info = MESHD__V1__PEER_SERVICE_INFO__INIT,
                                  mq_info = MESHD__V1__PEER_SERVICE_INFO__INIT;
static Meshd__V1__PeerServicesRow peer = MESHD__V1__PEER_SERVICES_ROW__INIT,
                                  bare = MESHD__V1__PEER_SERVICES_ROW__INIT;
static Meshd__V1__LinkRow link_row = MESHD__V1__LINK_ROW__INIT;
static Meshd__V1__TlsInfo tls = MESHD__V1__TLS_INFO__INIT;
static Meshd__V1__Counter counter = MESHD__V1__COUNTER__INIT;
static Meshd__V1__Limit limit = MESHD__V1__LIMIT__INIT;
static Meshd__V1__NodeInfo node = MESHD__V1__NODE_INFO__INIT;

/* What the node was asked last; read after fake_stop. */
static struct {
    size_t sections;
    char glob[64], who[64], lease[80], name[64], backend[64];
    int state;
    unsigned page_rows;
    uint64_t ttl_ms;
} asked;

#define S(text) ((char *)(text))

static int endless;

static void rows(void)
{
    web.key = S("web@local");
    web.name = S("web");
    web.ip = S("local");
    web.backend_addr = S("127.0.0.1:80");
    web.peer_id = S("n1");
    web.connected = web.healthy = true;
    db.key = S("db@127.0.0.2");
    db.name = S("db");
    db.ip = S("127.0.0.2");
    db.backend_addr = S("127.0.0.1:5432");
    db.peer_id = S("n2");
    db.stale = true;
    db.last_seen = 1234567890;
    db_info.name = S("db");
    db_info.backend_addr = S("127.0.0.1:5432");
    db_info.source_peer = mq_info.source_peer = S("127.0.0.2");
    mq_info.healthy = true;
    mq_info.name = S("mq");
    mq_info.backend_addr = S("127.0.0.1:5672");
    peer.peer_ip = S("127.0.0.2");
    peer.peer_id = S("n2");
    peer.stale = true;
    peer.last_sync = 1234567890;
    peer.services_total = 2;
    bare.peer_ip = S("127.0.0.3");
    bare.peer_id = S("n3");
    bare.connected = true;
    bare.last_seen = 1234567891;
}

static void about_node(void)
{
    static char *addresses[] = {S("127.0.0.1:7400")};
    static char *ingress[] = {S("127.0.0.1:8080 default=web"), S("[::]:5432=db")};
    static char *names[] = {S("n1")};
    static Meshd__V1__LinkRow *links[] = {&link_row};
    static Meshd__V1__Counter *counters[] = {&counter};

    link_row.peer_id = S("n2");
    link_row.address = S("127.0.0.2:7400");
    link_row.configured = S("two:7400");
    link_row.state = S("live");
    link_row.since = 1234567890;
    link_row.silent_ms = 12;
    link_row.rtt_us = 1234;
    link_row.tls = true;
    tls.names = names;
    tls.n_names = 1;
    tls.subject = S("CN=n1");
    tls.issuer = S("CN=meshd CA");
    tls.fingerprint = S("00ff");
    tls.not_before = 1700000000;
    tls.not_after = 1731536000;
    tls.cas = tls.loads = 1;
    tls.revoked = 2;
    tls.crl_next_update = 1700600000;
    node.tls = &tls;
    counter.name = S("calls");
    counter.value = 99;
    limit.name = S("peers");
    limit.limit = 4096;
    limit.used = 1;
    limit.unit = S("peers");
    node.peer_id = S("n1");
    node.incarnation = 1700000000000000;
    node.version = 3;
    node.software = S("meshd 0.1.0");
    node.started = 1700000000;
    node.uptime_ms = 61042;
    node.addresses = addresses;
    node.n_addresses = 1;
    node.ingress = ingress;
    node.n_ingress = 2;
    node.ready = true;
    node.admin = S("127.0.0.1:7480");
    node.wire_version_min = node.wire_version_max = 1;
    node.links = links;
    node.n_links = 1;
    node.counters = counters;
    node.n_counters = 1;
    node.nng_healthy = true;
}

/* Three pages: the services; n2 with one service; the rest of n2, and n3. */
static void introspect(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__IntrospectRequest *request =
        (const Meshd__V1__IntrospectRequest *)call->request;
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
    Meshd__V1__ServiceRow *services[] = {&web, &db};
    Meshd__V1__PeerServiceInfo *first[] = {&db_info}, *second[] = {&mq_info};
    Meshd__V1__PeerServicesRow *one[] = {&peer}, *two[] = {&peer, &bare};
    Meshd__V1__Limit *limits[] = {&limit};
    size_t page = request->page_token.len;

    asked.sections = request->n_sections;
    asked.state = request->state;
    asked.page_rows = request->page_rows;
    snprintf(asked.glob, sizeof(asked.glob), "%s", request->name_glob);
    snprintf(asked.who, sizeof(asked.who), "%s", request->peer);
    reply.peer_id = S("n1");
    reply.epoch = 42;
    /* ctx: the pages come from different pictures, or (&endless) are empty and never end */
    reply.revision = f->ctx && f->ctx != &endless ? page : 7;
    reply.services_total = 2;
    reply.peers_total = 2;
    reply.next_page_token.data = (uint8_t *)"tt";
    if (request->n_sections && request->sections[0] == MESHD__V1__SECTION__SECTION_NODE) {
        reply.node = &node;
        reply.limits = limits;
        reply.n_limits = 1;
    } else if (f->ctx == &endless) {
        reply.next_page_token.len = 1;
    } else if (page == 0) {
        reply.services = services;
        reply.n_services = 2;
        reply.next_page_token.len = 1;
    } else if (page == 1) {
        peer.services = first;
        peer.n_services = 1;
        reply.peer_services = one;
        reply.n_peer_services = 1;
        reply.next_page_token.len = 2;
    } else {
        peer.services = second;
        peer.n_services = 1;
        reply.peer_services = two;
        reply.n_peer_services = 2;
    }
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void lookup(struct fake *f, int fd, const struct fake_call *call)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    Meshd__V1__Route local = MESHD__V1__ROUTE__INIT, far = MESHD__V1__ROUTE__INIT;
    Meshd__V1__Route *routes[] = {&local, &far};
    Meshd__V1__LookupResult result = MESHD__V1__LOOKUP_RESULT__INIT, *results[] = {&result};

    local.ip = S("local");
    local.peer_id = S("n1");
    local.backend_addr = S("127.0.0.1:80");
    local.connected = local.healthy = true;
    far.ip = S("127.0.0.2");
    far.peer_id = S("n2\033");
    far.backend_addr = S("10.0.0.1:8080");
    far.draining = true;
    far.last_seen = 1234567890;
    result.name = S("web");
    result.routes = routes;
    result.n_routes = 2;
    reply.epoch = 42;
    reply.revision = 7;
    reply.results = results;
    reply.n_results = 1;
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void explain(struct fake *f, int fd, const struct fake_call *call)
{
    const char *name = ((const Meshd__V1__ExplainRequest *)call->request)->name;
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
    Meshd__V1__Candidate first = MESHD__V1__CANDIDATE__INIT, second = MESHD__V1__CANDIDATE__INIT;
    Meshd__V1__Candidate *candidates[] = {&first, &second};
    Meshd__V1__Route local = MESHD__V1__ROUTE__INIT, far = MESHD__V1__ROUTE__INIT;

    local.ip = S("local");
    local.peer_id = S("n1");
    local.backend_addr = S("127.0.0.1:80");
    local.connected = local.healthy = true;
    first.route = &local;
    first.chosen = true;
    first.active = 3;
    first.why = S("local");
    far.ip = S("127.0.0.2");
    far.peer_id = S("n2");
    far.backend_addr = S("10.0.0.1:8080");
    far.connected = far.healthy = true;
    far.last_seen = 1234567890;
    second.route = &far;
    second.why = S("a local backend comes before every peer's");
    second.seen_s_ago = 2;
    second.session = S("00112233445566778899aabbccddeeff");
    second.last_failure = S("backend_refused");
    second.last_failure_text = S("n2: 10.0.0.1:8080 refused\033");
    second.last_failure_ms_ago = 4321;
    reply.name = S(name);
    reply.matched = S("*.example.com");
    reply.verdict = S("goes to local: local");
    reply.candidates = candidates;
    reply.n_candidates = 2;
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void offer(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__OfferRequest *request = (const Meshd__V1__OfferRequest *)call->request;
    Meshd__V1__OfferReply reply = MESHD__V1__OFFER_REPLY__INIT;

    snprintf(asked.lease, sizeof(asked.lease), "%s", request->lease_id);
    snprintf(asked.backend, sizeof(asked.backend), "%s", request->backend_addr);
    asked.ttl_ms = request->ttl_ms;
    reply.name = request->name;
    reply.version = 4;
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void withdraw(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__WithdrawRequest *request = (const Meshd__V1__WithdrawRequest *)call->request;
    Meshd__V1__WithdrawReply reply = MESHD__V1__WITHDRAW_REPLY__INIT;

    snprintf(asked.lease, sizeof(asked.lease), "%s", request->lease_id);
    snprintf(asked.name, sizeof(asked.name), "%s", request->name);
    reply.removed = 1;
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
        else if (strcmp(call.method, "Lookup") == 0)
            lookup(f, fd, &call);
        else if (strcmp(call.method, "Explain") == 0)
            explain(f, fd, &call);
        else if (strcmp(call.method, "Offer") == 0)
            offer(f, fd, &call);
        else
            withdraw(f, fd, &call);
        fake_call_fini(&call);
    }
}

static void setup(void)
{
    alarm(100);
    rows();
    about_node();
    fake_start(&fake, SP_IPC, serve, NULL);
}

static void teardown(void) { fake_stop(&fake); }

TestSuite(golden, .init = setup, .fini = teardown);

#define GOLDEN(code_, out_, ...) RUN_PRINTS(&run, code_, out_, "--dial", fake.url, __VA_ARGS__)

Test(golden, introspect_merges_the_pages_of_one_picture)
{
    GOLDEN(0,
           "peer_id=n1 epoch=42 revision=7\n"
           "\n"
           "services: 2\n"
           "NAME  SOURCE     BACKEND         PEER ID  STATE      LAST SEEN\n"
           "web   local      127.0.0.1:80    n1       connected  -\n"
           "db    127.0.0.2  127.0.0.1:5432  n2       stale      2009-02-13T23:31:30Z\n"
           "\n"
           "peer_services: 2\n"
           "PEER IP    PEER ID  STATE      LAST SYNC             NAME  BACKEND\n"
           "127.0.0.2  n2       stale      2009-02-13T23:31:30Z  db    127.0.0.1:5432\n"
           "127.0.0.2  n2       stale      2009-02-13T23:31:30Z  mq    127.0.0.1:5672\n"
           "127.0.0.3  n3       connected  -                     -     -\n",
           "introspect");
    cr_expect_str_eq(run.err, "");
}

#define WEB_JSON                                                                                   \
    "{\"key\":\"web@local\",\"name\":\"web\",\"ip\":\"local\",\"backend_addr\":\"127.0.0.1:80\","  \
    "\"connected\":true,\"stale\":false,\"last_seen\":0,\"peer_id\":\"n1\",\"healthy\":true,"      \
    "\"draining\":false,\"link\":\"\"}"
#define DB_JSON                                                                                    \
    "{\"key\":\"db@127.0.0.2\",\"name\":\"db\",\"ip\":\"127.0.0.2\","                              \
    "\"backend_addr\":\"127.0.0.1:5432\",\"connected\":false,\"stale\":true,"                      \
    "\"last_seen\":1234567890,\"peer_id\":\"n2\",\"healthy\":false,\"draining\":false,"            \
    "\"link\":\"\"}"
#define PEERS_JSON                                                                                 \
    "[{\"peer_ip\":\"127.0.0.2\",\"peer_id\":\"n2\",\"last_sync\":1234567890,\"services\":["       \
    "{\"name\":\"db\",\"backend_addr\":\"127.0.0.1:5432\",\"source_peer\":\"127.0.0.2\","          \
    "\"healthy\":false,\"draining\":false},"                                                       \
    "{\"name\":\"mq\",\"backend_addr\":\"127.0.0.1:5672\",\"source_peer\":\"127.0.0.2\","          \
    "\"healthy\":true,\"draining\":false}],"                                                       \
    "\"connected\":false,\"stale\":true,\"draining\":false,\"incarnation\":0,\"version\":0,"       \
    "\"last_seen\":0,\"services_total\":2,\"digest\":\"0\"},"                                      \
    "{\"peer_ip\":\"127.0.0.3\",\"peer_id\":\"n3\",\"last_sync\":0,\"services\":[],"               \
    "\"connected\":true,\"stale\":false,\"draining\":false,\"incarnation\":0,\"version\":0,"       \
    "\"last_seen\":1234567891,\"services_total\":0,\"digest\":\"0\"}]"
#define HEAD_JSON "{\"peer_id\":\"n1\",\"epoch\":42,\"revision\":7,"

Test(golden, introspect_as_json_is_one_document)
{
    GOLDEN(0,
           HEAD_JSON "\"services\":[" WEB_JSON "," DB_JSON "],\"peer_services\":" PEERS_JSON
                     ",\"services_total\":2,\"peers_total\":2}\n",
           "introspect", "--format", "json");
    cr_expect_str_eq(run.err, "");
}

Test(golden, pages_of_different_pictures_are_a_protocol_error)
{
    fake.ctx = &fake;
    GOLDEN(5, "", "introspect");
    cr_expect(strstr(run.err, "do not belong together"), "%s", run.err);
}

Test(golden, pages_that_go_on_without_a_row_are_a_protocol_error)
{
    fake.ctx = &endless;
    GOLDEN(5, "", "introspect");
    cr_expect(strstr(run.err, "do not belong together"), "%s", run.err);
}

Test(golden, services_are_a_line_each)
{
    GOLDEN(0,
           "NAME  SOURCE  BACKEND       PEER ID  STATE      LAST SEEN\n"
           "web   local   127.0.0.1:80  n1       connected  -\n",
           "services", "--limit", "1");
    cr_expect(strstr(run.err, "more rows than --limit 1; raise it"), "%s", run.err);
    GOLDEN(0, HEAD_JSON "\"services\":[" WEB_JSON "],\"services_total\":2}\n", "services",
           "--limit=1", "--form=j");
    cr_expect_str_eq(run.err, "");
}

Test(golden, peers_are_a_line_each)
{
    GOLDEN(0,
           "PEER IP    PEER ID  STATE      SERVICES  LAST SYNC             LAST SEEN\n"
           "127.0.0.2  n2       stale      2         2009-02-13T23:31:30Z  -\n"
           "127.0.0.3  n3       connected  0         -                     2009-02-13T23:31:31Z\n",
           "peers");
}

Test(golden, filters_reach_the_node)
{
    GOLDEN(0, "", "services", "--name", "w*", "--peer", "n2", "--state", "stale", "--limit", "9",
           "-q");
    fake_stop(&fake);
    cr_expect_eq(asked.sections, 1);
    cr_expect_str_eq(asked.glob, "w*");
    cr_expect_str_eq(asked.who, "n2");
    cr_expect_eq(asked.state, MESHD__V1__ROW_STATE__ROW_STATE_STALE);
    cr_expect_eq(asked.page_rows, 10);
    fake_start(&fake, SP_IPC, serve, NULL);
}

Test(golden, verbose_says_on_stderr_who_answered)
{
    char begin[256];

    snprintf(begin, sizeof(begin),
             "meshcat: %s: n1, epoch 42, revision 7: 2 services, 2 peers, 3 pages, ", fake.url);
    RUN(&run, "--dial", fake.url, "introspect", "-v");
    cr_expect(strncmp(run.err, begin, strlen(begin)) == 0, "%s", run.err);
}

Test(golden, node_shows_links_limits_and_counters)
{
    GOLDEN(0,
           "FIELD           VALUE\n"
           "peer id         n1\n"
           "software        meshd 0.1.0\n"
           "address         127.0.0.1:7400\n"
           "ingress         127.0.0.1:8080 default=web\n"
           "ingress         [::]:5432=db\n"
           "admin           127.0.0.1:7480\n"
           "started         2023-11-14T22:13:20Z\n"
           "up for          61.042 s\n"
           "incarnation     1700000000000000\n"
           "version         3\n"
           "wire versions   1 to 1\n"
           "ready           yes\n"
           "draining        no\n"
           "nng healthy     yes\n"
           "TLS             yes\n"
           "certificate of  n1\n"
           "certificate by  CN=meshd CA\n"
           "fingerprint     00ff\n"
           "valid until     2024-11-13T22:13:20Z\n"
           "CAs trusted     1\n"
           "revoked         2\n"
           "CRL until       2023-11-21T20:53:20Z\n"
           "files taken     1\n"
           "\n"
           "LINK  ADDRESS         CONFIGURED  STATE  TLS  SINCE                 SILENT MS  RTT MS  "
           "ATTEMPTS  LAST ERROR\n"
           "n2    127.0.0.2:7400  two:7400    live   yes  2009-02-13T23:31:30Z  12         1.234   "
           "0         -\n"
           "\n"
           "LIMIT  USED  MOST  UNIT\n"
           "peers  1     4096  peers\n"
           "\n"
           "COUNTER  VALUE\n"
           "calls    99\n",
           "node");
    GOLDEN(0,
           HEAD_JSON
           "\"node\":{\"peer_id\":\"n1\",\"incarnation\":1700000000000000,\"version\":3,"
           "\"software\":\"meshd 0.1.0\",\"started\":1700000000,\"uptime_ms\":61042,"
           "\"addresses\":[\"127.0.0.1:7400\"],\"wire_version_min\":1,\"wire_version_max\":1,"
           "\"links\":[{\"peer_id\":\"n2\",\"address\":\"127.0.0.2:7400\","
           "\"configured\":\"two:7400\",\"state\":\"live\",\"session_id\":\"\",\"silent_ms\":12,"
           "\"since\":1234567890,\"last_error\":\"\",\"attempts\":0,\"tls\":true,\"rtt_us\":1234,"
           "\"neighbours\":[],\"neighbours_total\":0}],"
           "\"counters\":[{\"name\":\"calls\",\"value\":99}],\"draining\":false,"
           "\"nng_healthy\":true,\"links_total\":0,"
           "\"ingress\":[\"127.0.0.1:8080 default=web\",\"[::]:5432=db\"],"
           "\"tls\":{\"names\":[\"n1\"],\"subject\":\"CN=n1\",\"issuer\":\"CN=meshd CA\","
           "\"fingerprint\":\"00ff\",\"not_before\":1700000000,\"not_after\":1731536000,\"cas\":1,"
           "\"revoked\":2,\"crl_next_update\":1700600000,\"loads\":1},\"ready\":true,"
           "\"ready_why\":\"\",\"admin\":\"127.0.0.1:7480\",\"checks\":[],\"checks_total\":0},"
           "\"limits\":[{\"name\":\"peers\",\"limit\":4096,\"used\":1,\"unit\":\"peers\"}]}\n",
           "node", "--format", "json");
}

Test(golden, lookup_shows_routes_best_first_and_no_control_bytes)
{
    GOLDEN(0,
           "NAME  SOURCE     BACKEND        PEER ID  STATE      LAST SEEN\n"
           "web   local      127.0.0.1:80   n1       connected  -\n"
           "web   127.0.0.2  10.0.0.1:8080  n2\\x1b   draining   2009-02-13T23:31:30Z\n",
           "lookup", "web");
    GOLDEN(
        0,
        "{\"epoch\":42,\"revision\":7,\"results\":[{\"name\":\"web\",\"routes\":["
        "{\"ip\":\"local\",\"peer_id\":\"n1\",\"backend_addr\":\"127.0.0.1:80\","
        "\"connected\":true,\"stale\":false,\"healthy\":true,\"draining\":false,\"last_seen\":0},"
        "{\"ip\":\"127.0.0.2\",\"peer_id\":\"n2\\u001B\",\"backend_addr\":\"10.0.0.1:8080\","
        "\"connected\":false,\"stale\":false,\"healthy\":false,\"draining\":true,"
        "\"last_seen\":1234567890}],\"reason\":\"none\"}]}\n",
        "lookup", "web", "--format", "json");
}

#define LOCAL_ROUTE_JSON                                                                           \
    "\"ip\":\"local\",\"peer_id\":\"n1\",\"backend_addr\":\"127.0.0.1:80\","                       \
    "\"connected\":true,\"stale\":false,\"healthy\":true,\"draining\":false,\"last_seen\":0"
#define FAR_ROUTE_JSON                                                                             \
    "\"ip\":\"127.0.0.2\",\"peer_id\":\"n2\",\"backend_addr\":\"10.0.0.1:8080\","                  \
    "\"connected\":true,\"stale\":false,\"healthy\":true,\"draining\":false,"                      \
    "\"last_seen\":1234567890"
#define CHOSEN_JSON                                                                                \
    "\"chosen\":true,\"why\":\"local\",\"active\":3,\"last_failure\":\"\","                        \
    "\"last_failure_text\":\"\",\"last_failure_ms_ago\":0,\"session\":\"\",\"seen_s_ago\":0}"
#define BEHIND_JSON                                                                                \
    "\"chosen\":false,\"why\":\"a local backend comes before every peer's\",\"active\":0,"         \
    "\"last_failure\":\"backend_refused\","                                                        \
    "\"last_failure_text\":\"n2: 10.0.0.1:8080 refused\\u001B\",\"last_failure_ms_ago\":4321,"     \
    "\"session\":\"00112233445566778899aabbccddeeff\",\"seen_s_ago\":2}"

Test(golden, explain_shows_who_is_chosen_how_old_and_busy_each_is_and_what_failed_last)
{
    GOLDEN(0,
           "a.example.com, by *.example.com: goes to local: local\n"
           "\n"
           "CHOSEN  SOURCE     BACKEND        PEER ID  STATE      SEEN     SESSION   ACTIVE  "
           "LAST FAILURE                                              WHY\n"
           "yes     local      127.0.0.1:80   n1       connected  -        -         3       "
           "-                                                         local\n"
           "no      127.0.0.2  10.0.0.1:8080  n2       connected  2 s ago  00112233  0       "
           "backend_refused 4.3 s ago: n2: 10.0.0.1:8080 refused\\x1b  a local backend comes "
           "before every peer's\n",
           "explain", "a.example.com");
    GOLDEN(0,
           "{\"name\":\"a.example.com\",\"candidates\":["
           "{\"route\":{" LOCAL_ROUTE_JSON "}," CHOSEN_JSON ",{\"route\":{" FAR_ROUTE_JSON
           "}," BEHIND_JSON
           "],\"verdict\":\"goes to local: local\",\"matched\":\"*.example.com\"}\n",
           "explain", "a.example.com", "--format", "json");
    GOLDEN(0,
           "{\"name\":\"a.example.com\"," LOCAL_ROUTE_JSON "," CHOSEN_JSON
           "\n{\"name\":\"a.example.com\"," FAR_ROUTE_JSON "," BEHIND_JSON "\n",
           "explain", "a.example.com", "--format", "jsonl");
}

Test(golden, offer_is_canonical_and_has_a_lease_of_its_name)
{
    GOLDEN(0,
           "NAME  BACKEND       LEASE        VERSION  STATE\n"
           "web   127.0.0.1:80  meshcat:web  4        connected\n",
           "offer", "WEB.", "127.0.0.1:080", "--ttl", "1.5");
    fake_stop(&fake);
    cr_expect_str_eq(asked.lease, "meshcat:web");
    cr_expect_str_eq(asked.backend, "127.0.0.1:80");
    cr_expect_eq(asked.ttl_ms, 1500);
    fake_start(&fake, SP_IPC, serve, NULL);
    GOLDEN(0,
           "{\"name\":\"web\",\"version\":4,\"unhealthy\":false,\"draining\":false,\"why\":\"\","
           "\"backend_addr\":\"127.0.0.1:80\","
           "\"lease_id\":\"mine\"}\n",
           "offer", "web", "127.0.0.1:80", "--lease:mine", "--format", "json");
}

Test(golden, the_lease_of_a_long_name_is_short_and_always_the_same)
{
    char name[180], first[80];

    memset(name, 'a', sizeof(name));
    name[60] = name[120] = '.';
    name[sizeof(name) - 1] = '\0';
    for (int i = 0; i < 2; i++) {
        RUN(&run, "offer", name, "h:1", "--dial", fake.url);
        cr_expect_eq(run.code, 0, "%s", run.err);
        fake_stop(&fake);
        cr_expect_eq(strlen(asked.lease), 64);
        if (i > 0)
            cr_expect_str_eq(asked.lease, first);
        snprintf(first, sizeof(first), "%s", asked.lease);
        fake_start(&fake, SP_IPC, serve, NULL);
    }
}

Test(golden, withdraw_takes_the_name_from_whatever_lease_holds_it)
{
    GOLDEN(0,
           "NAME  REMOVED\n"
           "web   1\n",
           "withdraw", "Web");
    fake_stop(&fake);
    cr_expect_str_eq(asked.lease, "");
    cr_expect_str_eq(asked.name, "web");
    fake_start(&fake, SP_IPC, serve, NULL);
    GOLDEN(0, "{\"name\":\"web\",\"removed\":1}\n", "withdraw", "web", "--format", "json");
}

Test(golden, ping_says_who_answered_and_how_fast)
{
    const char *begin = "{\"peer_id\":\"n1\",\"sent\":2,\"answered\":2,\"ms\":[";
    double ms;
    int seq;

    RUN(&run, "ping", "--dial", fake.url);
    cr_expect_eq(run.code, 0);
    cr_expect_eq(sscanf(run.out, "n1 seq=%d time=%lf ms\n", &seq, &ms), 2, "%s", run.out);
    cr_expect_eq(seq, 1);
    RUN(&run, "ping", "--dial", fake.url, "-C2", "-i.01", "--format=json");
    cr_expect_eq(run.code, 0);
    cr_expect(strncmp(run.out, begin, strlen(begin)) == 0, "%s", run.out);
}

Test(golden, version_and_help_go_to_stdout)
{
    GOLDEN(0, "meshcat " MESHD_VERSION " (wire versions 1 to 1)\n", "--version");
    RUN(&run, "offer", "--help");
    cr_expect_eq(run.code, 0);
    cr_expect(strstr(run.out, "Usage: meshcat offer NAME HOST:PORT [options]"), "%s", run.out);
    cr_expect(strstr(run.out, "--ttl SECONDS"));
    cr_expect(!strstr(run.out, "--interval"));
    RUN(&run, "--help");
    cr_expect(strstr(run.out, "withdraw NAME") && strstr(run.out, "Exit codes:"));
}
