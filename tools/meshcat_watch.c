/* meshcat_watch - what comes, changes and goes at a node, line by line, until it is interrupted.
 *
 * One loop waits for the node, for SIGINT and SIGTERM, and for the end of whoever reads standard
 * output. A reader that leaves has seen enough: that ends the watch and is no error.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "client/follow.h"
#include "meshcat.h"
#include "meshcat_ask.h"
#include "meshcat_format.h"

struct watch {
    const struct meshcat_opts *opts;
    struct session session; /* for its URL and deadline; it has no connection */
    struct follow *follow;
    int signals;       /* a descriptor: readable when it is to end */
    uint32_t n_events; /* that were shown */
    bool answered;     /* a message has come */
    bool away, begun;  /* begun: the header stands */
};

static void watch_fini(struct watch *w)
{
    if (w->signals >= 0)
        close(w->signals);
    follow_free(w->follow);
    session_fini(&w->session);
}

/* ---- as a table ---- */

/* Wide enough for most; a longer one moves its line only. */
enum {
    WIDTH_TIME = 20,
    WIDTH_CHANGE = 7,
    WIDTH_NAME = 24,
    WIDTH_SOURCE = 15,
    WIDTH_BACKEND = 21,
    WIDTH_PEER = 12
};

/* style: NULL for a header, "" for none, else the state that has it. */
static void column(const char *text, int width, const char *style)
{
    CLEANUP(free_textp) char *safe = safe_text(text[0] ? text : "-");

    printf("%s%s%s", table_style(style), safe, table_style_end(style));
    if (width > 0)
        printf("%*s", (int)strlen(safe) < width ? width - (int)strlen(safe) + 2 : 2, "");
    else
        putchar('\n');
}

static void head(struct watch *w)
{
    static const struct {
        const char *name;
        int width;
    } columns[] = {
        {"TIME", WIDTH_TIME},
        {"CHANGE", WIDTH_CHANGE},
        {"NAME", WIDTH_NAME},
        {"SOURCE", WIDTH_SOURCE},
        {"BACKEND", WIDTH_BACKEND},
        {"PEER ID", WIDTH_PEER},
        {"STATE", 0},
    };

    if (!w->begun)
        for (size_t i = 0; i < sizeof(columns) / sizeof(*columns); i++)
            column(columns[i].name, columns[i].width, NULL);
    w->begun = true;
}

static void line_begin(struct watch *w, const char *change)
{
    char now[40];

    head(w);
    time_text((uint64_t)time(NULL), now);
    column(now, WIDTH_TIME, "");
    column(change, WIDTH_CHANGE, change);
}

/* ---- as JSON ---- */

/* A line that says where it is; what else belongs into it is added before it is printed. */
static json_t *json_begin(const char *change, const Meshd__V1__WatchReply *reply)
{
    Meshd__V1__WatchReply bare = *reply;
    CLEANUP(json_decrefp) json_t *place = NULL;
    json_t *json = json_pack("{s:s}", "change", change);

    bare.n_events = 0;
    place = format_json(&bare.base);
    json_object_set(json, "epoch", json_object_get(place, "epoch"));
    if (json_object_set(json, "revision", json_object_get(place, "revision")) < 0)
        out_of_memory();
    return json;
}

/* ---- what happened ---- */

static const char *change_name(Meshd__V1__WatchKind kind)
{
    switch (kind) {
    case MESHD__V1__WATCH_KIND__WATCH_KIND_UP:
        return "up";
    case MESHD__V1__WATCH_KIND__WATCH_KIND_CHANGED:
        return "changed";
    case MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN:
        return "down";
    default:
        return "other"; /* newer than this program */
    }
}

static void show_event(struct watch *w, const Meshd__V1__WatchReply *reply,
                       const Meshd__V1__WatchEvent *event)
{
    static const Meshd__V1__ServiceRow none = MESHD__V1__SERVICE_ROW__INIT;
    const Meshd__V1__ServiceRow *row = event->row ? event->row : &none;
    const char *state = show_state(row->connected, row->stale, row->healthy, row->draining);
    bool down = event->kind == MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN;

    if (format_is_json(w->opts)) {
        CLEANUP(json_decrefp) json_t *json = json_begin(change_name(event->kind), reply);

        if (down)
            json_object_set_new(json, "why", json_string(event->why));
        json_object_set_new(json, "row", format_json(&row->base));
        format_line(json, 0);
        return;
    }
    line_begin(w, change_name(event->kind));
    column(row->name, WIDTH_NAME, "");
    column(row->ip, WIDTH_SOURCE, "");
    column(row->backend_addr, WIDTH_BACKEND, "");
    column(row->peer_id, WIDTH_PEER, "");
    if (down)
        column(event->why, 0, "");
    else
        column(state, 0, state);
}

/* "synced" or "resync", with the place. */
static void show_place(struct watch *w, const char *change, const Meshd__V1__WatchReply *reply)
{
    char place[48];

    if (format_is_json(w->opts)) {
        CLEANUP(json_decrefp) json_t *json = json_begin(change, reply);

        format_line(json, 0);
        return;
    }
    snprintf(place, sizeof(place), "%" PRIu64 ":%" PRIu64, reply->epoch, reply->revision);
    line_begin(w, change);
    column(place, 0, "");
}

