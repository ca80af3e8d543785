/* trust - which files, and when they are read. */
#include "client/trust.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "client/error.h"

struct trust {
    atomic_uint refs;
    atomic_bool used; /* a session was made of what was read last */
    struct tls_keeper *keeper;
    char node[LIMIT_PEER_ID + 1]; /* "": any of the mesh */
};

bool trust_wanted(const char *url) { return strncmp(url, "tls://", 6) == 0; }

static const char *or_env(const char *given, const char *variable)
{
    const char *value = given && given[0] ? given : getenv(variable);

    return value && value[0] ? value : NULL;
}

/* What can be seen before any file is read. */
static int settings_of(const struct mesh_tls *tls, struct tls_settings *out, char why[TLS_WHY])
{
    bool own = tls && tls->cert && tls->cert[0];

    *out = (struct tls_settings){
        .ca = or_env(tls ? tls->ca : NULL, "PEER_TLS_CA"),
        .cert = or_env(tls ? tls->cert : NULL, "PEER_TLS_CERT"),
        .no_verify = tls && tls->insecure,
    };
    /* A key of the environment belongs to the certificate there. */
    out->key = tls && tls->key && tls->key[0] ? tls->key
               : own                          ? NULL
                                              : or_env(NULL, "PEER_TLS_KEY");
    if (!out->key)
        out->key = out->cert;
    if (!out->cert)
        snprintf(why, TLS_WHY,
                 "tls:// needs a certificate of one's own, and none is given: PEER_TLS_CERT and "
                 "PEER_TLS_KEY name its files");
    else if (!out->ca && !out->no_verify)
        snprintf(why, TLS_WHY,
                 "tls:// needs the CA of the mesh, and none is given: PEER_TLS_CA names its file");
    else
        return 0;
    return -EINVAL;
}

int trust_new(const struct mesh_tls *tls, char out_why[TLS_WHY], struct trust **out_trust)
{
    CLEANUP(trust_unrefp) struct trust *trust = NULL;
    const char *node = tls && tls->node ? tls->node : "";
    struct tls_settings settings;
    int r;

    if (tls && tls->size < sizeof(*tls)) {
        snprintf(out_why, TLS_WHY, "mesh_tls.size is to be sizeof(struct mesh_tls)");
        return -EINVAL;
    }
    r = settings_of(tls, &settings, out_why);
    if (r < 0)
        return r;
    if (strlen(node) > LIMIT_PEER_ID) {
        snprintf(out_why, TLS_WHY, "a peer id has at most %u bytes", LIMIT_PEER_ID);
        return -EINVAL;
    }
    trust = calloc(1, sizeof(*trust));
    if (!trust)
        return -ENOMEM;
    atomic_init(&trust->refs, 1);
    snprintf(trust->node, sizeof(trust->node), "%s", node);
    r = tls_keeper_new(&settings, out_why, &trust->keeper);
    if (r < 0)
        return r;
    *out_trust = TAKE(&trust);
    return 0;
}

int trust_for(const char *url, const struct mesh_tls *tls, char out_why[TLS_WHY],
              struct trust **out_trust)
{
    if (trust_wanted(url))
        return trust_new(tls, out_why, out_trust);
    *out_trust = NULL;
    return 0;
}

enum mesh_status trust_open(const char *url, const struct mesh_tls *tls, struct trust **out_trust)
{
    char why[TLS_WHY];
    int r = trust_for(url, tls, why, out_trust);

    if (r == -ENOMEM)
        return error_errno(r, url);
    return r < 0 ? error_set(MESH_INVALID, "%s: %s", url, why) : MESH_OK;
}

struct trust *trust_ref(struct trust *trust)
{
    if (trust)
        atomic_fetch_add(&trust->refs, 1);
    return trust;
}

void trust_unref(struct trust *trust)
{
    if (!trust || atomic_fetch_sub(&trust->refs, 1) > 1)
        return;
    tls_keeper_free(trust->keeper);
    free(trust);
}

void trust_unrefp(struct trust **trust) { trust_unref(*trust); }

int trust_session(struct trust *trust, int fd, struct tls **out_tls)
{
    char why[TLS_WHY];

    /* What cannot be read now is told by nobody: with what was read before it may work, and if it
     * does not, the other side says why. */
    if (atomic_exchange(&trust->used, true))
        (void)tls_keeper_reload(trust->keeper, why);
    return tls_new(trust->keeper, TLS_CONNECT, fd, trust->node, true, out_tls);
}
