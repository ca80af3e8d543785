/* clients - the forward room as the settings want it, and the ports where clients connect. */
#ifndef DAEMON_CLIENTS_H
#define DAEMON_CLIENTS_H

#include "daemon/config.h"
#include "forward/forward.h"
#include "registry/registry.h"

/* 0 and *out_forward, or a negative errno. registry, tls (NULL: plaintext) and policy are borrowed
 * until forward_free. */
int clients_new(const struct config *config, struct registry *registry, struct tls_keeper *tls,
                struct policy_keeper *policy, const struct forward_ops *ops,
                struct forward **out_forward);
/* Binds every ingress port, before forward_start; which one cannot be bound is told. Of each a text
 * for NodeInfo ("127.0.0.1:80 default=web"); ends with NULL, and clients_texts_free ends it. */
int clients_listen(const struct config *config, struct forward *forward, char ***out_texts);
void clients_texts_free(char **texts); /* accepts NULL */

#endif
