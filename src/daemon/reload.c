/* reload - see reload.h. */
#include "daemon/reload.h"

#define LOOK_MS 10000u

static void look(struct reload *reload, bool always)
{
    if (!trust_look(reload->trust, always))
        return;
    gate_check_again(reload->gate);
    forward_check_again(reload->forward);
}

static void on_look(uv_timer_t *timer) { look(timer->data, false); }

static void on_hup(uv_signal_t *handle, int number)
{
    struct reload *reload = handle->data;

    if (!reload->gate)
        return; /* it has not started, or is about to end */
    log_info("daemon", "signal %d: %s", number,
             reload->trust ? "reading the files of TLS again"
                           : "nothing is read again without TLS");
    look(reload, true);
}

int reload_init(struct reload *reload, uv_loop_t *loop)
{
    int r = uv_signal_init(loop, &reload->hup);

    if (r == 0)
        r = uv_timer_init(loop, &reload->look);
    reload->hup.data = reload->look.data = reload;
    if (r == 0)
        r = uv_signal_start(&reload->hup, on_hup, SIGHUP);
    return r;
}

void reload_start(struct reload *reload, struct trust *trust, struct gate *gate,
                  struct forward *forward)
{
    reload->trust = trust;
    reload->gate = gate;
    reload->forward = forward;
    if (trust)
        uv_timer_start(&reload->look, on_look, LOOK_MS, LOOK_MS);
}

void reload_stop(struct reload *reload)
{
    uv_timer_stop(&reload->look);
    reload->gate = NULL;
}

void reload_close(struct reload *reload)
{
    uv_close((uv_handle_t *)&reload->hup, NULL);
    uv_close((uv_handle_t *)&reload->look, NULL);
}
