/* peers_world - a node alone among peers that a fuzz target plays: what it asks of its port, and
 * what holds after whatever they said. */
#ifndef TESTS_FUZZ_PEERS_WORLD_H
#define TESTS_FUZZ_PEERS_WORLD_H

#include "node/node.h"

#define PEERS 4u
#define DIALLED 3u /* the one that the node dials */
#define LINKS 24u
#define KIND(name) MESHD__V1__LINK_KIND__LINK_KIND_##name

struct link {
    uint64_t number; /* 0: free */
    unsigned who;
    bool up, has_session;
    uint8_t session[SESSION_ID_LEN];
};
struct other { /* what a peer says of itself */
    uint64_t incarnation, version;
    uint8_t token[TOKEN_LEN];
    uint8_t mask;                      /* of what it offers */
    bool other_backends, other_states; /* of its entries: most are unhealthy, draining or both */
};

extern const char *const peer_ids[PEERS];
extern struct world {
    struct node *node;
    struct registry *registry;
    struct limits limits;
    uint64_t now_ms, random, links;
    uint64_t ask, call;    /* unanswered, of the node */
    uint64_t seen_version; /* of the last Sync that the node sent, */
    uint32_t seen_part;    /* and its part */
    struct link link[LINKS];
    struct other other[PEERS];
} world;

void check(int condition);
void world_begin(void);
void world_end(void);
struct link *link_of(uint64_t number);  /* 0: a free one; NULL: none */
struct link *link_newest(unsigned who); /* that is up; NULL: none */

struct seen {
    struct registry_peer_info peer[PEERS];
    bool known[PEERS];
    uint64_t local;
};
void world_look(struct seen *out);
/* The maps agree, no limit is exceeded, and nobody's list is another than before but that of `who`
 * (PEERS: nobody). time: records may have timed out. local: the node's own list may have changed.
 */
void world_check(const struct seen *before, unsigned who, bool time, bool local);

#endif
