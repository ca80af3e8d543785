/* offer - what programs ask about the node's own services: Offer, Withdraw, Drain. Each is answered
 * before it returns. */
#include "node/offer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "node/inside.h"
#include "wire/name.h"

#define TTL_MIN_MS 1000u
#define TTL_MAX_MS 86400000u

/* ---- Offer ---- */

struct offered {
    struct node_service service; /* name and backend are those below */
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

/* The check as the node has it; or what is wrong with it. */
static const char *read_check(const Meshd__V1__Check *from, struct node_check *out)
{
    if (from->kind == MESHD__V1__CHECK_KIND__CHECK_KIND_NONE)
        return "the check has no kind";
    if (strlen(from->path) > LIMIT_CHECK_PATH)
        return "the check's path is longer than 256 bytes";
    out->kind = (int)from->kind;
    text_copy(out->path, sizeof(out->path), from->path);
    out->interval_ms = from->interval_ms;
    out->timeout_ms = from->timeout_ms;
    out->rise = from->rise;
    out->fall = from->fall;
    return health_check_error(out);
}

static bool proxy_known(int version)
{
    return version == MESHD__V1__PROXY_PROTOCOL__PROXY_PROTOCOL_NONE ||
           version == MESHD__V1__PROXY_PROTOCOL__PROXY_PROTOCOL_V1 ||
           version == MESHD__V1__PROXY_PROTOCOL__PROXY_PROTOCOL_V2;
}

static bool check_offer(struct node *n, uint64_t call, const Meshd__V1__OfferRequest *request,
                        struct offered *out)
{
    size_t id_len = strlen(request->lease_id);
    enum name_error error = name_canon(request->name, strlen(request->name), out->name);
    const char *why = request->check ? read_check(request->check, &out->service.check) : NULL;
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
    } else if (why) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, 0, why, NULL);
    } else if (!proxy_known((int)request->proxy_protocol)) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, 0,
                   "proxy_protocol is 0 (none), 1 (v1) or 2 (v2)", NULL);
    } else {
        out->service.name = out->name;
        out->service.backend = out->backend;
        out->service.proxy_protocol = (int)request->proxy_protocol;
        out->service.draining = request->draining;
        out->expires_ms = request->ttl_ms ? n->now_ms + request->ttl_ms : UINT64_MAX;
        return true;
    }
    return false;
}

void offer_service(struct node *n, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__OfferRequest *request)
{
    Meshd__V1__OfferReply reply = MESHD__V1__OFFER_REPLY__INIT;
    const struct lease *lease;
    struct offered offered = {.expires_ms = UINT64_MAX};
    char text[LIMIT_STATUS_TEXT + 1];
    int r;

    if (!check_caller(n, call, caller) || !check_offer(n, call, request, &offered))
        return;
    if (!may_offer(n, caller, offered.name, text)) {
        node_reply(n, call, STATUS_PERMISSION_DENIED, REASON(POLICY), text, NULL);
        return;
    }
    lease = local_find(n, offered.name);
    if (lease &&
        (strcmp(lease->id, request->lease_id) != 0 || strcmp(lease->by, holder_of(caller)) != 0)) {
        node_reply(n, call, STATUS_ALREADY_EXISTS, REASON(CONFLICT),
                   lease->id[0] ? "another lease holds the name"
                                : "the configuration holds the name",
                   NULL);
        return;
    }
    if (!lease && n->draining) {
        node_reply(n, call, STATUS_UNAVAILABLE, REASON(DRAINING),
                   "the node drains and is about to end: it takes no other service", NULL);
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
    r = local_put(n, &offered.service, request->lease_id, holder_of(caller), offered.expires_ms);
    if (r == -ENOSPC) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, REASON(LIMIT),
                   "over the limit services_total", NULL);
        return;
    }
    if (r < 0) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, 0, "out of memory", NULL);
        return;
    }
    lease = local_find(n, offered.name);
    reply.name = offered.name;
    reply.version = n->local.version;
    reply.unhealthy = lease->health && !lease->health->healthy;
    reply.draining = lease->drains != 0;
    reply.why = lease->health ? lease->health->why : (char *)"";
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

/* Removes the leases that fit. How many, or -ENOMEM. */
static long end_leases(struct node *n, const char *by, const char *id, const char *name)
{
    const char **names = calloc(n->local.n_leases + 1, sizeof(*names));
    struct lease *lease;
    size_t count = 0;
    int r = 0;

    if (!names)
        return -ENOMEM;
    for (lease = n->local.by_name; lease; lease = lease->hh.next)
        if (leaves(lease, by, id, name))
            names[count++] = lease->name;
    if (count > 0)
        r = local_end(n, names, count, false);
    free(names);
    return r < 0 ? r : (long)count;
}

void offer_withdraw(struct node *n, uint64_t call, const struct node_caller *caller,
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
    lease = name[0] ? local_find(n, name) : NULL;
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

/* ---- Drain ---- */

void offer_drain(struct node *n, uint64_t call, const struct node_caller *caller,
                 const Meshd__V1__DrainRequest *request)
{
    Meshd__V1__DrainReply reply = MESHD__V1__DRAIN_REPLY__INIT;
    char name[LIMIT_NAME + 1], text[LIMIT_STATUS_TEXT + 1];
    struct lease *lease;

    if (!caller->local) {
        node_reply(n, call, STATUS_PERMISSION_DENIED, REASON(POLICY),
                   "only programs on the local socket may drain and enable", NULL);
        return;
    }
    if (name_canon(request->name, strlen(request->name), name) != NAME_OK) {
        node_reply(n, call, STATUS_INVALID_ARGUMENT, REASON(BAD_NAME), "not a name", NULL);
        return;
    }
    if (!may_offer(n, caller, name, text)) {
        node_reply(n, call, STATUS_PERMISSION_DENIED, REASON(POLICY), text, NULL);
        return;
    }
    lease = local_find(n, name);
    if (!lease) {
        node_reply(n, call, STATUS_NOT_FOUND, 0, "this node does not offer the name", NULL);
        return;
    }
    reply.changed = !(lease->drains & LOCAL_BY_HAND) == !request->enable;
    if (local_drain(n, lease, !request->enable) < 0) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, 0, "out of memory", NULL);
        return;
    }
    reply.version = n->local.version;
    reply.draining = lease->drains != 0;
    node_reply(n, call, STATUS_OK, 0, "", &reply.base);
}
