/* frame - the layouts that every implementation of the protocol shares, byte for byte.
 *
 * Numbers are big-endian unless they are protobuf varints. Pure; nothing is copied but small
 * strings. This comment is normative; the README repeats it for people.
 *
 * 1. Preamble: the first bytes of a peer's connection (or a watcher's), from who dials.
 *        0  4  'M' 'S' 'H' 'D'
 *        4  1  preamble version, 1
 *        5  1  kind: 1 rpc, 2 link, 3 data, 4 watch
 *        6  1  length of the peer id, 1 to 64 (0 only for watch)
 *        7  1  length of the token: 16 for link, 17 for data, else 0
 *        8     peer id, then token. Of data: the session id of the link (16), then who says the
 *              first DATA header (1): 1 who dialled, 2 the other side, when it needs a connection
 *    It is answered, before anything else, with
 *        0  4  'M' 'S' 'H' 'D'
 *        4  1  preamble version spoken here
 *        5  1  gRPC status code, 0 = go on
 *        6  1  Reason of mesh.proto
 *        7  1  length of the text, 0 to 255
 *        8     text, for people
 *    A status other than 0 ends the connection. After 0 both sides send SP-over-TCP messages (sp.h)
 *    without the 8-byte SP hello: kind rpc carries REQ payloads one way and REP payloads the other,
 *    kinds link and watch PAIR1 payloads. On the Unix socket, where only kind watch is served, they
 *    are SP-over-IPC messages. Kind data carries DATA headers and bytes (5) instead; who
 *    dialled may say its header before it has read the answer.
 *
 * 2. Call: what an SP request or reply carries after its backtrace, and on a connection of kind
 *    watch a PAIR1 message after its hop word: one request, then replies without end.
 *        varint length of the header, CallHeader or ReplyHeader, request or reply message
 * 3. Link message: what a PAIR1 message carries after its hop word.
 *        varint length of the header, LinkHeader, message of its kind
 *
 * 4. Connection number: on the lanes between the gate and the REP socket, inside one node only.
 *    The gate puts the number (4 bytes, top bit clear, never 0) in front of the SP backtrace, where
 *    nng takes it for one more hop and returns it with the reply, and once more in front of the
 *    call, where rpc reads who asks. rpc puts it in front of the reply too; the gate takes off both
 *    and drops a reply whose two numbers differ.
 *
 * 5. DATA header: on a connection of kind data, once in each direction, in front of the stream.
 *        0 16  forward id
 *       16  8  offset: how many bytes of this direction's stream went another way (first_bytes)
 *    The owner's header says that the backend is connected. After the headers both directions carry
 *    the bytes of one client and one backend, nothing else; FIN and RST mean what they mean there.
 */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>
#include "base/limits.h"

#define WIRE_VERSION_MIN 1u
#define WIRE_VERSION_MAX 1u

#define PREAMBLE_VERSION 1u
#define PREAMBLE_HEAD 8u
#define TOKEN_LEN 16u
#define SESSION_ID_LEN 16u
#define FORWARD_ID_LEN 16u
#define PREAMBLE_MAX (PREAMBLE_HEAD + LIMIT_PEER_ID + TOKEN_LEN + 1u)
#define DATA_HEADER_LEN 24u
#define PREAMBLE_REPLY_MAX (PREAMBLE_HEAD + LIMIT_STATUS_TEXT)

enum preamble_kind { PREAMBLE_RPC = 1, PREAMBLE_LINK = 2, PREAMBLE_DATA = 3, PREAMBLE_WATCH = 4 };

struct preamble {
    uint8_t version;
    enum preamble_kind kind;
    char peer_id[LIMIT_PEER_ID + 1];
    uint8_t token[TOKEN_LEN]; /* of data: the session id; zero unless has_token */
    int has_token;
    enum data_first { DATA_FIRST_DIALLER = 1, DATA_FIRST_OTHER = 2 } first; /* of data */
};

struct data_header {
    uint8_t forward_id[FORWARD_ID_LEN];
    uint64_t offset;
};

struct preamble_reply {
    uint8_t version, status, reason;
    char text[LIMIT_STATUS_TEXT + 1];
};

/* Parsers take what has arrived so far. They return the length of the whole thing once it is there,
 * -EAGAIN while it is not (however short, if what is there can still become one), -EBADMSG when it
 * never will be, and -EPROTONOSUPPORT for another preamble version (out->version is then set).
 * The token's bytes are not looked at. */
int preamble_parse(const uint8_t *data, size_t len, struct preamble *out);
int preamble_reply_parse(const uint8_t *data, size_t len, struct preamble_reply *out);
/* Return the length written; at most PREAMBLE_MAX and PREAMBLE_REPLY_MAX. */
size_t preamble_pack(const struct preamble *in, uint8_t *out);
size_t preamble_reply_pack(const struct preamble_reply *in, uint8_t *out);

void data_header_pack(const struct data_header *in, uint8_t out[DATA_HEADER_LEN]);
void data_header_parse(const uint8_t data[DATA_HEADER_LEN], struct data_header *out);

/* Header and message as one frame: size once, allocate once, pack in place. body may be NULL. */
size_t frame_size(const ProtobufCMessage *header, const ProtobufCMessage *body);
void frame_pack(const ProtobufCMessage *header, const ProtobufCMessage *body, uint8_t *out);

struct frame_parts {
    const uint8_t *header, *body; /* borrowed from data */
    size_t header_len, body_len;
};
/* 0, or -EBADMSG when the varint or the length do not fit (headers are at most 1,024 bytes). */
int frame_split(const uint8_t *data, size_t len, struct frame_parts *out);
/* The kind and the session id of a LinkHeader, without unpacking it. False: it has none, or is not
 * written in the shortest way and in order, as everybody does. */
bool frame_peek_link(const struct frame_parts *parts, int *out_kind,
                     const uint8_t **out_session_id);

#endif
