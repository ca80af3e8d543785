/* credentials: which changes of the files are seen, what is told of them, and that what will not do
 * changes nothing. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "daemon/credentials.h"
#include "tls/support.h"

static struct config config;
static struct issued *ca;
static char said[8192]; /* since it was asked last */
static int said_fd;

/* What is logged from now on goes to a file. */
static void listen_in(void)
{
    char path[] = "/tmp/meshd-now-XXXXXX";

    log_setup(&(struct log_settings){.level = LOG_INFO});
    said_fd = mkstemp(path);
    cr_assert(said_fd >= 0 && unlink(path) == 0 && dup2(said_fd, STDERR_FILENO) >= 0);
}

static const char *told(void)
{
    ssize_t n = pread(said_fd, said, sizeof(said) - 1, 0);

    cr_assert_geq(n, 0);
    said[n] = '\0';
    cr_assert(ftruncate(said_fd, 0) == 0 && lseek(said_fd, 0, SEEK_SET) == 0);
    return said;
}

static void use(const struct tls_settings *files)
{
    snprintf(config.peer_id, sizeof(config.peer_id), "n1");
    snprintf(config.tls_ca, sizeof(config.tls_ca), "%s", files->ca);
    snprintf(config.tls_cert, sizeof(config.tls_cert), "%s", files->cert);
    snprintf(config.tls_key, sizeof(config.tls_key), "%s", files->key);
    snprintf(config.tls_crl, sizeof(config.tls_crl), "%s", files->crl ? files->crl : "");
}

/* Long ago, so that it counts as settled. */
static void settle(void)
{
    const struct timespec times[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000}};
    const char *const paths[] = {config.tls_ca, config.tls_cert, config.tls_key, config.tls_crl};

    for (size_t i = 0; i < 4; i++)
        cr_assert(!paths[i][0] || utimensat(AT_FDCWD, paths[i], times, 0) == 0);
}

static struct tls_settings files_of(const char *peer_id)
{
    return node_settings("own", ca, issue_node(ca, peer_id));
}

static void begin(void)
{
    struct tls_settings files;

    ca = issue_ca(NULL, "CA");
    files = files_of("n1");
    use(&files);
    settle();
    listen_in();
}

TestSuite(credentials, .init = begin);

static struct credentials *start(void)
{
    struct credentials *now = NULL;

    cr_assert_eq(credentials_new(&config, &now), 0, "%s", told());
    cr_assert_not_null(credentials_keeper(now));
    return now;
}

static uint64_t loads(struct credentials *now)
{
    struct tls_material material;

    tls_keeper_material(credentials_keeper(now), &material);
    return material.loads;
}

Test(credentials, without_tls_there_is_nothing_to_look_at)
{
    static const struct config plain;
    struct credentials *now;

    cr_assert_eq(credentials_new(&plain, &now), 0);
    cr_expect_null(now);
    cr_expect_null(credentials_keeper(now));
    cr_expect_not(credentials_look(now, true));
    cr_expect(credentials_check(&plain, stdout, stderr));
    cr_expect_str_empty(told());
    credentials_free(now);
}

Test(credentials, the_start_tells_what_is_in_force)
{
    struct credentials *now = start();

    cr_expect(strstr(told(), "info [tls] TLS: certificate of n1, valid until ") == said, "%s",
              said);
    cr_expect(strstr(said, "; 1 CA is trusted; no CRL\n"), "%s", said);
    credentials_free(now);
}

Test(credentials, a_certificate_that_ends_within_two_weeks_is_warned_of)
{
    const struct wanted short_one = {.names = "DNS:n1", .from = -DAY, .until = 5 * DAY + 60};
    const struct tls_settings files = node_settings("own", ca, issue(ca, &short_one));
    struct credentials *now;

    use(&files);
    now = start();
    cr_expect(strstr(told(), "warn [tls] this node's certificate ends on "), "%s", said);
    cr_expect(strstr(said, ", in 5 days: put a new one (meshcat ca issue n1) in the place of "),
              "%s", said);
    credentials_look(now, false);
    cr_expect_str_empty(told(), "once a day is enough");
    credentials_look(now, true);
    cr_expect(strstr(told(), ", in 5 days: "), "who asks is told: %s", said);
    credentials_free(now);
}

Test(credentials, files_that_will_not_do_are_an_error_that_says_which)
{
    const struct tls_settings files = files_of("n2");
    struct credentials *now;
    char *err = NULL;
    size_t size;
    FILE *to;

    use(&files);
    cr_expect_lt(credentials_new(&config, &now), 0);
    cr_expect(strstr(told(), "error [tls] "), "%s", said);
    cr_expect(strstr(said, config.tls_cert) && strstr(said, "'n1'") && strstr(said, "'n2'"), "%s",
              said);
    to = open_memstream(&err, &size);
    cr_expect_not(credentials_check(&config, stdout, to));
    fclose(to);
    cr_expect(strstr(err, "'n1'") && strstr(err, "'n2'"), "%s", err);
    free(err);
}

Test(credentials, what_is_as_it_was_is_not_read_again)
{
    struct credentials *now = start();

    told();
    cr_expect_not(credentials_look(now, false));
    cr_expect_str_empty(told());
    cr_expect_not(credentials_look(now, true), "it is read, and is the same");
    cr_expect(strstr(told(), "read again: nothing is different"), "%s", said);
    cr_expect_eq(loads(now), 1u);
    credentials_free(now);
}

