/* meshcat_diff - what two nodes believe differently, list by list, and only what a digest tells
 * apart.
 *
 * A node's belief is: of each owner that it knows, and of itself, a list of services (as a digest
 * and a number) and a state. A node's own list is compared with what the other keeps of it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/limits.h"
#include "meshcat.h"
#include "meshcat_format.h"
#include "meshcat_picture.h"

/* What one node says of one owner. Strings are borrowed from its picture. */
struct belief {
    const char *owner, *label; /* label: what a filter calls it */
    const char *state;
    uint64_t digest;
    uint32_t total;
};

struct side {
    struct session session;
    struct picture picture;
    struct belief *beliefs; /* by owner */
    size_t n_beliefs;
};

struct difference {
    char *owner, *name; /* name: NULL when it is about the owner */
    const char *what;   /* "owner", "state" or "backend" */
    char *values[2];    /* what each says; NULL: nothing */
};

struct diff {
    const struct meshcat_opts *opts;
    struct side sides[2];
    struct difference *list;
    size_t n;
};

static void diff_fini(struct diff *d)
{
    for (int i = 0; i < 2; i++) {
        free(d->sides[i].beliefs);
        picture_fini(&d->sides[i].picture);
        session_fini(&d->sides[i].session);
    }
    for (size_t i = 0; i < d->n; i++) {
        free(d->list[i].owner);
        free(d->list[i].name);
        free(d->list[i].values[0]);
        free(d->list[i].values[1]);
    }
    free(d->list);
}

/* Copies all but what. */
static void add(struct diff *d, const char *owner, const char *name, const char *what,
                const char *first, const char *second)
{
    d->list = must_realloc(d->list, (d->n + 1) * sizeof(*d->list));
    d->list[d->n++] = (struct difference){
        .owner = must_dup(owner),
        .name = name ? must_dup(name) : NULL,
        .what = what,
        .values = {first ? must_dup(first) : NULL, second ? must_dup(second) : NULL},
    };
}

/* ---- what a node believes ---- */

static int by_owner(const void *a, const void *b)
{
    return strcmp(((const struct belief *)a)->owner, ((const struct belief *)b)->owner);
}

static void gather(struct side *side)
{
    const Meshd__V1__IntrospectReply *all = &side->picture.all;
    struct belief *at;

    side->beliefs = must_alloc((all->n_peer_services + 1) * sizeof(*side->beliefs));
    at = side->beliefs;
    *at++ = (struct belief){
        .owner = all->peer_id,
        .label = "local",
        .state = show_state(true, false, true, all->node && all->node->draining),
        .digest = all->local_digest,
        .total = all->local_total,
    };
    for (size_t i = 0; i < all->n_peer_services; i++) {
        const Meshd__V1__PeerServicesRow *row = all->peer_services[i];

        *at++ = (struct belief){
            .owner = row->peer_id,
            .label = row->peer_ip,
            .state = show_state(row->connected, row->stale, true, row->draining),
            .digest = row->digest,
            .total = row->services_total,
        };
    }
    side->n_beliefs = all->n_peer_services + 1;
    qsort(side->beliefs, side->n_beliefs, sizeof(*side->beliefs), by_owner);
}

static int ask_side(struct side *side)
{
    Meshd__V1__Section sections[] = {MESHD__V1__SECTION__SECTION_PEERS,
                                     MESHD__V1__SECTION__SECTION_NODE};
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;
    int code = session_connect(&side->session);

    request.sections = sections;
    request.n_sections = 2;
    if (code == 0)
        code = picture_fetch(&side->session, &request, SHOW_PEERS, &side->picture);
    if (code == 0)
        gather(side);
    return code;
}

