/* Tests of rpc/canary. */
#include "rpc/canary.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
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

static void *sing(void *arg)
{
    *(int *)arg = canary_sing();
    return NULL;
}

/* A process whose song lasts while it is stopped, and ends as soon as it goes on. */
static int sings_across_a_stop(int begun, int goes_on)
{
    const struct rpc_client_settings settings = {
        .path = fake_path(0), .message_bytes = 65536, .gone = block};
    struct rpc_client *client;
    pthread_t thread;
    int song, fd;
    char byte = 0;

    if (rpc_client_open(&settings, &client) < 0)
        return 2;
    fd = fake_join(fake_path(0), SP_REP0);
    if (!fake_end(fd, 0) || !tally_wait(&gone, 1) ||
        pthread_create(&thread, NULL, sing, &song) != 0)
        return 3;
    if (write(begun, &byte, 1) != 1 || read(goes_on, &byte, 1) != 1)
        return 4;
    tally_add(&release, 1);
    pthread_join(thread, NULL);
    return song == 0 ? 0 : 5;
}

Test(canary, a_machine_that_stands_still_for_a_while_is_no_illness)
{
    int begun[2], goes_on[2], status;
    char byte = 0;
    pid_t child;

    alarm(60);
    cr_assert(pipe(begun) == 0 && pipe(goes_on) == 0);
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(sings_across_a_stop(begun[1], goes_on[0]));
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(read(begun[0], &byte, 1), 1);
    poll(NULL, 0, 500); /* it sings now */
    cr_assert_eq(kill(child, SIGSTOP), 0);
    cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
    cr_assert(WIFSTOPPED(status));
    poll(NULL, 0, 5500);
    cr_assert_eq(write(goes_on[1], &byte, 1), 1);
    cr_assert_eq(kill(child, SIGCONT), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_expect_eq(WEXITSTATUS(status), 0);
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
