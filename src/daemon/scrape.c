/* scrape - collects on the main loop, renders on web's thread. */
#include "daemon/scrape.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "registry/snapshot.h"

/* ---- on the main loop ---- */

struct scrape *scrape_new(struct serve *serve)
{
    struct scrape *s = must_alloc(sizeof *s);
    char why[512];

    s->serve = serve;
    figures_of_loop(serve, &s->figures);
    s->limits = serve->limits;
    s->ready = serve_ready(serve, why, sizeof why);
    node_waits_for(serve->node, &s->never_live);
    s->rtts = malloc((s->figures.node.peers + 1) * sizeof *s->rtts);
    if (s->rtts) /* without memory they are not shown */
        s->n_rtts = node_rtts(serve->node, s->rtts, s->figures.node.peers);
    return s;
}

void scrape_free(void *data)
{
    struct scrape *s = data;

    free(s->rtts);
    free(s);
}

/* ---- elsewhere ---- */

static void gauge(struct metrics *out, const char *name, const char *help, uint64_t value)
{
    metrics_family(out, METRICS_GAUGE, name, help);
    metrics_value(out, NULL, 0, value);
}

static void labelled(struct metrics *out, const char *label, const char *value, uint64_t sample)
{
    metrics_value(out, &(struct metrics_label){label, value}, 1, sample);
}

static void seconds(struct metrics *out, const char *name, const char *help, uint32_t ms)
{
    metrics_family(out, METRICS_GAUGE, name, help);
    metrics_us(out, NULL, 0, (uint64_t)ms * 1000);
}

static void node(const struct scrape *s, struct metrics *out)
{
    const struct metrics_label build[] = {{"version", MESHD_VERSION}, {"peer", s->serve->peer_id}};

    metrics_family(out, METRICS_GAUGE, "meshd_build_info",
                   "Always 1; the version of meshd, and the peer id of the node.");
    metrics_value(out, build, 2, 1);
    gauge(out, "meshd_ready", "1: ready for clients, as /readyz says.", s->ready);
    gauge(out, "meshd_peers_never_live", "Configured peers that were not live since the start.",
          s->never_live);
    seconds(out, "meshd_heartbeat_seconds", "The setting heartbeat.", s->serve->heartbeat_ms);
    seconds(out, "meshd_peer_timeout_seconds", "The setting peer_timeout.",
            s->serve->peer_timeout_ms);
    gauge(out, "meshd_draining", "1: the node is about to leave.", s->figures.draining);
    gauge(out, "meshd_nng_healthy", "1: nng's clean-up thread answers.",
          canary_healthy(s->serve->canary));
}

static void table(const struct scrape *s, struct metrics *out)
{
    for (size_t i = 0; i < n_scrape_rows; i++) {
        const struct scrape_row *row = &scrape_rows[i];
        const struct metrics_label label = {row->label, row->value};
        uint64_t value;

        memcpy(&value, (const char *)&s->figures + row->offset, sizeof value);
        if (row->family)
            metrics_family(out, row->type, row->family, row->help);
        metrics_value(out, &label, row->label ? 1 : 0, value);
    }
}

static void histograms(const struct scrape *s, struct metrics *out)
{
    metrics_family(out, METRICS_HISTOGRAM, "meshd_change_visibility_seconds",
                   "From a change at its owner until it was in the maps here; first lists of new "
                   "sessions are not measured.");
    metrics_histogram(out, NULL, 0, &s->figures.node.visible);
    metrics_family(out, METRICS_HISTOGRAM, "meshd_forward_phase_seconds",
                   "Set-up of clients: until the name was known, until a backend here was "
                   "connected (for clients of peers, too), until an owner had answered.");
    for (size_t i = 0; i < N_FORWARD_PHASES; i++)
        metrics_histogram(out, &(struct metrics_label){"phase", figures_phases[i]}, 1,
                          &s->figures.forward.phases[i]);
}

static void ends(const struct scrape *s, struct metrics *out)
{
    metrics_family(out, METRICS_COUNTER, "meshd_forward_ends_total",
                   "Clients whose connection ended, by why.");
    for (size_t i = 0; i < N_FORWARD_ENDS; i++)
        labelled(out, "reason", forward_ends[i].word, s->figures.forward.ends[i]);
}

