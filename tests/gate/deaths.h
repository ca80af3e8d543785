/* deaths - what the two files of the test of that name share. */
#ifndef TESTS_GATE_DEATHS_H
#define TESTS_GATE_DEATHS_H

#include <stdatomic.h>
#include <meshd/v1/mesh.pb-c.h>
#include "rpc/client.h"
#include "rpc/pair.h"
#include "support.h"

#define WORKERS 6u /* of each of the three kinds */
#define MESSAGE_BYTES 1048576u
#define SESSION_MS 20000u

enum kind { LINKS, CALLS, CLIENTS };
enum death { CLOSED, RESET, HALF_CLOSED, LOCAL, LOCAL_STALLED };

struct worker {
    enum kind kind;
    unsigned index, rand;
    long sessions, failed;
    char path[128];
    struct rpc_pair *pair;
    struct rpc_client *client;
    pthread_t thread;
    /* under `lock`: the present session */
    uint32_t conn;
    bool up, pair_up, ending, ended, gone, quiet;
    long called, done;
};

struct peer { /* a plain socket that speaks SP-over-TCP without reading what it gets */
    int fd;
    uint8_t *out; /* the message being written */
    size_t at, len;
};

/* --- test_deaths.c --- */
extern struct gate *gate;
extern struct sockaddr_storage gate_at;
extern pthread_mutex_t lock;
extern atomic_long replies_read;

unsigned pick(struct worker *w, unsigned below);
size_t pick_size(struct worker *w);
/* A message of about that size. */
ProtobufCMessage *body_of(Meshd__V1__Sync *sync, char **names, size_t size);
void send_pair(struct worker *w);
void quiet_once(struct worker *w, bool flush);

/* --- deaths_peer.c: a connected socket, or -1 --- */
int peer_dials(struct worker *w);
int peer_is_dialled(struct worker *w);
int client_of_gate(void);
/* Writes and reads as the other side lets it, for that long. */
void traffic(struct worker *w, struct peer *p, unsigned ms, bool reads);
void die(struct worker *w, struct peer *p, enum death death);

#endif
