/* paths - the node's private directory: lock, local socket, nng's paths. */
#ifndef DAEMON_PATHS_H
#define DAEMON_PATHS_H

#include "daemon/privileges.h"

struct paths {
    char socket[128]; /* meshd.sock */
    char nng[128];    /* directory of nng's ipc paths */
    char rep[160];    /* the REP socket's, in it */
    int lock_fd;      /* held while the process lives */
};

struct paths_settings { /* all borrowed for the call */
    const char *dir, *peer_id;
    const struct config_group *socket_group;
    unsigned socket_mode;
    struct privileges_owner owner;
};

/* Makes dir with its parents, takes its lock, removes what a killed node left; all of it is the
 * owner's then. dir is 0700, but for whom socket_mode lets connect: these may pass through. Returns
 * 0, or a negative errno after it was logged with what to do; -EBUSY: another node runs there. */
int paths_open(const struct paths_settings *settings, struct paths *out_paths);
/* Removes what it made, but for the directory itself. */
void paths_close(struct paths *paths);

#endif
