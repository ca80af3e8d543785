/* Keepers: which files are taken, what is said of those that are not, and reading them again. */
#include <criterion/criterion.h>
#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "tls/support.h"

static struct issued *ca, *n1;
static struct tls_settings good;

static void setup(void)
{
    ca = issue_ca(NULL, "ca");
    n1 = issue_node(ca, "n1");
    good = node_settings("n1", ca, n1);
    good.self = "n1";
}

TestSuite(tls_keeper, .init = setup);

static void refused(const struct tls_settings *settings, int error, const char *word)
{
    char why[TLS_WHY] = "";
    struct tls_keeper *keeper = NULL;

    cr_expect_eq(tls_keeper_new(settings, why, &keeper), error, "%s", why);
    cr_expect_null(keeper);
    cr_expect_not_null(strstr(why, word), "'%s' does not say '%s'", why, word);
}

Test(tls_keeper, good_files_are_described)
{
    struct tls_keeper *keeper = keep(&good);
    struct tls_material material;

    tls_keeper_material(keeper, &material);
    cr_expect_str_eq(material.subject, "CN=n1");
    cr_expect_str_eq(material.issuer, "CN=ca");
    cr_expect_str_eq(material.names[0], "n1");
    cr_expect_str_empty(material.names[1]);
    cr_expect_eq(material.n_cas, 1);
    cr_expect_eq(material.loads, 1);
    cr_expect_eq(material.not_after - material.not_before, 2 * DAY);
    cr_expect_not(material.key_exposed);
    tls_keeper_free(keeper);
}

Test(tls_keeper, a_missing_file_is_named)
{
    struct tls_settings s = good;

    s.key = "/nowhere/key.pem";
    refused(&s, -ENOENT, "/nowhere/key.pem");
}

Test(tls_keeper, the_key_must_fit_the_certificate)
{
    struct tls_settings s = good;

    s.key = write_key("other-key.pem", issue_node(ca, "n1"));
    refused(&s, -EINVAL, "is not the key of");
}

Test(tls_keeper, the_certificate_must_name_this_node)
{
    struct tls_settings s = good;

    s.self = "n2";
    refused(&s, -EINVAL, "'n2'");
    s.self = "N1";
    refused(&s, -EINVAL, "'N1'");
}

Test(tls_keeper, a_certificate_and_its_key_are_needed_and_a_ca_to_trust)
{
    struct tls_settings s = good;

    s.key = "";
    refused(&s, -EINVAL, "both");
    s = good;
    s.cert = NULL;
    refused(&s, -EINVAL, "both");
    s = good;
    s.ca = NULL;
    refused(&s, -EINVAL, "CA");
}

Test(tls_keeper, what_is_no_pem_is_named)
{
    static const char half[] = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    const char **files[] = {&good.ca, &good.cert, &good.key, &good.crl};

    for (unsigned i = 0; i < 4; i++) {
        const char *before = *files[i];

        *files[i] = write_bytes("text.pem", "hello", 5);
        refused(&good, -EBADMSG, "text.pem");
        *files[i] = write_bytes("empty.pem", "", 0);
        refused(&good, -EBADMSG, "empty.pem");
        *files[i] = "/dev/null";
        refused(&good, -EBADMSG, "no regular file");
        *files[i] = folder();
        refused(&good, -EBADMSG, "no regular file");
        *files[i] = before;
    }
    good.ca = write_bytes("half.pem", half, strlen(half));
    refused(&good, -EBADMSG, "half.pem");
}

static void check_each(const struct tls_settings *s, struct tls_keeper *in_force,
                       const char *const words[N_TLS_FILES])
{
    struct tls_fault faults[N_TLS_FILES];

    tls_files_check(s, in_force, faults);
    for (unsigned i = 0; i < N_TLS_FILES; i++) {
        cr_expect_eq(faults[i].error != 0, words[i] != NULL, "%u: %d", i, faults[i].error);
        cr_expect(!words[i] || strstr(faults[i].why, words[i]), "%u: %s", i, faults[i].why);
    }
}
#define CHECK_EACH(s, in_force, ...)                                                               \
    check_each(s, in_force, (const char *const[N_TLS_FILES]){__VA_ARGS__})

