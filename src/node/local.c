/* local - own services: one list, changed all or nothing, told to all links at once. */
#include "node/local.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>
#include "base/cleanup.h"
#include "node/inside.h"
#include "wire/name.h"

#define CHECK_NONE MESHD__V1__CHECK_KIND__CHECK_KIND_NONE
#define PROXY(version) MESHD__V1__PROXY_PROTOCOL__PROXY_PROTOCOL_##version

/* ---- who holds a name ---- */

struct lease *local_find(const struct node *n, const char *name)
{
    struct lease *lease;

    HASH_FIND_STR(n->local.by_name, name, lease);
    return lease;
}

/* NULL: no memory. */
static struct lease *lease_add(struct node *n, const char *id, const char *by, const char *name,
                               uint64_t expires_ms)
{
    struct lease *lease = calloc(1, sizeof(*lease));

    if (!lease)
        return NULL;
    snprintf(lease->name, sizeof(lease->name), "%s", name);
    snprintf(lease->id, sizeof(lease->id), "%s", id);
    snprintf(lease->by, sizeof(lease->by), "%s", by);
    lease->expires_ms = expires_ms;
    HASH_ADD_STR(n->local.by_name, name, lease);
    if (!lease->hh.tbl) {
        free(lease);
        return NULL;
    }
    if (id[0])
        n->local.n_leases++;
    return lease;
}

static void lease_drop(struct node *n, struct lease *lease)
{
    HASH_DEL(n->local.by_name, lease);
    if (lease->id[0])
        n->local.n_leases--;
    if (lease->drains)
        n->local.n_draining--;
    health_end(n, lease->health);
    free(lease);
}

static void lease_to_configuration(struct node *n, struct lease *lease)
{
    n->local.n_leases--;
    lease->id[0] = lease->by[0] = '\0';
    lease->expires_ms = UINT64_MAX;
}

/* ---- the configuration ---- */

struct configured { /* one service of it */
    struct node_service as;
    UT_hash_handle hh;
    char text[]; /* name, backend */
};

static const struct node_service *configured_find(struct configured *all, const char *name)
{
    struct configured *one;

    HASH_FIND_STR(all, name, one);
    return one ? &one->as : NULL;
}

static void configured_free(struct configured *all)
{
    struct configured *one, *next;

    HASH_ITER(hh, all, one, next)
    {
        HASH_DEL(all, one);
        free(one);
    }
}

static bool is_sound(const struct node_service *service)
{
    char canon[LIMIT_BACKEND + 1];

    return name_is_canon(service->name, strlen(service->name)) &&
           backend_canon(service->backend, strlen(service->backend), canon) == 0 &&
           service->proxy_protocol >= PROXY(NONE) && service->proxy_protocol <= PROXY(V2) &&
           !health_check_error(&service->check);
}

static int configured_add(struct configured **all, const struct node_service *service)
{
    size_t name_len = strlen(service->name), backend_len = strlen(service->backend);
    struct configured *one;

    if (!is_sound(service) || configured_find(*all, service->name))
        return -EINVAL;
    one = calloc(1, sizeof(*one) + name_len + backend_len + 2);
    if (!one)
        return -ENOMEM;
    one->as = *service;
    one->as.name = memcpy(one->text, service->name, name_len + 1);
    one->as.backend = memcpy(one->text + name_len + 1, service->backend, backend_len + 1);
    HASH_ADD_KEYPTR(hh, *all, one->as.name, name_len, one);
    if (!one->hh.tbl) {
        free(one);
        return -ENOMEM;
    }
    return 0;
}

/* ---- the list ---- */

static void refusals_fini(struct registry_refusals *refusals) { registry_refusals_fini(refusals); }

/* The registry shows list as the node's own under the next version, and keeps it as it was when not
 * all of it has room: -ENOSPC. */
static int put_list(struct node *n, struct list *list)
{
    CLEANUP(refusals_fini) struct registry_refusals refusals = {0};
    struct registry_change change = {0};
    uint64_t now_s = node_wall_s(n);
    int r = registry_put_local(n->registry, n->local.version + 1, list, now_s, &refusals, &change);

    if (r != 0)
        return r < 0 ? r : -EINVAL;
    n->local.version++;
    if (refusals.n > 0) {
        registry_put_local(n->registry, ++n->local.version, n->local.list, now_s, NULL, NULL);
        return -ENOSPC;
    }
    node_changed(n, &change);
    list_unref(n->local.list);
    n->local.list = list_ref(list);
    return 0;
}

