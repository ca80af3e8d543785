/* listen - see listen.h. */
#include "daemon/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "daemon/privileges.h"

#define DESCRIPTORS_LEAST 256u
#define SOCKET_MODE 0600u /* until it is known to be anything else */

void listen_warn(const struct config *config)
{
    struct rlimit lim;
    uint64_t wanted = config->limits.control_connections + DESCRIPTORS_LEAST;

    /* A client has two, its own and that towards its backend; so has a request on the admin port.
     */
    if (config->n_ingress)
        wanted += 2 * config->limits.ingress_connections;
    if (config->admin)
        wanted += 2 * config->limits.admin_connections;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < wanted)
        log_warn(
            "daemon",
            "only %llu descriptors, %llu may be needed for limits.control_connections%s%s: raise "
            "the limit (ulimit -n, LimitNOFILE=) or lower the setting",
            (unsigned long long)lim.rlim_cur, (unsigned long long)wanted,
            config->n_ingress ? ", limits.ingress_connections" : "",
            config->admin ? ", limits.admin_connections" : "");
}

int listen_descriptors(const struct config *config)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        return -errno;
    lim.rlim_cur = lim.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
        return -errno;
    if (lim.rlim_cur < DESCRIPTORS_LEAST) {
        log_error("daemon",
                  "cannot start with %llu descriptors: at least %u are needed; raise the limit "
                  "(ulimit -n, LimitNOFILE=)",
                  (unsigned long long)lim.rlim_cur, DESCRIPTORS_LEAST);
        return -EMFILE;
    }
    listen_warn(config);
    return 0;
}

static int listen_on(struct gate *gate, const struct sockaddr *addr, socklen_t len, char *out_text,
                     size_t size)
{
    struct sockaddr_storage bound;
    char ip[INET6_ADDRSTRLEN];
    int r = gate_listen_tcp(gate, addr, len, &bound);

    if (r < 0)
        return r;
    if (bound.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&bound;

        inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof ip);
        snprintf(out_text, size, "%s:%u", ip, ntohs(v4->sin_port));
        return ntohs(v4->sin_port);
    }
    inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&bound)->sin6_addr, ip, sizeof ip);
    snprintf(out_text, size, "[%s]:%u", ip,
             ntohs(((const struct sockaddr_in6 *)&bound)->sin6_port));
    return ntohs(((const struct sockaddr_in6 *)&bound)->sin6_port);
}

/* The mesh port: one address, or every one of v4 and v6 (where the host has v6). */
static int listen_mesh(const struct config *config, struct gate *gate, char *text, size_t size,
                       struct sockaddr_storage *out_from)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(config->bind_port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(config->bind_port)};
    int r;

    if (inet_pton(AF_INET6, config->bind_host, &v6.sin6_addr) == 1) {
        r = listen_on(gate, (struct sockaddr *)&v6, sizeof v6, text, size);
        v6.sin6_port = 0;
        if (!IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr))
            memcpy(out_from, &v6, sizeof v6);
        return r;
    }
    if (!config->bind_host[0]) { /* the gate's v6 socket takes v4 as well */
        r = listen_on(gate, (struct sockaddr *)&v6, sizeof v6, text, size);
        if (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)
            return r;
    } else if (inet_pton(AF_INET, config->bind_host, &v4.sin_addr) != 1) {
        return -EINVAL;
    }
    r = listen_on(gate, (struct sockaddr *)&v4, sizeof v4, text, size);
    v4.sin_port = 0;
    if (v4.sin_addr.s_addr != htonl(INADDR_ANY))
        memcpy(out_from, &v4, sizeof v4);
    return r;
}

/* The group comes first: what socket_mode allows is never allowed to another. */
static int open_to(const struct config *config, const char *path)
{
    const struct config_group *group = &config->socket_group;
    int r;

    if (group->name[0] && lchown(path, (uid_t)-1, group->gid) < 0) {
        r = -errno;
        log_error("daemon", "cannot give %s to the group %s: %s; root can, or a member of it", path,
                  group->name, strerror(-r));
        return r;
    }
    if (config->socket_mode != SOCKET_MODE && chmod(path, config->socket_mode) < 0) {
        r = -errno;
        log_error("daemon", "cannot set the mode of %s: %s", path, strerror(-r));
        return r;
    }
    return 0;
}

/* It is the owner's from the first moment, so nothing in the owner's folder is touched as root. */
static int listen_local(const struct config *config, struct gate *gate, const char *path)
{
    struct privileges_owner owner = privileges_owner(config);
    int r;

    if (config->socket_group.name[0])
        owner.gid = config->socket_group.gid;
    r = privileges_lend(&owner);
    if (r == 0)
        r = gate_listen_unix(gate, path, SOCKET_MODE);
    if (r < 0)
        log_error("daemon", "cannot listen on %s: %s; set runtime_dir to a directory of your own",
                  path, strerror(-r));
    else
        r = open_to(config, path);
    privileges_return();
    return r;
}

int listen_open(const struct config *config, struct gate *gate, const char *socket_path,
                char *out_text, size_t size, struct sockaddr_storage *out_from)
{
    int r = listen_mesh(config, gate, out_text, size, out_from);

    if (r < 0) {
        log_error("daemon", "cannot listen on %s:%u: %s; %s",
                  config->bind_host[0] ? config->bind_host : "*", config->bind_port, strerror(-r),
                  r == -EADDRINUSE ? "stop what uses the port, or set PEER_BIND_ADDR"
                                   : "set PEER_BIND_ADDR to an address of this host");
        return r;
    }
    return listen_local(config, gate, socket_path);
}
