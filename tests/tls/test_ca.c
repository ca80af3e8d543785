/* The small CA: what its folder holds, and that sessions believe what it issues and revokes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tls/ca.h"
#include "tls/rig.h"

static char dir[96], why[TLS_WHY];
static struct ca *ca;

static void setup(void)
{
    snprintf(dir, sizeof(dir), "%s/ca", folder());
    cr_assert_eq(ca_init(dir, CA_DAYS, why), 0, "%s", why);
    cr_assert_eq(ca_open(dir, why, &ca), 0, "%s", why);
}

static void teardown(void) { ca_close(ca); }

TestSuite(tls_ca, .init = setup, .fini = teardown);

static const char *in_dir(const char *name)
{
    static char paths[8][256];
    static unsigned n;
    char *path = paths[n++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static struct ca_cert issued(const char *node, unsigned days)
{
    const char *names[] = {node};
    struct ca_cert cert;

    cr_assert_eq(ca_issue(ca, names, 1, days, why, &cert), 0, "%s", why);
    return cert;
}

static struct tls_keeper *keeper_of(const char *node, bool with_list)
{
    char cert[80], key[80];
    struct tls_settings settings = {.ca = in_dir("ca.pem"), .self = node};

    snprintf(cert, sizeof(cert), "%s.pem", node);
    snprintf(key, sizeof(key), "%s-key.pem", node);
    settings.cert = in_dir(cert);
    settings.key = in_dir(key);
    settings.crl = with_list ? in_dir("crl.pem") : NULL;
    return keep(&settings);
}

static void mode_is(const char *name, mode_t mode)
{
    struct stat st;

    cr_assert_eq(stat(in_dir(name), &st), 0, "%s", name);
    cr_expect_eq(st.st_mode & 07777, mode, "%s: %o", name, st.st_mode);
}

Test(tls_ca, everything_is_for_its_owner_only)
{
    mode_t before = umask(0);
    char name[64];
    struct ca_cert cert = issued("n1", 10);

    umask(before);
    snprintf(name, sizeof(name), "issued/%s.pem", cert.serial);
    mode_is(".", 0700);
    mode_is("issued", 0700);
    mode_is("ca.pem", 0600);
    mode_is("ca-key.pem", 0600);
    mode_is("crl.pem", 0600);
    mode_is("n1.pem", 0600);
    mode_is("n1-key.pem", 0600);
    mode_is(name, 0600);
    cr_expect_neq(access(in_dir(".new"), F_OK), 0);
}

Test(tls_ca, a_ca_is_never_replaced)
{
    struct ca_cert *before, *after;
    size_t n;

    cr_assert_eq(ca_list(ca, why, &before, &n), 0);
    ca_close(ca);
    ca = NULL;
    cr_expect_eq(ca_init(dir, 5, why), -EEXIST);
    cr_expect_not_null(strstr(why, "another folder"));
    cr_assert_eq(ca_open(dir, why, &ca), 0);
    cr_assert_eq(ca_list(ca, why, &after, &n), 0);
    cr_expect_str_eq(before->fingerprint, after->fingerprint);
    free(before);
    free(after);
}

Test(tls_ca, a_key_without_a_ca_is_never_replaced)
{
    ca_close(ca);
    ca = NULL;
    cr_assert_eq(unlink(in_dir("ca.pem")), 0);
    cr_expect_eq(ca_init(dir, 5, why), -EEXIST);
    cr_expect_not_null(strstr(why, "ca-key.pem"));
    cr_expect_eq(ca_open(dir, why, &ca), -ENOENT);
    cr_expect_not_null(strstr(why, "ca init"));
}

Test(tls_ca, nodes_that_it_made_trust_each_other)
{
    const char *names[] = {"n2", "shared", "other.name"};
    struct tls_keeper *k1, *k2;
    struct ca_cert cert;
    struct pair pair;

    issued("n1", 10);
    cr_assert_eq(ca_issue(ca, names, 3, 10, why, &cert), 0, "%s", why);
    cr_expect_str_eq(cert.names[2], "other.name");
    k1 = keeper_of("n1", true);
    k2 = keeper_of("n2", true);
    pair_up(&pair, k1, k2, "n1", true);
    cr_expect(tls_names(tls_peer(pair.accept.tls), "shared"));
    pair_talk(&pair);
    pair_close(&pair);
    tls_keeper_free(k1);
    tls_keeper_free(k2);
}

static enum tls_failure dial(struct tls_keeper *accepting, struct tls_keeper *dialling)
{
    enum tls_failure failure;
    struct pair pair;

    pair_open(&pair, accepting, dialling, "", false);
    pair_shake(&pair);
    failure = tls_failure(pair.accept.tls);
    pair_close(&pair);
    return failure;
}

Test(tls_ca, a_revoked_node_stays_out_and_its_next_certificate_gets_in)
{
    struct tls_keeper *k1, *old, *fresh;
    unsigned n = 9;

    issued("n1", 10);
    issued("n2", 10);
    issued("n2", 10);
    k1 = keeper_of("n1", true);
    old = keeper_of("n2", false);
    cr_expect_eq(dial(k1, old), TLS_OK);
    cr_assert_eq(ca_revoke(ca, "n2", NULL, why, &n), 0, "%s", why);
    cr_expect_eq(n, 2);
    cr_assert_eq(tls_keeper_reload(k1, why), 0);
    cr_expect_eq(dial(k1, old), TLS_REVOKED);
    issued("n2", 10);
    fresh = keeper_of("n2", false);
    cr_expect_eq(dial(k1, fresh), TLS_OK);
    cr_expect_eq(dial(k1, k1), TLS_OK);
    tls_keeper_free(k1);
    tls_keeper_free(old);
    tls_keeper_free(fresh);
}

Test(tls_ca, one_certificate_is_revoked_by_its_serial)
{
    struct ca_cert first = issued("n1", 10), second = issued("n1", 10), *all;
    unsigned n_new;
    size_t n;

    cr_expect_str_neq(first.serial, second.serial);
    cr_assert_eq(ca_revoke(ca, NULL, first.serial, why, &n_new), 0, "%s", why);
    cr_expect_eq(n_new, 1);
    cr_assert_eq(ca_revoke(ca, NULL, first.serial, why, &n_new), 0);
    cr_expect_eq(n_new, 0);
    cr_assert_eq(ca_list(ca, why, &all, &n), 0);
    cr_assert_eq(n, 3);
    cr_expect(all[0].is_ca);
    for (size_t i = 1; i < n; i++)
        cr_expect_eq(all[i].revoked_at != 0, strcmp(all[i].serial, first.serial) == 0);
    free(all);
}

Test(tls_ca, who_was_issued_nothing_cannot_be_revoked)
{
    unsigned n;

    cr_expect_eq(ca_revoke(ca, "n7", NULL, why, &n), -ENOENT);
    cr_expect_not_null(strstr(why, "n7"));
}

Test(tls_ca, a_certificate_never_outlives_its_ca)
{
    struct ca_cert *all, cert;
    size_t n;

    ca_close(ca);
    snprintf(dir, sizeof(dir), "%s/short", folder());
    cr_assert_eq(ca_init(dir, 10, why), 0);
    cr_assert_eq(ca_open(dir, why, &ca), 0);
    cert = issued("n1", 365);
    cr_assert_eq(ca_list(ca, why, &all, &n), 0);
    cr_expect_eq(cert.not_after, all[0].not_after);
    cr_expect_lt(issued("n1", 5).not_after, all[0].not_after);
    free(all);
}

Test(tls_ca, a_ca_that_has_ended_issues_nothing)
{
    const char *names[] = {"n1"};
    struct ca_cert cert;
    struct issued *old =
        issue(NULL, &(struct wanted){.cn = "ca", .is_ca = true, .from = -9, .until = -5});

    cr_assert_eq(rename(write_certs("old.pem", old, NULL), in_dir("ca.pem")), 0);
    cr_assert_eq(rename(write_key("old-key.pem", old), in_dir("ca-key.pem")), 0);
    ca_close(ca);
    cr_assert_eq(ca_open(dir, why, &ca), 0, "%s", why);
    cr_expect_eq(ca_issue(ca, names, 1, 5, why, &cert), -EKEYEXPIRED);
}

Test(tls_ca, names_that_are_no_peer_ids_or_other_files_are_refused)
{
    static const char *const bad[] = {"",    "ca",  "crl", "n1-key", ".", "..",
                                      "a/b", "a b", "a,b", "*",      "ä"};
    struct ca_cert cert;

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *first[] = {bad[i]};

        cr_expect_eq(ca_issue(ca, first, 1, 5, why, &cert), -EINVAL, "%s", bad[i]);
        cr_expect_neq(why[0], '\0');
    }
    cr_expect_eq(ca_issue(ca, (const char *[]){"n1", "a,b"}, 2, 5, why, &cert), -EINVAL);
    cr_expect_eq(ca_issue(ca, (const char *[]){"1", "2", "3", "4", "5", "6", "7", "8", "9"}, 9, 5,
                          why, &cert),
                 -EINVAL);
}

Test(tls_ca, what_a_crash_left_is_no_obstacle)
{
    FILE *left = fopen(in_dir(".new"), "w");

    cr_assert_not_null(left);
    fputs("half a ke", left);
    fclose(left);
    issued("n1", 5);
    cr_expect_neq(access(in_dir(".new"), F_OK), 0);
}

Test(tls_ca, another_s_key_signs_nothing)
{
    const char *names[] = {"n1"};
    struct ca_cert cert;

    cr_assert_eq(rename(write_key("other-key.pem", issue_ca(NULL, "x")), in_dir("ca-key.pem")), 0);
    cr_expect_eq(ca_issue(ca, names, 1, 5, why, &cert), -EBADMSG);
    cr_expect_neq(access(in_dir("n1.pem"), F_OK), 0);
}

Test(tls_ca, what_is_in_any_file_is_told)
{
    struct issued *root = issue_ca(NULL, "root"), *node = issue_node(root, "n1");
    struct ca_cert *certs;
    size_t n;

    cr_assert_eq(ca_look(write_certs("chain.pem", node, root, NULL), why, &certs, &n), 0);
    cr_assert_eq(n, 2);
    cr_expect_str_eq(certs[0].names[0], "n1");
    cr_expect_str_eq(certs[1].subject, "CN=root");
    cr_expect(certs[1].is_ca && !certs[0].is_ca);
    free(certs);
    cr_expect_eq(ca_look(write_bytes("none.pem", "x", 1), why, &certs, &n), -EBADMSG);
    cr_expect_eq(ca_look("/nowhere.pem", why, &certs, &n), -ENOENT);
}
