/* hosts - a resolver that says what the test wants, when it wants it, and who was asked for. */
#ifndef TESTS_FORWARD_HOSTS_H
#define TESTS_FORWARD_HOSTS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#define HOSTS_WAIT_MS 20000

/* Addresses as text, parted by spaces; "": it has none. Unknown hosts fail. */
void hosts_set(const char *host, const char *addresses);
void hosts_hold(const char *host, bool held); /* one that is asked for waits */
int hosts_resolve(const char *host, struct in6_addr *out, size_t cap);

unsigned hosts_asked(const char *host);
unsigned hosts_inside(void); /* threads that are asking */
/* False: not within HOSTS_WAIT_MS. */
bool hosts_wait_asked(const char *host, unsigned n);
bool hosts_wait_inside(unsigned n); /* exactly */

struct in6_addr address_of(const char *text); /* v4 mapped */

#endif
