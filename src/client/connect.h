/* connect - from a URL to a connected, non-blocking descriptor, within one deadline.
 *
 *   tcp://host:port, tcp://[v6]:port   SP-over-TCP
 *   tls://host:port, tls://[v6]:port   the same inside TLS, which begins afterwards (trust.h)
 *   ipc://path                         SP-over-IPC, on a Unix socket
 *
 * A name is looked up once; its addresses are tried in the order of getaddrinfo, the next one when
 * the one before has failed or has said nothing for 250 ms, and the first to answer wins (after
 * RFC 8305). So one dead address of two costs a quarter of a second, and a refusal nothing.
 */
#ifndef CLIENT_CONNECT_H
#define CLIENT_CONNECT_H

#include <stdint.h>
#include "wire/sp.h"

/* Opens a descriptor that is the caller's. deadline_ms is on clock_ms(). Besides what connect(2)
 * says: -EINVAL: no such URL; -ENAMETOOLONG: the path of a Unix socket; -ENXIO: no address for
 * that name; -ETIMEDOUT. */
int connect_url(const char *url, uint64_t deadline_ms, enum sp_framing *out_framing, int *out_fd);

/* The same as an attempt that never waits. Nothing is dialled by _new: 0, -ENOMEM, or what is wrong
 * with the URL, as above. */
struct connecting;
int connecting_new(const char *url, struct connecting **out_connecting);
void connecting_free(struct connecting *connecting); /* accepts NULL */
void connecting_freep(struct connecting **connecting);
/* 0: connected; -EINPROGRESS: step again when _fd is readable or the time _wake_ms has come; else
 * the attempt has failed, as connect_url would. After anything but -EINPROGRESS it is over. */
int connecting_step(struct connecting *connecting, enum sp_framing *out_framing, int *out_fd);
int connecting_fd(const struct connecting *connecting);
uint64_t connecting_wake_ms(const struct connecting *connecting); /* UINT64_MAX: none */

/* Waits for events of poll(2) on fd (or an error of it). 0 or -ETIMEDOUT. */
int connect_wait(int fd, short events, uint64_t deadline_ms);

#endif
