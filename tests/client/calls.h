/* calls - what the suites about libmeshd's calls share: a client of a fake node, and its lookups.
 */
#ifndef TESTS_CLIENT_CALLS_H
#define TESTS_CLIENT_CALLS_H

#include <semaphore.h>
#include <meshd/client.h>
#include "client/fake.h"

#define SOON 20000 /* ms; what is to succeed has as long as that */

extern struct fake fake;
extern struct mesh_client *client;
extern sem_t seen, answered; /* posted by the fake: it has read a request, answered one */

void calls_setup(void);
void calls_start(void (*serve)(struct fake *fake, int fd), void *ctx);
void calls_stop(void);

struct mesh_call *calls_join(const char *name, int deadline_ms);
/* In a request of its own. */
struct mesh_call *calls_begin(const char *name, int deadline_ms);
/* Waits for the call and compares the name in its answer. */
void calls_expect(struct mesh_call *call, const char *name);
enum mesh_status calls_lookup(const char *name, int deadline_ms);

#endif