static void limits(const struct scrape *s, struct metrics *out)
{
    uint64_t limit, used;

    metrics_family(out, METRICS_GAUGE, "meshd_limit", "Limits as they are set.");
    for (const struct limit_row *row = limit_rows; row->name; row++) {
        memcpy(&limit, (const char *)&s->limits + row->offset, sizeof limit);
        labelled(out, "limit", row->name, limit);
    }
    metrics_family(out, METRICS_GAUGE, "meshd_limit_used",
                   "What is used of them now; of one list, source, link or queue: the largest; of "
                   "one message or client: the most since the start.");
    for (const struct limit_row *row = limit_rows; row->name; row++)
        if (figures_used(&s->figures, row->name, &used))
            labelled(out, "limit", row->name, used);
}

/* Unix time, where there is such a thing. */
static void certificates(const struct scrape *s, struct metrics *out)
{
    struct tls_material *m = s->serve->tls ? malloc(sizeof *m) : NULL;

    if (!m)
        return;
    tls_keeper_material(s->serve->tls, m);
    gauge(out, "meshd_tls_certificate_not_after_seconds",
          "When the node's certificate ends, in unix time.", (uint64_t)m->not_after);
    if (m->crl_next_update)
        gauge(out, "meshd_tls_crl_next_update_seconds",
              "When the list of revoked certificates is to be followed by another, in unix time.",
              (uint64_t)m->crl_next_update);
    gauge(out, "meshd_tls_revoked_certificates", "Certificates that this list names.",
          m->n_revoked);
    metrics_family(out, METRICS_COUNTER, "meshd_tls_loads_total",
                   "Times that the files of certificates were taken.");
    metrics_value(out, NULL, 0, m->loads);
    free(m);
}

/* ---- peers and services ---- */

enum state { CONNECTED, DRAINING, UNHEALTHY, UNCONNECTED, STALE, N_STATES };
static const char *const states[N_STATES] = {[CONNECTED] = "connected",
                                             [DRAINING] = "draining",
                                             [UNHEALTHY] = "unhealthy",
                                             [UNCONNECTED] = "unconnected",
                                             [STALE] = "stale"};

static enum state state_of(const struct registry_state *state)
{
    if (state->stale)
        return STALE;
    if (!state->connected)
        return UNCONNECTED;
    return state->draining ? DRAINING : CONNECTED;
}

/* Of one that somebody has drained, so that its backend can be worked on, it is no news that the
 * backend does not answer. */
static enum state entry_state(const struct row *row, enum state owner)
{
    if (owner == DRAINING || row->flags & ROW_DRAINING)
        return DRAINING;
    return row->flags & ROW_UNHEALTHY ? UNHEALTHY : CONNECTED;
}

/* A stale owner's entries are stale, whatever they are besides. */
static void count_list(const struct list *list, enum state owner, uint64_t of[N_STATES])
{
    struct list_iter iter;
    const struct row *row;

    if (owner != CONNECTED && owner != DRAINING) {
        of[owner] += list_count(list);
        return;
    }
    list_iter_init(&iter, list);
    while ((row = list_iter_next(&iter)))
        of[entry_state(row, owner)]++;
}

static void services(const struct snapshot *snap, struct metrics *out)
{
    uint64_t of[2][N_STATES] = {{0}};
    static const char *const sources[] = {"local", "remote"};

    count_list(snap->local, CONNECTED, of[0]);
    for (size_t i = 0; i < snap->n_peers; i++)
        count_list(snap->peers[i].list, state_of(&snap->peers[i].state), of[1]);
    metrics_family(out, METRICS_GAUGE, "meshd_services",
                   "Entries of the services map, by whose they are and their state, as meshcat has "
                   "it.");
    for (size_t i = 0; i < 2; i++) {
        for (size_t state = 0; state < (i == 0 ? UNCONNECTED : N_STATES); state++) {
            const struct metrics_label labels[] = {{"source", sources[i]},
                                                   {"state", states[state]}};

            metrics_value(out, labels, 2, of[i][state]);
        }
    }
}

