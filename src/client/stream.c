/* stream - one buffer in; what is whole is handed out where it lies. */
#include "client/stream.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/call.h"
#include "client/connect.h"

#define READ_STEP 65536u /* the first buffer; it doubles as it fills */

void stream_close(struct stream *stream)
{
    channel_close(&stream->channel);
    free(stream->in);
    *stream = (struct stream){.channel.fd = -1};
}

int stream_send(struct stream *stream, const uint8_t *data, size_t len, uint64_t deadline_ms,
                size_t *out_sent)
{
    *out_sent = 0;
    while (*out_sent < len) {
        ssize_t n = channel_send(&stream->channel, data + *out_sent, len - *out_sent);
        int r = (int)n;

        if (n > 0) {
            *out_sent += (size_t)n;
            continue;
        }
        if (n == -EAGAIN)
            r = connect_wait(stream->channel.fd, channel_events(&stream->channel, CHANNEL_SEND),
                             deadline_ms);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Makes room behind what is there: what is used up goes first, then the buffer doubles. */
static int make_room(struct stream *stream)
{
    size_t cap = stream->in_cap ? stream->in_cap * 2 : READ_STEP;
    uint8_t *in;

    if (!stream->in_len)
        stream->in_off = 0;
    if (stream->in_off + stream->in_len < stream->in_cap)
        return 0;
    if (stream->in_off) {
        memmove(stream->in, stream->in + stream->in_off, stream->in_len);
        stream->in_off = 0;
        if (stream->in_len <= stream->in_cap / 2)
            return 0;
    }
    in = realloc(stream->in, cap);
    if (!in)
        return -ENOMEM;
    stream->in = in;
    stream->in_cap = cap;
    return 0;
}

int stream_receive(struct stream *stream)
{
    int r = make_room(stream);
    size_t end = stream->in_off + stream->in_len;
    ssize_t n;

    if (r < 0)
        return r;
    n = channel_receive(&stream->channel, stream->in + end, stream->in_cap - end);
    if (n < 0)
        return (int)n;
    stream->in_len += (size_t)n;
    return 0;
}

int stream_receive_by(struct stream *stream, uint64_t deadline_ms)
{
    for (;;) {
        int r = stream_receive(stream);

        if (r != -EAGAIN)
            return r;
        r = connect_wait(stream->channel.fd, channel_events(&stream->channel, CHANNEL_RECEIVE),
                         deadline_ms);
        if (r < 0)
            return r;
    }
}

static void consume(struct stream *stream, size_t len)
{
    stream->in_off += len;
    stream->in_len -= len;
}

int stream_next(struct stream *stream, const uint8_t **out_payload, size_t *out_len)
{
    const uint8_t *at = stream->in + stream->in_off;
    size_t head = sp_head_len(stream->framing);
    uint64_t len = 0;
    int r;

    if (!stream->in_len)
        return -EAGAIN;
    r = sp_head_parse(stream->framing, at, stream->in_len, CALL_MESSAGE_MAX, &len);
    if (r < 0)
        return r == -EAGAIN || r == -EMSGSIZE ? r : -EPROTO;
    if (stream->in_len - head < len)
        return -EAGAIN;
    consume(stream, head + (size_t)len);
    *out_payload = at + head;
    *out_len = (size_t)len;
    return 0;
}

static int shake_hands(struct channel *channel, uint64_t deadline_ms)
{
    for (;;) {
        int r = channel_handshake(channel);

        if (r != -EAGAIN)
            return r;
        r = connect_wait(channel->fd, channel_events(channel, CHANNEL_RECEIVE), deadline_ms);
        if (r < 0)
            return r;
    }
}

static int greet(struct stream *stream, uint64_t deadline_ms)
{
    uint8_t hello[SP_HELLO_LEN];
    uint16_t protocol;
    size_t sent;
    int r;

    sp_hello_pack(SP_REQ0, hello);
    r = shake_hands(&stream->channel, deadline_ms);
    if (r == 0)
        r = stream_send(stream, hello, sizeof(hello), deadline_ms, &sent);
    while (r == 0 && stream->in_len < SP_HELLO_LEN)
        r = stream_receive_by(stream, deadline_ms);
    if (r < 0)
        return r;
    if (sp_hello_parse(stream->in, &protocol) < 0 || protocol != SP_REP0)
        return -EPROTO;
    consume(stream, SP_HELLO_LEN);
    return 0;
}

int stream_adopt(struct stream *stream, int fd, enum sp_framing framing, struct trust *trust,
                 uint64_t deadline_ms, char out_why[TLS_WHY])
{
    int r;

    out_why[0] = '\0';
    *stream = (struct stream){.framing = framing};
    r = channel_open(&stream->channel, fd, trust);
    if (r < 0)
        return r;
    r = greet(stream, deadline_ms);
    if (r < 0) {
        channel_why(&stream->channel, r, stream->in_len > 0, out_why);
        stream_close(stream);
    }
    return r;
}

int stream_open(struct stream *stream, const char *url, struct trust *trust, uint64_t deadline_ms,
                char out_why[TLS_WHY])
{
    enum sp_framing framing;
    int fd, r;

    out_why[0] = '\0';
    *stream = (struct stream){.channel.fd = -1};
    if (trust_wanted(url) != (trust != NULL))
        return -EINVAL; /* plaintext by mistake must not be */
    r = connect_url(url, deadline_ms, &framing, &fd);
    return r < 0 ? r : stream_adopt(stream, fd, framing, trust, deadline_ms, out_why);
}
