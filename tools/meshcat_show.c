/* meshcat_show - answers as tables or as one JSON document on stdout; errors and remarks on stderr.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "meshcat.h"
#include "wire/json.h"
#include "wire/status.h"

static void freep(char **text) { free(*text); }

static void table_freep(struct table **table) { table_free(*table); }

static char __attribute__((format(printf, 1, 0))) * text_of(const char *format, va_list ap)
{
    CLEANUP(freep) char *text = NULL;

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
    default:
        return "LOCAL";
    }
}

int show_error(const struct meshcat_opts *opts, int exit_code, int status, const char *format, ...)
{
    CLEANUP(freep) char *text = NULL;
    CLEANUP(json_decrefp) json_t *json = NULL;
    va_list ap;

    va_start(ap, format);
    text = text_of(format, ap);
    va_end(ap);
    if (opts->format == FORMAT_JSON) {
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
    CLEANUP(freep) char *text = NULL;
    va_list ap;

    if (opts->silent || opts->format == FORMAT_JSON)
        return;
    va_start(ap, format);
    text = text_of(format, ap);
    va_end(ap);
    fprintf(stderr, "meshcat: %s\n", text);
}

int show_end(const struct meshcat_opts *opts, int code)
{
    /* Tried even after an earlier failure, whose errno is gone by now. */
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    return show_error(
        opts, EXIT_LOCAL, -1,
        "cannot write to standard output: %s; the answer is not complete, run it again "
        "with an output that stays open",
        errno ? strerror(errno) : "an earlier write failed");
}

/* ---- JSON ---- */

static json_t *json_of(const ProtobufCMessage *message)
{
    json_t *json = wire_json(message);

    if (!json) {
        fputs("meshcat: out of memory; ask for less at once (--limit, --name)\n", stderr);
        exit(EXIT_LOCAL);
    }
    return json;
}

/* flags: beside the usual ones. */
static void json_out(const json_t *json, size_t flags)
{
    /* ASCII only: no byte of an answer can steer a terminal. Failures show in ferror(stdout). */
    json_dumpf(json, stdout, flags | JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
}

static void drop(json_t *json, const char *const *keys)
{
    for (; *keys; keys++)
        json_object_del(json, *keys);
}

static void picture_json(const Meshd__V1__IntrospectReply *picture, unsigned parts)
{
    static const char *const always[] = {"next_page_token", "tombstones", "local_digest",
                                         "local_total", NULL};
    static const char *const services[] = {"services", "services_total", NULL};
    static const char *const peers[] = {"peer_services", "peers_total", NULL};
    static const char *const node[] = {"node", "limits", NULL};
    CLEANUP(json_decrefp) json_t *json = json_of(&picture->base);

    drop(json, always);
    if (!(parts & SHOW_SERVICES))
        drop(json, services);
    if (!(parts & SHOW_PEERS))
        drop(json, peers);
    if (!(parts & SHOW_NODE))
        drop(json, node);
    json_out(json, 0);
}

/* ---- tables ---- */

#define TABLE(...)                                                                                 \
    table_new(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *),                         \
              (const char *const[]){__VA_ARGS__})

static const char *state_name(bool connected, bool stale, bool draining)
{
    if (stale)
        return "stale";
    if (draining)
        return "draining";
    return connected ? "connected" : "down";
}

static void services_table(const Meshd__V1__IntrospectReply *picture)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("NAME", "SOURCE", "BACKEND", "PEER ID", "STATE", "LAST SEEN");

    for (size_t i = 0; i < picture->n_services; i++) {
        const Meshd__V1__ServiceRow *row = picture->services[i];

        table_cell(t, row->name);
        table_cell(t, row->ip);
        table_cell(t, row->backend_addr);
        table_cell(t, row->peer_id);
        table_cell(t, state_name(row->connected, row->stale, row->draining));
        table_time(t, row->last_seen);
    }
    table_print(t, stdout);
}

