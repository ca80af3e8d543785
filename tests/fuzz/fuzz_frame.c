/* fuzz_frame - split a frame, read its header as each of the three, and pack it again. */
#include <errno.h>
#include <meshd/v1/mesh.pb-c.h>
#include <stdlib.h>
#include <string.h>
#include "wire/check.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void one_header(const ProtobufCMessageDescriptor *descriptor,
                       const struct frame_parts *parts)
{
    ProtobufCMessage *header, *again;
    struct frame_parts split;
    struct arena arena;
    uint8_t *out;
    size_t len;

    arena_init(&arena);
    /* Packed again it can be longer than 1,024 bytes: "-1" of an enum may come in fewer bytes. */
    if (wire_unpack(descriptor, parts->header, parts->header_len, &arena, &header) == 0 &&
        protobuf_c_message_get_packed_size(header) <= 1024) {
        len = frame_size(header, NULL);
        out = malloc(len);
        check(out != NULL);
        frame_pack(header, NULL, out);
        check(frame_split(out, len, &split) == 0 && split.body_len == 0);
        check(wire_unpack(descriptor, split.header, split.header_len, &arena, &again) == 0);
        free(out);
    }
    arena_fini(&arena);
}

/* Read by hand or unpacked, it is the same. */
static void peeked_header(const struct frame_parts *parts)
{
    const Meshd__V1__LinkHeader *header;
    ProtobufCMessage *message;
    const uint8_t *session_id;
    struct arena arena;
    int kind;

    if (!frame_peek_link(parts, &kind, &session_id))
        return;
    arena_init(&arena);
    check(wire_unpack(&meshd__v1__link_header__descriptor, parts->header, parts->header_len, &arena,
                      &message) == 0);
    header = (const Meshd__V1__LinkHeader *)message;
    check((int)header->kind == kind && header->session_id.len == SESSION_ID_LEN &&
          memcmp(header->session_id.data, session_id, SESSION_ID_LEN) == 0);
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_parts parts;

    if (frame_split(data, size, &parts) < 0)
        return 0;
    check(parts.header_len <= 1024 && parts.header > data);
    check(parts.header + parts.header_len == parts.body);
    check(parts.body + parts.body_len == data + size);
    one_header(&meshd__v1__call_header__descriptor, &parts);
    one_header(&meshd__v1__reply_header__descriptor, &parts);
    one_header(&meshd__v1__link_header__descriptor, &parts);
    peeked_header(&parts);
    return 0;
}
