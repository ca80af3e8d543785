/* meshcat - ask a meshd node what it knows. This file is its beginning and its end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
#include "meshcat.h"
#include "wire/frame.h"

/* A standard descriptor that is closed would be given to the next socket, and data meant for a
 * reader would go to the node: it is filled with one that cannot be used so. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            _exit(EXIT_LOCAL);
    }
}

int main(int argc, char **argv)
{
    struct meshcat_complaint complaint;
    struct meshcat_opts opts;
    int code;

    fill_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* a reader that left is an error to tell */
    code = opts_parse(argc, argv, &opts, &complaint);
    if (code)
        return show_error(&opts, code, -1, "%s", complaint.text);
    table_colors(&opts);
    if (opts.help && opts.cmd)
        help_command(stdout, opts.cmd);
    else if (opts.help)
        help_overall(stdout);
    else if (opts.version)
        printf("meshcat %s (wire versions %u to %u)\n", MESHD_VERSION, WIRE_VERSION_MIN,
               WIRE_VERSION_MAX);
    else
        code = cmd_run(&opts);
    return show_end(&opts, code);
}
