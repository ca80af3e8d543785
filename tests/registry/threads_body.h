#ifndef TESTS_REGISTRY_THREADS_BODY_H
#define TESTS_REGISTRY_THREADS_BODY_H

/* Readers look up, take pictures and prove the maps while one writer changes them. Returns how many
 * times something was not as it must be; says on stderr what. */
int threads_body(void);

#endif