static int change_list(struct node *n, struct row *const *puts, size_t n_puts,
                       const char *const *removed, size_t n_removed)
{
    CLEANUP(list_unrefp) struct list *list = NULL;
    int r = list_apply(n->local.list, puts, n_puts, removed, n_removed, &list);

    if (r == 0)
        r = put_list(n, list);
    if (r == 0)
        sync_run_all(n);
    return r;
}

static unsigned told_flags(bool healthy, unsigned drains)
{
    return (healthy ? 0u : ROW_UNHEALTHY) | (drains ? ROW_DRAINING : 0u);
}

static unsigned proxy_flags(int version)
{
    return version == PROXY(V1) ? ROW_PROXY_V1 : version == PROXY(V2) ? ROW_PROXY_V2 : 0u;
}

static struct row *own_row(const struct node *n, const char *name)
{
    return (struct row *)list_find(n->local.list, name, strlen(name));
}

static struct row *new_row(const char *name, const char *backend, unsigned flags)
{
    return row_new(name, strlen(name), backend, strlen(backend), "local", flags);
}

/* The row says what is known of the service. 0 or -ENOMEM. */
static int mark(struct node *n, const struct lease *lease)
{
    const struct row *known = own_row(n, lease->name);
    unsigned flags = told_flags(!lease->health || lease->health->healthy, lease->drains);
    struct row *row;
    int r;

    if (!known || (known->flags & ROW_TOLD) == flags)
        return 0;
    row = new_row(lease->name, known->backend, flags | (known->flags & ~(unsigned)ROW_TOLD));
    r = row ? change_list(n, &row, 1, NULL, 0) : -ENOMEM;
    row_unref(row);
    return r;
}

/* As the row says it already. */
static void set_drains(struct node *n, struct lease *lease, unsigned drains)
{
    bool did = lease->drains;

    lease->drains = drains;
    if (did == (drains != 0))
        return;
    if (drains)
        n->local.n_draining++;
    else
        n->local.n_draining--;
    node_event(n, drains ? NODE_SERVICE_DRAINED : NODE_SERVICE_ENABLED, "", NULL, lease->name);
}

/* ---- several names in one change ---- */

struct step { /* what becomes of one name */
    struct lease *lease;
    const struct node_service *to; /* NULL: nobody offers it any more */
    bool fresh;                    /* the lease was made for it */
    bool expired;                  /* its lease: that is told */
    bool stays;                    /* the backend does, and so what is known of it */
    unsigned drains;               /* as in the lease */
    struct row *row;               /* NULL: the row stays */
    struct health *health;         /* not begun; NULL: none is needed */
};

/* All that can fail. */
static int plan(struct node *n, struct step *step)
{
    const struct row *known = own_row(n, step->lease->name);
    const struct health *health = step->lease->health;
    unsigned flags;

    if (!step->to)
        return 0;
    step->stays = known && strcmp(known->backend, step->to->backend) == 0;
    step->drains =
        (step->lease->drains & LOCAL_BY_HAND) | (step->to->draining ? LOCAL_BY_OFFER : 0u);
    flags = told_flags(!step->stays || !health || health->healthy, step->drains) |
            proxy_flags(step->to->proxy_protocol);
    if (step->to->check.kind != CHECK_NONE && !(step->stays && health)) {
        step->health = health_new(step->to->name, step->to->backend, &step->to->check);
        if (!step->health)
            return -ENOMEM;
    }
    if (step->stays && known->flags == flags)
        return 0;
    step->row = new_row(step->to->name, step->to->backend, flags);
    return step->row ? 0 : -ENOMEM;
}

static void done(struct node *n, struct step *step)
{
    struct lease *lease = step->lease;

    if (step->expired)
        node_event(n, NODE_LEASE_EXPIRED, "", NULL, lease->name);
    if (!step->to) {
        lease_drop(n, lease);
        return;
    }
    set_drains(n, lease, step->drains);
    if (lease->health && !step->stays)
        health_end(n, TAKE(&lease->health));
    if (step->health) {
        lease->health = TAKE(&step->health);
        health_begin(n, lease->health);
    } else if (lease->health && !health_check_equal(&lease->health->check, &step->to->check)) {
        health_change(n, lease->health, &step->to->check);
    }
}

/* Does them all, or none: then leases that were made for it are dropped. */
static int run(struct node *n, struct step *steps, size_t n_steps)
{
    struct row **puts = calloc(n_steps + 1, sizeof(*puts));
    const char **removed = calloc(n_steps + 1, sizeof(*removed));
    size_t n_puts = 0, n_removed = 0;
    int r = puts && removed ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < n_steps; i++) {
        r = plan(n, &steps[i]);
        if (steps[i].row)
            puts[n_puts++] = steps[i].row;
        if (!steps[i].to)
            removed[n_removed++] = steps[i].lease->name;
    }
    /* The first list counts also if it is empty: no version is 0. */
    if (r == 0 && (n_puts + n_removed > 0 || n->local.version == 0))
        r = change_list(n, puts, n_puts, removed, n_removed);
    for (size_t i = 0; i < n_steps; i++) {
        row_unref(steps[i].row);
        if (r == 0)
            done(n, &steps[i]);
        health_end(n, steps[i].health);
        if (r < 0 && steps[i].fresh)
            lease_drop(n, steps[i].lease);
    }
    free(puts);
    free(removed);
    return r;
}

