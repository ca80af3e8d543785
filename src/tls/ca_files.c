/* ca_files - the files of a CA's folder: read whole, written so that a crash leaves the old one. */
#include "tls/ca_inside.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "tls/inside.h"

#define FRESH ".new" /* what is being written; the lock on the folder makes one name enough */

static void free_text(char **text) { free(*text); }
static void free_bio(BIO **bio) { BIO_free(*bio); }

char *ca_path(const char *dir, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* ---- writing ---- */

int ca_write_cert(BIO *bio, void *cert) { return PEM_write_bio_X509(bio, cert); }
int ca_write_crl(BIO *bio, void *crl) { return PEM_write_bio_X509_CRL(bio, crl); }
int ca_write_key(BIO *bio, void *key)
{
    return PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
}

static int write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno != EINTR)
            return -errno;
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* The folder that name is in has to be on the disk too, or the rename is not. */
static int sync_folder(const struct ca *ca, const char *name)
{
    const char *slash = strrchr(name, '/');
    char folder[64] = ".";
    int fd, r;

    if (slash)
        snprintf(folder, sizeof(folder), "%.*s", (int)(slash - name), name);
    fd = openat(ca->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return r;
}

static int write_file(const struct ca *ca, const char *name, const char *bytes, size_t len)
{
    int fd, r;

    if (unlinkat(ca->fd, FRESH, 0) < 0 && errno != ENOENT)
        return -errno;
    fd = openat(ca->fd, FRESH, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    r = write_all(fd, bytes, len);
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r == 0 && renameat(ca->fd, FRESH, ca->fd, name) < 0)
        r = -errno;
    if (r < 0)
        unlinkat(ca->fd, FRESH, 0);
    return r < 0 ? r : sync_folder(ca, name);
}

int ca_write(const struct ca *ca, const char *name, int (*write)(BIO *bio, void *what), void *what,
             char out_why[TLS_WHY])
{
    CLEANUP(free_bio) BIO *bio = BIO_new(BIO_s_secmem()); /* wiped when it is freed */
    char *bytes;
    long len;
    int r;

    if (!bio || !write(bio, what))
        return pem_fail(out_why, -ENOMEM, "no memory");
    len = BIO_get_mem_data(bio, &bytes);
    r = write_file(ca, name, bytes, (size_t)len);
    return r < 0 ? pem_fail(out_why, r, "%s/%s cannot be written: %s", ca->dir, name, strerror(-r))
                 : 0;
}

/* ---- reading ---- */

/* One thing of a file, by the reader of its kind. */
static void *read_one(const char *dir, const char *name, void *(*read)(BIO *bio), int *out_error,
                      char out_why[TLS_WHY])
{
    CLEANUP(free_text) char *path = ca_path(dir, name);
    struct pem pem = {0};
    void *one = NULL;
    BIO *bio;

    *out_error = path ? pem_read(&pem, path, out_why) : -ENOMEM;
    if (!path)
        pem_fail(out_why, -ENOMEM, "no memory");
    if (*out_error == 0) {
        bio = BIO_new_mem_buf(pem.bytes, (int)pem.len);
        one = bio ? read(bio) : NULL;
        BIO_free(bio);
        if (!one)
            *out_error = pem_fail(out_why, -EBADMSG, "%s is broken: bring back a copy of it", path);
    }
    pem_wipe(&pem);
    ERR_clear_error();
    return one;
}

/* Nobody is asked for a passphrase: an encrypted key counts as broken. */
static int no_passphrase(char *buf, int size, int writing, void *arg) { return -1; }

static void *read_x509(BIO *bio) { return PEM_read_bio_X509(bio, NULL, no_passphrase, NULL); }
static void *read_key(BIO *bio) { return PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL); }
static void *read_crl(BIO *bio) { return PEM_read_bio_X509_CRL(bio, NULL, no_passphrase, NULL); }

X509 *ca_read_cert(const char *dir, const char *name, int *out_error, char out_why[TLS_WHY])
{
    return read_one(dir, name, read_x509, out_error, out_why);
}

EVP_PKEY *ca_read_key(const struct ca *ca, int *out_error, char out_why[TLS_WHY])
{
    EVP_PKEY *key = read_one(ca->dir, "ca-key.pem", read_key, out_error, out_why);

    if (!key || X509_check_private_key(ca->cert, key) == 1)
        return key;
    ERR_clear_error();
    EVP_PKEY_free(key);
    *out_error = pem_fail(out_why, -EBADMSG, "%s/ca-key.pem is not the key of ca.pem", ca->dir);
    return NULL;
}

X509_CRL *ca_read_crl(const struct ca *ca, int *out_error, char out_why[TLS_WHY])
{
    return read_one(ca->dir, "crl.pem", read_crl, out_error, out_why);
}

int ca_describe(X509 *cert, X509_CRL *crl, struct ca_cert *out_cert)
{
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *hex = serial ? BN_bn2hex(serial) : NULL;
    X509_REVOKED *revoked = NULL;
    struct tls_peer peer = {0};

    BN_free(serial);
    if (!hex)
        return -ENOMEM;
    *out_cert = (struct ca_cert){0};
    snprintf(out_cert->serial, sizeof(out_cert->serial), "%s", hex);
    OPENSSL_free(hex);
    identity_of(cert, &peer);
    memcpy(out_cert->names, peer.names, sizeof(out_cert->names));
    memcpy(out_cert->fingerprint, peer.fingerprint, sizeof(out_cert->fingerprint));
    identity_text(X509_get_subject_name(cert), out_cert->subject, sizeof(out_cert->subject));
    identity_text(X509_get_issuer_name(cert), out_cert->issuer, sizeof(out_cert->issuer));
    out_cert->not_before = identity_seconds(X509_get0_notBefore(cert));
    out_cert->not_after = peer.not_after;
    out_cert->is_ca = X509_check_ca(cert) == 1;
    if (crl && X509_CRL_get0_by_cert(crl, &revoked, cert) == 1)
        out_cert->revoked_at = identity_seconds(X509_REVOKED_get0_revocationDate(revoked));
    ERR_clear_error();
    return 0;
}

int ca_look(const char *path, char out_why[TLS_WHY], struct ca_cert **out_certs, size_t *out_n)
{
    struct ca_cert *certs = NULL, *more;
    struct pem pem = {0};
    int r = pem_read(&pem, path, out_why);
    BIO *bio = r == 0 ? BIO_new_mem_buf(pem.bytes, (int)pem.len) : NULL;
    X509 *cert;
    size_t n = 0;

    while (bio && r == 0 && (cert = read_x509(bio))) {
        more = realloc(certs, (n + 1) * sizeof(*certs));
        r = more ? ca_describe(cert, NULL, &more[n++]) : -ENOMEM;
        certs = more ? more : certs;
        X509_free(cert);
    }
    BIO_free(bio);
    pem_wipe(&pem);
    ERR_clear_error();
    if (r == 0 && n == 0)
        r = pem_fail(out_why, -EBADMSG, "%s holds no certificate (PEM is meant)", path);
    if (r == -ENOMEM)
        pem_fail(out_why, r, "no memory");
    if (r < 0) {
        free(certs);
        return r;
    }
    *out_certs = certs;
    *out_n = n;
    return 0;
}
