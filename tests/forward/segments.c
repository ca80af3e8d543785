#include "forward/segments.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include "forward/must.h"

static struct tcp_info info_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
    return info;
}

uint32_t segments_in(int fd) { return info_of(fd).tcpi_segs_in; }

uint32_t data_segments_in(int fd) { return info_of(fd).tcpi_data_segs_in; }
