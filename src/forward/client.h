/* client - one client of an ingress port, from accept until its connection is gone.
 *
 * What ingress.h promises about a client is kept here; ingress.c accepts them. Threads: the
 * worker's.
 */
#ifndef FORWARD_CLIENT_H
#define FORWARD_CLIENT_H

#include "forward/inside.h"

struct ingress { /* a port: but for `left`, nothing of it changes while a worker accepts */
    char host[LIMIT_IP_TEXT];
    uint16_t port;
    char name[LIMIT_NAME + 1], fallback[LIMIT_NAME + 1];
    bool accept_bare_lf;
    struct forward_network *proxy_from;
    size_t n_proxy_from;
    int fd;           /* -1: not bound, or closed */
    atomic_uint left; /* workers that accept no more */
};

/* Takes fd, which must be non-blocking. */
void client_accepted(struct worker *worker, const struct ingress *port, int fd,
                     const struct sockaddr_storage *from);
/* Takes fd: it is reset, as an end would be taken for an empty answer. */
void client_turn_away(int fd);
/* Those of the worker that are not joined. */
void clients_reset(struct worker *worker);

#endif
