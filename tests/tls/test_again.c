/* Lists of revoked certificates, chains, and sessions that are looked at again after a reload. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "tls/rig.h"

static struct issued *ca, *between, *n1, *n2;
static struct tls_settings s1, s2;
static struct tls_keeper *k1, *k2;

static void setup(void)
{
    ca = issue_ca(NULL, "ca");
    between = issue_ca(ca, "between");
    n1 = issue_node(ca, "n1");
    n2 = issue_node(between, "n2");
    s1 = node_settings("n1", ca, n1);
    s2 = node_settings("n2", ca, n2);
    k1 = keep(&s1);
    k2 = keep(&s2);
}

static void teardown(void)
{
    tls_keeper_free(k1);
    tls_keeper_free(k2);
}

TestSuite(tls_again, .init = setup, .fini = teardown);

static void reload(struct tls_keeper *keeper)
{
    char why[TLS_WHY] = "";

    cr_assert_eq(tls_keeper_reload(keeper, why), 0, "%s", why);
}

/* k1 with a list; what becomes of n2 who dials. */
static enum tls_failure with_list(const struct tls_settings *settings)
{
    struct pair pair;
    enum tls_failure failure;

    tls_keeper_free(k1);
    k1 = keep(settings);
    pair_open(&pair, k1, k2, "", false);
    pair_shake(&pair);
    failure = tls_failure(pair.accept.tls);
    cr_expect_eq(pair.accept.result, failure == TLS_OK ? 0 : -EACCES);
    pair_close(&pair);
    return failure;
}

static const char *lists(long until, const struct issued *revoked)
{
    write_crl("crl.pem", false, ca, until, NULL);
    return write_crl("crl.pem", true, between, until, revoked, NULL);
}

Test(tls_again, a_list_lets_in_whom_it_does_not_name)
{
    s1.crl = lists(DAY, NULL);
    cr_expect_eq(with_list(&s1), TLS_OK);
    s1.crl = lists(DAY, n1);
    cr_expect_eq(with_list(&s1), TLS_OK);
}

/* Else who steals a key would only have to wait for that. */
Test(tls_again, a_list_is_taken_although_the_own_certificate_has_ended)
{
    struct issued *own = issue(ca, &(struct wanted){.names = "DNS:n1", .from = -DAY, .until = 2});
    enum tls_failure failure = TLS_OK;
    struct tls_material material;
    char why[TLS_WHY] = "";
    struct tls_keeper *other;
    struct pair pair;

    s1 = node_settings("n1", ca, own);
    s1.crl = lists(DAY, NULL);
    tls_keeper_free(k1);
    k1 = keep(&s1);
    pair_up(&pair, k1, k2, "", false);
    tls_keeper_material(k1, &material);
    while (time(NULL) <= material.not_after)
        usleep(20000); /* what is waited for is the end */
    cr_expect_eq(tls_keeper_new(&s1, why, &other), -EINVAL, "nobody begins with it");
    lists(DAY, n2);
    reload(k1);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), -EACCES);
    cr_expect_eq(failure, TLS_REVOKED);
    node_settings("n1", ca,
                  issue(ca, &(struct wanted){.names = "DNS:n1", .from = -DAY, .until = -60}));
    cr_expect_eq(tls_keeper_reload(k1, why), -EINVAL, "nor goes on with another");
    pair_close(&pair);
}

Test(tls_again, a_revoked_one_is_refused)
{
    s1.crl = lists(DAY, n2);
    cr_expect_eq(with_list(&s1), TLS_REVOKED);
}

Test(tls_again, who_is_of_a_revoked_ca_is_refused)
{
    write_crl("crl.pem", false, ca, DAY, between, NULL);
    s1.crl = write_crl("crl.pem", true, between, DAY, NULL);
    cr_expect_eq(with_list(&s1), TLS_REVOKED);
}

Test(tls_again, a_list_past_its_time_lets_nobody_in)
{
    s1.crl = lists(-5, NULL);
    cr_expect_eq(with_list(&s1), TLS_EXPIRED);
}

Test(tls_again, a_ca_without_a_list_is_refused_when_there_are_lists)
{
    s1.crl = write_crl("crl.pem", false, ca, DAY, NULL);
    cr_expect_eq(with_list(&s1), TLS_UNTRUSTED);
}

Test(tls_again, a_list_that_another_signed_is_none)
{
    struct issued *other = issue_ca(NULL, "between");

    write_crl("crl.pem", false, ca, DAY, NULL);
    s1.crl = write_crl("crl.pem", true, other, DAY, NULL);
    cr_expect_eq(with_list(&s1), TLS_UNTRUSTED);
}

