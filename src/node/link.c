/* link - states of one connection, its first words, its signs of life, its end. */
#include "node/link.h"

#include <errno.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/secret.h"
#include "node/inside.h"

#define SAMPLE_MS 1000u    /* how often the bytes of an unfinished message are looked at */
#define LIFE_BYTES_S 1024u /* that many of them in a second are a sign of life */

struct link *link_find(struct node *n, uint64_t number)
{
    struct link *l;

    HASH_FIND(hh, n->links, &number, sizeof(number), l);
    return l;
}

static void set_state(struct node *n, struct link *l, enum link_state state)
{
    l->state = state;
    l->since_ms = n->now_ms;
}

static void chain(struct link *l, struct peer *p)
{
    l->peer = p;
    l->next = p->links;
    p->links = l;
}

struct link *link_new(struct node *n, uint64_t number, struct dialer *d, struct peer *p,
                      const struct node_addr *addr)
{
    struct link *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->number = number;
    l->dialer = d;
    l->addr = *addr;
    l->begun_ms = n->now_ms;
    l->life_ms = l->progress_ms = l->bytes_ms = n->now_ms;
    set_state(n, l, LINK_DIALLED);
    HASH_ADD(hh, n->links, number, sizeof(number), l);
    if (!l->hh.tbl) {
        free(l);
        return NULL;
    }
    if (p)
        chain(l, p);
    sync_init(l);
    node_due(n, n->now_ms + SAMPLE_MS);
    return l;
}

enum node_link_state link_shown(const struct link *l)
{
    static const enum node_link_state shown[] = {[LINK_DIALLED] = NODE_OPENING,
                                                 [LINK_OPENING] = NODE_OPENING,
                                                 [LINK_SYNCING] = NODE_SYNCING,
                                                 [LINK_LIVE] = NODE_LIVE,
                                                 [LINK_SUSPECT] = NODE_SUSPECT};

    return shown[l->state];
}

bool link_in_session(const struct link *l) { return l->state >= LINK_SYNCING; }

/* ---- sending ---- */

int link_send(struct node *n, struct link *l, enum node_urgency urgency, Meshd__V1__LinkKind kind,
              const ProtobufCMessage *body)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    int r;

    header.kind = kind;
    if (l->has_session && kind != KIND(HELLO_REPLY))
        header.session_id = (ProtobufCBinaryData){.len = SESSION_ID_LEN, .data = l->session};
    r = n->port->link_send(n->port->ctx, l->number, urgency, &header.base, body);
    /* Sync is sent again and a heartbeat comes again; an answer does not. */
    if (r == -EAGAIN && kind != KIND(SYNC) && kind != KIND(HEARTBEAT)) {
        l->broken = true;
        node_due(n, n->now_ms);
    }
    return r;
}

void link_send_heartbeat(struct node *n, struct link *l, uint64_t probe, uint64_t echo)
{
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;

    beat.incarnation = n->incarnation;
    beat.version = n->local.version;
    beat.digest = list_digest(n->local.list);
    beat.count = (uint32_t)list_count(n->local.list);
    beat.draining = n->draining;
    if (!l->dialer)
        beat.data_wanted = n->port->link_data_wanted(n->port->ctx, l->number);
    beat.probe = probe;
    beat.echo = echo;
    measure_beat_out(n, l, &beat);
    beat.neighbours_wanted = neighbours_wanted(n);
    if (link_send(n, l, NODE_URGENT, KIND(HEARTBEAT), &beat.base) == 0)
        n->counters.heartbeats_sent++;
}

/* ---- its end ---- */

static void unchain(struct link *l)
{
    struct link **at = &l->peer->links;

    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
}

void link_gone(struct node *n, struct link *l, const char *why)
{
    bool was_live = l->state == LINK_LIVE || l->state == LINK_SUSPECT;
    struct peer *p = l->peer;
    char text[LIMIT_STATUS_TEXT + 1];

    text_copy(text, sizeof(text), why); /* it may point into a message */
    HASH_DEL(n->links, l);
    if (p)
        unchain(l);
    if (p && was_live)
        peer_show(n, p);
    if (was_live && !l->quiet) {
        n->counters.links_lost++;
        node_event(n, NODE_LINK_LOST, p->id, &l->addr, text);
    }
    if (l->dialer)
        dialer_on_link_end(n, l->dialer, l, text);
    sync_fini(n, l);
    neighbours_forget(l);
    free(l);
    dialer_unpark_all(n);
}

