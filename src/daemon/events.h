/* events - what happens to links and peers, as log lines that say what to do next. */
#ifndef DAEMON_EVENTS_H
#define DAEMON_EVENTS_H

#include "node/port.h"

void events_log(const struct node_event *event);

#endif
