/* rig - two ends of a socket pair with a session each; a raw OpenSSL end for what no session of
 * ours would do. */
#ifndef TESTS_TLS_RIG_H
#define TESTS_TLS_RIG_H

#include <sys/types.h>
#include "tls/support.h"

struct end {
    int fd;
    struct tls *tls;
    int result; /* of its handshake; -EAGAIN until it is over */
};
struct pair {
    struct end accept, dial;
};

/* Non-blocking, the accepting end first. */
void sockets(int fds[2]);
void pair_open(struct pair *pair, struct tls_keeper *accepting, struct tls_keeper *dialling,
               const char *expect, bool resume);
/* Until both handshakes are over, one way or another. */
void pair_shake(struct pair *pair);
/* Opened, shaken, and good on both sides. */
void pair_up(struct pair *pair, struct tls_keeper *accepting, struct tls_keeper *dialling,
             const char *expect, bool resume);
void pair_close(struct pair *pair);
/* What is said at one end arrives at the other. */
void pair_talk(struct pair *pair);
/* Waits for what the session wants, at most 10 s. */
void end_wait(const struct end *end);
/* As tls_read, but -EAGAIN only when nothing comes. */
ssize_t end_read(struct end *end, void *data, size_t len);
/* All of it. */
void end_write(struct end *end, const void *data, size_t len);

/* The other end, in plain OpenSSL; options may be set before raw_shake. */
struct raw {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    struct end ours;
};
void raw_open(struct raw *raw, struct tls_keeper *keeper, enum tls_role ours,
              const struct issued *own, const char *alpn);
/* Until ours is over; how the raw one ended: 1 or an SSL_get_error value, negative. */
int raw_shake(struct raw *raw);
void raw_close(struct raw *raw);
/* For SSL_CTX_set_alpn_select_cb of a raw end that accepts. */
int raw_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
             unsigned in_len, void *arg);

#endif
