/* watch - the inner door of mesh_watch_open: a watch of the node at a URL. trust: for
 * tls://, else NULL. */
#ifndef CLIENT_WATCH_H
#define CLIENT_WATCH_H

#include <meshd/client.h>
#include "client/trust.h"

enum mesh_status watch_open_url(const char *url, struct trust *trust, const char *name,
                                int deadline_ms, struct mesh_watch **out_watch);

#endif
