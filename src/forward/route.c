/* route - the candidates of a name, ranked; what became of them last. */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/route.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uthash.h>
#include "base/clock.h"
#include "base/hash.h"
#include "base/rank.h"
#include "forward/service.h"
#include "forward/session.h"

#define FAILURES_MAX 1024u

/* ---- looking up ---- */

/* The name itself, or the next wildcard that covers it. */
static bool look_up(struct forward *forward, const char *name, size_t len,
                    struct registry_routes *routes, char matched[LIMIT_NAME + 1])
{
    const char *dot;

    memcpy(matched, name, len);
    matched[len] = '\0';
    registry_lookup(forward->registry, name, len, routes);
    for (dot = memchr(name, '.', len); routes->n == 0 && dot;
         dot = memchr(dot + 1, '.', len - (size_t)(dot + 1 - name))) {
        size_t rest = len - (size_t)(dot - name);

        matched[0] = '*';
        memcpy(matched + 1, dot, rest);
        matched[rest + 1] = '\0';
        registry_lookup(forward->registry, matched, rest + 1, routes);
    }
    return routes->n > 0;
}

static unsigned rank(const struct registry_route *route)
{
    return rank_of(route->local, route->connected, route->stale, route->healthy, route->draining);
}

static void add_sessions(struct forward *forward, struct route_list *list)
{
    for (size_t i = 0; i < list->routes.n; i++) {
        const struct registry_route *route = &list->at[i];
        struct session *session = NULL;

        if (!route->local && route->link_id)
            session = session_by_link(forward, route->link_id, route->session_id);
        list->sessions[i] = session;
        list->active[i] = session ? atomic_load(&session->carried->active) : 0;
    }
}

static void swap(struct route_list *list, size_t a, size_t b)
{
    struct registry_route route = list->at[a];
    struct session *session = list->sessions[a];
    uint32_t active = list->active[a];

    list->at[a] = list->at[b];
    list->sessions[a] = list->sessions[b];
    list->active[a] = list->active[b];
    list->at[b] = route;
    list->sessions[b] = session;
    list->active[b] = active;
}

static bool drains_here(const struct registry_route *route)
{
    return route->local && route->draining;
}

bool route_usable(const struct route_list *list, size_t index)
{
    const struct registry_route *route = &list->at[index];

    return route->local ? !route->draining : list->sessions[index] != NULL;
}

enum forward_end route_unusable(const struct route_list *list)
{
    for (size_t i = 0; i < list->routes.n; i++)
        if (drains_here(&list->at[i]))
            return FORWARD_DRAINING;
    return FORWARD_NO_OWNER;
}

/* A session may have ended before the maps say so. */
static bool comes_after(const struct route_list *list, size_t a, size_t b)
{
    if (route_usable(list, a) != route_usable(list, b))
        return route_usable(list, b);
    if (rank(&list->at[a]) != rank(&list->at[b]))
        return rank(&list->at[a]) > rank(&list->at[b]);
    return list->active[a] > list->active[b];
}

/* Stable: what is equal stays in the registry's order. */
static void sort(struct route_list *list)
{
    for (size_t i = 1; i < list->routes.n; i++)
        for (size_t j = i; j > 0 && comes_after(list, j - 1, j); j--)
            swap(list, j - 1, j);
}

bool route_find(struct forward *forward, const char *name, size_t name_len,
                struct route_list *out_list)
{
    out_list->routes = (struct registry_routes){.at = out_list->at, .cap = ROUTES_MAX};
    if (!look_up(forward, name, name_len, &out_list->routes, out_list->matched))
        return false;
    add_sessions(forward, out_list);
    sort(out_list);
    return true;
}

void route_list_fini(struct route_list *list)
{
    for (size_t i = 0; i < list->routes.n; i++)
        session_unref(list->sessions[i]);
    registry_routes_fini(&list->routes);
}

/* ---- what failed last ---- */

struct failure {
    UT_hash_handle hh; /* the oldest first */
    enum forward_end end;
    uint64_t at_ms;
    char text[LIMIT_STATUS_TEXT + 1];
    char key[LIMIT_NAME + LIMIT_PEER_ID + 2]; /* "name@peer id" */
};

struct failures {
    struct mutex lock;
    struct failure *by_key; /* with lock held */
};

int failures_new(struct failures **out_failures)
{
    struct failures *failures = calloc(1, sizeof(*failures));

    if (!failures)
        return -ENOMEM;
    mutex_init(&failures->lock);
    *out_failures = failures;
    return 0;
}

void failures_free(struct failures *failures)
{
    struct failure *failure, *next;

    if (!failures)
        return;
    HASH_ITER(hh, failures->by_key, failure, next)
    {
        HASH_DEL(failures->by_key, failure);
        free(failure);
    }
    mutex_fini(&failures->lock);
    free(failures);
}

static size_t key_of(const char *name, const char *peer_id,
                     char key[LIMIT_NAME + LIMIT_PEER_ID + 2])
{
    return (size_t)snprintf(key, LIMIT_NAME + LIMIT_PEER_ID + 2, "%.253s@%.64s", name, peer_id);
}

