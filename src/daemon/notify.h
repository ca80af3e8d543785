/* notify - tells the service manager how the node is, as sd_notify(3) has it: that it runs, what it
 * is doing in a sentence, that it reads its settings again, that it ends, and, when the manager
 * wants to know (WatchdogSec=), that its main loop still turns and nng is well.
 *
 * The protocol is documented as stable and is a few lines of text on a datagram socket; libsystemd
 * would bring liblzma, libzstd and libgcrypt into the process. Without NOTIFY_SOCKET nothing here
 * does anything. Main loop only; what the manager does not take does not hold the node up.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <uv.h>

struct canary;
struct registry;

struct notify {
    int fd; /* connected; -1: nobody is to be told */
    struct sockaddr_un to;
    socklen_t to_len;
    uint64_t watchdog_ms; /* a sign of life within each; 0: none is wanted */
    struct registry *registry;
    const struct canary *canary;
    uv_timer_t beat; /* initialised while `beating` */
    bool beating, stopping;
    char status[128]; /* the sentence told last */
};

/* Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment. Before privileges are
 * given up, so that a socket that only root reaches is one too. Does not fail: what cannot be told
 * is logged. */
void notify_open(struct notify *notify);
/* READY, when all runs; from then on signs of life and the sentence. Borrows both until
 * notify_stop. */
void notify_ready(struct notify *notify, uv_loop_t *loop, struct registry *registry,
                  const struct canary *canary);
/* Around a reload. */
void notify_reloading(struct notify *notify);
void notify_reloaded(struct notify *notify);
/* The end has been asked for and takes at most so long; what: the sentence. Signs of life go on. */
void notify_stopping(struct notify *notify, uint64_t within_ms, const char *what);
/* Nothing is told any more; the loop runs once more for the timer to close. */
void notify_stop(struct notify *notify);

#endif
