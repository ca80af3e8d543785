/* keeper - the files, and the context that is in force. Files are read and judged outside its lock;
 * under it a context is only taken or changed for another. */
#include "tls/inside.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"

struct tls_keeper {
    char *paths[N_TLS_FILES],
        *self; /* NULL: none is set; like all until `reading`, never changed */
    bool no_verify, offload;
    struct mutex reading; /* one reload at a time; taken before lock */
    struct mutex lock;
    struct { /* only with lock held */
        struct tls_context *context;
        uint64_t loads;
        X509 *between[LIMIT_CERT_BETWEEN]; /* the oldest is replaced first */
        unsigned n_between, next_between;
    } held;
};

static int copy(char **out, const char *text)
{
    if (!text || !text[0])
        return 0;
    *out = strdup(text);
    return *out ? 0 : -ENOMEM;
}

static int copy_settings(struct tls_keeper *keeper, const struct tls_settings *settings)
{
    int r = copy(&keeper->paths[TLS_FILE_CA], settings->ca);

    keeper->no_verify = settings->no_verify;
    keeper->offload = settings->offload;
    if (r == 0)
        r = copy(&keeper->paths[TLS_FILE_CERT], settings->cert);
    if (r == 0)
        r = copy(&keeper->paths[TLS_FILE_KEY], settings->key);
    if (r == 0)
        r = copy(&keeper->paths[TLS_FILE_CRL], settings->crl);
    if (r == 0)
        r = copy(&keeper->self, settings->self);
    return r;
}

static int check_set(const struct tls_keeper *keeper, char out_why[TLS_WHY])
{
    if (!keeper->paths[TLS_FILE_CERT] || !keeper->paths[TLS_FILE_KEY])
        return pem_fail(out_why, -EINVAL, "a certificate and its key are needed, both");
    if (!keeper->paths[TLS_FILE_CA] && !keeper->no_verify)
        return pem_fail(out_why, -EINVAL, "a CA is needed to know whom to trust");
    return 0;
}

/* True: all were read. */
static bool read_all(const char *const paths[N_TLS_FILES], struct pem pems[N_TLS_FILES],
                     struct tls_fault faults[N_TLS_FILES])
{
    bool all = true;

    for (int i = 0; i < N_TLS_FILES; i++) {
        faults[i].error = pem_read(&pems[i], paths[i], faults[i].why);
        all &= faults[i].error == 0;
    }
    return all;
}

static void wipe_all(struct pem pems[N_TLS_FILES])
{
    for (int i = 0; i < N_TLS_FILES; i++)
        pem_wipe(&pems[i]);
}

static void put_locked(struct tls_keeper *keeper, struct tls_context *context)
    REQUIRES(keeper->lock)
{
    context->material.loads = ++keeper->held.loads;
    keeper->held.context = context;
}

static int first_of(const struct tls_fault faults[N_TLS_FILES], char out_why[TLS_WHY])
{
    int i = 0;

    while (!faults[i].error)
        i++;
    memcpy(out_why, faults[i].why, TLS_WHY);
    return faults[i].error;
}

/* The files become the context in force, if they are good and other ones. */
static int load(struct tls_keeper *keeper, char out_why[TLS_WHY])
{
    struct tls_settings settings = {
        .self = keeper->self, .no_verify = keeper->no_verify, .offload = keeper->offload};
    struct tls_fault faults[N_TLS_FILES] = {{0}};
    struct pem pems[N_TLS_FILES] = {{0}};
    struct tls_context *fresh = NULL, *old = NULL;
    char in_force[65] = "";
    uint8_t digest[TLS_DIGEST];
    bool same = false;

    if (read_all((const char *const *)keeper->paths, pems, faults)) {
        context_digest(pems, digest);
        mutex_lock(&keeper->lock);
        same = keeper->held.context &&
               memcmp(keeper->held.context->digest, digest, sizeof(digest)) == 0;
        if (same)
            keeper->held.context->material.key_exposed = pems[TLS_FILE_KEY].exposed;
        else if (keeper->held.context)
            memcpy(in_force, keeper->held.context->material.fingerprint, sizeof(in_force));
        mutex_unlock(&keeper->lock);
        if (!same)
            context_new(pems, &settings, in_force, faults, &fresh);
    }
    wipe_all(pems);
    if (same)
        return 1;
    if (!fresh)
        return first_of(faults, out_why);
    mutex_lock(&keeper->lock);
    old = keeper->held.context;
    put_locked(keeper, fresh);
    mutex_unlock(&keeper->lock);
    context_unref(old);
    return 0;
}