void failure_note(struct forward *forward, const char *name, const char *peer_id,
                  enum forward_end end, const char *text)
{
    struct failures *failures = forward->failures;
    char key[LIMIT_NAME + LIMIT_PEER_ID + 2];
    size_t len = key_of(name, peer_id, key);
    struct failure *failure;

    mutex_lock(&failures->lock);
    HASH_FIND(hh, failures->by_key, key, len, failure);
    if (failure)
        HASH_DEL(failures->by_key, failure);
    else if (HASH_COUNT(failures->by_key) < FAILURES_MAX)
        failure = calloc(1, sizeof(*failure));
    else {
        failure = failures->by_key;
        HASH_DEL(failures->by_key, failure);
    }
    if (failure) {
        failure->end = end;
        failure->at_ms = clock_ms();
        snprintf(failure->text, sizeof(failure->text), "%s", text);
        memcpy(failure->key, key, len + 1);
        HASH_ADD(hh, failures->by_key, key, len, failure);
        if (!failure->hh.tbl)
            free(failure);
    }
    mutex_unlock(&failures->lock);
}

static void recall(struct forward *forward, const char *name, struct forward_candidate *candidate)
{
    struct failures *failures = forward->failures;
    char key[LIMIT_NAME + LIMIT_PEER_ID + 2];
    size_t len = key_of(name, candidate->route->peer_id, key);
    struct failure *failure;

    mutex_lock(&failures->lock);
    HASH_FIND(hh, failures->by_key, key, len, failure);
    candidate->has_failed = failure != NULL;
    if (failure) {
        candidate->failed = failure->end;
        candidate->failed_ms_ago = clock_ms() - failure->at_ms;
        memcpy(candidate->failed_text, failure->text, sizeof(failure->text));
    }
    mutex_unlock(&failures->lock);
}

/* ---- in words ---- */

/* Why it is not as good as others may be, or NULL. */
static const char *flaw(const struct registry_route *route)
{
    if (route->stale)
        return "its link is suspect";
    if (!route->connected)
        return "its link is not up yet";
    if (route->row->flags & ROW_DRAINING)
        return route->healthy ? "draining" : "draining, and unhealthy: its backend does not answer";
    if (!route->healthy)
        return "unhealthy: its backend does not answer";
    return route->draining ? "it is about to leave" : NULL;
}

static void why_chosen(const struct route_list *list, char *out, size_t size)
{
    const struct registry_route *route = &list->at[0];
    const char *why = flaw(route);

    if (why)
        snprintf(out, size, "%s, and there is nobody better", why);
    else if (route->local)
        snprintf(out, size, "it is local");
    else
        snprintf(out, size, "connected, with %u forwards of this node", list->active[0]);
}

static void why_not(const struct route_list *list, size_t i, char *out, size_t size)
{
    const struct registry_route *route = &list->at[i], *best = &list->at[0];
    bool local_first = best->local && rank(route) == rank(best) + 1; /* else the same */

    if (drains_here(route))
        snprintf(out, size, "draining: it takes no new clients");
    else if (!route_usable(list, i))
        snprintf(out, size, route->stale ? "its link is lost" : "its link is not up yet");
    else if (local_first)
        snprintf(out, size, "a local backend comes first");
    else if (rank(route) != rank(best))
        snprintf(out, size, "%s; others come first", flaw(route));
    else if (list->active[i] > list->active[0])
        snprintf(out, size, "%u forwards of this node, more than %u", list->active[i],
                 list->active[0]);
    else
        snprintf(out, size, "as good, but after %s in the stable order", best->label);
}

void forward_explain(struct forward *forward, const char *name, size_t name_len,
                     struct forward_explained *out)
{
    struct route_list list;
    bool any;
    size_t n;

    out->routes.n = 0;
    out->matched[0] = '\0';
    if (!route_find(forward, name, name_len, &list)) {
        snprintf(out->verdict, sizeof(out->verdict), "nobody offers this name here");
        return;
    }
    memcpy(out->matched, list.matched, sizeof(out->matched));
    n = list.routes.n < out->routes.cap ? list.routes.n : out->routes.cap;
    any = route_usable(&list, 0);
    for (size_t i = 0; i < n; i++) {
        struct forward_candidate *candidate = &out->at[i];

        out->routes.at[i] = list.at[i];
        row_ref(list.at[i].row);
        *candidate =
            (struct forward_candidate){.route = &out->routes.at[i], .active = list.active[i]};
        if (list.at[i].local)
            candidate->active = (uint32_t)services_count(forward->services, list.matched);
        recall(forward, list.matched, candidate);
        candidate->chosen = i == 0 && any;
        if (candidate->chosen)
            why_chosen(&list, candidate->why, sizeof(candidate->why));
        else
            why_not(&list, i, candidate->why, sizeof(candidate->why));
    }
    out->routes.n = n;
    out->routes.revision = list.routes.revision;
    if (any && n > 0)
        snprintf(out->verdict, sizeof(out->verdict), "goes to %s: %.130s", list.at[0].label,
                 out->at[0].why);
    else
        snprintf(out->verdict, sizeof(out->verdict), "%s: 503",
                 route_unusable(&list) == FORWARD_DRAINING
                     ? "it is draining here, and no other owner is connected"
                     : "no owner is connected");
    route_list_fini(&list);
}
