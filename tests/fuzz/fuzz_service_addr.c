/* fuzz_service_addr - one entry of SERVICE_ADDR: canonical parts or a reason, and the parts written
 * as an entry again give the same. */
#include <stdio.h>
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
    char name[LIMIT_NAME + 1], backend[LIMIT_BACKEND + 1], entry[LIMIT_NAME + LIMIT_BACKEND + 2];
    char name2[LIMIT_NAME + 1], backend2[LIMIT_BACKEND + 1];
    const char *why = NULL;

    if (service_addr_parse((const char *)data, size, name, backend, &why) < 0) {
        check(why != NULL && why[0] != '\0');
        return 0;
    }
    check(name_is_canon(name, strlen(name)));
    snprintf(entry, sizeof(entry), "%s:%s", name, backend);
    check(service_addr_parse(entry, strlen(entry), name2, backend2, &why) == 0);
    check(strcmp(name, name2) == 0 && strcmp(backend, backend2) == 0);
    return 0;
}
