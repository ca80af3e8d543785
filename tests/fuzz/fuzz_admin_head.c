/* fuzz_admin_head - a head ends at the same place however it comes; one that is taken is what its
 * header says; one that is not has a status and a text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "web/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void refused(const struct head_error *error)
{
    check(error->status >= 400 && error->status <= 505 && error->text && error->text[0]);
}

static void taken(const char *head, size_t len)
{
    const char *line = head, *end = head + len;

    check(len <= HEAD_BYTES && head[len - 1] == '\n' && !memchr(head, '\0', len));
    while (*line == '\r' || *line == '\n')
        line++;
    end = memchr(line, '\n', (size_t)(end - line));
    check(end - line >= 14); /* "GET / HTTP/1.1" CR or LF */
    check(memcmp(line, "GET ", 4) == 0 || memcmp(line, "HEAD ", 5) == 0);
    check(head_is_head(head, len) == (*line == 'H'));
    check(!memmem(line, (size_t)(end - line), "%00", 3));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *head = calloc(size ? size : 1, 1); /* exactly, for the sanitizer */
    size_t seen = 0, seen_all = 0, len = 0, all, n = 0;
    struct head_error error = {0};

    check(head != NULL);
    if (size)
        memcpy(head, data, size);
    all = head_length(head, size, &seen_all);
    while (!len && n < size)
        len = head_length(head, ++n, &seen);
    check(len == all && (!len || len == n));
    for (int loopback = 0; len && loopback < 2; loopback++) {
        if (head_take(head, len, loopback, &error))
            taken(head, len);
        else
            refused(&error);
    }
    for (int ended = 0; !len && ended < 2; ended++)
        if (head_hopeless(head, size, ended, &error))
            refused(&error);
        else
            check(!ended);
    free(head);
    return 0;
}
