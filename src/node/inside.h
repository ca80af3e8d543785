/* inside - struct node, and what its files share. */
#ifndef NODE_INSIDE_H
#define NODE_INSIDE_H

#include <string.h>
#include "node/dialer.h"
#include "node/link.h"
#include "node/local.h"
#include "node/node.h"
#include "node/peer.h"
#include "node/sync.h"
#include "policy/policy.h"
#include "wire/check.h"

#define REASON(name) MESHD__V1__REASON__REASON_##name
#define KIND(name) MESHD__V1__LINK_KIND__LINK_KIND_##name
#define GOODBYE(name) MESHD__V1__GOODBYE_REASON__GOODBYE_REASON_##name

struct node {
    char peer_id[LIMIT_PEER_ID + 1];
    uint64_t incarnation;
    uint32_t heartbeat_ms, peer_timeout_ms, open_timeout_ms, call_timeout_ms;
    struct limits limits;
    struct registry *registry;
    const struct node_port *port;
    struct policy_keeper *policy; /* NULL: no rule */

    struct local local;
    struct dialer **dialers; /* in the order of the settings */
    size_t n_dialers;
    struct link *links; /* by number */
    struct peer *peers; /* by id */

    uint64_t now_ms; /* of the call at hand */
    uint64_t now_us; /* likewise; 0: the port has no such clock */
    uint64_t began_us;
    uint64_t next_ms;  /* when node_tick has work */
    uint64_t grace_ms; /* nobody is declared silent before: we were late ourselves */
    uint64_t last_number;
    uint64_t staged_rows; /* in all stagings together */
    uint64_t denied_rows; /* of all peers: offered, and kept out of the maps by the policy */
    uint64_t mesh_ms;     /* somebody looked at the whole mesh: when that is out of date */
    bool started, draining, stopped, maps_changed;
    struct arena arena;          /* of the message at hand */
    Meshd__V1__Service *scratch; /* of the message being packed */
    Meshd__V1__Service **scratch_at;
    char **scratch_names;
    size_t scratch_cap;
    struct node_counters counters;
};

uint64_t node_wall_s(const struct node *n);
uint64_t node_random(const struct node *n);
uint64_t node_number(struct node *n); /* for the port; never 0, top bit clear */
/* The silence that makes a link suspect: three heartbeats missed, and at most 10 s. */
uint64_t node_silence_ms(const struct node *n);
/* node_tick has work at that time, or earlier. */
void node_due(struct node *n, uint64_t at_ms);
void node_event(struct node *n, enum node_event_kind kind, const char *peer_id,
                const struct node_addr *addr, const char *text);
/* The address as text; "": none. */
void node_event_at(struct node *n, enum node_event_kind kind, const char *peer_id,
                   const char *address, const char *text);
void node_changed(struct node *n, const struct registry_change *change);
void node_reply(struct node *n, uint64_t call, enum status status, int reason, const char *text,
                const ProtobufCMessage *message);
/* Whether the policy lets subject do that; if it does not, out_text is what is to be told. */
bool node_may(struct node *n, enum policy_action action, const char *subject, const char *name,
              char out_text[LIMIT_STATUS_TEXT + 1]);
/* Our own incarnation is below or equal to one known elsewhere: goes on above it, on all links. */
void node_raise(struct node *n, uint64_t known, const char *where);
/* Room for count services in the scratch space. 0 or -ENOMEM. */
int node_scratch(struct node *n, size_t count);
void text_copy(char *out, size_t size, const char *in); /* cuts at a whole UTF-8 character */

#endif
