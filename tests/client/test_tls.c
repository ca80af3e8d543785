/* libmeshd over tls://: everything that makes a connection, and what is said when none comes about.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <meshd/client.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "client/answers.h"
#include "client/fakewatch.h"
#include "client/follow.h"
#include "client/front.h"
#include "client/threads_body.h"
#include "tls/support.h"

#define SOON 20000 /* ms; what is to succeed has as long as that */
#define MANY 1000u /* names of the largest Lookup */

static struct fake fake;
static struct front front;
static struct mesh_client *client;
static struct issued *ca, *other_ca;
static struct mesh_tls mine = {.size = sizeof(mine)};
static sem_t told; /* posted by a fake */

/* What a program of the mesh has: files in `mine`. */
static void files_of(const char *name, const struct issued *trusted, const struct issued *own)
{
    struct tls_settings settings = node_settings(name, trusted, own);

    mine.ca = settings.ca;
    mine.cert = settings.cert;
    mine.key = settings.key;
}

static void setup(void)
{
    alarm(100);
    sem_init(&told, 0, 0);
    unsetenv("PEER_TLS_CA");
    unsetenv("PEER_TLS_CERT");
    unsetenv("PEER_TLS_KEY");
    ca = issue_ca(NULL, "the mesh");
    other_ca = issue_ca(NULL, "another");
    files_of("program", ca, issue_node(ca, "program"));
}

TestSuite(client_tls, .init = setup);

/* A node n1 of the mesh, or with another certificate. */
static void start(void (*serve)(struct fake *fake, int fd), const struct issued *own)
{
    struct tls_settings node = node_settings("n1", ca, own ? own : issue_node(ca, "n1"));

    fake_start_many(&fake, SP_TCP, serve, NULL);
    front_start(&front, &node, fake.port);
}

static void open_client(void)
{
    cr_assert_eq(mesh_client_open_tls(front.url, &mine, SOON, &client), MESH_OK, "%s",
                 mesh_error_text());
}

static void stop(void)
{
    mesh_client_close(client);
    client = NULL;
    front_stop(&front);
    fake_stop(&fake);
}

/* Begins to open, and is to fail so. */
static void expect_failure(const char *url, const struct mesh_tls *tls, enum mesh_status wanted,
                           const char *part)
{
    enum mesh_status status = mesh_client_open_tls(url, tls, SOON, &client);

    cr_assert_eq(status, wanted, "%s: %s", mesh_status_text(status), mesh_error_text());
    cr_expect(strstr(mesh_error_text(), part), "%s", mesh_error_text());
}

static void expect_found(const char *name)
{
    struct mesh_list *list;

    cr_assert_eq(mesh_lookup(client, name, SOON, &list), MESH_OK, "%s", mesh_error_text());
    cr_expect_str_eq(mesh_list_at(list, 0)->name, name);
    mesh_list_free(list);
}

/* ---- calls ---- */

Test(client_tls, names_are_found)
{
    start(serve_answers, NULL);
    open_client();
    expect_found("web");
    expect_found("db");
    cr_expect_str_eq(mesh_client_url(client), front.url);
    cr_expect_eq(atomic_load(&front.let_in), 1);
    mesh_client_close(TAKE(&client));
    while (atomic_load(&front.ended) == 0) /* not cut off */
        poll(NULL, 0, 1);
    stop();
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
        start(serve_answers, NULL);
        front.step = steps[i];
        open_client();
        look_up_many();
        stop();
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
    start(serve_late, NULL);
    open_client();
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
    stop();
}

Test(client_tls, threads_share_a_connection_that_breaks) { cr_expect_eq(threads_body(true), 0); }

/* ---- connections made again ---- */

Test(client_tls, a_connection_that_is_cut_off_is_made_again)
{
    start(serve_answers, NULL);
    open_client();
    expect_found("web");
    front_cut(&front);
    expect_found("web");
    front_cut(&front);
    expect_found("web");
    cr_expect_eq(atomic_load(&front.let_in), 3);
    stop();
}

