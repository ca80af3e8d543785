#include "forward/peer.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include "base/random.h"
#include "forward/must.h"
#include "gate/tcp.h"
#include "wire/status.h"

/* ---- coming and going ---- */

void peer_init(struct peer *peer, struct rig *rig, const char *id, uint64_t link, bool dialled)
{
    struct registry_change change;
    const char *label;

    *peer = (struct peer){.rig = rig, .link = link, .dialled = dialled};
    peer->line = (struct rig_line){.rig = rig, .from = DIALLER, .peer = peer};
    snprintf(peer->id, sizeof peer->id, "%s", id);
    peer->fd = net_listen_at(&peer->at);
    peer->list = list_empty();
    pthread_mutex_init(&peer->lock, NULL);
    pthread_cond_init(&peer->came, NULL);
    peer->last = &peer->first;
    MUST(registry_peer_open(rig->sides[DIALLER].registry, id, "127.0.0.1", 1, &label, &change) ==
         0);
}

void peer_fini(struct peer *peer)
{
    while (peer->first) {
        struct peer_message *next = peer->first->next;

        free(peer->first);
        peer->first = next;
    }
    list_unref(peer->list);
    close(peer->fd);
}

void peer_offer(struct peer *peer, const char *name) { peer_offer_as(peer, name, 0); }

void peer_offer_as(struct peer *peer, const char *name, unsigned row_flags)
{
    struct registry *registry = peer->rig->sides[DIALLER].registry;
    struct registry_refusals refusals = {0};
    struct registry_peer_info info;
    struct registry_change change;
    struct list *list;
    struct row *row;

    MUST(registry_peer_get(registry, peer->id, &info) == 0);
    row = row_new(name, strlen(name), "127.0.0.1:9", 11, info.label, row_flags);
    MUST(list_apply(peer->list, &row, 1, NULL, 0, &list) == 0);
    row_unref(row);
    list_unref(peer->list);
    peer->list = list;
    MUST(registry_put_list(registry, peer->id, 1, ++peer->version, list, 1, &refusals, &change) ==
         0);
}

static void tell_state(struct peer *peer, bool up, bool draining)
{
    struct registry_change change;
    struct registry_state state = {.connected = up,
                                   .stale = !up,
                                   .draining = draining,
                                   .link_id = up ? peer->link : 0,
                                   .last_seen_ms = 1};

    memcpy(state.session_id, peer->session_id, SESSION_ID_LEN);
    MUST(registry_peer_state(peer->rig->sides[DIALLER].registry, peer->id, &state, &change) == 0);
}

void peer_draining(struct peer *peer) { tell_state(peer, true, true); }

void peer_up(struct peer *peer)
{
    struct forward_session_info info = {
        .link = peer->link, .line = &peer->line, .dialled = peer->dialled};

    random_bytes(peer->session_id, SESSION_ID_LEN);
    memcpy(info.session_id, peer->session_id, SESSION_ID_LEN);
    snprintf(info.peer_id, sizeof info.peer_id, "%s", peer->id);
    memcpy(&info.to, &peer->at, sizeof peer->at);
    MUST(forward_session_begin(peer->rig->sides[DIALLER].forward, &info) == 0);
    tell_state(peer, true, false);
}

void peer_down(struct peer *peer)
{
    tell_state(peer, false, false);
    forward_session_end(peer->rig->sides[DIALLER].forward, peer->link);
}

/* ---- what the node says ---- */

void peer_hear(struct peer *peer, int kind, const uint8_t *bytes, size_t len)
{
    struct peer_message *message = malloc(sizeof *message + len);

    MUST(message);
    *message = (struct peer_message){.kind = kind, .len = len};
    memcpy(message->bytes, bytes, len);
    pthread_mutex_lock(&peer->lock);
    *peer->last = message;
    peer->last = &message->next;
    pthread_cond_signal(&peer->came);
    pthread_mutex_unlock(&peer->lock);
}

static struct peer_message *next_message(struct peer *peer, int kind)
{
    struct peer_message *message;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&peer->lock);
    while (!peer->first)
        MUST(pthread_cond_timedwait(&peer->came, &peer->lock, &until) == 0);
    message = peer->first;
    peer->first = message->next;
    if (!peer->first)
        peer->last = &peer->first;
    pthread_mutex_unlock(&peer->lock);
    MUST(message->kind == kind);
    return message;
}

