/* spares - see spares.h. */
#include "web/spares.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int spares_init(struct spares *spares)
{
    spares->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (spares->null_fd < 0)
        return -errno;
    spares_fill(spares);
    return 0;
}

void spares_fini(struct spares *spares)
{
    while (spares->n)
        close(spares->fds[--spares->n]);
    if (spares->null_fd >= 0)
        close(spares->null_fd);
    spares->null_fd = -1;
}

void spares_fill(struct spares *spares)
{
    while (spares->n < SPARES) {
        int fd = fcntl(spares->null_fd, F_DUPFD_CLOEXEC, 0);

        if (fd < 0)
            return;
        spares->fds[spares->n++] = fd;
    }
}

int spares_accept(struct spares *spares, int listener, struct sockaddr *from, socklen_t *len)
{
    int fd, error;

    if (!spares->n) {
        errno = EMFILE;
        return -1;
    }
    close(spares->fds[--spares->n]);
    fd = accept4(listener, from, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    error = errno;
    if (fd < 0) /* nobody waits any more, or another thread was faster */
        spares_fill(spares);
    errno = error;
    return fd;
}

int spares_dup(struct spares *spares, int fd)
{
    if (!spares->n || dup3(fd, spares->fds[spares->n - 1], O_CLOEXEC) < 0)
        return -1;
    return spares->fds[--spares->n];
}

void spares_close(struct spares *spares, int fd)
{
    if (spares->n < SPARES && dup3(spares->null_fd, fd, O_CLOEXEC) == fd)
        spares->fds[spares->n++] = fd;
    else
        close(fd);
}
