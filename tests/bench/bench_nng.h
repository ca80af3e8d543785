/* bench_nng - what is measured against: a bare nng REP server with a handler that does nothing, in
 * a process of its own, and an nng client that keeps a number of requests in flight. */
#ifndef TESTS_BENCH_NNG_H
#define TESTS_BENCH_NNG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A server that answers everything with answer_len bytes; its URL in out_url. kill(2) ends it. */
pid_t bare_start(size_t answer_len, char out_url[64]);

struct result {
    double rate, p50, p99; /* per second; seconds */
};
/* in_flight calls over n_sockets connections for `seconds`. */
struct result measure(const char *url, unsigned in_flight, unsigned n_sockets, double seconds,
                      const uint8_t *request, size_t request_len);

/* The frame of a Lookup of n names, to be freed. */
uint8_t *lookup_request(const char *const *names, size_t n, size_t *out_len);

#endif
