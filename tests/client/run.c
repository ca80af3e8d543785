/* run - see run.h. */
#include "client/run.h"
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>
#include "base/clock.h"

#define NEED(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            perror(#what);                                                                         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
#define ARGS_MAX 1100 /* a Lookup has up to 1000 names */

/* Both at once, or a full pipe of the one would stop the other. */
static void read_both(int out_fd, char *out, int err_fd, char *err, size_t cap)
{
    struct pollfd at[2] = {{.fd = out_fd, .events = POLLIN}, {.fd = err_fd, .events = POLLIN}};
    char *text[2] = {out, err};
    size_t len[2] = {0, 0};
    int open = 2;

    while (open > 0) {
        NEED(poll(at, 2, -1) > 0);
        for (int i = 0; i < 2; i++) {
            ssize_t n;

            if (at[i].fd < 0 || !at[i].revents)
                continue;
            n = read(at[i].fd, text[i] + len[i], cap - 1 - len[i]);
            if (n > 0) {
                len[i] += (size_t)n;
                continue;
            }
            at[i].fd = -1;
            open--;
        }
    }
    out[len[0]] = err[len[1]] = '\0';
}

static const char *const *environment(const char *const *extra)
{
    static const char *all[32];
    static char kept[4][1024];
    static const char *const names[] = {"ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "PATH"};
    size_t n = 0;

    for (size_t i = 0; i < 4; i++) {
        const char *value = getenv(names[i]);

        if (!value)
            continue;
        snprintf(kept[i], sizeof(kept[i]), "%s=%s", names[i], value);
        all[n++] = kept[i];
    }
    for (; extra && *extra; extra++)
        all[n++] = *extra;
    all[n] = NULL;
    return all;
}

void run_meshcat(struct run *run, const char *const *args, const char *const *env,
                 enum run_stdout where)
{
    const char *argv[ARGS_MAX] = {MESHCAT};
    posix_spawn_file_actions_t actions;
    int out[2], err[2], status;
    uint64_t began = clock_ms();
    pid_t pid;

    for (size_t i = 0; args[i]; i++) {
        NEED(i + 2 < ARGS_MAX);
        argv[i + 1] = args[i];
    }
    NEED(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0);
    NEED(posix_spawn_file_actions_init(&actions) == 0);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (where == STDOUT_CLOSED)
        posix_spawn_file_actions_addclose(&actions, 1);
    else
        posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    if (where == STDOUT_BROKEN) {
        close(out[0]);
        NEED((out[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    }
    NEED(posix_spawn(&pid, MESHCAT, &actions, NULL, (char *const *)argv,
                     (char *const *)environment(env)) == 0);
    close(out[1]);
    close(err[1]);
    read_both(out[0], run->out, err[0], run->err, sizeof(run->out));
    NEED(waitpid(pid, &status, 0) == pid);
    run->took_ms = clock_ms() - began;
    run->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    close(out[0]);
    close(err[0]);
    posix_spawn_file_actions_destroy(&actions);
}
