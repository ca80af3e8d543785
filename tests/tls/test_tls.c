/* Sessions: who is let in, what travels, how it ends. */
#include <criterion/criterion.h>
#include <errno.h>
#include <openssl/err.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/rig.h"

static struct issued *ca, *n1, *n2;
static struct tls_keeper *k1, *k2;

static void setup(void)
{
    struct tls_settings settings;

    ca = issue_ca(NULL, "ca");
    n1 = issue_node(ca, "n1");
    n2 = issue_node(ca, "n2");
    settings = node_settings("n1", ca, n1);
    k1 = keep(&settings);
    settings = node_settings("n2", ca, n2);
    k2 = keep(&settings);
}

static void teardown(void)
{
    tls_keeper_free(k1);
    tls_keeper_free(k2);
}

TestSuite(tls, .init = setup, .fini = teardown);

/* n2 with another certificate dials n1; how it went for n1. */
static struct end stranger(const struct issued *trusted, const struct issued *own,
                           char why[TLS_WHY], enum tls_failure *out_failure,
                           enum tls_failure *out_dialler)
{
    struct tls_settings settings = node_settings("stranger", trusted, own);
    struct tls_keeper *keeper;
    struct pair pair;
    struct end end;
    char byte;

    settings.self = NULL;
    keeper = keep(&settings);
    pair_open(&pair, k1, keeper, "", false);
    pair_shake(&pair);
    end = pair.accept;
    strcpy(why, tls_why(pair.accept.tls));
    *out_failure = tls_failure(pair.accept.tls);
    if (pair.dial.result == 0)
        tls_read(pair.dial.tls, &byte, 1);
    *out_dialler = tls_failure(pair.dial.tls);
    pair_close(&pair);
    tls_keeper_free(keeper);
    return end;
}

static void refused(const struct issued *own, enum tls_failure failure)
{
    char why[TLS_WHY];
    enum tls_failure how, dialler;
    struct end end = stranger(ca, own, why, &how, &dialler);

    cr_expect_eq(end.result, -EACCES, "%d", end.result);
    cr_expect_eq(how, failure, "%d: %s", how, why);
    cr_expect_eq(dialler, TLS_REFUSED, "%d", dialler);
    cr_expect_gt(strlen(why), 10);
}

Test(tls, two_nodes_of_one_ca_know_each_other_and_talk)
{
    struct pair pair;

    pair_up(&pair, k1, k2, "n1", false);
    cr_expect(tls_names(tls_peer(pair.accept.tls), "n2"));
    cr_expect(tls_names(tls_peer(pair.dial.tls), "n1"));
    cr_expect_not(tls_names(tls_peer(pair.dial.tls), "N1"));
    cr_expect_eq(strlen(tls_peer(pair.dial.tls)->fingerprint), 64);
    cr_expect_not(tls_peer(pair.dial.tls)->resumed);
    cr_expect_str_empty(tls_why(pair.dial.tls));
    pair_talk(&pair);
    pair_close(&pair);
}

Test(tls, who_is_of_another_ca_is_refused_and_told)
{
    struct issued *other = issue_ca(NULL, "ca");

    refused(issue_node(other, "n2"), TLS_UNTRUSTED);
    /* Nothing but the signature tells it from one of ours. */
    refused(issue(other, &(struct wanted){.names = "DNS:n2", .bare = true}), TLS_UNTRUSTED);
}

Test(tls, a_certificate_that_nobody_signed_is_refused)
{
    refused(issue(NULL, &(struct wanted){.cn = "n2", .names = "DNS:n2"}), TLS_UNTRUSTED);
}

Test(tls, a_server_s_certificate_does_not_dial)
{
    refused(issue(ca, &(struct wanted){.names = "DNS:n2", .usage = "serverAuth"}), TLS_UNTRUSTED);
}

/* A raw end with that certificate, against n1 in each role. */
static enum tls_failure in_role(enum tls_role role, const struct issued *own)
{
    enum tls_failure failure;
    struct raw raw;

    raw_open(&raw, k1, role, own, role == TLS_ACCEPT ? "\007meshd/1" : NULL);
    SSL_CTX_set_alpn_select_cb(raw.ctx, raw_alpn, NULL);
    raw_shake(&raw);
    failure = tls_failure(raw.ours.tls);
    cr_expect_eq(raw.ours.result, failure == TLS_OK ? 0 : -EACCES);
    raw_close(&raw);
    return failure;
}

Test(tls, the_time_of_a_certificate_is_looked_at_in_both_roles)
{
    struct issued *old = issue(ca, &(struct wanted){.names = "DNS:n2", .from = -9, .until = -5});
    struct issued *young =
        issue(ca, &(struct wanted){.names = "DNS:n2", .from = DAY, .until = 2 * DAY});

    for (int role = TLS_ACCEPT; role <= TLS_CONNECT; role++) {
        cr_expect_eq(in_role(role, old), TLS_EXPIRED);
        cr_expect_eq(in_role(role, young), TLS_EXPIRED);
        cr_expect_eq(in_role(role, n2), TLS_OK);
    }
}

