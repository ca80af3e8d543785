/* connect - names looked up, addresses tried side by side, step by step; none of them waits. */
#include "client/connect.h"
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "wire/name.h"

#define NEXT_ADDRESS_MS 250u /* the "Connection Attempt Delay" that RFC 8305 5 recommends */
#define PENDING_MAX 8u       /* connects under way at once */
#define PAUSE_MS_MAX 16u     /* between looks at what cannot be polled for */

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

/* One that is being worked on cannot be called back: it stays glibc's for ever. */
static void lookup_end(struct lookup *job)
{
    if (!job || gai_cancel(&job->request) == EAI_NOTCANCELED)
        return;
    if (job->request.ar_result)
        freeaddrinfo(job->request.ar_result);
    free(job);
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
    int epoll; /* has them all */
    struct pollfd at[PENDING_MAX];
    size_t n;
};

static int race_join(struct race *race, int fd)
{
    struct epoll_event event = {.events = EPOLLOUT};

    if (epoll_ctl(race->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    race->at[race->n++] = (struct pollfd){.fd = fd, .events = POLLOUT};
    return 0;
}

/* Its descriptor is the caller's again. Closing it would not take it out of the epoll while a child
 * that this process has forked holds a copy, and who waits would be woken for it all the time. */
static void race_leave(struct race *race, size_t i)
{
    epoll_ctl(race->epoll, EPOLL_CTL_DEL, race->at[i].fd, NULL);
    race->at[i] = race->at[--race->n];
}

static void race_end(struct race *race)
{
    for (size_t i = 0; i < race->n; i++)
        close(race->at[i].fd);
    if (race->epoll >= 0)
        close(race->epoll);
}

/* One look: 0 and *out_fd when one has won, -EINPROGRESS when none has, with *error and *failed set
 * when one has failed. */
static int race_look(struct race *race, int *error, bool *failed, int *out_fd)
{
    if (poll(race->at, race->n, 0) < 0 && errno != EINTR)
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
        race_leave(race, i);
        if (r == 0) {
            *out_fd = fd;
            return 0;
        }
        close(fd);
        *error = -r;
        *failed = true;
    }
    return -EINPROGRESS;
}

struct connecting {
    enum sp_framing framing;
    uint64_t wake_ms; /* when a step is due whatever the race says */
    unsigned pause_ms;
    /* SP_IPC */
    struct sockaddr_un path;
    /* SP_TCP */
    char host[LIMIT_NAME + 1], port[6];
    struct lookup *job; /* while the name is being looked up */
    struct addrinfo *list;
    const struct addrinfo *next; /* of list: to be tried next */
    struct race race;
    uint64_t next_ms; /* when that is due */
    int error;        /* of the last address that has failed */
};

void connecting_free(struct connecting *c)
{
    if (!c)
        return;
    lookup_end(c->job);
    if (c->list)
        freeaddrinfo(c->list);
    race_end(&c->race);
    free(c);
}

void connecting_freep(struct connecting **c) { connecting_free(*c); }

static int parse_url(struct connecting *c, const char *url)
{
    uint16_t port;

    if (strncmp(url, "tcp://", 6) == 0 || strncmp(url, "tls://", 6) == 0) {
        c->framing = SP_TCP;
        if (addr_split(url + 6, strlen(url + 6), c->host, &port) < 0)
            return -EINVAL;
        snprintf(c->port, sizeof(c->port), "%u", (unsigned)port);
        return 0;
    }
    if (strncmp(url, "ipc://", 6) != 0 || url[6] == '\0')
        return -EINVAL;
    c->framing = SP_IPC;
    c->path.sun_family = AF_UNIX;
    if (strlen(url + 6) >= sizeof(c->path.sun_path))
        return -ENAMETOOLONG;
    memcpy(c->path.sun_path, url + 6, strlen(url + 6));
    return 0;
}

int connecting_new(const char *url, struct connecting **out_connecting)
{
    CLEANUP(connecting_freep) struct connecting *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return -ENOMEM;
    c->race.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (c->race.epoll < 0)
        return -errno;
    c->error = -ENXIO;
    r = parse_url(c, url);
    if (r < 0)
        return r;
    *out_connecting = TAKE(&c);
    return 0;
}

/* What cannot be polled for is looked at again and again, ever more rarely. */
static void wake_soon(struct connecting *c)
{
    c->pause_ms = c->pause_ms == 0             ? 1
                  : c->pause_ms < PAUSE_MS_MAX ? c->pause_ms * 2
                                               : PAUSE_MS_MAX;
    c->wake_ms = clock_ms() + c->pause_ms;
}

static int step_unix(struct connecting *c, int *out_fd)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&c->path, sizeof(c->path)) == 0) {
        *out_fd = fd;
        return 0;
    }
    r = -errno;
    close(fd);
    if (r != -EAGAIN)
        return r;
    wake_soon(c); /* the backlog is full */
    return -EINPROGRESS;
}

