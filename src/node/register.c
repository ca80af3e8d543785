/* register - a peer announces itself. Who it is was settled by its connection; a body that names
 * another is refused. What it offers enters the maps as not connected, until its link is live.
 */
#include "node/register.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/cleanup.h"
#include "node/inside.h"
#include "wire/name.h"

struct answer { /* Refused entries are borrowed from the peer */
    enum status status;
    int reason;
    char text[LIMIT_STATUS_TEXT + 1];
    uint64_t known_incarnation;
};

static void refuse(struct node *n, uint64_t call, const struct answer *a)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;

    n->counters.registers_refused++;
    reply.known_incarnation = a->known_incarnation;
    node_reply(n, call, a->status, a->reason, a->text, a->known_incarnation ? &reply.base : NULL);
}

/* May this caller speak for that peer at all? */
static bool check_identity(const struct node *n, const struct node_caller *caller,
                           const char *peer_id, uint64_t incarnation, struct answer *a)
{
    const char *text = NULL;

    a->reason = 0;
    if (n->stopped) {
        a->status = STATUS_UNAVAILABLE;
        a->reason = REASON(DRAINING);
        text = "the node is about to leave";
    } else if (!peer_id_valid(peer_id, strlen(peer_id))) {
        a->status = STATUS_INVALID_ARGUMENT;
        text = "not a peer id";
    } else if (strcmp(peer_id, caller->peer_id) != 0) {
        a->status = STATUS_PERMISSION_DENIED;
        a->reason = REASON(IDENTITY);
        text = "the body names another peer than the connection";
    } else if (strcmp(peer_id, n->peer_id) == 0) {
        a->status = STATUS_FAILED_PRECONDITION;
        a->reason = REASON(SELF);
        text = "the peer id is this node's own";
    } else if (incarnation == 0 || incarnation > INCARNATION_MAX) {
        a->status = STATUS_INVALID_ARGUMENT;
        text = "incarnation out of range";
    }
    if (!text)
        return true;
    text_copy(a->text, sizeof(a->text), text);
    return false;
}

static bool check_policy(struct node *n, const char *peer_id, struct answer *a)
{
    a->status = STATUS_PERMISSION_DENIED;
    a->reason = REASON(POLICY);
    return node_may(n, POLICY_LINK, peer_id, "", a->text);
}

static bool check_versions(const Meshd__V1__RegisterRequest *request, struct answer *a)
{
    if (request->wire_version_min <= WIRE_VERSION_MAX &&
        request->wire_version_max >= WIRE_VERSION_MIN)
        return true;
    a->status = STATUS_FAILED_PRECONDITION;
    a->reason = REASON(WIRE_VERSION);
    snprintf(a->text, sizeof(a->text), "wire versions %u to %u are spoken here", WIRE_VERSION_MIN,
             WIRE_VERSION_MAX);
    return false;
}

/* The list that came along. An older or equal pair changes nothing. */
static bool take_list(struct node *n, struct peer *p, const Meshd__V1__RegisterRequest *request,
                      struct answer *a)
{
    const struct staging_told told = {
        .checked = true, .digest = request->digest, .count = request->count};
    struct staging st;
    int r;

    if (p->known.incarnation == request->incarnation && request->version <= p->known.version)
        return true;
    staging_init(&st, true);
    r = staging_add(n, &st, p, request->services, request->n_services);
    if (r == 0)
        r = staging_apply(n, p, &st, request->incarnation, request->version, &told);
    staging_fini(n, &st);
    if (r == 0 || r == STAGING_E_STALE)
        return true;
    a->reason = 0;
    a->status = r < 0 ? STATUS_RESOURCE_EXHAUSTED : STATUS_INVALID_ARGUMENT;
    text_copy(a->text, sizeof(a->text),
              r < 0 ? "out of memory" : "digest or count are not those of the list");
    return false;
}

static void accept_register(struct node *n, uint64_t call, struct peer *p, const char *ip)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;
    Meshd__V1__Refused **refused = NULL;

    n->port->random(n->port->ctx, p->token, TOKEN_LEN);
    p->token_incarnation = p->incarnation;
    p->token_until_ms = n->now_ms + TOKEN_MS;
    reply.peer_id = n->peer_id;
    reply.incarnation = n->incarnation;
    /* Of this list, not of one that Sync has yet to bring. */
    if (p->known.incarnation == p->incarnation) {
        reply.accepted = (uint32_t)(p->known.list ? list_count(p->known.list) : 0);
        reply.refused_total = (uint32_t)known_list_refused(&p->known);
        if (known_list_refused_messages(n, p, &reply.n_refused, &refused) == 0)
            reply.refused = refused;
    }
    reply.observed_ip = (char *)ip;
    reply.token = (ProtobufCBinaryData){.len = TOKEN_LEN, .data = p->token};
    reply.wire_version = WIRE_VERSION_MAX;
    node_reply(n, call, STATUS_OK, 0, "", &reply.base);
    free(refused);
}

