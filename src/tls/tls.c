/* tls - sessions over descriptors.
 *
 * Whom to let in is decided inside the handshake, so that the other side is told by an alert; only
 * what a resumed session brings along is looked at after it. Every call begins with an empty error
 * queue, because OpenSSL's is one per thread and a session's would be taken for another's. */
#include "tls/tls.h"
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "tls/inside.h"

static void begin(struct tls *tls)
{
    ERR_clear_error();
    errno = 0;
    tls->wants = 0;
}

static struct tls *of_ssl(const SSL *ssl) { return SSL_get_app_data(ssl); }

/* ---- what OpenSSL asks ---- */

int session_verify(int ok, X509_STORE_CTX *verification)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(verification, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *tls = of_ssl(ssl);
    struct tls_peer peer;

    if (tls->context->no_verify)
        return 1;
    ok = context_verdict(ok, verification);
    if (!ok || X509_STORE_CTX_get_error_depth(verification) != 0 || !tls->expect[0])
        return ok;
    identity_of(X509_STORE_CTX_get_current_cert(verification), &peer);
    if (tls_names(&peer, tls->expect))
        return 1;
    verdict(tls, -EACCES, TLS_IDENTITY, "its certificate names '%s', not '%s' as expected",
            peer.names[0], tls->expect);
    X509_STORE_CTX_set_error(verification, X509_V_ERR_HOSTNAME_MISMATCH);
    return 0;
}

/* The choice among protocols is not even asked for when none is offered. */
int session_hello(SSL *ssl, int *alert, void *arg)
{
    const unsigned char *data;
    size_t len;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &data,
                                  &len))
        return SSL_CLIENT_HELLO_SUCCESS;
    verdict(of_ssl(ssl), -EPROTO, TLS_BROKEN, "it does not ask for meshd/1 (ALPN)");
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
}

int session_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                     const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = TLS_ALPN;
    unsigned char *chosen;

    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, in, in_len) ==
        OPENSSL_NPN_NEGOTIATED) {
        *out = chosen;
        return SSL_TLSEXT_ERR_OK;
    }
    verdict(of_ssl(ssl), -EPROTO, TLS_BROKEN, "it asks for another protocol than meshd/1 (ALPN)");
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* How long this session may be resumed: not past the end of anything that it was judged by. Of a
 * resumed one not at all, so that at least once an hour all of it is looked at again. */
static int64_t resumable_seconds(struct tls *tls)
{
    int64_t now = (int64_t)(clock_wall_us() / 1000000u), end = now + TLS_TICKET_SECONDS;
    const STACK_OF(X509) *chain = SSL_get0_verified_chain(tls->ssl);
    int64_t crl = tls->context->material.crl_next_update;

    if (tls->context->no_verify || SSL_session_reused(tls->ssl))
        return 0;
    for (int i = 0; i < sk_X509_num(chain); i++) {
        int64_t last = identity_seconds(X509_get0_notAfter(sk_X509_value(chain, i)));

        end = last < end ? last : end;
    }
    end = crl && crl < end ? crl : end;
    return end > now ? end - now : 0;
}

/* A dialler was given a ticket. */
int session_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = of_ssl(ssl);
    int64_t seconds = resumable_seconds(tls);
    const unsigned char *ticket;
    size_t len;

    if (tls->role != TLS_CONNECT || !tls->resume || !tls->expect[0] || seconds == 0 ||
        !SSL_SESSION_is_resumable(session))
        return 0;
    SSL_SESSION_get0_ticket(session, &ticket, &len);
    if (len > LIMIT_TLS_HELLO / 2) /* a certificate is part of it: the hello would be too long */
        return 0;
    if (SSL_SESSION_get_timeout(session) > seconds)
        SSL_SESSION_set_timeout(session, (long)seconds);
    tickets_put(&tls->context->tickets, tls->expect, session);
    return 0;
}

/* A message came, or left. */
void session_message(int sent, int version, int type, const void *bytes, size_t len, SSL *ssl,
                     void *arg)
{
    struct tls *tls = of_ssl(ssl);

    if (!sent && type == SSL3_RT_HANDSHAKE && tls->known)
        tls->extras++;
}

/* ---- a session ---- */

static void free_tls(struct tls **tls) { tls_free(*tls); }

static int connect_ssl(struct tls *tls, int fd)
{
    BIO *bio = socket_bio(tls, fd);
    SSL_SESSION *session = NULL;

    if (!bio)
        return -ENOMEM;
    SSL_set_bio(tls->ssl, bio, bio);
    if (!SSL_set_app_data(tls->ssl, tls))
        return -ENOMEM;
    if (tls->role == TLS_ACCEPT) {
        SSL_set_accept_state(tls->ssl);
        return 0;
    }
    SSL_set_connect_state(tls->ssl);
    if (tls->resume && tls->expect[0])
        session = tickets_copy(&tls->context->tickets, tls->expect);
    if (session)
        SSL_set_session(tls->ssl, session); /* else it is a full handshake */
    SSL_SESSION_free(session);
    return 0;
}

