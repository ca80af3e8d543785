/* fuzz_client_hello - fed byte by byte, in two pieces and, where all of it is one record, in
 * records of a few bytes, a hello says what it says as a whole. */
#include <stdlib.h>
#include <string.h>
#include "forward/client_hello.h"
#include "wire/name.h"

#define LIMIT 16384u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void same(enum client_hello_result result, const struct client_hello *hello,
                 enum client_hello_result result_of_whole, const struct client_hello *whole)
{
    check(result == result_of_whole);
    check(result != CLIENT_HELLO_BAD || hello->why == whole->why);
    check(result != CLIENT_HELLO_DONE || strcmp(hello->name, whole->name) == 0);
}

/* The one record of data, again in records of `fragment` bytes. */
static void in_records(const uint8_t *data, size_t size, size_t fragment,
                       enum client_hello_result all, const struct client_hello *whole)
{
    struct client_hello hello = {.limit = LIMIT};
    uint8_t *records = malloc(size * 6);
    size_t len = 0;

    check(records != NULL);
    for (size_t at = 5, n; at < size; at += n) {
        n = size - at < fragment ? size - at : fragment;
        memcpy(records + len, data, 3);
        records[len + 3] = 0;
        records[len + 4] = (uint8_t)n;
        memcpy(records + len + 5, data + at, n);
        len += 5 + n;
    }
    same(client_hello_feed(&hello, records, len), &hello, all, whole);
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct client_hello whole = {.limit = LIMIT}, bytes = whole, cut = whole;
    enum client_hello_result all = client_hello_feed(&whole, data, size);
    enum client_hello_result result = CLIENT_HELLO_MORE;
    size_t n = 0, middle = size ? data[size / 2] % size : 0;

    check(all != CLIENT_HELLO_BAD || (whole.why && whole.why[0]));
    if (size > 1 && data[0] == 0x16 && data[1] == 3)
        check(all != CLIENT_HELLO_OTHER);
    while (result == CLIENT_HELLO_MORE && n < size)
        result = client_hello_feed(&bytes, data, ++n);
    same(result, &bytes, all, &whole);
    result = client_hello_feed(&cut, data, middle);
    if (result == CLIENT_HELLO_MORE)
        result = client_hello_feed(&cut, data, size);
    same(result, &cut, all, &whole);
    if (size > 5 && data[0] == 0x16 && data[1] == 3 && size - 5 <= LIMIT &&
        (size_t)(data[3] << 8 | data[4]) == size - 5)
        in_records(data, size, 1 + data[size - 1] % 255u, all, &whole);
    if (all == CLIENT_HELLO_DONE && whole.name[0] != '\0')
        check(name_is_canon(whole.name, strlen(whole.name)) && whole.name[0] != '*');
    return 0;
}