static void end(struct node *n, struct link *l, bool flush, const char *why)
{
    n->port->link_end(n->port->ctx, l->number, flush);
    link_gone(n, l, why);
}

void link_end(struct node *n, struct link *l, const char *why) { end(n, l, false, why); }

void link_goodbye(struct node *n, struct link *l, Meshd__V1__GoodbyeReason reason, const char *text)
{
    Meshd__V1__Goodbye goodbye = MESHD__V1__GOODBYE__INIT;

    goodbye.reason = reason;
    goodbye.text = (char *)text;
    l->quiet |= reason != GOODBYE(PROTOCOL);
    if (link_send(n, l, NODE_BULK, KIND(GOODBYE), &goodbye.base) == 0)
        n->counters.goodbyes++;
    end(n, l, true, text);
}

static void bad(struct node *n, struct link *l, const char *text)
{
    n->counters.messages_bad++;
    link_goodbye(n, l, GOODBYE(PROTOCOL), text);
}

/* ---- live or not ---- */

static void set_live(struct node *n, struct link *l)
{
    set_state(n, l, LINK_LIVE);
    l->live_ms = n->now_ms;
    n->counters.links_live_total++;
    if (l->dialer)
        dialer_on_live(n, l->dialer);
    peer_show(n, l->peer);
    node_event(n, NODE_LINK_LIVE, l->peer->id, &l->addr, "");
    node_due(n, n->now_ms); /* is there another one? */
}

void link_settle(struct node *n, struct link *l)
{
    if (l->state == LINK_SYNCING && l->own_applied && l->other_applied)
        set_live(n, l);
}

static void sign_of_life(struct node *n, struct link *l)
{
    l->life_ms = n->now_ms;
    if (!link_in_session(l))
        return;
    peer_alive(n, l->peer);
    if (l->state == LINK_SUSPECT)
        set_live(n, l);
}

static void silent(struct node *n, struct link *l)
{
    char text[64];

    snprintf(text, sizeof(text), "silent for %llu ms",
             (unsigned long long)(n->now_ms - l->life_ms));
    node_event(n, NODE_LINK_SUSPECT, l->peer->id, &l->addr, text);
    if (l->dialer) {
        link_end(n, l, text); /* and dialled anew */
        return;
    }
    set_state(n, l, LINK_SUSPECT);
    peer_show(n, l->peer);
    dialer_unpark_all(n);
}

/* ---- first words ---- */

static void put_be64(uint8_t *out, uint64_t value)
{
    value = htobe64(value);
    memcpy(out, &value, sizeof(value));
}

static void begin_session(struct node *n, struct link *l, uint64_t diallers, uint64_t others)
{
    put_be64(l->session, diallers);
    put_be64(l->session + 8, others);
    l->has_session = true;
    l->progress_ms = n->now_ms;
    l->beat_ms = n->now_ms + n->heartbeat_ms;
    node_due(n, l->beat_ms);
    set_state(n, l, LINK_SYNCING);
    n->counters.hellos++;
    sign_of_life(n, l);
    n->port->link_session(n->port->ctx, l->number, l->session, l->peer->id, l->dialer != NULL);
}

void link_on_up(struct node *n, struct link *l)
{
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;

    if (l->state != LINK_DIALLED)
        return;
    set_state(n, l, LINK_OPENING);
    if (!l->dialer)
        return;
    l->nonce = node_random(n);
    hello.peer_id = n->peer_id;
    hello.incarnation = n->incarnation;
    hello.nonce = l->nonce;
    hello.wire_version_min = WIRE_VERSION_MIN;
    hello.wire_version_max = WIRE_VERSION_MAX;
    link_send(n, l, NODE_URGENT, KIND(HELLO), &hello.base);
}

static void refuse_hello(struct node *n, struct link *l, Meshd__V1__Reason reason, const char *text)
{
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;

    reply.peer_id = n->peer_id;
    reply.incarnation = n->incarnation;
    reply.reason = reason;
    reply.text = (char *)text;
    link_send(n, l, NODE_URGENT, KIND(HELLO_REPLY), &reply.base);
    end(n, l, true, text);
}