int tls_new(struct tls_keeper *keeper, enum tls_role role, int fd, const char *expect, bool resume,
            struct tls **out_tls)
{
    CLEANUP(free_tls) struct tls *tls = calloc(1, sizeof(*tls));
    int r;

    if (!tls)
        return -ENOMEM;
    ERR_clear_error();
    tls->keeper = keeper;
    tls->context = keeper_context(keeper);
    tls->role = role;
    tls->resume = resume && !tls->context->no_verify;
    snprintf(tls->expect, sizeof(tls->expect), "%s", expect);
    tls->ssl = SSL_new(tls->context->ssl);
    r = tls->ssl ? connect_ssl(tls, fd) : -ENOMEM;
    if (r < 0)
        return r;
    *out_tls = TAKE(&tls);
    return 0;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    context_unref(tls->context);
    free(tls);
}

int tls_wants(const struct tls *tls) { return tls->wants; }
enum tls_failure tls_failure(const struct tls *tls) { return tls->failure; }
const char *tls_why(const struct tls *tls) { return tls->why; }
const struct tls_peer *tls_peer(const struct tls *tls) { return &tls->peer; }

/* The handshake is over: who is there? */
static int know(struct tls *tls)
{
    X509 *cert = SSL_get0_peer_certificate(tls->ssl);
    const unsigned char *protocol;
    unsigned len;

    SSL_get0_alpn_selected(tls->ssl, &protocol, &len);
    if (len != sizeof(TLS_ALPN) - 2 || memcmp(protocol, &TLS_ALPN[1], len) != 0)
        return verdict(tls, -EPROTO, TLS_BROKEN, "it did not agree to meshd/1 (ALPN)");
    if (!cert)
        return verdict(tls, -EACCES, TLS_NO_CERTIFICATE, "it showed no certificate");
    identity_of(cert, &tls->peer);
    tls->peer.resumed = SSL_session_reused(tls->ssl);
    if (tls->peer.resumed && tls->peer.not_after <= (int64_t)(clock_wall_us() / 1000000u))
        return verdict(tls, -EACCES, TLS_EXPIRED, "its certificate is refused: %s",
                       X509_verify_cert_error_string(X509_V_ERR_CERT_HAS_EXPIRED));
    if (!tls->context->no_verify && tls->expect[0] && !tls_names(&tls->peer, tls->expect))
        return verdict(tls, -EACCES, TLS_IDENTITY, "its certificate names '%s', not '%s'",
                       tls->peer.names[0], tls->expect);
    if (!tls->context->no_verify && !tls->peer.resumed)
        keeper_learn(tls->keeper, SSL_get0_verified_chain(tls->ssl));
    return 0;
}

/* The one ticket of a full handshake leaves before anything else does. */
static void give_ticket(struct tls *tls)
{
    int64_t seconds = tls->role == TLS_ACCEPT ? resumable_seconds(tls) : 0;

    if (seconds > 0 && SSL_SESSION_set_timeout(SSL_get_session(tls->ssl), (long)seconds) == 1)
        SSL_new_session_ticket(tls->ssl); /* no memory: no ticket */
}

int tls_handshake(struct tls *tls)
{
    int ret, r;

    if (tls->broken || tls->done)
        return tls->broken;
    for (;;) {
        begin(tls);
        ret = SSL_do_handshake(tls->ssl);
        if (ret != 1)
            return verdict_of_call(tls, ret, errno);
        if (tls->known)
            break;
        r = know(tls);
        if (r < 0)
            return r;
        tls->known = true;
        give_ticket(tls);
    }
    tls->done = true;
    return 0;
}

ssize_t tls_read(struct tls *tls, void *data, size_t len)
{
    size_t n;
    int ret, error;

    if (tls->broken)
        return tls->broken;
    begin(tls);
    ret = SSL_read_ex(tls->ssl, data, len, &n);
    error = errno;
    tls->dry = ret != 1;
    if (ret == 1) {
        tls->extras = 0;
        return (ssize_t)n;
    }
    if (SSL_get_error(tls->ssl, ret) == SSL_ERROR_ZERO_RETURN)
        return 0;
    return verdict_of_call(tls, ret, error);
}

