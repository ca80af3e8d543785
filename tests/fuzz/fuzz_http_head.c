/* fuzz_http_head - fed byte by byte and in two pieces, a head says what it says as a whole; what it
 * names is canonical. */
#include <stdlib.h>
#include <string.h>
#include "forward/http_head.h"
#include "wire/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void same(enum http_head_result result, const struct http_head *head,
                 enum http_head_result result_of_whole, const struct http_head *whole)
{
    check(result == result_of_whole && head->likely == whole->likely);
    check(result != HTTP_HEAD_BAD || head->why == whole->why);
    if (result != HTTP_HEAD_DONE)
        return;
    check(strcmp(head->name, whole->name) == 0 && head->connect == whole->connect);
    check(head->len == whole->len);
}

static void one(const uint8_t *data, size_t size, bool accept_bare_lf)
{
    struct http_head whole = {.accept_bare_lf = accept_bare_lf}, bytes = whole, cut = whole;
    enum http_head_result all = http_head_feed(&whole, data, size), result = HTTP_HEAD_MORE;
    size_t n = 0, middle = size ? data[size / 2] % size : 0;

    check(all != HTTP_HEAD_BAD || (whole.why && whole.why[0]));
    while (result == HTTP_HEAD_MORE && n < size)
        result = http_head_feed(&bytes, data, ++n);
    same(result, &bytes, all, &whole);
    result = http_head_feed(&cut, data, middle);
    if (result == HTTP_HEAD_MORE)
        result = http_head_feed(&cut, data, size);
    same(result, &cut, all, &whole);
    if (all != HTTP_HEAD_DONE)
        return;
    check(whole.len == n && n <= size && data[n - 1] == '\n');
    check(whole.name[0] == '\0' || name_is_canon(whole.name, strlen(whole.name)));
    check(whole.name[0] != '*' && (!whole.connect || whole.name[0] != '\0'));
    check(!memchr(data, '\0', n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    one(data, size, false);
    one(data, size, true);
    return 0;
}
