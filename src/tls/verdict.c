/* verdict - what OpenSSL says went wrong, as an errno, a kind and a clause for people. */
#include "tls/inside.h"
#include <errno.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum tls_failure verdict_of_x509(int error)
{
    switch (error) {
    case X509_V_OK:
        return TLS_OK;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
        return TLS_EXPIRED;
    case X509_V_ERR_CERT_REVOKED:
        return TLS_REVOKED;
    case X509_V_ERR_HOSTNAME_MISMATCH:
        return TLS_IDENTITY;
    default:
        return TLS_UNTRUSTED;
    }
}

int verdict(struct tls *tls, int error, enum tls_failure failure, const char *format, ...)
{
    va_list args;

    /* What a callback has said of it is nearer to the cause. */
    if (!tls->why[0]) {
        va_start(args, format);
        vsnprintf(tls->why, sizeof(tls->why), format, args);
        va_end(args);
        tls->failure = failure;
    }
    tls->broken = error;
    return error;
}

static bool is_about_certificates(int alert)
{
    /* decrypt_error: OpenSSL's word for a certificate whose signature is not its CA's. */
    return alert == SSL_AD_DECRYPT_ERROR ||
           (alert >= SSL_AD_BAD_CERTIFICATE && alert <= SSL_AD_CERTIFICATE_UNKNOWN) ||
           alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_ACCESS_DENIED ||
           alert == SSL_AD_CERTIFICATE_REQUIRED;
}

static int of_alert(struct tls *tls, int alert)
{
    const char *text = SSL_alert_desc_string_long(alert);

    if (is_about_certificates(alert))
        return verdict(tls, -EPROTO, TLS_REFUSED,
                       "the other side refused this one's certificate: %s", text);
    return verdict(tls, -EPROTO, TLS_BROKEN, "the other side ended it with an alert: %s", text);
}

static int of_certificate(struct tls *tls)
{
    long error = SSL_get_verify_result(tls->ssl);

    return verdict(tls, -EACCES, verdict_of_x509((int)error), "its certificate is refused: %s",
                   X509_verify_cert_error_string(error));
}

static int of_ssl(struct tls *tls)
{
    unsigned long error = ERR_peek_last_error(); /* what came of those below it */
    int reason = ERR_GET_REASON(error);
    const char *text = ERR_reason_error_string(error);

    if (reason == ERR_R_MALLOC_FAILURE)
        return verdict(tls, -ENOMEM, TLS_BROKEN, "no memory");
    if (ERR_GET_LIB(error) == ERR_LIB_SSL) {
        if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255)
            return of_alert(tls, reason - SSL_AD_REASON_OFFSET);
        switch (reason) {
        case SSL_R_UNEXPECTED_EOF_WHILE_READING:
            return verdict(tls, -ECONNRESET, TLS_BROKEN, "the connection was cut off");
        case SSL_R_CERTIFICATE_VERIFY_FAILED:
            return of_certificate(tls);
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
            return verdict(tls, -EACCES, TLS_NO_CERTIFICATE, "it showed no certificate");
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_HTTP_REQUEST:
        case SSL_R_HTTPS_PROXY_REQUEST:
            return verdict(tls, -EPROTO, TLS_BROKEN, "what came is no TLS");
        case SSL_R_UNSUPPORTED_PROTOCOL:
            return verdict(tls, -EPROTO, TLS_BROKEN, "it speaks no TLS 1.3");
        }
    }
    return verdict(tls, -EPROTO, TLS_BROKEN, "TLS failed: %s", text ? text : "no reason is known");
}

int verdict_of_call(struct tls *tls, int ret, int error)
{
    switch (SSL_get_error(tls->ssl, ret)) {
    case SSL_ERROR_WANT_READ:
        tls->wants = TLS_READABLE;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        tls->wants = TLS_WRITABLE;
        return -EAGAIN;
    case SSL_ERROR_SSL:
        return of_ssl(tls);
    case SSL_ERROR_ZERO_RETURN:
        return verdict(tls, -ECONNRESET, TLS_BROKEN, "it ended the session");
    default:
        if (error == 0)
            error = ECONNRESET;
        return verdict(tls, -error, TLS_BROKEN, "the connection is lost: %s", strerror(error));
    }
}
