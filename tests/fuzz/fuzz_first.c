/* fuzz_first - fed byte by byte and in two pieces, first bytes say what they say as a whole, also
 * about a limit; and each refusal can be told. */
#include <stdlib.h>
#include <string.h>
#include "forward/first.h"
#include "forward/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void same(enum first_result result, const struct first *first,
                 enum first_result result_of_whole, const struct first *whole)
{
    check(result == result_of_whole && first->kind == whole->kind);
    check(result != FIRST_BAD || first->why == whole->why);
    if (result != FIRST_DONE)
        return;
    check(strcmp(first->name, whole->name) == 0 && first->may_default == whole->may_default);
    check(first->skip == whole->skip);
}

static void one(const uint8_t *data, size_t size, size_t limit)
{
    struct first whole = {.limit = limit}, bytes = whole, cut = whole;
    enum first_result all = first_feed(&whole, data, size), result = FIRST_MORE;
    size_t n = 0, middle = size ? data[size / 2] % size : 0;
    uint8_t out[REPLY_MAX];

    while (result == FIRST_MORE && n < size)
        result = first_feed(&bytes, data, ++n);
    same(result, &bytes, all, &whole);
    result = first_feed(&cut, data, middle);
    if (result == FIRST_MORE)
        result = first_feed(&cut, data, size);
    same(result, &cut, all, &whole);
    check(all != FIRST_MORE || size < limit);
    if (all == FIRST_DONE)
        check(whole.skip <= size && (whole.kind != FIRST_CONNECT || whole.name[0] != '\0'));
    if (all == FIRST_BAD)
        check(reply_pack(whole.kind, whole.bodiless, FORWARD_BAD_REQUEST, whole.why, "n1", out) >
              0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    one(data, size, 65536);
    one(data, size, 1 + (size ? data[size - 1] : 0));
    return 0;
}
