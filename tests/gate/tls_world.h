/* tls_world - a gate with TLS, n1's, with a list of the revoked; n7 and n8 of the same CA, who come
 * by plain OpenSSL; and what plays nng for two links. */
#ifndef TESTS_GATE_TLS_WORLD_H
#define TESTS_GATE_TLS_WORLD_H

#include "gate/stock.h"
#include "gate/support.h"

extern struct rig rig;
extern struct issued *ca, *n7, *n8; /* n8 is named n8.example, too */

void world_setup(void); /* settings may be changed before world_run */
void world_run(void);
void world_start(void); /* both */
void world_stop(void);

/* The gate's keeper reads that this one, and nobody else, is revoked; the gate looks again. */
void revoke_and_check(const struct issued *one);
void connect_as(struct stock *stock, const struct issued *who);
void say_preamble(struct stock *stock, enum preamble_kind kind, const char *peer_id);
/* Connected, greeted as a REQ. */
void as_client(struct stock *stock, const struct issued *who);
bool echo(struct stock *stock, uint32_t id, size_t len); /* a request that comes back */
/* A link that was let in, at place index (0, 1); *out_nng plays nng. Its connection number. */
uint32_t open_link(struct stock *stock, const struct issued *who, const char *peer_id, int index,
                   int *out_nng);
/* One message each way. */
void expect_message(struct stock *stock, int local);

#endif
