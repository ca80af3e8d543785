/* context - an SSL_CTX made of one reading of the files. It serves both roles. */
#include "tls/inside.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/random.h"
#include "base/clock.h"

struct making { /* what is there while a context is being made */
    const struct pem *pems;
    const struct tls_settings *settings;
    struct tls_context *context;
    const char *in_force; /* the fingerprint of the own certificate until now; "": none */
    struct tls_fault *faults;
};

static void free_bio(BIO **bio) { BIO_free(*bio); }
static void free_key(EVP_PKEY **key) { EVP_PKEY_free(*key); }
static void free_cert(X509 **cert) { X509_free(*cert); }
static void free_chain(STACK_OF(X509) * *chain) { sk_X509_pop_free(*chain, X509_free); }

/* A key with a passphrase must not make a daemon ask at some terminal. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    *(bool *)arg = true;
    return -1;
}

/* A file's first fault counts: what follows is often of the same cause. */
static int fault(struct making *m, enum tls_file which, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static int fault(struct making *m, enum tls_file which, int error, const char *format, ...)
{
    struct tls_fault *f = &m->faults[which];
    va_list args;

    if (f->error)
        return error;
    f->error = error;
    va_start(args, format);
    vsnprintf(f->why, sizeof(f->why), format, args);
    va_end(args);
    return error;
}

static int no_memory(struct making *m, enum tls_file which)
{
    return fault(m, which, -ENOMEM, "no memory");
}

/* OpenSSL's own word for what was wrong last; no content is part of it. */
static int bad_content(struct making *m, enum tls_file which, const char *what)
{
    unsigned long error = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(error);

    if (ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE)
        return no_memory(m, which);
    return fault(m, which, -EBADMSG, "%s holds %s: %s", m->pems[which].path, what,
                 reason ? reason : "unknown format");
}

/* Its own settings may be why, openssl.cnf. The first error is the cause of what follows; without
 * memory there may be none. */
static int no_library(struct making *m, enum tls_file which)
{
    unsigned long error = ERR_peek_error();
    const char *reason = ERR_reason_error_string(error);

    ERR_clear_error();
    if (!error || ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE)
        return no_memory(m, which);
    return fault(m, which, -EINVAL, "OpenSSL cannot do TLS 1.3 as it is set up on this host: %s",
                 reason ? reason : "no reason is known");
}

/* The reader of PEM blocks stopped: because there are no more? */
static bool at_end(void)
{
    unsigned long error = ERR_peek_last_error();
    bool end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;

    if (end)
        ERR_clear_error();
    return end;
}

static BIO *bio_of(struct making *m, int which)
{
    ERR_clear_error();
    return BIO_new_mem_buf(m->pems[which].bytes, (int)m->pems[which].len);
}

static int load_cas(struct making *m, X509_STORE *store)
{
    CLEANUP(free_bio) BIO *bio = NULL;
    bool asked = false;

    if (!m->pems[TLS_FILE_CA].bytes)
        return 0;
    bio = bio_of(m, TLS_FILE_CA);
    if (!bio)
        return no_memory(m, TLS_FILE_CA);
    for (;;) {
        CLEANUP(free_cert) X509 *cert = PEM_read_bio_X509(bio, NULL, no_passphrase, &asked);

        if (!cert && !at_end())
            return bad_content(m, TLS_FILE_CA, "a broken certificate");
        if (!cert)
            break;
        if (!X509_STORE_add_cert(store, cert))
            return no_memory(m, TLS_FILE_CA);
        m->context->material.n_cas++;
    }
    if (m->context->material.n_cas == 0)
        return fault(m, TLS_FILE_CA, -EBADMSG, "%s holds no certificate (PEM is meant)",
                     m->pems[TLS_FILE_CA].path);
    return 0;
}

static void count_list(struct tls_material *material, X509_CRL *crl)
{
    int64_t next = identity_seconds(X509_CRL_get0_nextUpdate(crl));
    int n = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl));

    material->n_revoked += n > 0 ? (unsigned)n : 0;
    if (next && (!material->crl_next_update || next < material->crl_next_update))
        material->crl_next_update = next;
}

