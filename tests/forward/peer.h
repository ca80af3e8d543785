/* peer - a peer of side DIALLER of a rig that the test plays itself, word by word. */
#ifndef TESTS_FORWARD_PEER_H
#define TESTS_FORWARD_PEER_H

#include <meshd/v1/mesh.pb-c.h>
#include "forward/rig.h"
#include "wire/frame.h"

struct peer_message {
    struct peer_message *next;
    int kind;
    size_t len;
    uint8_t bytes[];
};
struct peer {
    struct rig_line line;
    struct rig *rig;
    uint64_t link;
    char id[16];
    uint8_t session_id[SESSION_ID_LEN];
    bool dialled; /* by the node, which dials DATA to fd then */
    int fd;       /* where it is dialled */
    struct sockaddr_in at;
    struct list *list; /* what it offers */
    uint64_t version;
    pthread_mutex_t lock;
    pthread_cond_t came;
    struct peer_message *first, **last; /* with the lock */
};

/* As link number `link`, not up yet. */
void peer_init(struct peer *peer, struct rig *rig, const char *id, uint64_t link, bool dialled);
void peer_fini(struct peer *peer); /* after the rig's end */
void peer_offer(struct peer *peer, const char *name);
void peer_offer_as(struct peer *peer, const char *name, unsigned row_flags);
void peer_draining(struct peer *peer);
void peer_up(struct peer *peer); /* a session anew */
void peer_down(struct peer *peer);
/* ops.send of the node said this to it. */
void peer_hear(struct peer *peer, int kind, const uint8_t *bytes, size_t len);

struct peer_forward {
    uint8_t id[FORWARD_ID_LEN];
    char name[LIMIT_NAME + 1];
    uint32_t remaining_ms;
    bool dial_data;
    size_t n_first;
    uint8_t first[LIMIT_FIRST_BYTES];
};
/* The node's next words, which must be of that kind and about one id. */
void peer_next_forward(struct peer *peer, struct peer_forward *out);
int peer_next_reply(struct peer *peer, const uint8_t *id, char text[LIMIT_STATUS_TEXT + 1]);
void peer_next_cancel(struct peer *peer, const uint8_t *id);
bool peer_heard_nothing(struct peer *peer);

/* Words to the node. */
void peer_say(struct peer *peer, int kind, const ProtobufCMessage *body);
void peer_reply(struct peer *peer, const uint8_t *id, Meshd__V1__Refusal refusal, const char *text);
void peer_cancel(struct peer *peer, const uint8_t *id);
Meshd__V1__Forward peer_forward_of(const uint8_t *id, const char *name); /* without first bytes */
void peer_forward(struct peer *peer, Meshd__V1__Forward *forward);

/* DATA. The node dialled: the next connection, whose preamble was read, and answered. */
int peer_accept_data(struct peer *peer);
/* It dialled the node: what forward_data says to the preamble goes to out_status. */
int peer_dial_data(struct peer *peer, enum data_first first, const struct data_header *header,
                   int *out_status);
/* The node's answer to the preamble, which comes with its header. */
void peer_expect_answer(int fd);
void peer_expect_header(int fd, const uint8_t *id, uint64_t offset);
void peer_say_header(int fd, const uint8_t *id, uint64_t offset);

#endif
