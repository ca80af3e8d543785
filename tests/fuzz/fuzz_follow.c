/* fuzz_follow - what a hostile node may say to one who follows it. Of the first byte, bit 0 chooses
 * the framing and the rest how the input is said: 0: as it is, preamble and all; 1: as it is,
 * behind a preamble; 2: as bodies (two bytes of length, then the body), each in a message as it
 * should be, so that inputs reach what is behind the number of the call, which is drawn at random.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "client/follow.h"
#include "wire/check.h"
#include "wire/frame.h"

#define INPUT_MAX 65536u /* less than a socket buffer takes at once */
#define BODIES_MAX 64u   /* likewise, with what the kernel adds to each */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void say(int fd, const void *data, size_t len)
{
    check(send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* The number of the call, from the request. */
static uint64_t read_request(int fd, enum sp_framing framing)
{
    uint8_t bytes[512];
    size_t at = PREAMBLE_HEAD + sp_head_len(framing) + 4;
    ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
    ProtobufCMessage *message;
    struct frame_parts parts;
    struct arena arena;
    uint64_t id;

    check(n > (ssize_t)at && frame_split(bytes + at, (size_t)n - at, &parts) == 0);
    arena_init(&arena);
    check(wire_unpack(&meshd__v1__call_header__descriptor, parts.header, parts.header_len, &arena,
                      &message) == 0);
    id = ((const Meshd__V1__CallHeader *)message)->call_id;
    arena_fini(&arena);
    return id;
}

static void say_body(int fd, enum sp_framing framing, uint64_t call_id, const uint8_t *body,
                     size_t len)
{
    Meshd__V1__ReplyHeader header = MESHD__V1__REPLY_HEADER__INIT;
    uint8_t bytes[128] = {0};
    size_t head = sp_head_len(framing), frame;

    header.call_id = call_id;
    frame = frame_size(&header.base, NULL);
    sp_head_pack(framing, 4 + frame + len, bytes);
    bytes[head + 3] = 1;
    frame_pack(&header.base, NULL, bytes + head + 4);
    say(fd, bytes, head + 4 + frame);
    if (len > 0)
        say(fd, body, len);
}

static void say_all(int fd, enum sp_framing framing, unsigned how, uint64_t call_id,
                    const uint8_t *data, size_t size)
{
    const struct preamble_reply ok = {.version = PREAMBLE_VERSION};
    uint8_t preamble[PREAMBLE_REPLY_MAX];

    if (how > 0)
        say(fd, preamble, preamble_reply_pack(&ok, preamble));
    if (how < 2) {
        if (size > 0)
            say(fd, data, size);
        return;
    }
    for (unsigned i = 0; size >= 2 && i < BODIES_MAX; i++) {
        size_t len = (size_t)data[0] << 8 | data[1];

        if (len > size - 2)
            len = size - 2;
        say_body(fd, framing, call_id, data + 2, len);
        data += 2 + len;
        size -= 2 + len;
    }
}

static void look_at(struct follow *follow, const Meshd__V1__WatchReply *reply)
{
    const uint8_t *raw;
    size_t len;

    check(reply != NULL);
    follow_raw(follow, &raw, &len);
    check(raw != NULL);
    for (size_t i = 0; i < reply->n_events; i++)
        check(reply->events[i] != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct follow_settings settings = {.url = "ipc:///nobody/is/here"};
    const Meshd__V1__WatchReply *reply;
    enum sp_framing framing;
    struct follow_status status;
    struct follow *follow;
    unsigned messages = 0;
    int pair[2], r;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    framing = data[0] & 1 ? SP_IPC : SP_TCP;
    check(follow_new(&settings, &follow) == 0);
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    check(follow_adopt(follow, pair[0], framing) == 0);
    check(follow_next(follow, 0, &reply) == -ETIMEDOUT);
    say_all(pair[1], framing, data[0] / 2 % 3, read_request(pair[1], framing), data + 1, size - 1);
    check(shutdown(pair[1], SHUT_WR) == 0);

    while ((r = follow_next(follow, clock_ms() + 10000, &reply)) == 0) {
        look_at(follow, reply);
        messages++;
    }
    check(r == FOLLOW_LOST || r == FOLLOW_ENDED);
    follow_status(follow, &status);
    check(status.text != NULL && !status.connected);
    check(status.connects == (messages > 0));
    check((r == FOLLOW_LOST) == (status.error < 0));
    follow_free(follow);
    close(pair[1]);
    return 0;
}
