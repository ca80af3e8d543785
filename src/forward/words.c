/* words - bytes and their parser. */
#include "forward/words.h"

#include <stdlib.h>
#include <string.h>
#include "base/array.h"

#define LEAST 1024u

struct words *words_new(size_t limit, bool accept_bare_lf)
{
    struct words *words = calloc(1, sizeof(*words));

    if (!words)
        return NULL;
    words->first.limit = limit;
    words->first.accept_bare_lf = accept_bare_lf;
    return words;
}

void words_free(struct words *words)
{
    if (words)
        free(words->data);
    free(words);
}

bool words_add(struct words *words, const void *data, size_t len)
{
    if (array_room(&words->data, &words->cap, words->len + len, 1, LEAST) < 0)
        return false;
    memcpy(words->data + words->len, data, len);
    words->len += len;
    return true;
}

void words_cut(struct words *words, size_t n)
{
    words->len -= n;
    memmove(words->data, words->data + n, words->len);
}

struct bytes words_take_rest(struct words **words, size_t delivered)
{
    struct words *all = TAKE(words);
    struct bytes rest = {0};
    size_t head;

    if (!all)
        return rest;
    head = all->first.skip + delivered;
    if (head < all->len)
        rest = (struct bytes){.data = TAKE(&all->data), .head = head, .len = all->len};
    words_free(all);
    return rest;
}

bool bytes_put_in_front(struct bytes *bytes, const char *text)
{
    size_t n = strlen(text), left = bytes_left(bytes);
    uint8_t *data = malloc(n + left);

    if (!data)
        return false;
    memcpy(data, text, n);
    if (left > 0)
        memcpy(data + n, bytes->data + bytes->head, left);
    bytes_free(bytes);
    *bytes = (struct bytes){.data = data, .len = n + left};
    return true;
}
