/* frame - preambles byte by byte, frames in one buffer. The layouts stand in frame.h. */
#include "wire/frame.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "wire/encode.h"
#include "wire/name.h"

#define HEADER_MAX 1024u                      /* bytes of a CallHeader, ReplyHeader or LinkHeader */
#define LINK_HEADER_LEN (4u + SESSION_ID_LEN) /* in a session, with a kind below 128 */

static const uint8_t magic[4] = {'M', 'S', 'H', 'D'};

/* The magic and the version, as far as they are there. */
static int parse_start(const uint8_t *data, size_t len, uint8_t *out_version)
{
    size_t n = len < sizeof(magic) ? len : sizeof(magic);

    if (n > 0 && memcmp(data, magic, n) != 0)
        return -EBADMSG;
    if (len <= sizeof(magic))
        return -EAGAIN;
    if (data[4] == PREAMBLE_VERSION)
        return 0;
    *out_version = data[4];
    return -EPROTONOSUPPORT;
}

/* Of data the last byte is not part of the token proper. */
static size_t token_len(unsigned kind)
{
    if (kind == PREAMBLE_DATA)
        return TOKEN_LEN + 1;
    return kind == PREAMBLE_LINK ? TOKEN_LEN : 0;
}

static bool is_first(uint8_t byte)
{
    return byte == DATA_FIRST_DIALLER || byte == DATA_FIRST_OTHER;
}

int preamble_parse(const uint8_t *data, size_t len, struct preamble *out)
{
    int r = parse_start(data, len, &out->version);
    size_t id_len, id_here, whole;

    if (r < 0)
        return r;
    /* Each byte is judged as soon as it is there. */
    if (len > 5 && (data[5] < PREAMBLE_RPC || data[5] > PREAMBLE_WATCH))
        return -EBADMSG;
    if (len > 6 && (data[6] > LIMIT_PEER_ID || (data[6] == 0 && data[5] != PREAMBLE_WATCH)))
        return -EBADMSG;
    if (len > 7 && data[7] != token_len(data[5]))
        return -EBADMSG;
    if (len < PREAMBLE_HEAD)
        return -EAGAIN;
    id_len = data[6];
    id_here = len - PREAMBLE_HEAD < id_len ? len - PREAMBLE_HEAD : id_len;
    if (id_here > 0 && !peer_id_valid((const char *)data + PREAMBLE_HEAD, id_here))
        return -EBADMSG;
    whole = PREAMBLE_HEAD + id_len + data[7];
    if (len < whole)
        return -EAGAIN;
    if (data[5] == PREAMBLE_DATA && !is_first(data[whole - 1]))
        return -EBADMSG;
    *out = (struct preamble){.version = data[4], .kind = data[5], .has_token = data[7] != 0};
    memcpy(out->peer_id, data + PREAMBLE_HEAD, id_len);
    memcpy(out->token, data + PREAMBLE_HEAD + id_len, data[7] < TOKEN_LEN ? data[7] : TOKEN_LEN);
    if (data[5] == PREAMBLE_DATA)
        out->first = data[whole - 1];
    return (int)whole;
}

int preamble_reply_parse(const uint8_t *data, size_t len, struct preamble_reply *out)
{
    int r = parse_start(data, len, &out->version);
    size_t whole;

    if (r < 0)
        return r;
    if (len < PREAMBLE_HEAD)
        return -EAGAIN;
    whole = PREAMBLE_HEAD + data[7];
    if (len < whole)
        return -EAGAIN;
    *out = (struct preamble_reply){.version = data[4], .status = data[5], .reason = data[6]};
    memcpy(out->text, data + PREAMBLE_HEAD, data[7]);
    return (int)whole;
}

