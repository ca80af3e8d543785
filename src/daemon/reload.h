/* reload - what changes while the node runs: on SIGHUP, and by a look at the files of TLS now and
 * then. Connections whose certificate would not be let in any more are ended; all others stay.
 * Main loop only.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

#include <uv.h>
#include "daemon/trust.h"
#include "forward/forward.h"
#include "gate/gate.h"

struct reload {
    struct trust *trust; /* NULL: plaintext */
    struct gate *gate;
    struct forward *forward;
    uv_signal_t hup;
    uv_timer_t look;
};

/* From now on SIGHUP ends no process any more; what it asks for is done when the loop runs. As
 * uv_signal_start. */
int reload_init(struct reload *reload, uv_loop_t *loop);
/* All borrowed until reload_stop. */
void reload_start(struct reload *reload, struct trust *trust, struct gate *gate,
                  struct forward *forward);
void reload_stop(struct reload *reload);
void reload_close(struct reload *reload); /* the handles; the loop runs on until they are closed */

#endif