/* The same dialler's older links give way. */
static void replace_older(struct node *n, struct link *l)
{
    struct link *older = l->peer->links, *next;

    for (; older; older = next) {
        next = older->next;
        if (older != l && !older->dialer)
            link_goodbye(n, older, GOODBYE(REPLACED), "a newer link of the same dialler came");
    }
}

static void on_hello(struct node *n, struct link *l, const Meshd__V1__Hello *hello)
{
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;
    char text[LIMIT_STATUS_TEXT + 1];

    if (strcmp(hello->peer_id, l->peer->id) != 0) {
        refuse_hello(n, l, REASON(IDENTITY), "the token was given to another peer");
        return;
    }
    if (hello->incarnation != l->incarnation) {
        refuse_hello(n, l, REASON(TOKEN), "the token was given to another incarnation");
        return;
    }
    if (hello->incarnation < l->peer->incarnation) {
        refuse_hello(n, l, REASON(INCARNATION), "an incarnation above this one is known");
        return;
    }
    if (!node_may(n, POLICY_LINK, hello->peer_id, "", text)) {
        refuse_hello(n, l, REASON(POLICY), text);
        return;
    }
    if (hello->wire_version_min > WIRE_VERSION_MAX || hello->wire_version_max < WIRE_VERSION_MIN) {
        refuse_hello(n, l, REASON(WIRE_VERSION), "no wire version in common");
        return;
    }
    replace_older(n, l);
    l->nonce = node_random(n);
    reply.peer_id = n->peer_id;
    reply.incarnation = n->incarnation;
    reply.nonce = l->nonce;
    reply.wire_version = WIRE_VERSION_MAX;
    begin_session(n, l, hello->nonce, l->nonce);
    link_send(n, l, NODE_URGENT, KIND(HELLO_REPLY), &reply.base);
    sync_run(n, l);
}

static void on_hello_reply(struct node *n, struct link *l, const Meshd__V1__HelloReply *reply)
{
    struct dialer *d = l->dialer;
    char text[LIMIT_STATUS_TEXT + 1];
    struct peer *p;
    int r;

    if (reply->reason != REASON(NONE)) {
        l->refused = reply->reason == REASON(WIRE_VERSION) || reply->reason == REASON(IDENTITY) ||
                     reply->reason == REASON(POLICY);
        link_end(n, l, reply->text);
        return;
    }
    if (strcmp(reply->peer_id, d->met) != 0) {
        l->refused = true;
        bad(n, l, "another peer than the one that answered Register");
        return;
    }
    if (reply->incarnation == 0 || reply->incarnation > INCARNATION_MAX ||
        reply->wire_version < WIRE_VERSION_MIN || reply->wire_version > WIRE_VERSION_MAX) {
        l->refused = true;
        bad(n, l, "a HelloReply that makes no sense");
        return;
    }
    if (!node_may(n, POLICY_LINK, reply->peer_id, "", text)) { /* since it answered Register */
        l->refused = true;
        link_end(n, l, text);
        return;
    }
    r = peer_open(n, reply->peer_id, l->addr.ip, &p);
    if (r != 0) {
        l->refused = r > 0;
        link_end(n, l, r > 0 ? "over our limit peers" : "out of memory");
        return;
    }
    chain(l, p);
    l->incarnation = reply->incarnation;
    if (p->incarnation < reply->incarnation)
        p->incarnation = reply->incarnation;
    begin_session(n, l, l->nonce, reply->nonce);
    sync_run(n, l);
}

/* ---- what comes in a session ---- */

static void on_heartbeat(struct node *n, struct link *l, const Meshd__V1__Heartbeat *beat)
{
    struct peer *p = l->peer;

    if (beat->incarnation == 0 || beat->incarnation > INCARNATION_MAX) {
        bad(n, l, "an incarnation out of range");
        return;
    }
    n->counters.heartbeats_received++;
    measure_beat_in(n, l, beat);
    if (beat->incarnation >= l->incarnation) {
        l->incarnation = beat->incarnation;
        if (p->incarnation < beat->incarnation)
            p->incarnation = beat->incarnation;
        p->draining = beat->draining;
    }
    peer_show(n, p);
    if (l->dialer)
        n->port->link_data_wish(n->port->ctx, l->number, beat->data_wanted);
    if (beat->probe != 0)
        link_send_heartbeat(n, l, 0, beat->probe);
    if (beat->neighbours_wanted)
        neighbours_tell(n, l);
    if (beat->incarnation == p->incarnation)
        sync_on_heartbeat(n, l, beat);
    if (beat->echo != 0)
        peer_probe_answered(n, p, l, beat->echo, beat->incarnation);
}

