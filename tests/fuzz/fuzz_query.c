/* fuzz_query - arguments, hosts and tags of strangers: what is taken is canonical and bounded, what
 * is refused says why; nothing depends on what lies behind the bytes. Fields are apart by '\n':
 * key, value, key, value ...; host and tag are the whole. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "web/query.h"
#include "wire/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

/* A copy of exactly so many bytes, so that a sanitizer sees what is read behind them. */
static char *copy_of(const char *from, size_t len)
{
    char *copy = malloc(len ? len : 1);

    memcpy(copy, from, len);
    return copy;
}

static void take_all(const char *text, size_t size, unsigned allowed)
{
    const char *at = text, *end = text + size;
    struct query query = {0};

    while (at < end) {
        const char *fields[2];
        size_t lens[2];
        char *key, *value, why[QUERY_WHY] = "";
        unsigned before = query.given;
        bool ok;

        for (int i = 0; i < 2; i++) {
            const char *stop = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;

            fields[i] = at;
            lens[i] = (size_t)((stop ? stop : end) - at);
            at = stop ? stop + 1 : end;
        }
        key = copy_of(fields[0], lens[0]);
        value = copy_of(fields[1], lens[1]);
        ok = query_take(&query, allowed, key, lens[0], value, lens[1], why);
        free(key);
        free(value);
        if (!ok) {
            check(*why && strlen(why) < QUERY_WHY);
            return;
        }
        check((query.given & before) == before && query.given != before);
        check((query.given & ~allowed) == 0);
        check(strlen(query.name) <= LIMIT_NAME && strlen(query.peer) < LIMIT_LABEL_TEXT);
        check(!(query.given & QUERY_NAME) || name_is_canon(query.name, strlen(query.name)));
        check(!(query.given & QUERY_STATE) || query.state != STATE_ANY);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), again[80];
    bool ours;

    memcpy(text, data, size);
    text[size] = '\0';
    take_all(text, size, 0);
    take_all(text, size, QUERY_NAME);
    take_all(text, size, QUERY_GLOB | QUERY_PEER | QUERY_STATE);
    ours = query_host_is_loopback(text);
    if (ours && strlen(text) < 70 && !strchr(text, ']') && !strchr(text, ':')) {
        strcpy(again, text);
        strcat(again, ":80");
        check(query_host_is_loopback(again));
        strcpy(again, text);
        strcat(again, ".example");
        check(!query_host_is_loopback(again));
    }
    check(!query_tag_matches(text, "\"1-2\"") || strchr(text, '*') || strstr(text, "\"1-2\""));
    free(text);
    return 0;
}
