/* stage - one node, alone: the test plays the world. What the node asks of its port is written
 * down; what peers say is built here, byte for byte as on the wire.
 */
#ifndef NODE_STAGE_H
#define NODE_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "node/node.h"
#include "policy/policy.h"
#include "wire/check.h"

#define STAGE_MAX 512u
#define REASON(name) MESHD__V1__REASON__REASON_##name
#define KIND(name) MESHD__V1__LINK_KIND__LINK_KIND_##name
#define GOODBYE(name) MESHD__V1__GOODBYE_REASON__GOODBYE_REASON_##name

struct stage_said { /* by the node, on a link */
    uint64_t link;
    enum node_urgency urgency;
    const Meshd__V1__LinkHeader *header;
    const void *body; /* a message of the header's kind */
    size_t body_len;
};
struct stage_reply {
    uint64_t call;
    uint32_t status;
    int reason;
    char text[LIMIT_STATUS_TEXT + 1];
    const uint8_t *body;
    size_t body_len;
};

struct stage {
    uint64_t now_ms, wall_us, random;
    struct limits limits;
    const char *expected; /* there, by stage_begin_dialling */
    struct registry *registry;
    struct policy_keeper *policy; /* without rules */
    struct node *node;
    struct node_port port;
    struct arena arena;
    struct stage_said said[STAGE_MAX]; /* since the last stage_hush */
    size_t n_said;
    struct stage_reply reply; /* the last */
    size_t n_replies;
    struct {
        uint64_t call;
        struct node_addr to;
        char expect[LIMIT_PEER_ID + 1];
        const Meshd__V1__RegisterRequest *request;
        uint32_t deadline_ms;
    } call; /* the last */
    size_t n_calls;
    struct {
        uint64_t link;
        struct node_addr to;
        char expect[LIMIT_PEER_ID + 1];
        uint8_t token[TOKEN_LEN];
    } dial; /* the last */
    size_t n_dials;
    uint64_t ask, accepted, ended, refused;
    int refused_reason;
    bool flushed, queue_full;
    uint64_t received; /* what link_received answers */
    bool spoke, busy;  /* link_spoke (once) and link_busy */
    uint32_t wanted;   /* link_data_wanted */
    struct {           /* the last link_session */
        uint64_t link;
        uint8_t session_id[SESSION_ID_LEN];
        char peer_id[LIMIT_PEER_ID + 1];
        bool dialled;
    } session;
    size_t n_sessions, sessions_said; /* sessions_said: said by the node before that */
    struct {                          /* the last link_forward */
        uint64_t link;
        int kind;
        uint8_t body[64];
        size_t len;
    } forward;
    size_t n_forwards;
    uint64_t wish_link; /* the last link_data_wish */
    uint32_t wish;
    size_t n_wishes;
    struct {             /* looks that were asked for, in their order */
        uint64_t number; /* 0: answered, by stage_look */
        uint64_t at_ms;
        char backend[LIMIT_BACKEND + 1];
        struct node_check check;
        int proxy_protocol;
    } looks[STAGE_MAX];
    size_t n_looks;
    uint32_t events[NODE_EVENTS];
    char text[NODE_EVENTS][LIMIT_STATUS_TEXT + 1];
    char at[NODE_EVENTS][LIMIT_NAME + 8]; /* ... and of its address */
};

/* A session with a peer that the test plays; incarnation and version are what it says. */
struct stage_peer {
    const char *id, *ip;
    uint64_t incarnation, version, link;
    uint8_t session[SESSION_ID_LEN];
};

extern struct stage st;

/* n1 at time 1,000,000 ms, heartbeat 3 s, peer_timeout 30 s, with the service "own", whose
 * clients are introduced by PROXY v2;
 * dial: 10.0.0.9:7400 is dialled. */
void stage_begin(void);
void stage_begin_dialling(void);
void stage_end(void);
/* Time goes on in steps of at most 100 ms, node_tick when it is due. */
void stage_wait(uint64_t ms);
void stage_hush(void);
/* The node's newest message of that kind on the link, or NULL. */
const void *stage_heard(uint64_t link, Meshd__V1__LinkKind kind);
size_t stage_count(uint64_t link, Meshd__V1__LinkKind kind);

/* Answers the oldest look at that backend which is under way; text NULL: it is well. False: there
 * is none. */
bool stage_look(const char *backend, const char *text);

/* The reply as a message of the descriptor. */
const void *stage_reply(const ProtobufCMessageDescriptor *descriptor);

/* A Register with a list of n entries, names and backends in turn; n < 0: without a list. Its
 * answer is in st.reply. */
void stage_register(const struct stage_peer *peer, int n, const char *const *entries);
void stage_say(const struct stage_peer *peer, Meshd__V1__LinkKind kind,
               const ProtobufCMessage *body);
void stage_say_raw(uint64_t link, const void *session, size_t session_len, Meshd__V1__LinkKind kind,
                   const ProtobufCMessage *body);
/* Register, link, Hello: a session in which nothing was said yet. */
void stage_open(struct stage_peer *peer);
/* The peer's list, whole, in one part. */
void stage_sync(const struct stage_peer *peer, uint64_t base, int n, const char *const *entries,
                int n_removed, const char *const *removed);
/* A change of the list, to a version of its own: entries, and a name that goes unless NULL; digest
 * and count as they are said to be after it. */
void stage_change(struct stage_peer *peer, int n, const char *const *entries, const char *removed,
                  uint64_t digest, uint32_t count);
/* Acknowledges what the node has sent of its list. */
void stage_ack(const struct stage_peer *peer, bool applied);
void stage_beat(const struct stage_peer *peer, uint64_t digest, uint32_t count);
/* All of it: the link is live, the peer offers nothing. */
void stage_live(struct stage_peer *peer);

/* Entries everywhere here: "!" behind a backend is unhealthy, "~" draining. backend: room for it.
 */
void stage_service(Meshd__V1__Service *out, const char *name, const char *marked,
                   char backend[LIMIT_BACKEND + 1]);
uint64_t stage_digest(int n, const char *const *entries);
struct registry_peer_info stage_peer_info(const char *id); /* fails the test if there is none */
bool stage_knows(const char *id);

#endif
