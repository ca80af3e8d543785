/* ports_forward - links' sessions and messages, and DATA connections, for who carries clients.
 *
 * Forwards take the short way: from nng's thread straight to the forward room, from a worker's
 * thread straight into the link's queue. Only the first of a session may find the room without it;
 * they go through the node, and no later one overtakes them.
 */
#include "daemon/line.h"

#include <errno.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>

#define KIND(name) MESHD__V1__LINK_KIND__LINK_KIND_##name

/* ---- sessions ---- */

static void session_begin(struct slot *slot, uint64_t link,
                          const uint8_t session_id[SESSION_ID_LEN])
{
    mutex_lock(&slot->passing);
    mutex_lock(&slot->sending);
    slot->session.link = link;
    memcpy(slot->session.id, session_id, SESSION_ID_LEN);
    mutex_unlock(&slot->sending);
    mutex_unlock(&slot->passing);
    atomic_store(&slot->spoke, false);
}

void slot_session_end(struct slot *slot)
{
    uint64_t link = slot->session.link;

    if (link == 0)
        return;
    mutex_lock(&slot->passing);
    mutex_lock(&slot->sending);
    slot->session.link = 0;
    mutex_unlock(&slot->sending);
    mutex_unlock(&slot->passing);
    forward_session_end(slot->ports->forward, link);
}

/* The link still works without: its peer hears nothing of its Forwards, and they run out of time.
 */
void link_session(void *ctx, uint64_t number, const uint8_t session_id[SESSION_ID_LEN],
                  const char *peer_id, bool dialled)
{
    struct ports *ports = ctx;
    struct line *line = line_of_link(ports, number);
    struct forward_session_info info = {.link = number, .dialled = dialled};

    if (!line || line->quieting)
        return;
    info.line = line->slot;
    memcpy(info.session_id, session_id, SESSION_ID_LEN);
    strncpy(info.peer_id, peer_id, sizeof info.peer_id - 1);
    info.to = line->to;
    info.from = line->from;
    session_begin(line->slot, number, session_id); /* first: forward may send at once */
    if (forward_session_begin(ports->forward, &info) < 0)
        slot_session_end(line->slot);
}

/* ---- messages ---- */

static bool is_forwarding(int kind)
{
    return kind == KIND(FORWARDS) || kind == KIND(FORWARD_REPLIES) || kind == KIND(CANCEL);
}

enum slot_way slot_pass(struct slot *slot, const uint8_t *data, size_t len)
{
    const uint8_t *session_id;
    struct frame_parts parts;
    bool passed = false;
    int kind;

    if (frame_split(data, len, &parts) < 0 || !frame_peek_link(&parts, &kind, &session_id) ||
        !is_forwarding(kind))
        return WAY_OTHERS;
    mutex_lock(&slot->passing);
    if (slot->session.link != 0 && atomic_load(&slot->waiting_forwards) == 0)
        passed = forward_message(slot->ports->forward, slot->session.link, session_id, kind,
                                 parts.body, parts.body_len);
    mutex_unlock(&slot->passing);
    if (passed) {
        atomic_store(&slot->spoke, true);
        return WAY_SHORT;
    }
    atomic_fetch_add(&slot->waiting_forwards, 1);
    return WAY_LONG;
}

void link_forward(void *ctx, uint64_t number, int kind, const uint8_t *body, size_t len)
{
    struct ports *ports = ctx;
    const struct line *line = line_of_link(ports, number);

    if (line && line->slot && line->slot->session.link == number)
        forward_message(ports->forward, number, line->slot->session.id, kind, body, len);
}

bool link_spoke(void *ctx, uint64_t number)
{
    const struct line *line = line_of_link(ctx, number);

    return line && line->slot && atomic_exchange(&line->slot->spoke, false);
}

static int forward_send(void *ctx, void *line, int kind, const uint8_t session_id[SESSION_ID_LEN],
                        const ProtobufCMessage *body)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    struct slot *slot = line;
    int r = -EPIPE;

    header.kind = (Meshd__V1__LinkKind)kind;
    header.session_id = (ProtobufCBinaryData){.len = SESSION_ID_LEN, .data = (uint8_t *)session_id};
    /* The socket may be another peer's by now. */
    mutex_lock(&slot->sending);
    if (slot->session.link != 0 && memcmp(slot->session.id, session_id, SESSION_ID_LEN) == 0)
        r = rpc_pair_send(slot->pair, RPC_MERGE, &header.base, body);
    mutex_unlock(&slot->sending);
    return r;
}

struct forward_ops ports_forward_ops(struct ports *ports)
{
    return (struct forward_ops){.ctx = ports,
                                .send = forward_send,
                                .checked = backend_checked,
                                .backend_seen = backend_seen};
}

/* ---- the rest ---- */

uint32_t link_data_wanted(void *ctx, uint64_t number)
{
    const struct ports *ports = ctx;

    return forward_data_wanted(ports->forward, number);
}

void link_data_wish(void *ctx, uint64_t number, uint32_t wanted)
{
    const struct ports *ports = ctx;

    forward_data_wish(ports->forward, number, wanted);
}

bool link_busy(void *ctx, uint64_t number)
{
    const struct ports *ports = ctx;

    return forward_session_pending(ports->forward, number) > 0;
}

int ports_data(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
               const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
               const char **out_text)
{
    const struct ports *ports = ctx;

    return forward_data(ports->forward, fd, tls, from, preamble, rest, rest_len, out_text);
}