Test(client_tls, a_renewed_certificate_is_used_when_it_connects_again)
{
    char before[65], after[65];

    start(serve_answers, NULL);
    open_client();
    expect_found("web");
    front_fingerprint(&front, before);
    files_of("program", ca, issue_node(ca, "program")); /* into the same files */
    front_cut(&front);
    expect_found("web");
    front_fingerprint(&front, after);
    cr_expect_str_neq(before, after);
    write_bytes("program.pem", "half a fi", 9); /* what was there before goes on */
    front_cut(&front);
    expect_found("web");
    front_fingerprint(&front, before);
    cr_expect_str_eq(before, after);
    stop();
}

Test(client_tls, who_is_refused_when_it_connects_again_is_told)
{
    struct mesh_list *list;

    start(serve_answers, NULL);
    open_client();
    expect_found("web");
    files_of("program", ca, issue_node(other_ca, "program"));
    front_cut(&front);
    cr_expect_eq(mesh_lookup(client, "web", SOON, &list), MESH_REFUSED);
    cr_expect(strstr(mesh_error_text(), "refused this one's certificate"), "%s", mesh_error_text());
    files_of("program", ca, issue_node(ca, "program"));
    expect_found("web");
    stop();
}

/* ---- leases, watches, replicas ---- */

static void serve_offers(struct fake *f, int fd)
{
    Meshd__V1__OfferReply yes = MESHD__V1__OFFER_REPLY__INIT;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        fake_reply(f, fd, &call, 0, 0, "", &yes.base);
        fake_call_fini(&call);
        sem_post(&told);
    }
}

Test(client_tls, a_lease_is_made_and_made_again)
{
    struct mesh_lease *lease;

    start(serve_offers, NULL);
    open_client();
    cr_assert_eq(mesh_register(client, "web", "127.0.0.1:80", SOON, &lease), MESH_OK, "%s",
                 mesh_error_text());
    sem_wait(&told);
    cr_expect_eq(atomic_load(&front.let_in), 2);
    cr_expect_eq(mesh_lease_state(lease), MESH_OK);
    front_cut(&front);
    sem_wait(&told); /* renewed, or the test ends by its alarm */
    cr_expect_eq(atomic_load(&front.let_in), 3);
    mesh_lease_close(lease);
    sem_wait(&told); /* withdrawn */
    stop();
}

static const struct fakewatch_event web = {FW_UP, "web", "local", "h:1", 0};

/* Serves the client's own connection; false: it is a watch. */
static bool serves_calls(struct fake *f, int fd)
{
    char first = '\0';

    if (recv(fd, &first, 1, MSG_PEEK) == 1 && first != '\0')
        return false;
    serve_answers(f, fd);
    return true;
}

/* A picture of many messages and one change after it. */
static void tells(struct fake *f, int fd)
{
    struct fakewatch watch;
    uint64_t revision = 1;

    if (serves_calls(f, fd) || !fakewatch_begin(&watch, f, fd))
        return;
    fakewatch_greet(&watch, 0, 0, "");
    if (!fakewatch_tell(&watch, &(struct fakewatch_message){.epoch = 9, .resync = true}))
        return;
    for (unsigned i = 0; i < 500; i++) {
        char name[32];
        struct fakewatch_event event = {FW_UP, name, "local", "h:1", 0};

        snprintf(name, sizeof(name), "svc-%u", i);
        if (!fakewatch_tell(&watch,
                            &(struct fakewatch_message){.epoch = 9, .events = &event, .n = 1}))
            return;
    }
    fakewatch_tell(&watch,
                   &(struct fakewatch_message){.epoch = 9, .revision = revision++, .synced = true});
    sem_wait(&told);
    fakewatch_tell(&watch,
                   &(struct fakewatch_message){
                       .epoch = 9, .revision = revision++, .synced = true, .events = &web, .n = 1});
    fake_drain(fd);
}

/* As a loop does it: nothing is asked before the descriptor says so. */
static enum mesh_change next_change(struct mesh_watch *watch, const struct mesh_instance **instance)
{
    enum mesh_change change;

    for (;;) {
        struct pollfd at = {.fd = mesh_watch_fd(watch), .events = POLLIN};
        enum mesh_status status;

        cr_assert_eq(poll(&at, 1, SOON), 1);
        status = mesh_watch_next(watch, 1, &change, instance);
        if (status == MESH_OK)
            return change;
        cr_assert_eq(status, MESH_TIMEOUT, "%s", mesh_error_text());
    }
}

