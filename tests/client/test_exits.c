/* Every exit code of meshcat, with what it says on stderr, against nodes that do right and wrong.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "client/fake.h"
#include "client/run.h"
#include "wire/status.h"

static struct fake fake;
static struct run run;

static void setup(void) { alarm(100); }

TestSuite(exits, .init = setup);

#define expect_code(n)                                                                             \
    cr_expect_eq(run.code, n, "exit code %d, stdout: %s, stderr: %s", run.code, run.out, run.err)
#define expect_err(part) cr_expect(strstr(run.err, part), "stderr: %s", run.err)

/* What a scripted node answers to everything. */
struct script {
    unsigned status;
    Meshd__V1__Reason reason;
    const char *text;
};

static void refuses(struct fake *f, int fd)
{
    const struct script *script = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        fake_reply(f, fd, &call, script->status, script->reason, script->text, NULL);
        fake_call_fini(&call);
    }
}

/* Names that begin with "a" are found, "!" is none, the others are not known. */
static void knows_a(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        const Meshd__V1__LookupRequest *request = (const Meshd__V1__LookupRequest *)call.request;
        Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
        Meshd__V1__Route route = MESHD__V1__ROUTE__INIT, *routes[] = {&route};
        Meshd__V1__LookupResult results[8], *list[8];

        for (size_t i = 0; i < request->n_names && i < 8; i++) {
            meshd__v1__lookup_result__init(&results[i]);
            results[i].name = request->names[i];
            if (request->names[i][0] == '!')
                results[i].reason = MESHD__V1__REASON__REASON_BAD_NAME;
            results[i].routes = routes;
            results[i].n_routes = request->names[i][0] == 'a';
            list[i] = &results[i];
        }
        reply.results = list;
        reply.n_results = f->ctx ? 0 : request->n_names;
        fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        fake_call_fini(&call);
    }
}

Test(exits, zero_when_all_names_are_found_seven_when_some_one_when_none)
{
    fake_start(&fake, SP_TCP, knows_a, NULL);
    RUN(&run, "--dial", fake.url, "lookup", "a1", "a2");
    expect_code(0);
    cr_expect_str_eq(run.err, "");
    RUN(&run, "--dial", fake.url, "lookup", "a1", "b");
    expect_code(7);
    expect_err("meshcat: b: nobody offers it; meshcat services lists");
    RUN(&run, "--dial", fake.url, "lookup", "b", "!");
    expect_code(1);
    expect_err("meshcat: !: cannot be the name of a service");
    RUN(&run, "--dial", fake.url, "lookup", "a", "b", "-q");
    expect_code(7);
    cr_expect_str_eq(run.out, "");
    cr_expect_str_eq(run.err, "");
    fake_stop(&fake);
}

Test(exits, five_when_answers_are_missing)
{
    fake_start(&fake, SP_TCP, knows_a, &fake);
    RUN(&run, "--dial", fake.url, "lookup", "a1");
    expect_code(5);
    expect_err("answered 0 of 1 names");
    fake_stop(&fake);
}

/* An Introspect without any row. */
static void is_empty(struct fake *f, int fd)
{
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT;
    Meshd__V1__WithdrawReply none = MESHD__V1__WITHDRAW_REPLY__INIT;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        fake_reply(f, fd, &call, 0, 0, "",
                   strcmp(call.method, "Withdraw") ? &reply.base : &none.base);
        fake_call_fini(&call);
    }
}

Test(exits, one_when_no_row_matches)
{
    static const char *const commands[] = {"introspect", "services", "peers"};
    struct script script = {STATUS_NOT_FOUND, 0, "nothing is offered"};

    fake_start(&fake, SP_IPC, is_empty, NULL);
    for (size_t i = 0; i < 3; i++) {
        RUN(&run, commands[i], "--dial", fake.url, "--name", "x*");
        expect_code(1);
        expect_err("nothing matched; fewer filters match more");
    }
    RUN(&run, "withdraw", "x", "--dial", fake.url);
    expect_code(1);
    expect_err("no lease holds it");
    RUN(&run, "node", "--dial", fake.url);
    expect_code(0);
    fake_stop(&fake);

    fake_start(&fake, SP_IPC, refuses, &script);
    RUN(&run, "withdraw", "x", "--dial", fake.url, "--format", "json");
    expect_code(1);
    cr_expect_str_eq(run.out, "{\"name\":\"x\",\"removed\":0}\n");
    fake_stop(&fake);
}

