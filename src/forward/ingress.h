/* ingress - the ports where clients connect: accepting, the first words, what happens then.
 *
 * A port is mapped to one service, and then the backend is dialled at accept, for protocols in
 * which the server speaks first; or it is automatic, and the name is found in the first bytes
 * (first.h). One total deadline (route_ms) runs from accept until the client is joined. Who cannot
 * be joined is told why in the words of its protocol (reply.h), and its connection is closed so
 * that the words arrive (RFC 9112 9.6). A client that closes its side without RST has not given up.
 */
#ifndef FORWARD_INGRESS_H
#define FORWARD_INGRESS_H

#include "forward/tuple.h"
#include "forward/worker.h"

struct ingress; /* a port; client.h */

int ingress_new(struct forward *forward, const struct forward_ingress *settings, size_t n);
int ingress_listen(struct forward *forward, size_t index, char *out_text, size_t size);
int ingress_worker_start(struct worker *worker); /* its thread: accepts from now on */
/* Its thread: takes who is in the queue, and accepts no more; the last worker closes the ports. */
void ingress_worker_drain(struct worker *worker);
void ingress_worker_stop(struct worker *worker); /* its thread: resets who is not joined yet */
void ingress_close(struct forward *forward);     /* main thread, no worker runs */
void ingress_free(struct forward *forward);
/* Who connects from there must send a PROXY header first. */
bool ingress_wants_header(const struct ingress *port, const struct in6_addr *ip);

#endif
