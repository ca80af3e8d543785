/* random - getrandom(2), whole or not at all. */
#include "base/random.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/types.h>

void random_bytes(void *out, size_t len)
{
    char *at = out;
    ssize_t n;

    while (len > 0) {
        n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        /* Tokens and session ids that can be guessed are worse than no process. */
        if (n <= 0)
            abort();
        at += n;
        len -= (size_t)n;
    }
}

uint64_t random_u64(void)
{
    uint64_t value;

    random_bytes(&value, sizeof(value));
    return value;
}