Test(exits, two_when_the_command_line_is_wrong)
{
    RUN(&run, "services", "--nope");
    expect_code(2);
    cr_expect_str_eq(run.err, "meshcat: there is no option --nope; see meshcat --help\n");
    cr_expect_str_eq(run.out, "");
    RUN(&run, "services", "--nope", "--format", "j");
    expect_code(2);
    cr_expect_str_eq(run.err,
                     "{\"error\":{\"status\":null,\"code\":\"USAGE\",\"text\":\"there is no "
                     "option --nope; see meshcat --help\",\"exit\":2}}\n");
    RUN(&run, "services", "--dial", "http://x:1");
    expect_code(2);
    expect_err("write tcp://host:port, tls://host:port or ipc:///path");
    RUN(&run, "services", "--dial", "tls://x:1");
    expect_code(2);
    expect_err("tls:// needs a certificate of one's own");
    RUN(&run, "offer", "a/b", "h:1");
    expect_code(2);
    RUN(&run, "offer", "web", "h");
    expect_code(2);
    expect_err("write host:port or [v6]:port");
    RUN(&run, "ping", "--dial", "nonsense");
    expect_code(2);
}

Test(exits, three_at_once_when_the_connection_is_refused)
{
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", fake_free_port());
    RUN(&run, "services", "--dial", url, "--timeout", "60");
    expect_code(3);
    expect_err("Connection refused; is meshd running there?");
    cr_expect_lt(run.took_ms, 20000);
    RUN(&run, "services", "-x", "/nowhere/meshd.sock", "--format=json");
    expect_code(3);
    expect_err("{\"error\":{\"status\":null,\"code\":\"CANNOT_CONNECT\"");
    RUN(&run, "ping", "--dial", url, "-C2", "-i0.01");
    expect_code(3);
}

static void closes(struct fake *f, int fd) {}

Test(exits, three_when_the_node_closes_before_it_greets)
{
    fake_start(&fake, SP_TCP, closes, NULL);
    RUN(&run, "services", "--dial", fake.url);
    expect_code(3);
    fake_stop(&fake);
}

static void greets_only(struct fake *f, int fd)
{
    if (fake_greet(fd))
        fake_drain(fd);
}

Test(exits, four_when_no_answer_comes_within_a_fraction_of_a_second)
{
    fake_start(&fake, SP_IPC, greets_only, NULL);
    RUN(&run, "services", "--dial", fake.url, "--timeout", "0.2");
    expect_code(4);
    expect_err("gave no whole answer within 0.200 s; check the address, or give more time");
    cr_expect_geq(run.took_ms, 200);
    fake_stop(&fake);
}

Test(exits, four_when_the_connection_hangs)
{
    fake_black_hole(&fake, SP_TCP);
    RUN(&run, "services", "--dial", fake.url, "--timeout:0.2", "--format:json");
    expect_code(4);
    expect_err("\"code\":\"TIMED_OUT\"");
    fake_stop(&fake);
}

Test(exits, four_when_the_node_says_that_the_deadline_is_over)
{
    struct script script = {STATUS_DEADLINE_EXCEEDED, 0, "too late"};

    fake_start(&fake, SP_TCP, refuses, &script);
    RUN(&run, "services", "--dial", fake.url);
    expect_code(4);
    fake_stop(&fake);
}

static void says(struct fake *f, int fd)
{
    fake_send(fd, f->ctx, strlen(f->ctx));
    fake_drain(fd);
}

Test(exits, five_when_something_else_answers)
{
    fake_start(&fake, SP_TCP, says, (void *)"HTTP/1.1 400 Bad Request\r\n\r\n");
    RUN(&run, "services", "--dial", fake.url);
    expect_code(5);
    expect_err("is not a meshd; check the address and the port");
    fake_stop(&fake);
}

struct bytes {
    const void *data;
    size_t len;
};

static void answers_bytes(struct fake *f, int fd)
{
    const struct bytes *bytes = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    fake_send(fd, bytes->data, bytes->len);
    fake_call_fini(&call);
}

