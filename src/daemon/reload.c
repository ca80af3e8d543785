/* reload - see reload.h. */
#include "daemon/reload.h"

#define LOOK_MS 10000u

static void on_look(uv_timer_t *timer)
{
    struct reload *reload = timer->data;

    if (trust_look(reload->trust, false))
        reload->changed(reload->ctx);
}

static void on_hup(uv_signal_t *handle, int number)
{
    struct reload *reload = handle->data;

    if (!reload->running)
        return; /* about to end */
    log_info("daemon", "signal %d: %s", number,
             reload->trust ? "reading the files of TLS again"
                           : "nothing is read again without TLS");
    if (trust_look(reload->trust, true))
        reload->changed(reload->ctx);
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

void reload_start(struct reload *reload, struct trust *trust, void (*changed)(void *ctx), void *ctx)
{
    reload->trust = trust;
    reload->changed = changed;
    reload->ctx = ctx;
    reload->running = true;
    if (trust)
        uv_timer_start(&reload->look, on_look, LOOK_MS, LOOK_MS);
}

void reload_stop(struct reload *reload)
{
    uv_timer_stop(&reload->look);
    reload->running = false;
}

void reload_close(struct reload *reload)
{
    uv_close((uv_handle_t *)&reload->hup, NULL);
    uv_close((uv_handle_t *)&reload->look, NULL);
}
