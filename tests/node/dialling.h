/* dialling - what the suites about the side that dials share: what is answered to it, at 10.0.0.9.
 */
#ifndef NODE_DIALLING_H
#define NODE_DIALLING_H

#include <stdint.h>
#include "node/stage.h"

extern const char (*dialling_certificate)[LIMIT_PEER_ID + 1]; /* of who answers; NULL: plaintext */

const char *dialling_state(void); /* of the first link */
void dialling_resolved(void);
void dialling_answer(uint32_t status, int reason, const char *text,
                     const Meshd__V1__RegisterReply *reply);
void dialling_welcome(const char *id, uint64_t incarnation);
/* A live link with the peer at the other end. */
struct stage_peer dialling_meet(const char *id);

#endif
