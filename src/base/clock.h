/* clock - the only place that reads one. Rooms below daemon take time as an argument. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_ms(void);      /* monotonic milliseconds; never goes back */
uint64_t clock_ns(void);      /* monotonic nanoseconds */
uint64_t clock_wall_us(void); /* unix time in microseconds; may go back */

/* Unix seconds of what happened at at_ms of clock_ms(), by the wall clock as it stands now: of what
 * it showed then, before somebody set it, readers would make ages that never were. offset_ms is
 * that of now; one does for many. */
int64_t clock_offset_ms(void);
uint64_t clock_unix_s(uint64_t at_ms, int64_t offset_ms);

#endif
