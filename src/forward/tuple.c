/* tuple - addresses as bytes. */
#include "forward/tuple.h"

#include <string.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

bool endpoint_from(const struct sockaddr_storage *addr, struct endpoint *out)
{
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;

        memcpy(out->ip.s6_addr, mapped, sizeof(mapped));
        memcpy(out->ip.s6_addr + 12, &v4->sin_addr, 4);
        out->port = ntohs(v4->sin_port);
        return true;
    }
    if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;

        out->ip = v6->sin6_addr;
        out->port = ntohs(v6->sin6_port);
        return true;
    }
    return false;
}

void endpoint_to(const struct endpoint *endpoint, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;

    memset(out, 0, sizeof(*out));
    if (endpoint->port == 0)
        return;
    if (!IN6_IS_ADDR_V4MAPPED(&endpoint->ip)) {
        *(struct sockaddr_in6 *)out = (struct sockaddr_in6){
            .sin6_family = AF_INET6, .sin6_port = htons(endpoint->port), .sin6_addr = endpoint->ip};
        return;
    }
    *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(endpoint->port)};
    memcpy(&v4->sin_addr, endpoint->ip.s6_addr + 12, 4);
}

unsigned endpoint_bytes(const struct endpoint *endpoint, uint8_t out[16])
{
    if (IN6_IS_ADDR_V4MAPPED(&endpoint->ip)) {
        memcpy(out, endpoint->ip.s6_addr + 12, 4);
        return 4;
    }
    memcpy(out, endpoint->ip.s6_addr, 16);
    return 16;
}

bool endpoint_of_bytes(const uint8_t *ip, size_t len, uint16_t port, struct endpoint *out)
{
    if (len == 4) {
        memcpy(out->ip.s6_addr, mapped, sizeof(mapped));
        memcpy(out->ip.s6_addr + 12, ip, 4);
    } else if (len == 16) {
        memcpy(out->ip.s6_addr, ip, 16);
    } else {
        return false;
    }
    out->port = port;
    return true;
}

bool network_has(const uint8_t network[16], unsigned bits, const struct in6_addr *ip)
{
    unsigned whole = bits / 8, rest = bits % 8;

    if (memcmp(network, ip->s6_addr, whole) != 0)
        return false;
    return rest == 0 || ((network[whole] ^ ip->s6_addr[whole]) >> (8 - rest)) == 0;
}