static int load_lists(struct making *m, X509_STORE *store)
{
    CLEANUP(free_bio) BIO *bio = NULL;
    bool asked = false;
    int n = 0;

    if (!m->pems[TLS_FILE_CRL].bytes)
        return 0;
    bio = bio_of(m, TLS_FILE_CRL);
    if (!bio)
        return no_memory(m, TLS_FILE_CRL);
    for (;; n++) {
        X509_CRL *crl = PEM_read_bio_X509_CRL(bio, NULL, no_passphrase, &asked);
        int added;

        if (!crl && !at_end())
            return bad_content(m, TLS_FILE_CRL, "a broken CRL");
        if (!crl)
            break;
        count_list(&m->context->material, crl);
        added = X509_STORE_add_crl(store, crl);
        X509_CRL_free(crl);
        if (!added)
            return no_memory(m, TLS_FILE_CRL);
    }
    if (n == 0)
        return fault(m, TLS_FILE_CRL, -EBADMSG, "%s holds no CRL (PEM is meant)",
                     m->pems[TLS_FILE_CRL].path);
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return 0;
}

static int load_chain(struct making *m, X509 **out_cert, STACK_OF(X509) * *out_chain)
{
    CLEANUP(free_bio) BIO *bio = bio_of(m, TLS_FILE_CERT);
    CLEANUP(free_cert) X509 *own = NULL;
    CLEANUP(free_chain) STACK_OF(X509) *chain = sk_X509_new_null();
    bool asked = false;

    if (!bio || !chain)
        return no_memory(m, TLS_FILE_CERT);
    own = PEM_read_bio_X509(bio, NULL, no_passphrase, &asked);
    if (!own && at_end())
        return fault(m, TLS_FILE_CERT, -EBADMSG, "%s holds no certificate (PEM is meant)",
                     m->pems[TLS_FILE_CERT].path);
    if (!own)
        return bad_content(m, TLS_FILE_CERT, "a broken certificate");
    for (;;) {
        CLEANUP(free_cert) X509 *next = PEM_read_bio_X509(bio, NULL, no_passphrase, &asked);

        if (!next && !at_end())
            return bad_content(m, TLS_FILE_CERT, "a broken certificate after the first");
        if (!next)
            break;
        if (!sk_X509_push(chain, next))
            return no_memory(m, TLS_FILE_CERT);
        TAKE(&next);
    }
    *out_cert = TAKE(&own);
    *out_chain = TAKE(&chain);
    return 0;
}

static int load_key(struct making *m, EVP_PKEY **out_key)
{
    CLEANUP(free_bio) BIO *bio = bio_of(m, TLS_FILE_KEY);
    bool asked = false;
    EVP_PKEY *key;

    if (!bio)
        return no_memory(m, TLS_FILE_KEY);
    key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &asked);
    if (!key && asked)
        return fault(m, TLS_FILE_KEY, -EBADMSG,
                     "%s: the key has a passphrase, and nobody is there to type it; take it off "
                     "with openssl pkey",
                     m->pems[TLS_FILE_KEY].path);
    if (!key && at_end())
        return fault(m, TLS_FILE_KEY, -EBADMSG, "%s holds no private key (PEM is meant)",
                     m->pems[TLS_FILE_KEY].path);
    if (!key)
        return bad_content(m, TLS_FILE_KEY, "a broken private key");
    *out_key = key;
    return 0;
}

static void describe(struct tls_material *material, X509 *cert)
{
    struct tls_peer self;

    identity_of(cert, &self);
    memcpy(material->names, self.names, sizeof(material->names));
    memcpy(material->fingerprint, self.fingerprint, sizeof(material->fingerprint));
    material->not_after = self.not_after;
    material->not_before = identity_seconds(X509_get0_notBefore(cert));
    identity_text(X509_get_subject_name(cert), material->subject, sizeof(material->subject));
    identity_text(X509_get_issuer_name(cert), material->issuer, sizeof(material->issuer));
}

