/* inside - what the files of this room share. A keeper has a context: the SSL_CTX made of one
 * reading of the files, with the sessions that may be resumed under it. Sessions hold on to theirs,
 * so that a reload touches none of them. */
#ifndef TLS_INSIDE_H
#define TLS_INSIDE_H

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <stdatomic.h>
#include "base/lock.h"
#include "tls/tls.h"

#define TLS_DIGEST 32u          /* bytes of a SHA-256 */
#define TLS_TICKET_SECONDS 3600 /* how long a session may be resumed */

/* ---- identity ---- */

bool identity_is_peer_id(const unsigned char *bytes, size_t len);
/* Names, fingerprint and end of a certificate; resumed is left as it is. */
void identity_of(X509 *cert, struct tls_peer *out_peer);
void identity_text(const X509_NAME *name, char *out, size_t size); /* cut off to fit */
int64_t identity_seconds(const ASN1_TIME *time); /* unix seconds; 0: no time at all */

/* ---- files ---- */

struct pem {
    const char *path; /* NULL: none is set; borrowed */
    char *bytes;
    size_t len;
    bool exposed; /* group or others may read it */
};
/* Reads a file of at most LIMIT_CERT_FILE bytes; as tls_keeper_new. Failed: pem is as after
 * pem_wipe. */
int pem_read(struct pem *pem, const char *path, char out_why[TLS_WHY]);
void pem_wipe(struct pem *pem); /* the bytes are overwritten before they are freed */
int pem_fail(char out_why[TLS_WHY], int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- sessions to resume ---- */

struct ticket {
    char peer_id[LIMIT_PEER_ID + 1];
    SSL_SESSION *session;
};
struct tickets { /* sorted by peer id */
    struct mutex lock;
    struct ticket *rows;
    size_t n, room;
};
void tickets_init(struct tickets *tickets);
void tickets_fini(struct tickets *tickets);
/* Keeps a copy in the place of an older one. Nothing is kept when there is no memory or no room. */
void tickets_put(struct tickets *tickets, const char *peer_id, SSL_SESSION *session);
SSL_SESSION *tickets_copy(struct tickets *tickets, const char *peer_id); /* yours; NULL: none */

/* ---- one reading of the files ---- */

struct tls_context {
    atomic_uint refs;
    SSL_CTX *ssl;
    bool no_verify;
    uint8_t digest[TLS_DIGEST]; /* of what was read */
    struct tls_material material;
    struct tickets tickets;
};
/* Of files that were read, what is wrong with one of them told in faults, beside what is there
 * already: of one whose reading failed. One without path or bytes is passed over. The first fault's
 * error, and then there is no context. in_force: the fingerprint of the own certificate until now,
 * or "": that one will do, too, when it has expired meanwhile. */
int context_new(const struct pem pems[N_TLS_FILES], const struct tls_settings *settings,
                const char *in_force, struct tls_fault faults[N_TLS_FILES],
                struct tls_context **out_context);
struct tls_context *context_ref(struct tls_context *context);
void context_unref(struct tls_context *context); /* accepts NULL */
void context_digest(const struct pem pems[N_TLS_FILES], uint8_t out_digest[TLS_DIGEST]);
/* Of a verification at one certificate: a trusted one needs nobody's list of revoked ones. */
int context_verdict(int ok, X509_STORE_CTX *verification);

/* ---- the keeper ---- */

struct tls_context *keeper_context(struct tls_keeper *keeper); /* a reference, yours */
/* Remembers the intermediate ones of a chain that was found good. */
void keeper_learn(struct tls_keeper *keeper, const STACK_OF(X509) * chain);
STACK_OF(X509) * keeper_between(struct tls_keeper *keeper); /* yours; NULL: no memory */

/* ---- sessions ---- */

struct hello { /* as much of the other side's as has been read: records, and messages in them */
    uint8_t record[5], message[4];
    unsigned n_record, n_message;       /* bytes of these that are there */
    uint32_t record_left, message_left; /* bytes that are to come behind them */
};

struct tls {
    struct tls_keeper *keeper;
    struct tls_context *context;
    SSL *ssl;
    enum tls_role role;
    enum tls_failure failure;
    int wants;
    int broken; /* the errno that every later call ends with */
    bool known, done, writing, resume;
    bool dry;             /* the last read found nothing inside that could be read */
    unsigned char record; /* where the kernel encrypts, the next one's type; 0: data */
    char expect[LIMIT_PEER_ID + 1];
    char why[TLS_WHY];
    struct hello hello;
    unsigned extras; /* messages of its after the handshake, since its last bytes */
    struct tls_peer peer;
};
/* Callbacks of every SSL_CTX. */
int session_verify(int ok, X509_STORE_CTX *verification);
int session_hello(SSL *ssl, int *alert, void *arg);
int session_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                     const unsigned char *in, unsigned in_len, void *arg);
int session_ticket(SSL *ssl, SSL_SESSION *session);
void session_message(int sent, int version, int type, const void *bytes, size_t len, SSL *ssl,
                     void *arg);
#define TLS_ALPN "\007meshd/1"

/* ---- what went wrong ---- */

enum tls_failure verdict_of_x509(int error);
/* After a call that gave ret and left error in errno: -EAGAIN, or the end of the session. */
int verdict_of_call(struct tls *tls, int ret, int error);
int verdict(struct tls *tls, int error, enum tls_failure failure, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- the descriptor ---- */

/* As BIO_s_socket, but it never raises SIGPIPE, and ends the session
 * when a hello is announced as longer than LIMIT_TLS_HELLO. Part of tls. NULL: no memory. */
BIO *socket_bio(struct tls *tls, int fd);

#endif
