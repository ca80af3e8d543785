/* names - what hosts of backends resolve to, asked for ahead of need and kept.
 *
 * For backend.c; the life of it is in backend.h. A host that the local list names is asked for when
 * it comes, and again and again as long as it is named; its last good answer stays when a later one
 * fails. One that is not named yet is asked for when it is dialled.
 */
#ifndef FORWARD_NAMES_H
#define FORWARD_NAMES_H

#include <netinet/in.h>
#include "forward/backend.h"

#define NAMES_ADDRESSES 8u /* of one host; the rest is never tried */
#define NAMES_FOUND 64u    /* of which they are chosen */

struct addresses {
    unsigned n;
    struct in6_addr at[NAMES_ADDRESSES]; /* v4 mapped; in the order in which they are to be tried */
};

enum names_outcome { NAMES_E_LATER = 1 };

/* Its first members are set by who asks. */
struct names_wait {
    struct worker *worker;
    struct mail mail; /* comes to the worker with the answer */
    struct ring ring;
    bool posted;
    int error;              /* 0, or a negative errno: -ENOENT, -ENOMEM */
    struct addresses found; /* if that is 0 */
};
/* 0: wait->found is there. A negative errno: it failed a moment ago, or names_stop was called.
 * NAMES_E_LATER: it joined the query that runs; the mail comes, unless names_leave is called. Any
 * thread. */
int names_ask(struct names *names, const char *host, struct names_wait *wait);
/* False: the mail is on its way already. After NAMES_E_LATER. */
bool names_leave(struct names *names, struct names_wait *wait);

struct names_how {
    /* Blocks, on any thread, even after names_free. Returns how many were written, or a negative
     * errno. */
    int (*resolve)(const char *host, struct in6_addr *out, size_t cap);
    uint32_t again_ms; /* after an answer or a failure */
};
/* names_new with another resolver. */
int names_new_by(struct forward *forward, const struct names_how *how, struct names **out_names);

#endif
