/* fuzz_preamble - both preambles: what is accepted packs to the same bytes, and every shorter input
 * asked for more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t out[PREAMBLE_REPLY_MAX > PREAMBLE_MAX ? PREAMBLE_REPLY_MAX : PREAMBLE_MAX];
    struct preamble_reply reply;
    struct preamble preamble;
    int r = preamble_parse(data, size, &preamble);

    check(r > 0 || r == -EAGAIN || r == -EBADMSG || r == -EPROTONOSUPPORT);
    check(r != -EAGAIN || size < PREAMBLE_MAX);
    if (r > 0) {
        check((size_t)r <= size && (size_t)r <= PREAMBLE_MAX);
        check(preamble_pack(&preamble, out) == (size_t)r && memcmp(out, data, (size_t)r) == 0);
        for (int n = 0; n < r; n++)
            check(preamble_parse(data, (size_t)n, &preamble) == -EAGAIN);
    }
    r = preamble_reply_parse(data, size, &reply);
    check(r > 0 || r == -EAGAIN || r == -EBADMSG || r == -EPROTONOSUPPORT);
    check(r != -EAGAIN || size < PREAMBLE_REPLY_MAX);
    if (r > 0) {
        check((size_t)r <= size && strlen(reply.text) <= LIMIT_STATUS_TEXT);
        for (int n = 0; n < r; n++)
            check(preamble_reply_parse(data, (size_t)n, &reply) == -EAGAIN);
    }
    return 0;
}
