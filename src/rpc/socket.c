/* socket - opening and letting go of nng sockets. */
#include "rpc/socket.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define SP_SLACK 64u /* a backtrace, a connection number: what stands around a message */
#define HOUR_MS 3600000

int rpc_errno(int nng_error)
{
    switch (nng_error) {
    case 0:
        return 0;
    case NNG_ENOMEM:
        return -ENOMEM;
    case NNG_ETIMEDOUT:
        return -ETIMEDOUT;
    case NNG_ECANCELED:
        return -ECANCELED;
    case NNG_ECLOSED:
    case NNG_ECONNRESET:
    case NNG_ECONNSHUT:
        return -ECONNRESET;
    case NNG_EADDRINUSE:
        return -EADDRINUSE;
    case NNG_EPERM:
        return -EACCES;
    case NNG_ENOENT:
        return -ENOENT;
    case NNG_ENOFILES:
        return -EMFILE;
    case NNG_EMSGSIZE:
        return -EMSGSIZE;
    default:
        return nng_error & NNG_ESYSERR ? -(nng_error & ~NNG_ESYSERR) : -EIO;
    }
}

int rpc_listen(nng_socket sock, const char *path, uint64_t message_bytes)
{
    char url[sizeof("ipc://") + sizeof(((struct sockaddr_un *)0)->sun_path)];
    int rv;

    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return -ENAMETOOLONG;
    snprintf(url, sizeof(url), "ipc://%s", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    /* Before listening: nng does not lock it for pipes that exist. */
    rv = nng_socket_set_size(sock, NNG_OPT_RECVMAXSZ, (size_t)message_bytes + SP_SLACK);
    if (rv == 0)
        rv = nng_listen(sock, url, NULL, 0);
    return rpc_errno(rv);
}

/* Pipes and aios are taken down by one thread, one after another; this runs on it. An aio that is
 * handed to it now is taken down after the present pipe, and taking down an aio that sleeps calls
 * it back. */
void rpc_after_pipe(void (*fn)(void *ctx), void *ctx)
{
    nng_aio *aio;

    if (nng_aio_alloc(&aio, fn, ctx) != 0) {
        fn(ctx); /* a little early */
        return;
    }
    nng_sleep_aio(HOUR_MS, aio);
    nng_aio_reap(aio);
}
