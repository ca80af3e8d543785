/* threads_body - many threads with one client, whose node breaks off now and then. */
#ifndef TESTS_CLIENT_THREADS_BODY_H
#define TESTS_CLIENT_THREADS_BODY_H

#include <stdbool.h>

/* 0, or the number of calls that got an answer that was not theirs, or none. */
int threads_body(bool over_tls);

#endif
