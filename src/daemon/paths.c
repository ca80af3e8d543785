/* paths - made at start under a lock, removed at the end. */
#include "daemon/paths.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"

static int make_dirs(const char *dir)
{
    char path[256];
    size_t len = strlen(dir);

    if (len >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, dir, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        path[i] = '\0';
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return -errno;
        path[i] = dir[i];
    }
    return 0;
}

/* Others' files in the directory would let them answer in nng's place. */
static int check_owner(const char *dir)
{
    struct stat st;

    if (stat(dir, &st) < 0)
        return -errno;
    if (st.st_uid != geteuid())
        return -EPERM;
    if ((st.st_mode & 077) && chmod(dir, 0700) < 0)
        return -errno;
    return 0;
}

static int take_lock(const char *dir, const char *peer_id, int *out_fd)
{
    char path[256], text[32] = "";
    int fd, r;

    snprintf(path, sizeof path, "%s/meshd.lock", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        r = -errno;
        if (r == -EWOULDBLOCK) {
            if (read(fd, text, sizeof text - 1) < 0)
                text[0] = '\0';
            log_error("daemon",
                      "a node named %s runs here already (pid %d): stop it, or give this one "
                      "another PEER_NAME or runtime_dir",
                      peer_id, (int)strtol(text, NULL, 10));
            r = -EBUSY;
        }
        close(fd);
        return r;
    }
    r = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)r, 0) < 0)
        log_warn("daemon", "the lock file does not tell this process's id: %s", strerror(errno));
    *out_fd = fd;
    return 0;
}

static void empty_dir(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    if (!d)
        return;
    while ((entry = readdir(d)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
}

int paths_open(const char *dir, const char *peer_id, struct paths *out_paths)
{
    int r = make_dirs(dir);

    *out_paths = (struct paths){.lock_fd = -1};
    if (r == 0)
        r = check_owner(dir);
    if (r == 0)
        r = take_lock(dir, peer_id, &out_paths->lock_fd);
    if (r == -EBUSY)
        return r;
    snprintf(out_paths->socket, sizeof out_paths->socket, "%s/meshd.sock", dir);
    snprintf(out_paths->nng, sizeof out_paths->nng, "%s/nng", dir);
    snprintf(out_paths->rep, sizeof out_paths->rep, "%s/rep", out_paths->nng);
    if (r == 0 && mkdir(out_paths->nng, 0700) < 0 && errno != EEXIST)
        r = -errno;
    if (r < 0) {
        log_error("daemon",
                  "cannot use %s for the node's private files: %s; make it writable, or set "
                  "runtime_dir",
                  dir, strerror(-r));
        return r;
    }
    empty_dir(out_paths->nng);
    return 0;
}

void paths_close(struct paths *paths)
{
    if (paths->lock_fd < 0)
        return;
    empty_dir(paths->nng);
    rmdir(paths->nng);
    close(paths->lock_fd);
    paths->lock_fd = -1;
}