static int names_self(struct making *m)
{
    const struct tls_material *material = &m->context->material;
    const char *self = m->settings->self, *path = m->pems[TLS_FILE_CERT].path;
    struct tls_peer peer;

    memcpy(peer.names, material->names, sizeof(peer.names));
    if (tls_names(&peer, self))
        return 0;
    return fault(m, TLS_FILE_CERT, -EINVAL,
                 "%s does not name this node, '%s', among its DNS names (first: '%s'): issue it "
                 "for this node, or set the node's name to one of them",
                 path, self, material->names[0]);
}

/* Is the own certificate one to show? */
static int check_own(struct making *m, X509 *cert)
{
    const char *path = m->pems[TLS_FILE_CERT].path, *self = m->settings->self;
    int64_t now = (int64_t)(clock_wall_us() / 1000000u);
    int r;

    /* One that is in force anyway does not keep out what else is new, a list of revoked ones. */
    if (strcmp(m->context->material.fingerprint, m->in_force) == 0)
        now = m->context->material.not_before;
    if (m->context->material.not_after <= now)
        return fault(m, TLS_FILE_CERT, -EINVAL, "%s has expired: issue a new one", path);
    if (m->context->material.not_before > now)
        return fault(m, TLS_FILE_CERT, -EINVAL, "%s is not valid yet: is the clock right?", path);
    if (!self || !self[0])
        return 0;
    r = names_self(m);
    if (r == 0 && (X509_check_purpose(cert, X509_PURPOSE_SSL_SERVER, 0) != 1 ||
                   X509_check_purpose(cert, X509_PURPOSE_SSL_CLIENT, 0) != 1))
        return fault(m, TLS_FILE_CERT, -EINVAL,
                     "%s may not be used for both sides of a connection: its extended key usage "
                     "must have serverAuth and clientAuth",
                     path);
    return r;
}

/* Each of the two is looked at although the other will not do. */
static void load_own(struct making *m)
{
    CLEANUP(free_cert) X509 *cert = NULL;
    CLEANUP(free_chain) STACK_OF(X509) *chain = NULL;
    CLEANUP(free_key) EVP_PKEY *key = NULL;
    const char *reason;

    if (m->pems[TLS_FILE_CERT].bytes && load_chain(m, &cert, &chain) == 0) {
        describe(&m->context->material, cert);
        check_own(m, cert);
    }
    if (!m->pems[TLS_FILE_KEY].bytes || load_key(m, &key) < 0 || !cert)
        return;
    if (X509_check_private_key(cert, key) != 1) {
        fault(m, TLS_FILE_KEY, -EINVAL, "%s is not the key of %s", m->pems[TLS_FILE_KEY].path,
              m->pems[TLS_FILE_CERT].path);
        return;
    }
    ERR_clear_error();
    if (SSL_CTX_use_certificate(m->context->ssl, cert) == 1 &&
        SSL_CTX_use_PrivateKey(m->context->ssl, key) == 1 &&
        SSL_CTX_set1_chain(m->context->ssl, chain) == 1)
        return;
    reason = ERR_reason_error_string(ERR_peek_last_error()); /* e.g. a key that is too small */
    fault(m, TLS_FILE_CERT, -EINVAL, "%s cannot be used: %s", m->pems[TLS_FILE_CERT].path,
          reason ? reason : "no reason is known");
}

int context_verdict(int ok, X509_STORE_CTX *verification)
{
    int error = X509_STORE_CTX_get_error(verification);
    const STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(verification);

    /* Lists are looked at only when the chain has been built, so its last one is trusted. The list
     * that could revoke it would be of somebody above, who need not even be known here. */
    if (!ok &&
        (error == X509_V_ERR_UNABLE_TO_GET_CRL || error == X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER) &&
        X509_STORE_CTX_get_error_depth(verification) == sk_X509_num(chain) - 1) {
        X509_STORE_CTX_set_error(verification, X509_V_OK);
        return 1;
    }
    return ok;
}

