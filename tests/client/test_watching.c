/* meshcat watch against a node that tells what a test wants told. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "client/fakewatch.h"
#include "client/run.h"
#include "wire/status.h"

static struct fake fake;
static struct run run;
static struct fakewatch asked; /* the request that came last; read after fake_stop */
static int connections;

static const struct fakewatch_event rows[] = {
    {FW_UP, "web", "local", "h:80", 0},
    {FW_UP, "db", "10.0.0.2", "h:5432", FW_CONNECTED},
};
static const struct fakewatch_event news[] = {
    {FW_CHANGED, "db", "10.0.0.2", "h:5433", FW_STALE},
    {FW_DOWN, "db", "10.0.0.2", "h:5433", FW_STALE},
};
static const struct fakewatch_message resync = {42, 0, true, false, rows, 2},
                                      synced = {42, 7, false, true, NULL, 0},
                                      beat = {42, 7, false, false, NULL, 0},
                                      changes = {42, 9, false, false, news, 2};

static bool begin(struct fake *f, int fd)
{
    if (!fakewatch_begin(&asked, f, fd))
        return false;
    fakewatch_greet(&asked, 0, 0, "");
    return true;
}

/* A picture, a sign of life, two changes; then it waits for meshcat to go. */
static void tells(struct fake *f, int fd)
{
    if (!begin(f, fd))
        return;
    fakewatch_tell(&asked, &resync);
    fakewatch_tell(&asked, &synced);
    fakewatch_tell(&asked, &beat);
    fakewatch_tell(&asked, &changes);
    fake_drain(fd);
}

static void setup(void) { alarm(60); }

TestSuite(watching, .init = setup);

/* "2026-11-25T21:21:12Z" at the beginning of every line but the first becomes "T". */
static const char *without_times(const char *text)
{
    static char out[8192];
    size_t n = 0;

    for (const char *line = text; *line && n + 400 < sizeof(out);) {
        size_t len = strcspn(line, "\n"), skip = 0;
        int y, mo, d, h, mi, s;

        if (sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2dZ", &y, &mo, &d, &h, &mi, &s) == 6) {
            out[n++] = 'T';
            skip = 20;
        }
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%.*s\n", (int)(len - skip), line + skip);
        line += len + (line[len] == '\n');
    }
    out[n] = '\0';
    return out;
}

Test(watching, every_change_is_a_line)
{
    fake_start(&fake, SP_TCP, tells, NULL);
    RUN(&run, "watch", "--dial", fake.url, "--count", "4");
    fake_stop(&fake);
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect_str_eq(without_times(run.out),
                     "TIME                  CHANGE   NAME                      SOURCE           "
                     "BACKEND            "
                     "    PEER ID       STATE\n"
                     "T  resync   42:0\n"
                     "T  up       web                       local            h:80                  "
                     " n0            "
                     "connected\n"
                     "T  up       db                        10.0.0.2         h:5432                "
                     " 10.0.0.2      "
                     "unhealthy\n"
                     "T  synced   42:7\n"
                     "T  changed  db                        10.0.0.2         h:5433                "
                     " 10.0.0.2      "
                     "stale\n"
                     "T  down     db                        10.0.0.2         h:5433                "
                     " 10.0.0.2      "
                     "-\n",
                     "%s", run.out);
    cr_expect(strstr(run.err, ": to go on from here: --from 42:9\n"), "%s", run.err);
    cr_expect_eq(asked.from_epoch, 0);
}

Test(watching, filters_and_the_place_reach_the_node)
{
    fake_start(&fake, SP_IPC, tells, NULL);
    RUN(&run, "watch", "we*", "--peer", "n2", "--from", "42:7", "--dial", fake.url, "-C1", "-q");
    fake_stop(&fake);
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect_str_eq(run.out, "");
    cr_expect_str_eq(run.err, "");
    cr_expect_str_eq(asked.name_glob, "we*");
    cr_expect_str_eq(asked.peer, "n2");
    cr_expect_eq(asked.from_epoch, 42);
    cr_expect_eq(asked.from_revision, 7);
}

#define DB_ROW(backend, connected, stale, healthy)                                                 \
    "\"row\":{\"key\":\"db@10.0.0.2\",\"name\":\"db\",\"ip\":\"10.0.0.2\",\"backend_addr\":"       \
    "\"" backend "\",\"connected\":" connected ",\"stale\":" stale ",\"last_seen\":0,"             \
    "\"peer_id\":\"10.0.0.2\",\"healthy\":" healthy ",\"draining\":false,\"link\":\"\"}}\n"

Test(watching, json_is_a_document_for_each_line)
{
    fake_start(&fake, SP_TCP, tells, NULL);
    for (int lined = 0; lined < 2; lined++) {
        RUN(&run, "watch", "--dial", fake.url, "-C4", "--format", lined ? "jsonl" : "json");
        cr_expect_eq(run.code, 0, "%s", run.err);
        cr_expect_str_eq(
            run.out,
            "{\"change\":\"resync\",\"epoch\":42,\"revision\":0}\n"
            "{\"change\":\"up\",\"epoch\":42,\"revision\":0,\"row\":{\"key\":\"web@local\","
            "\"name\":\"web\",\"ip\":\"local\",\"backend_addr\":\"h:80\",\"connected\":true,"
            "\"stale\":false,\"last_seen\":0,\"peer_id\":\"n0\",\"healthy\":true,"
            "\"draining\":false,\"link\":\"\"}}\n"
            "{\"change\":\"up\",\"epoch\":42,\"revision\":0," DB_ROW(
                "h:5432", "true", "false",
                "false") "{\"change\":\"synced\",\"epoch\":42,\"revision\":7}\n"
                         "{\"change\":\"changed\",\"epoch\":42,\"revision\":9," DB_ROW(
                             "h:5433", "false", "true",
                             "false") "{\"change\":\"down\",\"epoch\":42,\"revision\":9,\"why\":"
                                      "\"\"," DB_ROW("h:5433", "false", "true", "false"));
        cr_expect_str_eq(run.err, "");
    }
    fake_stop(&fake);
}

