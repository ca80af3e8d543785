/* origin - which addresses count as one source, where a limit is "of one address".
 *
 * Whoever has one IPv6 address has its /64, too (RFC 4291: 64 bits are the interface's), and could
 * be somebody else with each connection; so a /64 is one source. An IPv4 address is one: a mapped
 * one, and one behind a NAT64 (64:ff9b::/96, RFC 6052), where the last 32 bits tell hosts apart.
 */
#ifndef BASE_ORIGIN_H
#define BASE_ORIGIN_H

#include <netinet/in.h>

/* The key of the source that ip belongs to. */
struct in6_addr origin_of(const struct in6_addr *ip);

#endif
