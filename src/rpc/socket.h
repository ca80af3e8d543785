/* socket - inside rpc: what its nng sockets have in common.
 *
 * They listen on ipc paths that only the gate reaches; they never dial, and are closed only when
 * no pipe is left.
 */
#ifndef RPC_SOCKET_H
#define RPC_SOCKET_H

#include <stdint.h>
#include <nng/nng.h>

/* A negative errno for an error of nng. */
int rpc_errno(int nng_error);

/* Limits what sock receives and listens; a socket file left behind is replaced. nng would probe it
 * with a connection that it then cuts, which can stop the accept loop of a living listener; that
 * there is none is for the owner of the directory to know. */
int rpc_listen(nng_socket sock, const char *path, uint64_t message_bytes);

/* To be called while nng reports REM_POST: fn runs, on an nng thread, when nothing of that pipe is
 * left. REM_POST itself comes before the protocol has let go of the pipe, so that a PAIR1 joined
 * again at that moment would still answer that it is busy. The thread that cleans up waits for fn:
 * it must not block. */
void rpc_after_pipe(void (*fn)(void *ctx), void *ctx);

#endif
