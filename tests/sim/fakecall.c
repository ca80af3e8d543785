/* fakecall - Register as a call and its answer, names, and the rest of the port. */
#include "sim/fakenet_inside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "wire/check.h"

#define RETRY_MS 250u /* retransmission over a cut path */

/* ---- calls ---- */

static struct call *find_call(struct fakenet *net, uint64_t id)
{
    struct call *call = net->calls;

    while (call && call->id != id)
        call = call->next;
    return call;
}

static void call_free(struct fakenet *net, struct call *call)
{
    struct call **at = &net->calls;

    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    free(call->request);
    free(call->reply);
    free(call);
}

static void on_call_done(struct fakenet *net, struct fakenet_event *event)
{
    struct call *call = find_call(net, event->a);
    struct node_call_result result;

    if (!call)
        return;
    result = (struct node_call_result){.error = call->error,
                                       .status = call->status,
                                       .reason = (uint32_t)call->reason,
                                       .text = call->text,
                                       .body = call->reply,
                                       .body_len = call->reply_len};
    if (event->b == ETIMEDOUT) {
        result = (struct node_call_result){.error = -ETIMEDOUT, .text = "timed out"};
    }
    node_call_done(net->hosts[event->host]->node, call->number, &result);
    call_free(net, call);
}

static void on_reply_arrives(struct fakenet *net, struct fakenet_event *event)
{
    struct call *call = find_call(net, event->a);

    if (!call)
        return;
    if (fakenet_between(net, call->from, call->to))
        fakenet_post(net, RETRY_MS, call->from, 0, on_reply_arrives, call->id, 0, NULL);
    else
        fakenet_post(net, 0, call->from, call->from_life, on_call_done, call->id, 0, NULL);
}

static void port_reply(void *ctx, uint64_t number, enum status status, int reason, const char *text,
                       const ProtobufCMessage *message)
{
    struct fakenet_host *host = ctx;
    struct call *call = find_call(host->net, number);

    if (number == ANSWER_CALL) {
        host->answer.status = status;
        host->answer.reason = reason;
        return;
    }
    if (!call)
        return;
    call->status = status;
    call->reason = reason;
    snprintf(call->text, sizeof(call->text), "%s", text);
    if (message) {
        call->reply_len = protobuf_c_message_get_packed_size(message);
        call->reply = must(malloc(call->reply_len + 1));
        protobuf_c_message_pack(message, call->reply);
    }
    fakenet_post(host->net, fakenet_delay(host->net), call->from, 0, on_reply_arrives, call->id, 0,
                 NULL);
}

static void on_call(struct fakenet *net, struct fakenet_event *event)
{
    struct call *call = find_call(net, event->a);
    struct fakenet_host *host = net->hosts[event->host];
    struct arena arena;
    ProtobufCMessage *message;

    if (!call)
        return;
    arena_init(&arena);
    if (wire_unpack(&meshd__v1__register_request__descriptor, call->request, call->request_len,
                    &arena, &message) == 0) {
        const struct node_caller caller = {.peer_id = net->hosts[call->from]->id,
                                           .ip = net->hosts[call->from]->addr.ip};

        node_register(host->node, call->id, &caller, (const Meshd__V1__RegisterRequest *)message);
    }
    arena_fini(&arena);
}

static void on_call_arrives(struct fakenet *net, struct fakenet_event *event)
{
    struct call *call = find_call(net, event->a);
    struct fakenet_host *host = net->hosts[event->host];

    if (!call)
        return;
    if (fakenet_between(net, call->from, call->to)) {
        fakenet_post(net, RETRY_MS, call->to, 0, on_call_arrives, call->id, 0, NULL);
    } else if (!host->node || host->refuses) {
        call->error = -ECONNREFUSED;
        fakenet_post(net, fakenet_delay(net), call->from, call->from_life, on_call_done, call->id,
                     0, NULL);
    } else {
        fakenet_post(net, 0, call->to, host->life, on_call, call->id, 0, NULL);
    }
}

