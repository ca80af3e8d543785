/* stream - SP messages over a channel, with a buffer for what comes.
 *
 * Threads:   one at a time; a sender of its own kind may use the channel beside a receiver.
 * Time:      deadlines are on clock_ms().
 * Failure:   a negative errno. -ECONNRESET: closed; -EPROTO: not SP; -EMSGSIZE: a message longer
 *            than CALL_MESSAGE_MAX. After these nothing that comes can be trusted.
 */
#ifndef CLIENT_STREAM_H
#define CLIENT_STREAM_H

#include <stdint.h>
#include "client/channel.h"
#include "wire/sp.h"

struct stream {
    struct channel channel;
    enum sp_framing framing;
    uint8_t *in; /* received and not yet used: in_len bytes from in_off on */
    size_t in_off, in_len, in_cap;
};

/* Connects and greets as a REQ socket, or takes a connected socket, also on failure. trust: for
 * tls://, else NULL. As connect_url (client/connect.h), and -EPROTO: what answers there is not a
 * REP socket; -EKEYREJECTED: not whom it should be, or it refused our certificate. On failure the
 * stream is closed, and out_why is as channel_why has it. */
int stream_open(struct stream *stream, const char *url, struct trust *trust, uint64_t deadline_ms,
                char out_why[TLS_WHY]);
int stream_adopt(struct stream *stream, int fd, enum sp_framing framing, struct trust *trust,
                 uint64_t deadline_ms, char out_why[TLS_WHY]);
void stream_close(struct stream *stream);

/* All of it. *out_sent: how much had left when it failed. */
int stream_send(struct stream *stream, const uint8_t *data, size_t len, uint64_t deadline_ms,
                size_t *out_sent);

/* The next whole message of the buffer, borrowed until stream_receive; 0, or -EAGAIN: more must be
 * received first. */
int stream_next(struct stream *stream, const uint8_t **out_payload, size_t *out_len);
/* Looks once for more bytes: 0, or -EAGAIN: there are none now. Buffers grow as bytes arrive and
 * never by an announced length. */
int stream_receive(struct stream *stream);
/* Waits for more bytes. */
int stream_receive_by(struct stream *stream, uint64_t deadline_ms);

#endif