Test(watching, messages_are_shown_as_they_came_but_not_signs_of_life)
{
    fake_start(&fake, SP_TCP, tells, NULL);
    RUN(&run, "watch", "--dial", fake.url, "-C3", "--hex", "-q");
    cr_expect_str_eq(run.out, "");
    RUN(&run, "watch", "--dial", fake.url, "-C3", "--format", "text");
    cr_expect(strstr(run.out, "\n\nepoch: 42\nrevision: 7\nsynced: true\n\nepoch: 42\nrevision: 9\n"
                              "events {\n  kind: WATCH_KIND_CHANGED\n"),
              "%s", run.out);
    RUN(&run, "watch", "--dial", fake.url, "-C3", "-Q");
    cr_expect(strstr(run.out, "\n\"\\x08*\\x10\\x07 \\x01\"\n"), "%s", run.out);
    fake_stop(&fake);
}

/* Breaks off after the picture; goes on where the first connection ended. */
static void breaks(struct fake *f, int fd)
{
    if (!begin(f, fd))
        return;
    if (connections++ == 0) {
        fakewatch_tell(&asked, &resync);
        fakewatch_tell(&asked, &synced);
        return;
    }
    fakewatch_tell(&asked, &synced);
    fakewatch_tell(&asked, &changes);
    fake_drain(fd);
}

Test(watching, a_lost_connection_is_told_and_made_again)
{
    fake_start(&fake, SP_TCP, breaks, NULL);
    RUN(&run, "watch", "--dial", fake.url, "-C4", "-v");
    fake_stop(&fake);
    cr_expect_eq(run.code, 0, "%s", run.err);
    cr_expect(strstr(run.err, "the connection is lost ("), "%s", run.err);
    cr_expect(strstr(run.err, "connected again\n"), "%s", run.err);
    cr_expect_eq(asked.from_epoch, 42);
    cr_expect_eq(asked.from_revision, 7);
    cr_expect(strstr(run.out, "  down     db"), "%s", run.out);

    connections = 0;
    fake_start(&fake, SP_TCP, breaks, NULL);
    RUN(&run, "watch", "--dial", fake.url, "-C4", "--format", "jsonl");
    fake_stop(&fake);
    cr_expect_eq(run.code, 0);
    cr_expect(strstr(run.out, "\n{\"change\":\"away\",\"why\":\""), "%s", run.out);
    cr_expect_str_eq(run.err, "");
}

/* ---- before the first answer, it fails as any other command ---- */

static void greets_only(struct fake *f, int fd)
{
    if (begin(f, fd))
        fake_drain(fd);
}

static void closes(struct fake *f, int fd) {}

static void is_http(struct fake *f, int fd)
{
    fake_send(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    fake_drain(fd);
}

static void is_denied(struct fake *f, int fd)
{
    if (begin(f, fd))
        fakewatch_refuse(&asked, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_POLICY, "no");
    fake_drain(fd);
}

static void speaks_another_version(struct fake *f, int fd)
{
    if (begin(f, fd))
        fakewatch_refuse(&asked, STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION,
                         "v");
    fake_drain(fd);
}

static void is_full(struct fake *f, int fd)
{
    if (fakewatch_begin(&asked, f, fd))
        fakewatch_greet(&asked, STATUS_RESOURCE_EXHAUSTED, MESHD__V1__REASON__REASON_LIMIT,
                        "too many watchers");
    fake_drain(fd);
}

Test(watching, the_first_answer_fails_with_the_exit_codes_of_the_other_commands)
{
    static const struct {
        void (*serve)(struct fake *f, int fd);
        int code;
        const char *part;
    } cases[] = {
        {greets_only, 4, "gave no whole answer within 0.300 s"},
        {closes, 3, "cannot connect to"},
        {is_http, 5, "is not a meshd"},
        {is_denied, 6, "answers PERMISSION_DENIED: no;"},
        {speaks_another_version, 5, "speaks wire versions 1 to 1"},
        {is_full, 72, "answers RESOURCE_EXHAUSTED: too many watchers"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fake_start(&fake, SP_TCP, cases[i].serve, NULL);
        RUN(&run, "watch", "--dial", fake.url, "--timeout", "0.3");
        fake_stop(&fake);
        cr_expect_eq(run.code, cases[i].code, "%s: %d: %s", cases[i].part, run.code, run.err);
        cr_expect(strstr(run.err, cases[i].part), "%s", run.err);
    }
    RUN(&run, "watch", "--dial", fake.url, "--format", "json");
    cr_expect_eq(run.code, 3);
    cr_expect(strstr(run.err, "\"code\":\"CANNOT_CONNECT\""), "%s", run.err);
    RUN(&run, "watch", "--dial", "tls://x:1");
    cr_expect_eq(run.code, 2);
}

Test(watching, a_reader_that_leaves_ends_it_and_is_no_error)
{
    fake_start(&fake, SP_TCP, tells, NULL);
    run_meshcat(&run, (const char *const[]){"watch", "--dial", fake.url, NULL}, NULL,
                STDOUT_BROKEN);
    fake_stop(&fake);
    cr_expect_eq(run.code, 0, "%d: %s", run.code, run.err);
}
