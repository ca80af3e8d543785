/* stock - the other end of a TLS connection in plain OpenSSL, on a blocking socket: for what no
 * session of ours would do. It verifies nothing unless told so. */
#ifndef TESTS_GATE_STOCK_H
#define TESTS_GATE_STOCK_H

#include "tls/support.h"

struct stock {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
};
/* Takes fd; shows own (NULL: nothing). Options may be set before stock_shake. */
void stock_open(struct stock *stock, int fd, enum tls_role role, const struct issued *own);
bool stock_shake(struct stock *stock);
bool stock_write(struct stock *stock, const void *data, size_t len);
bool stock_read(struct stock *stock, void *data, size_t len); /* all of it */
/* How it went on: 0: close_notify; else an SSL_get_error value. What was still said is passed over.
 */
int stock_over(struct stock *stock);
void stock_close(struct stock *stock); /* without a word */

#endif
