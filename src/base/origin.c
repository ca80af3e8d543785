/* origin - a prefix, but of what stands for IPv4. */
#include "base/origin.h"
#include <string.h>

struct in6_addr origin_of(const struct in6_addr *ip)
{
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    struct in6_addr origin = *ip;

    if (!IN6_IS_ADDR_V4MAPPED(ip) && memcmp(ip, nat64, sizeof(nat64)) != 0)
        memset(origin.s6_addr + 8, 0, 8);
    return origin;
}
