/* fuzz_peers - several peers in any order of everything they can do: Register, link, Hello, Sync,
 * Heartbeat, Goodbye, loss, silence, rightly or a little wrong; programs that offer and withdraw;
 * answers to what the node itself asks of the peer that it dials. fuzz_node says anything at all on
 * one link; here the words are mostly whole, so that inputs reach what only sequences reach.
 *
 * After each step the maps agree, no limit is exceeded, and nobody's list has changed but that of
 * who spoke.
 *
 * The input is a row of steps of two bytes: op | who << 4 | wrong << 6, and a byte of what. who 3
 * is the peer that the node dials. OP_RAW is followed by a length and that many bytes of a body.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "fuzz/peers_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAMES 8u

enum op {
    OP_REGISTER,
    OP_LINK,
    OP_HELLO,
    OP_SYNC,
    OP_ACK,
    OP_BEAT,
    OP_GOODBYE,
    OP_WANTED, /* ... or Neighbours */
    OP_TIME,
    OP_DOWN,
    OP_DEREGISTER,
    OP_ANSWER,
    OP_LOCAL,
    OP_NEXT_LIFE,
    OP_DRAIN,
    OP_RAW,
};

static const char *const ips[PEERS] = {"10.0.0.2", "10.0.0.3", "10.0.0.3", "10.0.0.9"};

/* ---- what is said ---- */

struct offered {
    Meshd__V1__Service at[NAMES], *pointers[NAMES];
    char name[NAMES][2];
    size_t n;
    uint64_t digest;
};

static void offer(struct offered *out, uint8_t mask, const struct other *by)
{
    const char *backend = by->other_backends ? "127.0.0.1:81" : "127.0.0.1:80";

    *out = (struct offered){0};
    for (unsigned i = 0; i < NAMES; i++) {
        unsigned flags = by->other_states ? i % 4 : 0;

        if (!(mask >> i & 1))
            continue;
        out->name[out->n][0] = (char)('a' + i);
        meshd__v1__service__init(&out->at[out->n]);
        out->at[out->n].name = out->name[out->n];
        out->at[out->n].backend_addr = (char *)backend;
        out->at[out->n].unhealthy = flags & ENTRY_UNHEALTHY;
        out->at[out->n].draining = flags & ENTRY_DRAINING;
        out->pointers[out->n] = &out->at[out->n];
        out->digest += hash_entry(out->name[out->n], 1, backend, strlen(backend), flags);
        out->n++;
    }
}

static void say_raw(struct link *link, int kind, const void *body, size_t len)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    uint8_t *data = malloc(64 + len);
    size_t head;

    check(data != NULL);
    header.kind = (Meshd__V1__LinkKind)kind;
    if (link->has_session)
        header.session_id = (ProtobufCBinaryData){.len = SESSION_ID_LEN, .data = link->session};
    head = frame_size(&header.base, NULL);
    frame_pack(&header.base, NULL, data);
    if (len > 0)
        memcpy(data + head, body, len);
    node_link_message(world.node, link->number, data, head + len);
    free(data);
}

static void say(struct link *link, int kind, const ProtobufCMessage *body)
{
    size_t len = protobuf_c_message_get_packed_size(body);
    uint8_t *data = malloc(len + 1);

    check(data != NULL);
    protobuf_c_message_pack(body, data);
    say_raw(link, kind, data, len);
    free(data);
}

static void do_register(unsigned who, uint8_t what, unsigned wrong)
{
    struct other *other = &world.other[who];
    const struct node_caller caller = {.peer_id = peer_ids[who], .ip = ips[who]};
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;
    struct offered list;

    other->version += what & 1;
    other->mask = what;
    offer(&list, what, other);
    request.peer_id = (char *)(wrong == 1 ? peer_ids[(who + 1) % PEERS] : peer_ids[who]);
    request.incarnation = other->incarnation - (wrong == 2 && other->incarnation > 1);
    request.version = other->version;
    request.has_list = what & 2;
    request.n_services = request.has_list ? list.n : 0;
    request.services = list.pointers;
    request.count = (uint32_t)list.n + (wrong == 3);
    request.digest = list.digest;
    request.wire_version_min = request.wire_version_max = 1;
    node_register(world.node, who, &caller, &request);
}