Test(tls, a_usage_that_is_said_must_be_the_one_of_the_role)
{
    struct issued *server = issue(ca, &(struct wanted){.names = "DNS:n2", .usage = "serverAuth"});
    struct issued *client = issue(ca, &(struct wanted){.names = "DNS:n2", .usage = "clientAuth"});
    struct issued *mail =
        issue(ca, &(struct wanted){.names = "DNS:n2", .usage = "emailProtection"});
    struct issued *any = issue(ca, &(struct wanted){.names = "DNS:n2", .usage = ""});

    cr_expect_eq(in_role(TLS_ACCEPT, server), TLS_UNTRUSTED);
    cr_expect_eq(in_role(TLS_CONNECT, server), TLS_OK);
    cr_expect_eq(in_role(TLS_ACCEPT, client), TLS_OK);
    cr_expect_eq(in_role(TLS_CONNECT, client), TLS_UNTRUSTED);
    cr_expect_eq(in_role(TLS_ACCEPT, mail), TLS_UNTRUSTED);
    cr_expect_eq(in_role(TLS_CONNECT, mail), TLS_UNTRUSTED);
    cr_expect_eq(in_role(TLS_ACCEPT, any), TLS_OK);
    cr_expect_eq(in_role(TLS_CONNECT, any), TLS_OK);
}

Test(tls, a_node_that_acts_as_a_ca_is_refused)
{
    struct issued *other = issue_node(n2, "n3"); /* signed by n2, which is no CA */

    cr_expect_eq(in_role(TLS_ACCEPT, other), TLS_UNTRUSTED);
    cr_expect_eq(in_role(TLS_CONNECT, other), TLS_UNTRUSTED);
}

Test(tls, more_certificates_than_anybody_needs_are_not_read)
{
    struct raw raw;

    raw_open(&raw, k1, TLS_ACCEPT, n2, "\007meshd/1");
    for (size_t bytes = 0; bytes <= LIMIT_CERT_CHAIN; bytes += (size_t)i2d_X509(ca->cert, NULL))
        cr_assert(SSL_add1_chain_cert(raw.ssl, ca->cert));
    raw_shake(&raw);
    cr_expect_eq(raw.ours.result, -EPROTO);
    cr_expect_eq(tls_failure(raw.ours.tls), TLS_BROKEN);
    raw_close(&raw);
}

Test(tls, who_wants_no_verification_takes_anybody)
{
    struct issued *stranger_ca = issue_ca(NULL, "stranger");
    struct tls_settings settings = node_settings("me", ca, n2);
    enum tls_failure failure;
    struct tls_keeper *mine, *theirs;
    struct pair pair;

    settings.ca = NULL;
    settings.no_verify = true;
    mine = keep(&settings);
    settings = node_settings("other", ca, issue_node(stranger_ca, "x"));
    theirs = keep(&settings);
    pair_up(&pair, theirs, mine, "n1", true);
    cr_expect(tls_names(tls_peer(pair.dial.tls), "x"));
    cr_expect_eq(tls_check_again(pair.dial.tls, &failure), 0);
    pair_talk(&pair);
    pair_close(&pair);
    pair_up(&pair, theirs, mine, "n1", true);
    cr_expect_not(tls_peer(pair.dial.tls)->resumed);
    pair_close(&pair);
    tls_keeper_free(mine);
    tls_keeper_free(theirs);
}

Test(tls, who_answers_under_another_name_is_refused_and_told)
{
    struct pair pair;

    pair_open(&pair, k1, k2, "n3", false);
    pair_shake(&pair);
    cr_expect_eq(pair.dial.result, -EACCES);
    cr_expect_eq(tls_failure(pair.dial.tls), TLS_IDENTITY);
    cr_expect_str_eq(tls_why(pair.dial.tls), "its certificate names 'n1', not 'n3' as expected");
    cr_expect_eq(pair.accept.result, -EPROTO);
    cr_expect_eq(tls_failure(pair.accept.tls), TLS_REFUSED);
    pair_close(&pair);
}

Test(tls, who_shows_no_certificate_is_refused)
{
    struct raw raw;
    char byte;

    raw_open(&raw, k1, TLS_ACCEPT, NULL, "\007meshd/1");
    raw_shake(&raw);
    cr_expect_eq(raw.ours.result, -EACCES);
    cr_expect_eq(tls_failure(raw.ours.tls), TLS_NO_CERTIFICATE);
    cr_expect_leq(SSL_read(raw.ssl, &byte, 1), 0);
    cr_expect_eq(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED);
    raw_close(&raw);
}

