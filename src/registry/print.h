/* print - the two log formats, byte for byte.
 *
 * Local first, then by ip, then by name. An empty map prints its first line only:
 *   [registry] services peer_id=n1 svc_map={total=0}
 *   [registry] peer_services_map peer_id=n1 {total_peers=0}
 */
#ifndef REGISTRY_PRINT_H
#define REGISTRY_PRINT_H

#include "registry/snapshot.h"

/* summary: the first line of each map only */
enum print_what { PRINT_FULL, PRINT_SUMMARY, PRINT_NOTHING };

/* Appends the services map, then the peer_services map, whole lines, as it calls write with blocks
 * of at most 64 KiB; a non-zero return of write stops and is returned. */
int print_maps(const struct snapshot *snap, const char *peer_id, enum print_what what,
               int (*write)(void *ctx, const char *text, size_t len), void *ctx);

#endif
