#include "node/dialling.h"

#include <criterion/criterion.h>

const char (*dialling_certificate)[LIMIT_PEER_ID + 1];

static const struct node_addr there = {.ip = "10.0.0.9", .port = 7400};

const char *dialling_state(void)
{
    static struct node_link_info info;

    cr_assert_geq(node_links(st.node, &info, 1), 1);
    return info.state;
}

void dialling_answer(uint32_t status, int reason, const char *text,
                     const Meshd__V1__RegisterReply *reply)
{
    uint8_t body[512];
    struct node_call_result result = {.status = status, .reason = (uint32_t)reason, .text = text};

    result.secure = dialling_certificate != NULL;
    result.names = dialling_certificate;
    if (reply) {
        result.body = body;
        result.body_len = protobuf_c_message_pack(&reply->base, body);
    }
    node_call_done(st.node, st.call.call, &result);
}

void dialling_welcome(const char *id, uint64_t incarnation)
{
    Meshd__V1__RegisterReply reply = MESHD__V1__REGISTER_REPLY__INIT;
    uint8_t token[TOKEN_LEN] = {1, 2, 3};

    reply.peer_id = (char *)id;
    reply.incarnation = incarnation;
    reply.token = (ProtobufCBinaryData){.len = TOKEN_LEN, .data = token};
    reply.wire_version = 1;
    dialling_answer(STATUS_OK, 0, "", &reply);
}

void dialling_resolved(void) { node_resolved(st.node, st.ask, 0, &there, 1); }

struct stage_peer dialling_meet(const char *id)
{
    struct stage_peer peer = {.id = id, .ip = "10.0.0.9", .incarnation = 500, .version = 1};
    Meshd__V1__HelloReply reply = MESHD__V1__HELLO_REPLY__INIT;
    const Meshd__V1__Hello *hello;

    dialling_welcome(id, 500);
    peer.link = st.dial.link;
    node_link_up(st.node, peer.link);
    hello = stage_heard(peer.link, KIND(HELLO));
    cr_assert_not_null(hello);
    reply.peer_id = (char *)id;
    reply.incarnation = 500;
    reply.nonce = 0x0908070605040302u;
    reply.wire_version = 1;
    stage_say_raw(peer.link, NULL, 0, KIND(HELLO_REPLY), &reply.base);
    for (int i = 0; i < 8; i++) {
        peer.session[i] = (uint8_t)(hello->nonce >> (56 - 8 * i));
        peer.session[8 + i] = (uint8_t)(9 - i);
    }
    stage_sync(&peer, 0, 0, NULL, 0, NULL);
    stage_ack(&peer, true);
    cr_assert_str_eq(dialling_state(), "live");
    return peer;
}
