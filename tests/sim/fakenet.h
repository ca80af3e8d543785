/* fakenet - many nodes in one process, on fake time and a network that behaves badly on purpose.
 *
 * A host has an address, a clock that may be wrong, and at most one running node, which lives until
 * it is killed or quits. Connections behave like TCP: nothing is lost, repeated or reordered inside
 * one; a path that is cut stalls them (both ends notice after a while, or hear of it at once when
 * the other end is reachable and knows nothing of them). Real frames travel. One seed decides all.
 */
#ifndef SIM_FAKENET_H
#define SIM_FAKENET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "node/node.h"

struct fakenet;

#define FAKENET_SERVICES_MAX 64u
#define FAKENET_DIALS_MAX 16u
#define FAKENET_BACKENDS 8u

struct fakenet_settings {
    uint64_t seed;
    uint32_t delay_min_ms, delay_max_ms;    /* of one way */
    uint32_t loss_permille;                 /* messages that come late, as lost packets make them */
    uint32_t break_permille;                /* of these: the connection breaks instead */
    uint32_t heartbeat_ms, peer_timeout_ms; /* 0: 3000 and 30000 */
};

struct fakenet_host {
    struct fakenet *net;
    size_t index;
    char id[LIMIT_PEER_ID + 1];
    struct node_addr addr;
    bool listens, refuses; /* refuses: as if nothing listened */
    int64_t skew_us;       /* of its wall clock */
    uint64_t incarnation;  /* of its next life; 0: by its clock */
    struct {
        char host[64], expected[LIMIT_PEER_ID + 1];
        uint16_t port;
    } dials[FAKENET_DIALS_MAX];
    size_t n_dials;
    char services[FAKENET_SERVICES_MAX][2][64]; /* name and backend, of the next life */
    size_t n_services;

    struct node *node; /* NULL: not running */
    struct registry *registry;
    struct node_port port;
    struct limits limits;
    uint32_t life; /* counts them */
    bool paused;   /* SIGSTOP: the kernel goes on, the node does not */
    uint64_t died_ms, resumed_ms;
    uint64_t armed_ms;
    struct fakenet_event *deferred, **deferred_end;

    uint32_t events[NODE_EVENTS]; /* by enum node_event_kind, since it was added */
    char last_text[NODE_EVENTS][LIMIT_STATUS_TEXT + 1];
    struct { /* the answer of the last fakenet_offer or fakenet_withdraw */
        uint32_t status;
        int reason;
    } answer;
    uint64_t bytes_sent;
    /* Of clients' forwards, since it was added: */
    uint32_t sessions, forwards, wishes, wished; /* begun; messages heard; heard and the last */
    uint32_t wanted;                             /* what it wishes itself */
    bool busy;                                   /* forwards are being opened on all its links */
    struct {                                     /* those that were ever down */
        char address[64];
        bool down;
        uint32_t looks; /* under way */
    } backends[FAKENET_BACKENDS];
};

struct fakenet *fakenet_new(const struct fakenet_settings *settings);
void fakenet_free(struct fakenet *net);
uint64_t fakenet_now(const struct fakenet *net);
uint64_t fakenet_random(struct fakenet *net, uint64_t below);
size_t fakenet_hosts(const struct fakenet *net);
struct fakenet_host *fakenet_at(struct fakenet *net, size_t index);

/* A host that is not running yet. */
struct fakenet_host *fakenet_add(struct fakenet *net, const char *id, const char *ip,
                                 uint16_t port);
void fakenet_dial(struct fakenet_host *host, const char *name, uint16_t port, const char *expected);
/* What host->dials says now is what it dials. Running, not paused. */
void fakenet_redial(struct fakenet_host *host);
void fakenet_service(struct fakenet_host *host, const char *name, const char *backend);
/* name is ip from now on; a second call moves it; "": it does not resolve. */
void fakenet_name(struct fakenet *net, const char *name, const char *ip);

void fakenet_boot(struct fakenet_host *host);
void fakenet_kill(struct fakenet_host *host);  /* kill -9 */
void fakenet_drain(struct fakenet_host *host); /* SIGTERM */
void fakenet_quit(struct fakenet_host *host);  /* ... when nothing runs any more */
void fakenet_pause(struct fakenet_host *host);
void fakenet_resume(struct fakenet_host *host);
/* Packets between the two, either way, vanish. */
void fakenet_cut(struct fakenet_host *a, struct fakenet_host *b, bool cut);
bool fakenet_is_cut(const struct fakenet_host *a, const struct fakenet_host *b);
/* Every connection of the host breaks, with an error at both ends. */
void fakenet_break(struct fakenet_host *host);

/* A message of Forwards from a to b, on a session of theirs. False: a has none that is up. */
bool fakenet_forward(struct fakenet_host *a, struct fakenet_host *b);
/* What the port was told of sessions and must not have been, so far. */
uint32_t fakenet_wrong(const struct fakenet *net);

/* Through the host's local socket; answered before they return, see host->answer. */
void fakenet_offer(struct fakenet_host *host, const char *lease, const char *name,
                   const char *backend, uint64_t ttl_ms);
void fakenet_withdraw(struct fakenet_host *host, const char *lease, const char *name);

/* The host's backend answers, or does not. */
void fakenet_backend(struct fakenet_host *host, const char *address, bool up);
bool fakenet_backend_up(const struct fakenet_host *host, const char *address);
/* As fakenet_offer, with a check by TCP. */
void fakenet_offer_checked(struct fakenet_host *host, const char *lease, const char *name,
                           const char *backend, uint32_t interval_ms);
void fakenet_drain_service(struct fakenet_host *host, const char *name, bool enable);
/* A client is brought to it. */
void fakenet_client(struct fakenet_host *host, const char *name, const char *backend);
/* The flags of the owner's entry, as viewer has it; -1: it has none. */
int fakenet_flags(struct fakenet_host *viewer, struct fakenet_host *owner, const char *name);

void fakenet_run(struct fakenet *net, uint64_t ms);
/* False when done did not come true within ms. */
bool fakenet_run_until(struct fakenet *net, uint64_t ms, bool (*done)(void *ctx), void *ctx);

/* viewer has owner's list as it is, under whatever label. */
bool fakenet_agrees(struct fakenet_host *viewer, struct fakenet_host *owner);
/* Both ends of a link are live, and each has the other's list as it is. */
bool fakenet_linked(struct fakenet_host *a, struct fakenet_host *b);
bool fakenet_live(struct fakenet_host *a, struct fakenet_host *b); /* as a sees it */
/* Rows of the peer that viewer has; -1: no record. */
long fakenet_rows(struct fakenet_host *viewer, const char *peer_id);

#endif
