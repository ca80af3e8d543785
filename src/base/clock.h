/* clock - the only place that reads one. Rooms below daemon take time as an argument. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_ms(void);      /* monotonic milliseconds; never goes back */
uint64_t clock_ns(void);      /* monotonic nanoseconds */
uint64_t clock_wall_us(void); /* unix time in microseconds; may go back */

#endif
