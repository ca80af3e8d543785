/* meshcat_maps - what a node knows and is, as tables, as one JSON document, or as a line of JSON
 * for each row. */
#include <inttypes.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/limits.h"
#include "meshcat.h"
#include "meshcat_format.h"

/* ---- JSON ---- */

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
    CLEANUP(json_decrefp) json_t *json = format_json(&picture->base);

    drop(json, always);
    if (!(parts & SHOW_SERVICES))
        drop(json, services);
    if (!(parts & SHOW_PEERS))
        drop(json, peers);
    if (!(parts & SHOW_NODE))
        drop(json, node);
    format_line(json, 0);
}

/* One row as a line; member and value, if given, come first. */
static void line(const char *member, const char *value, const ProtobufCMessage *row)
{
    CLEANUP(json_decrefp) json_t *fields = format_json(row), *json = NULL;

    json = member ? json_pack("{s:s}", member, value) : json_object();
    if (json_object_update(json, fields) < 0)
        out_of_memory();
    format_line(json, 0);
}

/* The node without its lists, which have lines of their own. */
static void node_lines(const Meshd__V1__IntrospectReply *picture)
{
    const Meshd__V1__NodeInfo *node = picture->node;
    Meshd__V1__NodeInfo bare = MESHD__V1__NODE_INFO__INIT;

    if (node) {
        CLEANUP(json_decrefp) json_t *json = json_pack("{s:s}", "kind", "node"), *fields = NULL;

        bare = *node;
        bare.n_links = bare.n_counters = bare.n_checks = 0;
        fields = format_json(&bare.base);
        json_object_del(fields, "links");
        json_object_del(fields, "counters");
        json_object_del(fields, "checks");
        if (json_object_update(json, fields) < 0)
            out_of_memory();
        format_line(json, 0);
        for (size_t i = 0; i < node->n_links; i++)
            line("kind", "link", &node->links[i]->base);
        for (size_t i = 0; i < node->n_checks; i++)
            line("kind", "check", &node->checks[i]->base);
    }
    for (size_t i = 0; i < picture->n_limits; i++)
        line("kind", "limit", &picture->limits[i]->base);
    for (size_t i = 0; node && i < node->n_counters; i++)
        line("kind", "counter", &node->counters[i]->base);
}

static void picture_lines(const Meshd__V1__IntrospectReply *picture, unsigned parts)
{
    const char *member = parts == (SHOW_SERVICES | SHOW_PEERS) ? "map" : NULL;

    if (parts & SHOW_NODE) {
        node_lines(picture);
        return;
    }
    for (size_t i = 0; (parts & SHOW_SERVICES) && i < picture->n_services; i++)
        line(member, "services", &picture->services[i]->base);
    for (size_t i = 0; (parts & SHOW_PEERS) && i < picture->n_peer_services; i++)
        line(member, "peer_services", &picture->peer_services[i]->base);
}

/* ---- tables ---- */

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
        table_state(t, show_state(row->connected, row->stale, row->healthy, row->draining));
        table_time(t, row->last_seen);
    }
    table_print(t, stdout);
}

