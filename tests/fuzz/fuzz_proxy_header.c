/* fuzz_proxy_header - every shorter input asked for more, or was as bad; what has addresses packs
 * to a header that says the same. */
#include <stdlib.h>
#include <string.h>
#include "forward/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void packs_to_the_same(const struct proxy_header *header)
{
    uint8_t out[PROXY_PACK_MAX];
    struct proxy_header again;

    for (unsigned version = 1; version <= 2; version++) {
        size_t len = proxy_header_pack(version, &header->tuple, out);

        check(len <= (version == 1 ? PROXY_V1_MAX : PROXY_PACK_MAX));
        check(proxy_header_parse(out, len, &again) == PROXY_HEADER_DONE && again.len == len);
        if (again.has_addresses)
            check(memcmp(&again.tuple, &header->tuple, sizeof(again.tuple)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header header, shorter;
    enum proxy_header_result all, result = PROXY_HEADER_MORE;
    size_t n = 0;

    memset(&header, 0, sizeof(header));
    all = proxy_header_parse(data, size, &header);
    while (result == PROXY_HEADER_MORE && n < size)
        result = proxy_header_parse(data, ++n, &shorter);
    check(result == all);
    check(all != PROXY_HEADER_MORE || size < PROXY_V2_MAX);
    if (all == PROXY_HEADER_DONE) {
        check(header.len == n && shorter.len == n);
        check(header.has_addresses == shorter.has_addresses);
    }
    if (all == PROXY_HEADER_DONE && header.has_addresses)
        packs_to_the_same(&header);
    return 0;
}
