/* stock - see stock.h. */
#include "gate/stock.h"
#include <stdlib.h>
#include <unistd.h>

static const unsigned char alpn[] = "\007meshd/1";

static int choose(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                  const unsigned char *in, unsigned in_len, void *arg)
{
    *out = alpn + 1;
    *out_len = alpn[0];
    return SSL_TLSEXT_ERR_OK;
}

void stock_open(struct stock *stock, int fd, enum tls_role role, const struct issued *own)
{
    *stock = (struct stock){.fd = fd, .ctx = SSL_CTX_new(TLS_method())};
    if (!stock->ctx || (own && (SSL_CTX_use_certificate(stock->ctx, own->cert) != 1 ||
                                SSL_CTX_use_PrivateKey(stock->ctx, own->key) != 1)))
        abort();
    SSL_CTX_set_alpn_select_cb(stock->ctx, choose, NULL);
    stock->ssl = SSL_new(stock->ctx);
    if (!stock->ssl || SSL_set_fd(stock->ssl, fd) != 1 ||
        SSL_set_alpn_protos(stock->ssl, alpn, sizeof(alpn) - 1) != 0)
        abort();
    if (role == TLS_ACCEPT)
        SSL_set_accept_state(stock->ssl);
    else
        SSL_set_connect_state(stock->ssl);
}

bool stock_shake(struct stock *stock) { return SSL_do_handshake(stock->ssl) == 1; }

bool stock_write(struct stock *stock, const void *data, size_t len)
{
    return SSL_write(stock->ssl, data, (int)len) == (int)len;
}

bool stock_read(struct stock *stock, void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        int n = SSL_read(stock->ssl, (char *)data + at, (int)(len - at));

        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

int stock_over(struct stock *stock)
{
    char sink[4096];
    int n;

    while ((n = SSL_read(stock->ssl, sink, sizeof(sink))) > 0)
        ;
    n = SSL_get_error(stock->ssl, n);
    return n == SSL_ERROR_ZERO_RETURN ? 0 : n;
}

void stock_close(struct stock *stock)
{
    SSL_free(stock->ssl);
    SSL_CTX_free(stock->ctx);
    close(stock->fd);
}