/* filtered: counts the services that match, which then are there; else they may not be. */
static void peers_table(const Meshd__V1__IntrospectReply *picture, bool filtered)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("PEER IP", "PEER ID", "STATE", "SERVICES", "LAST SYNC", "LAST SEEN");

    for (size_t i = 0; i < picture->n_peer_services; i++) {
        const Meshd__V1__PeerServicesRow *row = picture->peer_services[i];

        table_cell(t, row->peer_ip);
        table_cell(t, row->peer_id);
        table_state(t, show_state(row->connected, row->stale, true, row->draining));
        table_number(t, filtered ? row->n_services : row->services_total);
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
            const Meshd__V1__PeerServiceInfo *info = row->n_services ? row->services[k] : NULL;

            table_cell(t, row->peer_ip);
            table_cell(t, row->peer_id);
            table_state(t, show_state(row->connected, row->stale, !info || info->healthy,
                                      row->draining || (info && info->draining)));
            table_time(t, row->last_sync);
            table_cell(t, info ? info->name : "");
            table_cell(t, info ? info->backend_addr : "");
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

static void tls_rows(struct table *t, const Meshd__V1__TlsInfo *tls)
{
    for (size_t i = 0; i < tls->n_names; i++)
        field_text(t, "certificate of", tls->names[i]);
    field_text(t, "certificate by", tls->issuer);
    field_text(t, "fingerprint", tls->fingerprint);
    table_cell(t, "valid until");
    table_time(t, tls->not_after);
    field_number(t, "CAs trusted", tls->cas);
    field_number(t, "revoked", tls->revoked);
    if (tls->crl_next_update) {
        table_cell(t, "CRL until");
        table_time(t, tls->crl_next_update);
    }
    field_number(t, "files taken", tls->loads);
}

static void node_table(const Meshd__V1__NodeInfo *node)
{
    CLEANUP(table_freep) struct table *t = TABLE("FIELD", "VALUE");
    char text[48];

    field_text(t, "peer id", node->peer_id);
    field_text(t, "software", node->software);
    for (size_t i = 0; i < node->n_addresses; i++)
        field_text(t, "address", node->addresses[i]);
    for (size_t i = 0; i < node->n_ingress; i++)
        field_text(t, "ingress", node->ingress[i]);
    if (node->admin[0])
        field_text(t, "admin", node->admin);
    table_cell(t, "started");
    table_time(t, node->started);
    snprintf(text, sizeof(text), "%" PRIu64 ".%03u s", node->uptime_ms / 1000,
             (unsigned)(node->uptime_ms % 1000));
    field_text(t, "up for", text);
    field_number(t, "incarnation", node->incarnation);
    field_number(t, "version", node->version);
    snprintf(text, sizeof(text), "%u to %u", node->wire_version_min, node->wire_version_max);
    field_text(t, "wire versions", text);
    field_text(t, "ready", node->ready ? "yes" : "no");
    if (node->ready_why[0])
        field_text(t, "... why", node->ready_why);
    field_text(t, "draining", node->draining ? "yes" : "no");
    field_text(t, "nng healthy", node->nng_healthy ? "yes" : "no");
    field_text(t, "TLS", node->tls ? "yes" : "no");
    if (node->tls)
        tls_rows(t, node->tls);
    table_print(t, stdout);
}

static void links_table(const Meshd__V1__NodeInfo *node)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("LINK", "ADDRESS", "CONFIGURED", "STATE", "TLS", "SINCE", "SILENT MS",
                            "RTT MS", "ATTEMPTS", "LAST ERROR");

    for (size_t i = 0; i < node->n_links; i++) {
        const Meshd__V1__LinkRow *row = node->links[i];
        char rtt[32];

        table_cell(t, row->peer_id);
        table_cell(t, row->address);
        table_cell(t, row->configured);
        table_state(t, row->state);
        table_cell(t, row->tls ? "yes" : "no");
        table_time(t, row->since);
        table_number(t, row->silent_ms);
        snprintf(rtt, sizeof(rtt), "%.3f", (double)row->rtt_us / 1000);
        table_cell(t, row->rtt_us ? rtt : "");
        table_number(t, row->attempts);
        table_cell(t, row->last_error);
    }
    table_print(t, stdout);
}

/* "tcp", "http:/path", as --check and the settings have it; "": clients alone tell. */
static void check_cell(struct table *t, const Meshd__V1__Check *check)
{
    char text[LIMIT_CHECK_PATH + 8] = "";

    if (check && check->kind == MESHD__V1__CHECK_KIND__CHECK_KIND_TCP)
        snprintf(text, sizeof(text), "tcp");
    else if (check && check->kind == MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP)
        snprintf(text, sizeof(text), "http:%s", check->path);
    table_cell(t, text);
}

static const char *check_state(const Meshd__V1__CheckRow *row)
{
    if (!row->healthy)
        return row->draining ? "unhealthy, draining" : "unhealthy";
    return row->draining ? "draining" : "healthy";
}

static void checks_table(const Meshd__V1__NodeInfo *node)
{
    CLEANUP(table_freep)
    struct table *t = TABLE("SERVICE", "BACKEND", "CHECK", "STATE", "SINCE", "WHY");

    for (size_t i = 0; i < node->n_checks; i++) {
        const Meshd__V1__CheckRow *row = node->checks[i];

        table_cell(t, row->name);
        table_cell(t, row->backend_addr);
        check_cell(t, row->check);
        table_state(t, check_state(row));
        table_time(t, row->since);
        table_cell(t, row->why);
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
    if (node->n_checks > 0) {
        putchar('\n');
        checks_table(node);
    }
    putchar('\n');
    limits_table(picture);
    putchar('\n');
    counters_table(node);
}

static void both_tables(const Meshd__V1__IntrospectReply *picture)
{
    CLEANUP(free_textp) char *peer_id = safe_text(picture->peer_id);

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
    else if (opts->format == FORMAT_JSONL)
        picture_lines(picture, parts);
    else if (parts == SHOW_NODE)
        node_tables(picture);
    else if (parts == SHOW_SERVICES)
        services_table(picture);
    else if (parts == SHOW_PEERS)
        peers_table(picture, opts->name_glob != NULL);
    else
        both_tables(picture);
}
