/* connect - names looked up, addresses tried side by side. Every wait has the caller's deadline. */
#include "client/connect.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "wire/name.h"

#define NEXT_ADDRESS_MS 250u /* the "Connection Attempt Delay" that RFC 8305 5 recommends */
#define PENDING_MAX 8u       /* connects under way at once */

/* For poll(2): what is left, rounded so that 0 means that the time is over. */
static int remaining(uint64_t deadline_ms)
{
    uint64_t now = clock_ms();

    if (now >= deadline_ms)
        return 0;
    return deadline_ms - now > INT_MAX ? INT_MAX : (int)(deadline_ms - now);
}

int connect_wait(int fd, short events, uint64_t deadline_ms)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int wait = remaining(deadline_ms);
        int n = poll(&p, 1, wait);

        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (wait == 0)
            return -ETIMEDOUT;
    }
}

/* What getaddrinfo keeps pointers to while it works. */
struct lookup {
    struct gaicb request;
    struct addrinfo hints;
    char host[LIMIT_NAME + 1], service[6];
};

static int lookup_error(int r)
{
    switch (r) {
    case 0:
        return 0;
    case EAI_MEMORY:
        return -ENOMEM;
    case EAI_SYSTEM:
        return errno ? -errno : -EIO;
    default:
        return -ENXIO;
    }
}

/* getaddrinfo cannot be given a deadline, so glibc's own helper thread runs it. Takes job. */
static int lookup_within(struct lookup *job, uint64_t deadline_ms, struct addrinfo **out_list)
{
    struct gaicb *jobs[1] = {&job->request};
    int r = getaddrinfo_a(GAI_NOWAIT, jobs, 1, NULL);

    if (r != 0) {
        free(job);
        return lookup_error(r);
    }
    for (;;) {
        int ms = remaining(deadline_ms);
        struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

        r = gai_error(&job->request);
        if (r != EAI_INPROGRESS)
            break;
        if (ms == 0) {
            /* One that is being worked on cannot be called back: it stays glibc's for ever. */
            if (gai_cancel(&job->request) != EAI_NOTCANCELED) {
                if (job->request.ar_result)
                    freeaddrinfo(job->request.ar_result);
                free(job);
            }
            return -ETIMEDOUT;
        }
        gai_suspend((const struct gaicb *const *)jobs, 1, &wait);
    }
    *out_list = job->request.ar_result;
    free(job);
    return lookup_error(r);
}

static int look_up(const char *host, uint16_t port, uint64_t deadline_ms,
                   struct addrinfo **out_list)
{
    struct lookup *job = calloc(1, sizeof(*job));
    int r;

    if (!job)
        return -ENOMEM;
    snprintf(job->host, sizeof(job->host), "%s", host);
    snprintf(job->service, sizeof(job->service), "%u", (unsigned)port);
    job->hints.ai_socktype = SOCK_STREAM;
    /* Numbers first: they need neither a name server nor a thread. */
    job->hints.ai_flags = AI_NUMERICSERV | AI_NUMERICHOST;
    r = getaddrinfo(job->host, job->service, &job->hints, out_list);
    if (r != EAI_NONAME) {
        free(job);
        return lookup_error(r);
    }
    job->hints.ai_flags = AI_NUMERICSERV;
    job->request.ar_name = job->host;
    job->request.ar_service = job->service;
    job->request.ar_request = &job->hints;
    return lookup_within(job, deadline_ms, out_list);
}

/* 0: connected; -EINPROGRESS: not yet, *out_fd is being connected; else nothing was opened. */
static int begin(const struct addrinfo *to, int *out_fd)
{
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, to->ai_addr, to->ai_addrlen) == 0) {
        *out_fd = fd;
        return 0;
    }
    if (errno != EINPROGRESS) {
        int r = -errno;

        close(fd);
        return r;
    }
    *out_fd = fd;
    return -EINPROGRESS;
}

/* Connects under way. */
struct race {
    struct pollfd at[PENDING_MAX];
    size_t n;
};

