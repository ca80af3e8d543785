/* own - what the suites about the node's own services share: asking for, and looking at them. */
#ifndef NODE_OWN_H
#define NODE_OWN_H

#include <stdint.h>
#include "node/stage.h"

#define TCP MESHD__V1__CHECK_KIND__CHECK_KIND_TCP
#define HTTP MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP
#define B "127.0.0.1:80" /* the backend of "own" */
#define AT(n, b) .name = n, .backend = b
/* The services of the configuration become these. */
#define SET(...)                                                                                   \
    own_set(sizeof((const struct node_service[]){__VA_ARGS__}) / sizeof(struct node_service),      \
            (const struct node_service[]){__VA_ARGS__})

void own_begin(void); /* stage_begin, and "own" has neither check nor PROXY header */
void own_set(size_t n, const struct node_service *services);
int own_flags(const char *name); /* of its row; -1: there is none */
const char *own_backend(const char *name);
/* What the node says of its backend; name NULL: nothing. */
struct node_check_info own_info(const char *name);
struct node_counters own_counters(void);
/* Waits for the next look at it, and answers; text NULL: it is well. */
void own_look(const char *backend, const char *text);
bool own_unlooked(const char *backend, uint64_t ms); /* nobody looks at it for so long */

/* On the local socket; each returns the status. */
uint32_t own_drain(const char *name, bool enable);
uint32_t own_offer(const char *lease, const char *name, const char *backend, uint64_t ttl_ms,
                   Meshd__V1__Check *check, int proxy);
uint32_t own_offer_draining(const char *lease, const char *name, const char *backend,
                            uint64_t ttl_ms);
uint32_t own_withdraw(const char *name);

#endif
