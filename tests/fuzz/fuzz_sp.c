/* fuzz_sp - a stream of SP messages; the first byte chooses the framing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/limits.h"
#include "wire/sp.h"

#define MESSAGE_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void one_payload(const uint8_t *payload, size_t len)
{
    size_t trace;

    if (sp_backtrace(payload, len, &trace) < 0)
        return;
    check(trace >= 4 && trace <= 4 * (LIMIT_SP_HOPS + 1) && trace <= len && trace % 4 == 0);
    check(payload[trace - 4] & 0x80);
    for (size_t at = 0; at + 4 < trace; at += 4)
        check(!(payload[at] & 0x80));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum sp_framing framing;
    uint8_t hello[SP_HELLO_LEN], head[SP_HEAD_MAX];
    uint16_t protocol;
    uint64_t len;
    int r;

    if (size < 1)
        return 0;
    framing = data[0] & 1 ? SP_IPC : SP_TCP;
    data++;
    size--;
    if (size >= SP_HELLO_LEN && sp_hello_parse(data, &protocol) == 0) {
        sp_hello_pack((enum sp_protocol)protocol, hello);
        check(memcmp(hello, data, SP_HELLO_LEN) == 0);
        data += SP_HELLO_LEN;
        size -= SP_HELLO_LEN;
    }
    while ((r = sp_head_parse(framing, data, size, MESSAGE_MAX, &len)) == 0) {
        check(len <= MESSAGE_MAX);
        sp_head_pack(framing, len, head);
        check(memcmp(head, data, sp_head_len(framing)) == 0);
        data += sp_head_len(framing);
        size -= sp_head_len(framing);
        if (len > size)
            return 0;
        one_payload(data, (size_t)len);
        data += len;
        size -= (size_t)len;
    }
    check(r == -EAGAIN || r == -EBADMSG || r == -EMSGSIZE);
    check(r != -EAGAIN || size < sp_head_len(framing));
    return 0;
}
