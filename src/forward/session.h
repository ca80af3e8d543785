/* session - the sessions of links, as the room knows them. Any thread; shared by reference. */
#ifndef FORWARD_SESSION_H
#define FORWARD_SESSION_H

#include <uthash.h>
#include "forward/inside.h"

struct pool;   /* pool.c: of one worker */
struct outbox; /* outbox.c: likewise */

struct carried { /* clients of this node that a peer carries, pending ones too */
    UT_hash_handle hh;
    char peer_id[LIMIT_PEER_ID + 1];
    unsigned sessions; /* that somebody still holds; with the table's lock held */
    atomic_uint active;
};

struct session {
    struct forward_session_info info; /* set before it is shared, then read only */
    struct forward *forward;
    _Atomic uint64_t over_ms; /* since when, on clock_ms; set before over */
    atomic_bool over;
    atomic_uint refs;
    struct carried *carried;
    atomic_uint pending;     /* Forwards, both ways */
    atomic_uint wish;        /* of the peer: DATA connections that it may claim */
    atomic_uint warm[2];     /* kept ahead of need: which the peer claims; which this node does */
    atomic_uint nobodys;     /* DATA connections that the peer dialled and no Forward waits for */
    struct pool *pools;      /* one per worker, each touched by its worker only */
    struct outbox *outboxes; /* likewise */
    uint64_t id_hash;        /* of info.session_id, under the table's key */
    UT_hash_handle by_link, by_id;
};

/* Whether its peer may have a link with this node now. */
bool session_may(const struct session *session);

int sessions_new(struct sessions **out_sessions);
void sessions_free(struct sessions *sessions);                    /* accepts NULL */
bool sessions_any(struct sessions *sessions, uint64_t *out_link); /* one that is on; false: none */
uint64_t sessions_most_warm(struct sessions *sessions);           /* of those on, either way */
/* References, or NULL. By link: the one that has it now, if its id is session_id. */
struct session *session_by_link(struct forward *forward, uint64_t link,
                                const uint8_t session_id[SESSION_ID_LEN]);
struct session *session_by_id(struct forward *forward, const uint8_t session_id[SESSION_ID_LEN]);
struct session *session_ref(struct session *session);
void session_unref(struct session *session); /* accepts NULL */
/* Sends one message of the room on the link: as ops.send, and -EPIPE once the session is over. */
int session_send(struct session *session, int kind, const ProtobufCMessage *body);
void session_cancel(struct session *session, uint8_t id[FORWARD_ID_LEN]); /* gives that one up */

#endif
