/* tuple - the two ends of a client's connection, as bytes. Pure. */
#ifndef FORWARD_TUPLE_H
#define FORWARD_TUPLE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct endpoint {
    struct in6_addr ip; /* v4 mapped */
    uint16_t port;      /* host order; 0: not known */
};
struct tuple {
    struct endpoint client, server; /* server: where the client connected to */
};

/* A v4 mapped address is AF_INET; AF_UNSPEC: its port is not known. */
void endpoint_to(const struct endpoint *endpoint, struct sockaddr_storage *out);
bool endpoint_from(const struct sockaddr_storage *addr,
                   struct endpoint *out); /* false: neither v4 nor v6 */
/* 4 or 16 bytes, as messages carry an address; returns how many. */
unsigned endpoint_bytes(const struct endpoint *endpoint, uint8_t out[16]);
bool endpoint_of_bytes(const uint8_t *ip, size_t len, uint16_t port, struct endpoint *out);
bool network_has(const uint8_t network[16], unsigned bits, const struct in6_addr *ip);

#endif
