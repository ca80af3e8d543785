/* ports - links over the gate: dialled, asked for, joined, ended. */
#include "daemon/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/random.h"
#include "daemon/line.h"
#include "rpc/server.h"

/* ---- lines ---- */

void line_add(struct line *line)
{
    HASH_ADD(by_conn, line->ports->lines_by_conn, conn, sizeof line->conn, line);
    if (!line->is_call)
        HASH_ADD(by_number, line->ports->links_by_number, number, sizeof line->number, line);
    if (line->slot)
        line->slot->line = line;
    line->ports->counters.lines++;
}

static struct line *line_of_conn(struct ports *ports, uint32_t conn)
{
    struct line *line;

    HASH_FIND(by_conn, ports->lines_by_conn, &conn, sizeof conn, line);
    return line;
}

struct line *line_of_link(struct ports *ports, uint64_t number)
{
    struct line *line;

    HASH_FIND(by_number, ports->links_by_number, &number, sizeof number, line);
    return line;
}

/* The node's number for it may be used again by the node at once. */
static void forget_number(struct line *line)
{
    if (line->is_call || line->left)
        return;
    line->left = true;
    HASH_DELETE(by_number, line->ports->links_by_number, line);
}

void line_settle(struct line *line)
{
    struct ports *ports = line->ports;
    bool joined = line->gate_up || line->pipe_up;

    if (!line->ended || (joined && !line->gone))
        return;
    if (line->is_call ? !line->done : !line->left || (line->quieting && !line->gate_told))
        return;
    HASH_DELETE(by_conn, ports->lines_by_conn, line);
    if (line->slot)
        slot_give_back(line->slot, joined);
    ports->counters.lines--;
    free(line);
}

static bool to_sockaddr(const struct node_addr *addr, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, addr->ip, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(addr->port);
        return true;
    }
    if (inet_pton(AF_INET6, addr->ip, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(addr->port);
        return true;
    }
    return false;
}

static bool is_loopback(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)addr)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)addr)->sin6_addr);
}

/* A node that listens on a specific address dials from it, where that can reach the target. */
static void choose_from(const struct ports *ports, struct gate_target *target)
{
    const struct sockaddr_storage *from = &ports->from;

    if (from->ss_family == target->to.ss_family && is_loopback(from) == is_loopback(&target->to))
        target->from = *from;
}

int line_dial(struct line *line, enum preamble_kind kind, const struct node_addr *to,
              const char *expect, const uint8_t *token)
{
    struct ports *ports = line->ports;
    struct gate_target target = {.ipc_path = line->slot->path};
    int64_t conn;

    if (!to_sockaddr(to, &target.to))
        return -EAFNOSUPPORT;
    if (ports->settings.near_only && !is_loopback(&target.to))
        return -EPERM;
    choose_from(ports, &target);
    snprintf(target.expect, sizeof target.expect, "%s", expect);
    target.preamble.version = PREAMBLE_VERSION;
    target.preamble.kind = kind;
    memcpy(target.preamble.peer_id, ports->peer_id, sizeof ports->peer_id);
    if (token) {
        memcpy(target.preamble.token, token, TOKEN_LEN);
        target.preamble.has_token = 1;
    }
    line->to = target.to;
    line->from = target.from;
    conn = gate_dial(ports->gate, &target);
    if (conn < 0)
        return (int)conn;
    line->conn = (uint32_t)conn;
    line_add(line);
    return 0;
}

/* ---- what the gate says ---- */

enum gate_word { GATE_LINK_ASKED, GATE_UP, GATE_ENDING, GATE_ENDED };

struct gate_letter {
    struct letter letter;
    struct ports *ports;
    enum gate_word news;
    uint32_t conn;
    struct gate_peer from;
    struct preamble preamble;
    struct gate_end end;
};

static void link_asked(struct ports *ports, const struct gate_letter *l)
{
    struct node_addr from = {.port = l->from.port};
    struct line *line = must_alloc(sizeof *line);

    memcpy(from.ip, l->from.ip, sizeof from.ip);
    line->ports = ports;
    line->conn = l->conn;
    line->number = NODE_LINK_ACCEPTED | l->conn;
    line_add(line);
    node_link_asked(ports->node, line->number, l->preamble.peer_id, &from, l->preamble.token);
}

void line_quiet(struct line *line, bool flush)
{
    if (line->quieting)
        return;
    line->quieting = true;
    slot_session_end(line->slot);
    rpc_pair_quiet(line->slot->pair, flush);
}

void line_tell_down(struct line *line, const struct gate_end *end)
{
    uint64_t number = line->number;
    struct node *node = line->ports->node;

    if (line->left)
        return;
    forget_number(line);
    node_link_down(node, number, end->status, end->reason,
                   end->text[0] ? end->text
                   : end->error ? strerror(-end->error)
                                : "the other side closed the connection");
}

/* The network is lost. What had arrived before, a Goodbye above all, is still on its way through
 * nng, and comes before `gone`: the node is told after it. */
