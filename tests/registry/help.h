/* help - short ways to make lists and registries for the tests of this room. */
#ifndef TESTS_REGISTRY_HELP_H
#define TESTS_REGISTRY_HELP_H

#include "registry/snapshot.h"

/* text: "name=backend name=backend ..."; the rows get the label. Behind a backend: "!" unhealthy,
 * "~" draining, "^" introduced by PROXY v2. Aborts without memory. */
struct list *list_of(const char *label, const char *text);
/* "name=backend ..." of a list; free it. */
char *text_of(const struct list *list);
/* n rows "svc-000000".. from first on, all with one backend. */
struct list *list_of_many(const char *label, unsigned first, unsigned n, const char *backend);

/* limits: NULL for the defaults. */
struct registry *registry_for(const char *peer_id, const struct limits *limits);
/* Opens the peer and puts "name=backend ..." with (1, version); returns what put_list does. */
int put_text(struct registry *reg, const char *peer_id, const char *ip, uint64_t version,
             const char *text);
int put_local_text(struct registry *reg, uint64_t version, const char *text);

/* From MESHD_TEST_SEED, or another each time; printed. */
uint64_t test_seed(void);
uint64_t test_random(uint64_t *state);

#endif