static void on_goodbye(struct node *n, struct link *l, const Meshd__V1__Goodbye *goodbye)
{
    char text[LIMIT_STATUS_TEXT + 1];

    l->quiet = goodbye->reason == GOODBYE(DUPLICATE) || goodbye->reason == GOODBYE(REPLACED) ||
               goodbye->reason == GOODBYE(LEAVING);
    if (goodbye->reason == GOODBYE(LEAVING) && l->has_session &&
        l->incarnation == l->peer->incarnation) {
        for (struct link *other = l->peer->links; other; other = other->next)
            other->quiet = true; /* it leaves all of them */
        peer_gone(n, l->peer, "left");
        return;
    }
    if (goodbye->reason == GOODBYE(DUPLICATE) && l->dialer)
        dialer_park(n, l->dialer);
    snprintf(text, sizeof(text), "the other side ended it: %.200s", goodbye->text);
    link_end(n, l, text);
}

static void handle(struct node *n, struct link *l, Meshd__V1__LinkKind kind,
                   const ProtobufCMessage *body)
{
    switch ((int)kind) {
    case KIND(HELLO):
        on_hello(n, l, (const Meshd__V1__Hello *)body);
        break;
    case KIND(HELLO_REPLY):
        on_hello_reply(n, l, (const Meshd__V1__HelloReply *)body);
        break;
    case KIND(SYNC):
        sync_on_part(n, l, (const Meshd__V1__Sync *)body);
        break;
    case KIND(SYNC_ACK):
        sync_on_ack(n, l, (const Meshd__V1__SyncAck *)body);
        break;
    case KIND(SYNC_WANTED):
        sync_on_wanted(n, l, (const Meshd__V1__SyncWanted *)body);
        break;
    case KIND(HEARTBEAT):
        on_heartbeat(n, l, (const Meshd__V1__Heartbeat *)body);
        break;
    case KIND(NEIGHBOURS):
        if (!neighbours_on_message(n, l, (const Meshd__V1__Neighbours *)body))
            bad(n, l, "neighbours that make no sense");
        break;
    case KIND(GOODBYE):
        on_goodbye(n, l, (const Meshd__V1__Goodbye *)body);
        break;
    }
}

static const ProtobufCMessageDescriptor *descriptor_of(Meshd__V1__LinkKind kind)
{
    static const ProtobufCMessageDescriptor *const of[] = {
        [KIND(HELLO)] = &meshd__v1__hello__descriptor,
        [KIND(HELLO_REPLY)] = &meshd__v1__hello_reply__descriptor,
        [KIND(SYNC)] = &meshd__v1__sync__descriptor,
        [KIND(SYNC_ACK)] = &meshd__v1__sync_ack__descriptor,
        [KIND(SYNC_WANTED)] = &meshd__v1__sync_wanted__descriptor,
        [KIND(HEARTBEAT)] = &meshd__v1__heartbeat__descriptor,
        [KIND(GOODBYE)] = &meshd__v1__goodbye__descriptor,
        [KIND(NEIGHBOURS)] = &meshd__v1__neighbours__descriptor,
    };

    return (unsigned)kind < sizeof(of) / sizeof(*of) ? of[kind] : NULL;
}

static bool is_forwarding(Meshd__V1__LinkKind kind)
{
    return kind == KIND(FORWARDS) || kind == KIND(FORWARD_REPLIES) || kind == KIND(CANCEL);
}

enum place { IN_PLACE, OTHER_SESSION, OUT_OF_PLACE };

static enum place place_of(const struct link *l, const Meshd__V1__LinkHeader *header)
{
    size_t len = header->session_id.len;
    bool first = header->kind == KIND(HELLO) || header->kind == KIND(HELLO_REPLY);

