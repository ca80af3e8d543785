/* local - own services: one list, changed one entry at a time, told to all links at once. */
#include "node/local.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/cleanup.h"
#include "node/inside.h"
#include "wire/name.h"

#define LEASE_ID_MAX 64u
#define TTL_MIN_MS 1000u
#define TTL_MAX_MS 86400000u

struct lease { /* one local name, and who holds it */
    char name[LIMIT_NAME + 1];
    char id[LEASE_ID_MAX + 1];  /* "": the configuration */
    char by[LIMIT_PEER_ID + 1]; /* who offered it over the network; "": this machine */
    uint64_t expires_ms;        /* UINT64_MAX: never */
    UT_hash_handle hh;
};

static struct lease *lease_find(const struct node *n, const char *name)
{
    struct lease *lease;

    HASH_FIND_STR(n->local.by_name, name, lease);
    return lease;
}

static int lease_add(struct node *n, const char *id, const char *by, const char *name,
                     uint64_t expires_ms)
{
    struct lease *lease = calloc(1, sizeof(*lease));

    if (!lease)
        return -ENOMEM;
    snprintf(lease->name, sizeof(lease->name), "%s", name);
    snprintf(lease->id, sizeof(lease->id), "%s", id);
    snprintf(lease->by, sizeof(lease->by), "%s", by);
    lease->expires_ms = expires_ms;
    HASH_ADD_STR(n->local.by_name, name, lease);
    if (!lease->hh.tbl) {
        free(lease);
        return -ENOMEM;
    }
    if (id[0])
        n->local.n_leases++;
    return 0;
}

static void lease_drop(struct node *n, struct lease *lease)
{
    HASH_DEL(n->local.by_name, lease);
    if (lease->id[0])
        n->local.n_leases--;
    free(lease);
}

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

static int change_list(struct node *n, struct row *put, const char *const *removed,
                       size_t n_removed)
{
    CLEANUP(list_unrefp) struct list *list = NULL;
    int r = list_apply(n->local.list, &put, put ? 1 : 0, removed, n_removed, &list);

    if (r == 0)
        r = put_list(n, list);
    if (r == 0)
        sync_run_all(n);
    return r;
}

static unsigned proxy_flag(int version)
{
    return version == MESHD__V1__PROXY_PROTOCOL__PROXY_PROTOCOL_V1   ? ROW_PROXY_V1
           : version == MESHD__V1__PROXY_PROTOCOL__PROXY_PROTOCOL_V2 ? ROW_PROXY_V2
                                                                     : 0;
}

int local_init(struct node *n, const struct node_service *services, size_t n_services)
{
    CLEANUP(list_unrefp) struct list *list = NULL;
    struct row **rows;
    size_t n_rows = 0;
    int r = 0;

    n->local.next_expiry = UINT64_MAX;
    n->local.list = list_empty();
    rows = calloc(n_services + 1, sizeof(*rows));
    if (!rows)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < n_services; i++) {
        const char *name = services[i].name, *backend = services[i].backend;
        char canon[LIMIT_BACKEND + 1];

        if (!name_is_canon(name, strlen(name)) ||
            backend_canon(backend, strlen(backend), canon) != 0 || lease_find(n, name)) {
            r = -EINVAL;
            break;
        }
        r = lease_add(n, "", "", name, UINT64_MAX);
        if (r == 0)
            rows[n_rows] = row_new(name, strlen(name), backend, strlen(backend), "local",
                                   proxy_flag(services[i].proxy_protocol));
        if (r == 0 && !rows[n_rows++])
            r = -ENOMEM;
    }
    if (r == 0)
        r = list_apply(n->local.list, rows, n_rows, NULL, 0, &list);
    if (r == 0)
        r = put_list(n, list);
    for (size_t i = 0; i < n_rows; i++)
        row_unref(rows[i]);
    free(rows);
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
    list_unref(n->local.list);
}

/* ---- Offer ---- */

struct offered {
    char name[LIMIT_NAME + 1], backend[LIMIT_BACKEND + 1];
    uint64_t expires_ms;
};

/* Answers itself when it returns false. */
static bool check_caller(struct node *n, uint64_t call, const struct node_caller *caller)
{
    if (n->stopped)
        node_reply(n, call, STATUS_UNAVAILABLE, REASON(DRAINING), "the node is about to leave",
                   NULL);
    else if (!caller->local && !caller->secure)
        node_reply(n, call, STATUS_PERMISSION_DENIED, REASON(POLICY),
                   "only programs on the local socket may offer and withdraw, and over the network "
                   "who proves by a certificate who it is",
                   NULL);
    else
        return true;
    return false;
}