int local_put(struct node *n, const struct node_service *service, const char *id, const char *by,
              uint64_t expires_ms)
{
    struct step step = {.lease = local_find(n, service->name), .to = service};
    int r;

    if (!step.lease) {
        step.lease = lease_add(n, id, by, service->name, expires_ms);
        step.fresh = true;
    }
    if (!step.lease)
        return -ENOMEM;
    r = run(n, &step, 1);
    if (r < 0)
        return r;
    step.lease->expires_ms = expires_ms;
    if (expires_ms < n->local.next_expiry)
        n->local.next_expiry = expires_ms;
    node_due(n, expires_ms);
    return 0;
}

int local_end(struct node *n, const char *const *names, size_t n_names, bool expired)
{
    struct step *steps = calloc(n_names + 1, sizeof(*steps));
    int r = steps ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < n_names; i++)
        steps[i] = (struct step){.lease = local_find(n, names[i]),
                                 .to = configured_find(n->local.configured, names[i]),
                                 .expired = expired};
    if (r == 0)
        r = run(n, steps, n_names);
    for (size_t i = 0; r == 0 && i < n_names; i++)
        if (steps[i].to)
            lease_to_configuration(n, steps[i].lease);
    free(steps);
    return r;
}

/* Steps to what is configured from what was. */
static int plan_set(struct node *n, struct configured *all, struct step *steps, size_t *out_n)
{
    struct configured *one, *next;
    struct lease *lease, *next_lease;
    size_t count = 0;
    int r = 0;

    HASH_ITER(hh, all, one, next)
    {
        struct step step = {.lease = local_find(n, one->as.name), .to = &one->as};

        if (step.lease && step.lease->id[0])
            continue; /* until the lease ends */
        if (!step.lease) {
            step.lease = lease_add(n, "", "", one->as.name, UINT64_MAX);
            step.fresh = true;
        }
        if (!step.lease) {
            r = -ENOMEM;
            break;
        }
        steps[count++] = step;
    }
    HASH_ITER(hh, n->local.by_name, lease, next_lease)
    if (r == 0 && !lease->id[0] && !configured_find(all, lease->name))
        steps[count++] = (struct step){.lease = lease};
    for (size_t i = 0; r < 0 && i < count; i++)
        if (steps[i].fresh)
            lease_drop(n, steps[i].lease);
    *out_n = count;
    return r;
}

int local_set(struct node *n, const struct node_service *services, size_t n_services)
{
    struct configured *all = NULL;
    struct step *steps;
    size_t n_steps;
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_services; i++)
        r = configured_add(&all, &services[i]);
    steps = calloc(n_services + HASH_COUNT(n->local.by_name) + 1, sizeof(*steps));
    if (!steps)
        r = -ENOMEM;
    if (r == 0)
        r = plan_set(n, all, steps, &n_steps);
    if (r == 0)
        r = run(n, steps, n_steps);
    free(steps);
    configured_free(r == 0 ? n->local.configured : all);
    if (r == 0)
        n->local.configured = all;
    return r;
}

int local_drain(struct node *n, struct lease *lease, bool by_hand)
{
    unsigned before = lease->drains;
    unsigned drains = (before & LOCAL_BY_OFFER) | (by_hand ? LOCAL_BY_HAND : 0u);
    int r;

    lease->drains = drains;
    r = mark(n, lease);
    lease->drains = before;
    if (r == 0)
        set_drains(n, lease, drains);
    return r;
}

/* ---- life ---- */

int local_init(struct node *n, const struct node_service *services, size_t n_services)
{
    int r;

    n->local.next_expiry = UINT64_MAX;
    n->local.list = list_empty();
    r = local_set(n, services, n_services);
    return r == -ENOSPC ? -EINVAL : r;
}

void local_skip_version(struct node *n, uint64_t known)
{
    if (known < n->local.version)
        return;
    n->local.version = known + 1;
    registry_put_local(n->registry, n->local.version, n->local.list, node_wall_s(n), NULL, NULL);
}

void local_fini(struct node *n)
{
    struct lease *lease, *next;

    HASH_ITER(hh, n->local.by_name, lease, next)
    lease_drop(n, lease);
    configured_free(n->local.configured);
    list_unref(n->local.list);
}