static void *unpack(struct peer *peer, int kind, const ProtobufCMessageDescriptor *descriptor)
{
    struct peer_message *message = next_message(peer, kind);
    void *unpacked = protobuf_c_message_unpack(descriptor, NULL, message->len, message->bytes);

    MUST(unpacked);
    free(message);
    return unpacked;
}

void peer_next_forward(struct peer *peer, struct peer_forward *out)
{
    Meshd__V1__Forwards *forwards =
        unpack(peer, MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS, &meshd__v1__forwards__descriptor);
    const Meshd__V1__Forward *forward;

    MUST(forwards->n_forwards == 1);
    forward = forwards->forwards[0];
    MUST(forward->forward_id.len == FORWARD_ID_LEN &&
         forward->first_bytes.len <= sizeof out->first);
    memcpy(out->id, forward->forward_id.data, FORWARD_ID_LEN);
    snprintf(out->name, sizeof out->name, "%s", forward->name);
    out->remaining_ms = forward->remaining_ms;
    out->dial_data = forward->dial_data;
    out->n_first = forward->first_bytes.len;
    if (out->n_first)
        memcpy(out->first, forward->first_bytes.data, out->n_first);
    protobuf_c_message_free_unpacked(&forwards->base, NULL);
}

int peer_next_reply(struct peer *peer, const uint8_t *id, char text[LIMIT_STATUS_TEXT + 1])
{
    Meshd__V1__ForwardReplies *replies =
        unpack(peer, MESHD__V1__LINK_KIND__LINK_KIND_FORWARD_REPLIES,
               &meshd__v1__forward_replies__descriptor);
    int refusal;

    MUST(replies->n_replies == 1);
    MUST(memcmp(replies->replies[0]->forward_id.data, id, FORWARD_ID_LEN) == 0);
    refusal = replies->replies[0]->refusal;
    snprintf(text, LIMIT_STATUS_TEXT + 1, "%s", replies->replies[0]->text);
    protobuf_c_message_free_unpacked(&replies->base, NULL);
    return refusal;
}

void peer_next_cancel(struct peer *peer, const uint8_t *id)
{
    Meshd__V1__Cancel *cancel =
        unpack(peer, MESHD__V1__LINK_KIND__LINK_KIND_CANCEL, &meshd__v1__cancel__descriptor);

    MUST(cancel->n_forward_ids == 1);
    MUST(memcmp(cancel->forward_ids[0].data, id, FORWARD_ID_LEN) == 0);
    protobuf_c_message_free_unpacked(&cancel->base, NULL);
}

bool peer_heard_nothing(struct peer *peer)
{
    bool nothing;

    pthread_mutex_lock(&peer->lock);
    nothing = peer->first == NULL;
    pthread_mutex_unlock(&peer->lock);
    return nothing;
}

/* ---- what it says ---- */

void peer_say(struct peer *peer, int kind, const ProtobufCMessage *body)
{
    size_t len = protobuf_c_message_get_packed_size(body);
    uint8_t *bytes = malloc(len + 1);

    MUST(bytes);
    protobuf_c_message_pack(body, bytes);
    MUST(forward_message(peer->rig->sides[DIALLER].forward, peer->link, peer->session_id, kind,
                         bytes, len));
    free(bytes);
}

void peer_reply(struct peer *peer, const uint8_t *id, Meshd__V1__Refusal refusal, const char *text)
{
    Meshd__V1__ForwardReplies replies = MESHD__V1__FORWARD_REPLIES__INIT;
    Meshd__V1__ForwardReply reply = MESHD__V1__FORWARD_REPLY__INIT, *list = &reply;

    reply.forward_id = (ProtobufCBinaryData){.len = FORWARD_ID_LEN, .data = (uint8_t *)id};
    reply.refusal = refusal;
    reply.text = (char *)text;
    replies.n_replies = 1;
    replies.replies = &list;
    peer_say(peer, MESHD__V1__LINK_KIND__LINK_KIND_FORWARD_REPLIES, &replies.base);
}

void peer_cancel(struct peer *peer, const uint8_t *id)
{
    Meshd__V1__Cancel cancel = MESHD__V1__CANCEL__INIT;
    ProtobufCBinaryData ids = {.len = FORWARD_ID_LEN, .data = (uint8_t *)id};

    cancel.n_forward_ids = 1;
    cancel.forward_ids = &ids;
    peer_say(peer, MESHD__V1__LINK_KIND__LINK_KIND_CANCEL, &cancel.base);
}

