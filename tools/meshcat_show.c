/* meshcat_show - answers as tables or as JSON on stdout; errors and remarks on stderr. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "meshcat.h"
#include "meshcat_format.h"
#include "wire/status.h"

#define SESSION_SHOWN 8 /* digits of a session in a table; JSON has them all */

static char __attribute__((format(printf, 1, 0))) * text_of(const char *format, va_list ap)
{
    CLEANUP(free_textp) char *text = NULL;

    if (vasprintf(&text, format, ap) < 0) {
        text = NULL;
        return must_dup("out of memory");
    }
    return safe_text(text);
}

/* ---- errors and remarks ---- */

static const char *exit_name(int exit_code, int status)
{
    if (status >= 0)
        return status_name((unsigned)status);
    switch (exit_code) {
    case EXIT_USAGE:
        return "USAGE";
    case EXIT_CONNECT:
        return "CANNOT_CONNECT";
    case EXIT_TIMEOUT:
        return "TIMED_OUT";
    case EXIT_PROTOCOL:
        return "PROTOCOL";
    case EXIT_DENIED:
        return "DENIED";
    default:
        return "LOCAL";
    }
}

int show_error(const struct meshcat_opts *opts, int exit_code, int status, const char *format, ...)
{
    CLEANUP(free_textp) char *text = NULL;
    CLEANUP(json_decrefp) json_t *json = NULL;
    va_list ap;

    va_start(ap, format);
    text = text_of(format, ap);
    va_end(ap);
    if (format_is_json(opts)) {
        json = json_pack("{s:{s:o,s:s,s:s,s:i}}", "error", "status",
                         status < 0 ? json_null() : json_integer(status), "code",
                         exit_name(exit_code, status), "text", text, "exit", exit_code);
    }
    if (json && json_dumpf(json, stderr, JSON_COMPACT | JSON_ENSURE_ASCII) == 0)
        fputc('\n', stderr);
    else
        fprintf(stderr, "meshcat: %s\n", text);
    return exit_code;
}

void show_note(const struct meshcat_opts *opts, const char *format, ...)
{
    CLEANUP(free_textp) char *text = NULL;
    va_list ap;

    if (opts->silent || format_is_json(opts))
        return;
    va_start(ap, format);
    text = text_of(format, ap);
    va_end(ap);
    fprintf(stderr, "meshcat: %s\n", text);
}

static int output_errno; /* of the first flush that failed */

void show_flush(void)
{
    if (fflush(stdout) != 0 && output_errno == 0)
        output_errno = errno;
}

void show_forget(void)
{
    struct pollfd at = {.fd = STDOUT_FILENO};

    show_flush();
    if (ferror(stdout) && poll(&at, 1, 0) > 0 && (at.revents & (POLLERR | POLLHUP))) {
        __fpurge(stdout);
        clearerr(stdout);
    }
}

int show_end(const struct meshcat_opts *opts, int code)
{
    show_flush();
    if (!ferror(stdout))
        return code;
    return show_error(
        opts, EXIT_LOCAL, -1,
        "cannot write to standard output: %s; the answer is not complete, run it again "
        "with an output that stays open",
        output_errno ? strerror(output_errno) : "an earlier write failed");
}

/* ---- tables ---- */

const char *show_state(bool connected, bool stale, bool healthy, bool draining)
{
    if (stale)
        return "stale";
    if (draining)
        return "draining";
    if (!connected)
        return "down";
    return healthy ? "connected" : "unhealthy";
}

static void route_cells(struct table *t, const Meshd__V1__Route *route)
{
    table_cell(t, route->ip);
    table_cell(t, route->backend_addr);
    table_cell(t, route->peer_id);
    table_state(t, show_state(route->connected, route->stale, route->healthy, route->draining));
    table_time(t, route->last_seen);
}

/* A line that begins with the name it is a route of. */
static json_t *route_json(const char *name, const Meshd__V1__Route *route)
{
    CLEANUP(json_decrefp) json_t *fields = format_json(&route->base);
    json_t *json = json_pack("{s:s}", "name", name);

    if (json_object_update(json, fields) < 0)
        out_of_memory();
    return json;
}

/* ---- lookup ---- */

static void lookup_table(const Meshd__V1__LookupReply *reply)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("NAME", "SOURCE", "BACKEND", "PEER ID", "STATE", "LAST SEEN");

    for (size_t i = 0; i < reply->n_results; i++) {
        const Meshd__V1__LookupResult *result = reply->results[i];

        for (size_t k = 0; k < result->n_routes; k++) {
            table_cell(t, result->name);
            route_cells(t, result->routes[k]);
        }
    }
    table_print(t, stdout);
}

