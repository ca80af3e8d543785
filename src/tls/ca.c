/* ca - the folder, and making certificates. */
#include "tls/ca.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "tls/ca_inside.h"
#include "tls/inside.h"

#define SERIAL_BITS 127 /* as many as are positive in 16 bytes */
#define DAY_SECONDS 86400

static void free_key(EVP_PKEY **key) { EVP_PKEY_free(*key); }
static void free_cert(X509 **cert) { X509_free(*cert); }
static void free_ca(struct ca **ca) { ca_close(*ca); }

/* ---- the folder ---- */

static int open_folder(const char *dir, char out_why[TLS_WHY], struct ca **out_ca)
{
    CLEANUP(free_ca) struct ca *ca = calloc(1, sizeof(*ca));

    if (ca)
        ca->fd = -1;
    if (ca)
        ca->dir = strdup(dir);
    if (!ca || !ca->dir)
        return pem_fail(out_why, -ENOMEM, "no memory");
    ca->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (ca->fd < 0)
        return pem_fail(out_why, -errno, "%s: %s", dir, strerror(errno));
    while (flock(ca->fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return pem_fail(out_why, -errno, "%s cannot be locked: %s", dir, strerror(errno));
    *out_ca = TAKE(&ca);
    return 0;
}

int ca_open(const char *dir, char out_why[TLS_WHY], struct ca **out_ca)
{
    CLEANUP(free_ca) struct ca *ca = NULL;
    int r = open_folder(dir, out_why, &ca);

    if (r == 0)
        ca->cert = ca_read_cert(dir, "ca.pem", &r, out_why);
    if (r == -ENOENT)
        return pem_fail(out_why, r,
                        "%s holds no CA; meshcat ca init makes one, --dir names another", dir);
    if (r < 0)
        return r;
    *out_ca = TAKE(&ca);
    return 0;
}

void ca_close(struct ca *ca)
{
    if (!ca)
        return;
    if (ca->fd >= 0)
        close(ca->fd);
    X509_free(ca->cert);
    free(ca->dir);
    free(ca);
}

bool ca_node_valid(const char *node)
{
    size_t len = strlen(node);

    if (!identity_is_peer_id((const unsigned char *)node, len) || strcmp(node, ".") == 0 ||
        strcmp(node, "..") == 0)
        return false;
    /* ca.pem and crl.pem are the CA's, and n1-key.pem is the key of n1. */
    return strcmp(node, "ca") != 0 && strcmp(node, "crl") != 0 &&
           !(len >= 4 && strcmp(node + len - 4, "-key") == 0);
}

/* ---- making a certificate ---- */

static bool set_serial(X509 *cert)
{
    BIGNUM *bits = BN_new();
    bool ok = bits && BN_rand(bits, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
              BN_to_ASN1_INTEGER(bits, X509_get_serialNumber(cert));

    BN_free(bits);
    return ok;
}

static bool set_times(X509 *cert, int64_t from, int64_t until)
{
    return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)from) &&
           ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)until);
}

static bool set_subject(X509 *cert, const char *cn)
{
    return X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                                      (const unsigned char *)cn, -1, -1, 0);
}

static bool extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *extension;
    bool ok;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = extension && X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
    return ok;
}