size_t preamble_pack(const struct preamble *in, uint8_t *out)
{
    size_t id_len = strnlen(in->peer_id, LIMIT_PEER_ID);
    size_t n_token = token_len(in->kind);

    assert(in->kind >= PREAMBLE_RPC && in->kind <= PREAMBLE_WATCH);
    assert(id_len > 0 || in->kind == PREAMBLE_WATCH);
    assert((n_token != 0) == (in->has_token != 0));
    memcpy(out, magic, sizeof(magic));
    out[4] = in->version;
    out[5] = (uint8_t)in->kind;
    out[6] = (uint8_t)id_len;
    out[7] = (uint8_t)n_token;
    memcpy(out + PREAMBLE_HEAD, in->peer_id, id_len);
    memcpy(out + PREAMBLE_HEAD + id_len, in->token, n_token < TOKEN_LEN ? n_token : TOKEN_LEN);
    if (in->kind == PREAMBLE_DATA)
        out[PREAMBLE_HEAD + id_len + TOKEN_LEN] = (uint8_t)in->first;
    return PREAMBLE_HEAD + id_len + n_token;
}

size_t preamble_reply_pack(const struct preamble_reply *in, uint8_t *out)
{
    size_t text_len = strnlen(in->text, LIMIT_STATUS_TEXT);

    memcpy(out, magic, sizeof(magic));
    out[4] = in->version;
    out[5] = in->status;
    out[6] = in->reason;
    out[7] = (uint8_t)text_len;
    memcpy(out + PREAMBLE_HEAD, in->text, text_len);
    return PREAMBLE_HEAD + text_len;
}

/* Headers are small: one byte below 128, else two. */
static size_t prefix_len(size_t header_len)
{
    assert(header_len <= HEADER_MAX);
    return header_len < 0x80 ? 1 : 2;
}

size_t frame_size(const ProtobufCMessage *header, const ProtobufCMessage *body)
{
    size_t header_len = protobuf_c_message_get_packed_size(header);

    return prefix_len(header_len) + header_len +
           (body ? protobuf_c_message_get_packed_size(body) : 0);
}

void frame_pack(const ProtobufCMessage *header, const ProtobufCMessage *body, uint8_t *out)
{
    size_t header_len = protobuf_c_message_get_packed_size(header);

    if (prefix_len(header_len) == 1) {
        *out++ = (uint8_t)header_len;
    } else {
        *out++ = (uint8_t)(header_len | 0x80);
        *out++ = (uint8_t)(header_len >> 7);
    }
    out += protobuf_c_message_pack(header, out);
    if (body)
        protobuf_c_message_pack(body, out);
}

int frame_split(const uint8_t *data, size_t len, struct frame_parts *out)
{
    size_t prefix = len > 0 && data[0] >= 0x80 ? 2 : 1;
    size_t header_len;

    if (len < prefix || (prefix == 2 && data[1] >= 0x80))
        return -EBADMSG;
    header_len = prefix == 1 ? data[0] : (size_t)(data[0] & 0x7f) | (size_t)data[1] << 7;
    if (header_len > HEADER_MAX || header_len > len - prefix)
        return -EBADMSG;
    *out = (struct frame_parts){
        .header = data + prefix,
        .body = data + prefix + header_len,
        .header_len = header_len,
        .body_len = len - prefix - header_len,
    };
    return 0;
}

bool frame_peek_link(const struct frame_parts *parts, int *out_kind, const uint8_t **out_session_id)
{
    uint8_t kind_tag[1], id_head[2];
    const uint8_t *at = parts->header;

    encode_tag(kind_tag, 1, ENCODE_VARINT);
    encode_part_head(id_head, 2, SESSION_ID_LEN);
    if (parts->header_len != LINK_HEADER_LEN || at[0] != kind_tag[0] || at[1] == 0 ||
        at[1] >= 0x80 || memcmp(at + 2, id_head, sizeof(id_head)) != 0)
        return false;
    *out_kind = at[1];
    *out_session_id = at + 2 + sizeof(id_head);
    return true;
}

/* ---- DATA headers ---- */

void data_header_pack(const struct data_header *in, uint8_t out[DATA_HEADER_LEN])
{
    uint64_t offset = htobe64(in->offset);

    memcpy(out, in->forward_id, FORWARD_ID_LEN);
    memcpy(out + FORWARD_ID_LEN, &offset, sizeof(offset));
}

void data_header_parse(const uint8_t data[DATA_HEADER_LEN], struct data_header *out)
{
    uint64_t offset;

    memcpy(out->forward_id, data, FORWARD_ID_LEN);
    memcpy(&offset, data + FORWARD_ID_LEN, sizeof(offset));
    out->offset = be64toh(offset);
}
