/* config - every setting of a node, where it may come from, and what is wrong with it.
 *
 * Flags win over the environment, that over the YAML file, that over the defaults; an empty
 * variable is unset; no file is normal. A list (peers, services, ingress) of one source
 * replaces that of the source below it whole. An unknown key, a bad value or a duplicate is told
 * with file, line and column (or flag, or variable), the key, and what is allowed, also when a
 * stronger source would have won; nothing is started then.
 *
 * Adding a setting: its field here, its id in config_parts.h, its row in config_table.c. Reading,
 * --print-config and --help follow the row; tools/meshd.yaml must name it (a test says so).
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include "base/limits.h"
#include "base/log.h"
#include "forward/forward.h"
#include "node/node.h"
#include "policy/policy.h"
#include "tls/tls.h"

enum config_maps { MAPS_FULL, MAPS_SUMMARY, MAPS_OFF };

struct config_peer {           /* one of REMOTE_PEER_ADDR, or of `peers:` */
    char host[LIMIT_NAME + 1]; /* lower case; an IPv6 address without brackets */
    uint16_t port;
    char peer_id[LIMIT_PEER_ID + 1]; /* expected there; "": any */
};
struct config_service { /* one of SERVICE_ADDR, or of `services:` */
    char name[LIMIT_NAME + 1], backend[LIMIT_BACKEND + 1]; /* canonical both */
    enum proxy_version proxy;                              /* what its backend is told first */
    struct node_check check; /* kind NONE: none; what is 0 has its default */
};

/* As many as have room in one value, each in its longest text. */
#define CONFIG_NETWORKS_MAX 22u

struct config_ingress {            /* one of INGRESS_ADDR, or of `ingress:` */
    char host[LIMIT_IP_TEXT];      /* canonical text; "": every address, v4 and v6 */
    uint16_t port;                 /* 0: any free one (tests) */
    char name[LIMIT_NAME + 1];     /* canonical; not "": mapped to it */
    char fallback[LIMIT_NAME + 1]; /* `default:`; canonical; not "" together with name */
    struct forward_network proxy_from[CONFIG_NETWORKS_MAX];
    size_t n_proxy_from;
    bool bare_lf;
};

#define CONFIG_ACCOUNT_MAX 32u /* bytes of a user's or group's name: Linux allows no more */

struct config_user {                    /* whom to become once everything is bound */
    char name[CONFIG_ACCOUNT_MAX + 1];  /* "": nobody else, and the rest means nothing */
    char group[CONFIG_ACCOUNT_MAX + 1]; /* "": the user's own */
    uid_t uid;
    gid_t gid;
};
struct config_group {
    char name[CONFIG_ACCOUNT_MAX + 1]; /* "": none */
    gid_t gid;
};
struct config_globs {
    char **at;
    size_t n;
};
struct config_rule { /* one of `policy:`; as struct policy_rule */
    char name[POLICY_RULE_TEXT];
    struct config_globs peers, registers, forwards, offers;
    bool link, lookup, introspect;
};

#define CONFIG_PATH 512u /* bytes of a file's path with its NUL */

/* The longest name in a runtime_dir, with the "/" before it, that fits a socket's path there. */
#define CONFIG_PRIVATE_NAME 24u

struct config {
    bool once; /* the file is a pipe: it says this only once */
    char peer_id[LIMIT_PEER_ID + 1];
    char bind_host[LIMIT_IP_TEXT];  /* canonical text; "": every address, v4 and v6 */
    uint16_t bind_port;             /* 0: any free one (tests) */
    bool admin;                     /* there is an admin port: at */
    char admin_host[LIMIT_IP_TEXT]; /* as bind_host */
    uint16_t admin_port;
    bool insecure; /* without TLS: true when bind_host is not loopback */
    /* PEM files, relative ones from the working directory. ca, cert and key: all or none ("").
     * crl: "" is none, and always without them. */
    char tls_ca[CONFIG_PATH], tls_cert[CONFIG_PATH], tls_key[CONFIG_PATH], tls_crl[CONFIG_PATH];
    bool tls_offload; /* the kernel encrypts, if it can */
    struct config_peer *peers;
    size_t n_peers;
    struct config_service *services;
    size_t n_services;
    struct config_ingress *ingress;
    size_t n_ingress;
    struct config_rule *rules;
    size_t n_rules;
    uint64_t workers; /* 0: one per core */
    struct log_settings log;
    enum config_maps maps;
    enum forward_records forwards; /* that are logged at their end */
    uint32_t heartbeat_ms, peer_timeout_ms, dial_timeout_ms, open_timeout_ms, call_timeout_ms;
    uint32_t route_timeout_ms, idle_timeout_ms, half_close_timeout_ms, drain_timeout_ms;
    struct limits limits;
    struct config_user user;
    struct config_group socket_group;
    unsigned socket_mode; /* permission bits of meshd.sock */
    bool sandbox, core_dumps;
    char runtime_dir[192]; /* of this node: .../meshd/<peer id>; holds meshd.sock and meshd.lock */
};

/* Looks into the files of TLS that config names, as tls_files_check. */
struct config_judge {
    void (*look)(void *ctx, const struct config *config, struct tls_fault out_faults[N_TLS_FILES]);
    void *ctx;
};

enum config_action { CONFIG_RUN, CONFIG_CHECK, CONFIG_PRINT, CONFIG_VERSION, CONFIG_HELP };

/* Reads flags, getenv, the file; may change the order of argv. Returns 0 and writes *out_action and
 * *out_config (config_free it), which is NULL with CONFIG_VERSION and CONFIG_HELP: the rest is not
 * read then. Or -EINVAL (or -ENOMEM) after every error was written to err, one line each:
 * "meshd.yaml:12:3: limits.peers: '0' is too small; allowed: 1 to 65536". judge looks into the
 * files of TLS that the settings name, so that what is wrong with them is told in the same way; not
 * with CONFIG_PRINT, and NULL: nobody does. -EBADMSG, with *out_action: nothing but such a file
 * will not do. */
int config_load(int argc, char *const *argv, FILE *err, const struct config_judge *judge,
                enum config_action *out_action, struct config **out_config);
void config_free(struct config *config); /* accepts NULL */

bool config_has_tls(const struct config *config);
/* Of an address without brackets or port. */
bool config_is_loopback(const char *ip);

struct config_difference {
    const char *key;  /* "log.level" */
    const char *text; /* "log.level is debug (was info)", "peers: 1 more (10.0.0.7:7400)" */
    bool follows;     /* takes effect while the node runs */
};
/* Tells each setting that has another value in after, in the order of the help. 0 or -ENOMEM. */
int config_diff(const struct config *before, const struct config *after,
                void (*tell)(void *ctx, const struct config_difference *difference), void *ctx);

/* Every setting in force, as YAML that config_load accepts and reads back the same. No setting is a
 * secret: keys are named by their files. */
void config_print(const struct config *config, FILE *out);
void config_help(FILE *out);

#endif
