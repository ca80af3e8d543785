/* pipeline - calls of many threads, side by side on one connection: what client.c and pipeline.c
 * share, and nobody else. All functions are called with the client's lock held; those that wait
 * give it back meanwhile.
 */
#ifndef CLIENT_PIPELINE_H
#define CLIENT_PIPELINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/backoff.h"
#include "base/lock.h"
#include "client/inside.h"
#include "client/stream.h"

struct mesh_client {
    char *url;
    struct trust *trust; /* of tls://; else NULL */
    int wake_fd;         /* tells a reader that waits for bytes that there are some to send, too */
    struct mutex lock;
    struct {               /* only with lock held */
        bool reading;      /* somebody is the reader */
        bool connected;    /* stream is open */
        int error;         /* why it is not */
        char why[TLS_WHY]; /* more of that; see channel_why */
        uint64_t again_ms; /* not connected: when to try next */
        struct backoff backoff;
        struct mesh_call *first, *last; /* under way, the oldest first */
        size_t waiting;                 /* threads asleep on their calls */
        uint32_t next_id;
        uint64_t next_call;
        uint8_t *out; /* to be sent: out_len bytes from out_off on */
        size_t out_off, out_len, out_cap;
        struct request *open; /* the last one in out, while none of its bytes has left, or NULL */
        size_t open_at;       /* where it begins, from out_off on */
    } held;
    /* The reader's, without the lock. It opens and closes it with the lock held, so that others may
     * send on its channel under the lock. */
    struct stream stream;
};

/* What travels: one call's request, or that of several lookups; and its answer. */
struct request {
    unsigned refs; /* calls; with the lock held */
    uint32_t id;
    uint64_t number;
    size_t names, calls; /* in it; with the lock held until it has left */
    uint8_t *answer;     /* once its calls are done */
    size_t answer_len;
};

struct mesh_call {
    struct mesh_client *client;
    const char *method;
    uint64_t deadline_ms;
    size_t names; /* of a Lookup; else 0 */
    bool alone;   /* its request is its own */
    pthread_cond_t woken;
    struct { /* only with client->lock held */
        struct mesh_call *next, *prev;
        bool under_way, done, waiting;
        int error;               /* done: 0, or a negative errno */
        struct request *request; /* or NULL: not on its way */
        size_t first;            /* of its names in the request */
    } held;
    size_t body_len;
    uint8_t body[]; /* the request message */
};

void pipeline_enlist(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock);
void pipeline_delist(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock);
/* The call's request, behind what is to be sent; alone, or with those before it. 0 or -ENOMEM. */
int pipeline_put(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock);
/* The call is no part of a request any more, and has no answer. */
void pipeline_leave(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock);
/* For who is not the reader. What does not leave, and a connection that has ended, are the reader's
 * to see to: there is one now, or there will be with the next wait. */
void pipeline_send(struct mesh_client *client) REQUIRES(client->lock);
/* Until the call is done: its time being over makes it so, too. */
void pipeline_wait(struct mesh_client *client, struct mesh_call *call) REQUIRES(client->lock);

#endif
