/* serving - a server of the tests, with a lane to it: its service's methods do what a test needs.
 *
 * Lookup gives as many results as max_routes says, Explain is answered by the test itself,
 * Introspect fails, Withdraw is refused with a message and a long text, the others have no handler.
 */
#ifndef TESTS_RPC_SERVING_H
#define TESTS_RPC_SERVING_H

#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "rpc/fake_gate.h"
#include "rpc/server.h"

#define CONTEXTS 96u
#define MESSAGE_BYTES 65536u
#define CONN 7u
#define CONN_GONE 8u

extern struct rpc_server *server;
extern int lane;
extern struct tally held; /* calls of Explain */
extern struct rpc_call *held_calls[CONTEXTS];
extern struct rpc_caller seen; /* of the last Lookup */

void serving_setup(void);
void serving_teardown(void);

extern const Meshd__V1__CallHeader good; /* of a Lookup */
Meshd__V1__LookupRequest serving_lookup_of(char **name, uint32_t routes);
void serving_ask_raw(int fd, uint32_t conn, unsigned hops, uint32_t id, const void *frame,
                     size_t len);
void serving_ask_id(int fd, uint32_t id, const Meshd__V1__CallHeader *header,
                    const ProtobufCMessage *body);

struct got {
    uint32_t status;
    int reason;
    uint64_t call_id;
    char text[300];
    size_t body_len;
    uint8_t body[MESSAGE_BYTES];
};
extern struct got got;

/* Reads a reply into got; returns its request id without the top bit. */
uint32_t serving_read(int fd, uint32_t conn, unsigned hops);
/* On the lane: a request, and the reply into got. */
void serving_ask(const Meshd__V1__CallHeader *header, const ProtobufCMessage *body);
void serving_expect(enum status status, int reason, uint64_t call_id); /* of got */
struct rpc_server_counters serving_counters(void);

#endif
