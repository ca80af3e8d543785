/* socket - a BIO over a descriptor that does not raise SIGPIPE, and does not believe what a hello
 * says of its own length, nor read new keys for ever (RFC 8446 4.6.3), which cost more to take than
 * to send.
 *
 * OpenSSL's own socket BIO sends with write(2); a program that uses this room as a library cannot
 * be asked to ignore SIGPIPE. This one is that BIO with another way of writing.
 *
 * Once the kernel encrypts (kTLS) what is written is plain, and OpenSSL says before it of which
 * type a record is that is no data. The key is never changed then: OpenSSL does not tell the kernel
 * of a new one, and Linux could not take it before 6.14. So a KeyUpdate is not sent. By RFC 8446
 * 4.6.3 who is asked for one has to send it before any more data; but nobody waits for it, and
 * behind one that was sent nothing could be read any more.
 *
 * OpenSSL makes room for a message as soon as its head has come: 128 KiB and a third for a hello,
 * of which a stranger needs to send nine bytes. Hellos are the messages that come as plaintext, so
 * their heads are found here, before OpenSSL sees them. */
#include "tls/inside.h"
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#define SET_RECORD_TYPE 1   /* TLS_SET_RECORD_TYPE of linux/tls.h */
#define CTRL_RECORD_TYPE 74 /* BIO_CTRL_SET_KTLS_SEND_CTRL_MSG, in bio.h by a comment only */
#define KEY_UPDATE 24       /* RFC 8446 4 */
#define HANDSHAKE 22        /* the type of a record with messages of the handshake (RFC 8446 5.1) */

static BIO_METHOD *method; /* kept until the process ends */
static long (*stock_control)(BIO *, int, long, void *);
static int (*stock_read)(BIO *, char *, int);

static ssize_t send_record(int fd, unsigned char type, const char *data, size_t len)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(1)];
    } control = {.head = {CMSG_LEN(1), SOL_TLS, SET_RECORD_TYPE}};
    struct iovec part = {(void *)data, len};
    struct msghdr msg = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(1)};

    *CMSG_DATA(&control.head) = type;
    return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static int send_quietly(BIO *bio, const char *data, int len)
{
    struct tls *tls = BIO_get_app_data(bio);
    unsigned char type = tls->record;
    int fd = (int)BIO_get_fd(bio, NULL);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    tls->record = 0;
    if (type == 0)
        n = send(fd, data, (size_t)len, MSG_NOSIGNAL);
    else if (type == HANDSHAKE && len > 0 && data[0] == KEY_UPDATE)
        n = len;
    else
        n = send_record(fd, type, data, (size_t)len);
    if (n <= 0 && BIO_sock_should_retry((int)n))
        BIO_set_retry_write(bio);
    return (int)n;
}

static long control(BIO *bio, int command, long number, void *ptr)
{
    struct tls *tls = BIO_get_app_data(bio);

    if (command != CTRL_RECORD_TYPE)
        return stock_control(bio, command, number, ptr);
    tls->record = (unsigned char)number;
    return 0;
}

static uint32_t least(size_t a, uint32_t b) { return a < b ? (uint32_t)a : b; }

/* One byte of a head of size bytes. True: it was the last. */
static bool add(uint8_t *head, unsigned *n, unsigned size, uint8_t byte)
{
    head[(*n)++] = byte;
    if (*n < size)
        return false;
    *n = 0;
    return true;
}

/* False: a message is too long. */
static bool fits(struct hello *h, const uint8_t *data, size_t len)
{
    for (size_t n; len > 0; data += n, len -= n) {
        n = 1;
        if (h->record_left == 0) {
            if (add(h->record, &h->n_record, sizeof(h->record), *data))
                h->record_left = (uint32_t)h->record[3] << 8 | h->record[4];
            continue;
        }
        if (h->record[0] != HANDSHAKE) {
            n = least(len, h->record_left);
        } else if (h->message_left == 0) {
            if (add(h->message, &h->n_message, sizeof(h->message), *data))
                h->message_left =
                    (uint32_t)h->message[1] << 16 | (uint32_t)h->message[2] << 8 | h->message[3];
            if (h->message_left > LIMIT_TLS_HELLO)
                return false;
        } else {
            n = least(least(len, h->record_left), h->message_left);
            h->message_left -= (uint32_t)n;
        }
        h->record_left -= (uint32_t)n;
    }
    return true;
}

static int refuse(BIO *bio, const char *what)
{
    verdict(BIO_get_app_data(bio), -EPROTO, TLS_BROKEN, "%s", what);
    BIO_clear_retry_flags(bio);
    errno = EPROTO;
    return -1;
}

static int read_within_limits(BIO *bio, char *data, int len)
{
    struct tls *tls = BIO_get_app_data(bio);
    int n;

    if (tls->extras > LIMIT_TLS_EXTRAS)
        return refuse(bio, "it says nothing but new keys and tickets");
    n = stock_read(bio, data, len);
    if (n > 0 && !tls->known && !fits(&tls->hello, (const uint8_t *)data, (size_t)n))
        return refuse(bio, "its hello is too long");
    return n;
}

static void make_method(void)
{
    const BIO_METHOD *stock = BIO_s_socket();
    BIO_METHOD *fresh = BIO_meth_new(BIO_TYPE_SOCKET, "quiet socket");

    if (!fresh)
        return;
    stock_control = BIO_meth_get_ctrl(stock);
    stock_read = BIO_meth_get_read(stock);
    if (BIO_meth_set_write(fresh, send_quietly) && BIO_meth_set_read(fresh, read_within_limits) &&
        BIO_meth_set_puts(fresh, BIO_meth_get_puts(stock)) && BIO_meth_set_ctrl(fresh, control) &&
        BIO_meth_set_create(fresh, BIO_meth_get_create(stock)) &&
        BIO_meth_set_destroy(fresh, BIO_meth_get_destroy(stock)))
        method = fresh;
    else
        BIO_meth_free(fresh);
}

BIO *socket_bio(struct tls *tls, int fd)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    pthread_once(&once, make_method);
    bio = method ? BIO_new(method) : NULL;
    if (!bio)
        return NULL;
    if (!BIO_set_app_data(bio, tls)) {
        BIO_free(bio);
        return NULL;
    }
    BIO_set_fd(bio, fd, BIO_NOCLOSE);
    return bio;
}
