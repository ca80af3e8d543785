/* main - a node from its settings to its end.
 *
 * Exit codes: 0 ended as asked, 1 could not start, or say what was asked for, 2 bad settings
 * (nothing was started).
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "daemon/app.h"
#include "daemon/listen.h"
#include "daemon/privileges.h"

#define HEAP_BLOCK (4 << 20) /* larger blocks come from the kernel, page by page, each time */
#define HEAP_TOP (8 << 20)   /* what is free at the end of the heap goes back beyond this */

static volatile sig_atomic_t exit_code; /* of a process that had to be cut short */
static void on_alarm(int number) { _exit(exit_code); }

/* A standard descriptor that is closed would be given to the lock file or to a socket, which the
 * maps and log lines would then be written to; and libuv aborts where it is to close one. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd)
            _exit(1);
    }
}

static int run_node(const struct config *config, int argc, char *const *argv)
{
    struct app *app = must_alloc(sizeof *app);
    int r;

    app->config = config;
    app->argc = argc;
    app->argv = argv;
    /* Pages of an introspection come and go by the megabyte: fresh memory would cost as much again.
     */
    mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK);
    mallopt(M_TRIM_THRESHOLD, HEAP_TOP);
    log_setup(&config->log);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_alarm);
    notify_open(&app->notify);
    r = listen_descriptors(config);
    if (r == 0)
        r = privileges_begin(config);
    if (r == 0)
        r = paths_open(&(struct paths_settings){.dir = config->runtime_dir,
                                                .peer_id = config->peer_id,
                                                .socket_group = &config->socket_group,
                                                .socket_mode = config->socket_mode,
                                                .owner = privileges_owner(config)},
                       &app->paths);
    if (r == 0) {
        r = app_loop_init(app);
        if (r < 0) {
            log_error("daemon", "cannot start: %s", uv_strerror(r));
            paths_close(&app->paths);
        }
    }
    if (r < 0) {
        free(app);
        return 1;
    }
    r = app_start(app);
    if (r == 0) {
        app_loop_run(app);
    } else {
        exit_code = 1;
        alarm(STOP_ALL_S);
    }
    app_stop(app, exit_code);
    free(app);
    return r == 0 ? 0 : 1;
}

static void judge_files(void *ctx, const struct config *config,
                        struct tls_fault out_faults[N_TLS_FILES])
{
    credentials_judge(NULL, config, out_faults);
}

int main(int argc, char **argv)
{
    static const struct config_judge judge = {judge_files, NULL};
    enum config_action action;
    struct config *config = NULL;
    int code = 0, r;

    fill_standard_descriptors();
    r = config_load(argc, argv, stderr, &judge, &action, &config);
    if (r < 0) /* files may come later than the settings that name them: worth another start */
        return r == -EBADMSG && action == CONFIG_RUN ? 1 : 2;
    switch (action) {
    case CONFIG_HELP:
        config_help(stdout);
        break;
    case CONFIG_VERSION:
        puts("meshd " MESHD_VERSION);
        break;
    case CONFIG_PRINT:
        config_print(config, stdout);
        break;
    case CONFIG_CHECK:
        code = credentials_check(config, stdout, stderr) ? 0 : 2;
        if (code == 0)
            printf("the settings are valid: node %s\n", config->peer_id);
        break;
    case CONFIG_RUN:
        code = run_node(config, argc, argv);
        break;
    }
    config_free(config);
    if (action != CONFIG_RUN && (fflush(stdout) != 0 || ferror(stdout))) {
        perror("standard output"); /* who asked has less than there is to know */
        return 1;
    }
    return code;
}
