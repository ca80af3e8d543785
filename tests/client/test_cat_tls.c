/* meshcat over tls://: its options and variables, and what it ends with when a certificate is the
 * trouble. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "client/answers.h"
#include "client/fakewatch.h"
#include "client/front.h"
#include "client/run.h"
#include "tls/support.h"
#include "wire/status.h"

static struct fake fake;
static struct front front;
static struct run run;
static struct issued *ca, *other_ca;
static struct tls_settings mine;

static void setup(void)
{
    alarm(100);
    ca = issue_ca(NULL, "the mesh");
    other_ca = issue_ca(NULL, "another");
    mine = node_settings("me", ca, issue_node(ca, "me"));
}

TestSuite(cat_tls, .init = setup);

#define expect_code(n)                                                                             \
    cr_expect_eq(run.code, n, "exit code %d, stdout: %s, stderr: %s", run.code, run.out, run.err)
#define expect_err(part) cr_expect(strstr(run.err, part), "stderr: %s", run.err)
#define MINE "--cacert", mine.ca, "-E", mine.cert, "--key", mine.key

static void serve_lookups(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        if (strcmp(call.method, "Lookup") == 0)
            answer_lookup(f, fd, &call);
        else
            fake_reply(f, fd, &call, STATUS_PERMISSION_DENIED, 0, "not today", NULL);
        fake_call_fini(&call);
    }
}

/* Lookups, and watches that tell of one service. */
static void serve(struct fake *f, int fd)
{
    struct fakewatch watch;
    char first = '\0';

    if (recv(fd, &first, 1, MSG_PEEK) != 1 || first == '\0') {
        serve_lookups(f, fd);
        return;
    }
    if (!fakewatch_begin(&watch, f, fd))
        return;
    fakewatch_greet(&watch, 0, 0, "");
    fakewatch_tell(&watch, &(struct fakewatch_message){
                               .epoch = 9,
                               .revision = 1,
                               .resync = true,
                               .synced = true,
                               .events = &(struct fakewatch_event){FW_UP, "web", "local", "h:1", 0},
                               .n = 1});
    fake_drain(fd);
}

static void start(const struct issued *own)
{
    struct tls_settings node = node_settings("n1", ca, own ? own : issue_node(ca, "n1"));

    fake_start_many(&fake, SP_TCP, serve, NULL);
    front_start(&front, &node, fake.port);
}

static void stop(void)
{
    front_stop(&front);
    fake_stop(&fake);
}

Test(cat_tls, it_asks_with_the_files_of_its_options)
{
    start(NULL);
    RUN(&run, "lookup", "web", "--dial", front.url, MINE);
    expect_code(0);
    cr_expect(strstr(run.out, "10.0.0.7:4100"), "%s", run.out);
    RUN(&run, "lookup", "web", "--dial", front.url, MINE, "--node", "n1");
    expect_code(0);
    RUN(&run, "lookup", "web", "--dial", front.url, "--cacert", mine.ca, "--cert", mine.cert);
    expect_code(2);
    expect_err("me.pem");
    RUN(&run, "watch", "--count", "1", "--dial", front.url, MINE);
    expect_code(0);
    cr_expect(strstr(run.out, "web"), "%s", run.out);
    stop();
}

Test(cat_tls, it_asks_with_the_files_of_its_environment)
{
    char lines[4][256];
    const char *const env[] = {lines[0], lines[1], lines[2], lines[3], NULL};

    start(NULL);
    snprintf(lines[0], sizeof(lines[0]), "PEER_TLS_CA=%s", mine.ca);
    snprintf(lines[1], sizeof(lines[1]), "PEER_TLS_CERT=%s", mine.cert);
    snprintf(lines[2], sizeof(lines[2]), "PEER_TLS_KEY=%s", mine.key);
    snprintf(lines[3], sizeof(lines[3]), "MESHD_ADDR=%s", front.url);
    run_meshcat(&run, (const char *const[]){"lookup", "web", NULL}, env, STDOUT_READ);
    expect_code(0);
    stop();
}

