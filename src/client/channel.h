/* channel - the bytes of a connected, non-blocking descriptor, as they are or inside TLS.
 *
 * Nothing here waits. Inside TLS, more may be there to read than the descriptor says: read until
 * -EAGAIN, or ask channel_pending, before waiting for it.
 *
 * Threads:   one may send while another receives; otherwise one at a time.
 * Failure:   a negative errno. -ECONNRESET: the other side has closed; -EKEYREJECTED: it is not
 *            whom it should be, or it refused our certificate; -EPROTO: what is there is no TLS.
 *            channel_why says of these what a person can do about them.
 */
#ifndef CLIENT_CHANNEL_H
#define CLIENT_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "client/trust.h"

struct channel {
    int fd;                /* -1: closed */
    struct sealed *inside; /* of TLS; NULL: plaintext */
};

/* Makes fd non-blocking and takes it, also on failure. trust NULL: plaintext. */
int channel_open(struct channel *channel, int fd, struct trust *trust);
void channel_close(struct channel *channel);

/* Both sides are known: 0, at once for plaintext; -EAGAIN. First of all calls. */
int channel_handshake(struct channel *channel);
/* How many bytes were taken or have come, > 0; -EAGAIN. Bytes that were not taken are offered again
 * as they were, with more behind them or not. */
ssize_t channel_send(struct channel *channel, const void *data, size_t len);
ssize_t channel_receive(struct channel *channel, void *data, size_t len);
bool channel_pending(const struct channel *channel);
/* What to wait for with poll(2) after -EAGAIN, until these make sense again. The handshake waits as
 * receiving does. */
enum { CHANNEL_RECEIVE = 1, CHANNEL_SEND = 2 };
short channel_events(const struct channel *channel, int directions);

/* Says more of a failure than its errno does, in one clause; "" when there is no more to say.
 * greeted: something has come inside the connection. */
void channel_why(const struct channel *channel, int error, bool greeted, char out_why[TLS_WHY]);

#endif