Test(exits, five_when_the_answer_is_cut_too_long_or_garbage)
{
    static const struct {
        struct bytes bytes;
        const char *part;
    } rows[] = {
        {{"\0\0\0\0\0\0\1\0abcd", 12}, "ended the connection before its answer was whole"},
        {{"\x7f\0\0\0\0\0\0\0", 8}, "larger than an answer may be"},
        {{"\0\0\0\0\0\0\0\4\1\2\3\4", 12}, "is not a meshd"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        fake_start(&fake, SP_TCP, answers_bytes, (void *)&rows[i].bytes);
        RUN(&run, "services", "--dial", fake.url);
        expect_code(5);
        expect_err(rows[i].part);
        fake_stop(&fake);
    }
}

Test(exits, five_when_no_wire_version_is_in_common)
{
    struct script script = {STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION,
                            "v"};

    fake_start(&fake, SP_TCP, refuses, &script);
    RUN(&run, "services", "--dial", fake.url);
    expect_code(5);
    expect_err(
        "speaks wire versions 2 to 3 and this meshcat 1 to 1; use the meshcat of the node's");
    fake_stop(&fake);
}

Test(exits, six_when_it_is_not_allowed)
{
    struct script script = {STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_POLICY,
                            "only on the socket"};

    fake_start(&fake, SP_TCP, refuses, &script);
    RUN(&run, "offer", "web", "h:80", "--dial", fake.url);
    expect_code(6);
    expect_err("answers PERMISSION_DENIED: only on the socket; ask through the node's own socket");
    RUN(&run, "services", "--dial", fake.url, "--format", "json");
    expect_code(6);
    expect_err("{\"error\":{\"status\":7,\"code\":\"PERMISSION_DENIED\",\"text\":\"");
    expect_err("\",\"exit\":6}}\n");
    fake_stop(&fake);
}

Test(exits, sixty_four_and_the_status_for_the_others)
{
    static const unsigned statuses[] = {1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 63};

    for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
        struct script script = {statuses[i], 0, "because"};

        fake_start(&fake, SP_TCP, refuses, &script);
        RUN(&run, "node", "--dial", fake.url);
        expect_code(64 + (int)statuses[i]);
        expect_err(": because; ");
        fake_stop(&fake);
    }
}

Test(exits, five_for_a_status_that_has_no_code)
{
    static const unsigned statuses[] = {64, 4000000000u};

    for (size_t i = 0; i < 2; i++) {
        struct script script = {statuses[i], 0, ""};

        fake_start(&fake, SP_TCP, refuses, &script);
        RUN(&run, "node", "--dial", fake.url);
        expect_code(5);
        fake_stop(&fake);
    }
}

Test(exits, control_bytes_of_a_node_do_not_reach_the_terminal)
{
    struct script script = {STATUS_INTERNAL, 0, "a\033[2J\nb\\ \302\233"};

    fake_start(&fake, SP_TCP, refuses, &script);
    RUN(&run, "node", "--dial", fake.url);
    expect_err("a\\x1b[2J\\x0ab\\x5c \\xc2\\x9b;");
    RUN(&run, "lookup", "a", "--format", "json", "--dial", "tcp://\033[2J");
    expect_err("\\\\x1b[2J");
    fake_stop(&fake);
}

Test(exits, eight_when_the_output_is_gone)
{
    fake_start(&fake, SP_TCP, knows_a, NULL);
    for (int where = STDOUT_BROKEN; where <= STDOUT_CLOSED; where++) {
        run_meshcat(&run, (const char *const[]){"lookup", "a", "--dial", fake.url, NULL}, NULL,
                    (enum run_stdout)where);
        expect_code(8);
        expect_err(where == STDOUT_BROKEN ? "cannot write to standard output: Broken pipe"
                                          : "cannot write to standard output");
    }
    run_meshcat(&run,
                (const char *const[]){"lookup", "a", "-C2", "-i.001", "--dial", fake.url, NULL},
                NULL, STDOUT_BROKEN);
    expect_code(8);
    expect_err("cannot write to standard output: Broken pipe");
    run_meshcat(&run, (const char *const[]){"--help", NULL}, NULL, STDOUT_BROKEN);
    expect_code(8);
    fake_stop(&fake);
}

