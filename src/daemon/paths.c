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

/* Parents that are missing let everybody pass: several nodes, of several users, may live below. */
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
        if (mkdir(path, i < len ? 0711 : 0700) < 0 && errno != EEXIST)
            return -errno;
        path[i] = dir[i];
    }
    return 0;
}

/* Others' files in the directory would let them answer in nng's place. *out_lent: it is the owner's
 * already, and touched only as the owner. */
static int open_dir(const struct paths_settings *settings, int *out_fd, bool *out_lent)
{
    bool change = settings->owner.uid != geteuid();
    int fd = open(settings->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (change ? O_NOFOLLOW : 0));
    int r = 0;
    struct stat st;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (st.st_uid != geteuid() && st.st_uid != settings->owner.uid)
        r = -EPERM;
    if (r == 0 && st.st_uid != geteuid())
        r = privileges_lend(&settings->owner);
    if (r < 0) {
        close(fd);
        return r;
    }
    *out_fd = fd;
    *out_lent = change && st.st_uid == settings->owner.uid;
    return 0;
}

/* What this process made becomes the owner's, and the directory is as open as the socket in it. */
static int give(const struct paths_settings *settings, int dir_fd, int lock_fd, bool made_by_us)
{
    static const char *const left[] = {"nng", "meshd.sock"}; /* by one that was killed */
    const struct privileges_owner *owner = &settings->owner;
    const struct config_group *group = settings->socket_group;
    gid_t gid = group->name[0] ? group->gid : owner->gid;
    unsigned mode = settings->socket_mode;
    struct stat st;

    if (made_by_us && fchown(lock_fd, owner->uid, owner->gid) < 0)
        return -errno;
    for (size_t i = 0; made_by_us && i < sizeof left / sizeof left[0]; i++)
        if (fchownat(dir_fd, left[i], owner->uid, owner->gid, AT_SYMLINK_NOFOLLOW) < 0 &&
            errno != ENOENT)
            return -errno;
    mode = 0700 | (mode & 060 ? 0010 : 0) | (mode & 006 ? 0001 : 0);
    if (fstat(dir_fd, &st) < 0)
        return -errno;
    if ((st.st_uid != owner->uid || (st.st_gid != gid && group->name[0])) &&
        fchown(dir_fd, owner->uid, gid) < 0)
        return -errno;
    if ((st.st_mode & 07777) != mode && fchmod(dir_fd, mode) < 0)
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
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!d)
        return;
    while ((entry = readdir(d)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
}

/* As the owner, which shows as well that the owner can reach it. */
static int make_nng(const struct paths_settings *settings, const char *dir)
{
    int r = privileges_lend(&settings->owner);

    if (r == 0 && mkdir(dir, 0700) < 0 && errno != EEXIST)
        r = -errno;
    if (r == 0)
        empty_dir(dir);
    privileges_return();
    return r;
}

static int prepare(const struct paths_settings *settings, struct paths *paths)
{
    bool lent = false, change = settings->owner.uid != geteuid();
    int dir_fd = -1, r = make_dirs(settings->dir);

    if (r == 0)
        r = open_dir(settings, &dir_fd, &lent);
    if (r == 0)
        r = take_lock(settings->dir, settings->peer_id, &paths->lock_fd);
    privileges_return();
    if (r == 0)
        r = give(settings, dir_fd, paths->lock_fd, change && !lent);
    if (r == 0)
        r = make_nng(settings, paths->nng);
    if (dir_fd >= 0)
        close(dir_fd);
    return r;
}

int paths_open(const struct paths_settings *settings, struct paths *out_paths)
{
    struct paths paths = {.lock_fd = -1};
    int r;

    snprintf(paths.socket, sizeof paths.socket, "%s/meshd.sock", settings->dir);
    snprintf(paths.nng, sizeof paths.nng, "%s/nng", settings->dir);
    snprintf(paths.rep, sizeof paths.rep, "%s/rep", paths.nng);
    r = prepare(settings, &paths);
    *out_paths = paths;
    if (r == -EBUSY || r == 0)
        return r;
    log_error("daemon",
              "cannot use %s for the node's private files: %s; make it writable for uid %u, and "
              "every folder above it open to it, or set runtime_dir",
              settings->dir, strerror(-r), (unsigned)settings->owner.uid);
    if (paths.lock_fd >= 0)
        close(paths.lock_fd);
    out_paths->lock_fd = -1;
    return r;
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