static const char *named(const char *path) { return path && path[0] ? path : NULL; }

void tls_files_check(const struct tls_settings *settings, struct tls_keeper *in_force,
                     struct tls_fault out_faults[N_TLS_FILES])
{
    const char *const paths[N_TLS_FILES] = {
        [TLS_FILE_CA] = named(settings->ca),
        [TLS_FILE_CERT] = named(settings->cert),
        [TLS_FILE_KEY] = named(settings->key),
        [TLS_FILE_CRL] = named(settings->crl),
    };
    struct tls_material material = {.fingerprint = ""};
    struct pem pems[N_TLS_FILES] = {{0}};
    struct tls_context *context = NULL;

    if (in_force)
        tls_keeper_material(in_force, &material);
    read_all(paths, pems, out_faults);
    context_new(pems, settings, material.fingerprint, out_faults, &context);
    wipe_all(pems);
    context_unref(context);
}

static void free_keeper(struct tls_keeper **keeper) { tls_keeper_free(*keeper); }

int tls_keeper_new(const struct tls_settings *settings, char out_why[TLS_WHY],
                   struct tls_keeper **out_keeper)
{
    CLEANUP(free_keeper) struct tls_keeper *keeper = calloc(1, sizeof(*keeper));
    int r;

    if (!keeper)
        return pem_fail(out_why, -ENOMEM, "no memory");
    mutex_init(&keeper->reading);
    mutex_init(&keeper->lock);
    r = copy_settings(keeper, settings);
    if (r < 0)
        return pem_fail(out_why, r, "no memory");
    r = check_set(keeper, out_why);
    if (r == 0)
        r = load(keeper, out_why);
    if (r < 0)
        return r;
    *out_keeper = TAKE(&keeper);
    return 0;
}

void tls_keeper_free(struct tls_keeper *keeper)
{
    if (!keeper)
        return;
    context_unref(keeper->held.context);
    for (unsigned i = 0; i < keeper->held.n_between; i++)
        X509_free(keeper->held.between[i]);
    for (int i = 0; i < N_TLS_FILES; i++)
        free(keeper->paths[i]);
    free(keeper->self);
    mutex_fini(&keeper->reading);
    mutex_fini(&keeper->lock);
    free(keeper);
}

int tls_keeper_reload(struct tls_keeper *keeper, char out_why[TLS_WHY])
{
    int r;

    mutex_lock(&keeper->reading);
    r = load(keeper, out_why);
    mutex_unlock(&keeper->reading);
    return r;
}

void tls_keeper_material(struct tls_keeper *keeper, struct tls_material *out_material)
{
    mutex_lock(&keeper->lock);
    *out_material = keeper->held.context->material;
    mutex_unlock(&keeper->lock);
}

struct tls_context *keeper_context(struct tls_keeper *keeper)
{
    struct tls_context *context;

    mutex_lock(&keeper->lock);
    context = context_ref(keeper->held.context);
    mutex_unlock(&keeper->lock);
    return context;
}

static void learn_locked(struct tls_keeper *keeper, X509 *cert) REQUIRES(keeper->lock)
{
    X509 **place;

    for (unsigned i = 0; i < keeper->held.n_between; i++)
        if (X509_cmp(keeper->held.between[i], cert) == 0)
            return;
    place = &keeper->held.between[keeper->held.next_between];
    if (keeper->held.n_between < LIMIT_CERT_BETWEEN)
        keeper->held.n_between++;
    else
        X509_free(*place);
    X509_up_ref(cert);
    *place = cert;
    keeper->held.next_between = (keeper->held.next_between + 1) % LIMIT_CERT_BETWEEN;
}

void keeper_learn(struct tls_keeper *keeper, const STACK_OF(X509) * chain)
{
    /* Neither the first, who it is about, nor the last, which the files have. */
    mutex_lock(&keeper->lock);
    for (int i = 1; i < sk_X509_num(chain) - 1; i++)
        learn_locked(keeper, sk_X509_value(chain, i));
    mutex_unlock(&keeper->lock);
}

STACK_OF(X509) * keeper_between(struct tls_keeper *keeper)
{
    STACK_OF(X509) *all = sk_X509_new_null();

    if (!all)
        return NULL;
    mutex_lock(&keeper->lock);
    for (unsigned i = 0; i < keeper->held.n_between && all; i++) {
        if (sk_X509_push(all, keeper->held.between[i])) {
            X509_up_ref(keeper->held.between[i]);
        } else {
            sk_X509_pop_free(all, X509_free);
            all = NULL;
        }
    }
    mutex_unlock(&keeper->lock);
    return all;
}
