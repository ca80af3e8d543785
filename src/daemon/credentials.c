/* credentials - see credentials.h.
 *
 * A file is another one when its device, inode, size or time of change is: through symbolic links,
 * so that a folder that is swapped as a whole (Kubernetes, certbot) is seen. One that changed just
 * now may change again within the same tick of the file system's clock, so it is read once more at
 * the next look; reading what is the same costs nothing and is not told. What could not be
 * read, for want of a descriptor maybe, is tried again at each look: no list of revoked ones is
 * lost. */
#include "daemon/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "daemon/mailbox.h"

#define DAY_S 86400
#define SOON_S (14 * DAY_S) /* what ends earlier than that is warned of */
#define JUST_NOW_NS 2000000000LL
#define N_FILES 4

struct stamp {
    int error; /* errno of stat(2), and then nothing else */
    dev_t dev;
    ino_t ino;
    off_t size;
    int64_t mtime_ns, ctime_ns;
};

struct credentials {
    struct tls_settings files;
    const struct config *config;
    struct tls_keeper *keeper;
    struct stamp stamps[N_FILES];
    bool young;           /* one of them had changed just before it was read */
    char failed[TLS_WHY]; /* why they were not taken at the last look, as was told; "": they were */
    int64_t next_told_s;  /* what ends soon, or has ended, is told again then */
};

/* ---- what is in force, for people ---- */

static int64_t now_s(void) { return (int64_t)(clock_wall_us() / 1000000u); }

static const char *date(int64_t at_s, char out[16])
{
    time_t at = (time_t)at_s;
    struct tm tm;

    if (!gmtime_r(&at, &tm) || !strftime(out, 16, "%Y-%m-%d", &tm))
        strcpy(out, "?");
    return out;
}

static long long days(int64_t until_s) { return (long long)(until_s - now_s()) / DAY_S; }

/* "certificate of n1 (also edge), valid until 2027-11-26 (364 days), by CN=meshd CA; 1 CA is
 * trusted; CRL: 2 revoked, next update 2036-11-23" */
static void describe(const struct tls_material *m, bool crl, char *out, size_t size)
{
    char text[16], others[LIMIT_CERT_NAMES * (LIMIT_PEER_ID + 2) + 16] = "";
    int n = 0, len;

    for (size_t i = 1; i < LIMIT_CERT_NAMES && m->names[i][0]; i++)
        n += snprintf(others + n, sizeof others - (size_t)n, "%s%s", i == 1 ? " (also " : " ",
                      m->names[i]);
    if (n)
        strcat(others, ")");
    len = snprintf(out, size,
                   "certificate of %s%s, valid until %s (%lld days), by %s; %u CA%s trusted%s",
                   m->names[0], others, date(m->not_after, text), days(m->not_after), m->issuer,
                   m->n_cas, m->n_cas == 1 ? " is" : "s are", crl ? "; CRL: " : "; no CRL");
    if (!crl || len < 0 || (size_t)len >= size)
        return;
    snprintf(out + len, size - (size_t)len, "%u revoked%s%s", m->n_revoked,
             m->crl_next_update ? ", next update " : "",
             m->crl_next_update ? date(m->crl_next_update, text) : "");
}

#define DESCRIBED 1200u /* bytes of it */

static bool has_crl(const struct credentials *c) { return c->files.crl[0] != '\0'; }

static int64_t earlier_to_come(int64_t at_s, int64_t end_s, int64_t now)
{
    return end_s >= now && end_s < at_s ? end_s + 1 : at_s;
}

