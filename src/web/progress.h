/* progress - how far a TCP connection has come, as the kernel counts it. Zero where it does not. */
#ifndef WEB_PROGRESS_H
#define WEB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    uint64_t taken;   /* bytes of ours that the other side has acknowledged */
    bool untaken;     /* there are some that it has not, and may */
    bool half_closed; /* the other side sends nothing any more */
};
struct progress progress_of(int fd);

#endif
