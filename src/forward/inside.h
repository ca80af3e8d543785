/* inside - the whole that the files of the room share; nobody else includes it.
 *
 *   worker.c   a loop, alarms, mail           leg.c      sockets, with TLS or without
 *   ingress.c  listeners, accepting           client.c   one client's life
 *   words.c    what it says first             first.c    which protocol, which name
 *   source.c   how many clients of an address reply.c    what is told to who is not joined
 *   route.c    candidates, the choice, why    carry.c    one client on its way
 *   owner.c    a peer's client, to a backend  service.c  how many forwards of a service
 *   session.c  links' sessions                outbox.c   Forwards that leave together
 *   data.c     DATA connections               pool.c     warm ones
 *   dial.c     ... of this side's dialling    arrive.c   ... of the other's
 *   meeting.c  who has which forward id       recheck.c  who would still be let in
 *   backend.c  dialling                       names.c    what backends' hosts resolve to
 *   relay.c    one leg joined with another    pipes.c    pipes for that
 *   passage.c  a client that was joined       record.c   what a log is told of its end
 *   doubt.c    ... where the owner may be gone
 *   seen.c     backends that failed           check.c    a look at one
 */
#ifndef FORWARD_INSIDE_H
#define FORWARD_INSIDE_H

#include <stdatomic.h>
#include "forward/forward.h"
#include "forward/worker.h"

struct names;    /* names.c */
struct sources;  /* source.c */
struct sessions; /* session.c */
struct meeting;  /* meeting.c: forward ids and who waits for which */
struct failures; /* route.c */
struct services; /* service.c */
struct seen;     /* seen.c: backends that failed */
struct ingress;  /* ingress.c: a listener */

struct forward {
    char peer_id[LIMIT_PEER_ID + 1];
    struct limits limits;
    struct registry *registry;
    uint32_t route_ms, dial_ms, open_ms, idle_ms, half_close_ms;
    struct policy_keeper *policy; /* NULL: no rule */
    struct forward_ops ops;
    struct tls_keeper *tls; /* NULL: plaintext */
    struct ingress *ingress;
    size_t n_ingress;
    unsigned n_workers;
    struct worker *workers;
    atomic_bool draining;
    _Atomic uint64_t drain_ms;   /* when that began, on clock_ms; 0: not */
    _Atomic uint64_t changed_ms; /* the last forward_check_again, likewise */
    atomic_size_t clients, pending, served;
    atomic_uint next_worker;
    atomic_int records; /* an enum forward_records */
    struct names *names;
    struct sources *sources;
    struct sessions *sessions;
    struct meeting *meeting;
    struct failures *failures;
    struct services *services;
    struct seen *seen;
    struct { /* counted on other threads than workers' */
        atomic_uint_fast64_t messages_bad, forwards_received, data_accepted, data_unexpected;
        atomic_uint_fast64_t resolves, resolves_failed;
    } count;
};

struct worker *forward_next_worker(struct forward *forward); /* in turn; any thread */
/* Forwards are served no more: the node drains, and what was on its way has come. Any thread. */
bool forward_refuses(const struct forward *forward);
/* A backend was connected for a client: says who that is, if the service's row says that it is to
 * be told. False: it did not take it. */
struct tuple;
bool forward_introduce(struct leg *leg, unsigned row_flags, const struct tuple *tuple);
#endif