Test(tls_keeper, what_is_wrong_is_told_of_each_file)
{
    const struct wanted old = {.names = "DNS:n1", .from = -2 * DAY, .until = -DAY};
    struct issued *expired = issue(ca, &old);
    struct tls_settings s = good;

    CHECK_EACH(&s, NULL, NULL);
    s.crl = write_bytes("text.pem", "hello", 5);
    s.ca = "/nowhere/ca.pem";
    s.key = "/nowhere/key.pem";
    s.self = "n2";
    CHECK_EACH(&s, NULL, "/nowhere/ca.pem: No such file", "'n2'", "/nowhere/key.pem", "no CRL");
    s = node_settings("expired", ca, expired);
    s.key = good.key;
    CHECK_EACH(&s, NULL, [TLS_FILE_CERT] = "has expired", [TLS_FILE_KEY] = "is not the key of");
    s.cert = "/nowhere/n1.pem";
    CHECK_EACH(&s, NULL, [TLS_FILE_CERT] = "/nowhere/n1.pem");
    s = (struct tls_settings){.cert = good.cert};
    CHECK_EACH(&s, NULL, NULL);
}

Test(tls_keeper, a_file_that_never_ends_is_not_read)
{
    char *much = calloc(1, LIMIT_CERT_FILE + 1), fifo[128];

    cr_assert_not_null(much);
    memset(much, '\n', LIMIT_CERT_FILE + 1);
    good.ca = write_bytes("much.pem", much, LIMIT_CERT_FILE + 1);
    refused(&good, -EBADMSG, "much.pem is longer than");
    free(much);
    snprintf(fifo, sizeof(fifo), "%s/fifo", folder());
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    good.ca = fifo;
    refused(&good, -EBADMSG, "no regular file");
}

Test(tls_keeper, a_key_with_a_passphrase_asks_nobody)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/locked.pem", folder());
    file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert(PEM_write_PKCS8PrivateKey(file, n1->key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL));
    fclose(file);
    good.key = path;
    refused(&good, -EBADMSG, "passphrase");
}

Test(tls_keeper, a_key_that_others_may_read_is_noticed)
{
    struct tls_keeper *keeper;
    struct tls_material material;
    char why[TLS_WHY];

    cr_assert_eq(chmod(good.key, 0640), 0);
    keeper = keep(&good);
    tls_keeper_material(keeper, &material);
    cr_expect(material.key_exposed);
    cr_assert_eq(chmod(good.key, 0600), 0);
    cr_expect_eq(tls_keeper_reload(keeper, why), 1);
    tls_keeper_material(keeper, &material);
    cr_expect_not(material.key_exposed);
    tls_keeper_free(keeper);
}

Test(tls_keeper, a_node_s_certificate_serves_both_roles_and_a_program_s_need_not)
{
    struct tls_settings s;

    s = node_settings("n1", ca,
                      issue(ca, &(struct wanted){.names = "DNS:n1", .usage = "clientAuth"}));
    s.self = "n1";
    refused(&s, -EINVAL, "serverAuth");
    s.self = "";
    tls_keeper_free(keep(&s));
}

Test(tls_keeper, lists_are_counted)
{
    struct tls_keeper *keeper;
    struct tls_material material;
    struct issued *other = issue_ca(NULL, "other");

    good.crl = write_crl("crl.pem", false, ca, DAY, n1, NULL);
    write_crl("crl.pem", true, other, 3600, n1, other, NULL);
    keeper = keep(&good);
    tls_keeper_material(keeper, &material);
    cr_expect_eq(material.n_revoked, 3);
    cr_expect_leq(material.crl_next_update, time(NULL) + 3600);
    cr_expect_gt(material.crl_next_update, time(NULL) + 3000);
    tls_keeper_free(keeper);
}

Test(tls_keeper, an_expired_certificate_is_not_taken)
{
    struct tls_settings s = node_settings(
        "n1", ca, issue(ca, &(struct wanted){.names = "DNS:n1", .from = -9, .until = -5}));

    refused(&s, -EINVAL, "has expired");
}

Test(tls_keeper, reading_the_same_again_changes_nothing_and_other_files_count)
{
    struct tls_keeper *keeper = keep(&good);
    struct tls_material material;
    char why[TLS_WHY];

    cr_expect_eq(tls_keeper_reload(keeper, why), 1);
    node_settings("n1", ca, issue_node(ca, "n1"));
    cr_expect_eq(tls_keeper_reload(keeper, why), 0);
    cr_expect_eq(tls_keeper_reload(keeper, why), 1);
    write_bytes("n1.pem", "broken", 6);
    cr_expect_eq(tls_keeper_reload(keeper, why), -EBADMSG);
    tls_keeper_material(keeper, &material);
    cr_expect_eq(material.loads, 2);
    cr_expect_str_eq(material.subject, "CN=n1");
    tls_keeper_free(keeper);
}
