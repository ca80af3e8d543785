/* forwards - a log line for each forward at its end, as log.forwards wants it. */
#ifndef DAEMON_FORWARDS_H
#define DAEMON_FORWARDS_H

#include "forward/forward.h"

/* From now on; off to begin with. Any thread. */
void forwards_set(struct forward *forward, enum forward_records records);
/* For forward_ops.ended. Ends in order are lines of level info, others of level warn. Where errors
 * are all that is wanted, repeats of one end are limited as log_limited does, for anybody can cause
 * them; where all are wanted, none is left out that standard error takes. */
void forwards_log(void *ctx, const struct forward_record *record);
/* One line for each reason for which clients were reset before a word since the last time, for no
 * record tells of them; now and then. The main loop. */
void forwards_turned_away(struct forward *forward, const struct limits *limits);
void forwards_left_out(uint64_t now_ms); /* now and then, for log_limited_rest. Any thread */

#endif
