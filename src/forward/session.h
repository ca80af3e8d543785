/* session - the sessions of links, as the room knows them. Any thread; shared by reference. */
#ifndef FORWARD_SESSION_H
#define FORWARD_SESSION_H

#include "forward/inside.h"

struct pool; /* data.c: of one worker */

struct session {
    struct forward_session_info info; /* set before it is shared, then read only */
    struct forward *forward;
    atomic_bool over;
    atomic_uint refs, active,
        pending;          /* active: clients of this node carried by the peer, pending too */
    atomic_uint wish;     /* of the peer: DATA connections that it may claim */
    struct pool *pools;   /* one per worker, each touched by its worker only */
    struct session *next; /* in the table */
};

int sessions_new(struct sessions **out_sessions);
void sessions_free(struct sessions *sessions);
/* A reference, or NULL. session_id NULL: whichever is on. */
struct session *session_find(struct forward *forward, uint64_t link,
                             const uint8_t session_id[SESSION_ID_LEN]);
struct session *session_by_id(struct forward *forward, const char *peer_id,
                              const uint8_t session_id[SESSION_ID_LEN]);
struct session *session_ref(struct session *session);
void session_unref(struct session *session); /* accepts NULL */
/* Sends one message of the room on the link; as ops.send, and -EPIPE once the session is over. */
int session_send(struct session *session, int kind, const ProtobufCMessage *body);

#endif
