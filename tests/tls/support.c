#include "tls/support.h"
#include <ftw.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATHS 64u

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "tests/tls/support: %s failed\n", what);
    abort();
}
#define MUST(x) must(x, #x)

static void set_serial(X509 *cert)
{
    static long last;
    unsigned char salt[4];
    ASN1_INTEGER *serial = ASN1_INTEGER_new();

    MUST(RAND_bytes(salt, sizeof(salt)) == 1);
    MUST(serial && ASN1_INTEGER_set(serial, ++last * 65536 + salt[0] * 256 + salt[1]));
    MUST(X509_set_serialNumber(cert, serial));
    ASN1_INTEGER_free(serial);
}

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *extension;

    if (!value || !value[0])
        return;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    must(extension != NULL, value);
    MUST(X509_add_ext(cert, extension, -1));
    X509_EXTENSION_free(extension);
}

static struct issued *all_issued; /* reachable until the end */

struct issued *issue(const struct issued *issuer, const struct wanted *wanted)
{
    struct issued *fresh = calloc(1, sizeof(*fresh));
    const struct issued *by = issuer ? issuer : fresh;
    long from = wanted->from, until = wanted->until;
    X509_NAME *subject = X509_NAME_new();

    MUST(fresh && subject);
    if (from == 0 && until == 0) {
        from = -DAY;
        until = DAY;
    }
    fresh->issuer = issuer;
    fresh->before = all_issued;
    all_issued = fresh;
    fresh->cert = X509_new();
    fresh->key = EVP_EC_gen("P-256");
    MUST(fresh->cert && fresh->key);
    MUST(X509_set_version(fresh->cert, X509_VERSION_3));
    set_serial(fresh->cert);
    MUST(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                    (const void *)(wanted->cn ? wanted->cn : "test"), -1, -1, 0));
    MUST(X509_set_subject_name(fresh->cert, subject));
    X509_NAME_free(subject);
    MUST(X509_set_issuer_name(fresh->cert, X509_get_subject_name(by->cert)));
    MUST(X509_gmtime_adj(X509_getm_notBefore(fresh->cert), from) &&
         X509_gmtime_adj(X509_getm_notAfter(fresh->cert), until));
    MUST(X509_set_pubkey(fresh->cert, fresh->key));
    if (wanted->is_ca) {
        extend(fresh->cert, by->cert, NID_basic_constraints, "critical,CA:TRUE");
        extend(fresh->cert, by->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    } else {
        extend(fresh->cert, by->cert, NID_basic_constraints, "critical,CA:FALSE");
        extend(fresh->cert, by->cert, NID_ext_key_usage,
               wanted->usage ? wanted->usage : "serverAuth,clientAuth");
    }
    extend(fresh->cert, by->cert, NID_subject_key_identifier, "hash");
    if (issuer && !wanted->bare)
        extend(fresh->cert, by->cert, NID_authority_key_identifier, "keyid");
    extend(fresh->cert, by->cert, NID_subject_alt_name, wanted->names);
    MUST(X509_sign(fresh->cert, by->key, EVP_sha256()) > 0);
    return fresh;
}

struct issued *issue_ca(const struct issued *issuer, const char *cn)
{
    return issue(issuer, &(struct wanted){.cn = cn, .is_ca = true});
}

struct issued *issue_node(const struct issued *issuer, const char *peer_id)
{
    char names[128];

    snprintf(names, sizeof(names), "DNS:%s", peer_id);
    return issue(issuer, &(struct wanted){.cn = peer_id, .names = names});
}

/* ---- files ---- */

static char folder_path[64];

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path);
}

