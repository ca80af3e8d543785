/* libmeshd over tls://: everything that makes a connection, and what is said when none comes about.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "client/answers.h"
#include "client/threads_body.h"
#include "client/tls_stage.h"

#define MANY 1000u /* names of the largest Lookup */

TestSuite(client_tls, .init = stage_setup);

/* Begins to open, and is to fail so. */
static void expect_failure(const char *url, const struct mesh_tls *tls, enum mesh_status wanted,
                           const char *part)
{
    enum mesh_status status = mesh_client_open_tls(url, tls, SOON, &client);

    cr_assert_eq(status, wanted, "%s: %s", mesh_status_text(status), mesh_error_text());
    cr_expect(strstr(mesh_error_text(), part), "%s", mesh_error_text());
}

/* ---- calls ---- */

Test(client_tls, names_are_found)
{
    stage_start(serve_answers, NULL);
    stage_open();
    stage_finds("web");
    stage_finds("db");
    cr_expect_str_eq(mesh_client_url(client), front.url);
    cr_expect_eq(atomic_load(&front.let_in), 1);
    mesh_client_close(TAKE(&client));
    while (atomic_load(&front.ended) == 0) /* not cut off */
        poll(NULL, 0, 1);
    stage_stop();
}

static void look_up_many(void)
{
    static char texts[MANY][200];
    const char *names[MANY];
    struct mesh_call *calls[4];
    struct mesh_list *list;

    for (unsigned i = 0; i < MANY; i++) {
        /* Long, so that request and answer are many records. */
        snprintf(texts[i], sizeof(texts[i]), "n%u.%060d.%060d.%060d", i, 1, 2, 3);
        names[i] = texts[i];
    }
    for (int i = 0; i < 4; i++)
        cr_assert_eq(mesh_lookup_begin(client, names, MANY, SOON, &calls[i]), MESH_OK);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(mesh_call_wait(calls[i], &list), MESH_OK, "%s", mesh_error_text());
        cr_assert_eq(mesh_list_count(list), MANY);
        for (unsigned k = 0; k < MANY; k++)
            cr_assert_str_eq(mesh_list_at(list, k)->name, names[k]);
        mesh_list_free(list);
    }
}

Test(client_tls, large_requests_and_answers_come_whole_in_records_of_any_size)
{
    static const size_t steps[] = {0, 1000, 37};

    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        stage_start(serve_answers, NULL);
        front.step = steps[i];
        stage_open();
        look_up_many();
        stage_stop();
    }
}

/* Answers only when many requests lie in its buffers, and the client's sending has had to wait. */
static void serve_late(struct fake *f, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    sem_wait(&told);
    while (fake_read(f, fd, &call)) {
        answer_lookup(f, fd, &call);
        fake_call_fini(&call);
    }
}

Test(client_tls, what_does_not_leave_at_once_leaves_later)
{
    static char texts[MANY][200];
    const char *names[MANY];
    struct mesh_call *calls[64];
    struct mesh_list *list;

    for (unsigned i = 0; i < MANY; i++) {
        snprintf(texts[i], sizeof(texts[i]), "n%u.%060d.%060d.%060d", i, 1, 2, 3);
        names[i] = texts[i];
    }
    stage_start(serve_late, NULL);
    stage_open();
    for (int i = 0; i < 64; i++) {
        cr_assert_eq(mesh_lookup_begin(client, names, MANY, SOON, &calls[i]), MESH_OK);
        mesh_client_flush(client); /* 12 MB in all */
    }
    sem_post(&told);
    for (int i = 63; i >= 0; i--) {
        cr_assert_eq(mesh_call_wait(calls[i], &list), MESH_OK, "%s", mesh_error_text());
        cr_expect_eq(mesh_list_count(list), MANY);
        mesh_list_free(list);
    }
    stage_stop();
}

Test(client_tls, threads_share_a_connection_that_breaks) { cr_expect_eq(threads_body(true), 0); }

/* ---- connections made again ---- */

Test(client_tls, a_connection_that_is_cut_off_is_made_again)
{
    stage_start(serve_answers, NULL);
    stage_open();
    stage_finds("web");
    front_cut(&front);
    stage_finds("web");
    front_cut(&front);
    stage_finds("web");
    cr_expect_eq(atomic_load(&front.let_in), 3);
    stage_stop();
}

