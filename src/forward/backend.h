/* backend - a connection with a backend, by its "host:port".
 *
 * Names are resolved ahead of need, by a resolver of the room's own, and kept; the last good answer
 * stays when a later one fails. Several addresses are tried in turn, the next one 250 ms after the
 * last or as soon as that failed (RFC 8305 5). A connect that meets itself (a free port of this
 * host, RFC 9293 3.5) is a refusal.
 */
#ifndef FORWARD_BACKEND_H
#define FORWARD_BACKEND_H

#include "forward/worker.h"
#include "registry/snapshot.h"

struct forward;
struct names;
struct backend_try;

/* done: once, never from within backend_dial, never after backend_cancel. error 0: leg is connected
 * and the callee's, with TCP_NODELAY on. Else -ECONNREFUSED, -EHOSTUNREACH,
 * -ETIMEDOUT, -ENOENT (no such name) ... and leg is NULL. Returns 0 and *out_try, or a negative
 * errno when nothing was begun. Worker's thread. */
int backend_dial(struct worker *worker, const char *backend, uint32_t ms, void *ctx,
                 void (*done)(void *ctx, int error, struct leg *leg), struct backend_try **out_try);
void backend_cancel(struct backend_try *attempt);
/* For people: half a sentence. */
const char *backend_error_text(int error);

int names_new(struct forward *forward, struct names **out_names);
int names_start(struct names *names); /* its thread; before the workers start */
/* The local list is another: its hosts are resolved from names_start on, and again every 30 s while
 * they are in it. Main thread; takes its own reference. */
void names_show(struct names *names, struct snapshot *snap);
void names_stop(struct names *names); /* no callback runs afterwards; before the workers stop */
void names_free(struct names *names); /* accepts NULL; after the workers stopped */

#endif
