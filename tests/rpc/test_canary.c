/* Tests of rpc/canary. */
#include "rpc/canary.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <unistd.h>
#include "rpc/client.h"
#include "rpc/fake_gate.h"

static struct tally sick = TALLY_INIT, gone = TALLY_INIT, release = TALLY_INIT;

static void on_sick(void *ctx) { tally_add(&sick, 1); }

Test(canary, sings_while_nng_is_healthy)
{
    struct canary *canary;

    alarm(60);
    for (int i = 0; i < 200; i++)
        cr_assert_eq(canary_sing(), 0);
    cr_assert_eq(canary_start(1, on_sick, NULL, &canary), 0);
    cr_assert_not(tally_wait_ms(&sick, 1, 200));
    cr_assert(canary_healthy(canary));
    canary_stop(canary);
    canary_stop(NULL);
}

/* Blocks the thread that cleans up, as nothing may: it waits for who it tells that a pipe is gone.
 */
static void block(void *ctx)
{
    tally_add(&gone, 1);
    tally_wait(&release, 1);
}

Test(canary, falls_silent_when_nothing_is_cleaned_up)
{
    const struct rpc_client_settings settings = {
        .path = fake_path(0), .message_bytes = 65536, .gone = block};
    struct rpc_client *client;
    struct canary *canary;
    int fd;

    alarm(60);
    cr_assert_eq(canary_start(50, on_sick, NULL, &canary), 0);
    cr_assert_eq(rpc_client_open(&settings, &client), 0);
    fd = fake_join(fake_path(0), SP_REP0);
    cr_assert(fake_end(fd, 0));
    cr_assert(tally_wait(&gone, 1));
    cr_assert_eq(canary_sing(), -ETIMEDOUT);
    cr_assert(tally_wait(&sick, 1));
    cr_assert_not(canary_healthy(canary));
    tally_add(&release, 1);
    canary_stop(canary);
    cr_assert_eq(tally_value(&sick), 1, "it says so once");
    cr_assert_eq(canary_sing(), 0);
    rpc_client_close(client);
}