Test(tls, who_asks_for_no_or_another_protocol_is_refused)
{
    static const char *const alpn[] = {NULL, "\002h2", "\007meshd/2"};
    struct raw raw;

    for (unsigned i = 0; i < 3; i++) {
        raw_open(&raw, k1, TLS_ACCEPT, n2, alpn[i]);
        raw_shake(&raw);
        cr_expect_eq(raw.ours.result, -EPROTO);
        cr_expect_eq(tls_failure(raw.ours.tls), TLS_BROKEN);
        cr_expect_not_null(strstr(tls_why(raw.ours.tls), "meshd/1"), "%s", tls_why(raw.ours.tls));
        raw_close(&raw);
    }
}

Test(tls, who_answers_without_agreeing_to_the_protocol_is_refused)
{
    struct raw raw;

    raw_open(&raw, k1, TLS_CONNECT, n2, NULL); /* it ignores what is asked for */
    raw_shake(&raw);
    cr_expect_eq(raw.ours.result, -EPROTO);
    cr_expect_not_null(strstr(tls_why(raw.ours.tls), "meshd/1"));
    raw_close(&raw);
}

Test(tls, tls_1_2_is_refused_in_both_roles)
{
    struct raw raw;

    for (int role = TLS_ACCEPT; role <= TLS_CONNECT; role++) {
        raw_open(&raw, k1, role, n2, "\007meshd/1");
        SSL_set_max_proto_version(raw.ssl, TLS1_2_VERSION);
        raw_shake(&raw);
        cr_expect_eq(raw.ours.result, -EPROTO);
        cr_expect_eq(tls_failure(raw.ours.tls), TLS_BROKEN);
        raw_close(&raw);
    }
}

Test(tls, plain_bytes_are_no_tls)
{
    static const char *const texts[] = {"GET / HTTP/1.1\r\nHost: n1\r\n\r\n", "\0SP\0\0\060\0\0",
                                        "MESHDATA........................"};
    static const size_t lens[] = {27, 8, 32};
    struct tls *tls;
    int fds[2];

    for (unsigned i = 0; i < 3; i++) {
        sockets(fds);
        cr_assert_eq(tls_new(k1, TLS_ACCEPT, fds[0], "", false, &tls), 0);
        cr_assert_eq(send(fds[1], texts[i], lens[i], 0), (ssize_t)lens[i]);
        cr_expect_eq(tls_handshake(tls), -EPROTO);
        cr_expect_eq(tls_failure(tls), TLS_BROKEN);
        cr_expect_str_eq(tls_why(tls), "what came is no TLS");
        tls_free(tls);
        close(fds[0]);
        close(fds[1]);
    }
}

Test(tls, each_side_may_end_first_and_still_read)
{
    struct pair pair;
    char got[8];

    for (int i = 0; i < 2; i++) {
        struct end *first, *second;

        pair_up(&pair, k1, k2, "n1", false);
        first = i == 0 ? &pair.accept : &pair.dial;
        second = i == 0 ? &pair.dial : &pair.accept;
        end_write(first, "last", 4);
        cr_assert_eq(tls_end(first->tls), 0);
        cr_assert_eq(tls_end(first->tls), 0);
        shutdown(first->fd, SHUT_WR);
        cr_expect_eq(end_read(second, got, sizeof(got)), 4);
        cr_expect_eq(end_read(second, got, sizeof(got)), 0);
        cr_expect_eq(end_read(second, got, sizeof(got)), 0);
        end_write(second, "answer", 6);
        cr_expect_eq(end_read(first, got, sizeof(got)), 6);
        cr_expect_eq(tls_end(second->tls), 0);
        cr_expect_eq(end_read(first, got, sizeof(got)), 0);
        cr_expect_str_empty(tls_why(first->tls));
        pair_close(&pair);
    }
}

Test(tls, a_fin_without_close_notify_is_a_cut)
{
    struct pair pair;
    char got[8];

    pair_up(&pair, k1, k2, "n1", false);
    end_write(&pair.dial, "last", 4);
    shutdown(pair.dial.fd, SHUT_WR);
    cr_expect_eq(end_read(&pair.accept, got, sizeof(got)), 4);
    cr_expect_eq(end_read(&pair.accept, got, sizeof(got)), -ECONNRESET);
    cr_expect_eq(end_read(&pair.accept, got, sizeof(got)), -ECONNRESET);
    cr_expect_eq(tls_write(pair.accept.tls, "x", 1), -ECONNRESET);
    cr_expect_eq(tls_end(pair.accept.tls), -ECONNRESET);
    pair_close(&pair);
}

Test(tls, writing_to_who_is_gone_raises_no_signal)
{
    struct pair pair;

    signal(SIGPIPE, SIG_DFL);
    pair_up(&pair, k1, k2, "n1", false);
    close(pair.accept.fd);
    pair.accept.fd = -1;
    cr_expect_eq(tls_write(pair.dial.tls, "x", 1), -EPIPE);
    pair_close(&pair);
}