/* getaddrinfo cannot be given a deadline, so glibc's own helper thread runs it. */
static int look_up_begin(struct connecting *c)
{
    struct gaicb *jobs[1];
    struct lookup *job;
    int r;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};

    /* Numbers first: they need neither a name server nor a thread. */
    r = getaddrinfo(c->host, c->port, &hints, &c->list);
    if (r != EAI_NONAME) {
        c->next = c->list;
        return lookup_error(r);
    }
    job = calloc(1, sizeof(*job));
    if (!job)
        return -ENOMEM;
    memcpy(job->host, c->host, sizeof(job->host));
    memcpy(job->service, c->port, sizeof(job->service));
    job->hints = hints;
    job->hints.ai_flags = AI_NUMERICSERV;
    job->request.ar_name = job->host;
    job->request.ar_service = job->service;
    job->request.ar_request = &job->hints;
    jobs[0] = &job->request;
    r = getaddrinfo_a(GAI_NOWAIT, jobs, 1, NULL);
    if (r != 0) {
        free(job);
        return lookup_error(r);
    }
    c->job = job;
    return 0;
}

static int look_up(struct connecting *c)
{
    int r = c->job ? 0 : look_up_begin(c);

    if (r < 0 || !c->job)
        return r;
    r = gai_error(&c->job->request);
    if (r == EAI_INPROGRESS) {
        wake_soon(c);
        return -EINPROGRESS;
    }
    c->next = c->list = c->job->request.ar_result;
    free(TAKE(&c->job));
    return r == 0 && !c->list ? -ENXIO : lookup_error(r);
}

/* Begins with the next address. 0: connected; -EINPROGRESS: it is in the race, or has failed. */
static int try_next(struct connecting *c, int *out_fd)
{
    int fd = -1, r = begin(c->next, &fd);

    c->next = c->next->ai_next;
    if (r == -EINPROGRESS) {
        r = race_join(&c->race, fd);
        if (r < 0) {
            close(fd);
            return r;
        }
        c->next_ms = clock_ms() + NEXT_ADDRESS_MS;
        return -EINPROGRESS;
    }
    if (r == 0) {
        *out_fd = fd;
        return 0;
    }
    c->error = r;
    return -EINPROGRESS;
}

static int step_tcp(struct connecting *c, int *out_fd)
{
    int r = c->list ? 0 : look_up(c);

    if (r < 0)
        return r;
    for (;;) {
        bool failed = false;

        r = race_look(&c->race, &c->error, &failed, out_fd);
        if (r != -EINPROGRESS)
            return r;
        if (c->race.n == 0 && !c->next)
            return c->error;
        if (!c->next || c->race.n == PENDING_MAX) {
            c->wake_ms = UINT64_MAX;
            return -EINPROGRESS;
        }
        if (c->race.n > 0 && !failed && clock_ms() < c->next_ms) {
            c->wake_ms = c->next_ms;
            return -EINPROGRESS;
        }
        r = try_next(c, out_fd);
        if (r != -EINPROGRESS)
            return r;
    }
}

int connecting_step(struct connecting *c, enum sp_framing *out_framing, int *out_fd)
{
    int r = c->framing == SP_IPC ? step_unix(c, out_fd) : step_tcp(c, out_fd);

    if (r == 0)
        *out_framing = c->framing;
    return r;
}

int connecting_fd(const struct connecting *c) { return c->race.epoll; }

uint64_t connecting_wake_ms(const struct connecting *c) { return c->wake_ms; }

int connect_url(const char *url, uint64_t deadline_ms, enum sp_framing *out_framing, int *out_fd)
{
    CLEANUP(connecting_freep) struct connecting *c = NULL;
    int r = connecting_new(url, &c);

    if (r < 0)
        return r;
    for (;;) {
        r = connecting_step(c, out_framing, out_fd);
        if (r != -EINPROGRESS)
            return r;
        if (clock_ms() >= deadline_ms)
            return -ETIMEDOUT;
        r = connect_wait(c->race.epoll, POLLIN,
                         c->wake_ms < deadline_ms ? c->wake_ms : deadline_ms);
        if (r < 0 && r != -ETIMEDOUT)
            return r;
    }
}
