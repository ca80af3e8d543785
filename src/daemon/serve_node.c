/* serve_node - what the node says of itself: links, counters, limits and their use. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "daemon/figures.h"
#include "daemon/serve.h"
#include "web/picture.h"

#define READY_WHY 512u
#define LINKS_MAX 1024u /* rows of links in one answer */

struct counter_row {
    const char *name;
    size_t offset;
};

#define C(room, field)                                                                             \
    {                                                                                              \
#room "_" #field, offsetof(struct figures, room.field)                                     \
    }

static const struct counter_row counter_rows[] = {
    C(registry, services),
    C(registry, services_local),
    C(registry, peers),
    C(registry, peers_connected),
    C(registry, peers_stale),
    C(registry, tombstones),
    C(registry, changes),
    C(registry, rows_added),
    C(registry, rows_changed),
    C(registry, rows_removed),
    C(registry, puts_repeated),
    C(registry, puts_stale),
    C(registry, rows_refused),
    C(registry, peers_refused),
    C(registry, lookups),
    C(registry, lookups_missed),
    C(registry, snapshots),
    C(gate, connections),
    C(gate, sources),
    C(gate, sessions),
    C(gate, buffer_bytes),
    C(gate, requests_waiting),
    C(gate, half_open),
    C(gate, parked),
    C(gate, watchers),
    C(gate, watch_log_bytes),
    C(gate, watch_pictures),
    C(gate, watches),
    C(gate, watch_messages),
    C(gate, watch_events),
    C(gate, watch_resyncs),
    C(gate, accepted),
    C(gate, dialled),
    C(gate, dial_failed),
    C(gate, sessions_begun),
    C(gate, sessions_ended),
    C(gate, requests),
    C(gate, replies),
    C(gate, replies_dropped),
    C(gate, closed_bad_first_bytes),
    C(gate, closed_first_bytes_late),
    C(gate, closed_bad_message),
    C(gate, closed_message_late),
    C(gate, closed_too_big),
    C(gate, closed_over_connections),
    C(gate, closed_over_source),
    C(gate, closed_over_half_open),
    C(gate, closed_over_buffers),
    C(gate, closed_idle),
    C(gate, closed_no_descriptor),
    C(gate, closed_over_watchers),
    C(gate, closed_unread),
    C(gate, lanes_lost),
    C(gate, data_handed),
    C(gate, data_refused),
    C(gate, closed_plaintext),
    C(gate, tls_handshakes),
    C(gate, tls_resumed),
    C(gate, tls_revoked),
    C(gate, bytes_in),
    C(gate, bytes_out),
    C(rpc, in_progress),
    C(rpc, calls),
    C(rpc, failed),
    C(rpc, bad_header),
    C(rpc, bad_message),
    C(rpc, bad_version),
    C(rpc, unknown_method),
    C(rpc, late),
    C(rpc, dropped),
    C(node, links_live),
    C(node, leases),
    C(node, services_draining),
    C(node, backends_unhealthy),
    C(node, backend_downs),
    C(node, backend_ups),
    C(node, checks),
    C(node, checks_failed),
    C(node, registers),
    C(node, registers_refused),
    C(node, hellos),
    C(node, links_live_total),
    C(node, links_lost),
    C(node, syncs_sent),
    C(node, syncs_applied),
    C(node, syncs_wanted),
    C(node, sync_parts_sent),
    C(node, heartbeats_sent),
    C(node, heartbeats_received),
    C(node, messages_other_session),
    C(node, messages_bad),
    C(node, tokens_refused),
    C(node, digests_differed),
    C(node, goodbyes),
    C(node, dials),
    C(node, dials_failed),
    C(node, probes),
    C(ports, lines),
    C(ports, req_sockets),
    C(ports, pair_sockets),
    C(ports, pipes_added),
    C(ports, pipes_removed),
    C(ports, overflows),
    C(ports, resolves),
    C(ports, resolves_failed),
    C(printer, printed),
    C(printer, skipped),
    C(printer, failed),
    C(forward, clients),
    C(forward, unrouted),
    C(forward, pending),
    C(forward, relayed),
    C(forward, served),
    C(forward, warm),
    C(forward, data_waiting),
    C(forward, pipes),
    C(forward, largest_source),
    C(forward, largest_source_unrouted),
    C(forward, largest_service),
    C(forward, largest_head),
    C(forward, accepted),
    C(forward, accepted_http),
    C(forward, accepted_tls),
    C(forward, accepted_connect),
    C(forward, accepted_h2),
    C(forward, accepted_mapped),
    C(forward, accepted_other),
    C(forward, closed_over_limit),
    C(forward, closed_no_descriptor),
    C(forward, closed_no_memory),
    C(forward, local),
    C(forward, forwarded),
    C(forward, forward_retries),
    C(forward, forwards_received),
    C(forward, forwards_refused),
    C(forward, data_dialled),
    C(forward, data_accepted),
    C(forward, data_dead),
    C(forward, data_unexpected),
    C(forward, data_late),
    C(forward, data_tls_resumed),
    C(forward, data_tls_failed),
    C(forward, data_revoked),
    C(forward, bytes_up),
    C(forward, bytes_down),
    C(forward, spliced),
    C(forward, messages_bad),
    C(forward, resolves),
    C(forward, resolves_failed),
    C(policy, rules),
    C(reload, taken),
    C(reload, refused),
    C(reload, waiting),
    C(admin, connections),
    C(admin, followers),
    C(admin, requests),
    C(admin, refused),
    C(admin, closed_over_limit),
    C(admin, closed_followers),
    C(admin, closed_no_descriptor),
    C(admin, closed_late),
    C(admin, closed_unread),
};

