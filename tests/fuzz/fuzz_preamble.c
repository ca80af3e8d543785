/* fuzz_preamble - both preambles: what is accepted packs to the same bytes, and every shorter input
 * asked for more. And the DATA header, of which every 24 bytes are one. */
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

static void any_data_header(const uint8_t *data)
{
    struct data_header header;
    uint8_t out[DATA_HEADER_LEN];

    data_header_parse(data, &header);
    data_header_pack(&header, out);
    check(memcmp(out, data, sizeof(out)) == 0);
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
    if (size >= DATA_HEADER_LEN)
        any_data_header(data + size - DATA_HEADER_LEN);
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