/* The rest of a Register once nobody else uses the id: request has a list or not. */
static void take_register(struct node *n, uint64_t call, const char *ip,
                          const Meshd__V1__RegisterRequest *request)
{
    struct answer a = {0};
    struct peer *p = peer_find(n, request->peer_id);
    int r;

    if (p && request->incarnation < p->incarnation) {
        a.status = STATUS_FAILED_PRECONDITION;
        a.reason = REASON(INCARNATION);
        a.known_incarnation = p->incarnation;
        text_copy(a.text, sizeof(a.text), "an incarnation above this one is known");
        refuse(n, call, &a);
        return;
    }
    r = peer_open(n, request->peer_id, ip, &p);
    if (r != 0) {
        a.status = STATUS_RESOURCE_EXHAUSTED;
        a.reason = r > 0 ? REASON(LIMIT) : 0;
        text_copy(a.text, sizeof(a.text), r > 0 ? "over the limit peers" : "out of memory");
        refuse(n, call, &a);
        return;
    }
    p->incarnation = request->incarnation;
    if (request->has_list && !take_list(n, p, request, &a)) {
        refuse(n, call, &a);
        return;
    }
    p->draining = request->draining;
    peer_show(n, p); /* last_seen too stays what a session's sign of life made it */
    accept_register(n, call, p, ip);
}

void register_on_probed(struct node *n, const char *id, const struct probe *probe, bool in_use,
                        const char *where)
{
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;
    struct answer a = {.status = STATUS_ALREADY_EXISTS, .reason = REASON(ID_IN_USE)};

    if (n->stopped) {
        node_reply(n, probe->call, STATUS_UNAVAILABLE, REASON(DRAINING),
                   "the node is about to leave", NULL);
        return;
    }
    if (in_use) {
        snprintf(a.text, sizeof(a.text), "the peer id is in use by a live node at %s", where);
        refuse(n, probe->call, &a);
        return;
    }
    if (!check_policy(n, id, &a)) { /* the rules have changed meanwhile */
        refuse(n, probe->call, &a);
        return;
    }
    request.peer_id = (char *)id;
    request.incarnation = probe->incarnation;
    request.version = probe->version;
    request.draining = probe->draining;
    take_register(n, probe->call, probe->ip, &request);
}

void register_peer(struct node *n, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__RegisterRequest *request)
{
    struct answer a = {0};
    struct peer *p;

    n->counters.registers++;
    if (!check_identity(n, caller, request->peer_id, request->incarnation, &a) ||
        !check_policy(n, request->peer_id, &a) || !check_versions(request, &a)) {
        refuse(n, call, &a);
        return;
    }
    p = peer_find(n, request->peer_id);
    switch (p ? peer_probe(n, p, request->incarnation) : PEER_PROBE_NONE) {
    case PEER_PROBE_ASKED:
        /* Its list is not kept meanwhile: Sync brings it. */
        p->probe.call = call;
        p->probe.version = request->version;
        p->probe.draining = request->draining;
        text_copy(p->probe.ip, sizeof(p->probe.ip), caller->ip);
        return;
    case PEER_PROBE_BUSY:
        a.status = STATUS_UNAVAILABLE;
        text_copy(a.text, sizeof(a.text), "another Register of this peer id is being looked at");
        refuse(n, call, &a);
        return;
    case PEER_PROBE_NONE:
        break;
    }
    take_register(n, call, caller->ip, request);
}

/* ---- Deregister ---- */

static int drop_names(struct node *n, struct peer *p, const Meshd__V1__DeregisterRequest *request)
{
    const struct staging_told told = {.checked = false};
    struct staging st;
    int r = 0;

    staging_init(&st, request->n_names == 0);
    if (request->n_names > 0)
        r = staging_remove(n, &st, request->names, request->n_names);
    if (r == 0)
        r = staging_apply(n, p, &st, request->incarnation, request->version, &told);
    staging_fini(n, &st);
    return r;
}

void deregister_peer(struct node *n, uint64_t call, const struct node_caller *caller,
                     const Meshd__V1__DeregisterRequest *request)
{
    Meshd__V1__DeregisterReply reply = MESHD__V1__DEREGISTER_REPLY__INIT;
    struct answer a = {0};
    struct peer *p;
    size_t before;
    int r = 0;

    if (!check_identity(n, caller, request->peer_id, request->incarnation, &a)) {
        node_reply(n, call, a.status, a.reason, a.text, NULL);
        return;
    }
    p = peer_find(n, request->peer_id);
    if (!p) {
        node_reply(n, call, STATUS_NOT_FOUND, 0, "nothing of that peer is known", NULL);
        return;
    }
    if (request->incarnation != p->incarnation) {
        node_reply(n, call, STATUS_FAILED_PRECONDITION, REASON(INCARNATION),
                   "another incarnation of the peer is known; register first", NULL);
        return;
    }
    before = p->known.offered ? list_count(p->known.offered) : 0;
    if (p->known.incarnation != request->incarnation || request->version > p->known.version)
        r = drop_names(n, p, request);
    if (r < 0) {
        node_reply(n, call, STATUS_RESOURCE_EXHAUSTED, 0, "out of memory", NULL);
        return;
    }
    reply.removed = (uint32_t)(before - (p->known.offered ? list_count(p->known.offered) : 0));
    node_reply(n, call, STATUS_OK, 0, "", &reply.base);
}
