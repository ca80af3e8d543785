/* meshcat_target - whom to ask when the command line does not say. */
#include <dirent.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "meshcat.h"
#include "wire/name.h"

#define SOCKET_NAME "meshd.sock"
#define FALLBACK "tcp://127.0.0.1:7400"

static void freep(char **text) { free(*text); }

static void closedirp(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* An empty variable is unset. */
static const char *env(const char *name)
{
    const char *value = getenv(name);

    return value && value[0] ? value : NULL;
}

static char __attribute__((format(printf, 1, 2))) * text_of(const char *format, ...)
{
    char *text = NULL;
    va_list ap;
    int n;

    va_start(ap, format);
    n = vasprintf(&text, format, ap);
    va_end(ap);
    return n < 0 ? must_dup("") : text;
}

/* Where nodes keep their sockets: <this>/<peer id>/meshd.sock. */
static char *runtime_dir(void)
{
    const char *own = env("RUNTIME_DIRECTORY"), *xdg = env("XDG_RUNTIME_DIR");

    if (own)
        return must_dup(own);
    return text_of("%s/meshd", xdg ? xdg : "/run");
}

static bool is_socket(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* The socket of that peer, if it is there; else NULL. */
static char *socket_of(const char *dir, const char *peer)
{
    char *path;

    /* "." and ".." are peer ids by their letters, and directories of somebody else. */
    if (!peer_id_valid(peer, strlen(peer)) || strcmp(peer, ".") == 0 || strcmp(peer, "..") == 0)
        return NULL;
    path = text_of("%s/%s/" SOCKET_NAME, dir, peer);
    if (is_socket(path))
        return path;
    free(path);
    return NULL;
}

/* The only socket below dir, or NULL; *out_n says how many there are. */
static char *only_socket(const char *dir, size_t *out_n)
{
    CLEANUP(closedirp) DIR *d = opendir(dir);
    CLEANUP(freep) char *found = NULL;
    struct dirent *entry;

    *out_n = 0;
    while (d && (entry = readdir(d)) != NULL) {
        char *path = socket_of(dir, entry->d_name);

        if (!path)
            continue;
        ++*out_n;
        if (found)
            free(path);
        else
            found = path;
    }
    return *out_n == 1 ? TAKE(&found) : NULL;
}

static char *local_socket(const char *dir, size_t *out_n)
{
    char host[256] = "";
    const char *peer = env("PEER_NAME");
    char *path;

    if (!peer && gethostname(host, sizeof(host) - 1) == 0)
        peer = host;
    path = peer ? socket_of(dir, peer) : NULL;
    return path ? path : only_socket(dir, out_n);
}

int target_url(const struct meshcat_opts *opts, bool local_only, char **out_url)
{
    CLEANUP(freep) char *dir = NULL, *path = NULL;
    const char *from_env = env("MESHD_ADDR");
    size_t n = 0;

    if (opts->dial) {
        *out_url = must_dup(opts->dial);
        return 0;
    }
    if (opts->ipc_path) {
        *out_url = text_of("ipc://%s", opts->ipc_path);
        return 0;
    }
    if (opts->local_port) {
        *out_url = text_of("tcp://127.0.0.1:%u", (unsigned)opts->local_port);
        return 0;
    }
    if (from_env) {
        *out_url = must_dup(from_env);
        return 0;
    }
    dir = runtime_dir();
    path = local_socket(dir, &n);
    if (path) {
        *out_url = text_of("ipc://%s", path);
        return 0;
    }
    if (!local_only) {
        *out_url = must_dup(FALLBACK);
        return 0;
    }
    if (n > 1)
        return show_error(
            opts, EXIT_USAGE, -1,
            "several nodes have a socket below %s; choose one with PEER_NAME=ID or -x "
            "PATH",
            dir);
    return show_error(opts, EXIT_CONNECT, -1,
                      "no node has its socket below %s, and %s works through a node's own socket "
                      "only; start meshd here, or give its socket with -x PATH",
                      dir, opts->cmd->name);
}
