/* ca_list - what was issued, and what of it was revoked. */
#include "tls/ca_inside.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "tls/inside.h"

static void free_key(EVP_PKEY **key) { EVP_PKEY_free(*key); }
static void free_crl(X509_CRL **crl) { X509_CRL_free(*crl); }
static void free_time(ASN1_TIME **time) { ASN1_TIME_free(*time); }

/* ---- the list of revoked ones ---- */

/* The number of a list is one more than that of the one before. */
static bool set_number(X509_CRL *crl)
{
    ASN1_INTEGER *before = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
    BIGNUM *number = before ? ASN1_INTEGER_to_BN(before, NULL) : BN_new();
    ASN1_INTEGER *next = number && BN_add_word(number, 1) ? BN_to_ASN1_INTEGER(number, NULL) : NULL;
    bool ok = next && X509_CRL_add1_ext_i2d(crl, NID_crl_number, next, 0, X509V3_ADD_REPLACE) == 1;

    ASN1_INTEGER_free(before);
    ASN1_INTEGER_free(next);
    BN_free(number);
    return ok;
}

static bool set_issuer(X509_CRL *crl, X509 *issuer)
{
    X509V3_CTX ctx;
    X509_EXTENSION *extension;
    bool ok;

    X509V3_set_ctx(&ctx, issuer, NULL, NULL, crl, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid");
    ok = extension && X509_CRL_add_ext(crl, extension, -1);
    X509_EXTENSION_free(extension);
    return ok && X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer));
}

static int sign_crl(const struct ca *ca, X509_CRL *crl, EVP_PKEY *key, char out_why[TLS_WHY])
{
    CLEANUP(free_time)
    ASN1_TIME *now = ASN1_TIME_set(NULL, (time_t)(clock_wall_us() / 1000000u) - CA_SLACK);
    bool ok = now && X509_CRL_set1_lastUpdate(crl, now) &&
              X509_CRL_set1_nextUpdate(crl, X509_get0_notAfter(ca->cert)) && set_number(crl) &&
              X509_CRL_sort(crl) && X509_CRL_sign(crl, key, EVP_sha256()) > 0;

    ERR_clear_error();
    return ok ? ca_write(ca, "crl.pem", ca_write_crl, crl, out_why)
              : pem_fail(out_why, -ENOMEM, "no memory");
}

int ca_first_crl(const struct ca *ca, EVP_PKEY *key, char out_why[TLS_WHY])
{
    CLEANUP(free_crl) X509_CRL *crl = X509_CRL_new();

    if (!crl || !X509_CRL_set_version(crl, X509_CRL_VERSION_2) || !set_issuer(crl, ca->cert))
        return pem_fail(out_why, -ENOMEM, "no memory");
    return sign_crl(ca, crl, key, out_why);
}

static bool add_revoked(X509_CRL *crl, X509 *cert)
{
    CLEANUP(free_time) ASN1_TIME *now = ASN1_TIME_set(NULL, (time_t)(clock_wall_us() / 1000000u));
    X509_REVOKED *row = X509_REVOKED_new();

    if (now && row && X509_REVOKED_set_serialNumber(row, X509_get_serialNumber(cert)) &&
        X509_REVOKED_set_revocationDate(row, now) && X509_CRL_add0_revoked(crl, row))
        return true;
    X509_REVOKED_free(row);
    return false;
}

/* ---- what was issued ---- */