static void lookup_lines(const Meshd__V1__LookupReply *reply)
{
    for (size_t i = 0; i < reply->n_results; i++) {
        const Meshd__V1__LookupResult *result = reply->results[i];

        for (size_t k = 0; k < result->n_routes; k++) {
            CLEANUP(json_decrefp) json_t *json = route_json(result->name, result->routes[k]);

            format_line(json, 0);
        }
    }
}

void show_lookup(const struct meshcat_opts *opts, const Meshd__V1__LookupReply *reply)
{
    if (opts->silent)
        return;
    if (opts->format == FORMAT_JSONL) {
        lookup_lines(reply);
    } else if (opts->format == FORMAT_JSON) {
        CLEANUP(json_decrefp) json_t *json = format_json(&reply->base);

        format_line(json, 0);
    } else {
        lookup_table(reply);
    }
}

/* ---- explain ---- */

/* A candidate without a route would be a mistake of the node: it is shown as an empty one. */
static const Meshd__V1__Route *route_of(const Meshd__V1__Candidate *candidate)
{
    static const Meshd__V1__Route none = MESHD__V1__ROUTE__INIT;

    return candidate->route ? candidate->route : &none;
}

static void candidate_cells(struct table *t, const Meshd__V1__Candidate *candidate)
{
    const Meshd__V1__Route *route = route_of(candidate);
    char seen[32] = "", session[SESSION_SHOWN + 1] = "", failure[512] = "";

    if (route->last_seen)
        snprintf(seen, sizeof(seen), "%" PRIu64 " s ago", candidate->seen_s_ago);
    snprintf(session, sizeof(session), "%s", candidate->session);
    if (*candidate->last_failure)
        snprintf(failure, sizeof(failure), "%s %.1f s ago: %s", candidate->last_failure,
                 (double)candidate->last_failure_ms_ago / 1000, candidate->last_failure_text);
    table_cell(t, route->ip);
    table_cell(t, route->backend_addr);
    table_cell(t, route->peer_id);
    table_state(t, show_state(route->connected, route->stale, route->healthy, route->draining));
    table_cell(t, seen);
    table_cell(t, session);
    table_number(t, candidate->active);
    table_cell(t, failure);
    table_cell(t, candidate->why);
}

static void explain_table(const Meshd__V1__ExplainReply *reply)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("CHOSEN", "SOURCE", "BACKEND", "PEER ID", "STATE", "SEEN", "SESSION",
                            "ACTIVE", "LAST FAILURE", "WHY");
    CLEANUP(free_textp) char *name = safe_text(reply->name), *verdict = NULL, *matched = NULL;

    verdict = safe_text(reply->verdict);
    matched = safe_text(reply->matched);
    if (*matched && strcmp(matched, name) != 0)
        printf("%s, by %s: %s\n", name, matched, verdict);
    else
        printf("%s: %s\n", name, verdict);
    if (reply->n_candidates == 0)
        return;
    putchar('\n');
    for (size_t i = 0; i < reply->n_candidates; i++) {
        const Meshd__V1__Candidate *candidate = reply->candidates[i];

        table_cell(t, candidate->chosen ? "yes" : "no");
        candidate_cells(t, candidate);
    }
    table_print(t, stdout);
}

static void explain_lines(const Meshd__V1__ExplainReply *reply)
{
    for (size_t i = 0; i < reply->n_candidates; i++) {
        const Meshd__V1__Candidate *candidate = reply->candidates[i];
        CLEANUP(json_decrefp) json_t *json = route_json(reply->name, route_of(candidate));
        CLEANUP(json_decrefp) json_t *fields = format_json(&candidate->base);

        json_object_del(fields, "route"); /* its members are the line's own */
        if (json_object_update(json, fields) < 0)
            out_of_memory();
        format_line(json, 0);
    }
}

void show_explain(const struct meshcat_opts *opts, const Meshd__V1__ExplainReply *reply)
{
    if (opts->silent)
        return;
    if (opts->format == FORMAT_JSONL) {
        explain_lines(reply);
    } else if (opts->format == FORMAT_JSON) {
        CLEANUP(json_decrefp) json_t *json = format_json(&reply->base);

        format_line(json, 0);
    } else {
        explain_table(reply);
    }
}

