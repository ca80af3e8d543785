/* inside - the whole that the files of the room share; nobody else includes it.
 *
 *   worker.c   a loop, legs, alarms, mail      ingress.c  listeners, first words, refusals
 *   source.c   how many clients an address has first.c    first bytes: which protocol, which name
 *   route.c    candidates, the choice, why     reply.c    what a client is told that was not joined
 *   carry.c    one client on its way           owner.c    a peer's client on its way to a backend
 *   session.c  links' sessions                 data.c     DATA connections, pools, who waits for
 * one backend.c  dialling, names                 relay.c    one leg joined with another
 *                                                pipes.c    the pool of pipes for that
 */
#ifndef FORWARD_INSIDE_H
#define FORWARD_INSIDE_H

#include <stdatomic.h>
#include "forward/forward.h"
#include "forward/worker.h"

struct names;    /* backend.c */
struct sources;  /* source.c */
struct sessions; /* session.c */
struct meeting;  /* data.c: forward ids and who waits for which */
struct failures; /* route.c */
struct ingress;  /* ingress.c: a listener */

struct forward {
    char peer_id[LIMIT_PEER_ID + 1];
    struct limits limits;
    struct registry *registry;
    uint32_t route_ms, dial_ms, open_ms, idle_ms, half_close_ms;
    struct forward_ops ops;
    struct forward_backend *backends; /* by name */
    size_t n_backends;
    struct ingress *ingress;
    size_t n_ingress;
    unsigned n_workers;
    struct worker *workers;
    atomic_bool draining;
    _Atomic uint64_t drain_ms; /* when that began, on clock_ms; 0: not */
    atomic_size_t clients, pending, served;
    atomic_uint next_worker;
    struct names *names;
    struct sources *sources;
    struct sessions *sessions;
    struct meeting *meeting;
    struct failures *failures;
    struct { /* counted on other threads than workers' */
        atomic_uint_fast64_t messages_bad, forwards_received, data_accepted, data_unexpected;
        atomic_uint_fast64_t resolves, resolves_failed;
    } count;
};

/* What the backend of a local service wants to be told first. */
enum proxy_version forward_proxy_of(const struct forward *forward, const char *name);

#endif
