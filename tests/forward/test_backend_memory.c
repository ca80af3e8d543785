/* Each allocation of a dial fails in turn: it is told, or was not begun, and nothing leaks. Those
 * of other threads never fail.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "failing.h"
#include "forward/backend.h"
#include "forward/hosts.h"
#include "forward/inside.h"
#include "forward/names.h"

static struct forward forward;
static struct worker worker; /* its loop is run by the test */

struct told {
    unsigned n;
    int error;
    struct leg *leg;
};

static void on_done(void *ctx, int error, struct leg *leg)
{
    *(struct told *)ctx = (struct told){((struct told *)ctx)->n + 1, error, leg};
}

/* How it ended; *out_failed: an allocation did fail. */
static int dial_without(long nth, const char *backend, bool *out_failed)
{
    struct backend_try *attempt;
    struct told told = {0};
    int r;

    until_failure = nth;
    r = backend_dial(&worker, backend, 20000, &told, on_done, &attempt);
    while (r == 0 && !told.n)
        worker_turn(&worker, true);
    *out_failed = until_failure < 0;
    until_failure = -1;
    leg_close(told.leg);
    worker_turn(&worker, false);
    return r < 0 ? r : told.error;
}

Test(backend_memory, each_allocation_of_a_dial_may_fail)
{
    const struct names_how how = {.resolve = hosts_resolve, .again_ms = 3600000};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool failed = true;
    long nth, before;

    alarm(60);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, len), 0);
    cr_assert_eq(listen(fd, 128), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    cr_assert_eq(names_new_by(&forward, &how, &forward.names), 0);
    cr_assert_eq(names_start(forward.names), 0);
    cr_assert_eq(worker_init(&worker, &forward, 0), 0);
    before = alive;
    for (nth = 0; failed; nth++) {
        char host[32], backend[64];

        snprintf(host, sizeof(host), "h%ld.test", nth);
        hosts_set(host, "127.0.0.1");
        snprintf(backend, sizeof(backend), "%s:%u", host, ntohs(at.sin_port));
        cr_expect_eq(dial_without(nth, backend, &failed), failed ? -ENOMEM : 0);
    }
    cr_expect_geq(nth, 5); /* the try, the name, uthash's tables, the leg */
    names_stop(forward.names);
    cr_expect_gt(alive, before);
    worker_fini(&worker);
    names_free(forward.names);
    cr_expect_leq(alive, 1, "but what is left is the names', until their threads are gone");
    close(fd);
}
