/* reload - what is read again while the node runs: the files of TLS, by a look at them now and
 * then, and on SIGHUP; then the policy of the settings, too. Main loop only.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

#include <uv.h>
#include "daemon/credentials.h"
#include "daemon/notify.h"
#include "daemon/policy.h"

struct reload_from {                 /* all borrowed until reload_stop */
    struct credentials *credentials; /* NULL: plaintext */
    int argc;                        /* as main has them: the settings are read again by them */
    char *const *argv;
    struct policy_keeper *policy;
    struct node *node;
    struct notify *notify;
    /* Something else is in force: who is connected and what is forwarded has to be looked at again,
     * and who was turned away may be welcome now. */
    void (*changed)(void *ctx);
    void *ctx;
};

struct reload {
    struct reload_from from;
    bool running;
    uv_signal_t hup;
    uv_timer_t look;
};

/* From now on SIGHUP ends no process any more; what it asks for is done when the loop runs. As
 * uv_signal_start. */
int reload_init(struct reload *reload, uv_loop_t *loop);
void reload_start(struct reload *reload, const struct reload_from *from);
void reload_stop(struct reload *reload);
void reload_close(struct reload *reload); /* the handles; the loop runs on until they are closed */

#endif
