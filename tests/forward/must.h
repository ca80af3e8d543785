/* must - what a test and a main() without a test framework can both insist on, and a test's .fini,
 * in which an assertion of Criterion's fails nothing. */
#ifndef TESTS_FORWARD_MUST_H
#define TESTS_FORWARD_MUST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            fprintf(stderr, "%s:%d: not %s (errno: %s)\n", __FILE__, __LINE__, #expr,              \
                    strerror(errno));                                                              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