Test(exits, zero_when_who_reads_what_has_no_end_has_seen_enough)
{
    for (int i = 0; i < 2; i++) {
        fake_start(&fake, SP_TCP, i ? is_empty : knows_a, NULL);
        run_meshcat(&run,
                    (const char *const[]){"-i.001", "--dial", fake.url, i ? "ping" : "lookup",
                                          i ? NULL : "a", NULL},
                    NULL, STDOUT_BROKEN);
        expect_code(0);
        cr_expect_str_eq(run.err, "");
        fake_stop(&fake);
    }
}

/* Answers the first of two connections with nothing but its end. */
static void answers_the_second(struct fake *f, int fd)
{
    int *seen = f->ctx;

    if ((*seen)++ > 0)
        is_empty(f, fd);
}

Test(exits, seven_when_only_some_pings_are_answered)
{
    int seen = 0;

    fake_start(&fake, SP_TCP, answers_the_second, &seen);
    RUN(&run, "ping", "-C", "2", "-i", "0.001", "--dial", fake.url, "-v");
    expect_code(7);
    expect_err("1 of 2 answered");
    fake_stop(&fake);
}

/* ---- whom it asks ---- */

/* Runs `node -v` with the environment; what it says on stderr shows whom it asked. */
static void asked(const char *const *env)
{
    run_meshcat(&run, (const char *const[]){"node", "-v", NULL}, env, STDOUT_READ);
}

Test(exits, without_a_target_meshd_addr_counts_then_the_local_socket_then_port_7400)
{
    char base[] = P_tmpdir "/meshcat-run-XXXXXX", run_dir[64], xdg[96], to[256], addr[256];
    char sock[128], node_dir[128], other_dir[128], other[256], own[256];

    fake_start(&fake, SP_IPC, is_empty, NULL);
    cr_assert(mkdtemp(base));
    snprintf(run_dir, sizeof(run_dir), "%s/meshd", base);
    snprintf(node_dir, sizeof(node_dir), "%s/n1", run_dir);
    snprintf(other_dir, sizeof(other_dir), "%s/n2", run_dir);
    snprintf(xdg, sizeof(xdg), "XDG_RUNTIME_DIR=%s", base);
    snprintf(addr, sizeof(addr), "MESHD_ADDR=%s", fake.url);

    asked((const char *const[]){addr, xdg, NULL});
    expect_err(fake.url);
    expect_code(0);

    /* Nothing there: the default port. Whether a node listens there is not ours to say, nor whether
     * the system has one in /run/meshd: that is looked for unless the folder is ours. */
    snprintf(own, sizeof(own), "RUNTIME_DIRECTORY=%s", run_dir);
    run_meshcat(&run, (const char *const[]){"offer", "a", "b:1", NULL},
                (const char *const[]){own, "MESHD_ADDR=", NULL}, STDOUT_READ);
    expect_code(3);
    expect_err("no node has its socket below");

    /* The only one. A socket is found by its kind, so it is moved there. */
    cr_assert_eq(mkdir(run_dir, 0700) | mkdir(node_dir, 0700) | mkdir(other_dir, 0700), 0);
    snprintf(sock, sizeof(sock), "%s/meshd.sock", fake.dir);
    snprintf(to, sizeof(to), "%s/meshd.sock", node_dir);
    cr_assert_eq(rename(sock, to), 0);
    asked((const char *const[]){xdg, NULL});
    expect_err(to);
    expect_code(0);

    /* Two: the one named counts. */
    snprintf(other, sizeof(other), "%s/meshd.sock", other_dir);
    cr_assert_eq(link(to, other), 0);
    asked((const char *const[]){xdg, "PEER_NAME=n2", NULL});
    expect_err(other);
    expect_code(0);
    run_meshcat(&run, (const char *const[]){"offer", "a", "b:1", NULL},
                (const char *const[]){xdg, "PEER_NAME=../n1", NULL}, STDOUT_READ);
    expect_code(2);
    expect_err("choose one with PEER_NAME=ID or -x PATH");

    /* RUNTIME_DIRECTORY goes before XDG_RUNTIME_DIR and is taken as it is. */
    asked((const char *const[]){own, "XDG_RUNTIME_DIR=/nowhere", "PEER_NAME=n1", NULL});
    expect_err(to);
    expect_code(0);

    cr_expect_eq(unlink(to) | unlink(other) | rmdir(node_dir) | rmdir(other_dir) | rmdir(run_dir) |
                     rmdir(base),
                 0);
    fake_stop(&fake);
}
