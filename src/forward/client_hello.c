/* client_hello - two machines, one in the other: records are stripped, and the message behind them
 * is read part by part. Nothing is copied but the name, and each byte is met once.
 *
 * Each length is compared with what is around it as soon as it is known, so that a hello that
 * disagrees with itself is refused early. Before a part begins there are bytes enough for it and
 * for what is skipped on the way to it: `left` never wraps.
 */
#include "forward/client_hello.h"

#include <string.h>
#include "wire/name.h"

#define RECORD_HEAD 5u
#define RECORD_MAX (16384u + 256u) /* RFC 8446 5.2: no record is longer */
#define HANDSHAKE 22u              /* a record's type (RFC 8446 5.1) */
#define CLIENT_HELLO 1u            /* a message's type (RFC 8446 4) */
#define MESSAGE_HEAD 4u
#define VERSION_AND_RANDOM 34u
#define SESSION_ID_MAX 32u
#define SERVER_NAME 0u /* an extension's type */
#define HOST_NAME 0u   /* a name's type */
#define SSL2_HEAD 5u   /* length, type, version */
#define SSL2_LEAST 9u  /* what its length counts, without its lists */

/* What is read next, and its size in bytes. */
#define PARTS(X)                                                                                   \
    X(TYPE, 1)                                                                                     \
    X(LENGTH, 3)                                                                                   \
    X(SESSION_LEN, 1)                                                                              \
    X(CIPHERS_LEN, 2)                                                                              \
    X(COMPRESSION_LEN, 1)                                                                          \
    X(EXTENSIONS_LEN, 2)                                                                           \
    X(EXTENSION_TYPE, 2)                                                                           \
    X(EXTENSION_LEN, 2)                                                                            \
    X(SERVER_NAME_LEN, 2)                                                                          \
    X(NAMES_LEN, 2)                                                                                \
    X(NAME_TYPE, 1)                                                                                \
    X(NAME_LEN, 2)                                                                                 \
    X(NAME_BYTE, 1)                                                                                \
    X(END, 0)
enum part {
#define X(part, size) PART_##part,
    PARTS(X)
#undef X
};
static const uint8_t sizes[] = {
#define X(part, size) size,
    PARTS(X)
#undef X
};

static enum client_hello_result bad(struct client_hello *hello, const char *why)
{
    hello->name[0] = '\0';
    hello->why = why;
    return CLIENT_HELLO_BAD;
}

static enum client_hello_result next(struct client_hello *hello, uint32_t skip, enum part part)
{
    if (skip + sizes[part] > hello->left)
        return bad(hello, "the ClientHello is shorter than what is in it");
    hello->skip = skip;
    hello->part = (uint8_t)part;
    hello->read = 0;
    hello->value = 0;
    return skip == 0 && part == PART_END ? CLIENT_HELLO_DONE : CLIENT_HELLO_MORE;
}

/* The next extension, behind what is still skipped of the one before. They end with the message. */
static enum client_hello_result extension(struct client_hello *hello, uint32_t skip)
{
    return next(hello, skip, hello->left == skip ? PART_END : PART_EXTENSION_TYPE);
}

static enum client_hello_result take_name(struct client_hello *hello)
{
    bool colon = memchr(hello->name, ':', hello->name_len) != NULL;
    enum name_error error = name_canon(hello->name, hello->name_len, hello->name);

    if (error == NAME_E_LITERAL)
        hello->name[0] = '\0';
    else if (error != NAME_OK || colon || hello->name[0] == '*')
        return bad(hello, "the server name is no valid host");
    return extension(hello, 0);
}

/* server_name: a list that holds one host_name (RFC 6066 3), as its lengths must show. */
static enum client_hello_result server_name(struct client_hello *hello)
{
    uint32_t value = hello->value;

    switch ((enum part)hello->part) {
    case PART_SERVER_NAME_LEN:
        if (value > hello->left || value < sizes[PART_NAMES_LEN])
            return bad(hello, "the server_name extension is malformed");
        hello->names_left = value - sizes[PART_NAMES_LEN];
        return next(hello, 0, PART_NAMES_LEN);
    case PART_NAMES_LEN:
        if (value != hello->names_left || value <= sizes[PART_NAME_TYPE] + sizes[PART_NAME_LEN])
            return bad(hello, "the list of server names is malformed");
        hello->names_left = value - sizes[PART_NAME_TYPE] - sizes[PART_NAME_LEN];
        return next(hello, 0, PART_NAME_TYPE);
    case PART_NAME_TYPE:
        if (value != HOST_NAME)
            return bad(hello, "a server name of unknown type");
        return next(hello, 0, PART_NAME_LEN);
    case PART_NAME_LEN:
        if (value != hello->names_left)
            return bad(hello, "the server name is not one name and nothing else");
        if (value > sizeof(hello->name)) /* the longest name and a dot */
            return bad(hello, "the server name is too long");
        hello->name_len = (uint16_t)value;
        return next(hello, 0, PART_NAME_BYTE);
    default:
        hello->name[hello->name_at++] = (char)value;
        return hello->name_at < hello->name_len ? next(hello, 0, PART_NAME_BYTE) : take_name(hello);
    }
}

/* A part was read. */
static enum client_hello_result read_part(struct client_hello *hello)
{
    uint32_t value = hello->value;

