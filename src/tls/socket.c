/* socket - a BIO over a descriptor that does not raise SIGPIPE.
 *
 * OpenSSL's own socket BIO sends with write(2); a program that uses this room as a library cannot
 * be asked to ignore SIGPIPE. This one is that BIO with another way of writing, so that kTLS, which
 * is switched on by its control function, works too. Once the kernel encrypts, OpenSSL's own way
 * writes: it alone knows which records are not data. */
#include "tls/inside.h"
#include <pthread.h>
#include <sys/socket.h>

static BIO_METHOD *method; /* kept until the process ends */
static int (*stock_write)(BIO *, const char *, int);

static int send_quietly(BIO *bio, const char *data, int len)
{
    ssize_t n;

    if (BIO_get_ktls_send(bio))
        return stock_write(bio, data, len);
    BIO_clear_retry_flags(bio);
    n = send((int)BIO_get_fd(bio, NULL), data, (size_t)len, MSG_NOSIGNAL);
    if (n <= 0 && BIO_sock_should_retry((int)n))
        BIO_set_retry_write(bio);
    return (int)n;
}

static void make_method(void)
{
    const BIO_METHOD *stock = BIO_s_socket();
    BIO_METHOD *fresh = BIO_meth_new(BIO_TYPE_SOCKET, "quiet socket");

    if (!fresh)
        return;
    stock_write = BIO_meth_get_write(stock);
    if (BIO_meth_set_write(fresh, send_quietly) &&
        BIO_meth_set_read(fresh, BIO_meth_get_read(stock)) &&
        BIO_meth_set_puts(fresh, BIO_meth_get_puts(stock)) &&
        BIO_meth_set_ctrl(fresh, BIO_meth_get_ctrl(stock)) &&
        BIO_meth_set_create(fresh, BIO_meth_get_create(stock)) &&
        BIO_meth_set_destroy(fresh, BIO_meth_get_destroy(stock)))
        method = fresh;
    else
        BIO_meth_free(fresh);
}

BIO *socket_bio(int fd)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    pthread_once(&once, make_method);
    bio = method ? BIO_new(method) : NULL;
    if (bio)
        BIO_set_fd(bio, fd, BIO_NOCLOSE);
    return bio;
}
