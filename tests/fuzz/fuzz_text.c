/* fuzz_text - protobuf's text format: the first byte chooses the message. What is read prints to a
 * text that reads to the same bytes and prints to the same text, within the arena's cap. */
#include <errno.h>
#include <meshd/v1/mesh.pb-c.h>
#include <stdlib.h>
#include <string.h>
#include "wire/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CAP 1048576u

static const ProtobufCMessageDescriptor *const descriptors[] = {
    &meshd__v1__lookup_request__descriptor,   &meshd__v1__introspect_request__descriptor,
    &meshd__v1__introspect_reply__descriptor, &meshd__v1__register_request__descriptor,
    &meshd__v1__watch_reply__descriptor,      &meshd__v1__explain_reply__descriptor,
    &meshd__v1__offer_request__descriptor,    &meshd__v1__register_reply__descriptor,
};

static void check(int condition)
{
    if (!condition)
        abort();
}

static uint8_t *pack(const ProtobufCMessage *message, size_t *out_len)
{
    uint8_t *bytes = malloc(protobuf_c_message_get_packed_size(message) + 1);

    check(bytes != NULL);
    *out_len = protobuf_c_message_pack(message, bytes);
    return bytes;
}

static void again(const ProtobufCMessageDescriptor *descriptor, const ProtobufCMessage *message)
{
    ProtobufCMessage *second;
    struct text_error error;
    struct arena arena;
    char *text, *other;
    size_t len, other_len, n, k;
    uint8_t *bytes = pack(message, &n), *others;

    arena_init(&arena);
    check(text_print(message, &text, &len) == 0);
    check(text_parse(descriptor, text, len, &arena, &second, &error) == 0);
    others = pack(second, &k);
    check(n == k && memcmp(bytes, others, n) == 0);
    check(text_print(second, &other, &other_len) == 0);
    check(len == other_len && memcmp(text, other, len) == 0);
    free(bytes);
    free(others);
    free(text);
    free(other);
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *descriptor;
    ProtobufCMessage *message = NULL;
    struct text_error error;
    struct arena arena;
    int r;

    if (size == 0)
        return 0;
    descriptor = descriptors[data[0] % (sizeof(descriptors) / sizeof(*descriptors))];
    arena_init(&arena);
    arena.cap = CAP;
    memset(&error, 0, sizeof(error));
    r = text_parse(descriptor, (const char *)data + 1, size - 1, &arena, &message, &error);
    check(arena.used <= CAP);
    if (r == 0)
        again(descriptor, message);
    else if (r == -EBADMSG)
        check(error.line > 0 && error.column > 0 && error.text[0]);
    else
        check(r == -E2BIG);
    arena_fini(&arena);
    return 0;
}
