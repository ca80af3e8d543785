/* bridge - a TLS client whose plain side is a socket, so that what is written for plain connections
 * runs over TLS as it stands: bytes, half-closes and resets pass through, in both directions. */
#ifndef TESTS_GATE_BRIDGE_H
#define TESTS_GATE_BRIDGE_H

#include "tls/support.h"

/* Trusts ca and shows a certificate of it that names `names` ("DNS:n7,DNS:n8"). */
struct tls_keeper *keeper_of(const char *name, const struct issued *ca, const char *names);

/* Takes fd, a connected TCP socket. The plain side, blocking; the rest is a thread's, until either
 * side ends. */
int bridge(struct tls_keeper *keeper, int fd);
/* Each rig begins and ends with these; the last one to go ends all bridges and waits for it. */
void bridges_start(void);
void bridges_stop(void);

#endif