static void warn_of_ends(struct credentials *c, const struct tls_material *m)
{
    int64_t now = now_s();
    char text[16];

    c->next_told_s = earlier_to_come(now + DAY_S, m->not_after, now);
    c->next_told_s = earlier_to_come(c->next_told_s, m->crl_next_update, now);
    if (m->not_after < now)
        log_error("tls",
                  "this node's certificate has ended on %s: peers refuse it; put a new one "
                  "(meshcat ca issue %s) in the place of %s and %s, it is read within 10 s",
                  date(m->not_after, text), c->config->peer_id, c->files.cert, c->files.key);
    else if (m->not_after - now < SOON_S)
        log_warn("tls",
                 "this node's certificate ends on %s, in %lld days: put a new one (meshcat "
                 "ca issue %s) in the place of %s and %s, it is read within 10 s",
                 date(m->not_after, text), days(m->not_after), c->config->peer_id, c->files.cert,
                 c->files.key);
    if (m->crl_next_update && m->crl_next_update < now)
        log_error("tls",
                  "the CRL was to be renewed by %s: nobody is let in; put a newer one in the "
                  "place of %s, it is read within 10 s",
                  date(m->crl_next_update, text), c->files.crl);
    else if (m->crl_next_update && m->crl_next_update - now < SOON_S)
        log_warn("tls",
                 "the CRL is to be renewed by %s, in %lld days; after that nobody is let in: "
                 "put a newer one in the place of %s, it is read within 10 s",
                 date(m->crl_next_update, text), days(m->crl_next_update), c->files.crl);
}

static void warn_of_key(const struct credentials *c, const struct tls_material *m)
{
    if (m->key_exposed)
        log_warn("tls",
                 "%s: others than its owner may read the private key; chmod 600 keeps them out",
                 c->files.key);
}

/* ---- the files ---- */

static struct stamp stamp_of(const char *path)
{
    struct stamp stamp = {0};
    struct stat st;

