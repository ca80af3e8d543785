/* meshcat_find - questions with short answers: lookup, explain, ping. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "meshcat.h"
#include "meshcat_ask.h"
#include "meshcat_format.h"

#define INTERVAL_DEFAULT_MS 1000u

/* ---- lookup ---- */

int run_lookup(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__LookupRequest request = MESHD__V1__LOOKUP_REQUEST__INIT;
    const Meshd__V1__LookupReply *answer;
    size_t found = 0;
    int code = session_begin(&s, opts, false);

    request.names = opts->args;
    request.n_names = opts->n_args;
    if (code == 0)
        code = ask(&s, "Lookup", &request.base, &reply);
    if (code)
        return code;
    answer = (const Meshd__V1__LookupReply *)reply->message;
    if (answer->n_results != opts->n_args)
        return show_error(opts, EXIT_PROTOCOL, -1,
                          "%s answered %zu of %zu names; use the meshcat of the node's version",
                          s.url, answer->n_results, opts->n_args);
    if (format_is_message(opts))
        format_message(opts, reply->message, reply->packed, reply->packed_len);
    else
        show_lookup(opts, answer);
    for (size_t i = 0; i < answer->n_results; i++) {
        const Meshd__V1__LookupResult *result = answer->results[i];

        found += result->n_routes > 0;
        if (result->reason == MESHD__V1__REASON__REASON_BAD_NAME)
            show_note(opts,
                      "%s: cannot be the name of a service; use letters, digits, - _ and dots",
                      opts->args[i]);
        else if (result->n_routes == 0)
            show_note(opts, "%s: nobody offers it; meshcat services lists what is offered",
                      opts->args[i]);
    }
    if (opts->verbose)
        show_note(opts, "%s: epoch %" PRIu64 ", revision %" PRIu64 ": %zu of %zu names found",
                  s.url, answer->epoch, answer->revision, found, answer->n_results);
    if (found == 0)
        return EXIT_NOTHING;
    return found == answer->n_results ? EXIT_FOUND : EXIT_PARTIAL;
}

/* ---- explain ---- */

int run_explain(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__ExplainRequest request = MESHD__V1__EXPLAIN_REQUEST__INIT;
    const Meshd__V1__ExplainReply *answer;
    int code = session_begin(&s, opts, false);

    request.name = opts->args[0];
    if (code == 0)
        code = ask(&s, "Explain", &request.base, &reply);
    if (code)
        return code;
    answer = (const Meshd__V1__ExplainReply *)reply->message;
    if (format_is_message(opts))
        format_message(opts, reply->message, reply->packed, reply->packed_len);
    else
        show_explain(opts, answer);
    if (opts->verbose)
        show_note(opts, "%s: %zu candidates", s.url, answer->n_candidates);
    if (answer->n_candidates > 0)
        return EXIT_FOUND;
    show_note(opts, "%s: nobody offers it; meshcat services lists what is offered", opts->args[0]);
    return EXIT_NOTHING;
}

/* ---- ping ---- */

/* One question; 0, its answer and its time, or the exit code of an error that was told. */
static int ping_once(struct session *s, struct call_reply **out_reply, double *out_ms)
{
    Meshd__V1__Section section = MESHD__V1__SECTION__SECTION_NODE;
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;
    uint64_t began;
    int code;

    request.sections = &section;
    request.n_sections = 1;
    s->deadline_ms = clock_ms() + s->opts->timeout_ms;
    if (!s->conn) {
        code = session_connect(s);
        if (code)
            return code;
    }
    began = clock_ns();
    code = ask(s, "Introspect", &request.base, out_reply);
    if (code) {
        /* The next one begins anew, so that a restarted node is seen. */
        call_close(TAKE(&s->conn));
        return code;
    }
    *out_ms = (double)(clock_ns() - began) / 1e6;
    return 0;
}

static void free_doublesp(double **p) { free(*p); }

int run_ping(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.opts = opts};
    CLEANUP(free_doublesp) double *times = NULL;
    char peer_id[LIMIT_PEER_ID + 1] = "";
    bool for_ever = opts->interval_ms && !opts->count;
    uint32_t count = opts->count ? opts->count : 1;
    uint32_t interval = opts->interval_ms ? opts->interval_ms : INTERVAL_DEFAULT_MS;
    uint64_t answered = 0, n = 0;
    int code = target_url(opts, false, &s.url), error = 0;

    if (code)
        return code;
    if (!for_ever)
        times = must_alloc(count * sizeof(*times));
    while ((for_ever || n < count) && !ferror(stdout)) {
        CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
        double ms = -1;

        if (n > 0)
            poll(NULL, 0, (int)interval);
        code = ping_once(&s, &reply, &ms);
        if (code == EXIT_USAGE)
            return code; /* the next try would be no better */
        if (code)
            error = code;
        else
            snprintf(peer_id, sizeof(peer_id), "%s",
                     ((const Meshd__V1__IntrospectReply *)reply->message)->peer_id);
        if (!format_is_message(opts))
            show_ping(opts, peer_id, n + 1, ms);
        else if (reply)
            format_message(opts, reply->message, reply->packed, reply->packed_len);
        answered += code == 0;
        if (times)
            times[n] = ms;
        n++;
    }
    if (for_ever)
        show_forget();
    if (times)
        show_pings(opts, &(struct show_pings){.peer_id = peer_id, .ms = times, .n = (size_t)n});
    if (opts->verbose)
        show_note(opts, "%s: %" PRIu64 " of %" PRIu64 " answered", s.url, answered, n);
    if (answered == n)
        return EXIT_FOUND;
    return answered > 0 ? EXIT_PARTIAL : error;
}
