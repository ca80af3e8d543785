/* fuzz_http_status - fed byte by byte and in two pieces, an answer says what it says as a whole;
 * what was decided stays so. */
#include <stdlib.h>
#include <string.h>
#include "forward/http_status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_status whole = {0}, bytes = {0}, cut = {0};
    enum http_status_result all = http_status_feed(&whole, data, size);
    size_t middle = size ? data[size / 2] % size : 0;

    for (size_t i = 0; i < size; i++)
        http_status_feed(&bytes, data + i, 1);
    check(http_status_feed(&bytes, data, 0) == all && bytes.status == whole.status);
    http_status_feed(&cut, data, middle);
    check(http_status_feed(&cut, data + middle, size - middle) == all);
    check(cut.status == whole.status && cut.n == whole.n);
    check(all != HTTP_STATUS_DONE || whole.status == 101 ||
          (whole.status >= 200 && whole.status <= 999));
    check(whole.n <= HTTP_STATUS_BYTES + 1);
    check(all == HTTP_STATUS_MORE || http_status_feed(&whole, data, size) == all);
    return 0;
}
