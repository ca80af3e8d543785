/* reply - the header of a reply, and the reply to a Lookup, from the bytes to what programs see,
 * without a message in between: a Lookup of a thousand names has ten thousand strings. Pure. */
#ifndef CLIENT_REPLY_H
#define CLIENT_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "client/error.h"

struct reply {
    uint64_t call_id;
    struct error_answer answer; /* its text is borrowed from the data; status 0: OK */
    const uint8_t *body;        /* the message */
    size_t body_len;
};

/* A reply's frame (wire/frame.h, 2), without its backtrace. 0 or -EBADMSG. */
int reply_split(const uint8_t *data, size_t len, struct reply *out);

struct reply_part { /* of a LookupReply that has `all` results: those from first on, n of them */
    size_t first, n, all;
};

/* A part of a LookupReply as a new list, one group per result. 0; -EBADMSG: not such a message, or
 * not of so many results; -E2BIG: it would need more than 10 times the message's length and 64 KiB;
 * -ENOMEM. *out_bad_name: a name of the part was refused as one that cannot be. */
int reply_lookup(const uint8_t *data, size_t len, const struct reply_part *part,
                 struct mesh_list **out_list, bool *out_bad_name);

#endif