static void do_deregister(unsigned who, uint8_t what, unsigned wrong)
{
    const struct node_caller caller = {.peer_id = peer_ids[who], .ip = ips[who]};
    Meshd__V1__DeregisterRequest request = MESHD__V1__DEREGISTER_REQUEST__INIT;
    char name[] = {(char)('a' + what % NAMES), 0}, *names[] = {name};

    request.peer_id = (char *)(wrong == 1 ? peer_ids[(who + 1) % PEERS] : peer_ids[who]);
    request.incarnation = world.other[who].incarnation;
    request.version = world.other[who].version += wrong != 2;
    request.n_names = what & 64 ? 0 : 1;
    request.names = names;
    node_deregister(world.node, who, &caller, &request);
}

static void do_link(unsigned who, uint8_t what, unsigned wrong)
{
    struct node_addr from = {.port = 5000};
    struct link *link;

    if (who == DIALLED) { /* what the node dialled comes up */
        for (link = world.link; link < world.link + LINKS; link++) {
            if (link->number != 0 && link->who == DIALLED && !link->up) {
                link->up = true;
                node_link_up(world.node, link->number);
                return;
            }
        }
        return;
    }
    link = link_of(0);
    if (link <= world.link + 4 || !link) { /* keeps some for those that the node dials */
        for (link = world.link + 5; link < world.link + LINKS && link->number != 0; link++)
            ;
        if (link == world.link + LINKS)
            return;
    }
    memcpy(from.ip, ips[who], strlen(ips[who]) + 1);
    *link = (struct link){.number = NODE_LINK_ACCEPTED | ++world.links, .who = who};
    node_link_asked(world.node, link->number, peer_ids[who], &from,
                    world.other[wrong == 1 ? (who + 1) % PEERS : who].token);
    if (link->number != 0 && !(what & 1)) {
        link->up = true;
        node_link_up(world.node, link->number);
    }
}

static void do_hello(struct link *link, uint8_t what, unsigned wrong)
{
    const struct other *other = &world.other[link->who];
    Meshd__V1__Hello hello = MESHD__V1__HELLO__INIT;
    Meshd__V1__HelloReply answer = MESHD__V1__HELLO_REPLY__INIT;

    if (link->who != DIALLED || wrong == 3) {
        hello.peer_id = (char *)(wrong == 1 ? "n1" : peer_ids[link->who]);
        hello.incarnation = other->incarnation + (wrong == 2);
        hello.nonce = what;
        hello.wire_version_min = hello.wire_version_max = 1 + what % 16 / 15;
        say(link, KIND(HELLO), &hello.base);
        return;
    }
    answer.peer_id = (char *)(wrong == 1 ? "n1" : peer_ids[link->who]);
    answer.incarnation = other->incarnation + (wrong == 2);
    answer.nonce = what;
    answer.wire_version = 1;
    answer.reason = (Meshd__V1__Reason)(what % 16 > 11 ? what / 16 : 0);
    say(link, KIND(HELLO_REPLY), &answer.base);
}

static void do_sync(struct link *link, uint8_t what, unsigned wrong)
{
    struct other *other = &world.other[link->who];
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    char name[NAMES][2], *removed[NAMES];
    struct offered list, now;
    uint8_t gone = other->mask & (uint8_t)~what;

    offer(&now, what, other);
    sync.incarnation = other->incarnation;
    sync.base_version = wrong == 1 ? other->version : 0;
    sync.version = ++other->version;
    sync.age_us = wrong == 3 ? UINT64_MAX : what;
    sync.last = wrong != 2;
    sync.part = wrong == 3;
    offer(&list, sync.base_version > 0 ? what & (uint8_t)~other->mask : what, other);
    for (unsigned i = 0; sync.base_version > 0 && i < NAMES; i++) {
        if (gone >> i & 1) {
            name[i][0] = (char)('a' + i);
            name[i][1] = '\0';
            removed[sync.n_removed++] = name[i];
        }
    }
    sync.n_entries = list.n;
    sync.entries = list.pointers;
    sync.removed = removed;
    sync.digest = now.digest;
    sync.count = (uint32_t)now.n;
    other->mask = what;
    say(link, KIND(SYNC), &sync.base);
}