static void remove_folder(void) { nftw(folder_path, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

const char *folder(void)
{
    if (!folder_path[0]) {
        strcpy(folder_path, "/tmp/meshd-tls-XXXXXX");
        MUST(mkdtemp(folder_path) != NULL);
        atexit(remove_folder);
    }
    return folder_path;
}

static const char *path_of(const char *name)
{
    static char paths[PATHS][128];
    static unsigned n;

    for (unsigned i = 0; i < n; i++)
        if (strcmp(strrchr(paths[i], '/') + 1, name) == 0)
            return paths[i];
    MUST(n < PATHS);
    snprintf(paths[n], sizeof(paths[n]), "%s/%s", folder(), name);
    return paths[n++];
}

static FILE *open_file(const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);

    must(file != NULL, path);
    MUST(fchmod(fileno(file), 0600) == 0);
    return file;
}

const char *write_certs(const char *name, const struct issued *first, ...)
{
    const char *path = path_of(name);
    FILE *file = open_file(path, "w");
    va_list args;

    va_start(args, first);
    for (const struct issued *i = first; i; i = va_arg(args, const struct issued *))
        MUST(PEM_write_X509(file, i->cert));
    va_end(args);
    MUST(fclose(file) == 0);
    return path;
}

const char *write_key(const char *name, const struct issued *issued)
{
    const char *path = path_of(name);
    FILE *file = open_file(path, "w");

    MUST(PEM_write_PrivateKey(file, issued->key, NULL, NULL, 0, NULL, NULL));
    MUST(fclose(file) == 0);
    return path;
}

const char *write_bytes(const char *name, const void *bytes, size_t len)
{
    const char *path = path_of(name);
    FILE *file = open_file(path, "w");

    MUST(fwrite(bytes, 1, len, file) == len);
    MUST(fclose(file) == 0);
    return path;
}

static void add_revoked(X509_CRL *crl, X509 *cert, ASN1_TIME *when)
{
    X509_REVOKED *row = X509_REVOKED_new();

    MUST(row && X509_REVOKED_set_serialNumber(row, X509_get_serialNumber(cert)) &&
         X509_REVOKED_set_revocationDate(row, when) && X509_CRL_add0_revoked(crl, row));
}

const char *write_crl(const char *name, bool append, const struct issued *ca, long until, ...)
{
    const char *path = path_of(name);
    FILE *file = open_file(path, append ? "a" : "w");
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -2 * DAY), *next = X509_gmtime_adj(NULL, until);
    const struct issued *revoked;
    va_list args;

    MUST(crl && from && next && X509_CRL_set_version(crl, X509_CRL_VERSION_2) &&
         X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert)) &&
         X509_CRL_set1_lastUpdate(crl, from) && X509_CRL_set1_nextUpdate(crl, next));
    va_start(args, until);
    while ((revoked = va_arg(args, const struct issued *)))
        add_revoked(crl, revoked->cert, from);
    va_end(args);
    MUST(X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0);
    MUST(PEM_write_X509_CRL(file, crl) && fclose(file) == 0);
    X509_CRL_free(crl);
    ASN1_TIME_free(from);
    ASN1_TIME_free(next);
    return path;
}

struct tls_settings node_settings(const char *name, const struct issued *trusted,
                                  const struct issued *own)
{
    char file[64];
    struct tls_settings settings = {.offload = true};

    snprintf(file, sizeof(file), "%s-ca.pem", name);
    settings.ca = write_certs(file, trusted, NULL);
    snprintf(file, sizeof(file), "%s.pem", name);
    settings.cert =
        write_certs(file, own, own->issuer && own->issuer->issuer ? own->issuer : NULL, NULL);
    snprintf(file, sizeof(file), "%s-key.pem", name);
    settings.key = write_key(file, own);
    return settings;
}

struct tls_keeper *keep(const struct tls_settings *settings)
{
    char why[TLS_WHY] = "";
    struct tls_keeper *keeper;

    if (tls_keeper_new(settings, why, &keeper) == 0)
        return keeper;
    must(false, why);
    return NULL;
}

bool kernel_has_tls(void)
{
    char text[256] = "";
    FILE *file = fopen("/proc/sys/net/ipv4/tcp_available_ulp", "r");

    if (file && !fgets(text, sizeof(text), file))
        text[0] = '\0';
    if (file)
        fclose(file);
    return strstr(text, "tls") != NULL;
}

static int shake_one(struct tls *tls, int fd)
{
    int r = tls_handshake(tls);

    if (r < 0 && r != -EAGAIN)
        shutdown(fd, SHUT_WR); /* what its owner would do: the other end is not left waiting */
    return r;
}

bool shake_both(struct tls *a, int a_fd, struct tls *b, int b_fd)
{
    int of_a = -EAGAIN, of_b = -EAGAIN;

    for (int i = 0; i < 1000; i++) {
        if (of_b == -EAGAIN)
            of_b = shake_one(b, b_fd);
        if (of_a == -EAGAIN)
            of_a = shake_one(a, a_fd);
        if (of_a != -EAGAIN && of_b != -EAGAIN)
            return of_a == 0 && of_b == 0;
    }
    must(false, "a handshake that ends");
    return false;
}