/* What holds whatever the files say. */
static bool set_up(SSL_CTX *ssl, bool offload)
{
    static const unsigned char protocol[] = TLS_ALPN;
    uint64_t options = SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION;

    SSL_CTX_set_options(ssl, offload ? options | SSL_OP_ENABLE_KTLS : options);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    /* One read(2) for a record, or for some short ones; else each takes two. */
    SSL_CTX_set_read_ahead(ssl, 1);
    /* What a session asks for stands before it is made: a certificate of whoever is there. */
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, session_verify);
    SSL_CTX_set_verify_depth(ssl, (int)LIMIT_CERT_DEPTH);
    SSL_CTX_set_max_cert_list(ssl, LIMIT_CERT_CHAIN);
    SSL_CTX_set_client_hello_cb(ssl, session_hello, NULL);
    SSL_CTX_set_msg_callback(ssl, session_message);
    SSL_CTX_set_alpn_select_cb(ssl, session_protocol, NULL);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ssl, session_ticket);
    return SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) &&
           SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) &&
           SSL_CTX_set_max_early_data(ssl, 0) && SSL_CTX_set_recv_max_early_data(ssl, 0) &&
           SSL_CTX_set_num_tickets(ssl, 0) && /* tls.c asks for the one of each session */
           SSL_CTX_set_session_id_context(ssl, protocol, sizeof(protocol) - 1) &&
           SSL_CTX_set_alpn_protos(ssl, protocol, sizeof(protocol) - 1) == 0;
}

void context_digest(const struct pem pems[N_TLS_FILES], uint8_t out_digest[TLS_DIGEST])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL);

    for (int i = 0; i < N_TLS_FILES && ok; i++)
        ok = EVP_DigestUpdate(md, &pems[i].len, sizeof(pems[i].len)) &&
             EVP_DigestUpdate(md, pems[i].bytes ? pems[i].bytes : "", pems[i].len);
    /* Without memory for it, the same bytes count as others: they are only read once more. */
    if (!ok || !EVP_DigestFinal_ex(md, out_digest, NULL))
        random_bytes(out_digest, TLS_DIGEST);
    EVP_MD_CTX_free(md);
}

static void free_context(struct tls_context **context) { context_unref(*context); }

int context_new(const struct pem pems[N_TLS_FILES], const struct tls_settings *settings,
                const char *in_force, struct tls_fault faults[N_TLS_FILES],
                struct tls_context **out_context)
{
    CLEANUP(free_context) struct tls_context *context = calloc(1, sizeof(*context));
    struct making m = {pems, settings, context, in_force, faults};
    X509_STORE *store;

    if (!context)
        return no_memory(&m, TLS_FILE_CA);
    context->refs = 1;
    context->no_verify = settings->no_verify;
    tickets_init(&context->tickets);
    ERR_clear_error();
    context->ssl = SSL_CTX_new(TLS_method());
    if (!context->ssl || !set_up(context->ssl, settings->offload))
        return no_library(&m, TLS_FILE_CERT);
    store = SSL_CTX_get_cert_store(context->ssl);
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    load_cas(&m, store);
    load_lists(&m, store);
    load_own(&m);
    ERR_clear_error();
    for (size_t i = 0; i < N_TLS_FILES; i++)
        if (faults[i].error)
            return faults[i].error;
    context->material.key_exposed = pems[TLS_FILE_KEY].exposed;
    context_digest(pems, context->digest);
    *out_context = TAKE(&context);
    return 0;
}

struct tls_context *context_ref(struct tls_context *context)
{
    atomic_fetch_add(&context->refs, 1);
    return context;
}

void context_unref(struct tls_context *context)
{
    if (!context || atomic_fetch_sub(&context->refs, 1) != 1)
        return;
    tickets_fini(&context->tickets);
    SSL_CTX_free(context->ssl);
    free(context);
}