static const char *subject_of(const struct node_caller *caller)
{
    return caller->subject      ? caller->subject
           : caller->local      ? POLICY_LOCAL
           : caller->peer_id[0] ? caller->peer_id
                                : POLICY_ANONYMOUS;
}

/* As whom a lease is held: a lease's id is no secret, so who comes over the network has only what
 * it offered itself. */
static const char *holder_of(const struct node_caller *caller)
{
    return caller->local ? "" : subject_of(caller);
}

static bool may_offer(struct node *n, const struct node_caller *caller, const char *name,
                      char out_text[LIMIT_STATUS_TEXT + 1])
{
    return node_may(n, POLICY_OFFER, subject_of(caller), name, out_text);
}

static bool check_offer(struct node *n, uint64_t call, const Meshd__V1__OfferRequest *request,
                        struct offered *out)
{
    size_t id_len = strlen(request->lease_id);
    enum name_error error = name_canon(request->name, strlen(request->name), out->name);
    char text[128];

    if (id_len == 0 || id_len > LEASE_ID_MAX) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, 0, "lease_id is 1 to 64 bytes", NULL);
    } else if (error) {
        snprintf(text, sizeof(text), "the name %s", name_error_text(error));
        node_reply(n, call, STATUS_INVALID_ARGUMENT, REASON(BAD_NAME), text, NULL);
    } else if (backend_canon(request->backend_addr, strlen(request->backend_addr), out->backend)) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, REASON(BAD_ADDRESS),
                   "backend_addr is host:port or [v6]:port", NULL);
    } else if (request->ttl_ms != 0 &&
               (request->ttl_ms < TTL_MIN_MS || request->ttl_ms > TTL_MAX_MS)) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, 0, "ttl_ms is 0, or 1000 to 86400000", NULL);
    } else {
        out->expires_ms = request->ttl_ms ? n->now_ms + request->ttl_ms : UINT64_MAX;
        return true;
    }
    return false;
}

static void expect_expiry(struct node *n, uint64_t expires_ms)
{
    if (expires_ms < n->local.next_expiry)
        n->local.next_expiry = expires_ms;
    node_due(n, expires_ms);
}

static int put_offer(struct node *n, const struct offered *offered, const char *lease_id,
                     const char *by)
{
    const struct row *known = list_find(n->local.list, offered->name, strlen(offered->name));
    struct lease *lease = lease_find(n, offered->name);
    struct row *row = NULL;
    int r = 0;

    if (!lease)
        r = lease_add(n, lease_id, by, offered->name, offered->expires_ms);
    else
        lease->expires_ms = offered->expires_ms;
    if (r < 0)
        return r;
    expect_expiry(n, offered->expires_ms);
    if (known && strcmp(known->backend, offered->backend) == 0)
        return 0; /* renewed */
    row = row_new(offered->name, strlen(offered->name), offered->backend, strlen(offered->backend),
                  "local", known ? known->flags : 0);
    r = row ? change_list(n, row, NULL, 0) : -ENOMEM;
    row_unref(row);
    if (r < 0 && !lease)
        lease_drop(n, lease_find(n, offered->name));
    return r;
}

void local_offer(struct node *n, uint64_t call, const struct node_caller *caller,
                 const Meshd__V1__OfferRequest *request)
{
    Meshd__V1__OfferReply reply = MESHD__V1__OFFER_REPLY__INIT;
    const struct lease *lease;
    struct offered offered;
    char text[LIMIT_STATUS_TEXT + 1];
    int r;

    if (!check_caller(n, call, caller) || !check_offer(n, call, request, &offered))
        return;
    if (!may_offer(n, caller, offered.name, text)) {
        node_reply(n, call, STATUS_PERMISSION_DENIED, REASON(POLICY), text, NULL);
        return;
    }
    lease = lease_find(n, offered.name);
    if (lease &&
        (strcmp(lease->id, request->lease_id) != 0 || strcmp(lease->by, holder_of(caller)) != 0)) {
        node_reply(n, call, STATUS_ALREADY_EXISTS, REASON(CONFLICT),
                   lease->id[0] ? "another lease holds the name"
                                : "the configuration holds the name",
                   NULL);
        return;
    }
    if (!lease && n->local.n_leases >= n->limits.leases) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, REASON(LIMIT), "over the limit leases",
                   NULL);
        return;
    }
    if (!lease && list_count(n->local.list) >= n->limits.services_per_peer) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, REASON(LIMIT),
                   "over the limit services_per_peer", NULL);
        return;
    }
    r = put_offer(n, &offered, request->lease_id, holder_of(caller));
    if (r == -ENOSPC) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, REASON(LIMIT),
                   "over the limit services_total", NULL);
        return;
    }
    if (r < 0) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, 0, "out of memory", NULL);
        return;
    }
    reply.name = offered.name;
    reply.version = n->local.version;
    node_reply(n, call, STATUS_OK, 0, "", &reply.base);
}