/* Those of clients' ends, of phases and of refusals have names that are put together. */
#define COUNTER_NAME 64u
#define N_FIXED (sizeof counter_rows / sizeof *counter_rows)
#define N_COUNTERS                                                                                 \
    (N_FIXED + 2u + N_FORWARD_ENDS + 2u * N_FORWARD_PHASES + N_POLICY_ACTIONS + N_TLS_FAILURES)

static void add_counter(Meshd__V1__NodeInfo *info, Meshd__V1__Counter *rows, const char *name,
                        uint64_t value)
{
    Meshd__V1__Counter *row = &rows[info->n_counters];

    meshd__v1__counter__init(row);
    row->name = (char *)name;
    row->value = value;
    info->counters[info->n_counters++] = row;
}

/* How clients ended, and how long each phase of their way took. False: no memory. */
static bool add_clients(const struct forward_counters *count, struct arena *arena,
                        Meshd__V1__NodeInfo *info, Meshd__V1__Counter *rows)
{
    char name[COUNTER_NAME];
    char *copy;

    for (unsigned i = 0; i < N_FORWARD_ENDS; i++) {
        snprintf(name, sizeof name, "forward_end_%s", forward_ends[i].word);
        copy = arena_strdup(arena, name);
        if (!copy)
            return false;
        add_counter(info, rows, copy, count->ends[i]);
    }
    for (unsigned i = 0; i < 2u * N_FORWARD_PHASES; i++) {
        unsigned phase = i / 2;
        bool median = i % 2 == 0;

        snprintf(name, sizeof name, "forward_%s_us_%s", figures_phases[phase],
                 median ? "p50" : "p99");
        copy = arena_strdup(arena, name);
        if (!copy)
            return false;
        add_counter(info, rows, copy,
                    forward_phase_us(count, (enum forward_phase)phase, median ? 0.5 : 0.99));
    }
    return true;
}

static bool add_refusals(const struct policy_counters *count, struct arena *arena,
                         Meshd__V1__NodeInfo *info, Meshd__V1__Counter *rows)
{
    char name[COUNTER_NAME];
    char *copy;

    for (int i = 0; i < N_POLICY_ACTIONS; i++) {
        snprintf(name, sizeof name, "policy_denied_%s", policy_action_text((enum policy_action)i));
        copy = arena_strdup(arena, name);
        if (!copy)
            return false;
        add_counter(info, rows, copy, count->denied[i]);
    }
    return true;
}

/* Handshakes that failed, by why. False: no memory. */
static bool add_failures(const struct gate_counters *count, struct arena *arena,
                         Meshd__V1__NodeInfo *info, Meshd__V1__Counter *rows)
{
    char name[COUNTER_NAME];
    char *copy;

    for (unsigned i = TLS_OK + 1; i < N_TLS_FAILURES; i++) {
        snprintf(name, sizeof name, "gate_tls_failed_%s", figures_tls_failures[i]);
        copy = arena_strdup(arena, name);
        if (!copy)
            return false;
        add_counter(info, rows, copy, count->tls_failed[i]);
    }
    return true;
}

static bool fill_counters(const struct figures *all, struct arena *arena, Meshd__V1__NodeInfo *info)
{
    Meshd__V1__Counter *rows = arena_alloc(arena, N_COUNTERS * sizeof *rows);

    info->counters = arena_alloc(arena, N_COUNTERS * sizeof *info->counters);
    if (!rows || !info->counters)
        return false;
    for (size_t i = 0; i < N_FIXED; i++) {
        uint64_t value;

        memcpy(&value, (const char *)all + counter_rows[i].offset, sizeof value);
        add_counter(info, rows, counter_rows[i].name, value);
    }
    add_counter(info, rows, "node_visible_us_p50", histogram_share_us(&all->node.visible, 0.5));
    add_counter(info, rows, "node_visible_us_p99", histogram_share_us(&all->node.visible, 0.99));
    return add_failures(&all->gate, arena, info, rows) &&
           add_refusals(&all->policy, arena, info, rows) &&
           add_clients(&all->forward, arena, info, rows);
}

