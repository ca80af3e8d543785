/* inside - what the files of this room need of the whole. */
#include "node/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t node_wall_s(const struct node *n) { return n->port->wall_us(n->port->ctx) / 1000000u; }

uint64_t node_random(const struct node *n)
{
    uint64_t value;

    n->port->random(n->port->ctx, &value, sizeof(value));
    return value;
}

uint64_t node_number(struct node *n) { return ++n->last_number; }

uint64_t node_silence_ms(const struct node *n)
{
    uint64_t ms = 3 * (uint64_t)n->heartbeat_ms + n->heartbeat_ms / 4;

    return ms < 10000 ? ms : 10000;
}

void node_due(struct node *n, uint64_t at_ms)
{
    if (at_ms < n->next_ms)
        n->next_ms = at_ms;
}

void node_event_at(struct node *n, enum node_event_kind kind, const char *peer_id,
                   const char *address, const char *text)
{
    n->port->event(
        n->port->ctx,
        &(struct node_event){.kind = kind, .peer_id = peer_id, .address = address, .text = text});
}

void node_event(struct node *n, enum node_event_kind kind, const char *peer_id,
                const struct node_addr *addr, const char *text)
{
    char address[LIMIT_IP_TEXT + 10] = "";

    if (addr)
        snprintf(address, sizeof(address), strchr(addr->ip, ':') ? "[%s]:%u" : "%s:%u", addr->ip,
                 addr->port);
    node_event_at(n, kind, peer_id, address, text);
}

void node_changed(struct node *n, const struct registry_change *change)
{
    n->maps_changed |= change->any;
}

void node_reply(struct node *n, uint64_t call, enum status status, int reason, const char *text,
                const ProtobufCMessage *message)
{
    n->port->reply(n->port->ctx, call, status, reason, text, message);
}

void node_raise(struct node *n, uint64_t known, const char *where)
{
    char text[LIMIT_STATUS_TEXT + 1];

    if (known < n->incarnation || known >= INCARNATION_MAX)
        return;
    n->incarnation = known + 1;
    snprintf(text, sizeof(text), "%llu was known at %s; going on as %llu",
             (unsigned long long)known, where, (unsigned long long)n->incarnation);
    node_event(n, NODE_INCARNATION, "", NULL, text);
    sync_restart_all(n);
    dialer_restart_all(n);
}

bool node_may(struct node *n, enum policy_action action, const char *subject, const char *name,
              char out_text[LIMIT_STATUS_TEXT + 1])
{
    char rule[POLICY_RULE_TEXT];

    if (policy_allows(n->policy, action, subject, name, rule))
        return true;
    policy_refusal_text(action, subject, "", rule, out_text, LIMIT_STATUS_TEXT + 1);
    return false;
}

int node_scratch(struct node *n, size_t count)
{
    size_t cap = n->scratch_cap ? n->scratch_cap : 64;
    void *at;

    if (count <= n->scratch_cap)
        return 0;
    while (cap < count)
        cap *= 2;
    at = realloc(n->scratch, cap * sizeof(*n->scratch));
    if (!at)
        return -ENOMEM;
    n->scratch = at;
    at = realloc(n->scratch_at, cap * sizeof(*n->scratch_at));
    if (!at)
        return -ENOMEM;
    n->scratch_at = at;
    at = realloc(n->scratch_names, cap * sizeof(*n->scratch_names));
    if (!at)
        return -ENOMEM;
    n->scratch_names = at;
    n->scratch_cap = cap;
    return 0;
}

void text_copy(char *out, size_t size, const char *in)
{
    size_t len = strnlen(in, size);

    if (len == size) {
        len = size - 1;
        while (len > 0 && ((uint8_t)in[len] & 0xc0) == 0x80)
            len--;
    }
    memmove(out, in, len);
    out[len] = '\0';
}