static int by_peer(const void *a, const void *b)
{
    const struct node_rtt *x = a, *y = b;

    return strcmp(x->peer_id, y->peer_id);
}

static void peers_rtt(const struct scrape *s, const struct snapshot *snap, size_t n,
                      struct metrics *out)
{
    struct node_rtt key, *found;

    metrics_family(out, METRICS_GAUGE, "meshd_peer_rtt_seconds",
                   "The way to the peer and back on its link, smoothed.");
    if (!s->rtts)
        return;
    qsort(s->rtts, s->n_rtts, sizeof *s->rtts, by_peer);
    for (size_t i = 0; i < n; i++) {
        memcpy(key.peer_id, snap->peers[i].peer_id, sizeof key.peer_id);
        found = bsearch(&key, s->rtts, s->n_rtts, sizeof *s->rtts, by_peer);
        if (found)
            metrics_us(out, &(struct metrics_label){"peer", found->peer_id}, 1, found->us);
    }
}

/* The first ones in the order of the maps: that does not change from scrape to scrape. */
static void each_peer(const struct scrape *s, const struct snapshot *snap, struct metrics *out)
{
    size_t n = snap->n_peers < SCRAPE_PEERS ? snap->n_peers : SCRAPE_PEERS;
    uint64_t now_ms = clock_ms();

    metrics_family(out, METRICS_GAUGE, "meshd_peer_connected",
                   "1: the link with the peer is live.");
    for (size_t i = 0; i < n; i++)
        labelled(out, "peer", snap->peers[i].peer_id, snap->peers[i].state.connected);
    metrics_family(out, METRICS_GAUGE, "meshd_peer_staleness_seconds",
                   "Since the last sign of life of the peer.");
    for (size_t i = 0; i < n; i++) {
        uint64_t seen_ms = snap->peers[i].state.last_seen_ms;

        labelled(out, "peer", snap->peers[i].peer_id,
                 now_ms > seen_ms ? (now_ms - seen_ms) / 1000 : 0);
    }
    metrics_family(out, METRICS_GAUGE, "meshd_peer_services",
                   "Entries of the peer in the services map.");
    for (size_t i = 0; i < n; i++)
        labelled(out, "peer", snap->peers[i].peer_id, list_count(snap->peers[i].list));
    peers_rtt(s, snap, n, out);
}

static void maps(const struct scrape *s, const struct snapshot *snap, struct metrics *out)
{
    uint64_t of[N_STATES] = {0};

    services(snap, out);
    for (size_t i = 0; i < snap->n_peers; i++)
        of[state_of(&snap->peers[i].state)]++;
    metrics_family(out, METRICS_GAUGE, "meshd_peers", "Peers that are known, by state.");
    for (size_t state = 0; state < N_STATES; state++)
        if (state != UNHEALTHY)
            labelled(out, "state", states[state], of[state]);
    gauge(out, "meshd_peers_not_shown", "Peers above the 1000 that have series of their own.",
          snap->n_peers > SCRAPE_PEERS ? snap->n_peers - SCRAPE_PEERS : 0);
    gauge(out, "meshd_registry_revision", "Revision of the maps; it begins anew with the node.",
          snap->revision);
    each_peer(s, snap, out);
}

/* False: no memory. */
static bool write_all(struct scrape *s, struct metrics *out)
{
    struct snapshot *snap;

    if (registry_snapshot(s->serve->registry, &snap) < 0)
        return false;
    figures_of_rooms(s->serve, &s->figures);
    node(s, out);
    maps(s, snap, out);
    snapshot_unref(snap);
    histograms(s, out);
    ends(s, out);
    table(s, out);
    limits(s, out);
    certificates(s, out);
    scrape_process(out, s->serve->started_s);
    return true;
}

bool scrape_render(void *data, struct web_body *out_body)
{
    struct metrics out;

    metrics_init(&out, SCRAPE_BYTES);
    if (!write_all(data, &out) || !metrics_take(&out, &out_body->data, &out_body->len)) {
        metrics_fini(&out);
        return false;
    }
    out_body->status = 200;
    out_body->type = METRICS_TYPE;
    return true;
}
