/* ingress - listening and accepting. Every worker polls the same listening sockets, each on its own
 * loop, and takes a few clients at a time, so that the others get theirs.
 */
#include "forward/ingress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "forward/client.h"

#define BACKLOG 4096
#define ACCEPTS_PER_EVENT 8u
#define ACCEPTS_AT_THE_END 4096u /* no more than the queue can hold */
#define REST_MS 100u /* without descriptors nothing gets better by asking at once again */

struct ingress_poll { /* one port under one worker's loop */
    struct ingress_poll *next;
    struct worker *worker;
    struct ingress *port;
    struct leg *leg;
    int spare_fd;
    struct alarm rested;
};

/* ---- ports ---- */

static int copy_port(struct ingress *port, const struct forward_ingress *settings)
{
    size_t bytes = settings->n_proxy_from * sizeof(*settings->proxy_from);

    snprintf(port->host, sizeof(port->host), "%s", settings->host);
    snprintf(port->name, sizeof(port->name), "%s", settings->name);
    snprintf(port->fallback, sizeof(port->fallback), "%s", settings->fallback);
    port->port = settings->port;
    port->accept_bare_lf = settings->accept_bare_lf;
    if (bytes == 0)
        return 0;
    port->proxy_from = malloc(bytes);
    if (!port->proxy_from)
        return -ENOMEM;
    memcpy(port->proxy_from, settings->proxy_from, bytes);
    port->n_proxy_from = settings->n_proxy_from;
    return 0;
}

int ingress_new(struct forward *forward, const struct forward_ingress *settings, size_t n)
{
    if (n == 0)
        return 0;
    forward->ingress = calloc(n, sizeof(*forward->ingress));
    if (!forward->ingress)
        return -ENOMEM;
    forward->n_ingress = n;
    for (size_t i = 0; i < n; i++)
        forward->ingress[i].fd = -1;
    for (size_t i = 0; i < n; i++) {
        int r = copy_port(&forward->ingress[i], &settings[i]);

        if (r < 0)
            return r;
    }
    return 0;
}

void ingress_close(struct forward *forward)
{
    for (size_t i = 0; i < forward->n_ingress; i++) {
        if (forward->ingress[i].fd >= 0)
            close(forward->ingress[i].fd);
        forward->ingress[i].fd = -1;
    }
}

void ingress_free(struct forward *forward)
{
    ingress_close(forward);
    for (size_t i = 0; i < forward->n_ingress; i++)
        free(forward->ingress[i].proxy_from);
    free(forward->ingress);
    forward->ingress = NULL;
    forward->n_ingress = 0;
}

/* What is set on a listening socket holds for whatever it accepts. */
static void set_options(int fd)
{
    const int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* A byte marked urgent keeps its place in the stream, and among the first words. */
    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

bool ingress_wants_header(const struct ingress *port, const struct in6_addr *ip)
{
    for (size_t i = 0; i < port->n_proxy_from; i++)
        if (network_has(port->proxy_from[i].ip, port->proxy_from[i].bits, ip))
            return true;
    return false;
}

static int listen_at(const struct sockaddr_storage *addr, int v6_only)
{
    bool v6 = addr->ss_family == AF_INET6;
    socklen_t len = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    set_options(fd);
    if ((v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only)) < 0) ||
        bind(fd, (const struct sockaddr *)addr, len) < 0 || listen(fd, BACKLOG) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    return fd;
}

static int listen_on(const struct ingress *port)
{
    struct sockaddr_storage addr = {.ss_family = AF_INET6};
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
    int fd;

    v6->sin6_port = htons(port->port);
    if (port->host[0] != '\0' && inet_pton(AF_INET6, port->host, &v6->sin6_addr) == 1)
        return listen_at(&addr, true);
    if (port->host[0] == '\0') {
        fd = listen_at(&addr, false);
        if (fd != -EAFNOSUPPORT && fd != -EADDRNOTAVAIL)
            return fd;
    }
    addr = (struct sockaddr_storage){.ss_family = AF_INET};
    v4->sin_port = htons(port->port);
    if (port->host[0] != '\0' && inet_pton(AF_INET, port->host, &v4->sin_addr) != 1)
        return -EINVAL;
    return listen_at(&addr, false);
}

