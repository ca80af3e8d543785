/* spares - descriptors held back, so that who asks whether the node is well is answered also when
 * the rest of the process has used up all others.
 *
 * Two for each request: the connection, and libmicrohttpd's. Wherever it can be, one takes the
 * other's place in one step (dup3), so that no other thread comes between; between a close and an
 * accept one may, and what is lost so is made up for by spares_fill. On one thread.
 */
#ifndef WEB_SPARES_H
#define WEB_SPARES_H

#include <sys/socket.h>

#define SPARES_A_REQUEST 2u
#define SPARES (4u * SPARES_A_REQUEST)

struct spares {
    int null_fd; /* what they are copies of */
    unsigned n;
    int fds[SPARES];
};

int spares_init(struct spares *spares); /* 0, or a negative errno */
void spares_fini(struct spares *spares);
/* As many as there are to be, if there are descriptors again. */
void spares_fill(struct spares *spares);
/* One of them is given up for it. As accept4: the descriptor, or -1 and errno. */
int spares_accept(struct spares *spares, int listener, struct sockaddr *from, socklen_t *len);
/* A copy of fd in the place of one; -1: there is none. */
int spares_dup(struct spares *spares, int fd);
/* Closes fd; one takes its place if one lacks. */
void spares_close(struct spares *spares, int fd);

#endif
