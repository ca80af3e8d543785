/* target - whom to ask when nobody says. */
#include "client/target.h"
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "wire/name.h"

#define SOCKET_NAME "meshd.sock"
#define FALLBACK "tcp://127.0.0.1:7400"
#define SYSTEM_DIR "/run/meshd" /* of the node that the system starts */

static void freep(char **text) { free(*text); }

static void closedirp(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static const char *env(const char *name)
{
    const char *value = getenv(name);

    return value && value[0] ? value : NULL;
}

/* 0 or -ENOMEM. */
static int __attribute__((format(printf, 2, 3))) text_of(char **out_text, const char *format, ...)
{
    va_list ap;
    char *text;
    int n;

    va_start(ap, format);
    n = vasprintf(&text, format, ap);
    va_end(ap);
    if (n < 0)
        return -ENOMEM;
    *out_text = text;
    return 0;
}

/* Where nodes keep their sockets: <this>/<peer id>/meshd.sock. */
static int runtime_dir(char **out_dir)
{
    const char *own = env("RUNTIME_DIRECTORY"), *xdg = env("XDG_RUNTIME_DIR");

    if (own)
        return text_of(out_dir, "%s", own);
    return xdg ? text_of(out_dir, "%s/meshd", xdg) : text_of(out_dir, SYSTEM_DIR);
}

/* hidden: one that may be there, in a folder that this user may not look into, is one too. */
static bool is_socket(const char *path, bool hidden)
{
    struct stat st;

    return stat(path, &st) == 0 ? S_ISSOCK(st.st_mode) : hidden && errno == EACCES;
}

/* The socket of that peer, if it is there; else *out_path stays. */
static int socket_of(const char *dir, const char *peer, bool hidden, char **out_path)
{
    CLEANUP(freep) char *path = NULL;
    int r;

    /* "." and ".." are peer ids by their letters, and directories of somebody else. */
    if (!peer_id_valid(peer, strlen(peer)) || strcmp(peer, ".") == 0 || strcmp(peer, "..") == 0)
        return 0;
    r = text_of(&path, "%s/%s/" SOCKET_NAME, dir, peer);
    if (r == 0 && is_socket(path, hidden))
        *out_path = TAKE(&path);
    return r;
}

/* The only socket below dir, if there is exactly one; *out_n says how many there are. */
static int only_socket(const char *dir, bool hidden, size_t *out_n, char **out_path)
{
    CLEANUP(closedirp) DIR *d = opendir(dir);
    CLEANUP(freep) char *found = NULL;
    struct dirent *entry;
    int r = 0;

    *out_n = 0;
    while (r == 0 && d && (entry = readdir(d)) != NULL) {
        CLEANUP(freep) char *path = NULL;

        r = socket_of(dir, entry->d_name, hidden, &path);
        if (!path)
            continue;
        ++*out_n;
        if (!found)
            found = TAKE(&path);
    }
    if (r == 0 && *out_n == 1)
        *out_path = TAKE(&found);
    return r;
}

static int local_socket(const char *dir, bool hidden, size_t *out_n, char **out_path)
{
    char host[256] = "";
    const char *peer = env("PEER_NAME");
    int r = 0;

    if (!peer && gethostname(host, sizeof(host) - 1) == 0)
        peer = host;
    if (peer)
        r = socket_of(dir, peer, hidden, out_path);
    return r < 0 || *out_path ? r : only_socket(dir, hidden, out_n, out_path);
}

static int search(const char *dir, bool hidden, size_t *out_n, char **out_path)
{
    int r = local_socket(dir, hidden, out_n, out_path);

    /* Who has logged in has a folder of their own, and mostly no node in it. */
    if (r == 0 && !*out_path && *out_n == 0 && !env("RUNTIME_DIRECTORY"))
        r = local_socket(SYSTEM_DIR, hidden, out_n, out_path);
    return r;
}

int target_choose(bool local_only, char **out_url)
{
    CLEANUP(freep) char *dir = NULL, *path = NULL;
    const char *from_env = env("MESHD_ADDR");
    size_t n = 0;
    int r;

    if (from_env)
        return text_of(out_url, "%s", from_env);
    r = runtime_dir(&dir);
    if (r == 0)
        r = search(dir, false, &n, &path);
    if (r == 0 && local_only && !path && n == 0)
        r = search(dir, true, &n, &path);
    if (r < 0)
        return r;
    if (path)
        return text_of(out_url, "ipc://%s", path);
    if (!local_only)
        return text_of(out_url, FALLBACK);
    *out_url = TAKE(&dir);
    return n > 1 ? TARGET_SEVERAL : TARGET_NONE;
}
