/* forwarding - the forward room as the settings want it, and its slow end. Main thread. */
#ifndef DAEMON_FORWARDING_H
#define DAEMON_FORWARDING_H

#include "daemon/config.h"
#include "daemon/ports.h"
#include "daemon/serve.h"
#include "forward/forward.h"

/* Not started yet. */
int forwarding_new(const struct config *config, struct registry *registry, struct ports *ports,
                   struct forward **out_forward);
/* Binds the ingress ports, and says so: in the log, and to `serve` for Introspect. An error was told. */
int forwarding_listen(const struct config *config, struct forward *forward, struct serve *serve);

#endif