static void line_lost(struct line *line, const struct gate_end *end)
{
    if (line->pipe_up && !line->gone) {
        line->lost = true;
        line->end = *end;
    } else {
        line_tell_down(line, end);
    }
}

static void line_ended(struct line *line, const struct gate_end *end)
{
    line->ended = true;
    line->end = *end;
    if (line->is_call) {
        call_ended(line);
    } else {
        if ((line->gate_up || line->pipe_up) && line->slot)
            line_quiet(line, false);
        line_lost(line, end);
    }
    line_settle(line);
}

static void read_gate(struct letter *letter)
{
    struct gate_letter *l = CONTAINER_OF(letter, struct gate_letter, letter);
    struct line *line = line_of_conn(l->ports, l->conn);

    switch (l->news) {
    case GATE_LINK_ASKED:
        link_asked(l->ports, l);
        break;
    case GATE_UP:
        line->gate_up = true;
        line->peer = l->from;
        if (!line->is_call && line->pipe_up && !line->told_up && !line->left) {
            line->told_up = true;
            node_link_up(l->ports->node, line->number);
        }
        break;
    case GATE_ENDING:
        if (line->is_call) {
            call_ended(line);
        } else {
            line_quiet(line, false);
            line_lost(line, &l->end);
        }
        break;
    case GATE_ENDED:
        line_ended(line, &l->end);
        break;
    }
    free(l);
}

static struct gate_letter *gate_letter(void *ctx, enum gate_word news, uint32_t conn)
{
    struct gate_letter *l = must_alloc(sizeof *l);

    l->letter.read = read_gate;
    l->ports = ctx;
    l->news = news;
    l->conn = conn;
    return l;
}

static void post(struct gate_letter *l) { mailbox_post(l->ports->settings.box, &l->letter); }

static void on_link_asked(void *ctx, uint32_t conn, const struct gate_peer *from,
                          const struct preamble *preamble)
{
    struct gate_letter *l = gate_letter(ctx, GATE_LINK_ASKED, conn);

    l->from = *from;
    l->preamble = *preamble;
    post(l);
}

static void on_up(void *ctx, uint32_t conn, const struct gate_peer *peer)
{
    struct gate_letter *l = gate_letter(ctx, GATE_UP, conn);

    l->from = *peer;
    post(l);
}

static void on_ending(void *ctx, uint32_t conn, const struct gate_end *why)
{
    struct gate_letter *l = gate_letter(ctx, GATE_ENDING, conn);

    l->end = *why;
    post(l);
}

static void on_ended(void *ctx, uint32_t conn, const struct gate_end *why)
{
    struct gate_letter *l = gate_letter(ctx, GATE_ENDED, conn);

    l->end = *why;
    post(l);
}

struct gate_ops ports_gate_ops(struct ports *ports)
{
    return (struct gate_ops){.ctx = ports,
                             .link_asked = on_link_asked,
                             .up = on_up,
                             .ending = on_ending,
                             .ended = on_ended,
                             .data = ports_data};
}

/* ---- what the node asks ---- */

struct down_letter {
    struct letter letter;
    struct ports *ports;
    uint64_t number;
    int error;
};

static void read_down(struct letter *letter)
{
    struct down_letter *l = CONTAINER_OF(letter, struct down_letter, letter);

    node_link_down(l->ports->node, l->number, 0, 0, strerror(-l->error));
    free(l);
}

/* For a link that was never begun: not before the node's own call has returned. */
static void down_soon(struct ports *ports, uint64_t number, int error)
{
    struct down_letter *l = must_alloc(sizeof *l);

    l->letter.read = read_down;
    l->ports = ports;
    l->number = number;
    l->error = error;
    mailbox_post(ports->settings.box, &l->letter);
}

static void link_dial(void *ctx, uint64_t number, const struct node_addr *to, const char *expect,
                      const uint8_t token[TOKEN_LEN])
{
    struct ports *ports = ctx;
    struct line *line = must_alloc(sizeof *line);
    int r = 0;

    line->ports = ports;
    line->number = number;
    line->slot = slot_take_pair(ports, &r);
    if (line->slot)
        r = line_dial(line, PREAMBLE_LINK, to, expect, token);
    if (r < 0) {
        if (line->slot)
            slot_give_back(line->slot, true);
        free(line);
        down_soon(ports, number, r);
    }
}

static void link_accept(void *ctx, uint64_t number)
{
    struct ports *ports = ctx;
    struct line *line = line_of_link(ports, number);
    int r = 0;

    if (!line)
        return;
    line->slot = slot_take_pair(ports, &r);
    if (!line->slot) {
        forget_number(line);
        gate_refuse(ports->gate, line->conn, STATUS_UNAVAILABLE, MESHD__V1__REASON__REASON_LIMIT,
                    "no socket left for a link");
        down_soon(ports, number, r);
        return;
    }
    line->slot->line = line;
    gate_accept(ports->gate, line->conn, line->slot->path);
}