/* ---- two lists of one owner ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(Meshd__V1__ServiceRow *const *)a)->name,
                  (*(Meshd__V1__ServiceRow *const *)b)->name);
}

/* The owner's services there, by name. */
static int fetch_list(struct side *side, const struct belief *belief, struct picture *out)
{
    Meshd__V1__Section section = MESHD__V1__SECTION__SECTION_SERVICES;
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;
    size_t kept = 0;
    int code;

    request.sections = &section;
    request.n_sections = 1;
    request.peer = (char *)belief->label;
    code = picture_fetch(&side->session, &request, SHOW_SERVICES, out);
    if (code)
        return code;
    for (size_t i = 0; i < out->all.n_services; i++) { /* a label may be another's id */
        if (strcmp(out->all.services[i]->peer_id, belief->owner) == 0)
            out->all.services[kept++] = out->all.services[i];
    }
    out->all.n_services = kept;
    if (kept > 0)
        qsort(out->all.services, kept, sizeof(*out->all.services), by_name);
    return 0;
}

/* What the owner says of the entry. A row also drains with its owner; then nobody can tell. */
static const char *entry_state(const Meshd__V1__ServiceRow *row, bool owner_drains)
{
    if (row->draining && !owner_drains)
        return row->healthy ? "draining" : "draining, unhealthy";
    return row->healthy ? "healthy" : "unhealthy";
}

static void compare_rows(struct diff *d, const char *owner, const Meshd__V1__ServiceRow *a,
                         const Meshd__V1__ServiceRow *b, bool owner_drains)
{
    const char *first = entry_state(a, owner_drains), *second = entry_state(b, owner_drains);

    if (strcmp(a->backend_addr, b->backend_addr) != 0)
        add(d, owner, a->name, "backend", a->backend_addr, b->backend_addr);
    if (strcmp(first, second) != 0)
        add(d, owner, a->name, "state", first, second);
}

static void compare_lists(struct diff *d, const char *owner, const Meshd__V1__IntrospectReply *a,
                          const Meshd__V1__IntrospectReply *b, bool owner_drains)
{
    size_t i = 0, k = 0;

    while (i < a->n_services || k < b->n_services) {
        const Meshd__V1__ServiceRow *first = i < a->n_services ? a->services[i] : NULL;
        const Meshd__V1__ServiceRow *second = k < b->n_services ? b->services[k] : NULL;
        int order = !first ? 1 : !second ? -1 : strcmp(first->name, second->name);

        if (order < 0)
            add(d, owner, first->name, "backend", first->backend_addr, NULL);
        else if (order > 0)
            add(d, owner, second->name, "backend", NULL, second->backend_addr);
        else
            compare_rows(d, owner, first, second, owner_drains);
        i += order <= 0;
        k += order >= 0;
    }
}

/* ---- two beliefs ---- */

static int compare_owner(struct diff *d, const struct belief *a, const struct belief *b)
{
    CLEANUP(picture_fini) struct picture first = {.all = MESHD__V1__INTROSPECT_REPLY__INIT};
    CLEANUP(picture_fini) struct picture second = {.all = MESHD__V1__INTROSPECT_REPLY__INIT};
    int code;

    if (strcmp(a->state, b->state) != 0)
        add(d, a->owner, NULL, "state", a->state, b->state);
    if (a->digest == b->digest && a->total == b->total)
        return 0;
    code = fetch_list(&d->sides[0], a, &first);
    if (code == 0)
        code = fetch_list(&d->sides[1], b, &second);
    if (code == 0)
        compare_lists(d, a->owner, &first.all, &second.all,
                      strcmp(a->state, "draining") == 0 || strcmp(b->state, "draining") == 0);
    return code;
}

static int compare(struct diff *d)
{
    const struct side *a = &d->sides[0], *b = &d->sides[1];
    size_t i = 0, k = 0;

    while (i < a->n_beliefs || k < b->n_beliefs) {
        const struct belief *first = i < a->n_beliefs ? &a->beliefs[i] : NULL;
        const struct belief *second = k < b->n_beliefs ? &b->beliefs[k] : NULL;
        int order = !first ? 1 : !second ? -1 : by_owner(first, second), code = 0;

        if (order < 0)
            add(d, first->owner, NULL, "owner", first->state, NULL);
        else if (order > 0)
            add(d, second->owner, NULL, "owner", NULL, second->state);
        else
            code = compare_owner(d, first, second);
        if (code)
            return code;
        i += order <= 0;
        k += order >= 0;
    }
    return 0;
}

/* ---- showing it ---- */

