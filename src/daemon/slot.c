/* slot - the nng sockets of lines: opened when needed, kept for reuse, never closed in mid-life. */
#include "daemon/line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"

enum slot_news { NEWS_UP, NEWS_GONE, NEWS_QUIET, NEWS_MESSAGE };

struct slot_letter {
    struct letter letter;
    struct slot *slot;
    enum slot_news news;
    uint64_t sent;
    struct rpc_msg *msg;
    bool forward; /* went WAY_LONG */
};

static void tell_up(struct line *line)
{
    if (line->told_up || line->left || line->is_call)
        return;
    line->told_up = true;
    node_link_up(line->ports->node, line->number);
}

static void read_message(struct slot *slot, struct line *line, struct rpc_msg *msg)
{
    size_t len = rpc_msg_len(msg);

    atomic_fetch_sub(&slot->waiting_bytes, len);
    if (line && !line->left) {
        tell_up(line); /* nng may deliver before it says that the pipe is up */
        if (!line->left)
            node_link_message(line->ports->node, line->number, rpc_msg_data(msg), len);
    }
    rpc_msg_free(msg);
}

static void end_overflowed(struct line *line)
{
    static const struct gate_end why = {
        .text = "it sent more than limits.link_queue_bytes ahead of what was read"};

    if (!line || line->left)
        return;
    line->ports->counters.overflows++;
    line_quiet(line, false);
    line_tell_down(line, &why);
}

static void read_slot(struct letter *letter)
{
    struct slot_letter *l = CONTAINER_OF(letter, struct slot_letter, letter);
    struct slot *slot = l->slot;
    struct line *line = slot->line;

    switch (l->news) {
    case NEWS_UP:
        slot->ports->counters.pipes_added += slot->pair != NULL;
        if (line) {
            line->pipe_up = true;
            line->gone = false;
            if (line->gate_up)
                tell_up(line);
        }
        break;
    case NEWS_GONE:
        slot->ports->counters.pipes_removed += slot->pair != NULL;
        if (line) {
            line->gone = true;
            if (slot->pair)
                slot_session_end(slot);
            if (line->lost)
                line_tell_down(line, &line->end);
            line_settle(line);
        }
        break;
    case NEWS_QUIET:
        if (line && !line->gate_told) {
            line->gate_told = true;
            gate_end(slot->ports->gate, line->conn, l->sent);
            line_settle(line); /* the gate and nng may both have let go before */
        }
        break;
    case NEWS_MESSAGE:
        read_message(slot, line, l->msg);
        if (l->forward)
            atomic_fetch_sub(&slot->waiting_forwards, 1);
        if (atomic_exchange(&slot->overflowed, false))
            end_overflowed(slot->line);
        break;
    }
    free(l);
}

static struct slot_letter *slot_letter(struct slot *slot, enum slot_news news)
{
    struct slot_letter *l = must_alloc(sizeof *l);

    *l = (struct slot_letter){.letter.read = read_slot, .slot = slot, .news = news};
    return l;
}

static void post(struct slot_letter *l) { mailbox_post(l->slot->ports->settings.box, &l->letter); }

static void on_up(void *ctx) { post(slot_letter(ctx, NEWS_UP)); }

static void on_gone(void *ctx) { post(slot_letter(ctx, NEWS_GONE)); }

static void on_quiet(void *ctx, uint64_t sent)
{
    struct slot_letter *l = slot_letter(ctx, NEWS_QUIET);

    l->sent = sent;
    post(l);
}

static void on_message(void *ctx, struct rpc_msg *msg)
{
    struct slot *slot = ctx;
    size_t len = rpc_msg_len(msg);
    enum slot_way way = slot_pass(slot, rpc_msg_data(msg), len);
    struct slot_letter *l;

    if (way == WAY_SHORT) {
        rpc_msg_free(msg);
        return;
    }
    l = slot_letter(slot, NEWS_MESSAGE);
    l->msg = msg;
    l->forward = way == WAY_LONG;
    /* A peer that keeps to the protocol never has more than two Sync parts under way. */
    if (atomic_fetch_add(&slot->waiting_bytes, len) + len > slot->ports->limits.link_queue_bytes)
        atomic_store(&slot->overflowed, true);
    post(l);
}

static struct slot *take_free(struct slot **pool)
{
    uint64_t now = clock_ms();

    for (struct slot **at = pool; *at; at = &(*at)->next) {
        struct slot *slot = *at;

        if (slot->rest_until_ms > now)
            continue;
        *at = slot->next;
        slot->next = NULL;
        return slot;
    }
    return NULL;
}

static struct slot *slot_new(struct ports *ports, const char *kind)
{
    struct slot *slot = must_alloc(sizeof *slot);

    slot->ports = ports;
    mutex_init(&slot->passing);
    mutex_init(&slot->sending);
    snprintf(slot->path, sizeof slot->path, "%s/%s-%u", ports->dir, kind, ports->next_slot++);
    return slot;
}

void slot_free(struct slot *slot)
{
    if (slot->client)
        rpc_client_close(slot->client);
    if (slot->pair)
        rpc_pair_close(slot->pair);
    mutex_fini(&slot->passing);
    mutex_fini(&slot->sending);
    free(slot);
}

struct slot *slot_take_client(struct ports *ports, int *out_error)
{
    struct slot *slot = take_free(&ports->free_clients);

    if (slot)
        return slot;
    slot = slot_new(ports, "req");
    *out_error =
        rpc_client_open(&(struct rpc_client_settings){.path = slot->path,
                                                      .message_bytes = ports->limits.message_bytes,
                                                      .ctx = slot,
                                                      .gone = on_gone},
                        &slot->client);
    if (*out_error < 0) {
        slot_free(slot);
        return NULL;
    }
    ports->counters.req_sockets++;
    return slot;
}

struct slot *slot_take_pair(struct ports *ports, int *out_error)
{
    struct slot *slot = take_free(&ports->free_pairs);

    if (slot)
        return slot;
    slot = slot_new(ports, "pair");
    *out_error =
        rpc_pair_open(&(struct rpc_pair_settings){.path = slot->path,
                                                  .message_bytes = ports->limits.message_bytes,
                                                  .queue_bytes = ports->limits.link_queue_bytes,
                                                  .ctx = slot,
                                                  .up = on_up,
                                                  .message = on_message,
                                                  .quiet = on_quiet,
                                                  .gone = on_gone},
                      &slot->pair);
    if (*out_error < 0) {
        slot_free(slot);
        return NULL;
    }
    ports->counters.pair_sockets++;
    return slot;
}

void slot_give_back(struct slot *slot, bool rested)
{
    struct slot **pool = slot->client ? &slot->ports->free_clients : &slot->ports->free_pairs;

    slot->line = NULL;
    slot->rest_until_ms = rested ? 0 : clock_ms() + REST_MS;
    slot->next = *pool;
    *pool = slot;
}
