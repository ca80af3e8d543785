/* tcp - what every TCP connection between two nodes has in common: its options, and how it is
 * begun. Any thread.
 */
#ifndef GATE_TCP_H
#define GATE_TCP_H

#include <stdbool.h>
#include <sys/socket.h>

/* Nagle off, dead peers noticed in less than 10 s. Of a listening socket: what it accepts inherits
 * them. */
void tcp_options(int fd);
/* A non-blocking socket whose connect has begun, without these options yet; from->ss_family
 * AF_UNSPEC: the kernel chooses. It is decided, by SO_ERROR, when the socket is writable. The
 * descriptor, or a negative errno. */
int tcp_dial(const struct sockaddr_storage *to, const struct sockaddr_storage *from);
/* A port of this host that nobody listens on can be dialled from that very port: TCP then connects
 * the socket with itself (RFC 9293 3.5). That is a refusal. */
bool tcp_met_itself(int fd);

#endif