/* ---- Withdraw, and the end of a lease ---- */

/* by: of whom; NULL: of anybody. */
static bool leaves(const struct lease *lease, const char *by, const char *id, const char *name)
{
    return lease->id[0] && (!by || strcmp(lease->by, by) == 0) &&
           (!id[0] || strcmp(lease->id, id) == 0) && (!name[0] || strcmp(lease->name, name) == 0);
}

/* Whose leases the caller may end: this machine's programs, all. */
static const char *ends_of(const struct node_caller *caller)
{
    return caller->local ? NULL : holder_of(caller);
}

/* The name, or each one under the lease. */
static bool may_withdraw(struct node *n, const struct node_caller *caller, const char *id,
                         const char *name, char out_text[LIMIT_STATUS_TEXT + 1])
{
    const struct lease *lease;

    if (name[0])
        return may_offer(n, caller, name, out_text);
    for (lease = n->local.by_name; lease; lease = lease->hh.next)
        if (leaves(lease, ends_of(caller), id, "") && !may_offer(n, caller, lease->name, out_text))
            return false;
    return true;
}

static bool is_over(const struct node *n, const struct lease *lease)
{
    return lease->expires_ms <= n->now_ms;
}

/* Removes the leases that fit, or with neither id nor name those whose time is over, in one change.
 * How many, or -ENOMEM. */
static long end_leases(struct node *n, const char *by, const char *id, const char *name)
{
    const char **names = calloc(n->local.n_leases + 1, sizeof(*names));
    bool expired = !id[0] && !name[0];
    struct lease *lease, *next;
    size_t count = 0;
    int r = 0;

    if (!names)
        return -ENOMEM;
    HASH_ITER(hh, n->local.by_name, lease, next)
    if (expired ? is_over(n, lease) : leaves(lease, by, id, name))
        names[count++] = lease->name;
    if (count > 0)
        r = change_list(n, NULL, names, count);
    for (size_t i = 0; r == 0 && i < count; i++) {
        lease = lease_find(n, names[i]);
        if (expired)
            node_event(n, NODE_LEASE_EXPIRED, "", NULL, lease->name);
        lease_drop(n, lease);
    }
    free(names);
    return r < 0 ? r : (long)count;
}

void local_withdraw(struct node *n, uint64_t call, const struct node_caller *caller,
                    const Meshd__V1__WithdrawRequest *request)
{
    Meshd__V1__WithdrawReply reply = MESHD__V1__WITHDRAW_REPLY__INIT;
    const struct lease *lease;
    char name[LIMIT_NAME + 1] = "", text[LIMIT_STATUS_TEXT + 1];
    long removed;

    if (!check_caller(n, call, caller))
        return;
    if (request->name[0] && name_canon(request->name, strlen(request->name), name) != NAME_OK) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, REASON(BAD_NAME), "not a name", NULL);
        return;
    }
    if (!request->name[0] && !request->lease_id[0]) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, 0, "lease_id or name is needed", NULL);
        return;
    }
    if (!may_withdraw(n, caller, request->lease_id, name, text)) {
        node_reply(n, call, STATUS_PERMISSION_DENIED, REASON(POLICY), text, NULL);
        return;
    }
    lease = name[0] ? lease_find(n, name) : NULL;
    if (lease && !lease->id[0]) {
        node_reply(n, call, STATUS_FAILED_PRECONDITION, REASON(CONFLICT),
                   "the configuration holds the name", NULL);
        return;
    }
    if (lease && !leaves(lease, ends_of(caller), request->lease_id, "")) {
        node_reply(n, call, STATUS_FAILED_PRECONDITION, REASON(CONFLICT),
                   "another lease holds the name", NULL);
        return;
    }
    removed = end_leases(n, ends_of(caller), request->lease_id, name);
    if (removed < 0) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, 0, "out of memory", NULL);
        return;
    }
    if (removed == 0) {
        node_reply(n, call, STATUS_NOT_FOUND, 0, "nothing is offered under that lease or name",
                   NULL);
        return;
    }
    reply.removed = (uint32_t)removed;
    node_reply(n, call, STATUS_OK, 0, "", &reply.base);
}

void local_tick(struct node *n)
{
    struct lease *lease, *next;

    if (n->now_ms < n->local.next_expiry) {
        node_due(n, n->local.next_expiry);
        return;
    }
    n->local.next_expiry = UINT64_MAX;
    /* Without memory it is tried again soon. */
    if (end_leases(n, NULL, "", "") < 0)
        expect_expiry(n, n->now_ms + 1000);
    HASH_ITER(hh, n->local.by_name, lease, next)
    if (lease->expires_ms > n->now_ms)
        expect_expiry(n, lease->expires_ms);
}
