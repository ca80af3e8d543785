/* support - certificates of every kind, made in the process: CAs, nodes, lists of revoked ones.
 *
 * All keys are P-256. Whatever fails aborts: a test can do nothing about it. What was made lives
 * until the process ends; files live in a folder that is removed then. */
#ifndef TESTS_TLS_SUPPORT_H
#define TESTS_TLS_SUPPORT_H

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include "tls/tls.h"

#define DAY 86400

struct issued { /* a certificate and its key */
    X509 *cert;
    EVP_PKEY *key;
    const struct issued *issuer; /* NULL: itself */
    struct issued *before;       /* the one made before */
};

struct wanted {
    const char *cn;    /* NULL: "test" */
    const char *names; /* an extension's value: "DNS:n1,DNS:n2,IP:10.0.0.1"; NULL: none */
    const char *usage; /* extendedKeyUsage; NULL: "serverAuth,clientAuth"; "": none */
    long from, until;  /* seconds from now; both 0: a day ago until in a day */
    bool is_ca;
    bool bare; /* says nothing of which key its issuer has */
};

struct issued *issue(const struct issued *issuer, const struct wanted *wanted);
struct issued *issue_ca(const struct issued *issuer, const char *cn); /* NULL: self-signed */
struct issued *issue_node(const struct issued *issuer, const char *peer_id);

const char *folder(void); /* this process's own */
/* Paths are "<folder>/<name>"; an existing file is replaced. Certificates end with NULL. */
const char *write_certs(const char *name, const struct issued *first, ...)
    __attribute__((sentinel));
const char *write_key(const char *name, const struct issued *issued);
const char *write_bytes(const char *name, const void *bytes, size_t len);
/* A list by ca of those revoked (ends with NULL), good until `until` seconds from now. More than
 * one list may be written to a file. */
const char *write_crl(const char *name, bool append, const struct issued *ca, long until, ...)
    __attribute__((sentinel));

/* Writes what a node has and makes its keeper: trusts `trusted` (ends with NULL), shows own. */
struct tls_settings node_settings(const char *name, const struct issued *trusted,
                                  const struct issued *own);
struct tls_keeper *keep(const struct tls_settings *settings);
/* Whether sessions over TCP are encrypted by the kernel, if their settings want it; node_settings
 * do. */
bool kernel_has_tls(void);
/* Both handshakes, to their ends; who fails ends the connection. Whether both are good. */
bool shake_both(struct tls *a, int a_fd, struct tls *b, int b_fd);

#endif
