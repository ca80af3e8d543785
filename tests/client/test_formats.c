/* Every format of every answer, byte for byte, against a node whose answers are fixed; and that jq
 * reads all JSON, errors too. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "client/fake.h"
#include "client/run.h"

static struct fake fake;
static struct run run;
static Meshd__V1__Section section; /* the first that was asked for last; read after fake_stop */

#define S(text) ((char *)(text))

static Meshd__V1__Route route(const char *source, const char *peer_id, const char *backend)
{
    Meshd__V1__Route route = MESHD__V1__ROUTE__INIT;

    route.ip = S(source);
    route.peer_id = S(peer_id);
    route.backend_addr = S(backend);
    route.connected = route.healthy = true;
    return route;
}

static void lookup(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__LookupRequest *request = (const Meshd__V1__LookupRequest *)call->request;
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    Meshd__V1__Route web = route("local", "n1", "h:80"), far = route("10.0.0.2", "n2", "h:81");
    Meshd__V1__Route *routes[] = {&web, &far};
    Meshd__V1__LookupResult results[4], *list[4];

    reply.revision = 7;
    reply.results = list;
    for (size_t i = 0; i < request->n_names && i < 4; i++) {
        meshd__v1__lookup_result__init(&results[i]);
        results[i].name = request->names[i];
        results[i].routes = routes;
        results[i].n_routes = strcmp(request->names[i], "web") == 0 ? 2 : 0;
        list[reply.n_results++] = &results[i];
    }
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void explain(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__ExplainRequest *request = (const Meshd__V1__ExplainRequest *)call->request;
    Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
    Meshd__V1__Route web = route("local", "n1", "h:80"), far = route("10.0.0.2", "n2", "h:81");
    Meshd__V1__Candidate first = MESHD__V1__CANDIDATE__INIT, second = MESHD__V1__CANDIDATE__INIT;
    Meshd__V1__Candidate *candidates[] = {&first, &second};

    first.route = &web;
    first.chosen = true;
    first.why = S("local");
    far.connected = false;
    far.stale = true;
    second.route = &far;
    second.why = S("its link is lost");
    reply.name = request->name;
    reply.verdict = S("nobody offers this name here");
    if (strcmp(request->name, "web") == 0) {
        reply.verdict = S("goes to local: local");
        reply.candidates = candidates;
        reply.n_candidates = 2;
    }
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

/* Two pages: a service, a peer; or the node; or peers without their services. */
static void introspect(struct fake *f, int fd, const struct fake_call *call)
{
    const Meshd__V1__IntrospectRequest *request =
        (const Meshd__V1__IntrospectRequest *)call->request;
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
    Meshd__V1__ServiceRow web = MESHD__V1__SERVICE_ROW__INIT, *services[] = {&web};
    Meshd__V1__PeerServicesRow peer = MESHD__V1__PEER_SERVICES_ROW__INIT, *peers[] = {&peer};
    Meshd__V1__NodeInfo node = MESHD__V1__NODE_INFO__INIT;
    Meshd__V1__LinkRow link = MESHD__V1__LINK_ROW__INIT, *links[] = {&link};
    Meshd__V1__Counter counter = MESHD__V1__COUNTER__INIT, *counters[] = {&counter};
    Meshd__V1__Limit limit = MESHD__V1__LIMIT__INIT, *limits[] = {&limit};
    Meshd__V1__Section first = request->n_sections ? request->sections[0] : 0;

    section = first;
    reply.peer_id = S("n1");
    reply.revision = 7;
    web.key = S("web@local");
    web.name = S("web");
    web.ip = S("local");
    web.backend_addr = S("h:80");
    web.connected = true;
    peer.peer_ip = S("10.0.0.2");
    peer.peer_id = S("n2");
    peer.services_total = 5;
    peer.draining = true;
    link.peer_id = S("n2");
    link.state = S("live");
    counter.name = S("calls");
    counter.value = 9;
    limit.name = S("peers");
    limit.limit = 4096;
    node.peer_id = S("n1");
    node.links = links;
    node.n_links = 1;
    node.counters = counters;
    node.n_counters = 1;
    if (first == MESHD__V1__SECTION__SECTION_NODE) {
        reply.node = &node;
        reply.limits = limits;
        reply.n_limits = request->n_sections > 1; /* ping does not ask for them */
    } else if (first != MESHD__V1__SECTION__SECTION_SERVICES || request->page_token.len) {
        reply.peer_services = peers;
        reply.n_peer_services = 1;
    } else {
        reply.services = services;
        reply.n_services = 1;
        if (request->n_sections > 1) {
            reply.next_page_token.data = (uint8_t *)"t";
            reply.next_page_token.len = 1;
        }
    }
    fake_reply(f, fd, call, 0, 0, "", &reply.base);
}

static void serve(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        Meshd__V1__RegisterReply refused = MESHD__V1__REGISTER_REPLY__INIT;

        refused.known_incarnation = 7;
        if (strcmp(call.method, "Introspect") == 0)
            introspect(f, fd, &call);
        else if (strcmp(call.method, "Lookup") == 0)
            lookup(f, fd, &call);
        else if (strcmp(call.method, "Explain") == 0)
            explain(f, fd, &call);
        else
            fake_reply(f, fd, &call, 9, MESHD__V1__REASON__REASON_INCARNATION, "too low",
                       &refused.base);
        fake_call_fini(&call);
    }
}

static void setup(void)
{
    alarm(100);
    fake_start(&fake, SP_IPC, serve, NULL);
}

static void teardown(void) { fake_stop(&fake); }

TestSuite(formats, .init = setup, .fini = teardown);

#define GOLDEN(code_, out_, ...) RUN_PRINTS(&run, code_, out_, "--dial", fake.url, __VA_ARGS__)

#define WEB_FIELDS                                                                                 \
    "\"key\":\"web@local\",\"name\":\"web\",\"ip\":\"local\",\"backend_addr\":\"h:80\","           \
    "\"connected\":true,\"stale\":false,\"last_seen\":0,\"peer_id\":\"\",\"healthy\":false,"       \
    "\"draining\":false,\"link\":\"\"}\n"
#define PEER_FIELDS                                                                                \
    "\"peer_ip\":\"10.0.0.2\",\"peer_id\":\"n2\",\"last_sync\":0,\"services\":[],"                 \
    "\"connected\":false,\"stale\":false,\"draining\":true,\"incarnation\":0,\"version\":0,"       \
    "\"last_seen\":0,\"services_total\":5,\"digest\":\"0\"}\n"

Test(formats, jsonl_is_a_line_for_each_row_of_either_map)
{
    GOLDEN(0, "{\"map\":\"services\"," WEB_FIELDS "{\"map\":\"peer_services\"," PEER_FIELDS,
           "introspect", "--format", "jsonl");
    GOLDEN(0, "{" WEB_FIELDS, "services", "--format", "jsonl");
    GOLDEN(0, "{" PEER_FIELDS, "peers", "--format", "jsonl");
}

Test(formats, jsonl_of_node_is_a_line_for_it_and_each_link_limit_and_counter)
{
    GOLDEN(
        0,
        "{\"kind\":\"node\",\"peer_id\":\"n1\",\"incarnation\":0,\"version\":0,\"software\":\"\","
        "\"started\":0,\"uptime_ms\":0,\"addresses\":[],\"wire_version_min\":0,"
        "\"wire_version_max\":0,\"draining\":false,\"nng_healthy\":false,\"links_total\":0,"
        "\"ingress\":[],\"tls\":null,\"ready\":false,\"ready_why\":\"\",\"admin\":\"\",\"checks_"
        "total\":0}\n"
        "{\"kind\":\"link\",\"peer_id\":\"n2\",\"address\":\"\",\"configured\":\"\","
        "\"state\":\"live\",\"session_id\":\"\",\"silent_ms\":0,\"since\":0,\"last_error\":\"\","
        "\"attempts\":0,\"tls\":false,\"rtt_us\":0,"
        "\"neighbours\":[],\"neighbours_total\":0}\n"
        "{\"kind\":\"limit\",\"name\":\"peers\",\"limit\":4096,\"used\":0,\"unit\":\"\"}\n"
        "{\"kind\":\"counter\",\"name\":\"calls\",\"value\":9}\n",
        "node", "--format", "jsonl");
}

#define ROUTE_FIELDS(source, peer, backend, connected, stale)                                      \
    "\"ip\":\"" source "\",\"peer_id\":\"" peer "\",\"backend_addr\":\"" backend                   \
    "\",\"connected\":" connected ",\"stale\":" stale ",\"healthy\":true,\"draining\":false,"      \
    "\"last_seen\":0"

Test(formats, jsonl_of_lookup_is_a_line_for_each_route_with_its_name)
{
    GOLDEN(7,
           "{\"name\":\"web\"," ROUTE_FIELDS("local", "n1", "h:80", "true",
                                             "false") "}\n"
                                                      "{\"name\":\"web\"," ROUTE_FIELDS(
                                                          "10.0.0.2", "n2", "h:81", "true",
                                                          "false") "}\n",
           "lookup", "web", "x", "--format", "jsonl");
    cr_expect_str_eq(run.err, "");
}

Test(formats, jsonl_of_ping_is_a_line_for_each_as_it_comes)
{
    double first, second;

    RUN(&run, "--dial", fake.url, "ping", "-C2", "-i.01", "--format", "jsonl");
    cr_expect_eq(run.code, 0);
    cr_expect_eq(sscanf(run.out,
                        "{\"peer_id\":\"n1\",\"seq\":1,\"ms\":%lf}\n"
                        "{\"peer_id\":\"n1\",\"seq\":2,\"ms\":%lf}\n",
                        &first, &second),
                 2, "%s", run.out);
}

#define NO_FORWARDS                                                                                \
    "\"active\":0,\"last_failure\":\"\",\"last_failure_text\":\"\",\"last_failure_ms_ago\":0,"     \
    "\"session\":\"\",\"seen_s_ago\":0"

Test(formats, explain_shows_the_candidates_the_choice_and_why)
{
    GOLDEN(0,
           "web: goes to local: local\n"
           "\n"
           "CHOSEN  SOURCE    BACKEND  PEER ID  STATE      SEEN  SESSION  ACTIVE  LAST FAILURE  "
           "WHY\n"
           "yes     local     h:80     n1       connected  -     -        0       -             "
           "local\n"
           "no      10.0.0.2  h:81     n2       stale      -     -        0       -             "
           "its link is lost\n",
           "explain", "web");
    GOLDEN(0,
           "{\"name\":\"web\",\"candidates\":[{\"route\":{" ROUTE_FIELDS(
               "local", "n1", "h:80", "true",
               "false") "},"
                        "\"chosen\":true,\"why\":\"local\"," NO_FORWARDS
                        "},{\"route\":{" ROUTE_FIELDS(
                            "10.0.0.2", "n2", "h:81", "false",
                            "true") "},\"chosen\":false,\"why\":\"its link is lost\"," NO_FORWARDS
                                    "}],\"verdict\":\"goes to local: local\","
                                    "\"matched\":\"\"}\n",
           "explain", "web", "--format", "json");
    GOLDEN(0,
           "{\"name\":\"web\"," ROUTE_FIELDS(
               "local", "n1", "h:80", "true",
               "false") ",\"chosen\":true,\"why\":\"local\"," NO_FORWARDS "}\n"
                        "{\"name\":\"web\"," ROUTE_FIELDS(
                            "10.0.0.2", "n2", "h:81", "false",
                            "true") ",\"chosen\":false,\"why\":\"its link is lost\"," NO_FORWARDS
                                    "}\n",
           "explain", "web", "--format", "jsonl");
    GOLDEN(1, "x: nobody offers this name here\n", "explain", "x");
    cr_expect(strstr(run.err, "x: nobody offers it; meshcat services lists"), "%s", run.err);
}

Test(formats, text_is_the_answer_in_protobufs_text_format_pages_merged)
{
    GOLDEN(0,
           "peer_id: \"n1\"\n"
           "revision: 7\n"
           "services {\n"
           "  key: \"web@local\"\n"
           "  name: \"web\"\n"
           "  ip: \"local\"\n"
           "  backend_addr: \"h:80\"\n"
           "  connected: true\n"
           "}\n"
           "peer_services {\n"
           "  peer_ip: \"10.0.0.2\"\n"
           "  peer_id: \"n2\"\n"
           "  draining: true\n"
           "  services_total: 5\n"
           "}\n",
           "introspect", "--format", "text");
    GOLDEN(1, "revision: 7\nresults {\n  name: \"x\"\n}\n", "lookup", "x", "--format", "text");
}

/* LookupReply {revision: 7, results {name: "x"}} */
Test(formats, bytes_look_as_nngcat_shows_them)
{
    GOLDEN(1, "\"\\x10\\x07\\x1a\\x03\\x0a\\x01\\x78\"\n", "lookup", "x", "--hex");
    GOLDEN(1, "\"\\x10\\x07\\x1a\\x03\\n\\x01x\"\n", "lookup", "x", "-Q");
    GOLDEN(1, ".....\x2ex", "lookup", "x", "-A");
    GOLDEN(1, "\x10\x07\x1a\x03\n\x01x", "lookup", "x", "--raw");
    GOLDEN(1, "", "lookup", "x", "--raw", "-q");
}

Test(formats, raw_pages_stand_one_after_the_other_and_hex_ones_on_lines)
{
    size_t lines = 0;

    RUN(&run, "--dial", fake.url, "introspect", "--hex");
    cr_expect_eq(run.code, 0);
    for (const char *at = run.out; *at; at++)
        lines += *at == '\n';
    cr_expect_eq(lines, 2, "%s", run.out);
    cr_expect(strncmp(run.out, "\"\\x0a\\x02\\x6e\\x31\\x18\\x07\\x22", 29) == 0, "%s", run.out);
    RUN(&run, "--dial", fake.url, "introspect", "-A");
    cr_expect_eq(strstr(run.out + 1, "..n1..") != NULL, 1, "%s", run.out);
    cr_expect(!strchr(run.out, '\n'));
}

Test(formats, rounds_are_set_apart_in_tables_and_lines_in_json)
{
    GOLDEN(0,
           "PEER IP   PEER ID  STATE     SERVICES  LAST SYNC  LAST SEEN\n"
           "10.0.0.2  n2       draining  5         -          -\n"
           "\n"
           "PEER IP   PEER ID  STATE     SERVICES  LAST SYNC  LAST SEEN\n"
           "10.0.0.2  n2       draining  5         -          -\n",
           "peers", "-C2", "-i", "0.01", "--delay", "0.01");
    GOLDEN(0, "{" WEB_FIELDS "{" WEB_FIELDS, "services", "-C2", "-i.001", "--format", "jsonl");
    GOLDEN(1, "\"\\x10\\x07\\x1a\\x03\\n\\x01x\"\n\"\\x10\\x07\\x1a\\x03\\n\\x01x\"\n", "lookup",
           "x", "-Q", "-C", "2", "-i.001");
}

/* Its services are asked for only where they are shown, or counted by a filter. */
Test(formats, peers_asks_for_no_more_than_it_shows)
{
    static const struct {
        const char *args[3];
        Meshd__V1__Section section;
    } cases[] = {
        {{"--format=table"}, MESHD__V1__SECTION__SECTION_PEERS},
        {{"--name", "m*"}, MESHD__V1__SECTION__SECTION_PEER_SERVICES},
        {{"--format=json"}, MESHD__V1__SECTION__SECTION_PEER_SERVICES},
        {{"--raw"}, MESHD__V1__SECTION__SECTION_PEER_SERVICES},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        RUN(&run, "--dial", fake.url, "peers", cases[i].args[0], cases[i].args[1]);
        cr_expect_eq(run.code, 0, "%s", run.err);
        fake_stop(&fake);
        cr_expect_eq(section, cases[i].section, "%s", cases[i].args[0]);
        fake_start(&fake, SP_IPC, serve, NULL);
    }
}

Test(formats, an_answer_longer_than_recv_maxsz_is_refused)
{
    GOLDEN(5, "", "lookup", "x", "-Z", "6");
    cr_expect(strstr(run.err, "has 7 bytes and --recv-maxsz allows 6; raise it"), "%s", run.err);
    GOLDEN(1, "\"\\x10\\x07\\x1a\\x03\\n\\x01x\"\n", "lookup", "x", "-Z7", "-Q");
}

#define BOLD(text) "\033[1m" text "\033[0m"

Test(formats, colours_are_there_when_they_are_asked_for_and_not_without_a_terminal)
{
    GOLDEN(
        0,
        BOLD("PEER IP") "   " BOLD("PEER ID") "  " BOLD("STATE") "     " BOLD("SERVICES") "  " BOLD(
            "LAST SYNC") "  " BOLD("LAST SEEN") "\n"
                                                "10.0.0.2  n2       \033[33mdraining\033[0m  5     "
                                                "    -          -\n",
        "peers", "--color", "always");
    RUN(&run, "--dial", fake.url, "explain", "web", "--color=always");
    cr_expect(strstr(run.out, "\033[32mconnected\033[0m") && strstr(run.out, "\033[33mstale\033"));
    RUN(&run, "--dial", fake.url, "services", "--color=always");
    cr_expect(strstr(run.out, "\033[31munhealthy\033[0m"), "%s", run.out);
    RUN(&run, "--dial", fake.url, "explain", "web");
    cr_expect(!strchr(run.out, '\033'));
    RUN(&run, "--dial", fake.url, "explain", "web", "--color", "never");
    cr_expect(!strchr(run.out, '\033'));
}

/* ---- call ---- */

Test(formats, call_takes_text_and_answers_in_text)
{
    GOLDEN(0, "revision: 7\nresults {\n  name: \"a\"\n}\nresults {\n  name: \"b\"\n}\n", "call",
           "Lookup", "-D", "names: ['a', 'b'] # two");
    GOLDEN(0, "{\"epoch\":0,\"revision\":7,\"results\":[]}\n", "call", "/meshd.v1.Registry/Lookup",
           "--format", "json");
    GOLDEN(0, "\"\\x10\\x07\"\n", "call", "Lookup", "-Q");
}

Test(formats, call_shows_an_answer_that_comes_beside_a_refusal_too)
{
    GOLDEN(73, "known_incarnation: 7\n", "call", "RegisterServices");
    cr_expect(strstr(run.err, "answers FAILED_PRECONDITION: too low"), "%s", run.err);
}

Test(formats, call_says_what_is_wrong_with_a_request)
{
    GOLDEN(2, "", "call", "Lokup");
    cr_expect(strstr(run.err, "no method 'Lokup'; there are RegisterServices, Deregister, Offer, "
                              "Withdraw, Drain, Reload, Lookup, Introspect, Explain\n"),
              "%s", run.err);
    GOLDEN(2, "", "call", "Watch");
    cr_expect(strstr(run.err, "use meshcat watch"), "%s", run.err);
    GOLDEN(2, "", "call", "Lookup", "-D", "names:\n  5");
    cr_expect(strstr(run.err, "the request, line 2, column 3: names takes a text in quotes"), "%s",
              run.err);
    GOLDEN(2, "", "call", "Lookup", "-D", "xyz", "--input", "binary");
    cr_expect(strstr(run.err, "the request is no LookupRequest; see mesh.proto"), "%s", run.err);
    GOLDEN(2, "", "call", "Lookup", "-F", "/nowhere/request");
    cr_expect(strstr(run.err, "cannot read /nowhere/request: No such file"), "%s", run.err);
}

Test(formats, dump_request_writes_the_frame_and_does_not_call)
{
    /* CallHeader {method, call_id: 1, deadline_ms: 1000, wire_version: 1}, names: "web" */
    static const char frame[] =
        "\x22\n\x19/meshd.v1.Registry/Lookup\x10\x01\x18\xe8\x07 \x01\n\x03web";

    RUN(&run, "call", "Lookup", "-D", "names: 'web'", "--dump-request", "-", "--timeout", "1",
        "--dial", "tcp://nowhere.invalid:1");
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect_str_eq(run.out, frame);
    RUN(&run, "call", "Lookup", "--dump-request", "/nowhere/request");
    cr_expect_eq(run.code, 8);
    cr_expect(strstr(run.err, "cannot write /nowhere/request: No such file"), "%s", run.err);
}

/* ---- jq ---- */

/* Whether jq reads text as one or more documents, none of them null or false. */
static bool jq_reads(const char *text)
{
    FILE *jq = popen("jq -e . >/dev/null 2>&1", "w");
    int status;

    cr_assert(jq);
    fputs(text, jq);
    status = pclose(jq);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Test(formats, jq_reads_all_json)
{
    static const char *const lines[][4] = {
        {"introspect"},
        {"services"},
        {"peers"},
        {"node"},
        {"ping"},
        {"lookup", "web"},
        {"lookup", "web", "x"},
        {"lookup", "x"},
        {"explain", "web"},
        {"explain", "x"},
        {"call", "Lookup"},
        {"peers", "-C2", "-i.001"},
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        for (int lined = 0; lined < 2; lined++) {
            const char *args[] = {
                "--dial",    fake.url,    lined ? "--format=jsonl" : "--format=json",
                lines[i][0], lines[i][1], lines[i][2],
                lines[i][3], NULL};

            run_meshcat(&run, args, NULL, STDOUT_READ);
            cr_expect(run.code <= 1 || run.code == 7, "%s: %d", lines[i][0], run.code);
            cr_expect(jq_reads(run.out) || (lined && run.out[0] == '\0'), "%s: %s", lines[i][0],
                      run.out);
            cr_expect_str_eq(run.err, "");
        }
    }
}

static void cuts(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    fake_send(fd, "\1\0\0\0\0\0\0\1\0half", 13);
    fake_call_fini(&call);
}

static void speaks_another_version(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    fake_reply(f, fd, &call, 9, MESHD__V1__REASON__REASON_WIRE_VERSION, "v", NULL);
    fake_call_fini(&call);
}

static void says_nothing(struct fake *f, int fd)
{
    if (fake_greet(fd))
        fake_drain(fd);
}

/* Runs each command with each kind of JSON; all of them end with code and an error that jq reads.
 */
static void all_fail(int code, const char *name)
{
    const char *timeout = code == 4 ? "0.3" : "20";
    static const char *const lines[][3] = {
        {"introspect"},     {"services"},       {"peers"},
        {"node"},           {"ping"},           {"lookup", "web"},
        {"explain", "web"}, {"call", "Lookup"}, {"offer", "a", "b:1"},
        {"withdraw", "a"},  {"call", "Lokup"},
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        bool wrong = lines[i][1] && strcmp(lines[i][1], "Lokup") == 0;
        const char *args[] = {"--dial",    fake.url,    i % 2 ? "--format=jsonl" : "--format=json",
                              "--timeout", timeout,     lines[i][0],
                              lines[i][1], lines[i][2], NULL};

        run_meshcat(&run, args, NULL, STDOUT_READ);
        cr_expect_eq(run.code, wrong ? 2 : code, "%s: %d", lines[i][0], run.code);
        cr_expect(jq_reads(run.err), "%s: %s", lines[i][0], run.err);
        cr_expect(strstr(run.err, wrong ? "\"code\":\"USAGE\"" : name), "%s: %s", lines[i][0],
                  run.err);
    }
}

Test(formats, jq_reads_all_errors)
{
    static const struct {
        void (*serve)(struct fake *f, int fd);
        int code;
        const char *name;
    } rows[] = {
        {cuts, 5, "\"code\":\"PROTOCOL\""},
        {speaks_another_version, 5, "\"code\":\"FAILED_PRECONDITION\""},
        {says_nothing, 4, "\"code\":\"TIMED_OUT\""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        fake_stop(&fake);
        fake_start(&fake, SP_IPC, rows[i].serve, NULL);
        all_fail(rows[i].code, rows[i].name);
    }
    fake_stop(&fake);
    all_fail(3, "\"code\":\"CANNOT_CONNECT\"");
    fake_start(&fake, SP_IPC, serve, NULL);
}