/* ---- offer, withdraw, drain ---- */

void show_offer(const struct meshcat_opts *opts, const Meshd__V1__OfferReply *reply,
                const char *lease_id, const char *backend)
{
    if (opts->silent)
        return;
    if (format_is_json(opts)) {
        CLEANUP(json_decrefp) json_t *json = format_json(&reply->base);

        json_object_set_new(json, "backend_addr", json_string(backend));
        json_object_set_new(json, "lease_id", json_string(lease_id));
        format_line(json, 0);
    } else {
        CLEANUP(table_freep)
        struct table *t = TABLE("NAME", "BACKEND", "LEASE", "VERSION", "STATE");

        table_cell(t, reply->name);
        table_cell(t, backend);
        table_cell(t, lease_id);
        table_number(t, reply->version);
        table_state(t, show_state(true, false, !reply->unhealthy, reply->draining));
        table_print(t, stdout);
    }
}

void show_withdraw(const struct meshcat_opts *opts, const char *name, uint32_t removed)
{
    if (opts->silent)
        return;
    if (format_is_json(opts)) {
        CLEANUP(json_decrefp)
        json_t *json = json_pack("{s:s,s:I}", "name", name, "removed", (json_int_t)removed);

        format_line(json, 0);
    } else {
        CLEANUP(table_freep) struct table *t = TABLE("NAME", "REMOVED");

        table_cell(t, name);
        table_number(t, removed);
        table_print(t, stdout);
    }
}

void show_drain(const struct meshcat_opts *opts, const char *name,
                const Meshd__V1__DrainReply *reply)
{
    if (opts->silent)
        return;
    if (format_is_json(opts)) {
        CLEANUP(json_decrefp) json_t *json = json_pack("{s:s}", "name", name), *fields = NULL;

        fields = format_json(&reply->base);
        if (json_object_update(json, fields) < 0)
            out_of_memory();
        format_line(json, 0);
    } else {
        CLEANUP(table_freep) struct table *t = TABLE("NAME", "DRAINING", "CHANGED", "VERSION");

        table_cell(t, name);
        table_cell(t, reply->draining ? "yes" : "no");
        table_cell(t, reply->changed ? "yes" : "no");
        table_number(t, reply->version);
        table_print(t, stdout);
    }
}

void show_reload(const struct meshcat_opts *opts, const Meshd__V1__ReloadReply *reply)
{
    if (opts->silent)
        return;
    if (format_is_json(opts)) {
        CLEANUP(json_decrefp) json_t *json = format_json(&reply->base);

        format_line(json, 0);
        return;
    }
    for (size_t i = 0; i < reply->n_changed; i++) {
        CLEANUP(free_textp) char *safe = safe_text(reply->changed[i]);

        puts(safe);
    }
    if (reply->n_changed == 0)
        puts("nothing that can change while the node runs is different");
}

/* ---- ping ---- */

void show_ping(const struct meshcat_opts *opts, const char *peer_id, uint64_t seq, double ms)
{
    CLEANUP(free_textp) char *safe = safe_text(peer_id);

    if (opts->silent || opts->format == FORMAT_JSON)
        return;
    if (opts->format == FORMAT_JSONL) {
        CLEANUP(json_decrefp)
        json_t *json = json_pack("{s:s,s:I,s:o}", "peer_id", peer_id, "seq", (json_int_t)seq, "ms",
                                 ms < 0 ? json_null() : json_real(ms));

        format_line(json, JSON_REAL_PRECISION(6));
    } else if (ms >= 0) {
        printf("%s seq=%" PRIu64 " time=%.3f ms\n", safe, seq, ms);
    }
    show_flush(); /* each as it comes */
}

void show_pings(const struct meshcat_opts *opts, const struct show_pings *pings)
{
    CLEANUP(json_decrefp) json_t *json = NULL;
    json_t *list;
    size_t answered = 0;

    if (opts->silent || opts->format != FORMAT_JSON)
        return;
    list = json_array();
    for (size_t i = 0; i < pings->n; i++) {
        bool ok = pings->ms[i] >= 0;

        answered += ok;
        json_array_append_new(list, ok ? json_real(pings->ms[i]) : json_null());
    }
    json = json_pack("{s:s,s:I,s:I,s:o}", "peer_id", pings->peer_id, "sent", (json_int_t)pings->n,
                     "answered", (json_int_t)answered, "ms", list);
    format_line(json, JSON_REAL_PRECISION(6)); /* more is noise */
}
