/* Who a certificate is. */
#include <criterion/criterion.h>
#include <openssl/x509v3.h>
#include <string.h>
#include "tls/inside.h"
#include "tls/support.h"

static struct issued *ca;

static void setup(void) { ca = issue_ca(NULL, "ca"); }

TestSuite(tls_identity, .init = setup);

static struct tls_peer of(const char *names)
{
    struct tls_peer peer = {0};

    identity_of(issue(ca, &(struct wanted){.cn = "common", .names = names})->cert, &peer);
    return peer;
}

Test(tls_identity, dns_names_in_their_order_and_spelling)
{
    struct tls_peer peer = of("URI:n9,DNS:n2,IP:65.66.67.68,DNS:N1.example,email:a@b.c,DNS:x_y-z");

    cr_expect_str_eq(peer.names[0], "n2");
    cr_expect_str_eq(peer.names[1], "N1.example");
    cr_expect_str_eq(peer.names[2], "x_y-z");
    cr_expect_str_empty(peer.names[3]);
    cr_expect(tls_names(&peer, "N1.example"));
    cr_expect_not(tls_names(&peer, "n1.example"));
    cr_expect_not(tls_names(&peer, "n"));
    cr_expect_not(tls_names(&peer, ""));
}

Test(tls_identity, the_common_name_is_nobody)
{
    struct tls_peer peer = of(NULL);

    cr_expect_str_empty(peer.names[0]);
    cr_expect_not(tls_names(&peer, "common"));
    cr_expect_not(tls_names(&peer, ""));
}

Test(tls_identity, wildcards_and_what_is_no_peer_id_are_left_out)
{
    char names[256] = "DNS:*.mesh,DNS:n 1,DNS:n/1,DNS:ok,DNS:";

    memset(names + strlen(names), 'x', LIMIT_PEER_ID + 1);
    cr_expect_str_eq(of(names).names[0], "ok");
    cr_expect_str_empty(of(names).names[1]);
    names[strlen(names) - 1] = '\0';
    cr_expect_eq(strlen(of(names).names[1]), LIMIT_PEER_ID);
}

Test(tls_identity, at_most_eight_names_are_looked_at)
{
    struct tls_peer peer = of("DNS:a,DNS:b,DNS:c,DNS:d,DNS:e,DNS:f,DNS:g,DNS:h,DNS:i");

    cr_expect(tls_names(&peer, "h"));
    cr_expect_not(tls_names(&peer, "i"));
}

Test(tls_identity, a_nul_inside_a_name_hides_nothing)
{
    struct issued *plain = issue(ca, &(struct wanted){.names = "DNS:n1"});
    GENERAL_NAMES *all = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    struct tls_peer peer = {0};

    cr_assert(all && name && text);
    cr_assert(ASN1_STRING_set(text, "n2\0.evil", 8));
    GENERAL_NAME_set0_value(name, GEN_DNS, text);
    cr_assert(sk_GENERAL_NAME_push(all, name));
    cr_assert(X509_add1_ext_i2d(plain->cert, NID_subject_alt_name, all, 0, X509V3_ADD_REPLACE));
    GENERAL_NAMES_free(all);
    cr_assert(X509_sign(plain->cert, ca->key, EVP_sha256()));
    identity_of(plain->cert, &peer);
    cr_expect_str_empty(peer.names[0]);
}
