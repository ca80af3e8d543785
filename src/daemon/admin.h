/* admin - the admin port's part of a node: what web asks, answered from it.
 *
 * Health, readiness and the node are asked on the main loop, which makes a quick copy; Explain and
 * pictures of the maps are taken where they are asked for.
 */
#ifndef DAEMON_ADMIN_H
#define DAEMON_ADMIN_H

#include "daemon/config.h"
#include "daemon/serve.h"

struct admin;

/* Binds the port, before privileges are dropped; serve (borrowed) is filled in later, before
 * admin_start, and learns of web and its address here. *out_admin is NULL where it is off. An error
 * was told. */
int admin_listen(const struct config *config, struct serve *serve, struct admin **out_admin);
/* Something happened, the maps changed: for whoever follows the page. Both borrow; accept NULL. */
void admin_event(struct admin *admin, const struct node_event *event);
void admin_show(struct admin *admin, struct snapshot *snap);
int admin_start(struct admin *admin); /* the thread; says so; accepts NULL */
void admin_stop(struct admin *admin); /* accepts NULL */
/* After the mailbox was closed: letters of its own may lie there. Accepts NULL. */
void admin_free(struct admin *admin);

#endif
