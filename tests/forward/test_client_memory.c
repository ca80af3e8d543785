/* Each allocation for a client that comes fails in turn: it is reset, counted, and nothing leaks.
 */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "failing.h"
#include "forward/client.h"
#include "forward/ingress_rig.h"
#include "forward/source.h"

static struct rig rig;
static struct worker worker; /* its loop is run by the test */

/* The client's end. */
static int come_without(long nth, bool *out_failed)
{
    const struct ingress port = {.fd = -1};
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    int client = dial_port(ntohs(fake.backend.sin_port));
    int fd = accept4(rig.backend, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    cr_assert_geq(client, 0);
    cr_assert_geq(fd, 0);
    until_failure = nth;
    client_accepted(&worker, &port, fd, &from);
    *out_failed = until_failure < 0;
    until_failure = -1;
    return client;
}

Test(client_memory, who_there_is_no_memory_for_is_reset, .timeout = 60)
{
    size_t descriptors;
    bool failed = true;
    long nth, before;

    rig_init(&rig);
    cr_assert_eq(sources_new(&rig.forward.limits, &rig.forward.sources), 0);
    cr_assert_eq(worker_init(&worker, &rig.forward, 0), 0);
    before = alive;
    descriptors = open_descriptors();
    for (nth = 0; failed; nth++) {
        int client = come_without(nth, &failed);

        cr_assert_eq(worker.count.clients, !failed);
        if (failed)
            cr_expect(hears_reset(client), "%ld", nth);
        else
            clients_reset(&worker);
        worker_turn(&worker, false);
        close(client);
    }
    cr_expect_geq(nth, 3); /* the client, its address, the leg */
    cr_expect_eq(worker.count.closed_no_memory + worker.count.closed_over_limit, (uint64_t)nth - 1);
    cr_expect_eq(rig.forward.clients, 0);
    cr_expect_eq(alive, before);
    cr_expect_eq(open_descriptors(), descriptors);
    worker_fini(&worker);
    sources_free(rig.forward.sources);
    close(rig.backend);
}