static void peers_table(const Meshd__V1__IntrospectReply *picture)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("PEER IP", "PEER ID", "STATE", "SERVICES", "LAST SYNC", "LAST SEEN");

    for (size_t i = 0; i < picture->n_peer_services; i++) {
        const Meshd__V1__PeerServicesRow *row = picture->peer_services[i];

        table_cell(t, row->peer_ip);
        table_cell(t, row->peer_id);
        table_cell(t, state_name(row->connected, row->stale, row->draining));
        table_number(t, row->n_services);
        table_time(t, row->last_sync);
        table_time(t, row->last_seen);
    }
    table_print(t, stdout);
}

/* Each peer whole: a line per service, or one for a peer without any. */
static void peer_services_table(const Meshd__V1__IntrospectReply *picture)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("PEER IP", "PEER ID", "STATE", "LAST SYNC", "NAME", "BACKEND");

    for (size_t i = 0; i < picture->n_peer_services; i++) {
        const Meshd__V1__PeerServicesRow *row = picture->peer_services[i];

        for (size_t k = 0; k < (row->n_services ? row->n_services : 1); k++) {
            table_cell(t, row->peer_ip);
            table_cell(t, row->peer_id);
            table_cell(t, state_name(row->connected, row->stale, row->draining));
            table_time(t, row->last_sync);
            table_cell(t, row->n_services ? row->services[k]->name : "");
            table_cell(t, row->n_services ? row->services[k]->backend_addr : "");
        }
    }
    table_print(t, stdout);
}

static void field_text(struct table *t, const char *field, const char *text)
{
    table_cell(t, field);
    table_cell(t, text);
}

static void field_number(struct table *t, const char *field, uint64_t number)
{
    table_cell(t, field);
    table_number(t, number);
}

static void node_table(const Meshd__V1__NodeInfo *node)
{
    CLEANUP(table_freep) struct table *t = TABLE("FIELD", "VALUE");
    char text[48];

    field_text(t, "peer id", node->peer_id);
    field_text(t, "software", node->software);
    for (size_t i = 0; i < node->n_addresses; i++)
        field_text(t, "address", node->addresses[i]);
    table_cell(t, "started");
    table_time(t, node->started);
    snprintf(text, sizeof(text), "%" PRIu64 ".%03u s", node->uptime_ms / 1000,
             (unsigned)(node->uptime_ms % 1000));
    field_text(t, "up for", text);
    field_number(t, "incarnation", node->incarnation);
    field_number(t, "version", node->version);
    snprintf(text, sizeof(text), "%u to %u", node->wire_version_min, node->wire_version_max);
    field_text(t, "wire versions", text);
    field_text(t, "draining", node->draining ? "yes" : "no");
    field_text(t, "nng healthy", node->nng_healthy ? "yes" : "no");
    table_print(t, stdout);
}

static void links_table(const Meshd__V1__NodeInfo *node)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("LINK", "ADDRESS", "CONFIGURED", "STATE", "SINCE", "SILENT MS",
                            "ATTEMPTS", "LAST ERROR");

    for (size_t i = 0; i < node->n_links; i++) {
        const Meshd__V1__LinkRow *row = node->links[i];

        table_cell(t, row->peer_id);
        table_cell(t, row->address);
        table_cell(t, row->configured);
        table_cell(t, row->state);
        table_time(t, row->since);
        table_number(t, row->silent_ms);
        table_number(t, row->attempts);
        table_cell(t, row->last_error);
    }
    table_print(t, stdout);
}

static void limits_table(const Meshd__V1__IntrospectReply *picture)
{
    CLEANUP(table_freep) struct table *t = TABLE("LIMIT", "USED", "MOST", "UNIT");

    for (size_t i = 0; i < picture->n_limits; i++) {
        table_cell(t, picture->limits[i]->name);
        table_number(t, picture->limits[i]->used);
        table_number(t, picture->limits[i]->limit);
        table_cell(t, picture->limits[i]->unit);
    }
    table_print(t, stdout);
}

static void counters_table(const Meshd__V1__NodeInfo *node)
{
    CLEANUP(table_freep) struct table *t = TABLE("COUNTER", "VALUE");

    for (size_t i = 0; i < node->n_counters; i++)
        field_number(t, node->counters[i]->name, node->counters[i]->value);
    table_print(t, stdout);
}