    switch ((enum part)hello->part) {
    case PART_TYPE:
        if (value != CLIENT_HELLO)
            return bad(hello, "the first message is no ClientHello");
        hello->left = sizes[PART_LENGTH];
        return next(hello, 0, PART_LENGTH);
    case PART_LENGTH:
        if (value + MESSAGE_HEAD > hello->limit)
            return CLIENT_HELLO_BIG;
        hello->left = value;
        return next(hello, VERSION_AND_RANDOM, PART_SESSION_LEN);
    case PART_SESSION_LEN:
        if (value > SESSION_ID_MAX)
            return bad(hello, "the session id is too long");
        return next(hello, value, PART_CIPHERS_LEN);
    case PART_CIPHERS_LEN:
        if (value == 0 || value % 2 != 0)
            return bad(hello, "the list of cipher suites is malformed");
        return next(hello, value, PART_COMPRESSION_LEN);
    case PART_COMPRESSION_LEN:
        if (value == 0)
            return bad(hello, "no compression method");
        /* Before TLS 1.3 extensions may be left out. */
        return next(hello, value, hello->left == value ? PART_END : PART_EXTENSIONS_LEN);
    case PART_EXTENSIONS_LEN:
        if (value != hello->left)
            return bad(hello, "the extensions do not end where the ClientHello ends");
        return extension(hello, 0);
    case PART_EXTENSION_TYPE:
        if (value != SERVER_NAME)
            return next(hello, 0, PART_EXTENSION_LEN);
        if (hello->has_server_name)
            return bad(hello, "more than one server_name extension");
        hello->has_server_name = true;
        return next(hello, 0, PART_SERVER_NAME_LEN);
    case PART_EXTENSION_LEN:
        return extension(hello, value);
    default:
        return server_name(hello);
    }
}

/* data[0..len) is of the current record. Returns how much of it was read. */
static size_t read_message(struct client_hello *hello, const uint8_t *data, size_t len,
                           enum client_hello_result *out_result)
{
    size_t n;

    if (hello->skip > 0) {
        n = len < hello->skip ? len : hello->skip;
        hello->skip -= (uint32_t)n;
        hello->left -= (uint32_t)n;
        if (hello->skip == 0 && hello->part == PART_END)
            *out_result = CLIENT_HELLO_DONE;
        return n;
    }
    if (hello->part != PART_TYPE)
        hello->left--;
    hello->value = hello->value << 8 | data[0];
    if (++hello->read == sizes[hello->part])
        *out_result = read_part(hello);
    return 1;
}

static enum client_hello_result read_record_head(struct client_hello *hello, uint8_t byte)
{
    switch (hello->head_len++) {
    case 0:
        hello->record_left = 0;
        if (byte != HANDSHAKE)
            return bad(hello, "a record of another type within the ClientHello");
        break;
    case 1:
        if (byte != 3)
            return bad(hello, "a record of an unknown version");
        break;
    case 2: /* the minor version is to be ignored */
        break;
    default:
        hello->record_left = hello->record_left << 8 | byte;
    }
    if (hello->head_len == RECORD_HEAD) {
        if (hello->record_left == 0)
            return bad(hello, "an empty record");
        if (hello->record_left > RECORD_MAX)
            return bad(hello, "a record that is too long");
    }
    return CLIENT_HELLO_MORE;
}

/* RFC 5246 E.2: no name can be in it. */
static enum client_hello_result ssl2(const uint8_t *data, size_t len)
{
    if (len >= 2 && ((data[0] & 0x7fu) << 8 | data[1]) < SSL2_LEAST)
        return CLIENT_HELLO_OTHER;
    if (len >= 3 && data[2] != CLIENT_HELLO)
        return CLIENT_HELLO_OTHER;
    if (len >= 4 && data[3] != 3 && data[3] != 0)
        return CLIENT_HELLO_OTHER;
    if (len < SSL2_HEAD)
        return CLIENT_HELLO_MORE;
    return data[3] == 3 || data[4] == 2 ? CLIENT_HELLO_DONE : CLIENT_HELLO_OTHER;
}

enum client_hello_result client_hello_feed(struct client_hello *hello, const uint8_t *data,
                                           size_t len)
{
    enum client_hello_result result = (enum client_hello_result)hello->result;

    if (hello->at == 0 && len > 0 && data[0] != HANDSHAKE)
        return data[0] & 0x80 ? ssl2(data, len) : CLIENT_HELLO_OTHER;
    if (hello->at == 0 && len > 1 && data[1] != 3)
        return CLIENT_HELLO_OTHER;
    if (hello->at == 0 && len < 2)
        return CLIENT_HELLO_MORE;
    while (result == CLIENT_HELLO_MORE && hello->at < len) {
        size_t n = len - hello->at;

        if (hello->head_len < RECORD_HEAD) {
            result = read_record_head(hello, data[hello->at++]);
            continue;
        }
        n = n < hello->record_left ? n : hello->record_left;
        n = read_message(hello, data + hello->at, n, &result);
        hello->at += n;
        hello->record_left -= (uint32_t)n;
        if (hello->record_left == 0)
            hello->head_len = 0;
    }
    hello->result = (uint8_t)result;
    return result;
}

void tls_alert_pack(enum tls_alert alert, uint8_t out[TLS_ALERT_LEN])
{
    const uint8_t bytes[TLS_ALERT_LEN] = {21, 3, 3, 0, 2, 2 /* fatal */, (uint8_t)alert};

    memcpy(out, bytes, sizeof(bytes));
}
