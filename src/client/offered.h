/* offered - what a program offers, from its own words to the message that a node is sent. */
#ifndef CLIENT_OFFERED_H
#define CLIENT_OFFERED_H

#include <stdbool.h>
#include <meshd/client.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/limits.h"

struct offered {
    char name[LIMIT_NAME + 1], backend[LIMIT_BACKEND + 1]; /* canonical both */
    Meshd__V1__Check check;                                /* of kind NONE: there is none */
    char path[LIMIT_CHECK_PATH + 1];                       /* of the check */
    Meshd__V1__ProxyProtocol proxy;
    bool draining;
};

/* offer NULL: as mesh_register offers it. MESH_INVALID: something cannot be. What only a node knows
 * to be too small or too large, it says itself. */
enum mesh_status offered_read(const char *name, const char *address, const struct mesh_offer *offer,
                              struct offered *out);
/* What is NULL stays. Unless MESH_OK comes back, nothing has changed. */
enum mesh_status offered_change(struct offered *offered, const char *address,
                                const struct mesh_offer *offer);
/* All but the lease and its time; for as long as *offered stays as and where it is. */
void offered_request(struct offered *offered, Meshd__V1__OfferRequest *out_request);

#endif
