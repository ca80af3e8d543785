/* Keepers: which files are taken, what is said of those that are not, and reading them again. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
