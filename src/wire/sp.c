/* sp - SP framing: fixed heads, and the backtrace of a request. */
#include "wire/sp.h"
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "base/limits.h"

#define IPC_MESSAGE 1u /* the only message type of SP-over-IPC */

void sp_hello_pack(enum sp_protocol protocol, uint8_t out[SP_HELLO_LEN])
{
    const uint8_t hello[SP_HELLO_LEN] = {
        0, 'S', 'P', 0, (uint8_t)((unsigned)protocol >> 8), (uint8_t)protocol, 0, 0};

    memcpy(out, hello, SP_HELLO_LEN);
}

int sp_hello_parse(const uint8_t in[SP_HELLO_LEN], uint16_t *out_protocol)
{
    if (memcmp(in, "\0SP\0", 4) != 0 || in[6] != 0 || in[7] != 0)
        return -EBADMSG;
    *out_protocol = (uint16_t)(in[4] << 8 | in[5]);
    return 0;
}

void sp_head_pack(enum sp_framing framing, uint64_t payload_len, uint8_t *out)
{
    uint64_t big = htobe64(payload_len);

    if (framing == SP_IPC)
        *out++ = IPC_MESSAGE;
    memcpy(out, &big, 8);
}

int sp_head_parse(enum sp_framing framing, const uint8_t *data, size_t len, uint64_t max,
                  uint64_t *out_payload_len)
{
    size_t head = sp_head_len(framing);
    uint64_t big;

    /* The type is looked at as soon as it is there: a stranger to SP waits for no deadline. */
    if (framing == SP_IPC && len > 0 && data[0] != IPC_MESSAGE)
        return -EBADMSG;
    if (len < head)
        return -EAGAIN;
    memcpy(&big, data + head - 8, 8);
    if (be64toh(big) > max)
        return -EMSGSIZE;
    *out_payload_len = be64toh(big);
    return 0;
}

int sp_backtrace(const uint8_t *payload, size_t len, size_t *out_len)
{
    for (size_t at = 0; at <= 4 * LIMIT_SP_HOPS && len >= 4 && at <= len - 4; at += 4) {
        if (payload[at] & 0x80) {
            *out_len = at + 4;
            return 0;
        }
    }
    return -EBADMSG;
}
