/* meshcat_target - whom to ask: what the options say, else what the library chooses. */
#include <stdarg.h>
#include <stdlib.h>
#include "base/cleanup.h"
#include "client/target.h"
#include "meshcat.h"

static void freep(char **text) { free(*text); }

static char __attribute__((format(printf, 1, 2))) * text_of(const char *format, ...)
{
    char *text = NULL;
    va_list ap;
    int n;

    va_start(ap, format);
    n = vasprintf(&text, format, ap);
    va_end(ap);
    return n < 0 ? must_dup("") : text;
}

int target_url(const struct meshcat_opts *opts, bool local_only, char **out_url)
{
    CLEANUP(freep) char *chosen = NULL;

    if (opts->dial) {
        *out_url = must_dup(opts->dial);
        return 0;
    }
    if (opts->ipc_path) {
        *out_url = text_of("ipc://%s", opts->ipc_path);
        return 0;
    }
    if (opts->local_port) {
        *out_url = text_of("tcp://127.0.0.1:%u", (unsigned)opts->local_port);
        return 0;
    }
    switch (target_choose(local_only, &chosen)) {
    case 0:
        *out_url = TAKE(&chosen);
        return 0;
    case TARGET_SEVERAL:
        return show_error(
            opts, EXIT_USAGE, -1,
            "several nodes have a socket below %s; choose one with PEER_NAME=ID or -x "
            "PATH",
            chosen);
    case TARGET_NONE:
        return show_error(opts, EXIT_CONNECT, -1,
                          "no node has its socket below %s, and %s works through a node's own "
                          "socket only; start meshd here, or give its socket with -x PATH",
                          chosen, opts->cmd->name);
    default:
        return show_error(opts, EXIT_LOCAL, -1, "out of memory");
    }
}
