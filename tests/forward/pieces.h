/* pieces - feeds an incremental parser the same bytes in many ways: whole, one by one, and in two
 * pieces cut at every place.
 *
 * Every call gets a copy of exactly the bytes that have arrived, somewhere else each time: a parser
 * that keeps a pointer, or looks past the end, is seen under ASan.
 */
#ifndef TESTS_FORWARD_PIECES_H
#define TESTS_FORWARD_PIECES_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pieces {
    void *ctx;
    void (*begin)(void *ctx); /* a new parser */
    /* 0: more is needed. */
    int (*feed)(void *ctx, const uint8_t *data, size_t len);
    void (*check)(void *ctx, int result, const char *how); /* at the end, or when it was decided */
};

static inline int pieces_feed(const struct pieces *pieces, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    int result;

    cr_assert_not_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    result = pieces->feed(pieces->ctx, copy, len);
    free(copy);
    return result;
}

/* Returns after how many bytes it was decided, len if it was not. */
static inline size_t pieces_all(const struct pieces *pieces, const uint8_t *data, size_t len)
{
    char how[64];
    size_t at;
    int result;

    pieces->begin(pieces->ctx);
    pieces->check(pieces->ctx, pieces_feed(pieces, data, len), "whole");

    for (size_t cut = 0; cut < len; cut++) {
        snprintf(how, sizeof(how), "cut after %zu bytes", cut);
        pieces->begin(pieces->ctx);
        result = pieces_feed(pieces, data, cut);
        if (result == 0)
            result = pieces_feed(pieces, data, len);
        pieces->check(pieces->ctx, result, how);
    }

    pieces->begin(pieces->ctx);
    result = pieces_feed(pieces, data, 0);
    for (at = 0; result == 0 && at < len; at++)
        result = pieces_feed(pieces, data, at + 1);
    pieces->check(pieces->ctx, result, "byte by byte");
    cr_expect_eq(pieces_feed(pieces, data, len), result, "what was decided stays so");
    return at;
}

#endif
