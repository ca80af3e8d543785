/* trust - the nodes' certificates of a test, and wrappers: a socket of the test that says plaintext
 * and is heard in TLS, so that a test's far ends need not know which of the two a node speaks.
 */
#ifndef TESTS_FORWARD_TRUST_H
#define TESTS_FORWARD_TRUST_H

#include <stdbool.h>
#include "tls/tls.h"

/* MESHD_TEST_TLS is set: what can be in TLS is. Where there is a choice it says which: "client" or
 * "backend". */
bool trust_wanted(void);
bool trust_wanted_of(const char *which);
/* Whether bulk to that side passes without a copy: it is plaintext, or the kernel encrypts. */
bool trust_splices_to(const char *which);
/* That node's, of one CA for all; made once, and kept until the process ends. For "bare" the kernel
 * never encrypts: what is written to its descriptor arrives so. */
struct tls_keeper *trust_keeper(const char *peer_id);
/* From now on the CA does not vouch for that node: every keeper has read so. */
void trust_revoke(const char *peer_id);

/* Takes fd, connected, on which peer_id speaks TLS then. Returns the end of the test: a FIN there
 * is an end in order here and the other way round, an RST an RST. buffer: of the socket in between,
 * 0: as it comes. */
int trust_wrap(const char *peer_id, enum tls_role role, int fd, int buffer);
void trust_unwrapped(void); /* waits until no wrapper is left: both its ends have ended */
/* The handshake of peer_id on fd, which is non-blocking from then on; NULL: it failed. */
struct tls *trust_shake(const char *peer_id, enum tls_role role, int fd);

#endif
