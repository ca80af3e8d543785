#ifndef TESTS_CLIENT_REPLICA_BODY_H
#define TESTS_CLIENT_REPLICA_BODY_H

/* Readers look names up while a fake node storms changes, gives other pictures and goes away.
 * Returns how many times an answer was not as it must be; says on stderr what. */
int replica_body(void);

#endif