/* Those whose time is over, in one change. */
static int end_expired(struct node *n)
{
    const char **names = calloc(n->local.n_leases + 1, sizeof(*names));
    struct lease *lease;
    size_t count = 0;
    int r;

    if (!names)
        return -ENOMEM;
    for (lease = n->local.by_name; lease; lease = lease->hh.next)
        if (lease->expires_ms <= n->now_ms)
            names[count++] = lease->name;
    r = count > 0 ? local_end(n, names, count, true) : 0;
    free(names);
    return r;
}

static void tick_leases(struct node *n)
{
    struct lease *lease;

    if (n->now_ms < n->local.next_expiry) {
        node_due(n, n->local.next_expiry);
        return;
    }
    n->local.next_expiry = UINT64_MAX;
    /* Without memory it is tried again soon. */
    if (end_expired(n) < 0)
        n->local.next_expiry = n->now_ms + 1000;
    for (lease = n->local.by_name; lease; lease = lease->hh.next)
        if (lease->expires_ms > n->now_ms && lease->expires_ms < n->local.next_expiry)
            n->local.next_expiry = lease->expires_ms;
    node_due(n, n->local.next_expiry);
}

void local_tick(struct node *n)
{
    tick_leases(n);
    health_tick(n);
}

/* ---- whether backends answer ---- */

/* Also when nothing has turned: there may have been no memory to tell the last time. */
static void tell(struct node *n, const struct health *health, enum health_turn turn)
{
    char text[LIMIT_STATUS_TEXT + 1 + LIMIT_NAME + LIMIT_BACKEND + 16];
    bool up = turn == HEALTH_ROSE;

    mark(n, local_find(n, health->name));
    if (turn == HEALTH_STAYS)
        return;
    snprintf(text, sizeof(text), "%s at %s%s%s", health->name, health->backend, up ? "" : ": ",
             up ? "" : health->why);
    if (up)
        n->counters.backend_ups++;
    else
        n->counters.backend_downs++;
    node_event(n, up ? NODE_BACKEND_UP : NODE_BACKEND_DOWN, "", NULL, text);
}

void local_checked(struct node *n, uint64_t look, int error, const char *text)
{
    struct health *health;
    enum health_turn turn = health_looked(n, look, error, text, &health);

    if (health)
        tell(n, health, turn);
}

void local_seen(struct node *n, const char *name, const char *backend, bool ok, const char *text)
{
    static const struct node_check none = {.kind = CHECK_NONE};
    const struct row *row = own_row(n, name);
    struct lease *lease = local_find(n, name);

    if (!row || !lease || strcmp(row->backend, backend) != 0 || (ok && !lease->health))
        return;
    if (!lease->health) {
        lease->health = health_new(name, backend, &none);
        if (!lease->health)
            return; /* the next failure tells */
        health_begin(n, lease->health);
    }
    tell(n, lease->health, health_seen(n, lease->health, ok, text));
}

size_t local_unhealthy(const struct node *n)
{
    const struct health *health;
    size_t count = 0;

    DL_FOREACH(n->local.healths.first, health)
    count += !health->healthy;
    return count;
}

int local_proxy(const struct node *n, const char *name)
{
    const struct row *row = own_row(n, name);
    unsigned flags = row ? row->flags : 0;

    return flags & ROW_PROXY_V1 ? PROXY(V1) : flags & ROW_PROXY_V2 ? PROXY(V2) : PROXY(NONE);
}

static void describe(const struct lease *lease, const struct row *row, struct node_check_info *out)
{
    const struct health *health = lease->health;

    *out = (struct node_check_info){.name = row->name,
                                    .backend = row->backend,
                                    .why = health ? health->why : "",
                                    .healthy = !health || health->healthy,
                                    .draining = lease->drains != 0};
    if (!health)
        return;
    out->check = health->check.kind == CHECK_NONE ? NULL : &health->check;
    out->since_s = health->since_s;
    out->streak = health_streak(health);
}

size_t node_checks(const struct node *n, struct node_check_info *out_checks, size_t max)
{
    size_t count = 0, unhealthy = local_unhealthy(n), first = 0, at;
    struct list_iter it;
    const struct row *row;

    if (!n->local.healths.first && n->local.n_draining == 0)
        return 0;
    list_iter_init(&it, n->local.list);
    while ((row = list_iter_next(&it)) != NULL) {
        const struct lease *lease = local_find(n, row->name);
        bool healthy = !lease->health || lease->health->healthy;

        if (!lease->health && !lease->drains)
            continue;
        at = healthy ? unhealthy + count - first : first++;
        if (at < max)
            describe(lease, row, &out_checks[at]);
        count++;
    }
    return count;
}
