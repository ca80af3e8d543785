/* pem - files read whole, with a limit, into memory that is wiped afterwards. */
#include "tls/inside.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int pem_fail(char out_why[TLS_WHY], int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(out_why, TLS_WHY, format, args);
    va_end(args);
    return error;
}

static int take(struct pem *pem, int fd, char out_why[TLS_WHY])
{
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) < 0)
        return pem_fail(out_why, -errno, "%s: %s", pem->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return pem_fail(out_why, -EBADMSG, "%s is no regular file", pem->path);
    if (st.st_size > LIMIT_CERT_FILE)
        return pem_fail(out_why, -EBADMSG, "%s is longer than %u bytes: is it the right file?",
                        pem->path, LIMIT_CERT_FILE);
    pem->exposed = st.st_mode & (S_IRGRP | S_IROTH);
    /* What grows meanwhile is cut off: it is being written, and will be read again. */
    pem->bytes = malloc((size_t)st.st_size + 1);
    if (!pem->bytes)
        return pem_fail(out_why, -ENOMEM, "%s: no memory", pem->path);
    while (pem->len < (size_t)st.st_size) {
        n = read(fd, pem->bytes + pem->len, (size_t)st.st_size - pem->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pem_fail(out_why, -errno, "%s: %s", pem->path, strerror(errno));
        if (n == 0)
            break;
        pem->len += (size_t)n;
    }
    return 0;
}

int pem_read(struct pem *pem, const char *path, char out_why[TLS_WHY])
{
    int fd, r;

    *pem = (struct pem){0};
    if (!path)
        return 0;
    pem->path = path;
    /* O_NONBLOCK: opening a FIFO that nobody writes to would never end. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return pem_fail(out_why, -errno, "%s: %s", path, strerror(errno));
    r = take(pem, fd, out_why);
    close(fd);
    if (r < 0)
        pem_wipe(pem);
    return r;
}

void pem_wipe(struct pem *pem)
{
    if (pem->bytes)
        OPENSSL_cleanse(pem->bytes, pem->len);
    free(pem->bytes);
    *pem = (struct pem){0};
}
