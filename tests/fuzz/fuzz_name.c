/* fuzz_name - names, peer ids and addresses: what comes out is canonical and returns as it is. */
#include <stdlib.h>
#include <string.h>
#include "wire/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *in = (const char *)data;
    char once[LIMIT_NAME + 1], twice[LIMIT_NAME + 1];
    char backend[LIMIT_BACKEND + 1], again[LIMIT_BACKEND + 1];
    uint16_t port;

    if (name_canon(in, size, once) == NAME_OK) {
        check(strlen(once) <= size &&
              strspn(once, "abcdefghijklmnopqrstuvwxyz0123456789-_.*") == strlen(once));
        check(name_is_canon(once, strlen(once)));
        check(name_canon(once, strlen(once), twice) == NAME_OK && strcmp(once, twice) == 0);
        check(name_is_canon(in, size) == (strlen(once) == size && memcmp(once, in, size) == 0));
    } else {
        check(!name_is_canon(in, size));
    }
    if (peer_id_valid(in, size))
        check(size >= 1 && size <= LIMIT_PEER_ID && !memchr(in, '/', size));
    if (backend_canon(in, size, backend) == 0) {
        check(addr_split(in, size, once, &port) == 0 && port != 0);
        check(backend_canon(backend, strlen(backend), again) == 0);
        check(strcmp(backend, again) == 0);
        check(addr_split(backend, strlen(backend), twice, &port) == 0 && strcmp(once, twice) == 0);
    }
    return 0;
}
