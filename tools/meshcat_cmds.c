/* meshcat_cmds - the commands: what each asks, and what its answer means for the exit code. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "meshcat.h"
#include "meshcat_ask.h"
#include "wire/name.h"

#define ROWS_MAX 10000000u /* the most that a node's services map may be set to hold */
#define INTERVAL_DEFAULT_MS 1000u

/* ---- introspect, services, peers, node ---- */

/* The pages of one picture as one message, whose rows are borrowed from the replies. */
struct picture {
    struct call_reply **replies;
    size_t n_replies;
    Meshd__V1__IntrospectReply all;
    size_t rows;
};

static void picture_fini(struct picture *p)
{
    for (size_t i = 0; i < p->all.n_peer_services; i++) {
        free(p->all.peer_services[i]->services);
        free(p->all.peer_services[i]);
    }
    free(p->all.services);
    free(p->all.peer_services);
    for (size_t i = 0; i < p->n_replies; i++)
        call_reply_free(p->replies[i]);
    free(p->replies);
}

static void add_services(struct picture *p, const Meshd__V1__IntrospectReply *page)
{
    size_t n = p->all.n_services;

    p->all.services =
        must_realloc(p->all.services, (n + page->n_services) * sizeof(*p->all.services));
    for (size_t i = 0; i < page->n_services; i++)
        p->all.services[n++] = page->services[i];
    p->all.n_services = n;
    p->rows += page->n_services;
}

static void add_to_peer(Meshd__V1__PeerServicesRow *to, const Meshd__V1__PeerServicesRow *from)
{
    to->services =
        must_realloc(to->services, (to->n_services + from->n_services) * sizeof(*to->services));
    for (size_t i = 0; i < from->n_services; i++)
        to->services[to->n_services++] = from->services[i];
}

/* A peer that the page before ended with goes on in this one: the same row. */
static void add_peers(struct picture *p, const Meshd__V1__IntrospectReply *page)
{
    Meshd__V1__IntrospectReply *all = &p->all;

    all->peer_services =
        must_realloc(all->peer_services,
                     (all->n_peer_services + page->n_peer_services) * sizeof(*all->peer_services));
    for (size_t i = 0; i < page->n_peer_services; i++) {
        const Meshd__V1__PeerServicesRow *from = page->peer_services[i];
        Meshd__V1__PeerServicesRow *to = NULL;

        if (i == 0 && all->n_peer_services > 0)
            to = all->peer_services[all->n_peer_services - 1];
        if (!to || strcmp(to->peer_ip, from->peer_ip) != 0) {
            to = must_alloc(sizeof(*to));
            *to = *from;
            to->services = NULL;
            to->n_services = 0;
            all->peer_services[all->n_peer_services++] = to;
        }
        add_to_peer(to, from);
        p->rows += 1 + from->n_services;
    }
}

/* Takes reply. False: it does not belong to the pages before. */
static bool add_page(struct picture *p, struct call_reply *reply)
{
    const Meshd__V1__IntrospectReply *page = (const Meshd__V1__IntrospectReply *)reply->message;

    p->replies = must_realloc(p->replies, (p->n_replies + 1) * sizeof(*p->replies));
    p->replies[p->n_replies++] = reply;
    if (p->n_replies == 1) {
        p->all = *page;
        p->all.services = NULL;
        p->all.n_services = 0;
        p->all.peer_services = NULL;
        p->all.n_peer_services = 0;
    } else if (page->epoch != p->all.epoch || page->revision != p->all.revision) {
        return false;
    }
    add_services(p, page);
    add_peers(p, page);
    p->all.next_page_token = page->next_page_token;
    return p->rows <= ROWS_MAX;
}

/* Whether rows beyond --limit are there already, so that no further page can matter. */
static bool enough(const struct meshcat_opts *opts, const struct picture *p, unsigned parts)
{
    return opts->limit && (!(parts & SHOW_SERVICES) || p->all.n_services > opts->limit) &&
           (!(parts & SHOW_PEERS) || p->all.n_peer_services > opts->limit);
}

static int fetch(struct session *s, unsigned parts, struct picture *p)
{
    const struct meshcat_opts *o = s->opts;
    Meshd__V1__Section sections[2] = {MESHD__V1__SECTION__SECTION_NODE,
                                      MESHD__V1__SECTION__SECTION_LIMITS};
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;

    request.sections = sections;
    request.n_sections = 2;
    if (parts != SHOW_NODE) {
        request.n_sections = 0;
        if (parts & SHOW_SERVICES)
            sections[request.n_sections++] = MESHD__V1__SECTION__SECTION_SERVICES;
        if (parts & SHOW_PEERS)
            sections[request.n_sections++] = MESHD__V1__SECTION__SECTION_PEER_SERVICES;
    }
    if (o->name_glob)
        request.name_glob = (char *)o->name_glob;
    if (o->peer)
        request.peer = (char *)o->peer;
    request.state = o->state;
    if (parts == SHOW_SERVICES && o->limit && o->limit < LIMIT_PAGE_ROWS)
        request.page_rows = o->limit + 1; /* one more shows that there are more */
    do {
        struct call_reply *reply = NULL;
        int code = ask(s, "Introspect", &request.base, &reply);

        if (code)
            return code;
        if (!add_page(p, reply))
            return show_error(o, EXIT_PROTOCOL, -1,
                              "the pages that %s sent do not belong together; ask again, with "
                              "--name or --limit for less",
                              s->url);
        request.page_token = p->all.next_page_token;
    } while (request.page_token.len > 0 && !enough(o, p, parts));
    return 0;
}

