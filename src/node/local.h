/* local - the node's own services: those of the configuration, and those offered under leases.
 *
 * version grows with each change of the list. A name belongs to one lease, or to the configuration.
 * A name of the configuration that a lease took first comes back when that ends. That a service
 * drains by hand stays with its name for as long as somebody offers it here; that it is offered as
 * draining, until it is offered otherwise. Whether its backend answers is forgotten when it is
 * another one.
 */
#ifndef NODE_LOCAL_H
#define NODE_LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/limits.h"
#include "node/health.h"
#include "node/node.h"
#include "node/table.h"

#define LEASE_ID_MAX 64u

struct configured;
struct list;
struct row;

enum { LOCAL_BY_HAND = 1, LOCAL_BY_OFFER = 2 }; /* why a service drains */

struct lease { /* one local name, and who holds it */
    char name[LIMIT_NAME + 1];
    char id[LEASE_ID_MAX + 1];  /* "": the configuration */
    char by[LIMIT_PEER_ID + 1]; /* who offered it over the network; "": this machine */
    uint64_t expires_ms;        /* UINT64_MAX: never */
    unsigned drains;            /* LOCAL_BY_HAND | LOCAL_BY_OFFER; 0: it takes new clients */
    struct health *health;      /* NULL: no check, and every client got through */
    UT_hash_handle hh;
};

struct local {
    struct list *list;
    uint64_t version;
    struct lease *by_name;
    struct configured *configured; /* by name; those that a lease holds, too */
    size_t n_leases;               /* without those of the configuration */
    size_t n_draining;
    uint64_t next_expiry; /* UINT64_MAX: none */
    struct healths healths;
};

int local_init(struct node *n, const struct node_service *services, size_t n_services);
void local_fini(struct node *n);
/* Someone believes that it has this version and has something else: the next one is above it. */
void local_skip_version(struct node *n, uint64_t known);
/* Ends leases whose time is over, and looks at backends. */
void local_tick(struct node *n);

/* node_set_services, node_checked and node_backend_seen. */
int local_set(struct node *n, const struct node_service *services, size_t n_services);
void local_checked(struct node *n, uint64_t look, int error, const char *text);
void local_seen(struct node *n, const char *name, const char *backend, bool ok, const char *text);
size_t local_unhealthy(const struct node *n);
int local_proxy(const struct node *n, const char *name); /* a Meshd__V1__ProxyProtocol */

/* ---- for offer.c ---- */

struct lease *local_find(const struct node *n, const char *name);
/* The lease's service becomes that; a lease that is not there yet is made. 0, -ENOMEM, -ENOSPC. */
int local_put(struct node *n, const struct node_service *service, const char *id, const char *by,
              uint64_t expires_ms);
/* These leases end in one change; names: canonical, of leases. 0 or -ENOMEM. */
int local_end(struct node *n, const char *const *names, size_t n_names, bool expired);
int local_drain(struct node *n, struct lease *lease, bool by_hand); /* 0 or -ENOMEM */

#endif