static void diff_table(const struct diff *d)
{
    const char *names[2] = {d->sides[0].picture.all.peer_id, d->sides[1].picture.all.peer_id};
    CLEANUP(table_freep) struct table *t = NULL;

    if (strcmp(names[0], names[1]) == 0) /* two ways to one node, or two of one name */
        for (int i = 0; i < 2; i++)
            names[i] = d->sides[i].session.url;
    if (d->n == 0)
        return;
    t = TABLE("OWNER", "NAME", names[0], names[1]);
    for (size_t i = 0; i < d->n; i++) {
        const struct difference *it = &d->list[i];

        table_cell(t, it->owner);
        table_cell(t, it->name ? it->name : "");
        for (int k = 0; k < 2; k++) {
            if (strcmp(it->what, "backend") == 0)
                table_cell(t, it->values[k] ? it->values[k] : "");
            else
                table_state(t, it->values[k] ? it->values[k] : "");
        }
    }
    table_print(t, stdout);
}

static json_t *text_json(const char *text) { return text ? json_string(text) : json_null(); }

static json_t *difference_json(const struct difference *it)
{
    json_t *json =
        json_pack("{s:s,s:o,s:s,s:[o,o]}", "owner", it->owner, "name", text_json(it->name), "what",
                  it->what, "values", text_json(it->values[0]), text_json(it->values[1]));

    if (!json)
        out_of_memory();
    return json;
}

static json_t *node_json(const struct side *side)
{
    CLEANUP(json_decrefp) json_t *whole = NULL;
    Meshd__V1__IntrospectReply bare = MESHD__V1__INTROSPECT_REPLY__INIT;
    json_t *json = json_pack("{s:s}", "url", side->session.url);
    static const char *const kept[] = {"peer_id", "epoch", "revision"};

    bare.peer_id = side->picture.all.peer_id;
    bare.epoch = side->picture.all.epoch;
    bare.revision = side->picture.all.revision;
    whole = format_json(&bare.base);
    for (size_t i = 0; i < 3; i++)
        json_object_set(json, kept[i], json_object_get(whole, kept[i]));
    if (!json)
        out_of_memory();
    return json;
}

static void diff_json(const struct diff *d)
{
    CLEANUP(json_decrefp) json_t *json = NULL;
    json_t *list = json_array();

    for (size_t i = 0; i < d->n; i++)
        json_array_append_new(list, difference_json(&d->list[i]));
    json = json_pack("{s:[o,o],s:o}", "nodes", node_json(&d->sides[0]), node_json(&d->sides[1]),
                     "differences", list);
    if (!json)
        out_of_memory();
    format_line(json, 0);
}

static void show(const struct diff *d)
{
    if (d->opts->silent)
        return;
    if (d->opts->format == FORMAT_JSON) {
        diff_json(d);
    } else if (d->opts->format == FORMAT_JSONL) {
        for (size_t i = 0; i < d->n; i++) {
            CLEANUP(json_decrefp) json_t *json = difference_json(&d->list[i]);

            format_line(json, 0);
        }
    } else {
        diff_table(d);
    }
}

/* host:port is short for tcp://host:port. */
static char *url_of(const char *word)
{
    size_t size = strlen(word) + sizeof("tcp://");
    char *url = must_alloc(size);

    snprintf(url, size, "%s%s", strstr(word, "://") ? "" : "tcp://", word);
    return url;
}

int run_diff(const struct meshcat_opts *opts)
{
    CLEANUP(diff_fini) struct diff d = {.opts = opts};
    int code = 0;

    for (int i = 0; i < 2; i++) {
        CLEANUP(free_textp) char *url = url_of(opts->args[i]);

        session_at(&d.sides[i].session, opts, url);
    }
    for (int i = 0; i < 2 && code == 0; i++)
        code = ask_side(&d.sides[i]);
    if (code == 0)
        code = compare(&d);
    if (code)
        return code;
    show(&d);
    if (opts->verbose)
        show_note(opts, "%s knows %zu owners, %s knows %zu; %zu differences",
                  d.sides[0].session.url, d.sides[0].n_beliefs, d.sides[1].session.url,
                  d.sides[1].n_beliefs, d.n);
    return d.n > 0 ? EXIT_NOTHING : EXIT_FOUND;
}
