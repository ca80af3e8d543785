/* reload - what is read again while the node runs: on SIGHUP, and the files of TLS by a look at
 * them now and then. Main loop only.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

#include <uv.h>
#include "daemon/trust.h"

struct reload {
    struct trust *trust; /* NULL: plaintext */
    void (*changed)(void *ctx);
    void *ctx;
    bool running;
    uv_signal_t hup;
    uv_timer_t look;
};

/* From now on SIGHUP ends no process any more; what it asks for is done when the loop runs. As
 * uv_signal_start. */
int reload_init(struct reload *reload, uv_loop_t *loop);
/* changed is called whenever there is something else in force: who is connected has to be looked at
 * again, and who was turned away may be welcome now. All borrowed until reload_stop. */
void reload_start(struct reload *reload, struct trust *trust, void (*changed)(void *ctx),
                  void *ctx);
void reload_stop(struct reload *reload);
void reload_close(struct reload *reload); /* the handles; the loop runs on until they are closed */

#endif
