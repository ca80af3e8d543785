/* register - Register and Deregister: what a peer asks before it has a link. */
#ifndef NODE_REGISTER_H
#define NODE_REGISTER_H

#include "node/peer.h"

/* node_register and node_deregister. */
void register_peer(struct node *n, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__RegisterRequest *request);
void deregister_peer(struct node *n, uint64_t call, const struct node_caller *caller,
                     const Meshd__V1__DeregisterRequest *request);
/* The probe on behalf of a call that waits ended. id may have no record any more. */
void register_on_probed(struct node *n, const char *id, const struct probe *probe, bool in_use,
                        const char *where);

#endif
