/* events - what happens to links and peers, as log lines that say what to do next. The main loop's.
 */
#ifndef DAEMON_EVENTS_H
#define DAEMON_EVENTS_H

#include "node/port.h"

void events_log(const struct node_event *event);
/* Now and then: tells of lines that were left out because there were too many. */
void events_left_out(uint64_t now_ms);

#endif
