/* paths - the node's private directory: lock, local socket, nng's paths. */
#ifndef DAEMON_PATHS_H
#define DAEMON_PATHS_H

struct paths {
    char socket[128]; /* meshd.sock */
    char nng[128];    /* directory of nng's ipc paths */
    char rep[160];    /* the REP socket's, in it */
    int lock_fd;      /* held while the process lives */
};

/* Makes dir (0700, with its parents), takes its lock, removes what a killed node left. Returns 0,
 * or a negative errno after it was logged with what to do; -EBUSY: another node runs there. */
int paths_open(const char *dir, const char *peer_id, struct paths *out_paths);
/* Removes what it made, but for the directory itself. */
void paths_close(struct paths *paths);

#endif