static void race_end(struct race *race)
{
    for (size_t i = 0; i < race->n; i++)
        close(race->at[i].fd);
    race->n = 0;
}

/* One round: 0 and *out_fd when one has won, -EINPROGRESS when none has, with *error and *failed
 * set when one has failed. */
static int race_poll(struct race *race, int wait_ms, int *error, int *failed, int *out_fd)
{
    if (poll(race->at, race->n, wait_ms) < 0 && errno != EINTR)
        return -errno;
    for (size_t i = 0; i < race->n;) {
        int r = 0, fd = race->at[i].fd;
        socklen_t len = sizeof(r);

        if (!race->at[i].revents) {
            i++;
            continue;
        }
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &r, &len) < 0)
            r = errno;
        race->at[i] = race->at[--race->n];
        if (r == 0) {
            *out_fd = fd;
            return 0;
        }
        close(fd);
        *error = -r;
        *failed = 1;
    }
    return -EINPROGRESS;
}

static int connect_first(const struct addrinfo *next, uint64_t deadline_ms, int *out_fd)
{
    CLEANUP(race_end) struct race race = {.n = 0};
    uint64_t next_at = 0;
    int error = -ENXIO, r;

    for (;;) {
        bool room = next && race.n < PENDING_MAX;
        uint64_t until = deadline_ms;
        int failed = 0;

        if (room && clock_ms() >= next_at) {
            int fd = -1;

            r = begin(next, &fd);
            next = next->ai_next;
            if (r == 0) {
                *out_fd = fd;
                return 0;
            }
            if (r != -EINPROGRESS) {
                error = r;
                continue;
            }
            race.at[race.n++] = (struct pollfd){.fd = fd, .events = POLLOUT};
            next_at = clock_ms() + NEXT_ADDRESS_MS;
            room = next && race.n < PENDING_MAX;
        }
        if (race.n == 0 && !next)
            return error;
        if (room && next_at < until)
            until = next_at;
        r = race_poll(&race, remaining(until), &error, &failed, out_fd);
        if (r != -EINPROGRESS)
            return r;
        if (failed)
            next_at = 0;
        if (clock_ms() >= deadline_ms)
            return -ETIMEDOUT;
    }
}

static int connect_tcp(const char *address, uint64_t deadline_ms, int *out_fd)
{
    struct addrinfo *list = NULL;
    char host[LIMIT_NAME + 1];
    uint16_t port;
    int r;

    if (addr_split(address, strlen(address), host, &port) < 0)
        return -EINVAL;
    r = look_up(host, port, deadline_ms, &list);
    if (r < 0)
        return r;
    r = connect_first(list, deadline_ms, out_fd);
    freeaddrinfo(list);
    return r;
}

/* A full backlog of a Unix socket cannot be polled for (connect says EAGAIN), so the kernel waits
 * for it with a send time-out. */
static int connect_unix(const char *path, uint64_t deadline_ms, int *out_fd)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int ms = remaining(deadline_ms), fd, r = 0;
    struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    if (path[0] == '\0')
        return -EINVAL;
    if (strlen(path) >= sizeof(to.sun_path))
        return -ENAMETOOLONG;
    if (ms == 0)
        return -ETIMEDOUT; /* and a zero time-out would mean none */
    memcpy(to.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0)
        r = -errno;
    else if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
        r = errno == EAGAIN ? -ETIMEDOUT : -errno;
    else if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    *out_fd = fd;
    return 0;
}

int connect_url(const char *url, uint64_t deadline_ms, enum sp_framing *out_framing, int *out_fd)
{
    int r;

    if (strncmp(url, "tls://", 6) == 0)
        return -ENOTSUP;
    if (strncmp(url, "tcp://", 6) == 0) {
        r = connect_tcp(url + 6, deadline_ms, out_fd);
        if (r == 0)
            *out_framing = SP_TCP;
        return r;
    }
    if (strncmp(url, "ipc://", 6) == 0) {
        r = connect_unix(url + 6, deadline_ms, out_fd);
        if (r == 0)
            *out_framing = SP_IPC;
        return r;
    }
    return -EINVAL;
}
