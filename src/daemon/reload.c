/* reload - see reload.h.
 *
 * The settings are read as at the start, file, variables and flags, so that what is wrong anywhere
 * is told with its place. The files of TLS come first: they are taken whenever they change, without
 * any other setting, so there is nothing to take back when something else will not do. */
#include "daemon/reload.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "daemon/listen.h"
#include "daemon/mailbox.h"

#define LOOK_MS 10000u
#define ASKED "a signal: reading the settings again"
#define NOTHING "the settings were read again, or refused, and nothing changed"

static struct log_limit asked, nothing; /* a script may ask as often as it likes */

/* ---- reading ---- */

static void add_each(struct report_lines *lines, char *texts)
{
    char *line, *rest = texts;

    while ((line = strsep(&rest, "\n")) != NULL)
        if (*line)
            report_add(lines, line);
}

static bool other_files(const struct config *a, const struct config *b)
{
    return strcmp(a->tls_ca, b->tls_ca) != 0 || strcmp(a->tls_cert, b->tls_cert) != 0 ||
           strcmp(a->tls_key, b->tls_key) != 0 || strcmp(a->tls_crl, b->tls_crl) != 0;
}

/* Files that are named anew wait for the next start, and would end it if they will not do; unless
 * it is root that can read them, who starts the node. */
static void judge_files(void *ctx, const struct config *fresh,
                        struct tls_fault out_faults[N_TLS_FILES])
{
    const struct reload_from *from = ctx;
    bool other = other_files(from->config, fresh);

    credentials_judge(other ? NULL : from->credentials, fresh, out_faults);
    for (size_t i = 0; i < N_TLS_FILES && other; i++)
        if (out_faults[i].error == -EACCES)
            out_faults[i].error = 0;
}

/* NULL: errors says why. */
static struct config *read_settings(struct reload_from *from, struct report_lines *errors)
{
    const struct config_judge judge = {judge_files, from};
    enum config_action action;
    struct config *config = NULL;
    char *texts = NULL;
    size_t size;
    FILE *err;

    if (from->config->once) { /* nobody may write to it any more, or nothing at all */
        report_add(errors, "the file of settings is a pipe, which cannot be read again");
        return NULL;
    }
    err = open_memstream(&texts, &size);
    if (err) {
        if (config_load(from->argc, from->argv, err, &judge, &action, &config) < 0)
            config = NULL;
        fclose(err);
    }
    if (!config && texts)
        add_each(errors, texts);
    if (!config && errors->n == 0)
        report_add(errors, "out of memory");
    free(texts);
    return config;
}

/* ---- what is different ---- */

struct difference {
    struct report *report;
    struct apply_parts parts;
    bool follow; /* those that follow are looked for; else the others */
};

static void on_difference(void *ctx, const struct config_difference *one)
{
    struct difference *all = ctx;
    struct apply_parts *parts = &all->parts;

    if (one->follows != all->follow)
        return;
    if (!one->follows) {
        report_add(&all->report->restart, one->key);
        return;
    }
    report_add(&all->report->changed, one->text);
    parts->limits |= strncmp(one->key, "limits.", 7) == 0;
    parts->services |= strcmp(one->key, "services") == 0;
    parts->peers |= strcmp(one->key, "peers") == 0;
    parts->policy |= strcmp(one->key, "policy") == 0;
    parts->maps |= strcmp(one->key, "log.maps") == 0;
    parts->forwards |= strcmp(one->key, "log.forwards") == 0;
}

static const struct config *in_force(const struct reload *reload)
{
    return reload->config ? reload->config : reload->from.config;
}

/* What follows is compared with what is in force, all else with what the node was started with. */
static int compare(const struct reload *reload, const struct config *fresh, struct difference *out)
{
    int r;

    out->follow = true;
    r = config_diff(in_force(reload), fresh, on_difference, out);
    if (r < 0)
        return r;
    out->follow = false;
    return config_diff(reload->from.config, fresh, on_difference, out);
}

/* ---- taking ---- */

static void refuse(struct report *report, const char *key, int error)
{
    char text[160];

    if (error == -ENOSPC)
        snprintf(text, sizeof text,
                 "%s: more than services_per_peer or services_total lets in, beside what leases "
                 "and peers hold",
                 key);
    else
        snprintf(text, sizeof text, "%s: %s", key,
                 error == -ENOMEM ? "out of memory" : strerror(-error));
    report_add(&report->errors, text);
}

static void take(struct reload *reload, struct config *fresh, struct report *report)
{
    struct difference all = {.report = report};
    const char *key = "settings";
    int r = compare(reload, fresh, &all);

    if (r == 0)
        r = apply(&reload->from.rooms, &all.parts, in_force(reload), fresh, &key);
    if (r < 0) {
        report_clear(&report->changed);
        report_clear(&report->restart);
        refuse(report, key, r);
        config_free(fresh);
        return;
    }
    config_free(reload->config);
    reload->config = fresh;
    if (all.parts.limits)
        listen_warn(fresh);
    if (all.parts.policy)
        reload->from.changed(reload->from.ctx);
}