    if (first)
        return l->state == LINK_OPENING && len == 0 &&
                       (header->kind == KIND(HELLO_REPLY)) == (l->dialer != NULL)
                   ? IN_PLACE
                   : OUT_OF_PLACE;
    if (!l->has_session && len == 0)
        return header->kind == KIND(GOODBYE) ? IN_PLACE : OUT_OF_PLACE;
    if (len != SESSION_ID_LEN)
        return OUT_OF_PLACE;
    return l->has_session && secret_equal(header->session_id.data, l->session, len) ? IN_PLACE
                                                                                    : OTHER_SESSION;
}

void link_on_message(struct node *n, struct link *l, const uint8_t *data, size_t len)
{
    const ProtobufCMessageDescriptor *descriptor;
    const Meshd__V1__LinkHeader *header;
    ProtobufCMessage *message, *body;
    struct frame_parts parts;

    arena_reset(&n->arena);
    if (frame_split(data, len, &parts) != 0 ||
        wire_unpack(&meshd__v1__link_header__descriptor, parts.header, parts.header_len, &n->arena,
                    &message) != 0) {
        bad(n, l, "a message without a readable header");
        return;
    }
    header = (const Meshd__V1__LinkHeader *)message;
    switch (place_of(l, header)) {
    case OTHER_SESSION:
        n->counters.messages_other_session++;
        l->bytes += len; /* no sign of life either */
        return;
    case OUT_OF_PLACE:
        bad(n, l, "a message out of place");
        return;
    case IN_PLACE:
        break;
    }
    if (is_forwarding(header->kind)) {
        sign_of_life(n, l);
        n->port->link_forward(n->port->ctx, l->number, (int)header->kind, parts.body,
                              parts.body_len);
        return;
    }
    descriptor = descriptor_of(header->kind);
    if (!descriptor || (header->kind == KIND(SYNC) && parts.body_len > LIMIT_SYNC_PART) ||
        wire_unpack(descriptor, parts.body, parts.body_len, &n->arena, &body) != 0) {
        bad(n, l, "a message that cannot be read");
        return;
    }
    sign_of_life(n, l);
    handle(n, l, header->kind, body);
}

/* ---- time ---- */

static void sample_bytes(struct node *n, struct link *l)
{
    uint64_t elapsed_ms = n->now_ms - l->bytes_ms, bytes;

    if (elapsed_ms < SAMPLE_MS)
        return;
    bytes = n->port->link_received(n->port->ctx, l->number);
    if (bytes > l->bytes && (bytes - l->bytes) * 1000 >= elapsed_ms * LIFE_BYTES_S) {
        l->progress_ms = n->now_ms;
        sign_of_life(n, l);
    }
    l->bytes = bytes;
    l->bytes_ms = n->now_ms;
}

/* Whether the link has had its time; why, or NULL. */
static const char *overdue(const struct node *n, const struct link *l)
{
    uint64_t open_ms = l->begun_ms + n->open_timeout_ms, silence_ms = node_silence_ms(n);

    if (l->broken)
        return "its queue is full";
    if (n->now_ms < n->grace_ms)
        return NULL;
    if (l->dialer && open_ms > l->dialer->begun_ms + DIALER_ROUND_MS)
        open_ms = l->dialer->begun_ms + DIALER_ROUND_MS;
    if (silence_ms > n->open_timeout_ms)
        silence_ms = n->open_timeout_ms;
    if (!link_in_session(l) && n->now_ms >= open_ms)
        return "not opened in time";
    if (l->state == LINK_SYNCING && n->now_ms >= l->progress_ms + silence_ms)
        return "the first Sync did not get on";
    return NULL;
}

void link_tick(struct node *n, struct link *l)
{
    const char *why;

    sample_bytes(n, l);
    if (n->port->link_spoke(n->port->ctx, l->number))
        sign_of_life(n, l);
    neighbours_tick(n, l);
    why = overdue(n, l);
    if (why) {
        link_end(n, l, why);
        return;
    }
    if (l->state == LINK_LIVE && n->now_ms >= n->grace_ms &&
        n->now_ms > l->life_ms + node_silence_ms(n)) {
        bool frees = l->dialer != NULL;

        silent(n, l);
        if (frees)
            return;
    }
    if (link_in_session(l)) {
        if (n->now_ms >= l->beat_ms) {
            link_send_heartbeat(n, l, 0, 0);
            l->beat_ms = n->now_ms + n->heartbeat_ms;
        }
        node_due(n, l->beat_ms);
        sync_run(n, l);
    }
    node_due(n, l->bytes_ms + SAMPLE_MS);
}
