/* config_table - the one table of settings: the file's keys, variables, flags, --print-config and
 * --help all follow it.
 *
 * The rows of one section ("log.level", "log.format") stand together: printing relies on it. */
#include <string.h>
#include "daemon/config_parts.h"

static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_words[] = {"text", "json", NULL};
static const char *const maps_words[] = {"full", "summary", "off", NULL};
static const char *const forwards_words[] = {"off", "errors", "all", NULL};

#define BOOL(field)                                                                                \
    .type = &type_bool, .allowed = "true or false", .offset = offsetof(struct config, field)
#define WORD(field, list)                                                                          \
    .type = &type_word, .words = list, .offset = offsetof(struct config, field)
#define DURATION(field, from, to)                                                                  \
    .type = &type_duration, .arg = "TIME", .least = (from), .most = (to),                          \
    .offset = offsetof(struct config, field)

#define PEM(field)                                                                                 \
    .type = &type_file, .arg = "FILE", .def_text = "none",                                         \
    .allowed = "a path of at most 511 printable ASCII bytes, a relative one from the working "     \
               "directory",                                                                        \
    .offset = offsetof(struct config, field)

const struct setting settings[N_SETTINGS] = {
    [SETTING_PEER_NAME] = {.key = "peer_name",
                           .flag = "peer-name",
                           .env = "PEER_NAME",
                           .arg = "ID",
                           .what = "the peer id of this node, unique in the mesh",
                           .def_text = "the host name",
                           .allowed = "1 to 64 characters of A-Z a-z 0-9 . _ - (not . or ..)",
                           .type = &type_peer_id},
    [SETTING_BIND] = {.key = "bind",
                      .flag = "bind",
                      .env = "PEER_BIND_ADDR",
                      .arg = "ADDR",
                      .what = "where the mesh port listens",
                      .def = "127.0.0.1:7400",
                      .allowed = "ip:port, [v6]:port or :port (every address), the port from 0 "
                                 "(any free one) to 65535",
                      .type = &type_bind},
    [SETTING_INSECURE] = {.key = "insecure",
                          .flag = "insecure",
                          .env = "PEER_INSECURE",
                          .arg = "BOOL",
                          .what = "without TLS: plaintext to and from addresses that are not "
                                  "loopback",
                          .def = "false",
                          BOOL(insecure)},
    [SETTING_TLS_CA] = {.key = "tls.ca",
                        .flag = "tls-ca",
                        .env = "PEER_TLS_CA",
                        .what = "PEM: the CA whose certificates are let in; with tls.cert and "
                                "tls.key every connection of the mesh port is TLS, both ways",
                        PEM(tls_ca)},
    [SETTING_TLS_CERT] = {.key = "tls.cert",
                          .flag = "tls-cert",
                          .env = "PEER_TLS_CERT",
                          .what = "PEM: this node's certificate, whose DNS names include the peer "
                                  "id; then intermediate ones",
                          PEM(tls_cert)},
    [SETTING_TLS_KEY] = {.key = "tls.key",
                         .flag = "tls-key",
                         .env = "PEER_TLS_KEY",
                         .what = "PEM: the private key of tls.cert",
                         PEM(tls_key)},
    [SETTING_TLS_CRL] = {.key = "tls.crl",
                         .flag = "tls-crl",
                         .env = "PEER_TLS_CRL",
                         .what = "PEM: certificates that are revoked, a list of each CA",
                         PEM(tls_crl)},
    [SETTING_TLS_OFFLOAD] = {.key = "tls.offload",
                             .flag = "tls-offload",
                             .arg = "BOOL",
                             .what = "the kernel encrypts what is sent, where it has the tls "
                                     "module loaded; it then keeps the keys of a connection",
                             .def = "false",
                             BOOL(tls_offload)},
    [SETTING_PEERS] = {.key = "peers",
                       .follows = true,
                       .flag = "peer",
                       .env = "REMOTE_PEER_ADDR",
                       .arg = "HOST:PORT",
                       .what = "peers to dial; in the file also the id expected there",
                       .def_text = "none",
                       .allowed = "host:port or [v6]:port, the port from 1 to 65535",
                       .type = &type_list,
                       .list = &list_peers},
    [SETTING_SERVICES] = {.key = "services",
                          .follows = true,
                          .flag = "service",
                          .env = "SERVICE_ADDR",
                          .arg = "NAME:HOST:PORT",
                          .what = "services that this node offers",
                          .def_text = "none",
                          .allowed = "name:host:port, name:[v6]:port or domain:port",
                          .type = &type_list,
                          .list = &list_services},
    [SETTING_INGRESS] = {.key = "ingress",
                         .flag = "ingress",
                         .env = "INGRESS_ADDR",
                         .arg = "[HOST:]PORT[=NAME]",
                         .what = "ports where clients connect, mapped to a service or not; in the "
                                 "file also default, proxy_from and bare_lf",
                         .def_text = "none",
                         .allowed = "port, ip:port, [v6]:port or *:port, the port from 0 (any free "
                                    "one) to 65535; then perhaps =name",
                         .type = &type_list,
                         .list = &list_ingress},
    [SETTING_POLICY] = {.key = "policy",
                        .follows = true,
                        .what = "rules of who may do what here; the first that is about a peer "
                                "decides",
                        .def_text = "none: whoever is in may do all but offer over the network",
                        .allowed = "entries of rule and peers and perhaps link, register, forward, "
                                   "lookup, introspect, offer",
                        .type = &type_list,
                        .list = &list_policy},
    [SETTING_ADMIN] = {.key = "admin.bind",
                       .flag = "admin",
                       .env = "ADMIN_ADDR",
                       .arg = "ADDR",
                       .what = "where the admin port listens: health, metrics, both maps, over "
                               "HTTP, without a password",
                       .def = "off",
                       .allowed = "off, ip:port, [v6]:port or :port (every address), the port "
                                  "from 0 (any free one) to 65535",
                       .type = &type_admin},
    [SETTING_WORKERS] = {.key = "workers",
                         .flag = "workers",
                         .arg = "N",
                         .what = "threads that carry clients",
                         .def = "0",
                         .allowed = "0 (one per core) to 256",
                         .type = &type_number,
                         .unit = "threads",
                         .least = 0,
                         .most = 256,
                         .offset = offsetof(struct config, workers)},
    [SETTING_RUNTIME_DIR] = {.key = "runtime_dir",
                             .flag = "runtime-dir",
                             .arg = "DIR",
                             .what = "folder of this node's local socket, lock and private files",
                             .def_text = "${RUNTIME_DIRECTORY:-${XDG_RUNTIME_DIR:-/run}/meshd}/"
                                         "<peer id>",
                             .allowed = "an absolute path of at most 83 printable ASCII bytes",
                             .type = &type_dir},
    [SETTING_SOCKET_MODE] = {.key = "socket_mode",
                             .flag = "socket-mode",
                             .arg = "MODE",
                             .what = "permission bits of the local socket: who may change this "
                                     "node's services",
                             .def = "0600",
                             .allowed = "octal, from 0600 to 0777, the owner's 6 in it",
                             .type = &type_mode,
                             .offset = offsetof(struct config, socket_mode)},
    [SETTING_SOCKET_GROUP] = {.key = "socket_group",
                              .flag = "socket-group",
                              .arg = "GROUP",
                              .what = "group that the local socket is given to",
                              .def_text = "none",
                              .allowed = "a group of this host",
                              .type = &type_group,
                              .offset = offsetof(struct config, socket_group)},
    [SETTING_USER] = {.key = "user",
                      .flag = "user",
                      .arg = "USER[:GROUP]",
                      .what =
                          "whom a node that root starts becomes for good, once it has its ports",
                      .def_text = "none",
                      .allowed = "a user of this host, or user:group",
                      .type = &type_user,
                      .offset = offsetof(struct config, user)},
    [SETTING_SANDBOX] = {.key = "sandbox",
                         .flag = "sandbox",
                         .arg = "BOOL",
                         .what =
                             "have the kernel refuse every system call that a node does not need",
                         .def = "true",
                         BOOL(sandbox)},
    [SETTING_CORE_DUMPS] = {.key = "core_dumps",
                            .flag = "core-dumps",
                            .arg = "BOOL",
                            .what = "let a crash write the node's memory, keys and all, to disk",
                            .def = "false",
                            BOOL(core_dumps)},
    [SETTING_LOG_LEVEL] = {.key = "log.level",
                           .follows = true,
                           .flag = "log-level",
                           .env = "LOG_LEVEL",
                           .arg = "LEVEL",
                           .what = "the least that is worth a line",
                           .def = "info",
                           .allowed = "error, warn, info or debug",
                           WORD(log.level, level_words)},
    [SETTING_LOG_FORMAT] = {.key = "log.format",
                            .flag = "log-format",
                            .env = "LOG_FORMAT",
                            .arg = "FORMAT",
                            .what = "plain lines, or one JSON object per line",
                            .def = "text",
                            .allowed = "text or json",
                            WORD(log.format, format_words)},
    [SETTING_LOG_MAPS] = {.key = "log.maps",
                          .follows = true,
                          .flag = "log-maps",
                          .env = "LOG_MAPS",
                          .arg = "HOW",
                          .what = "how both maps are printed after a change",
                          .def = "full",
                          .allowed = "full, summary or off",
                          WORD(maps, maps_words)},
    [SETTING_LOG_FORWARDS] = {.key = "log.forwards",
                              .follows = true,
                              .flag = "log-forwards",
                              .env = "LOG_FORWARDS",
                              .arg = "WHICH",
                              .what = "which forwards leave a line at their end",
                              .def = "errors",
                              .allowed = "off, errors or all",
                              WORD(forwards, forwards_words)},
    [SETTING_LOG_TIMESTAMPS] = {.key = "log.timestamps",
                                .flag = "log-timestamps",
                                .arg = "BOOL",
                                .what = "a time before each text line; JSON always has one",
                                .def = "false",
                                BOOL(log.timestamps)},
    [SETTING_HEARTBEAT] = {.key = "timing.heartbeat",
                           .flag = "heartbeat",
                           .what = "between two signs of life on a link",
                           .def = "3s",
                           DURATION(heartbeat_ms, 50, 60000)},
    [SETTING_PEER_TIMEOUT] = {.key = "timing.peer_timeout",
                              .flag = "peer-timeout",
                              .what = "from a peer's last sign of life until its services go",
                              .def = "30s",
                              DURATION(peer_timeout_ms, 200, 3600000)},
    [SETTING_DIAL_TIMEOUT] = {.key = "timing.dial_timeout",
                              .flag = "dial-timeout",
                              .what = "for one connection to be made",
                              .def = "5s",
                              DURATION(dial_timeout_ms, 50, 300000)},
    [SETTING_OPEN_TIMEOUT] = {.key = "timing.open_timeout",
                              .flag = "open-timeout",
                              .what = "for a link (token, Hello, first Sync) or a forward to open",
                              .def = "10s",
                              DURATION(open_timeout_ms, 50, 300000)},
    [SETTING_CALL_TIMEOUT] = {.key = "timing.call_timeout",
                              .flag = "call-timeout",
                              .what = "for a peer to answer one call",
                              .def = "5s",
                              DURATION(call_timeout_ms, 50, 300000)},
    [SETTING_ROUTE_TIMEOUT] = {.key = "timing.route_timeout",
                               .flag = "route-timeout",
                               .what = "from a client's first moment until it has its backend",
                               .def = "10s",
                               DURATION(route_timeout_ms, 50, 300000)},
    [SETTING_IDLE_TIMEOUT] = {.key = "timing.idle_timeout",
                              .flag = "idle-timeout",
                              .what = "without a byte, until a client is cut off",
                              .def = "10m",
                              DURATION(idle_timeout_ms, 50, 86400000)},
    [SETTING_HALF_CLOSE_TIMEOUT] = {.key = "timing.half_close_timeout",
                                    .flag = "half-close-timeout",
                                    .what = "likewise, once one side has ended",
                                    .def = "5m",
                                    DURATION(half_close_timeout_ms, 50, 86400000)},
    [SETTING_DRAIN_TIMEOUT] = {.key = "timing.drain_timeout",
                               .flag = "drain-timeout",
                               .what = "for clients to finish, once the node was told to end",
                               .def = "30s",
                               DURATION(drain_timeout_ms, 0, 3600000)},
#define X(field, def_, least_, most_, unit_, what_)                                                \
    [SETTING_LIMIT_##field] = {.key = "limits." #field,                                            \
                               .what = what_,                                                      \
                               .def = #def_,                                                       \
                               .type = &type_number,                                               \
                               .unit = unit_,                                                      \
                               .least = least_,                                                    \
                               .most = most_,                                                      \
                               .offset = offsetof(struct config, limits.field)},
    LIMITS(X)
#undef X
};

const struct setting *setting_find(const char *key, size_t len)
{
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        if (strlen(s->key) == len && memcmp(s->key, key, len) == 0)
            return s;
    }
    return NULL;
}