#define TLS_INFO_BYTES 1536u /* at most, packed */

/* False: no memory. */
static bool fill_tls(struct tls_keeper *keeper, struct arena *arena, Meshd__V1__NodeInfo *info)
{
    struct tls_material *m = arena_alloc(arena, sizeof *m);
    Meshd__V1__TlsInfo *tls = arena_alloc(arena, sizeof *tls);

    if (!m || !tls)
        return false;
    tls_keeper_material(keeper, m);
    meshd__v1__tls_info__init(tls);
    tls->names = arena_alloc(arena, LIMIT_CERT_NAMES * sizeof *tls->names);
    if (!tls->names)
        return false;
    while (tls->n_names < LIMIT_CERT_NAMES && m->names[tls->n_names][0]) {
        tls->names[tls->n_names] = m->names[tls->n_names];
        tls->n_names++;
    }
    tls->subject = m->subject;
    tls->issuer = m->issuer;
    tls->fingerprint = m->fingerprint;
    tls->not_before = (uint64_t)m->not_before;
    tls->not_after = (uint64_t)m->not_after;
    tls->cas = m->n_cas;
    tls->revoked = m->n_revoked;
    tls->crl_next_update = (uint64_t)m->crl_next_update;
    tls->loads = m->loads;
    info->tls = tls;
    return true;
}

static bool fill_neighbours(struct arena *arena, const struct node_link_info *from,
                            Meshd__V1__LinkRow *out)
{
    size_t n = from->n_neighbours;
    Meshd__V1__Neighbour *rows = arena_alloc(arena, (n + 1) * sizeof *rows);

    out->neighbours = arena_alloc(arena, (n + 1) * sizeof *out->neighbours);
    if (!rows || !out->neighbours)
        return false;
    for (size_t i = 0; i < n; i++) {
        meshd__v1__neighbour__init(&rows[i]);
        rows[i].peer_id = arena_strdup(arena, from->neighbours[i].peer_id);
        if (!rows[i].peer_id)
            return false;
        rows[i].state = (char *)node_link_states[from->neighbours[i].state];
        rows[i].rtt_us = from->neighbours[i].rtt_us;
        out->neighbours[out->n_neighbours++] = &rows[i];
    }
    out->neighbours_total = from->neighbours_total;
    return true;
}

static bool fill_link(struct arena *arena, const struct node_link_info *from, int64_t offset_ms,
                      bool tls, Meshd__V1__LinkRow *out)
{
    char text[LIMIT_IP_TEXT + 16], session[PICTURE_SESSION_TEXT] = "";

    meshd__v1__link_row__init(out);
    if (from->address.ip[0])
        snprintf(text, sizeof text, strchr(from->address.ip, ':') ? "[%s]:%u" : "%s:%u",
                 from->address.ip, from->address.port);
    else
        text[0] = '\0';
    if (from->has_session)
        picture_session(from->session_id, session);
    out->peer_id = arena_strdup(arena, from->peer_id);
    out->address = arena_strdup(arena, text);
    out->configured = arena_strdup(arena, from->configured);
    out->state = (char *)from->state;
    out->session_id = arena_strdup(arena, session);
    out->silent_ms = from->silent_ms;
    out->since = clock_unix_s(from->since_ms, offset_ms);
    out->last_error = arena_strdup(arena, from->last_error);
    out->attempts = from->attempts;
    out->rtt_us = from->rtt_us;
    out->tls = tls; /* all are, or none */
    return fill_neighbours(arena, from, out) && out->peer_id && out->address && out->configured &&
           out->session_id && out->last_error;
}

/* As many as have room in the reply; *room: what is left of it. */
static bool fill_links(struct serve *serve, struct arena *arena, size_t *room,
                       Meshd__V1__NodeInfo *info)
{
    size_t n = node_links(serve->node, NULL, 0), size;
    struct node_link_info *links;
    Meshd__V1__LinkRow *rows;
    int64_t offset_ms = clock_offset_ms();

    info->links_total = (uint32_t)n;
    if (n > LINKS_MAX)
        n = LINKS_MAX;
    links = arena_alloc(arena, (n + 1) * sizeof *links);
    rows = arena_alloc(arena, (n + 1) * sizeof *rows);
    info->links = arena_alloc(arena, (n + 1) * sizeof *info->links);
    if (!links || !rows || !info->links)
        return false;
    node_links(serve->node, links, n);
    for (size_t i = 0; i < n; i++) {
        if (!fill_link(arena, &links[i], offset_ms, serve->tls != NULL, &rows[i]))
            return false;
        size = protobuf_c_message_get_packed_size(&rows[i].base) + 4; /* tag, length */
        if (size > *room)
            break;
        *room -= size;
        info->links[info->n_links++] = &rows[i];
    }
    return true;
}

