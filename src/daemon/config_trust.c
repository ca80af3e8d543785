/* config_trust - whom plaintext may reach, and whether what TLS needs is all there.
 *
 * Plaintext stays on loopback, both as who listens and as who dials, unless insecure says
 * otherwise. Addresses that names stand for are looked at when they are dialled (ports.c). What is
 * in the files is told here, and found by who can read them (credentials.c). */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include "daemon/config_parts.h"

/* What stands behind "is not loopback"; takes the peer id three times. */
#define NEEDS_TLS                                                                                  \
    ", and there is no TLS; allowed: TLS (meshcat ca init; meshcat ca issue %s; then "             \
    "PEER_TLS_CA=meshd-ca/ca.pem PEER_TLS_CERT=meshd-ca/%s.pem PEER_TLS_KEY=meshd-ca/%s-key.pem)"  \
    ", an address of 127.0.0.0/8 or [::1], or plaintext by insecure: true, PEER_INSECURE=true or " \
    "--insecure"

bool config_has_tls(const struct config *config) { return config->tls_ca[0] != '\0'; }

bool config_is_loopback(const char *ip)
{
    struct in6_addr a6;
    struct in_addr a4;

    if (inet_pton(AF_INET, ip, &a4) == 1)
        return ntohl(a4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, ip, &a6) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&a6) || (IN6_IS_ADDR_V4MAPPED(&a6) && a6.s6_addr[12] == 127);
}

static bool is_literal(const char *host)
{
    uint8_t raw[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, raw) == 1 || inet_pton(AF_INET6, host, raw) == 1;
}

static const enum setting_id ids[N_TLS_FILES] = {
    [TLS_FILE_CA] = SETTING_TLS_CA,
    [TLS_FILE_CERT] = SETTING_TLS_CERT,
    [TLS_FILE_KEY] = SETTING_TLS_KEY,
    [TLS_FILE_CRL] = SETTING_TLS_CRL,
};

/* False: something is missing, and was told. */
static bool check_files(struct config_reading *r)
{
    const struct setting *set = NULL, *missing = NULL;

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        const struct setting *s = &settings[ids[i]];
        const char *path = (const char *)r->config + s->offset;

        if (r->bad[ids[i]])
            return false;
        if (path[0] && !set)
            set = s;
        if (!path[0] && !missing && ids[i] != SETTING_TLS_CRL)
            missing = s;
    }
    if (set && missing) {
        config_error(r, &r->where[set - settings], NULL,
                     "%s is set, and %s is not; allowed: all of tls.ca, tls.cert and tls.key "
                     "(PEER_TLS_CA, PEER_TLS_CERT, PEER_TLS_KEY), or none",
                     set->key, missing->key);
        return false;
    }
    return true;
}

static void check_bind(struct config_reading *r)
{
    const struct config *c = r->config;

    if (config_is_loopback(c->bind_host) || r->bad[SETTING_BIND])
        return;
    config_error(r, &r->where[SETTING_BIND], &settings[SETTING_BIND],
                 "%s%s is not loopback" NEEDS_TLS, c->bind_host[0] ? "" : "every address",
                 c->bind_host, c->peer_id, c->peer_id, c->peer_id);
}

static void check_peers(struct config_reading *r)
{
    const struct config *c = r->config;

    for (size_t i = 0; i < c->n_peers && !r->bad[SETTING_PEERS]; i++) {
        const char *host = c->peers[i].host;

        if (is_literal(host) && !config_is_loopback(host))
            config_error(r, &r->lists[LIST_PEERS].where[i], &settings[SETTING_PEERS],
                         "%s is not loopback" NEEDS_TLS, host, c->peer_id, c->peer_id, c->peer_id);
        if (r->bad[SETTING_PEERS])
            return; /* once is enough */
    }
}

void config_check_trust(struct config_reading *r)
{
    if (!check_files(r) || config_has_tls(r->config) || r->config->insecure ||
        r->bad[SETTING_INSECURE] || r->bad[SETTING_PEER_NAME])
        return;
    check_bind(r);
    check_peers(r);
}

void config_check_files(struct config_reading *r, const struct config_judge *judge)
{
    const struct config *c = r->config;
    struct tls_fault faults[N_TLS_FILES];

    if (!c->tls_ca[0] && !c->tls_cert[0] && !c->tls_key[0] && !c->tls_crl[0])
        return; /* OpenSSL's own settings are none of a plaintext node's */
    if (r->bad[SETTING_PEER_NAME])
        r->config->peer_id[0] = '\0'; /* nobody knows which one a certificate is to name */
    judge->look(judge->ctx, r->config, faults);
    for (size_t i = 0; i < N_TLS_FILES; i++) {
        if (faults[i].error == -ENOMEM)
            r->no_memory = true;
        else if (faults[i].error)
            config_error(r, &r->where[ids[i]], &settings[ids[i]], "%s", faults[i].why);
    }
}
