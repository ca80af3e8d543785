/* requester - a peer that the test plays asks a node, side DIALLER of a rig, for its service "web".
 */
#ifndef TESTS_FORWARD_REQUESTER_H
#define TESTS_FORWARD_REQUESTER_H

#include "forward/peer.h"

extern struct rig rig;
extern struct peer peer;
extern int backend_fd; /* where the backend of "web" listens */
extern uint8_t id[FORWARD_ID_LEN];

void requester_setup(void);
void requester_start(bool dialled); /* the peer dialled the node, or was dialled by it */
void requester_end(void);           /* insists on nothing being left */
void forward_with(const char *first, size_t len, bool dial_data);
int dial_with_header(struct peer *from, uint64_t offset);
void expect_accepted(void);

#endif
