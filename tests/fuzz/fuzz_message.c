/* fuzz_message - every message of mesh.proto: the first byte chooses which. What is unpacked stays
 * within its share of memory, packs to something that unpacks to the same, and prints as JSON. */
#include <errno.h>
#include <meshd/v1/mesh.pb-c.h>
#include <stdlib.h>
#include <string.h>
#include "wire/check.h"
#include "wire/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In the order of the file; new ones at the end, so that the corpus keeps its meaning. */
static const ProtobufCMessageDescriptor *const descriptors[] = {
    &meshd__v1__call_header__descriptor,
    &meshd__v1__reply_header__descriptor,
    &meshd__v1__service__descriptor,
    &meshd__v1__refused__descriptor,
    &meshd__v1__register_request__descriptor,
    &meshd__v1__register_reply__descriptor,
    &meshd__v1__deregister_request__descriptor,
    &meshd__v1__deregister_reply__descriptor,
    &meshd__v1__offer_request__descriptor,
    &meshd__v1__offer_reply__descriptor,
    &meshd__v1__withdraw_request__descriptor,
    &meshd__v1__withdraw_reply__descriptor,
    &meshd__v1__lookup_request__descriptor,
    &meshd__v1__route__descriptor,
    &meshd__v1__lookup_result__descriptor,
    &meshd__v1__lookup_reply__descriptor,
    &meshd__v1__explain_request__descriptor,
    &meshd__v1__candidate__descriptor,
    &meshd__v1__explain_reply__descriptor,
    &meshd__v1__introspect_request__descriptor,
    &meshd__v1__service_row__descriptor,
    &meshd__v1__peer_service_info__descriptor,
    &meshd__v1__peer_services_row__descriptor,
    &meshd__v1__link_row__descriptor,
    &meshd__v1__counter__descriptor,
    &meshd__v1__limit__descriptor,
    &meshd__v1__node_info__descriptor,
    &meshd__v1__tombstone__descriptor,
    &meshd__v1__introspect_reply__descriptor,
    &meshd__v1__link_header__descriptor,
    &meshd__v1__hello__descriptor,
    &meshd__v1__hello_reply__descriptor,
    &meshd__v1__sync__descriptor,
    &meshd__v1__sync_ack__descriptor,
    &meshd__v1__sync_wanted__descriptor,
    &meshd__v1__heartbeat__descriptor,
    &meshd__v1__neighbour__descriptor,
    &meshd__v1__neighbours__descriptor,
    &meshd__v1__goodbye__descriptor,
    &meshd__v1__watch_request__descriptor,
    &meshd__v1__watch_event__descriptor,
    &meshd__v1__watch_reply__descriptor,
    &meshd__v1__forward__descriptor,
    &meshd__v1__forwards__descriptor,
    &meshd__v1__forward_reply__descriptor,
    &meshd__v1__forward_replies__descriptor,
    &meshd__v1__cancel__descriptor,
};

static void check(int condition)
{
    if (!condition)
        abort();
}

static void returns_the_same(const ProtobufCMessage *message, struct arena *arena)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *once = malloc(len), *twice = malloc(len);
    ProtobufCMessage *again;

    check(len == 0 || (once && twice));
    check(protobuf_c_message_pack(message, once) == len);
    check(protobuf_c_message_check(message));
    /* It may have grown by numbers that came in fewer bytes than the type's, so -E2BIG is not
     * impossible, but only for what was at the edge already. */
    if (wire_unpack(message->descriptor, once, len, arena, &again) == 0) {
        check(protobuf_c_message_get_packed_size(again) == len);
        check(protobuf_c_message_pack(again, twice) == len && memcmp(once, twice, len) == 0);
    } else {
        check(arena->used > len);
    }
    free(once);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ProtobufCMessage *message;
    struct arena arena;
    json_t *json;
    char *text;
    int r;

    if (size < 1)
        return 0;
    arena_init(&arena);
    r = wire_unpack(descriptors[data[0] % (sizeof(descriptors) / sizeof(*descriptors))], data + 1,
                    size - 1, &arena, &message);
    check(r == 0 || r == -EBADMSG || r == -E2BIG);
    check(arena.used <= 10 * (size - 1) + 65536 && (r == 0 || arena.used == 0));
    if (r == 0) {
        returns_the_same(message, &arena);
        json = wire_json(message);
        check(json != NULL);
        text = json_dumps(json, JSON_COMPACT);
        check(text != NULL);
        free(text);
        json_decref(json);
    }
    arena_fini(&arena);
    return 0;
}
