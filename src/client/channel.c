/* channel - one lock around each step of a TLS session, whose two directions are not independent.
 */
#include "client/channel.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/lock.h"

struct sealed {
    struct mutex lock; /* no step waits, so it is never held for long */
    struct {           /* only with lock held */
        struct tls *tls;
        bool open; /* the handshake is done */
        /* TLS_READABLE | ..., as of the last -EAGAIN of each direction */
        int receive_wants, send_wants;
    } held;
};

static void sealed_free(struct sealed *sealed)
{
    if (!sealed)
        return;
    if (sealed->held.open)
        (void)tls_end(sealed->held.tls); /* so that it is no cut on the other side; if it can */
    tls_free(sealed->held.tls);
    mutex_fini(&sealed->lock);
    free(sealed);
}

static int seal(struct channel *channel, struct trust *trust)
{
    struct sealed *sealed = calloc(1, sizeof(*sealed));
    int r;

    if (!sealed)
        return -ENOMEM;
    mutex_init(&sealed->lock);
    sealed->held.receive_wants = TLS_READABLE;
    sealed->held.send_wants = TLS_WRITABLE;
    r = trust_session(trust, channel->fd, &sealed->held.tls);
    if (r < 0) {
        sealed_free(sealed);
        return r;
    }
    channel->inside = sealed;
    return 0;
}

int channel_open(struct channel *channel, int fd, struct trust *trust)
{
    int flags = fcntl(fd, F_GETFL), r = 0;

    *channel = (struct channel){.fd = fd};
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        r = -errno;
    else if (trust)
        r = seal(channel, trust);
    if (r < 0)
        channel_close(channel);
    return r;
}

void channel_close(struct channel *channel)
{
    sealed_free(channel->inside);
    if (channel->fd >= 0)
        close(channel->fd);
    *channel = (struct channel){.fd = -1};
}

/* What a failure of the session is called here. */
static int failure_of(const struct sealed *sealed, int r)
{
    switch (tls_failure(sealed->held.tls)) {
    case TLS_OK:
    case TLS_BROKEN:
        return r == -EPIPE ? -ECONNRESET : r;
    default:
        return -EKEYREJECTED;
    }
}

int channel_handshake(struct channel *channel)
{
    struct sealed *sealed = channel->inside;
    int r;

    if (!sealed)
        return 0;
    mutex_lock(&sealed->lock);
    r = tls_handshake(sealed->held.tls);
    if (r == -EAGAIN)
        sealed->held.receive_wants = tls_wants(sealed->held.tls);
    else if (r < 0)
        r = failure_of(sealed, r);
    else
        sealed->held.open = true;
    mutex_unlock(&sealed->lock);
    return r;
}

ssize_t channel_send(struct channel *channel, const void *data, size_t len)
{
    struct sealed *sealed = channel->inside;
    ssize_t n;

    if (!sealed) {
        do
            n = send(channel->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        return n >= 0 ? n : errno == EPIPE ? -ECONNRESET : -errno;
    }
    mutex_lock(&sealed->lock);
    n = tls_write(sealed->held.tls, data, len);
    if (n == -EAGAIN)
        sealed->held.send_wants = tls_wants(sealed->held.tls);
    else if (n < 0)
        n = failure_of(sealed, (int)n);
    mutex_unlock(&sealed->lock);
    return n;
}

ssize_t channel_receive(struct channel *channel, void *data, size_t len)
{
    struct sealed *sealed = channel->inside;
    ssize_t n;

    if (!sealed) {
        do
            n = recv(channel->fd, data, len, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        return n > 0 ? n : n == 0 ? -ECONNRESET : -errno;
    }
    mutex_lock(&sealed->lock);
    n = tls_read(sealed->held.tls, data, len);
    if (n == -EAGAIN)
        sealed->held.receive_wants = tls_wants(sealed->held.tls);
    else if (n <= 0)
        n = n == 0 ? -ECONNRESET : failure_of(sealed, (int)n);
    mutex_unlock(&sealed->lock);
    return n;
}

bool channel_pending(const struct channel *channel)
{
    struct sealed *sealed = channel->inside;
    bool pending;

    if (!sealed)
        return false;
    mutex_lock(&sealed->lock);
    pending = tls_pending(sealed->held.tls);
    mutex_unlock(&sealed->lock);
    return pending;
}

static short events_of(int wants)
{
    return (short)((wants & TLS_READABLE ? POLLIN : 0) | (wants & TLS_WRITABLE ? POLLOUT : 0));
}

short channel_events(const struct channel *channel, int directions)
{
    struct sealed *sealed = channel->inside;
    int wants = (directions & CHANNEL_RECEIVE ? TLS_READABLE : 0) |
                (directions & CHANNEL_SEND ? TLS_WRITABLE : 0);

    if (!sealed)
        return events_of(wants);
    mutex_lock(&sealed->lock);
    wants = (directions & CHANNEL_RECEIVE ? sealed->held.receive_wants : 0) |
            (directions & CHANNEL_SEND ? sealed->held.send_wants : 0);
    mutex_unlock(&sealed->lock);
    return events_of(wants);
}

/* Of plaintext. A node closes it at once where TLS is on, but never on its Unix socket. */
static void plain_why(const struct channel *channel, char out_why[TLS_WHY])
{
    int family = AF_UNIX;
    socklen_t len = sizeof(family);

    if (getsockopt(channel->fd, SOL_SOCKET, SO_DOMAIN, &family, &len) == 0 && family != AF_UNIX)
        snprintf(out_why, TLS_WHY,
                 "it closed the connection before it said anything; a node that wants TLS does "
                 "that: use tls:// then");
}

static void sealed_why(struct sealed *sealed, int error, char out_why[TLS_WHY])
    REQUIRES(sealed->lock)
{
    const char *why = tls_why(sealed->held.tls);

    if (error == -EKEYREJECTED || (error == -EPROTO && sealed->held.open))
        snprintf(out_why, TLS_WHY, "%s", why);
    else if (error == -EPROTO)
        snprintf(out_why, TLS_WHY, "%.150s; if that port speaks plaintext: use tcp:// then", why);
    else if (error == -ECONNRESET && !sealed->held.open)
        snprintf(out_why, TLS_WHY,
                 "it closed the connection instead of beginning TLS; a node without TLS does that: "
                 "use tcp:// then");
}

void channel_why(const struct channel *channel, int error, bool greeted, char out_why[TLS_WHY])
{
    struct sealed *sealed = channel->inside;

    out_why[0] = '\0';
    if (!sealed && error == -ECONNRESET && !greeted)
        plain_why(channel, out_why);
    if (!sealed)
        return;
    mutex_lock(&sealed->lock);
    sealed_why(sealed, error, out_why);
    mutex_unlock(&sealed->lock);
}
