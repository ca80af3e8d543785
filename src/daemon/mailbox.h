/* mailbox - work for the main loop from other threads, in the order in which it was posted.
 *
 * A letter is embedded in whatever it is about, so that posting cannot fail. The main loop takes
 * all that has come in one go, at most MAILBOX_BATCH before it looks at its timers again.
 */
#ifndef DAEMON_MAILBOX_H
#define DAEMON_MAILBOX_H

#include <stddef.h>
#include <uv.h>
#include "base/cleanup.h"
#include "base/lock.h"

#define MAILBOX_BATCH 256u

struct letter {
    struct letter *next;
    void (*read)(struct letter *letter); /* on the main loop; owns the letter from then on */
};

struct mailbox {
    uv_async_t bell;
    struct mutex lock;
    struct letter *first, **last; /* with lock held */
    void (*after)(void *ctx);     /* after each batch, on the main loop */
    void *ctx;
};

int mailbox_init(struct mailbox *box, uv_loop_t *loop, void (*after)(void *ctx), void *ctx);
/* After the loop: reads what is there; `after` is not called any more. */
void mailbox_read(struct mailbox *box);
/* Reads what is left, then closes the bell; the loop must run once more for that. */
void mailbox_close(struct mailbox *box);
void mailbox_post(struct mailbox *box, struct letter *letter); /* any thread */

/* malloc that ends the process with a message when there is no memory: for small things whose loss
 * would leave a state machine waiting for ever. */
void *must_alloc(size_t size);

#endif
