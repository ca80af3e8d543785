/* words - what a client has said before it was joined. Grows as bytes arrive; its owner sees to it
 * that they are not too many.
 */
#ifndef FORWARD_WORDS_H
#define FORWARD_WORDS_H

#include "forward/first.h"
#include "forward/worker.h"

struct words {
    uint8_t *data;
    size_t len, cap;
    struct first first;
};

struct words *words_new(size_t limit, bool accept_bare_lf);
void words_free(struct words *words);                              /* accepts NULL */
bool words_add(struct words *words, const void *data, size_t len); /* false: no memory */
void words_cut(struct words *words, size_t n);                     /* the first n are for nobody */
/* What is for the backend, but for so many bytes of it; *words (which may be NULL) are gone. */
struct bytes words_take_rest(struct words **words, size_t delivered);
bool bytes_put_in_front(struct bytes *bytes, const char *text); /* false: no memory */

#endif