/* Drops what is beyond --limit. */
static void cut(const struct meshcat_opts *opts, struct picture *p)
{
    Meshd__V1__IntrospectReply *all = &p->all;
    bool more = false;

    if (!opts->limit)
        return;
    if (all->n_services > opts->limit) {
        all->n_services = opts->limit;
        more = true;
    }
    while (all->n_peer_services > opts->limit) {
        free(all->peer_services[--all->n_peer_services]->services);
        free(all->peer_services[all->n_peer_services]);
        more = true;
    }
    if (more)
        show_note(opts, "there are more rows than --limit %" PRIu32 "; raise it to see them",
                  opts->limit);
}

static int run_picture(const struct meshcat_opts *opts, unsigned parts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(picture_fini)
    struct picture p = {.all = MESHD__V1__INTROSPECT_REPLY__INIT};
    uint64_t began = clock_ms();
    int code = session_begin(&s, opts, false);

    if (code == 0)
        code = fetch(&s, parts, &p);
    if (code)
        return code;
    cut(opts, &p);
    if (opts->verbose)
        show_note(opts,
                  "%s: %s, epoch %" PRIu64 ", revision %" PRIu64 ": %zu services, %zu peers, "
                  "%zu pages, %" PRIu64 " ms",
                  s.url, p.all.peer_id, p.all.epoch, p.all.revision, p.all.n_services,
                  p.all.n_peer_services, p.n_replies, clock_ms() - began);
    show_picture(opts, &p.all, parts);
    if (parts == SHOW_NODE || p.all.n_services + p.all.n_peer_services > 0)
        return EXIT_FOUND;
    show_note(opts, "nothing matched; %s",
              opts->name_glob || opts->peer || opts->state ? "fewer filters match more"
                                                           : "the node knows of nothing here yet");
    return EXIT_NOTHING;
}

static int run_introspect(const struct meshcat_opts *opts)
{
    return run_picture(opts, SHOW_SERVICES | SHOW_PEERS);
}

static int run_services(const struct meshcat_opts *opts)
{
    return run_picture(opts, SHOW_SERVICES);
}

static int run_peers(const struct meshcat_opts *opts) { return run_picture(opts, SHOW_PEERS); }

static int run_node(const struct meshcat_opts *opts) { return run_picture(opts, SHOW_NODE); }

/* ---- lookup ---- */

static int run_lookup(const struct meshcat_opts *opts)
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

/* ---- ping ---- */

/* One question; 0 and its time, or the exit code of an error that was told. */
static int ping_once(struct session *s, char *out_peer_id, double *out_ms)
{
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
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
    code = ask(s, "Introspect", &request.base, &reply);
    if (code) {
        /* The next one begins anew, so that a restarted node is seen. */
        call_close(TAKE(&s->conn));
        return code;
    }
    *out_ms = (double)(clock_ns() - began) / 1e6;
    snprintf(out_peer_id, LIMIT_PEER_ID + 1, "%s",
             ((const Meshd__V1__IntrospectReply *)reply->message)->peer_id);
    return 0;
}

static void free_doublesp(double **p) { free(*p); }

static int run_ping(const struct meshcat_opts *opts)
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
        double ms = -1;

        if (n > 0)
            poll(NULL, 0, (int)interval);
        code = ping_once(&s, peer_id, &ms);
        if (code == EXIT_USAGE)
            return code; /* the next try would be no better */
        if (code)
            error = code;
        else
            show_ping(opts, peer_id, n + 1, ms);
        answered += code == 0;
        if (times)
            times[n] = ms;
        n++;
    }
    if (times)
        show_pings(opts, &(struct show_pings){.peer_id = peer_id, .ms = times, .n = (size_t)n});
    if (opts->verbose)
        show_note(opts, "%s: %" PRIu64 " of %" PRIu64 " answered", s.url, answered, n);
    if (answered == n)
        return EXIT_FOUND;
    return answered > 0 ? EXIT_PARTIAL : error;
}

/* ---- offer, withdraw ---- */

/* "meshcat:" and the name; of a name too long for it the beginning and its hash, so that the same
 * name has the same lease next time. */