Test(client_tls, a_renewed_certificate_is_used_when_it_connects_again)
{
    char before[65], after[65];

    stage_start(serve_answers, NULL);
    stage_open();
    stage_finds("web");
    front_fingerprint(&front, before);
    stage_files("program", ca, issue_node(ca, "program")); /* into the same files */
    front_cut(&front);
    stage_finds("web");
    front_fingerprint(&front, after);
    cr_expect_str_neq(before, after);
    write_bytes("program.pem", "half a fi", 9); /* what was there before goes on */
    front_cut(&front);
    stage_finds("web");
    front_fingerprint(&front, before);
    cr_expect_str_eq(before, after);
    stage_stop();
}

Test(client_tls, who_is_refused_when_it_connects_again_is_told)
{
    struct mesh_list *list;

    stage_start(serve_answers, NULL);
    stage_open();
    stage_finds("web");
    stage_files("program", ca, issue_node(other_ca, "program"));
    front_cut(&front);
    cr_expect_eq(mesh_lookup(client, "web", SOON, &list), MESH_REFUSED);
    cr_expect(strstr(mesh_error_text(), "refused this one's certificate"), "%s", mesh_error_text());
    stage_files("program", ca, issue_node(ca, "program"));
    stage_finds("web");
    stage_stop();
}

/* ---- settings ---- */

Test(client_tls, settings_come_from_the_environment)
{
    stage_start(serve_answers, NULL);
    setenv("PEER_TLS_CA", mine.ca, 1);
    setenv("PEER_TLS_CERT", mine.cert, 1);
    setenv("PEER_TLS_KEY", mine.key, 1);
    setenv("MESHD_ADDR", front.url, 1);
    cr_assert_eq(mesh_client_open(NULL, SOON, &client), MESH_OK, "%s", mesh_error_text());
    stage_finds("web");
    stage_stop();
    unsetenv("MESHD_ADDR");
    setenv("PEER_TLS_KEY", "", 1); /* unset */
    expect_failure("tls://127.0.0.1:1", NULL, MESH_INVALID, "program.pem");
    setenv("PEER_TLS_CERT", "", 1);
    expect_failure("tls://127.0.0.1:1", NULL, MESH_INVALID, "a certificate of one's own");
}

Test(client_tls, a_certificates_file_may_hold_its_key)
{
    const char *const parts[] = {mine.cert, mine.key};
    static char bytes[8192];
    size_t len = 0;

    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(parts[i], "r");

        len += fread(bytes + len, 1, sizeof(bytes) - len, file);
        fclose(file);
    }
    stage_start(serve_answers, NULL);
    setenv("PEER_TLS_KEY", "/not/this/one", 1);
    mine.cert = write_bytes("both.pem", bytes, len);
    mine.key = NULL;
    stage_open();
    stage_finds("web");
    stage_stop();
}

Test(client_tls, files_that_will_not_do_are_named)
{
    struct mesh_tls tls = mine;

    tls.ca = NULL;
    expect_failure("tls://127.0.0.1:1", &tls, MESH_INVALID, "PEER_TLS_CA");
    tls.ca = "/nowhere/ca.pem";
    expect_failure("tls://127.0.0.1:1", &tls, MESH_INVALID, "/nowhere/ca.pem");
    tls = mine;
    tls.key = write_key("another-key.pem", issue_node(ca, "another"));
    expect_failure("tls://127.0.0.1:1", &tls, MESH_INVALID, "key");
    tls = mine;
    tls.cert = write_bytes("junk.pem", "junk", 4);
    expect_failure("tls://127.0.0.1:1", &tls, MESH_INVALID, "junk.pem");
    tls = mine;
    tls.size = 0;
    expect_failure("tls://127.0.0.1:1", &tls, MESH_INVALID, "mesh_tls.size");
    tls = mine;
    tls.node = "a-peer-id-that-is-longer-than-any-peer-id-of-any-mesh-is-allowed-to-be";
    expect_failure("tls://127.0.0.1:1", &tls, MESH_INVALID, "peer id");
    expect_failure("tls://127.0.0.1", &mine, MESH_INVALID, "tls://host:port");
}

Test(client_tls, other_urls_do_not_look_at_the_settings)
{
    struct mesh_tls tls = {.size = sizeof(tls), .ca = "/nowhere"};

    fake_start(&fake, SP_TCP, serve_answers, NULL);
    cr_assert_eq(mesh_client_open_tls(fake.url, &tls, SOON, &client), MESH_OK);
    stage_finds("web");
    mesh_client_close(client);
    fake_stop(&fake);
}

/* ---- who may talk to whom ---- */

