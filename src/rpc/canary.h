/* canary - is nng's clean-up thread alive? An inproc pair is made and closed on a thread of its
 * own; its REM_POST must come within 5 s in which this process runs (about 1 ms when healthy). If
 * it does not, no pipe of this process will ever be cleaned up again: `sick` is called, once, on
 * the canary's thread.
 */
#ifndef RPC_CANARY_H
#define RPC_CANARY_H

#include <stdbool.h>
#include <stdint.h>

struct canary;

int canary_start(uint32_t every_ms, void (*sick)(void *ctx), void *ctx, struct canary **out_canary);
void canary_stop(struct canary *canary); /* accepts NULL; joins the thread (at most 5 s) */
bool canary_healthy(const struct canary *canary);
/* Sings once now and waits for it: 0, -ETIMEDOUT after 5 s, or another negative errno when it could
 * not sing (no memory, no thread). For tests. */
int canary_sing(void);

#endif