static void link_refuse(void *ctx, uint64_t number, enum status status, int reason,
                        const char *text)
{
    struct ports *ports = ctx;
    struct line *line = line_of_link(ports, number);

    if (!line)
        return;
    forget_number(line);
    gate_refuse(ports->gate, line->conn, (uint8_t)status, (uint8_t)reason, text);
}

static int link_send(void *ctx, uint64_t number, enum node_urgency urgency,
                     const ProtobufCMessage *header, const ProtobufCMessage *body)
{
    struct line *line = line_of_link(ctx, number);

    if (!line || !line->slot || line->quieting)
        return -EPIPE;
    return rpc_pair_send(line->slot->pair, urgency == NODE_URGENT ? RPC_URGENT : RPC_BULK, header,
                         body);
}

static uint64_t link_received(void *ctx, uint64_t number)
{
    struct ports *ports = ctx;
    struct line *line = line_of_link(ports, number);

    return line ? gate_received(ports->gate, line->conn) : 0;
}

static void link_end(void *ctx, uint64_t number, bool flush)
{
    struct ports *ports = ctx;
    struct line *line = line_of_link(ports, number);

    if (!line)
        return;
    forget_number(line);
    if (line->gate_up || line->pipe_up) {
        line_quiet(line, flush);
    } else {
        line->quieting = line->gate_told = true;
        gate_end(ports->gate, line->conn, 0);
    }
    line_settle(line);
}

static void reply(void *ctx, uint64_t call, enum status status, int reason, const char *text,
                  const ProtobufCMessage *message)
{
    rpc_call_reply((struct rpc_call *)(uintptr_t)call, status, (Meshd__V1__Reason)reason, text,
                   message);
}

static void event(void *ctx, const struct node_event *event)
{
    struct ports *ports = ctx;

    ports->settings.event(ports->settings.ctx, event);
}

static uint64_t now_ms(void *ctx) { return clock_ms(); }

static uint64_t now_us(void *ctx) { return clock_ns() / 1000; }

static uint64_t wall_us(void *ctx) { return clock_wall_us(); }

static void fill_random(void *ctx, void *out, size_t len) { random_bytes(out, len); }

struct node_port ports_node_port(struct ports *ports)
{
    return (struct node_port){.ctx = ports,
                              .now_ms = now_ms,
                              .now_us = now_us,
                              .wall_us = wall_us,
                              .random = fill_random,
                              .resolve = resolve_begin,
                              .call = call_begin,
                              .link_dial = link_dial,
                              .link_accept = link_accept,
                              .link_refuse = link_refuse,
                              .link_send = link_send,
                              .link_received = link_received,
                              .link_spoke = link_spoke,
                              .link_end = link_end,
                              .link_session = link_session,
                              .link_forward = link_forward,
                              .link_data_wanted = link_data_wanted,
                              .link_data_wish = link_data_wish,
                              .link_busy = link_busy,
                              .check = check_begin,
                              .reply = reply,
                              .event = event};
}

/* ---- the whole ---- */

int ports_new(const struct ports_settings *settings, struct ports **out_ports)
{
    struct ports *ports = calloc(1, sizeof *ports);

    if (!ports)
        return -ENOMEM;
    ports->settings = *settings;
    ports->limits = *settings->limits;
    mutex_init(&ports->seen_lock);
    snprintf(ports->dir, sizeof ports->dir, "%s", settings->dir);
    snprintf(ports->peer_id, sizeof ports->peer_id, "%s", settings->peer_id);
    *out_ports = ports;
    return 0;
}

void ports_set_limits(struct ports *ports, const struct limits *limits)
{
    limits_put(&ports->limits, limits);
}

void ports_attach(struct ports *ports, struct gate *gate) { ports->gate = gate; }

void ports_set_forward(struct ports *ports, struct forward *forward) { ports->forward = forward; }

void ports_set_from(struct ports *ports, const struct sockaddr_storage *from)
{
    ports->from = *from;
}

void ports_set_node(struct ports *ports, struct node *node) { ports->node = node; }

size_t ports_lines(const struct ports *ports) { return ports->counters.lines; }

size_t ports_resolving(const struct ports *ports) { return ports->resolving; }

static void close_pool(struct slot *pool)
{
    while (pool) {
        struct slot *next = pool->next;

        slot_free(pool);
        pool = next;
    }
}

/* Lines that are left are still held by nng or the gate: left alone, for the process ends. */
void ports_free(struct ports *ports)
{
    if (!ports)
        return;
    close_pool(ports->free_clients);
    close_pool(ports->free_pairs);
    if (ports->lines_by_conn)
        return;
    mutex_fini(&ports->seen_lock);
    free(ports);
}

void ports_counters(const struct ports *ports, struct ports_counters *out_counters)
{
    struct rpc_pair_counters pair;
    struct line *line, *next;

    *out_counters = ports->counters;
    HASH_ITER(by_number, ports->links_by_number, line, next)
    {
        if (!line->slot)
            continue;
        rpc_pair_counters(line->slot->pair, &pair);
        if (pair.queued_bytes > out_counters->largest_queue)
            out_counters->largest_queue = pair.queued_bytes;
    }
}