/* Not by extend: its little language gives commas and colons a meaning. */
static bool set_names(X509 *cert, const char *const *names, size_t n_names)
{
    GENERAL_NAMES *all = GENERAL_NAMES_new();
    bool ok = all != NULL;

    for (size_t i = 0; i < n_names && ok; i++) {
        GENERAL_NAME *name = GENERAL_NAME_new();
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();

        ok = name && text && ASN1_STRING_set(text, names[i], -1);
        if (ok)
            GENERAL_NAME_set0_value(name, GEN_DNS, TAKE(&text));
        ok = ok && sk_GENERAL_NAME_push(all, name);
        if (!ok) {
            ASN1_IA5STRING_free(text);
            GENERAL_NAME_free(name);
        }
    }
    ok = ok && X509_add1_ext_i2d(cert, NID_subject_alt_name, all, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(all);
    return ok;
}

/* ---- a CA ---- */

static X509 *make_ca(EVP_PKEY *key, unsigned days)
{
    int64_t now = (int64_t)(clock_wall_us() / 1000000u);
    X509 *cert = X509_new();

    if (cert && X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
        set_times(cert, now - CA_SLACK, now + (int64_t)days * DAY_SECONDS) &&
        set_subject(cert, "meshd CA") && X509_set_issuer_name(cert, X509_get_subject_name(cert)) &&
        X509_set_pubkey(cert, key) &&
        extend(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
        extend(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
        extend(cert, cert, NID_subject_key_identifier, "hash") &&
        X509_sign(cert, key, EVP_sha256()) > 0)
        return cert;
    X509_free(cert);
    return NULL;
}

static int refuse_existing(const struct ca *ca, char out_why[TLS_WHY])
{
    struct stat st;

    if (fstatat(ca->fd, "ca.pem", &st, AT_SYMLINK_NOFOLLOW) == 0)
        return pem_fail(out_why, -EEXIST,
                        "%s holds a CA already: `meshcat ca issue NODE` uses it; another one goes "
                        "into another folder (--dir)",
                        ca->dir);
    if (fstatat(ca->fd, "ca-key.pem", &st, AT_SYMLINK_NOFOLLOW) == 0)
        return pem_fail(out_why, -EEXIST,
                        "%s holds ca-key.pem, but no ca.pem: if an init was cut off there, remove "
                        "it and say init again",
                        ca->dir);
    return 0;
}

int ca_init(const char *dir, unsigned days, char out_why[TLS_WHY])
{
    CLEANUP(free_ca) struct ca *ca = NULL;
    CLEANUP(free_key) EVP_PKEY *key = NULL;
    int r;

    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return pem_fail(out_why, -errno, "%s cannot be made: %s", dir, strerror(errno));
    r = open_folder(dir, out_why, &ca);
    if (r == 0)
        r = refuse_existing(ca, out_why);
    if (r < 0)
        return r;
    if (mkdirat(ca->fd, "issued", 0700) < 0 && errno != EEXIST)
        return pem_fail(out_why, -errno, "%s/issued cannot be made: %s", dir, strerror(errno));
    key = EVP_EC_gen("P-256");
    ca->cert = key ? make_ca(key, days) : NULL;
    if (!ca->cert)
        return pem_fail(out_why, -ENOMEM, "no memory");
    /* ca.pem comes last: with it the CA is there, and whole. */
    r = ca_write(ca, "ca-key.pem", ca_write_key, key, out_why);
    if (r == 0)
        r = ca_first_crl(ca, key, out_why);
    return r < 0 ? r : ca_write(ca, "ca.pem", ca_write_cert, ca->cert, out_why);
}

/* ---- a node ---- */

static X509 *make_node(const struct ca *ca, EVP_PKEY *ca_key, EVP_PKEY *key,
                       const char *const *names, size_t n_names, int64_t until)
{
    int64_t now = (int64_t)(clock_wall_us() / 1000000u);
    X509 *cert = X509_new();

    if (cert && X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
        set_times(cert, now - CA_SLACK, until) && set_subject(cert, names[0]) &&
        X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) && X509_set_pubkey(cert, key) &&
        extend(cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE") &&
        extend(cert, ca->cert, NID_key_usage, "critical,digitalSignature") &&
        extend(cert, ca->cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
        extend(cert, ca->cert, NID_subject_key_identifier, "hash") &&
        extend(cert, ca->cert, NID_authority_key_identifier, "keyid") &&
        set_names(cert, names, n_names) && X509_sign(cert, ca_key, EVP_sha256()) > 0)
        return cert;
    X509_free(cert);
    return NULL;
}

static int check_names(const char *const *names, size_t n_names, char out_why[TLS_WHY])
{
    if (n_names < 1 || n_names > LIMIT_CERT_NAMES)
        return pem_fail(out_why, -EINVAL, "a certificate has 1 to %u names", LIMIT_CERT_NAMES);
    if (!ca_node_valid(names[0]))
        return pem_fail(out_why, -EINVAL,
                        "'%.64s' cannot be a node here: a peer id is 1 to %u of A-Z a-z 0-9 . _ -; "
                        "not ca, crl or one that ends in -key, whose files are others",
                        names[0], LIMIT_PEER_ID);
    for (size_t i = 1; i < n_names; i++)
        if (!identity_is_peer_id((const unsigned char *)names[i], strlen(names[i])))
            return pem_fail(out_why, -EINVAL, "'%.64s' is no peer id: 1 to %u of A-Z a-z 0-9 . _ -",
                            names[i], LIMIT_PEER_ID);
    return 0;
}

/* The certificate is on record before it is handed out: it can always be revoked. */
static int write_node(struct ca *ca, const char *node, X509 *cert, EVP_PKEY *key,
                      const char *serial, char out_why[TLS_WHY])
{
    char name[LIMIT_PEER_ID + 16];
    int r;

    snprintf(name, sizeof(name), "issued/%s.pem", serial);
    r = ca_write(ca, name, ca_write_cert, cert, out_why);
    if (r < 0)
        return r;
    snprintf(name, sizeof(name), "%s-key.pem", node);
    r = ca_write(ca, name, ca_write_key, key, out_why);
    if (r < 0)
        return r;
    snprintf(name, sizeof(name), "%s.pem", node);
    return ca_write(ca, name, ca_write_cert, cert, out_why);
}

int ca_issue(struct ca *ca, const char *const *names, size_t n_names, unsigned days,
             char out_why[TLS_WHY], struct ca_cert *out_cert)
{
    int64_t now = (int64_t)(clock_wall_us() / 1000000u), until = now + (int64_t)days * DAY_SECONDS;
    int64_t end = identity_seconds(X509_get0_notAfter(ca->cert));
    CLEANUP(free_key) EVP_PKEY *ca_key = NULL, *key = NULL;
    CLEANUP(free_cert) X509 *cert = NULL;
    int r = check_names(names, n_names, out_why);

    if (r < 0)
        return r;
    if (end <= now)
        return pem_fail(out_why, -EKEYEXPIRED,
                        "the CA of %s has ended; make another one (meshcat ca init --dir ...)",
                        ca->dir);
    ca_key = ca_read_key(ca, &r, out_why);
    if (!ca_key)
        return r;
    key = EVP_EC_gen("P-256");
    if (key)
        cert = make_node(ca, ca_key, key, names, n_names, until < end ? until : end);
    ERR_clear_error();
    if (!cert || ca_describe(cert, NULL, out_cert) < 0)
        return pem_fail(out_why, -ENOMEM, "no memory");
    return write_node(ca, names[0], cert, key, out_cert->serial, out_why);
}