Test(credentials, a_renewed_certificate_is_seen)
{
    struct credentials *now = start();

    told();
    files_of("n1");
    cr_expect(credentials_look(now, false));
    cr_expect(strstr(told(), "read again; another certificate: certificate of n1"), "%s", said);
    cr_expect_eq(loads(now), 2u);
    cr_expect_not(credentials_look(now, false), "just written: looked at once more, and the same");
    cr_expect_str_empty(told());
    credentials_free(now);
}

/* As Kubernetes does it: files are links through a folder that is one itself, and is swapped. */
Test(credentials, a_folder_that_is_swapped_behind_links_is_seen)
{
    const char *const names[] = {"ca", "cert", "key"};
    char at[3][300], link[300], fresh[300];
    struct tls_settings files;
    struct credentials *now;

    snprintf(link, sizeof(link), "%s/..data", folder());
    snprintf(fresh, sizeof(fresh), "%s/..new", folder());
    for (int life = 1; life <= 2; life++) {
        char dir[300], name[40], to[340];

        snprintf(dir, sizeof(dir), "%s/life%d", folder(), life);
        cr_assert_eq(mkdir(dir, 0700), 0);
        snprintf(name, sizeof(name), "life%d/own", life);
        files = node_settings(name, ca, issue_node(ca, "n1"));
        for (int i = 0; i < 3; i++) { /* by names that are the same in each life */
            snprintf(to, sizeof(to), "%s/%s", dir, names[i]);
            cr_assert_eq(rename(i == 0 ? files.ca : i == 1 ? files.cert : files.key, to), 0);
        }
    }
    cr_assert_eq(symlink("life1", link), 0);
    for (int i = 0; i < 3; i++)
        snprintf(at[i], sizeof(at[i]), "%s/..data/%s", folder(), names[i]);
    use(&(struct tls_settings){.ca = at[0], .cert = at[1], .key = at[2]});
    settle();
    now = start();
    cr_expect_not(credentials_look(now, false));
    cr_assert(symlink("life2", fresh) == 0 && rename(fresh, link) == 0);
    cr_expect(credentials_look(now, false));
    cr_expect_eq(loads(now), 2u);
    credentials_free(now);
}

Test(credentials, a_broken_file_changes_nothing_and_is_told_once)
{
    struct credentials *now = start();

    told();
    write_bytes(strrchr(config.tls_cert, '/') + 1, "nothing\n", 8);
    settle();
    cr_expect_not(credentials_look(now, false));
    cr_expect(strstr(told(),
                     "error [tls] the files of TLS were not taken, and what was read before "
                     "stays in force: "),
              "%s", said);
    cr_expect(strstr(said, config.tls_cert), "%s", said);
    cr_expect_not(credentials_look(now, false));
    cr_expect_str_empty(told());
    cr_expect_eq(unlink(config.tls_cert), 0);
    cr_expect_not(credentials_look(now, false));
    cr_expect(strstr(told(), "No such file"), "%s", said);
    cr_expect_eq(loads(now), 1u);

    files_of("n1");
    cr_expect(credentials_look(now, false), "put right again");
    credentials_free(now);
}

/* The list is there, but just then there was no descriptor to read it with. */
Test(credentials, a_list_that_could_not_be_read_is_not_lost)
{
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = 4096}, some = {4096, 4096};
    struct issued *gone = issue_node(ca, "n2");
    struct credentials *now;

    snprintf(config.tls_crl, sizeof(config.tls_crl), "%s",
             write_crl("crl", false, ca, 100 * DAY, NULL));
    settle();
    now = start();
    told();
    write_crl("crl", false, ca, 100 * DAY, gone, NULL);
    settle();
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < 3; i++)
        cr_expect_not(credentials_look(now, false));
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &some), 0);
    cr_expect(strstr(told(), "Too many open files"), "%s", said);
    cr_expect_null(strstr(strstr(said, "Too many") + 1, "Too many"), "told once: %s", said);
    cr_expect(credentials_look(now, false));
    cr_expect(strstr(told(), "; CRL: 1 revoked"), "%s", said);
    credentials_free(now);
}

Test(credentials, a_list_of_revoked_ones_is_seen_and_counted)
{
    struct issued *gone = issue_node(ca, "n2");
    struct credentials *now;

    snprintf(config.tls_crl, sizeof(config.tls_crl), "%s",
             write_crl("crl", false, ca, 100 * DAY, NULL));
    settle();
    now = start();
    cr_expect(strstr(told(), "; CRL: 0 revoked, next update "), "%s", said);
    write_crl("crl", false, ca, 3 * DAY + 60, gone, NULL);
    cr_expect(credentials_look(now, false));
    cr_expect(strstr(told(), "read again; another CRL: "), "%s", said);
    cr_expect(strstr(said, "; CRL: 1 revoked, next update "), "%s", said);
    cr_expect(strstr(said, "warn [tls] the CRL is to be renewed by "), "%s", said);
    credentials_free(now);
}

Test(credentials, a_file_that_the_new_user_cannot_read_is_warned_of)
{
    struct credentials *now = start();

    told();
    credentials_confined(NULL);
    credentials_confined(now);
    cr_expect_str_empty(told());
    cr_expect_eq(unlink(config.tls_key), 0); /* root can read anything else */
    credentials_confined(now);
    cr_expect(strstr(told(), "warn [tls] "), "%s", said);
    cr_expect(strstr(said, config.tls_key), "%s", said);
    cr_expect(strstr(said, "for the user that this node is now: what changes in it will not"), "%s",
              said);
    credentials_free(now);
}