/* A message; true when it is the last one wanted. One that tells nothing is a sign of life. */
static bool show_reply(struct watch *w, const Meshd__V1__WatchReply *reply)
{
    uint32_t most = w->opts->count;

    if (format_is_message(w->opts) && (reply->n_events || reply->resync || reply->synced)) {
        const uint8_t *data;
        size_t len;

        follow_raw(w->follow, &data, &len);
        format_message(w->opts, &reply->base, data, len);
        if (w->opts->format == FORMAT_TEXT && !w->opts->silent)
            putchar('\n');
        w->n_events += (uint32_t)reply->n_events;
        return most && w->n_events >= most;
    }
    if (reply->resync && !w->opts->silent)
        show_place(w, "resync", reply);
    for (size_t i = 0; i < reply->n_events; i++) {
        if (!w->opts->silent)
            show_event(w, reply, reply->events[i]);
        if (++w->n_events == most)
            return true;
    }
    if (reply->synced && !w->opts->silent)
        show_place(w, "synced", reply);
    return false;
}

/* ---- losing the node ---- */

/* Nothing has come yet: that is an error as of any other command. */
static int never_answered(struct watch *w, const struct follow_status *status)
{
    if (status->error == -EBUSY) /* turned away by the node, which said why */
        return tell_status(&w->session, &(struct call_reply){.status = status->status,
                                                             .reason = status->reason,
                                                             .text = status->text});
    snprintf(w->session.why, sizeof(w->session.why), "%s", status->why);
    return tell_failure(&w->session, status->error, true);
}

/* Told once for each loss, and not for each attempt that fails after it. */
static void show_away(struct watch *w, const struct follow_status *status)
{
    const char *why = status->why[0] ? status->why : strerror(-status->error);

    if (w->away)
        return;
    w->away = true;
    if (format_is_json(w->opts) && !w->opts->silent) {
        CLEANUP(json_decrefp)
        json_t *json = json_pack("{s:s,s:s}", "change", "away", "why", why);

        format_line(json, 0);
    }
    show_note(w->opts, "%s: the connection is lost (%s); it is tried again, Ctrl-C ends it",
              w->session.url, why);
}

static int ended(struct watch *w, const struct follow_status *status)
{
    return tell_status(&w->session,
                       &(struct call_reply){.status = status->status,
                                            .reason = status->reason,
                                            .text = status->text,
                                            .wire_version_min = status->wire_version_min,
                                            .wire_version_max = status->wire_version_max});
}

/* ---- the loop ---- */

/* Waits for the node, at most until the deadline of the first answer. False: it is to end. */
static bool wait_for_it(struct watch *w, bool idle)
{
    struct pollfd at[3] = {
        {.fd = w->signals, .events = POLLIN},
        {.fd = STDOUT_FILENO, .events = 0}, /* errors only: nobody reads on */
        {.fd = follow_fd(w->follow), .events = POLLIN},
    };
    uint64_t now = clock_ms(), until = w->session.deadline_ms;
    int timeout = -1;

    if (!idle)
        timeout = 0;
    else if (!w->answered)
        timeout = until > now ? (int)(until - now) : 0;
    if (poll(at, 3, timeout) < 0 && errno != EINTR)
        return false;
    return !at[0].revents && !at[1].revents;
}

static int follow_on(struct watch *w)
{
    const Meshd__V1__WatchReply *reply;
    struct follow_status status;
    int r = 0;

    while (wait_for_it(w, r == -ETIMEDOUT)) {
        r = follow_next(w->follow, 0, &reply);
        if (r == -ETIMEDOUT) {
            if (!w->answered && clock_ms() >= w->session.deadline_ms)
                return tell_failure(&w->session, -ETIMEDOUT, true);
            continue;
        }
        if (r < 0)
            return tell_failure(&w->session, r, false);
        follow_status(w->follow, &status);
        if (r == FOLLOW_ENDED)
            return ended(w, &status);
        if (r == FOLLOW_LOST && !w->answered)
            return never_answered(w, &status);
        if (r == FOLLOW_LOST) {
            show_away(w, &status);
        } else {
            if (w->away && w->opts->verbose)
                show_note(w->opts, "%s: connected again", w->session.url);
            w->answered = true;
            w->away = false;
            if (show_reply(w, reply))
                break;
        }
        show_flush(); /* each line as it comes */
        if (ferror(stdout))
            break;
    }
    show_forget();
    return EXIT_FOUND;
}

/* SIGINT and SIGTERM as a descriptor; -1 without one. */
static int open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int run_watch(const struct meshcat_opts *opts)
{
    CLEANUP(watch_fini) struct watch w = {.opts = opts, .session = {.opts = opts}, .signals = -1};
    struct follow_settings settings = {
        .name_glob = opts->n_args > 0 ? opts->args[0] : opts->name_glob,
        .peer = opts->peer,
        .from_epoch = opts->from_epoch,
        .from_revision = opts->from_revision,
    };
    struct follow_status status;
    int code = target_url(opts, false, &w.session.url), r;

    if (code)
        return code;
    w.session.deadline_ms = clock_ms() + opts->timeout_ms;
    code = session_trust(&w.session);
    if (code)
        return code;
    settings.url = w.session.url;
    settings.trust = w.session.trust;
    r = follow_new(&settings, &w.follow);
    if (r < 0)
        return tell_failure(&w.session, r, true);
    w.signals = open_signals();
    if (w.signals < 0)
        return show_error(opts, EXIT_LOCAL, -1, "cannot wait for signals: %s", strerror(errno));
    code = follow_on(&w);
    follow_status(w.follow, &status);
    if (code == EXIT_FOUND && status.revision > 0)
        show_note(opts, "%s: to go on from here: --from %" PRIu64 ":%" PRIu64, w.session.url,
                  status.epoch, status.revision);
    return code;
}
