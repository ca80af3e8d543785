/* run - meshcat as its users run it: a process with arguments, an environment and three streams. */
#ifndef TESTS_CLIENT_RUN_H
#define TESTS_CLIENT_RUN_H

#include <stdint.h>
#include <stdio.h>

struct run {
    int code; /* exit code; -1: killed by a signal */
    char out[65536], err[65536];
    uint64_t took_ms;
};

enum run_stdout {
    STDOUT_READ,
    STDOUT_BROKEN,
    STDOUT_CLOSED
}; /* a pipe; one without reader; none */

/* args ends with NULL and begins after the program's name. env: "NAME=value" ..., NULL, or NULL; of
 * the test's own environment only what the sanitizers need is handed on. */
void run_meshcat(struct run *run, const char *const *args, const char *const *env,
                 enum run_stdout where);

#define RUN(run, ...) run_meshcat(run, (const char *const[]){__VA_ARGS__, NULL}, NULL, STDOUT_READ)

/* The same, with this exit code and exactly this on standard output. */
#define RUN_PRINTS(run, code_, out_, ...)                                                          \
    do {                                                                                           \
        RUN(run, __VA_ARGS__);                                                                     \
        cr_expect_eq((run)->code, code_, "exit code %d, stderr: %s", (run)->code, (run)->err);     \
        cr_expect_str_eq((run)->out, out_, "printed:\n%s", (run)->out);                            \
    } while (0)

#endif
