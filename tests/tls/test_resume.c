/* Resuming: when it happens, and all the cases in which it must not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "tls/inside.h"
#include "tls/rig.h"

static struct issued *ca, *n1, *n2;
static struct tls_settings s1, s2;
static struct tls_keeper *k1, *k2;

static void setup(void)
{
    ca = issue_ca(NULL, "ca");
    n1 = issue_node(ca, "n1");
    n2 = issue_node(ca, "n2");
    s1 = node_settings("n1", ca, n1);
    s1.crl = write_crl("crl.pem", false, ca, DAY, NULL);
    s2 = node_settings("n2", ca, n2);
    k1 = keep(&s1);
    k2 = keep(&s2);
}

static void teardown(void)
{
    tls_keeper_free(k1);
    tls_keeper_free(k2);
}

TestSuite(tls_resume, .init = setup, .fini = teardown);

/* n2 dials n1, is heard, and reads until nothing comes: the ticket too. */
static bool dial(const char *expect, bool resume)
{
    struct pair pair;
    char byte;
    bool resumed;

    pair_up(&pair, k1, k2, expect, resume);
    resumed = tls_peer(pair.dial.tls)->resumed;
    cr_expect_eq(tls_peer(pair.accept.tls)->resumed, resumed);
    cr_expect(tls_names(tls_peer(pair.accept.tls), "n2"));
    cr_expect(tls_names(tls_peer(pair.dial.tls), "n1"));
    pair_talk(&pair);
    cr_expect_eq(end_read(&pair.dial, &byte, 1), -EAGAIN);
    pair_close(&pair);
    return resumed;
}

Test(tls_resume, the_second_time_and_every_later_one)
{
    cr_expect_not(dial("n1", true));
    for (int i = 0; i < 5; i++)
        cr_expect(dial("n1", true));
}

Test(tls_resume, only_when_asked_for_and_somebody_is_expected)
{
    cr_expect_not(dial("n1", false));
    cr_expect_not(dial("n1", true));
    cr_expect_not(dial("n1", false));
    cr_expect_not(dial("", true));
    cr_expect_not(dial("", true));
    cr_expect(dial("n1", true));
}

Test(tls_resume, two_sessions_at_once_from_one_ticket)
{
    struct pair a, b;

    dial("n1", true);
    pair_open(&a, k1, k2, "n1", true);
    pair_open(&b, k1, k2, "n1", true);
    pair_shake(&b);
    pair_shake(&a);
    cr_expect(tls_peer(a.accept.tls)->resumed);
    cr_expect(tls_peer(b.accept.tls)->resumed);
    pair_talk(&a);
    pair_talk(&b);
    pair_close(&a);
    pair_close(&b);
}

Test(tls_resume, not_after_either_side_read_other_files)
{
    char why[TLS_WHY];

    dial("n1", true);
    cr_assert(dial("n1", true));
    node_settings("n1", ca, issue_node(ca, "n1"));
    cr_assert_eq(tls_keeper_reload(k1, why), 0);
    cr_expect_not(dial("n1", true));
    cr_expect(dial("n1", true));
    node_settings("n2", ca, issue_node(ca, "n2"));
    cr_assert_eq(tls_keeper_reload(k2, why), 0);
    cr_expect_not(dial("n1", true));
    cr_expect(dial("n1", true));
    cr_assert_eq(tls_keeper_reload(k1, why), 1);
    cr_expect(dial("n1", true));
}

Test(tls_resume, a_revoked_one_does_not_come_back_by_its_ticket)
{
    struct pair pair;
    char why[TLS_WHY];

    dial("n1", true);
    cr_assert(dial("n1", true));
    write_crl("crl.pem", false, ca, DAY, n2, NULL);
    cr_assert_eq(tls_keeper_reload(k1, why), 0);
    pair_open(&pair, k1, k2, "n1", true);
    pair_shake(&pair);
    cr_expect_eq(pair.accept.result, -EACCES);
    cr_expect_eq(tls_failure(pair.accept.tls), TLS_REVOKED);
    pair_close(&pair);
}