/* Each certificate on record, until visit says otherwise than 0. */
static int each_issued(const struct ca *ca, int (*visit)(void *ctx, X509 *cert), void *ctx,
                       char out_why[TLS_WHY])
{
    int fd = openat(ca->fd, "issued", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    char name[512];

    if (!dir) {
        r = -errno;
        if (fd >= 0)
            close(fd);
        return pem_fail(out_why, r, "%s/issued: %s", ca->dir, strerror(-r));
    }
    while (r == 0 && (entry = readdir(dir))) {
        const char *end = strrchr(entry->d_name, '.');
        X509 *cert;

        if (entry->d_name[0] == '.' || !end || strcmp(end, ".pem") != 0)
            continue;
        snprintf(name, sizeof(name), "issued/%s", entry->d_name);
        cert = ca_read_cert(ca->dir, name, &r, out_why);
        if (cert)
            r = visit(ctx, cert);
        if (r == -ENOMEM)
            pem_fail(out_why, r, "no memory");
        X509_free(cert);
    }
    closedir(dir);
    return r;
}

struct revoking {
    X509_CRL *crl;
    const char *node, *serial;
    unsigned n_found, n_added;
};

static int revoke_one(void *ctx, X509 *cert)
{
    struct revoking *revoking = ctx;
    X509_REVOKED *already;
    struct ca_cert what;

    if (ca_describe(cert, NULL, &what) < 0)
        return -ENOMEM;
    /* The first name is who it was issued for; the others may be shared. */
    if (revoking->serial ? strcasecmp(what.serial, revoking->serial) != 0
                         : strcmp(what.names[0], revoking->node) != 0)
        return 0;
    revoking->n_found++;
    if (what.not_after <= (int64_t)(clock_wall_us() / 1000000u) ||
        X509_CRL_get0_by_cert(revoking->crl, &already, cert) == 1)
        return 0;
    revoking->n_added++;
    return add_revoked(revoking->crl, cert) ? 0 : -ENOMEM;
}

int ca_revoke(struct ca *ca, const char *node, const char *serial, char out_why[TLS_WHY],
              unsigned *out_n)
{
    CLEANUP(free_key) EVP_PKEY *key = NULL;
    CLEANUP(free_crl) X509_CRL *crl = NULL;
    struct revoking revoking = {.node = node, .serial = serial};
    int r;

    key = ca_read_key(ca, &r, out_why);
    if (key)
        crl = ca_read_crl(ca, &r, out_why);
    if (!crl)
        return r;
    revoking.crl = crl;
    r = each_issued(ca, revoke_one, &revoking, out_why);
    if (r == 0 && revoking.n_found == 0)
        r = pem_fail(out_why, -ENOENT, "%s '%.64s' was issued by the CA of %s; see meshcat ca show",
                     serial ? "no certificate with serial" : "nothing for", serial ? serial : node,
                     ca->dir);
    if (r == 0 && revoking.n_added > 0)
        r = sign_crl(ca, crl, key, out_why);
    if (r < 0)
        return r;
    *out_n = revoking.n_added;
    return 0;
}

struct listing {
    X509_CRL *crl;
    struct ca_cert *certs;
    size_t n;
};

static int list_one(void *ctx, X509 *cert)
{
    struct listing *listing = ctx;
    struct ca_cert *more = realloc(listing->certs, (listing->n + 1) * sizeof(*more));

    if (!more)
        return -ENOMEM;
    listing->certs = more;
    return ca_describe(cert, listing->crl, &more[listing->n++]);
}

static int by_age(const void *left, const void *right)
{
    const struct ca_cert *a = left, *b = right;

    if (a->not_before != b->not_before)
        return a->not_before < b->not_before ? -1 : 1;
    return strcmp(a->names[0], b->names[0]);
}

int ca_list(struct ca *ca, char out_why[TLS_WHY], struct ca_cert **out_certs, size_t *out_n)
{
    CLEANUP(free_crl) X509_CRL *crl = NULL;
    struct listing listing = {0};
    int r;

    crl = ca_read_crl(ca, &r, out_why);
    if (!crl)
        return r;
    listing.crl = crl;
    r = list_one(&listing, ca->cert);
    if (r < 0)
        pem_fail(out_why, r, "no memory");
    else
        r = each_issued(ca, list_one, &listing, out_why);
    if (r < 0) {
        free(listing.certs);
        return r;
    }
    qsort(listing.certs + 1, listing.n - 1, sizeof(*listing.certs), by_age);
    *out_certs = listing.certs;
    *out_n = listing.n;
    return 0;
}
