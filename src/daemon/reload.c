/* reload - see reload.h.
 *
 * The settings are read as at the start, file, variables and flags, so that what is wrong anywhere
 * is told with its place; of what is right only the policy is taken. */
#include "daemon/reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS 10000u

static void on_look(uv_timer_t *timer)
{
    struct reload *reload = timer->data;

    if (credentials_look(reload->from.credentials, false))
        reload->from.changed(reload->from.ctx);
}

static void tell_errors(char *lines)
{
    char *line, *rest = lines;

    while ((line = strsep(&rest, "\n")) != NULL)
        if (*line)
            log_error("daemon", "%s", line);
    log_error("daemon", "the settings will not do: the policy stays as it was");
}

/* True: there is one in force that was read just now. */
static bool read_policy(const struct reload_from *from)
{
    enum config_action action;
    struct config *config = NULL;
    char *lines = NULL;
    size_t size;
    FILE *err = open_memstream(&lines, &size);
    int r = err ? config_load(from->argc, from->argv, err, &action, &config) : -errno;

    if (err)
        fclose(err);
    if (r == 0)
        r = policy_reload(config, from->policy, from->node);
    else if (lines && *lines)
        tell_errors(lines);
    if (r == -ENOMEM)
        log_error("daemon", "out of memory: the policy stays as it was");
    config_free(config);
    free(lines);
    return r == 0;
}

static void on_hup(uv_signal_t *handle, int number)
{
    struct reload *reload = handle->data;
    bool changed;

    if (!reload->running)
        return; /* about to end */
    log_info("daemon", "signal %d: reading the policy%s again", number,
             reload->from.credentials ? " and the files of TLS" : "");
    notify_reloading(reload->from.notify);
    changed = read_policy(&reload->from);
    changed |= credentials_look(reload->from.credentials, true);
    if (changed)
        reload->from.changed(reload->from.ctx);
    notify_reloaded(reload->from.notify);
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

void reload_start(struct reload *reload, const struct reload_from *from)
{
    reload->from = *from;
    reload->running = true;
    if (from->credentials)
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