static void default_lease(const char *name, char out[LIMIT_PEER_ID + 1])
{
    int n = snprintf(out, LIMIT_PEER_ID + 1, "meshcat:%s", name);

    if (n > (int)LIMIT_PEER_ID)
        snprintf(out, LIMIT_PEER_ID + 1, "meshcat:%.39s~%016" PRIx64, name,
                 hash_entry(name, strlen(name), "", 0));
}

/* The first word as a canonical name; 0, or the exit code of an error that was told. */
static int name_arg(const struct meshcat_opts *opts, char out_name[LIMIT_NAME + 1])
{
    enum name_error e = name_canon(opts->args[0], strlen(opts->args[0]), out_name);

    if (e == NAME_OK)
        return 0;
    return show_error(opts, EXIT_USAGE, -1,
                      "'%s' %s; a name has letters, digits, - _ and dots, at most 253 bytes",
                      opts->args[0], name_error_text(e));
}

static int run_offer(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;
    char name[LIMIT_NAME + 1], backend[LIMIT_BACKEND + 1], lease[LIMIT_PEER_ID + 1];
    int code = name_arg(opts, name);

    if (code)
        return code;
    if (backend_canon(opts->args[1], strlen(opts->args[1]), backend) < 0)
        return show_error(opts, EXIT_USAGE, -1,
                          "'%s' is no address of a service; write host:port or [v6]:port",
                          opts->args[1]);
    default_lease(name, lease);
    request.lease_id = opts->lease ? (char *)opts->lease : lease;
    request.name = name;
    request.backend_addr = backend;
    request.ttl_ms = opts->ttl_ms;
    code = session_begin(&s, opts, true);
    if (code == 0)
        code = ask(&s, "Offer", &request.base, &reply);
    if (code)
        return code;
    show_offer(opts, (const Meshd__V1__OfferReply *)reply->message, request.lease_id, backend);
    if (opts->verbose)
        show_note(opts, "%s offers %s at %s now", s.url, name, backend);
    return EXIT_FOUND;
}

static int run_withdraw(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;
    char name[LIMIT_NAME + 1];
    uint32_t removed = 0;
    int code = name_arg(opts, name);

    if (code)
        return code;
    request.name = name;
    if (opts->lease)
        request.lease_id = (char *)opts->lease;
    code = session_begin(&s, opts, true);
    if (code == 0)
        code = ask_any(&s, "Withdraw", &request.base, &reply);
    /* That there is nothing to withdraw is an answer like any other here. */
    if (code == 0 && reply->status != STATUS_OK && reply->status != STATUS_NOT_FOUND)
        code = tell_status(&s, reply);
    if (code)
        return code;
    if (reply->status == STATUS_OK)
        removed = ((const Meshd__V1__WithdrawReply *)reply->message)->removed;
    show_withdraw(opts, name, removed);
    if (removed > 0)
        return EXIT_FOUND;
    show_note(opts,
              "%s: no lease holds it; meshcat services --peer local lists what is offered here",
              name);
    return EXIT_NOTHING;
}

const struct meshcat_cmd meshcat_cmds[] = {
    {"introspect", CMD_INTROSPECT, "", "both maps of a node, as of one moment",
     "Shows the map services and the map peer_services of the node, from one picture even when it\n"
     "takes several pages. With JSON: one document with peer_id, epoch, revision, services and\n"
     "peer_services.",
     0, 0, run_introspect},
    {"services", CMD_SERVICES, "", "the services a node knows, its own first",
     "Shows the map services: every name, who offers it, and the state of that peer.", 0, 0,
     run_services},
    {"peers", CMD_PEERS, "", "the peers a node knows, and how many services each has",
     "Shows the map peer_services, a line for each peer; with JSON its services too.", 0, 0,
     run_peers},
    {"lookup", CMD_LOOKUP, "NAME...", "who offers these names, best first",
     "Exit code 0 when all names are found, 7 when only some are, 1 when none is.", 1,
     LIMIT_LOOKUP_NAMES, run_lookup},
    {"node", CMD_NODE, "", "the node itself: links, limits and their use, counters",
     "Shows who the node is, its links to peers, its limits with what is used of each, and its\n"
     "counters.",
     0, 0, run_node},
    {"ping", CMD_PING, "", "whether a node answers, and how fast",
     "Asks the node for itself and measures each answer; --timeout is for each. Exit code 7 when\n"
     "only some are answered.",
     0, 0, run_ping},
    {"offer", CMD_OFFER, "NAME HOST:PORT", "offer a service through the node on this host",
     "The service stays until it is withdrawn, its --ttl is over, or the node ends. The same "
     "lease\n"
     "again renews or changes it. Works through the node's own socket only.",
     2, 2, run_offer},
    {"withdraw", CMD_WITHDRAW, "NAME", "take back what was offered at run time",
     "Ends the lease that holds the name, or only if it is the one of --lease. Works through the\n"
     "node's own socket only.",
     1, 1, run_withdraw},
    {NULL, 0, NULL, NULL, NULL, 0, 0, NULL},
};
