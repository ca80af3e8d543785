/* relay - one leg joined with another, until both have ended.
 *
 * Bytes pass untouched and in order. A FIN is passed on when everything before it was delivered; an
 * RST after what is held was tried (if that direction had already ended cleanly: FIN). A side that
 * does not read is not read for. Memory is attached only while bytes are pending. Small amounts are
 * copied through the worker's scratch buffer; bulk goes through pooled pipes with splice(2), and
 * falls back to copies where that is not possible. Both directions idle for idle_ms, or one side
 * ended and no byte for half_close_ms: the end.
 *
 * Threads: the worker's.
 */
#ifndef FORWARD_RELAY_H
#define FORWARD_RELAY_H

#include "forward/end.h"
#include "forward/worker.h"

struct recheck; /* recheck.h */
struct relay;

struct relay_settings {
    struct leg *client, *backend; /* taken, also when it fails; a side that may send urgent data has
                                     SO_OOBINLINE */
    struct bytes up, down;        /* to be sent before anything else: to the backend, to the client;
                                     taken likewise */
    size_t delivered; /* of the client's bytes, the backend has so many before those: they count */
    void *ctx;
    bool (*may)(void *ctx); /* asked when other rules are in force: may it go on? NULL: it may */
    /* Once, never from within relay_begin; nothing of the relay is left. up, down: bytes delivered,
     * those handed in included. */
    void (*ended)(void *ctx, enum forward_end end, uint64_t up, uint64_t down);
};
/* NULL: no memory; both legs were reset. */
struct relay *relay_begin(struct worker *worker, const struct relay_settings *settings);
/* Both sides are reset; `ended` is called before it returns. */
void relay_cut(struct relay *relay, enum forward_end end);
/* Every relay of the worker. */
void relay_cut_all(struct worker *worker, enum forward_end end);
/* Those that may not go on, or have a leg that recheck does not let in any more, are cut. */
void relay_check_again(struct worker *worker, struct recheck *recheck);
void relay_worker_fini(struct worker *worker); /* the pool of pipes */

#endif
