/* identity - who a certificate is: its DNS names that could be peer ids, byte for byte. The common
 * name is not looked at (RFC 9525 2), and neither are other kinds of names. */
#include "tls/inside.h"
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

bool identity_is_peer_id(const unsigned char *bytes, size_t len)
{
    if (len < 1 || len > LIMIT_PEER_ID)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = bytes[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

int64_t identity_seconds(const ASN1_TIME *time)
{
    struct tm tm;

    if (!time || ASN1_TIME_to_tm(time, &tm) != 1)
        return 0;
    return timegm(&tm);
}

void identity_text(const X509_NAME *name, char *out, size_t size)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int n;

    out[0] = '\0';
    if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
        n = BIO_read(bio, out, (int)size - 1);
        out[n > 0 ? n : 0] = '\0';
    }
    BIO_free(bio);
}

static void names_of(X509 *cert, struct tls_peer *peer)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    unsigned n = 0;

    for (int i = 0; i < sk_GENERAL_NAME_num(all) && n < LIMIT_CERT_NAMES; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        const unsigned char *bytes;
        int len;

        if (name->type != GEN_DNS)
            continue;
        bytes = ASN1_STRING_get0_data(name->d.dNSName);
        len = ASN1_STRING_length(name->d.dNSName);
        if (len < 0 || !identity_is_peer_id(bytes, (size_t)len))
            continue;
        memcpy(peer->names[n], bytes, (size_t)len);
        peer->names[n++][len] = '\0';
    }
    GENERAL_NAMES_free(all);
}

void identity_of(X509 *cert, struct tls_peer *out_peer)
{
    unsigned char digest[TLS_DIGEST] = {0};

    memset(out_peer->names, 0, sizeof(out_peer->names));
    names_of(cert, out_peer);
    X509_digest(cert, EVP_sha256(), digest, NULL);
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(out_peer->fingerprint + 2 * i, 3, "%02x", digest[i]);
    out_peer->not_after = identity_seconds(X509_get0_notAfter(cert));
}

bool tls_names(const struct tls_peer *peer, const char *peer_id)
{
    for (unsigned i = 0; i < LIMIT_CERT_NAMES && peer->names[i][0]; i++)
        if (strcmp(peer->names[i], peer_id) == 0)
            return true;
    return false;
}
