/* trust - what connections to tls:// are made with: own certificate, CA, and who must answer.
 *
 * One belongs to what a program opened, and is shared by all that it connects with: a client, its
 * leases and watches, a replica. The files are read when it is made, and again before each
 * connection after the first, so that a certificate that was renewed is used; files that are broken
 * then change nothing.
 *
 * Threads: any, side by side.
 */
#ifndef CLIENT_TRUST_H
#define CLIENT_TRUST_H

#include <stdbool.h>
#include <meshd/client.h>
#include "tls/tls.h"

struct trust;

bool trust_wanted(const char *url); /* it begins with tls:// */
/* tls as of mesh_client_open_tls, NULL likewise. 0; -ENOMEM, or another negative errno: the files
 * will not do, and out_why says why. */
int trust_new(const struct mesh_tls *tls, char out_why[TLS_WHY], struct trust **out_trust);
/* The same for a URL, whose scheme decides: *out_trust is NULL unless it is tls://. */
int trust_for(const char *url, const struct mesh_tls *tls, char out_why[TLS_WHY],
              struct trust **out_trust);
/* The same; MESH_INVALID (or MESH_NO_MEMORY), with its text set. */
enum mesh_status trust_open(const char *url, const struct mesh_tls *tls, struct trust **out_trust);
struct trust *trust_ref(struct trust *trust); /* accepts NULL */
void trust_unref(struct trust *trust);        /* accepts NULL */
void trust_unrefp(struct trust **trust);

/* A session over fd, which stays the caller's; as tls_new. It ends before the trust does. */
int trust_session(struct trust *trust, int fd, struct tls **out_tls);

#endif