/* ---- telling ---- */

static void tell(const struct report *report)
{
    enum log_level level = report->errors.n ? LOG_ERROR : report->restart.n ? LOG_WARN : LOG_INFO;

    /* With its errors, or what waits, a line each. */
    if (report->changed.n == 0 && !log_limit_take(&nothing, clock_ms(), level, "daemon", NOTHING))
        return;
    for (size_t i = 0; i < report->errors.n; i++)
        log_error("daemon", "%s", report->errors.at[i]);
    if (report->errors.n) {
        log_error("daemon", "the settings will not do: all stays as it was");
        return;
    }
    for (size_t i = 0; i < report->changed.n; i++)
        log_info("daemon", "%s", report->changed.at[i]);
    for (size_t i = 0; i < report->restart.n; i++)
        log_warn("daemon", "%s changed: it takes effect when the node starts again",
                 report->restart.at[i]);
    log_info("daemon",
             "the settings were read again; changes in force: %zu, waiting for the next start: %zu",
             report->changed.n, report->restart.n);
}

static void count(struct reload_counters *counters, const struct report *report)
{
    counters->last_taken = report->errors.n == 0;
    if (report->errors.n) {
        counters->refused++;
        return;
    }
    counters->taken++;
    counters->taken_s = clock_wall_us() / 1000000;
    counters->waiting = report->restart.n;
}

int reload_now(struct reload *reload, struct report *out_report)
{
    struct reload_from *from = &reload->from;
    enum log_level before;
    char why[TLS_WHY];
    struct config *fresh;
    int tls;

    *out_report = (struct report){0};
    if (!reload->running || reload->draining)
        return -ESHUTDOWN;
    notify_reloading(from->notify);
    before = in_force(reload)->log.level;
    fresh = read_settings(from, &out_report->errors);
    tls = fresh ? credentials_reload(from->credentials, why) : 0;
    if (tls > 0)
        from->changed(from->ctx);
    if (tls < 0) {
        report_add(&out_report->errors, why);
        config_free(fresh);
    } else if (fresh) {
        take(reload, fresh, out_report);
    }
    if (tls > 0 && !out_report->errors.n)
        report_add(&out_report->changed, "the files of TLS");
    /* That the level is another one is told by either. */
    if (in_force(reload)->log.level > before)
        log_set_level(in_force(reload)->log.level);
    tell(out_report);
    count(&reload->counters, out_report);
    log_set_level(in_force(reload)->log.level);
    from->applied(from->ctx);
    notify_reloaded(from->notify);
    return out_report->errors.n ? -EINVAL : 0;
}

static void on_due(uv_timer_t *timer)
{
    struct reload *reload = timer->data;
    struct report report;

    if (!reload->running)
        return; /* about to end */
    if (reload->draining)
        log_limited(&asked, clock_ms(), LOG_WARN, "daemon", ASKED,
                    "signal %d: the settings are not read again: the node is about to end", SIGHUP);
    else
        log_limited(&asked, clock_ms(), LOG_INFO, "daemon", ASKED,
                    "signal %d: reading the settings%s again", SIGHUP,
                    reload->from.credentials ? " and the files of TLS" : "");
    reload_now(reload, &report);
    report_fini(&report);
}

/* Those that came together are handed over one after the other, before any timer. */
static void on_hup(uv_signal_t *handle, int number)
{
    struct reload *reload = handle->data;

    uv_timer_start(&reload->due, on_due, 0, 0);
}

static void on_look(uv_timer_t *timer)
{
    struct reload *reload = timer->data;

    if (!credentials_look(reload->from.credentials, false))
        return;
    reload->from.changed(reload->from.ctx);
    reload->from.applied(reload->from.ctx);
}

int reload_init(struct reload *reload, uv_loop_t *loop)
{
    int r = uv_signal_init(loop, &reload->hup);

    if (r == 0)
        r = uv_timer_init(loop, &reload->due);
    if (r == 0)
        r = uv_timer_init(loop, &reload->look);
    reload->hup.data = reload->due.data = reload->look.data = reload;
    reload->counters =
        (struct reload_counters){.last_taken = 1, .taken_s = clock_wall_us() / 1000000};
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

void reload_drain(struct reload *reload) { reload->draining = true; }

void reload_left_out(uint64_t now_ms)
{
    log_limited_rest(&asked, now_ms, LOG_INFO, "daemon", ASKED);
    log_limited_rest(&nothing, now_ms, LOG_INFO, "daemon", NOTHING);
    credentials_left_out(now_ms);
}

void reload_stop(struct reload *reload)
{
    uv_timer_stop(&reload->due);
    uv_timer_stop(&reload->look);
    reload->running = false;
}

void reload_close(struct reload *reload)
{
    uv_close((uv_handle_t *)&reload->hup, NULL);
    uv_close((uv_handle_t *)&reload->due, NULL);
    uv_close((uv_handle_t *)&reload->look, NULL);
    config_free(reload->config);
    reload->config = NULL;
}
