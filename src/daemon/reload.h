/* reload - what is read again while the node runs: the files of TLS, by a look at them now and
 * then; and, on SIGHUP or when somebody asks for it, these and all settings. Main loop only.
 *
 * All or nothing: files of TLS that will not do, a setting that is wrong anywhere, or one that
 * there is no room for, and everything stays as it was. A setting that waits for the next start is
 * told each time, and holds nothing up. Signals that come while the loop is busy, with a reading
 * maybe, ask for one reading together. A node that drains is about to leave: it takes no other
 * settings, only files of TLS, whose list of revoked ones is for those who are still there.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

#include <uv.h>
#include "daemon/apply.h"
#include "daemon/credentials.h"
#include "daemon/notify.h"
#include "daemon/report.h"

struct reload_from {                 /* all borrowed until reload_stop */
    const struct config *config;     /* of the start */
    struct credentials *credentials; /* NULL: plaintext */
    int argc;                        /* as main has them: the settings are read again by them */
    char *const *argv;
    struct apply_rooms rooms;
    struct notify *notify;
    /* Something else is in force: who is connected and what is forwarded has to be looked at again,
     * and who was turned away may be welcome now. */
    void (*changed)(void *ctx);
    /* Other settings are in force: the node may have something to do soon. */
    void (*applied)(void *ctx);
    void *ctx;
};

struct reload_counters {
    uint64_t taken, refused; /* of those that were asked for */
    uint64_t last_taken;     /* 1: the last one was, or there was none; 0: it was refused */
    uint64_t taken_s;        /* unix time of the last that was, or of the start */
    uint64_t waiting;        /* settings that wait for the next start, as of then */
};

struct reload {
    struct reload_from from;
    struct config *config; /* that was taken last; NULL: the start's */
    struct reload_counters counters;
    bool running, draining;
    uv_signal_t hup;
    uv_timer_t due; /* at once: behind all signals that have come */
    uv_timer_t look;
};

/* From now on SIGHUP ends no process any more; what it asks for is done when the loop runs. As
 * uv_signal_start. */
int reload_init(struct reload *reload, uv_loop_t *loop);
void reload_start(struct reload *reload, const struct reload_from *from);
/* All is read again, and told on the log. 0; -EINVAL: nothing was changed, errors says why;
 * -ESHUTDOWN: not between reload_start and reload_drain. report_fini each time. */
int reload_now(struct reload *reload, struct report *out_report);
void reload_drain(struct reload *reload);
void reload_stop(struct reload *reload);
void reload_close(struct reload *reload); /* the handles; the loop runs on until they are closed */
/* Tells how many lines of readings that changed nothing were left out; now and then. */
void reload_left_out(uint64_t now_ms);

#endif
