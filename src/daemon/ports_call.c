/* ports_call - one call to a peer on a connection of its own, and names to addresses. */
#include "daemon/line.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRS_MAX 16u

/* ---- calls ---- */

struct result_letter {
    struct letter letter;
    struct line *line; /* NULL: nothing was begun */
    struct ports *ports;
    uint64_t number;
    struct node_call_result result;
    char text[LIMIT_STATUS_TEXT + 1];
    uint8_t body[];
};

static void stop_sending(struct line *line)
{
    uint64_t sent;

    if (line->gate_told)
        return;
    line->gate_told = true;
    sent = rpc_client_quiet(line->slot->client);
    if (!line->ended)
        gate_end(line->ports->gate, line->conn, sent);
}

static void read_result(struct letter *letter)
{
    struct result_letter *l = CONTAINER_OF(letter, struct result_letter, letter);
    struct line *line = l->line;

    /* A call that was given up because its connection went is told why that went. */
    if (line && l->result.error && line->ended && (line->end.error || line->end.status)) {
        l->result.error = line->end.error;
        l->result.status = line->end.status;
        l->result.reason = line->end.reason;
        snprintf(l->text, sizeof l->text, "%s", line->end.text);
    } else if (line && l->result.error == -ECANCELED) {
        l->result.error = -ECONNRESET;
        snprintf(l->text, sizeof l->text, "the connection ended before the answer");
    }
    l->result.secure = line && line->peer.secure;
    l->result.names = line ? line->peer.names : NULL;
    node_call_done(l->ports->node, l->number, &l->result);
    if (line) {
        line->done = true;
        stop_sending(line);
        line_settle(line);
    }
    free(l);
}

static void post_result(struct ports *ports, struct line *line, uint64_t number,
                        const struct rpc_result *from)
{
    struct result_letter *l = must_alloc(sizeof *l + from->body_len);

    l->letter.read = read_result;
    l->line = line;
    l->ports = ports;
    l->number = number;
    snprintf(l->text, sizeof l->text, "%s", from->text ? from->text : "");
    if (from->body_len)
        memcpy(l->body, from->body, from->body_len);
    l->result = (struct node_call_result){.error = from->error,
                                          .status = from->status,
                                          .reason = from->reason,
                                          .text = l->text,
                                          .body = l->body,
                                          .body_len = from->body_len};
    mailbox_post(ports->settings.box, &l->letter);
}

static void on_done(void *ctx, const struct rpc_result *result)
{
    struct line *line = ctx;

    post_result(line->ports, line, line->number, result);
}

static void fail_soon(struct ports *ports, uint64_t number, int error)
{
    post_result(ports, NULL, number,
                &(struct rpc_result){.error = error, .text = strerror(-error)});
}

static void refuse_plaintext(struct ports *ports, uint64_t number)
{
    post_result(ports, NULL, number,
                &(struct rpc_result){.error = -EACCES,
                                     .text = "it is not loopback, and there is no TLS: set "
                                             "PEER_TLS_CA, PEER_TLS_CERT and PEER_TLS_KEY (meshcat "
                                             "ca makes the files), or PEER_INSECURE=true"});
}

void call_begin(void *ctx, uint64_t number, const struct node_addr *to, const char *expect,
                const char *method, const ProtobufCMessage *request, uint32_t deadline_ms)
{
    struct ports *ports = ctx;
    struct line *line = must_alloc(sizeof *line);
    int r = 0;

    line->ports = ports;
    line->number = number;
    line->is_call = true;
    line->slot = slot_take_client(ports, &r);
    if (!line->slot) {
        free(line);
        fail_soon(ports, number, r);
        return;
    }
    r = line_dial(line, PREAMBLE_RPC, to, expect, NULL);
    if (r < 0) {
        slot_give_back(line->slot, true);
        free(line);
        if (r == -EPERM)
            refuse_plaintext(ports, number);
        else
            fail_soon(ports, number, r);
        return;
    }
    r = rpc_client_call(line->slot->client, method, request, deadline_ms, on_done, line);
    if (r < 0) {
        fail_soon(ports, number, r);
        line->done = line->gate_told = true;
        gate_end(ports->gate, line->conn, 0);
    }
}

void call_ended(struct line *line) { stop_sending(line); }

/* ---- names ---- */

struct resolve {
    struct letter letter; /* for what needs no thread: literals, and failing at once */
    uv_getaddrinfo_t req;
    struct ports *ports;
    uint64_t ask;
    uint16_t port;
    int error;
    struct node_addr literal;
};

static bool addr_text(const struct sockaddr *sa, uint16_t port, struct node_addr *out)
{
    const void *raw;

    if (sa->sa_family == AF_INET)
        raw = &((const struct sockaddr_in *)sa)->sin_addr;
    else if (sa->sa_family == AF_INET6)
        raw = &((const struct sockaddr_in6 *)sa)->sin6_addr;
    else
        return false;
    out->port = port;
    return inet_ntop(sa->sa_family, raw, out->ip, sizeof out->ip) != NULL;
}

/* Of what the resolver says, as an errno: whether there is no such name, or nobody who knows. */
static int resolve_error(int status)
{
    switch (status) {
    case UV_EAI_AGAIN:
        return -EAGAIN;
    case UV_EAI_MEMORY:
        return -ENOMEM;
    default: /* the resolver's are no errno of the system's; 0: it found none of a kind for us */
        return status == 0 || status <= UV_EAI_ADDRFAMILY ? -ENOENT : status;
    }
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct resolve *r = CONTAINER_OF(req, struct resolve, req);
    struct node_addr addrs[ADDRS_MAX];
    size_t n = 0;

    r->ports->resolving--;
    for (struct addrinfo *ai = found; ai && n < ADDRS_MAX; ai = ai->ai_next)
        n += addr_text(ai->ai_addr, r->port, &addrs[n]);
    if (status < 0 || !n)
        r->ports->counters.resolves_failed++;
    if (status != UV_ECANCELED)
        node_resolved(r->ports->node, r->ask, n ? 0 : resolve_error(status), addrs, n);
    uv_freeaddrinfo(found);
    free(r);
}

static void read_at_once(struct letter *letter)
{
    struct resolve *r = CONTAINER_OF(letter, struct resolve, letter);

    node_resolved(r->ports->node, r->ask, r->error, &r->literal, r->error ? 0 : 1);
    free(r);
}

void resolve_begin(void *ctx, uint64_t ask, const char *host, uint16_t port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct resolve *r = must_alloc(sizeof *r);
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};

    r->ports = ctx;
    r->ask = ask;
    r->port = port;
    r->ports->counters.resolves++;
    r->letter.read = read_at_once;
    if ((inet_pton(AF_INET, host, &v4.sin_addr) == 1 &&
         addr_text((struct sockaddr *)&v4, port, &r->literal)) ||
        (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1 &&
         addr_text((struct sockaddr *)&v6, port, &r->literal))) {
        mailbox_post(r->ports->settings.box, &r->letter);
        return;
    }
    r->error = uv_getaddrinfo(r->ports->settings.loop, &r->req, on_resolved, host, NULL, &hints);
    if (r->error < 0)
        mailbox_post(r->ports->settings.box, &r->letter);
    else
        r->ports->resolving++;
}
