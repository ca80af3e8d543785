/* target - which node to ask when nobody says: MESHD_ADDR, else the local socket below
 * ${RUNTIME_DIRECTORY:-${XDG_RUNTIME_DIR:-/run}/meshd} (of PEER_NAME or the host's name, or the
 * only one), or, without RUNTIME_DIRECTORY, below /run/meshd; else tcp://127.0.0.1:7400. An empty
 * variable is unset. */
#ifndef CLIENT_TARGET_H
#define CLIENT_TARGET_H

#include <stdbool.h>
#include <stddef.h>

enum target_outcome {
    TARGET_NONE = 1, /* only with local_only: no socket is there */
    TARGET_SEVERAL,  /* only with local_only: more than one, and none is of PEER_NAME */
};

/* 0: *out_url is the URL; a target_outcome: it is the folder that was searched. Both are the
 * caller's to free. -ENOMEM. local_only: a local socket or what MESHD_ADDR says, nothing else; one
 * that only others may connect to will do where none is found, so that it can be told why it does
 * not. */
int target_choose(bool local_only, char **out_url);

#endif