    if (!path[0])
        return stamp;
    if (stat(path, &st) < 0) {
        stamp.error = errno;
        return stamp;
    }
    stamp.dev = st.st_dev;
    stamp.ino = st.st_ino;
    stamp.size = st.st_size;
    stamp.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    stamp.ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
    return stamp;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
    return a->error == b->error && a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

/* Before they are read, so that what changes meanwhile is seen at the next look. True: something is
 * different. */
static bool take_stamps(struct credentials *c)
{
    const char *paths[N_FILES] = {c->files.ca, c->files.cert, c->files.key, c->files.crl};
    int64_t now_ns = (int64_t)clock_wall_us() * 1000;
    bool differs = c->young || c->failed[0];

    c->young = false;
    for (size_t i = 0; i < N_FILES; i++) {
        struct stamp stamp = stamp_of(paths[i]);

        differs |= !same_stamp(&stamp, &c->stamps[i]);
        c->young |= stamp.mtime_ns > now_ns - JUST_NOW_NS;
        c->stamps[i] = stamp;
    }
    return differs;
}

static struct tls_settings settings_of(const struct config *config)
{
    return (struct tls_settings){.ca = config->tls_ca,
                                 .cert = config->tls_cert,
                                 .key = config->tls_key,
                                 .crl = config->tls_crl,
                                 .self = config->peer_id,
                                 .offload = config->tls_offload};
}

int credentials_new(const struct config *config, struct credentials **out_credentials)
{
    char why[TLS_WHY], text[DESCRIBED];
    struct tls_material material;
    struct credentials *c;
    int r;

    if (!config_has_tls(config)) {
        *out_credentials = NULL;
        return 0;
    }
    c = must_alloc(sizeof *c);
    c->config = config;
    c->files = settings_of(config);
    take_stamps(c);
    r = tls_keeper_new(&c->files, why, &c->keeper);
    if (r < 0) {
        log_error("tls", "%s", why);
        free(c);
        return r;
    }
    tls_keeper_material(c->keeper, &material);
    describe(&material, has_crl(c), text, sizeof text);
    log_info("tls", "TLS: %s", text);
    warn_of_key(c, &material);
    warn_of_ends(c, &material);
    *out_credentials = c;
    return 0;
}

struct tls_keeper *credentials_keeper(struct credentials *c) { return c ? c->keeper : NULL; }

#define SAME "the files of TLS were read again: nothing is different"

static struct log_limit same; /* who asks may ask as often as he likes */

void credentials_left_out(uint64_t now_ms)
{
    log_limited_rest(&same, now_ms, LOG_INFO, "tls", SAME);
}

static bool read_again(struct credentials *c, bool always)
{
    char why[TLS_WHY], text[DESCRIBED];
    struct tls_material before, now;
    int r;

    tls_keeper_material(c->keeper, &before);
    r = tls_keeper_reload(c->keeper, why);
    if (r < 0) {
        if (always || strcmp(why, c->failed) != 0)
            log_error("tls",
                      "the files of TLS were not taken, and what was read before stays in force: "
                      "%s",
                      why);
        memcpy(c->failed, why, sizeof why);
        return false;
    }
    c->failed[0] = '\0';
    if (r > 0) {
        if (always)
            log_limited(&same, clock_ms(), LOG_INFO, "tls", SAME, "%s", SAME);
        return false;
    }
    tls_keeper_material(c->keeper, &now);
    describe(&now, has_crl(c), text, sizeof text);
    log_info("tls", "the files of TLS were read again%s%s: %s",
             strcmp(now.fingerprint, before.fingerprint) != 0 ? "; another certificate" : "",
             now.n_revoked != before.n_revoked ? "; another CRL" : "", text);
    warn_of_key(c, &now);
    warn_of_ends(c, &now);
    return true;
}

bool credentials_look(struct credentials *c, bool always)
{
    struct tls_material material;
    bool differs;

    if (!c)
        return false;
    differs = take_stamps(c);
    if ((differs || always) && read_again(c, always))
        return true;
    if (always || now_s() >= c->next_told_s) {
        tls_keeper_material(c->keeper, &material);
        warn_of_ends(c, &material);
    }
    return false;
}

int credentials_reload(struct credentials *c, char out_why[TLS_WHY])
{
    bool took = credentials_look(c, true);

    if (!c || !c->failed[0])
        return took;
    memcpy(out_why, c->failed, TLS_WHY);
    return -EINVAL;
}

void credentials_confined(const struct credentials *c)
{
    const char *const paths[N_FILES] = {c ? c->files.ca : "", c ? c->files.cert : "",
                                        c ? c->files.key : "", c ? c->files.crl : ""};

    for (size_t i = 0; i < N_FILES; i++) {
        int fd = paths[i][0] ? open(paths[i], O_RDONLY | O_CLOEXEC) : -1;

        if (fd < 0 && paths[i][0])
            log_warn("tls",
                     "%s: %s for the user that this node is now: what changes in it will not be "
                     "taken while it runs",
                     paths[i], strerror(errno));
        if (fd >= 0)
            close(fd);
    }
}

void credentials_free(struct credentials *c)
{
    if (!c)
        return;
    tls_keeper_free(c->keeper);
    free(c);
}

/* As the log does: a certificate's issuer may be called anything. */
static void put_escaped(const char *text, FILE *out)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c < 0x20 || c > 0x7e || c == '\\')
            fprintf(out, "\\x%02x", c);
        else
            putc(c, out);
    }
}

void credentials_judge(const struct credentials *c, const struct config *config,
                       struct tls_fault out_faults[N_TLS_FILES])
{
    struct tls_settings files = settings_of(config);

    if (c)
        files.self = c->files.self;
    tls_files_check(&files, c ? c->keeper : NULL, out_faults);
}

bool credentials_check(const struct config *config, FILE *out, FILE *err)
{
    const struct tls_settings files = settings_of(config);
    char why[TLS_WHY], text[DESCRIBED];
    struct tls_material material;
    struct tls_keeper *keeper;

    if (!config_has_tls(config))
        return true;
    if (tls_keeper_new(&files, why, &keeper) < 0) {
        fprintf(err, "%s\n", why);
        return false;
    }
    tls_keeper_material(keeper, &material);
    tls_keeper_free(keeper);
    describe(&material, config->tls_crl[0] != '\0', text, sizeof text);
    fputs("TLS: ", out);
    put_escaped(text, out);
    putc('\n', out);
    return true;
}