Test(client_tls, a_node_that_is_expected_must_be_it)
{
    stage_start(serve_answers, NULL);
    mine.node = "n1";
    stage_open();
    stage_finds("web");
    front_cut(&front);
    stage_finds("web"); /* perhaps by a session that is resumed */
    mesh_client_close(client);
    mine.node = "n2";
    expect_failure(front.url, &mine, MESH_REFUSED, "names 'n1', not 'n2'");
    mine.node = "";
    stage_open();
    stage_stop();
}

Test(client_tls, a_node_of_another_ca_is_refused)
{
    struct mesh_replica *replica;

    stage_start(serve_answers, issue_node(other_ca, "n1"));
    expect_failure(front.url, &mine, MESH_REFUSED, "its certificate is refused");
    cr_expect_eq(mesh_replica_open_tls(front.url, &mine, NULL, SOON, &replica), MESH_REFUSED);
    cr_expect(strstr(mesh_error_text(), "its certificate is refused"), "%s", mesh_error_text());
    cr_expect_eq(atomic_load(&front.let_in), 0);
    mine.insecure = 1;
    mine.ca = NULL;
    stage_open();
    stage_finds("web");
    stage_stop();
}

/* Such a refusal comes with the first bytes that are read. */
Test(client_tls, who_is_of_another_ca_is_refused_by_the_node)
{
    struct mesh_replica *replica;

    stage_start(serve_answers, NULL);
    stage_files("stranger", ca, issue_node(other_ca, "program"));
    for (int i = 0; i < 20; i++)
        expect_failure(front.url, &mine, MESH_REFUSED, "refused this one's certificate");
    cr_expect_eq(mesh_replica_open_tls(front.url, &mine, NULL, SOON, &replica), MESH_REFUSED);
    cr_expect(strstr(mesh_error_text(), "refused this one's certificate"), "%s", mesh_error_text());
    cr_expect_eq(atomic_load(&front.let_in), 0);
    stage_stop();
}

/* ---- what is no TLS, or should be ---- */

static void closes(struct fake *f, int fd) {}

static void closes_after_some(struct fake *f, int fd)
{
    char byte;

    if (read(fd, &byte, 1) < 0)
        abort();
}

static void greets_at_once(struct fake *f, int fd)
{
    fake_greet(fd);
    fake_drain(fd);
}

Test(client_tls, a_port_without_tls_is_named_as_what_it_is)
{
    static const struct {
        void (*serve)(struct fake *fake, int fd);
        enum mesh_status status;
    } cases[] = {
        {closes, MESH_GONE}, {closes_after_some, MESH_GONE}, {greets_at_once, MESH_PROTOCOL}};
    struct mesh_replica *replica;
    char url[64];

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fake_start(&fake, SP_TCP, cases[i].serve, NULL);
        snprintf(url, sizeof(url), "tls://127.0.0.1:%u", fake.port);
        expect_failure(url, &mine, cases[i].status, "use tcp:// then");
        cr_expect_eq(mesh_replica_open_tls(url, &mine, NULL, SOON, &replica), cases[i].status);
        cr_expect(strstr(mesh_error_text(), "use tcp:// then"), "%s", mesh_error_text());
        fake_stop(&fake);
    }
}

Test(client_tls, a_port_that_wants_tls_is_named_as_what_it_is)
{
    struct mesh_replica *replica;

    fake_start(&fake, SP_TCP, closes_after_some, NULL);
    expect_failure(fake.url, NULL, MESH_GONE, "use tls:// then");
    cr_expect_eq(mesh_replica_open(fake.url, NULL, SOON, &replica), MESH_GONE);
    cr_expect(strstr(mesh_error_text(), "use tls:// then"), "%s", mesh_error_text());
    fake_stop(&fake);
    fake_start(&fake, SP_IPC, closes_after_some, NULL);
    expect_failure(fake.url, NULL, MESH_GONE, "closed by the other side");
    fake_stop(&fake);
}

static void drains(struct fake *f, int fd) { fake_drain(fd); }

Test(client_tls, who_says_nothing_is_given_up_at_the_deadline)
{
    uint64_t began = clock_ms();
    struct mesh_replica *replica;
    char url[64];

    fake_start(&fake, SP_TCP, drains, NULL);
    snprintf(url, sizeof(url), "tls://127.0.0.1:%u", fake.port);
    cr_expect_eq(mesh_client_open_tls(url, &mine, 100, &client), MESH_TIMEOUT);
    cr_expect_eq(mesh_replica_open_tls(url, &mine, NULL, 100, &replica), MESH_TIMEOUT);
    fake_stop(&fake);
    cr_expect_lt(clock_ms() - began, SOON);
}
