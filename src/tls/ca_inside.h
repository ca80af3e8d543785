/* ca_inside - what the files of the CA share. */
#ifndef TLS_CA_INSIDE_H
#define TLS_CA_INSIDE_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include "tls/ca.h"

#define CA_SLACK 300 /* seconds by which a node's clock may be behind this one's */

struct ca {
    char *dir;
    int fd; /* of the folder, locked */
    X509 *cert;
};

/* ---- ca_files.c ---- */

/* "DIR/name", yours; NULL: no memory. */
char *ca_path(const char *dir, const char *name);
/* What write put into a BIO becomes the file `name` of the folder. */
int ca_write(const struct ca *ca, const char *name, int (*write)(BIO *bio, void *what), void *what,
             char out_why[TLS_WHY]);
int ca_write_cert(BIO *bio, void *cert);
int ca_write_key(BIO *bio, void *key);
int ca_write_crl(BIO *bio, void *crl);
/* Yours; NULL with *out_error and out_why. */
X509 *ca_read_cert(const char *dir, const char *name, int *out_error, char out_why[TLS_WHY]);
EVP_PKEY *ca_read_key(const struct ca *ca, int *out_error, char out_why[TLS_WHY]);
X509_CRL *ca_read_crl(const struct ca *ca, int *out_error, char out_why[TLS_WHY]);
int ca_describe(X509 *cert, X509_CRL *crl, struct ca_cert *out_cert); /* crl may be NULL */

/* ---- ca_list.c ---- */

/* A list without anybody. */
int ca_first_crl(const struct ca *ca, EVP_PKEY *key, char out_why[TLS_WHY]);

#endif
