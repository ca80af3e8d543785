/* serve - the methods of the service: what a caller asks, answered from the registry on nng's own
 * threads, or handed to the node on the main loop.
 *
 *   Lookup, Explain, Introspect of the maps      answered where they arrive, under read locks
 *   the others, and Introspect of the node       posted, bounded
 */
#ifndef DAEMON_SERVE_H
#define DAEMON_SERVE_H

#include <stdatomic.h>
#include "daemon/mailbox.h"
#include "daemon/pages.h"
#include "daemon/ports.h"
#include "daemon/printer.h"
#include "forward/forward.h"
#include "gate/gate.h"
#include "node/node.h"
#include "policy/policy.h"
#include "registry/registry.h"
#include "rpc/canary.h"
#include "rpc/server.h"
#include "web/web.h"

struct reload;
struct report;

/* Everything the methods reach. Filled in before the gate starts; borrowed. */
struct serve {
    Meshd__V1__Registry_Service service; /* first: the methods get it back */
    struct registry *registry;
    struct policy_keeper *policy;
    struct node *node; /* main loop only */
    struct mailbox *box;
    struct gate *gate;
    struct rpc_server *rpc;
    struct ports *ports;     /* main loop only */
    struct printer *printer; /* or NULL */
    struct web *web;         /* or NULL */
    struct forward *forward;
    /* reload.h; main loop only. */
    struct reload *reload;
    int (*reload_now)(struct reload *reload, struct report *out_report);
    struct tls_keeper *tls; /* or NULL */
    char **ingress;         /* of NodeInfo; ends with NULL */
    struct canary *canary;
    struct pages pages;
    struct limits limits;
    const char *peer_id;
    char address[64];   /* the mesh port, as bound */
    char admin[64];     /* the admin port, as bound; "": off */
    uint64_t started_s; /* by the clock as it was then */
    uint64_t started_ms;
    uint32_t heartbeat_ms, peer_timeout_ms; /* as the node has them */
    bool draining;                          /* main loop only */
    atomic_ulong posted;                    /* calls that wait for the main loop */
};

void serve_init(struct serve *serve);
void serve_fini(struct serve *serve);

/* Who is behind a connection number, for rpc_server_settings. ctx: the struct serve. */
bool serve_who(void *ctx, uint32_t conn, struct rpc_caller *out_caller);

/* Whether the caller may do that, which has no name; if not, it was answered so. */
bool serve_may(struct serve *serve, struct rpc_call *call, enum policy_action action);

/* Introspect (serve_introspect.c). */
void serve_introspect(Meshd__V1__Registry_Service *service,
                      const Meshd__V1__IntrospectRequest *request,
                      Meshd__V1__IntrospectReply_Closure closure, void *closure_data);
/* Fills in node and limits, of links and checks as many as have room. Main loop. False: no memory.
 * (serve_node.c) */
bool serve_fill_node(struct serve *serve, struct arena *arena, Meshd__V1__IntrospectReply *reply,
                     size_t room, bool node, bool limits);
/* Of it, the checks; *room: what is left of it. (serve_checks.c) */
bool serve_fill_checks(struct serve *serve, struct arena *arena, size_t *room,
                       Meshd__V1__NodeInfo *info);

/* The newest tombstones, as many as have room. Any thread. False: no memory. */
bool serve_fill_tombstones(struct serve *serve, struct arena *arena,
                           Meshd__V1__IntrospectReply *reply, size_t room);
/* Whether clients may be sent here: every configured peer was live once, or SERVE_READY_MS have
 * passed, and the node is not draining; and a sentence why. Main loop. */
#define SERVE_READY_MS 10000u
bool serve_ready(struct serve *serve, char *out_why, size_t size);
/* How the canonical name would be routed now. Any thread. False: no memory. */
bool serve_fill_explain(struct serve *serve, struct arena *arena, const char *name,
                        Meshd__V1__ExplainReply *reply);
/* Reload (serve_reload.c). */
void serve_reload(Meshd__V1__Registry_Service *service, const Meshd__V1__ReloadRequest *request,
                  Meshd__V1__ReloadReply_Closure closure, void *closure_data);

/* Runs on the main loop in its turn; false: too many wait, and the call was answered so. */
bool serve_post(struct serve *serve, struct rpc_call *call, struct letter *letter);

#endif
