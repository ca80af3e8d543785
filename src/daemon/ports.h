/* ports - node/port.h over the gate and rpc: connections, nng sockets, names, clocks.
 *
 * Everything but the callbacks it hands to the gate and to rpc runs on the main loop; those post
 * letters to the mailbox. One `line` is one connection of the gate that this node dialled or was
 * asked for, with the nng socket it is joined with; it ends when the gate and nng both have let go.
 */
#ifndef DAEMON_PORTS_H
#define DAEMON_PORTS_H

#include <uv.h>
#include "base/limits.h"
#include "daemon/mailbox.h"
#include "forward/forward.h"
#include "gate/gate.h"
#include "node/node.h"

struct ports;

struct ports_settings {
    uv_loop_t *loop;
    struct mailbox *box;
    const char *dir;             /* private: nng's ipc paths; copied */
    const char *peer_id;         /* copied */
    const struct limits *limits; /* copied */
    bool near_only; /* plaintext, and addresses that are not loopback are not dialled */
    void (*event)(void *ctx, const struct node_event *event);
    void *ctx;
};

int ports_new(const struct ports_settings *settings, struct ports **out_ports);
/* What the gate calls; valid before ports_attach, which must come before gate_start. */
struct gate_ops ports_gate_ops(struct ports *ports);
void ports_attach(struct ports *ports, struct gate *gate);
/* Who carries clients; before gate_start, borrowed until the last line has ended. */
void ports_set_forward(struct ports *ports, struct forward *forward);
/* Dial from here, where that can reach the target; AF_UNSPEC: the kernel chooses. */
void ports_set_from(struct ports *ports, const struct sockaddr_storage *from);
void ports_set_node(struct ports *ports, struct node *node);
struct node_port ports_node_port(struct ports *ports);
/* What the forward room calls, but `ended`; until ports_free. */
struct forward_ops ports_forward_ops(struct ports *ports);
/* Lines that have not ended yet. */
size_t ports_lines(const struct ports *ports);
/* Names being resolved: their callbacks need ports and node. */
size_t ports_resolving(const struct ports *ports);
void ports_set_limits(struct ports *ports, const struct limits *limits); /* copied */
void ports_free(struct ports *ports); /* after the gate has stopped; accepts NULL */

struct ports_counters {
    uint64_t lines, req_sockets, pair_sockets; /* gauges */
    uint64_t pipes_added, pipes_removed;       /* of the links' sockets */
    uint64_t largest_queue;                    /* gauge: bytes queued towards one peer */
    uint64_t overflows, resolves, resolves_failed;
};
void ports_counters(const struct ports *ports, struct ports_counters *out_counters);

#endif