static void do_ack(struct link *link, uint8_t what, unsigned wrong)
{
    Meshd__V1__SyncAck ack = MESHD__V1__SYNC_ACK__INIT;
    Meshd__V1__Refused refused = MESHD__V1__REFUSED__INIT, *pointer = &refused;

    refused.name = (char *)"own";
    refused.reason = MESHD__V1__REASON__REASON_POLICY;
    ack.incarnation = wrong == 1 ? 1001 : node_incarnation(world.node);
    ack.version = world.seen_version + (wrong == 2);
    ack.part = (uint32_t)world.seen_part + (wrong == 3);
    ack.applied = what & 1;
    ack.n_refused = what >> 1 & 1;
    ack.refused_total = what >> 1 & 1;
    ack.refused = &pointer;
    say(link, KIND(SYNC_ACK), &ack.base);
}

static void do_beat(struct link *link, uint8_t what, unsigned wrong)
{
    const struct other *other = &world.other[link->who];
    Meshd__V1__Heartbeat beat = MESHD__V1__HEARTBEAT__INIT;
    struct offered list;

    offer(&list, other->mask, other);
    beat.incarnation = other->incarnation;
    beat.version = other->version + (wrong == 1);
    beat.digest = list.digest + (wrong == 2);
    beat.count = (uint32_t)list.n;
    beat.draining = what & 1;
    beat.probe = what & 2;
    beat.echo = wrong == 3 ? what : 0;
    beat.data_wanted = what;
    beat.neighbours_wanted = what & 4;
    beat.clock_us = what;
    beat.echo_clock_us = wrong == 3 ? UINT64_MAX : what; /* the node's own began with 1 */
    beat.echo_held_us = wrong == 2 ? UINT64_MAX - what : what / 2;
    say(link, KIND(HEARTBEAT), &beat.base);
}

static void do_goodbye(struct link *link, uint8_t what)
{
    Meshd__V1__Goodbye goodbye = MESHD__V1__GOODBYE__INIT;

    goodbye.reason = (Meshd__V1__GoodbyeReason)(what % 6);
    goodbye.text = (char *)"\x1b[2J";
    say(link, KIND(GOODBYE), &goodbye.base);
}

static void do_neighbours(struct link *link, uint8_t what, unsigned wrong)
{
    Meshd__V1__Neighbour row = MESHD__V1__NEIGHBOUR__INIT, *rows[LIMIT_NEIGHBOURS + 1];
    Meshd__V1__Neighbours said = MESHD__V1__NEIGHBOURS__INIT;

    row.peer_id = (char *)(wrong == 1 ? "no peer" : peer_ids[what % PEERS]);
    row.state = (char *)(wrong == 2 ? "" : node_link_states[what % N_NODE_LINK_STATES]);
    for (size_t i = 0; i <= LIMIT_NEIGHBOURS; i++)
        rows[i] = &row;
    said.n_neighbours = said.total = what % (LIMIT_NEIGHBOURS + 2);
    said.total -= wrong == 3;
    said.neighbours = rows;
    say(link, KIND(NEIGHBOURS), &said.base);
}

static void do_wanted(struct link *link, uint8_t what)
{
    Meshd__V1__SyncWanted wanted = MESHD__V1__SYNC_WANTED__INIT;

    wanted.incarnation = what & 1 ? node_incarnation(world.node) : 0;
    wanted.version = what >> 1;
    wanted.why = (char *)"because";
    say(link, KIND(SYNC_WANTED), &wanted.base);
}

/* What the node asked of the world: the peer's address, or its Register of that peer. */
static void do_answer(uint8_t what, unsigned wrong)
{
    const struct node_addr there = {.ip = "10.0.0.9", .port = 7400};
    struct node_call_result result = {.status = what & 15, .reason = what >> 4, .text = "text"};
    Meshd__V1__RegisterReply answer = MESHD__V1__REGISTER_REPLY__INIT;
    uint8_t body[256], token[TOKEN_LEN] = {what};
    uint64_t ask = world.ask, number = world.call;

    world.ask = world.call = 0;
    if (ask != 0)
        node_resolved(world.node, ask, wrong == 3 ? -ENOENT : 0, &there, wrong != 3);
    if (number == 0)
        return;
    answer.peer_id = (char *)(wrong == 1 ? "n1" : peer_ids[DIALLED]);
    answer.incarnation = world.other[DIALLED].incarnation;
    answer.token = (ProtobufCBinaryData){.len = TOKEN_LEN - (wrong == 2), .data = token};
    answer.known_incarnation = what & 16 ? 5000 : 0;
    answer.wire_version = 1;
    answer.observed_ip = (char *)"10.0.0.1";
    result.error = what == 255 ? -ECONNREFUSED : 0;
    result.body = body;
    result.body_len = meshd__v1__register_reply__pack(&answer, body);
    node_call_done(world.node, number, &result);
}