Test(tls_again, an_intermediate_ca_may_be_the_trusted_one)
{
    s1 = node_settings("n1", between, n1);
    cr_expect_eq(with_list(&s1), TLS_OK);
    s1.crl = write_crl("crl.pem", false, between, DAY, NULL);
    cr_expect_eq(with_list(&s1), TLS_OK);
    s1.crl = write_crl("crl.pem", false, between, DAY, n2, NULL);
    cr_expect_eq(with_list(&s1), TLS_REVOKED);
}

Test(tls_again, who_leaves_out_the_intermediate_one_is_refused)
{
    write_certs("n2.pem", n2, NULL);
    reload(k2);
    cr_expect_eq(with_list(&s1), TLS_UNTRUSTED);
}

Test(tls_again, a_session_goes_on_after_a_reload_and_is_looked_at_again)
{
    enum tls_failure failure = TLS_OK;
    struct pair pair;

    s1.crl = lists(DAY, NULL);
    tls_keeper_free(k1);
    k1 = keep(&s1);
    pair_up(&pair, k1, k2, "n1", false);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), 0);
    lists(DAY, n2);
    reload(k1);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), -EACCES);
    cr_expect_eq(failure, TLS_REVOKED);
    pair_talk(&pair);
    cr_expect_eq(tls_check_again(pair.dial.tls, &failure), 0);
    pair_close(&pair);
}

Test(tls_again, time_is_not_looked_at_again)
{
    enum tls_failure failure;
    struct pair pair;

    s1.crl = lists(DAY, NULL);
    tls_keeper_free(k1);
    k1 = keep(&s1);
    pair_up(&pair, k1, k2, "n1", false);
    lists(-5, NULL);
    reload(k1);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), 0);
    pair_close(&pair);
}

Test(tls_again, who_is_of_a_ca_that_is_trusted_no_more_is_told_apart)
{
    enum tls_failure failure = TLS_OK;
    struct pair pair;

    pair_up(&pair, k1, k2, "n1", false);
    node_settings("n1", issue_ca(NULL, "new"), n1);
    reload(k1);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), -EACCES);
    cr_expect_eq(failure, TLS_UNTRUSTED);
    pair_close(&pair);
}

Test(tls_again, a_ca_is_changed_while_sessions_go_on)
{
    struct issued *next = issue_ca(NULL, "ca"), *next_n2 = issue_node(next, "n2");
    enum tls_failure failure;
    struct pair old, fresh;

    pair_up(&old, k1, k2, "n1", false);
    write_certs("n1-ca.pem", ca, next, NULL); /* both are trusted for a while */
    reload(k1);
    node_settings("n2", ca, next_n2);
    reload(k2);
    pair_up(&fresh, k1, k2, "n1", false);
    cr_expect_eq(tls_check_again(old.accept.tls, &failure), 0);
    cr_expect_eq(tls_check_again(fresh.accept.tls, &failure), 0);
    write_certs("n1-ca.pem", next, NULL);
    reload(k1);
    cr_expect_eq(tls_check_again(old.accept.tls, &failure), -EACCES);
    cr_expect_eq(tls_check_again(fresh.accept.tls, &failure), 0);
    pair_talk(&old);
    pair_close(&old);
    pair_close(&fresh);
}

Test(tls_again, a_resumed_session_is_looked_at_though_it_brought_no_chain)
{
    enum tls_failure failure = TLS_OK;
    struct pair pair;
    char byte;

    for (int i = 0; i < 2; i++) {
        pair_up(&pair, k1, k2, "n1", true);
        cr_expect_eq(end_read(&pair.dial, &byte, 1), -EAGAIN);
        if (i == 0)
            pair_close(&pair);
    }
    cr_assert(tls_peer(pair.accept.tls)->resumed);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), 0);
    cr_expect_eq(tls_check_again(pair.dial.tls, &failure), 0);
    node_settings("n1", issue_ca(NULL, "new"), n1);
    reload(k1);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), -EACCES);
    cr_expect_eq(failure, TLS_UNTRUSTED);
    pair_close(&pair);
}

Test(tls_again, each_side_is_looked_at_for_its_own_role)
{
    enum tls_failure failure;
    struct pair pair;

    node_settings("n1", ca, issue(ca, &(struct wanted){.names = "DNS:n1", .usage = "serverAuth"}));
    reload(k1);
    node_settings("n2", ca, issue(ca, &(struct wanted){.names = "DNS:n2", .usage = "clientAuth"}));
    reload(k2);
    pair_up(&pair, k1, k2, "n1", false);
    cr_expect_eq(tls_check_again(pair.accept.tls, &failure), 0);
    cr_expect_eq(tls_check_again(pair.dial.tls, &failure), 0);
    pair_close(&pair);
}