static void port_call(void *ctx, uint64_t number, const struct node_addr *to, const char *expect,
                      const char *method, const ProtobufCMessage *request, uint32_t deadline_ms)
{
    struct fakenet_host *host = ctx, *other = fakenet_listener(host->net, to);
    struct fakenet *net = host->net;
    struct call *call = must(calloc(1, sizeof(*call)));

    call->id = ++net->ids;
    call->number = number;
    call->from = host->index;
    call->from_life = host->life;
    call->request_len = protobuf_c_message_get_packed_size(request);
    call->request = must(malloc(call->request_len + 1));
    protobuf_c_message_pack(request, call->request);
    host->bytes_sent += call->request_len;
    call->next = net->calls;
    net->calls = call;
    /* Exactly one answer: this one, if no other came before. */
    fakenet_post(net, deadline_ms, host->index, host->life, on_call_done, call->id, ETIMEDOUT,
                 NULL);
    if (other) {
        call->to = other->index;
        fakenet_post(net, fakenet_delay(net), other->index, 0, on_call_arrives, call->id, 0, NULL);
    } else {
        call->to = host->index;
        call->error = -ECONNREFUSED;
        fakenet_post(net, fakenet_delay(net), host->index, host->life, on_call_done, call->id, 0,
                     NULL);
    }
}

/* ---- the rest of the port ---- */

static uint64_t port_now_ms(void *ctx)
{
    struct fakenet_host *host = ctx;

    return host->net->now_ms;
}

uint64_t fakecall_wall_us(const struct fakenet_host *host)
{
    return UINT64_C(1700000000000000) + host->net->now_ms * 1000 + (uint64_t)host->skew_us;
}

static uint64_t port_now_us(void *ctx)
{
    struct fakenet_host *host = ctx;

    return host->net->now_ms * 1000;
}

static uint64_t port_wall_us(void *ctx) { return fakecall_wall_us(ctx); }

static void port_random(void *ctx, void *out, size_t len)
{
    struct fakenet_host *host = ctx;
    uint8_t *at = out;

    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)fakenet_next(host->net);
}

struct asked {
    uint64_t ask;
    char host[64];
    uint16_t port;
};

static void on_resolved(struct fakenet *net, struct fakenet_event *event)
{
    struct asked *asked = event->owned;
    struct node_addr addr = {.port = asked->port};
    struct name *name = net->names;
    bool literal = strspn(asked->host, "0123456789.") == strlen(asked->host);

    while (name && strcmp(name->name, asked->host) != 0)
        name = name->next;
    snprintf(addr.ip, sizeof(addr.ip), "%.45s", name ? name->ip : asked->host);
    if (name ? name->ip[0] != '\0' : literal)
        node_resolved(net->hosts[event->host]->node, asked->ask, 0, &addr, 1);
    else
        node_resolved(net->hosts[event->host]->node, asked->ask, -ENOENT, NULL, 0);
}

static void port_resolve(void *ctx, uint64_t ask, const char *name, uint16_t port)
{
    struct fakenet_host *host = ctx;
    struct asked *asked = must(calloc(1, sizeof(*asked)));

    asked->ask = ask;
    asked->port = port;
    snprintf(asked->host, sizeof(asked->host), "%.63s", name);
    fakenet_post(host->net, 1, host->index, host->life, on_resolved, 0, 0, asked);
}

static void port_event(void *ctx, const struct node_event *event)
{
    struct fakenet_host *host = ctx;

    host->events[event->kind]++;
    snprintf(host->last_text[event->kind], sizeof(host->last_text[0]), "%s", event->text);
}

void fakecall_port(struct node_port *port)
{
    port->now_ms = port_now_ms;
    port->now_us = port_now_us;
    port->wall_us = port_wall_us;
    port->random = port_random;
    port->resolve = port_resolve;
    port->call = port_call;
    port->reply = port_reply;
    port->event = port_event;
}

void fakecall_ends(struct fakenet_host *host)
{
    struct fakenet *net = host->net;
    struct call *call, *next;

    for (call = net->calls; call; call = next) {
        next = call->next;
        if (call->from == host->index && call->from_life == host->life) {
            call_free(net, call);
        } else if (call->to == host->index && !call->reply) {
            call->error = -ECONNRESET;
            fakenet_post(net, fakenet_delay(net), call->from, call->from_life, on_call_done,
                         call->id, 0, NULL);
        }
    }
}

void fakecall_free(struct fakenet *net)
{
    while (net->calls)
        call_free(net, net->calls);
}
