/* listen - descriptors, and the mesh port and the local socket bound as the settings want them.
 * Main thread. */
#ifndef DAEMON_LISTEN_H
#define DAEMON_LISTEN_H

#include "daemon/config.h"
#include "gate/gate.h"

/* As many descriptors as this process may have. -EMFILE, and told, when there are too few to begin
 * with: neither nng nor libuv fail well then. */
int listen_descriptors(const struct config *config);
/* Warns when there are fewer than the limits may come to need. */
void listen_warn(const struct config *config);
/* Both doors of the gate, the local one as the owner's (privileges.h) with socket_mode and
 * socket_group; what cannot be bound is told. *out_text: the mesh port as bound;
 * *out_from: the address to dial from, or left as it was. Not below 0, or a negative errno. */
int listen_open(const struct config *config, struct gate *gate, const char *socket_path,
                char *out_text, size_t size, struct sockaddr_storage *out_from);

#endif