int ingress_listen(struct forward *forward, size_t index, char *out_text, size_t size)
{
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof(addr);
    char ip[INET6_ADDRSTRLEN];
    int fd = listen_on(&forward->ingress[index]);

    if (fd < 0)
        return fd;
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    if (addr.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr;

        snprintf(out_text, size, "[%s]:%u", inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof(ip)),
                 ntohs(v6->sin6_port));
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr;

        snprintf(out_text, size, "%s:%u", inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof(ip)),
                 ntohs(v4->sin_port));
    }
    forward->ingress[index].fd = fd;
    return 0;
}

/* ---- accepting ---- */

static void open_spare(struct ingress_poll *listening)
{
    listening->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Without a descriptor the client would stay in the queue and wake the loop for ever. */
static void turn_away(struct ingress_poll *listening)
{
    int fd;

    if (listening->spare_fd >= 0)
        close(listening->spare_fd);
    fd = accept4(listening->port->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        COUNT(listening->worker, accepted, 1);
        COUNT(listening->worker, closed_no_descriptor, 1);
        client_turn_away(fd);
    }
    open_spare(listening);
}

/* False: there are no descriptors left. */
static bool accept_some(struct ingress_poll *listening, unsigned most)
{
    for (unsigned i = 0; i < most; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof(from);
        int fd = accept4(listening->port->fd, (struct sockaddr *)&from, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            client_accepted(listening->worker, listening->port, fd, &from);
        } else if (errno == EMFILE || errno == ENFILE) {
            turn_away(listening);
            return false;
        } else if (errno == ENOBUFS || errno == ENOMEM) {
            return false;
        } else if (errno == EAGAIN) {
            return true;
        }
        /* Else it is an error of that one client (accept(2)): the next may be well. */
    }
    return true;
}

static void on_listening(struct leg *leg, int events)
{
    struct ingress_poll *listening = leg->owner;

    if (accept_some(listening, ACCEPTS_PER_EVENT) && !leg->deaf) {
        leg_want(leg, UV_READABLE);
    } else {
        leg_want(leg, 0);
        alarm_set(listening->worker, &listening->rested, REST_MS);
    }
}

static void on_rested(struct alarm *alarm)
{
    struct ingress_poll *listening = CONTAINER_OF(alarm, struct ingress_poll, rested);

    listening->leg->deaf = false;
    leg_want(listening->leg, UV_READABLE);
}

int ingress_worker_start(struct worker *worker)
{
    struct forward *forward = worker->forward;

    for (size_t i = 0; i < forward->n_ingress; i++) {
        struct ingress_poll *listening;

        if (forward->ingress[i].fd < 0)
            continue;
        listening = calloc(1, sizeof(*listening));
        if (!listening)
            return -ENOMEM;
        listening->leg = leg_new(worker, forward->ingress[i].fd);
        if (!listening->leg) {
            free(listening);
            return -ENOMEM;
        }
        listening->leg->owner = listening;
        listening->leg->ready = on_listening;
        listening->leg->listens = true;
        listening->worker = worker;
        listening->port = &forward->ingress[i];
        alarm_init(&listening->rested, on_rested);
        open_spare(listening);
        listening->next = worker->listening;
        worker->listening = listening;
        leg_want(listening->leg, UV_READABLE);
    }
    return 0;
}

/* The last worker closes the port: whoever comes then is refused by the kernel at once. */
static void leave_port(struct forward *forward, struct ingress *port)
{
    if (atomic_fetch_add(&port->left, 1) + 1 < forward->n_workers)
        return;
    close(port->fd);
    port->fd = -1;
}

static void close_polls(struct worker *worker)
{
    while (worker->listening) {
        struct ingress_poll *listening = worker->listening;

        worker->listening = listening->next;
        alarm_clear(worker, &listening->rested);
        if (listening->spare_fd >= 0)
            close(listening->spare_fd);
        leg_detach(listening->leg, NULL);
        leave_port(worker->forward, listening->port);
        free(listening);
    }
}

void ingress_worker_drain(struct worker *worker)
{
    /* Whoever is in the queue has been told by the kernel that it is connected. */
    for (struct ingress_poll *at = worker->listening; at; at = at->next)
        accept_some(at, ACCEPTS_AT_THE_END);
    close_polls(worker);
}

void ingress_worker_stop(struct worker *worker)
{
    close_polls(worker);
    clients_reset(worker);
}