Test(cat_tls, refused_certificates_are_told_with_their_own_code)
{
    struct tls_settings strange;

    start(issue_node(other_ca, "n1"));
    RUN(&run, "lookup", "web", "--dial", front.url, MINE);
    expect_code(6);
    expect_err("its certificate is refused");
    RUN(&run, "watch", "--dial", front.url, MINE);
    expect_code(6);
    expect_err("its certificate is refused");
    RUN(&run, "lookup", "web", "--dial", front.url, "-k", "-E", mine.cert, "--key", mine.key);
    expect_code(0);
    stop();
    start(NULL);
    RUN(&run, "lookup", "web", "--dial", front.url, MINE, "--node", "n2");
    expect_code(6);
    expect_err("names 'n1', not 'n2'");
    strange = node_settings("strange", ca, issue_node(other_ca, "me"));
    RUN(&run, "lookup", "web", "--dial", front.url, "--cacert", strange.ca, "-E", strange.cert,
        "--key", strange.key);
    expect_code(6);
    expect_err("refused this one's certificate");
    RUN(&run, "watch", "--dial", front.url, "--cacert", strange.ca, "-E", strange.cert, "--key",
        strange.key, "--format", "json");
    expect_code(6);
    expect_err("\"code\":\"DENIED\"");
    stop();
}

Test(cat_tls, files_that_will_not_do_are_mistakes_of_the_command_line)
{
    RUN(&run, "node", "--dial", "tls://127.0.0.1:1", "--cacert", "/nowhere", "-E", mine.cert,
        "--key", mine.key);
    expect_code(2);
    expect_err("/nowhere");
    RUN(&run, "watch", "--dial", "tls://127.0.0.1:1", "-E", mine.cert, "--key", mine.key);
    expect_code(2);
    expect_err("PEER_TLS_CA");
    RUN(&run, "node", "--dial", "tls://127.0.0.1:1");
    expect_code(2);
    expect_err("PEER_TLS_CERT");
    RUN(&run, "node", "--dial", "tls://127.0.0.1:1", MINE);
    expect_code(3);
}

Test(cat_tls, certificates_beside_a_plain_address_are_a_mistake)
{
    RUN(&run, "node", "--dial", "tcp://127.0.0.1:1", MINE);
    expect_code(2);
    expect_err("certificates are for tls:// addresses");
    RUN(&run, "watch", "-l", "1", "-k");
    expect_code(2);
    expect_err("certificates are for tls:// addresses");
    RUN(&run, "node", "--dial", "tls://127.0.0.1:1", "-k", "--node", "n1");
    expect_code(2);
    expect_err("-k takes whoever answers");
    RUN(&run, "node", "--dial", "tls://127.0.0.1:1", "--node", "n 1");
    expect_code(2);
    expect_err("a peer id");
}

/* As a node closes what begins otherwise than it should. */
static void closes(struct fake *f, int fd)
{
    char byte;

    if (recv(fd, &byte, 1, 0) < 0)
        abort();
}

Test(cat_tls, a_port_of_the_other_kind_is_named_as_what_it_is)
{
    char url[64];

    fake_start(&fake, SP_TCP, closes, NULL);
    snprintf(url, sizeof(url), "tls://127.0.0.1:%u", fake.port);
    RUN(&run, "node", "--dial", url, MINE);
    expect_code(3);
    expect_err("use tcp:// then");
    RUN(&run, "watch", "--dial", url, MINE);
    expect_code(3);
    expect_err("use tcp:// then");
    RUN(&run, "node", "--dial", fake.url);
    expect_code(3);
    expect_err("use tls:// then");
    RUN(&run, "watch", "--dial", fake.url);
    expect_code(3);
    expect_err("use tls:// then");
    fake_stop(&fake);
}

Test(cat_tls, diff_asks_two_nodes)
{
    start(NULL);
    RUN(&run, "diff", front.url, "tls://127.0.0.1:1", MINE);
    expect_code(6);
    expect_err("not today");
    cr_expect_eq(atomic_load(&front.let_in), 1);
    RUN(&run, "diff", front.url, "127.0.0.1:1", MINE, "--node", "n1");
    expect_code(2);
    expect_err("--node is not an option of diff");
    stop();
}
