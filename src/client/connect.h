/* connect - from a URL to a connected, non-blocking descriptor, within one deadline.
 *
 *   tcp://host:port, tcp://[v6]:port   SP-over-TCP
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
 * says: -EINVAL: no such URL; -ENOTSUP: tls://, which this version cannot; -ENAMETOOLONG: the path
 * of a Unix socket; -ENXIO: no address for that name; -ETIMEDOUT. */
int connect_url(const char *url, uint64_t deadline_ms, enum sp_framing *out_framing, int *out_fd);

/* Waits for events of poll(2) on fd (or an error of it). 0 or -ETIMEDOUT. */
int connect_wait(int fd, short events, uint64_t deadline_ms);

#endif