/* Of what was read ahead nobody knows whether it is a whole record: that is found out once. */
bool tls_pending(const struct tls *tls)
{
    return SSL_pending(tls->ssl) > 0 || (!tls->dry && SSL_has_pending(tls->ssl));
}

/* Without OpenSSL, which would hold on to where the bytes lay that the kernel did not take. */
static ssize_t write_plain(struct tls *tls, const void *data, size_t len)
{
    ssize_t n = send(SSL_get_fd(tls->ssl), data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n >= 0)
        return n;
    if (errno == EAGAIN) {
        tls->wants = TLS_WRITABLE;
        return -EAGAIN;
    }
    return verdict(tls, -errno, TLS_BROKEN, "the connection is lost: %s", strerror(errno));
}

ssize_t tls_write(struct tls *tls, const void *data, size_t len)
{
    size_t n;
    int ret, r;

    if (tls->broken || len == 0)
        return tls->broken;
    begin(tls);
    if (tls->done && tls_offloaded(tls) && !(SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN))
        return write_plain(tls, data, len);
    ret = SSL_write_ex(tls->ssl, data, len, &n);
    r = ret == 1 ? 0 : verdict_of_call(tls, ret, errno);
    tls->writing = r == -EAGAIN;
    return r < 0 ? r : (ssize_t)n;
}

/* What the kernel has encrypted may wait there behind what TCP holds, and a FIN, or a close, would
 * overtake it. Where there is room for a descriptor to be writable, a third of its buffer, there is
 * for all that waits, which is one record: unless SO_SNDBUF was set to less than 32 KiB. */
static bool may_overtake(const struct tls *tls)
{
    struct pollfd pfd = {.fd = SSL_get_fd(tls->ssl), .events = POLLOUT};

    return tls_offloaded(tls) && poll(&pfd, 1, 0) == 0;
}

int tls_end(struct tls *tls)
{
    int ret;

    if (tls->broken)
        return tls->broken;
    if (tls->writing || !tls->done)
        return -EBUSY;
    if (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN && !SSL_want_write(tls->ssl))
        return 0;
    begin(tls);
    if (may_overtake(tls)) {
        tls->wants = TLS_WRITABLE;
        return -EAGAIN;
    }
    ret = SSL_shutdown(tls->ssl);
    return ret >= 0 ? 0 : verdict_of_call(tls, ret, errno);
}

bool tls_offloaded(const struct tls *tls) { return BIO_get_ktls_send(SSL_get_wbio(tls->ssl)) > 0; }

/* ---- looked at again ---- */

/* All that may lead from its certificate to a trusted one. A resumed session came without any. */
static STACK_OF(X509) * untrusted_of(struct tls *tls)
{
    STACK_OF(X509) *all = keeper_between(tls->keeper);
    STACK_OF(X509) *shown = SSL_get_peer_cert_chain(tls->ssl);

    for (int i = 0; i < sk_X509_num(shown) && all; i++) {
        X509 *cert = sk_X509_value(shown, i);

        if (sk_X509_push(all, cert)) {
            X509_up_ref(cert);
        } else {
            sk_X509_pop_free(all, X509_free);
            all = NULL;
        }
    }
    return all;
}

int tls_check_again(struct tls *tls, enum tls_failure *out_failure)
{
    struct tls_context *now = keeper_context(tls->keeper);
    STACK_OF(X509) *untrusted = untrusted_of(tls);
    X509_STORE_CTX *verification = X509_STORE_CTX_new();
    int error = X509_V_ERR_OUT_OF_MEM;

    if (now->no_verify) {
        error = X509_V_OK;
    } else if (untrusted && verification &&
               X509_STORE_CTX_init(verification, SSL_CTX_get_cert_store(now->ssl),
                                   SSL_get0_peer_certificate(tls->ssl), untrusted) == 1) {
        X509_STORE_CTX_set_default(verification,
                                   tls->role == TLS_ACCEPT ? "ssl_client" : "ssl_server");
        X509_STORE_CTX_set_flags(verification, X509_V_FLAG_NO_CHECK_TIME);
        X509_STORE_CTX_set_depth(verification, (int)LIMIT_CERT_DEPTH);
        X509_STORE_CTX_set_verify_cb(verification, context_verdict);
        error = X509_verify_cert(verification) == 1 ? X509_V_OK
                                                    : X509_STORE_CTX_get_error(verification);
    }
    X509_STORE_CTX_free(verification);
    sk_X509_pop_free(untrusted, X509_free);
    context_unref(now);
    ERR_clear_error();
    if (error == X509_V_OK || error == X509_V_ERR_OUT_OF_MEM)
        return error == X509_V_OK ? 0 : -ENOMEM;
    *out_failure = verdict_of_x509(error);
    return -EACCES;
}
