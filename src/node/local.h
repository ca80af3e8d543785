/* local - the node's own services: those of the configuration, and those offered under leases.
 *
 * version grows with each change of the list. A name belongs to one lease, or to the configuration.
 */
#ifndef NODE_LOCAL_H
#define NODE_LOCAL_H

#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/limits.h"

struct lease;
struct list;
struct node;
struct node_caller;
struct node_service;

struct local {
    struct list *list;
    uint64_t version;
    struct lease *by_name;
    size_t n_leases;      /* without those of the configuration */
    uint64_t next_expiry; /* UINT64_MAX: none */
};

int local_init(struct node *n, const struct node_service *services, size_t n_services);
void local_fini(struct node *n);
/* Someone believes that it has this version and has something else: the next one is above it. */
void local_skip_version(struct node *n, uint64_t known);
/* Ends leases whose time is over. */
void local_tick(struct node *n);

/* node_offer and node_withdraw: answered before they return. */
void local_offer(struct node *n, uint64_t call, const struct node_caller *caller,
                 const Meshd__V1__OfferRequest *request);
void local_withdraw(struct node *n, uint64_t call, const struct node_caller *caller,
                    const Meshd__V1__WithdrawRequest *request);

#endif