/* A raw dialler's ticket; how long it is good for by the word of who gave it. */
static SSL_SESSION *last_ticket;
static unsigned n_tickets;
static int take_ticket(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION_free(last_ticket);
    last_ticket = SSL_SESSION_dup(session); /* its own is used up when it is cut off */
    n_tickets++;
    return 0;
}

static void raw_dial(struct raw *raw, SSL_SESSION *with)
{
    char byte;

    raw_open(raw, k1, TLS_ACCEPT, n2, "\007meshd/1");
    SSL_CTX_set_session_cache_mode(raw->ctx, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(raw->ctx, take_ticket);
    if (with)
        SSL_set_session(raw->ssl, with);
    cr_assert_eq(raw_shake(raw), 1);
    cr_assert_eq(raw->ours.result, 0, "%s", tls_why(raw->ours.tls));
    SSL_read(raw->ssl, &byte, 1);
}

Test(tls_resume, a_resumed_session_is_given_no_ticket)
{
    SSL_SESSION *first;
    struct raw raw;

    raw_dial(&raw, NULL);
    raw_close(&raw);
    cr_assert_eq(n_tickets, 1);
    cr_expect_eq(SSL_SESSION_get_ticket_lifetime_hint(last_ticket), 3600);
    cr_expect_eq(SSL_SESSION_get_max_early_data(last_ticket), 0);
    first = SSL_SESSION_dup(last_ticket);
    raw_dial(&raw, first);
    cr_expect(tls_peer(raw.ours.tls)->resumed);
    raw_close(&raw);
    cr_expect_eq(n_tickets, 1);
    SSL_SESSION_free(first);
    SSL_SESSION_free(last_ticket);
}

/* The hint of a ticket for n2, whose certificate or whose list ends so soon. */
static unsigned long hint(long cert_until, long crl_until)
{
    unsigned long seconds;
    struct tls_settings s;
    struct raw raw;

    tls_keeper_free(k1);
    n2 = issue(ca, &(struct wanted){.names = "DNS:n2", .from = -DAY, .until = cert_until});
    s = node_settings("n1", ca, n1);
    s.crl = write_crl("crl.pem", false, ca, crl_until, NULL);
    k1 = keep(&s);
    raw_dial(&raw, NULL);
    raw_close(&raw);
    seconds = SSL_SESSION_get_ticket_lifetime_hint(last_ticket);
    SSL_SESSION_free(last_ticket);
    last_ticket = NULL;
    return seconds;
}

Test(tls_resume, a_ticket_ends_with_the_certificate_and_with_the_list)
{
    unsigned long seconds = hint(600, DAY);

    cr_expect(seconds > 500 && seconds <= 600, "%lu", seconds);
    seconds = hint(DAY, 300);
    cr_expect(seconds > 200 && seconds <= 300, "%lu", seconds);
}

Test(tls_resume, early_data_is_refused)
{
    SSL_SESSION *session;
    struct raw raw;
    size_t n;
    char byte;

    raw_dial(&raw, NULL);
    raw_close(&raw);
    session = SSL_SESSION_dup(last_ticket);
    SSL_SESSION_set_max_early_data(session, 16384);
    raw_open(&raw, k1, TLS_ACCEPT, n2, "\007meshd/1");
    SSL_set_session(raw.ssl, session);
    cr_assert_eq(SSL_write_early_data(raw.ssl, "early", 5, &n), 1);
    raw_shake(&raw);
    cr_expect_eq(raw.ours.result, -EPROTO);
    cr_expect_neq(SSL_get_early_data_status(raw.ssl), SSL_EARLY_DATA_ACCEPTED);
    cr_expect_lt(tls_read(raw.ours.tls, &byte, 1), 0);
    raw_close(&raw);
    SSL_SESSION_free(session);
    SSL_SESSION_free(last_ticket);
}

Test(tls_resume, each_peer_has_a_session_of_its_own)
{
    struct tls_settings s;
    struct pair pair;
    char byte;

    /* One certificate with eight names stands for eight of them. */
    tls_keeper_free(k1);
    n1 = issue(ca, &(struct wanted){.names = "DNS:a0,DNS:a1,DNS:a2,DNS:a3,DNS:a4,DNS:a5,DNS:a6,"
                                             "DNS:a7"});
    s = node_settings("n1", ca, n1);
    k1 = keep(&s);
    for (int round = 0; round < 2; round++)
        for (int i = 7; i >= 0; i--) {
            char id[] = "a?";

            id[1] = (char)('0' + i);
            pair_up(&pair, k1, k2, id, true);
            cr_expect_eq(tls_peer(pair.dial.tls)->resumed, round == 1);
            cr_expect_eq(end_read(&pair.dial, &byte, 1), -EAGAIN);
            pair_close(&pair);
        }
}

Test(tls_resume, whom_an_accepting_side_expects_holds_for_resumed_ones_too)
{
    struct pair pair;
    int fds[2];

    dial("n1", true);
    cr_assert(dial("n1", true));
    for (int i = 0; i < 2; i++) {
        pair_open(&pair, k1, k2, "n1", true);
        tls_free(pair.accept.tls);
        cr_assert_eq(
            tls_new(k1, TLS_ACCEPT, pair.accept.fd, i == 0 ? "n3" : "n2", true, &pair.accept.tls),
            0);
        pair_shake(&pair);
        cr_expect_eq(pair.accept.result, i == 0 ? -EACCES : 0);
        cr_expect_eq(tls_failure(pair.accept.tls), i == 0 ? TLS_IDENTITY : TLS_OK);
        cr_expect(tls_peer(pair.accept.tls)->resumed);
        pair_close(&pair);
    }
    sockets(fds); /* and for whole handshakes */
    pair = (struct pair){.accept = {fds[0], NULL, -EAGAIN}, .dial = {fds[1], NULL, -EAGAIN}};
    cr_assert_eq(tls_new(k1, TLS_ACCEPT, fds[0], "n3", false, &pair.accept.tls), 0);
    cr_assert_eq(tls_new(k2, TLS_CONNECT, fds[1], "n1", false, &pair.dial.tls), 0);
    pair_shake(&pair);
    cr_expect_eq(tls_failure(pair.accept.tls), TLS_IDENTITY);
    pair_close(&pair);
}

Test(tls_resume, a_certificate_that_has_ended_does_not_come_back_by_its_ticket)
{
    time_t end = time(NULL) + 2;
    struct pair pair;

    n2 = issue(ca, &(struct wanted){.names = "DNS:n2", .from = -DAY, .until = 2});
    s2 = node_settings("n2", ca, n2);
    tls_keeper_free(k2);
    k2 = keep(&s2);
    dial("n1", true);
    while (time(NULL) <= end + 1)
        usleep(20000); /* what is waited for is the end */
    pair_open(&pair, k1, k2, "n1", true);
    pair_shake(&pair);
    cr_expect_eq(tls_failure(pair.accept.tls), TLS_EXPIRED, "%s", tls_why(pair.accept.tls));
    pair_close(&pair);
}

Test(tls_resume, at_most_so_many_peers_are_remembered)
{
    struct tickets tickets;
    SSL_SESSION *session = SSL_SESSION_new(), *got;
    char id[16];

    cr_assert_not_null(session);
    tickets_init(&tickets);
    for (unsigned i = 0; i < LIMIT_TLS_TICKETS + 100; i++) {
        snprintf(id, sizeof(id), "n%u", i * 7919 % (LIMIT_TLS_TICKETS + 100));
        tickets_put(&tickets, id, session);
    }
    cr_expect_eq(tickets.n, LIMIT_TLS_TICKETS);
    for (unsigned i = 1; i < tickets.n; i++)
        cr_assert_lt(strcmp(tickets.rows[i - 1].peer_id, tickets.rows[i].peer_id), 0);
    /* What is over makes room. */
    for (unsigned i = 0; i < 10; i++)
        SSL_SESSION_set_time(tickets.rows[i].session, 1);
    cr_expect_null(tickets_copy(&tickets, tickets.rows[0].peer_id));
    tickets_put(&tickets, "fresh", session);
    cr_expect_eq(tickets.n, LIMIT_TLS_TICKETS - 9);
    got = tickets_copy(&tickets, "fresh");
    cr_expect_not_null(got);
    SSL_SESSION_free(got);
    SSL_SESSION_free(session);
    tickets_fini(&tickets);
}