Test(client_tls, a_watch_tells_everything_to_who_polls)
{
    const struct mesh_instance *instance;
    struct mesh_watch *watch;

    for (size_t step = 0; step < 30; step += 29) {
        start(tells, NULL);
        front.step = step;
        open_client();
        cr_assert_eq(mesh_watch_open(client, NULL, SOON, &watch), MESH_OK, "%s", mesh_error_text());
        for (unsigned i = 0; i < 500; i++)
            cr_assert_eq(next_change(watch, &instance), MESH_UP);
        cr_assert_eq(next_change(watch, &instance), MESH_SYNCED);
        sem_post(&told);
        cr_assert_eq(next_change(watch, &instance), MESH_UP);
        cr_expect_str_eq(instance->name, "web");
        cr_assert_eq(next_change(watch, &instance), MESH_SYNCED);
        front_cut(&front);
        cr_assert_eq(next_change(watch, &instance), MESH_AWAY);
        cr_assert_eq(next_change(watch, &instance), MESH_DOWN); /* the new picture has no web */
        sem_post(&told);
        mesh_watch_close(watch);
        stop();
    }
}

#define RECORD 16384u /* the longest; and the first buffer of follow */
#define AHEAD 200u    /* bytes that come before the record */

static uint8_t *pack(const struct fakewatch *watch, unsigned n, uint64_t revision, size_t *out_len)
{
    static struct fakewatch_event events[RECORD];
    const struct fakewatch_message message = {
        .epoch = 9, .revision = revision, .synced = true, .events = events, .n = n};

    for (unsigned i = 0; i < n; i++)
        events[i] = web;
    return fakewatch_pack(watch, &message, out_len);
}

/* The beginning of a long message; then in one record its end and a second one, of which follow's
 * buffer has room for a part only. */
static void overfills(struct fake *f, int fd)
{
    struct fakewatch watch;
    uint8_t *first = NULL, *second, record[RECORD];
    size_t len = 0, next_len, n = 0;

    if (!fakewatch_begin(&watch, f, fd))
        return;
    fakewatch_greet(&watch, 0, 0, "");
    second = pack(&watch, 3, 2, &next_len);
    while (len + next_len <= RECORD + AHEAD / 2) {
        free(first);
        first = pack(&watch, (unsigned)++n, 1, &len);
    }
    fake_send(fd, first, AHEAD);
    sem_wait(&told);
    memcpy(record, first + AHEAD, len - AHEAD);
    memcpy(record + len - AHEAD, second, next_len);
    fake_send(fd, record, len - AHEAD + next_len);
    free(first);
    free(second);
    fake_drain(fd);
}

/* Waits until the descriptor says that there is something to do, and does it once. */
static int follow_once(struct follow *follow, int ms, const Meshd__V1__WatchReply **reply)
{
    struct pollfd at = {.fd = follow_fd(follow), .events = POLLIN};

    cr_assert_eq(poll(&at, 1, ms), 1, "it says nothing");
    return follow_next(follow, 0, reply);
}

Test(client_tls, what_lies_decrypted_and_unread_is_something_to_do)
{
    struct follow_settings settings = {.url = front.url};
    const Meshd__V1__WatchReply *reply;
    struct follow_status status;
    struct follow *follow;

    start(overfills, NULL);
    cr_assert_eq(trust_open(front.url, &mine, &settings.trust), MESH_OK, "%s", mesh_error_text());
    cr_assert_eq(follow_new(&settings, &follow), 0);
    trust_unref(settings.trust);
    while (atomic_load(&front.sent) < PREAMBLE_HEAD + AHEAD)
        cr_assert_eq(follow_next(follow, clock_ms() + 5, &reply), -ETIMEDOUT);
    cr_assert_eq(follow_next(follow, 0, &reply), -ETIMEDOUT); /* has all that was sent */
    sem_post(&told);
    for (uint64_t revision = 1; revision <= 2; revision++) {
        int r;

        /* The second is there already; later, the time for the whole attempt would call, too. */
        while ((r = follow_once(follow, revision == 1 ? SOON : 2000, &reply)) == -ETIMEDOUT)
            ;
        cr_assert_eq(r, 0);
        cr_expect_eq(reply->revision, revision);
    }
    follow_status(follow, &status);
    cr_expect_eq(status.connects, 1);
    follow_free(follow);
    stop();
}