static void node_tables(const Meshd__V1__IntrospectReply *picture)
{
    const Meshd__V1__NodeInfo none = MESHD__V1__NODE_INFO__INIT;
    const Meshd__V1__NodeInfo *node = picture->node ? picture->node : &none;

    node_table(node);
    putchar('\n');
    links_table(node);
    putchar('\n');
    limits_table(picture);
    putchar('\n');
    counters_table(node);
}

static void both_tables(const Meshd__V1__IntrospectReply *picture)
{
    CLEANUP(freep) char *peer_id = safe_text(picture->peer_id);

    printf("peer_id=%s epoch=%" PRIu64 " revision=%" PRIu64 "\n\n", peer_id, picture->epoch,
           picture->revision);
    printf("services: %zu\n", picture->n_services);
    services_table(picture);
    printf("\npeer_services: %zu\n", picture->n_peer_services);
    peer_services_table(picture);
}

void show_picture(const struct meshcat_opts *opts, const Meshd__V1__IntrospectReply *picture,
                  unsigned parts)
{
    if (opts->silent)
        return;
    if (opts->format == FORMAT_JSON)
        picture_json(picture, parts);
    else if (parts == SHOW_NODE)
        node_tables(picture);
    else if (parts == SHOW_SERVICES)
        services_table(picture);
    else if (parts == SHOW_PEERS)
        peers_table(picture);
    else
        both_tables(picture);
}

static void lookup_table(const Meshd__V1__LookupReply *reply)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("NAME", "SOURCE", "BACKEND", "PEER ID", "STATE", "LAST SEEN");

    for (size_t i = 0; i < reply->n_results; i++) {
        const Meshd__V1__LookupResult *result = reply->results[i];

        for (size_t k = 0; k < result->n_routes; k++) {
            const Meshd__V1__Route *route = result->routes[k];

            table_cell(t, result->name);
            table_cell(t, route->ip);
            table_cell(t, route->backend_addr);
            table_cell(t, route->peer_id);
            table_cell(t, state_name(route->connected, route->stale, route->draining));
            table_time(t, route->last_seen);
        }
    }
    table_print(t, stdout);
}

void show_lookup(const struct meshcat_opts *opts, const Meshd__V1__LookupReply *reply)
{
    if (opts->silent)
        return;
    if (opts->format == FORMAT_JSON) {
        CLEANUP(json_decrefp) json_t *json = json_of(&reply->base);

        json_out(json, 0);
        return;
    }
    lookup_table(reply);
}

void show_offer(const struct meshcat_opts *opts, const Meshd__V1__OfferReply *reply,
                const char *lease_id, const char *backend)
{
    if (opts->silent)
        return;
    if (opts->format == FORMAT_JSON) {
        CLEANUP(json_decrefp) json_t *json = json_of(&reply->base);

        json_object_set_new(json, "backend_addr", json_string(backend));
        json_object_set_new(json, "lease_id", json_string(lease_id));
        json_out(json, 0);
    } else {
        CLEANUP(table_freep) struct table *t = TABLE("NAME", "BACKEND", "LEASE", "VERSION");

        table_cell(t, reply->name);
        table_cell(t, backend);
        table_cell(t, lease_id);
        table_number(t, reply->version);
        table_print(t, stdout);
    }
}

void show_withdraw(const struct meshcat_opts *opts, const char *name, uint32_t removed)
{
    if (opts->silent)
        return;
    if (opts->format == FORMAT_JSON) {
        CLEANUP(json_decrefp)
        json_t *json = json_pack("{s:s,s:I}", "name", name, "removed", (json_int_t)removed);

        json_out(json, 0);
    } else {
        CLEANUP(table_freep) struct table *t = TABLE("NAME", "REMOVED");

        table_cell(t, name);
        table_number(t, removed);
        table_print(t, stdout);
    }
}

/* ---- ping ---- */

void show_ping(const struct meshcat_opts *opts, const char *peer_id, uint64_t seq, double ms)
{
    CLEANUP(freep) char *safe = safe_text(peer_id);

    if (opts->silent || opts->format == FORMAT_JSON)
        return;
    printf("%s seq=%" PRIu64 " time=%.3f ms\n", safe, seq, ms);
    fflush(stdout); /* each as it comes; a failure stays in ferror(stdout) */
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
    json_out(json, JSON_REAL_PRECISION(6)); /* more is noise */
}
