/* privileges - see privileges.h. capset(2) itself: an empty set needs no library. */
#include "daemon/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/log.h"
#include "daemon/sandbox.h"

static bool becomes(const struct config *config) { return config->user.name[0] && getuid() == 0; }

static int allow_core_dumps(bool yes)
{
    const struct rlimit none = {0, 0};

    if (prctl(PR_SET_DUMPABLE, yes) < 0 || (!yes && setrlimit(RLIMIT_CORE, &none) < 0))
        return -errno;
    return 0;
}

int privileges_begin(const struct config *config)
{
    const struct config_user *user = &config->user;
    int r = config->core_dumps ? 0 : allow_core_dumps(false);

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = -errno;
    if (r < 0) {
        log_error("daemon", "cannot give up privileges: %s", strerror(-r));
        return r;
    }
    if (config->socket_group.name[0] && geteuid() != 0 && !group_member(config->socket_group.gid) &&
        config->socket_group.gid != getegid()) {
        log_error("daemon",
                  "socket_group: this process is not a member of %s: only root or a "
                  "member can give the socket to it",
                  config->socket_group.name);
        return -EPERM;
    }
    if (!user->name[0]) {
        if (geteuid() == 0)
            log_warn("daemon", "root runs this node and stays root: set user (--user NAME) to have "
                               "it become that user once it has its ports");
        return 0;
    }
    if (becomes(config)) {
        /* Root's other groups are no use to it, and none of the user's business. */
        if (initgroups(user->name, user->gid) == 0)
            return 0;
        r = -errno;
        log_error("daemon", "cannot take the groups of user %s: %s", user->name, strerror(-r));
        return r;
    }
    if (user->uid == getuid() && user->uid == geteuid() &&
        (!user->group[0] || user->gid == getegid()))
        return 0;
    log_error("daemon",
              "only root can become user %s%s%s, and this is uid %u, gid %u: have root start the "
              "node, or leave user away",
              user->name, user->group[0] ? ":" : "", user->group, (unsigned)geteuid(),
              (unsigned)getegid());
    return -EPERM;
}

struct privileges_owner privileges_owner(const struct config *config)
{
    if (becomes(config))
        return (struct privileges_owner){.uid = config->user.uid, .gid = config->user.gid};
    return (struct privileges_owner){.uid = geteuid(), .gid = getegid()};
}

int privileges_lend(const struct privileges_owner *owner)
{
    if (getuid() != 0)
        return 0;
    if (setegid(owner->gid) < 0 || seteuid(owner->uid) < 0) {
        int r = -errno;

        privileges_return();
        return r;
    }
    return 0;
}

void privileges_return(void)
{
    if (getuid() == 0 && (seteuid(0) < 0 || setegid(getgid()) < 0))
        abort();
}

static int give_up_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* capset takes them away as well */
    return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

static int become(const struct config_user *user)
{
    uid_t real, effective, saved;

    if (setresgid(user->gid, user->gid, user->gid) < 0 ||
        setresuid(user->uid, user->uid, user->uid) < 0)
        return -errno;
    if (getresuid(&real, &effective, &saved) < 0)
        return -errno;
    if (real != user->uid || effective != user->uid || saved != user->uid)
        return -EPERM;
    if (user->uid != 0 && (setuid(0) == 0 || seteuid(0) == 0))
        return -EPERM; /* there is a way back */
    return 0;
}

static void enter_sandbox(void)
{
    int r = sandbox_enter();

    if (r < 0)
        log_warn("daemon", "sandbox: this %s does not filter system calls (%s); going on without",
                 r == -EOPNOTSUPP ? "build" : "kernel", strerror(-r));
}

int privileges_drop(const struct config *config)
{
    const struct config_user *user = &config->user;
    bool change = becomes(config);
    int r = change ? become(user) : 0;

    if (r == 0 && geteuid() != 0)
        r = give_up_capabilities();
    if (r == 0 && change) /* the kernel has set it anew */
        r = allow_core_dumps(config->core_dumps);
    if (r < 0)
        log_error("daemon", "cannot give up privileges%s%s: %s", change ? " to become user " : "",
                  change ? user->name : "", strerror(-r));
    else if (change)
        log_info("daemon", "user %s from now on (uid %u, gid %u)", user->name, (unsigned)user->uid,
                 (unsigned)user->gid);
    if (r == 0 && config->sandbox)
        enter_sandbox();
    return r;
}