bool serve_ready(struct serve *serve, char *out_why, size_t size)
{
    bool late = clock_ms() - serve->started_ms >= SERVE_READY_MS;
    size_t n;
    const char *first = node_waits_for(serve->node, &n);
    char more[48] = "";

    if (n > 1)
        snprintf(more, sizeof more, " and %zu more", n - 1);
    if (serve->draining)
        snprintf(out_why, size, "it is draining: it was told to end");
    else if (!first)
        snprintf(out_why, size, "every configured peer was live once");
    else
        snprintf(out_why, size, "%s%s%s", late ? "10 s have passed; without " : "it waits for ",
                 first, more);
    return !serve->draining && (!first || late);
}

/* Otherwise the same number each time. */
static uint64_t started_s(const struct serve *serve)
{
    uint64_t now_s = clock_unix_s(serve->started_ms, clock_offset_ms()), was_s = serve->started_s;

    return now_s > was_s + 1 || now_s + 1 < was_s ? now_s : was_s;
}

static bool fill_node(struct serve *serve, const struct figures *all, struct arena *arena,
                      size_t room, Meshd__V1__NodeInfo *info)
{
    meshd__v1__node_info__init(info);
    info->peer_id = (char *)serve->peer_id;
    info->incarnation = node_incarnation(serve->node);
    info->version = node_version(serve->node);
    info->software = (char *)"meshd " MESHD_VERSION;
    info->started = started_s(serve);
    info->uptime_ms = clock_ms() - serve->started_ms;
    info->wire_version_min = WIRE_VERSION_MIN;
    info->wire_version_max = WIRE_VERSION_MAX;
    info->draining = serve->draining;
    info->nng_healthy = canary_healthy(serve->canary);
    info->addresses = arena_alloc(arena, sizeof *info->addresses);
    if (!info->addresses)
        return false;
    info->addresses[info->n_addresses++] = serve->address;
    info->admin = serve->admin;
    info->ready_why = arena_alloc(arena, READY_WHY);
    if (!info->ready_why)
        return false;
    info->ready = serve_ready(serve, info->ready_why, READY_WHY);
    if (serve->tls && !fill_tls(serve->tls, arena, info))
        return false;
    if (serve->tls)
        room -= room < TLS_INFO_BYTES ? room : TLS_INFO_BYTES;
    info->ingress = serve->ingress;
    for (size_t size; serve->ingress[info->n_ingress]; room -= size) {
        size = strlen(serve->ingress[info->n_ingress]) + 4; /* tag, length */
        if (size > room)
            break;
        info->n_ingress++;
    }
    return fill_links(serve, arena, &room, info) && serve_fill_checks(serve, arena, &room, info) &&
           fill_counters(all, arena, info);
}

static bool fill_limits(struct serve *serve, const struct figures *all, struct arena *arena,
                        Meshd__V1__IntrospectReply *reply)
{
    size_t n = 0;
    Meshd__V1__Limit *rows;

    while (limit_rows[n].name)
        n++;
    rows = arena_alloc(arena, n * sizeof *rows);
    reply->limits = arena_alloc(arena, n * sizeof *reply->limits);
    if (!rows || !reply->limits)
        return false;
    for (size_t i = 0; i < n; i++) {
        meshd__v1__limit__init(&rows[i]);
        rows[i].name = (char *)limit_rows[i].name;
        rows[i].unit = (char *)limit_rows[i].unit;
        rows[i].limit = limits_get(&serve->limits, &limit_rows[i]);
        figures_used(all, limit_rows[i].name, &rows[i].used); /* else 0 */
        reply->limits[reply->n_limits++] = &rows[i];
    }
    return true;
}

bool serve_fill_node(struct serve *serve, struct arena *arena, Meshd__V1__IntrospectReply *reply,
                     size_t room, bool node, bool limits)
{
    struct figures all;

    figures_of_loop(serve, &all);
    figures_of_rooms(serve, &all);
    if (node) {
        reply->node = arena_alloc(arena, sizeof *reply->node);
        if (!reply->node || !fill_node(serve, &all, arena, room, reply->node))
            return false;
    }
    return !limits || fill_limits(serve, &all, arena, reply);
}