static void do_local(uint8_t what, unsigned wrong)
{
    const struct node_caller caller = {.peer_id = "", .ip = "", .local = wrong != 1};
    Meshd__V1__OfferRequest offered = MESHD__V1__OFFER_REQUEST__INIT;
    Meshd__V1__WithdrawRequest withdrawn = MESHD__V1__WITHDRAW_REQUEST__INIT;
    char lease[] = {(char)('p' + (what & 3)), 0}, name[] = {(char)('a' + (what >> 2 & 7)), 0};

    if (what & 128) {
        withdrawn.lease_id = lease;
        withdrawn.name = wrong == 2 ? (char *)"" : name;
        node_withdraw(world.node, PEERS, &caller, &withdrawn);
        return;
    }
    offered.lease_id = lease;
    offered.name = name;
    offered.backend_addr = (char *)"127.0.0.1:82";
    offered.ttl_ms = what & 64 ? 1000 : 0;
    node_offer(world.node, PEERS, &caller, &offered);
}

static void down(unsigned who, uint8_t what)
{
    struct link *link = link_newest(who);
    uint64_t number;

    for (size_t i = 0; who == DIALLED && !link && i < LINKS; i++)
        if (world.link[i].number != 0 && world.link[i].who == who)
            link = &world.link[i];
    if (!link)
        return;
    number = link->number;
    *link = (struct link){0};
    node_link_down(world.node, number, what & 15, what >> 4, "closed");
}

static void on_link(enum op op, unsigned who, uint8_t what, unsigned wrong)
{
    struct link *link = link_newest(who);

    if (!link)
        return;
    if (op == OP_HELLO)
        do_hello(link, what, wrong);
    else if (op == OP_SYNC)
        do_sync(link, what, wrong);
    else if (op == OP_ACK)
        do_ack(link, what, wrong);
    else if (op == OP_BEAT)
        do_beat(link, what, wrong);
    else if (op == OP_GOODBYE)
        do_goodbye(link, what);
    else if (what & 128)
        do_neighbours(link, what & 127, wrong);
    else
        do_wanted(link, what);
}

static void step(enum op op, unsigned who, uint8_t what, unsigned wrong)
{
    switch (op) {
    case OP_REGISTER:
        do_register(who, what, wrong);
        break;
    case OP_DEREGISTER:
        do_deregister(who, what, wrong);
        break;
    case OP_LINK:
        do_link(who, what, wrong);
        break;
    case OP_TIME:
        world.now_ms += what * (wrong == 1 ? 10u : 100u);
        if (wrong == 2)
            node_look_at_mesh(world.node);
        node_tick(world.node);
        break;
    case OP_DOWN:
        down(who, what);
        break;
    case OP_ANSWER:
        do_answer(what, wrong);
        break;
    case OP_LOCAL:
        do_local(what, wrong);
        break;
    case OP_NEXT_LIFE:
        world.other[who].incarnation++;
        world.other[who].version = what;
        world.other[who].other_backends = wrong & 1;
        world.other[who].other_states = wrong & 2;
        break;
    case OP_DRAIN:
        if (what == 1)
            node_drain(world.node);
        else if (what == 2)
            node_stop(world.node);
        break;
    default:
        on_link(op, who, what, wrong);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen before;

    world_begin();
    while (size >= 2) {
        enum op op = (enum op)(data[0] & 15);
        unsigned who = data[0] >> 4 & 3, wrong = data[0] >> 6;
        uint8_t what = data[1];
        size_t used = 2, len = 0;

        world_look(&before);
        if (op == OP_RAW) {
            len = size > 2 ? data[2] : 0;
            used += size > 2;
            len = len < size - used ? len : size - used;
            if (link_newest(who))
                say_raw(link_newest(who), what & 15, data + used, len);
        } else {
            step(op, who, what, wrong);
        }
        if (op == OP_ANSWER)
            who = DIALLED;
        else if (op == OP_TIME || op == OP_LOCAL || op == OP_DRAIN)
            who = PEERS;
        world_check(&before, who, op == OP_TIME, op == OP_LOCAL || op == OP_TIME);
        data += used + len;
        size -= used + len;
    }
    world_end();
    return 0;
}
