/* fakenet_inside - what the files of the fake net share: fakenet.c (time, hosts), fakewire.c
 * (connections) and fakecall.c (calls, names, the rest of the port).
 */
#ifndef SIM_FAKENET_INSIDE_H
#define SIM_FAKENET_INSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "sim/fakenet.h"

struct fakenet_event {
    uint64_t at_ms, order;
    size_t host;   /* who it happens to, */
    uint32_t life; /* in which of its lives; 0: whoever runs there, or nobody */
    void (*happen)(struct fakenet *net, struct fakenet_event *event);
    uint64_t a, b; /* the event's own */
    void *owned;   /* freed with it */
    struct fakenet_event *next;
};

struct message {
    struct message *next;
    size_t len;
    bool urgent, fin;
    int to;            /* the side it arrives at */
    uint64_t ready_ms; /* when it may arrive */
    uint8_t data[];
};

struct side { /* one end of a connection, and what travels towards the other */
    size_t host;
    uint32_t life;
    uint64_t number; /* the node's; 0: it does not know it any more */
    bool up;
    struct message *queue, **queue_end;   /* not sent yet: the urgent ones first */
    struct message *flight, **flight_end; /* on the way */
    size_t queued;
    uint64_t last_ready_ms, stalled_ms, received;
    bool pumping, fin_sent;
    bool in_session, spoke;
    uint8_t session_id[SESSION_ID_LEN];
};

struct conn {
    uint64_t id;
    struct side side[2]; /* 0 dialled */
    bool dead;
    uint64_t begun_ms;
    uint8_t token[TOKEN_LEN];
    struct conn *next;
};

struct call {
    uint64_t id, number, deadline_ms;
    size_t from, to;
    uint32_t from_life;
    uint8_t *request, *reply;
    size_t request_len, reply_len;
    uint32_t status;
    int reason, error;
    char text[LIMIT_STATUS_TEXT + 1];
    struct call *next;
};

struct name {
    char name[64], ip[LIMIT_IP_TEXT];
    struct name *next;
};

struct fakenet {
    struct fakenet_settings settings;
    uint64_t now_ms, order, random, ids;
    struct fakenet_event **heap;
    size_t n_heap, cap_heap;
    struct fakenet_host **hosts;
    size_t n_hosts;
    uint32_t wrong;
    bool *cut; /* by index a * HOSTS_MAX + b */
    struct conn *conns;
    struct call *calls;
    struct name *names;
};
#define HOSTS_MAX 256u
#define ANSWER_CALL UINT64_MAX

static inline void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

void fakenet_arm(struct fakenet_host *host); /* after a call into its node from outside */
uint64_t fakenet_next(struct fakenet *net);  /* random */
uint64_t fakenet_delay(struct fakenet *net); /* of one way */
/* Something happens to a host; life 0: to the machine, whoever runs there. owned may be NULL. */
void fakenet_post(struct fakenet *net, uint64_t delay_ms, size_t host, uint32_t life,
                  void (*happen)(struct fakenet *, struct fakenet_event *), uint64_t a, uint64_t b,
                  void *owned);
bool fakenet_between(const struct fakenet *net, size_t a, size_t b); /* is the path cut? */
struct fakenet_host *fakenet_listener(struct fakenet *net, const struct node_addr *addr);

void fakewire_port(struct node_port *port); /* fills in what is about links */
void fakewire_sweep(struct fakenet *net);   /* frees dead connections */
/* The process of the host's present life is gone: its ends close. */
void fakewire_ends(struct fakenet_host *host, bool flush);
void fakewire_break(struct fakenet_host *host);

void fakebackend_port(struct node_port *port); /* fills in the looks at backends */
void fakecall_port(struct node_port *port);    /* fills in the rest */
void fakecall_ends(struct fakenet_host *host);
void fakecall_free(struct fakenet *net);
uint64_t fakecall_wall_us(const struct fakenet_host *host);

#endif
