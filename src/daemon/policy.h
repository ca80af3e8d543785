/* policy - the rules of the settings, put into force; who asks, as they know them; and a line for
 * what they refuse.
 */
#ifndef DAEMON_POLICY_H
#define DAEMON_POLICY_H

#include "daemon/config.h"
#include "gate/gate.h"
#include "policy/policy.h"

struct node;

/* A keeper without rules, whose refusals are logged as log_limited does, by action. 0 or -ENOMEM.
 */
int policy_start(struct policy_keeper **out_keeper);
void policy_left_out(uint64_t now_ms); /* now and then, for log_limited_rest. Any thread */
/* Its rules are those of the settings from now on. 0, or a negative errno and all is as it was. */
int policy_from_config(const struct config *config, struct policy_keeper *keeper);
/* Afterwards, while the node runs: links and names that are not allowed any more go, and those that
 * are now come back; what is forwarded is the caller's to have looked at. Main loop. */
void policy_changed(const struct config *config, struct node *node);

/* Whom rules are about: "@local", the peer that a preamble names, the one that a certificate does,
 * or "@anonymous". Borrowed from peer, or a constant. */
const char *policy_subject(const struct gate_peer *peer);

#endif