Meshd__V1__Forward peer_forward_of(const uint8_t *id, const char *name)
{
    static uint8_t ip[4] = {127, 0, 0, 1};
    Meshd__V1__Forward forward = MESHD__V1__FORWARD__INIT;

    forward.forward_id = (ProtobufCBinaryData){.len = FORWARD_ID_LEN, .data = (uint8_t *)id};
    forward.name = (char *)name;
    forward.remaining_ms = WAIT_MS;
    forward.client_ip = forward.server_ip = (ProtobufCBinaryData){.len = 4, .data = ip};
    forward.client_port = 1;
    forward.server_port = 2;
    return forward;
}

void peer_forward(struct peer *peer, Meshd__V1__Forward *forward)
{
    Meshd__V1__Forwards forwards = MESHD__V1__FORWARDS__INIT;

    forwards.n_forwards = 1;
    forwards.forwards = &forward;
    peer_say(peer, MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS, &forwards.base);
}

/* ---- DATA ---- */

int peer_accept_data(struct peer *peer)
{
    static const struct preamble_reply answer = {.version = PREAMBLE_VERSION, .status = STATUS_OK};
    size_t len = PREAMBLE_HEAD + strlen(peer->rig->sides[DIALLER].peer_id) + TOKEN_LEN + 1;
    uint8_t bytes[PREAMBLE_REPLY_MAX];
    struct preamble preamble;
    int fd = net_accept(peer->fd);

    if (peer->rig->tls)
        fd = trust_wrap(peer->id, TLS_ACCEPT, fd, 0);
    MUST(recv(fd, bytes, len, MSG_WAITALL) == (ssize_t)len);
    MUST(preamble_parse(bytes, len, &preamble) == (int)len);
    MUST(preamble.kind == PREAMBLE_DATA && preamble.has_token);
    MUST(memcmp(preamble.token, peer->session_id, TOKEN_LEN) == 0);
    net_send(fd, bytes, preamble_reply_pack(&answer, bytes));
    return fd;
}

int peer_dial_data(struct peer *peer, enum data_first first, const struct data_header *header,
                   int *out_status)
{
    struct preamble preamble = {
        .version = PREAMBLE_VERSION, .kind = PREAMBLE_DATA, .has_token = 1, .first = first};
    struct gate_peer from = {.ip = "127.0.0.1"};
    uint8_t rest[DATA_HEADER_LEN];
    const char *text = "", *node = peer->rig->sides[DIALLER].peer_id;
    int fd = net_connect(ntohs(peer->at.sin_port)), other = net_accept(peer->fd);
    struct tls *tls = NULL;

    snprintf(preamble.peer_id, sizeof preamble.peer_id, "%s", peer->id);
    memcpy(preamble.token, peer->session_id, TOKEN_LEN);
    if (header)
        data_header_pack(header, rest);
    fcntl(other, F_SETFL, O_NONBLOCK);
    tcp_options(other);
    if (peer->rig->tls) {
        fd = trust_wrap(peer->id, TLS_CONNECT, fd, 0);
        tls = trust_shake(node, TLS_ACCEPT, other);
        MUST(tls);
    }
    *out_status = forward_data(peer->rig->sides[DIALLER].forward, other, tls, &from, &preamble,
                               rest, header ? sizeof rest : 0, &text);
    if (*out_status != 0) {
        tls_free(tls);
        close(other);
    }
    return fd;
}

void peer_expect_answer(int fd)
{
    static const struct preamble_reply answer = {.version = PREAMBLE_VERSION, .status = STATUS_OK};
    uint8_t bytes[PREAMBLE_REPLY_MAX];

    net_expect(fd, bytes, preamble_reply_pack(&answer, bytes));
}

void peer_expect_header(int fd, const uint8_t *id, uint64_t offset)
{
    struct data_header header = {.offset = offset};
    uint8_t bytes[DATA_HEADER_LEN];

    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    data_header_pack(&header, bytes);
    net_expect(fd, bytes, sizeof bytes);
}

void peer_say_header(int fd, const uint8_t *id, uint64_t offset)
{
    struct data_header header = {.offset = offset};
    uint8_t bytes[DATA_HEADER_LEN];

    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    data_header_pack(&header, bytes);
    net_send(fd, bytes, sizeof bytes);
}