Test(client_tls, a_replica_follows_and_comes_back)
{
    const struct mesh_list *list;
    struct mesh_replica *replica;
    struct mesh_reader *reader;
    struct mesh_replica_state state;

    start(tells, NULL);
    cr_assert_eq(mesh_replica_open_tls(front.url, &mine, NULL, SOON, &replica), MESH_OK, "%s",
                 mesh_error_text());
    cr_assert_eq(mesh_reader_open(replica, &reader), MESH_OK);
    cr_assert_eq(mesh_replica_lookup(reader, "svc-499", &list), MESH_OK);
    sem_post(&told);
    while (mesh_replica_lookup(reader, "web", &list) != MESH_OK)
        poll(NULL, 0, 1);
    front_cut(&front);
    do {
        mesh_replica_state(replica, &state);
        poll(NULL, 0, 1);
    } while (state.reconnects == 0 || !state.current);
    cr_expect_eq(mesh_replica_lookup(reader, "svc-0", &list), MESH_OK);
    sem_post(&told);
    mesh_reader_close(reader);
    mesh_replica_close(replica);
    stop();
}

/* ---- settings ---- */

Test(client_tls, settings_come_from_the_environment)
{
    start(serve_answers, NULL);
    setenv("PEER_TLS_CA", mine.ca, 1);
    setenv("PEER_TLS_CERT", mine.cert, 1);
    setenv("PEER_TLS_KEY", mine.key, 1);
    setenv("MESHD_ADDR", front.url, 1);
    cr_assert_eq(mesh_client_open(NULL, SOON, &client), MESH_OK, "%s", mesh_error_text());
    expect_found("web");
    stop();
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
    start(serve_answers, NULL);
    setenv("PEER_TLS_KEY", "/not/this/one", 1);
    mine.cert = write_bytes("both.pem", bytes, len);
    mine.key = NULL;
    open_client();
    expect_found("web");
    stop();
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
    expect_found("web");
    mesh_client_close(client);
    fake_stop(&fake);
}

/* ---- who may talk to whom ---- */

Test(client_tls, a_node_that_is_expected_must_be_it)
{
    start(serve_answers, NULL);
    mine.node = "n1";
    open_client();
    expect_found("web");
    front_cut(&front);
    expect_found("web"); /* perhaps by a session that is resumed */
    mesh_client_close(client);
    mine.node = "n2";
    expect_failure(front.url, &mine, MESH_REFUSED, "names 'n1', not 'n2'");
    mine.node = "";
    open_client();
    stop();
}

Test(client_tls, a_node_of_another_ca_is_refused)
{
    struct mesh_replica *replica;

    start(serve_answers, issue_node(other_ca, "n1"));
    expect_failure(front.url, &mine, MESH_REFUSED, "its certificate is refused");
    cr_expect_eq(mesh_replica_open_tls(front.url, &mine, NULL, SOON, &replica), MESH_REFUSED);
    cr_expect(strstr(mesh_error_text(), "its certificate is refused"), "%s", mesh_error_text());
    cr_expect_eq(atomic_load(&front.let_in), 0);
    mine.insecure = 1;
    mine.ca = NULL;
    open_client();
    expect_found("web");
    stop();
}

/* Such a refusal comes with the first bytes that are read. */
Test(client_tls, who_is_of_another_ca_is_refused_by_the_node)
{
    struct mesh_replica *replica;

    start(serve_answers, NULL);
    files_of("stranger", ca, issue_node(other_ca, "program"));
    for (int i = 0; i < 20; i++)
        expect_failure(front.url, &mine, MESH_REFUSED, "refused this one's certificate");
    cr_expect_eq(mesh_replica_open_tls(front.url, &mine, NULL, SOON, &replica), MESH_REFUSED);
    cr_expect(strstr(mesh_error_text(), "refused this one's certificate"), "%s", mesh_error_text());
    cr_expect_eq(atomic_load(&front.let_in), 0);
    stop();
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
