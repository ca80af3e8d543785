/* progress - in a file of its own: libc's <netinet/tcp.h>, which libuv brings along, has an older
 * struct tcp_info without what is asked for here. */
#include "web/progress.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* Of <netinet/tcp.h>: TCP_CLOSE, TCP_CLOSE_WAIT. */
#define CLOSED 7
#define CLOSE_WAIT 8

struct progress progress_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return (struct progress){0};
    return (struct progress){
        .taken = info.tcpi_bytes_acked,
        .untaken = info.tcpi_state != CLOSED && (info.tcpi_unacked || info.tcpi_notsent_bytes),
        .half_closed = info.tcpi_state == CLOSE_WAIT,
    };
}
