/* meshcat_ca - a small CA for a mesh that has no other: init, issue, revoke, show. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "meshcat.h"
#include "meshcat_format.h"
#include "tls/ca.h"

#define DAY_SECONDS 86400
#define SOON_DAYS 30 /* an end that is so near is worth a colour */

static void close_ca(struct ca **ca) { ca_close(*ca); }
static void free_certs(struct ca_cert **certs) { free(*certs); }

static const char *dir_of(const struct meshcat_opts *opts)
{
    return opts->ca_dir ? opts->ca_dir : "meshd-ca";
}

static uint64_t now_s(void) { return clock_wall_us() / 1000000u; }

/* Of an error of the room: nothing is where it was looked for, a word is wrong, or a file is. */
static int told(const struct meshcat_opts *opts, int error, const char *why)
{
    int code = EXIT_LOCAL;

    if (error == -ENOENT)
        code = EXIT_NOTHING;
    if (error == -EINVAL || error == -EEXIST)
        code = EXIT_USAGE;
    return show_error(opts, code, -1, "%s", why);
}

/* ---- how certificates are shown ---- */

static const char *state_of(const struct ca_cert *cert)
{
    int64_t now = (int64_t)now_s();

    if (cert->revoked_at)
        return "revoked";
    if (cert->not_after <= now)
        return "expired";
    return cert->not_after - now < (int64_t)SOON_DAYS * DAY_SECONDS ? "ending" : "valid";
}

static int64_t days_left(const struct ca_cert *cert)
{
    int64_t left = cert->not_after - (int64_t)now_s();

    return left > 0 ? left / DAY_SECONDS : 0;
}

static json_t *names_json(const struct ca_cert *cert)
{
    json_t *names = json_array();

    for (size_t i = 0; i < LIMIT_CERT_NAMES && cert->names[i][0]; i++)
        json_array_append_new(names, json_string(cert->names[i]));
    return names;
}

static json_t *time_json(int64_t unix_s)
{
    char text[40];

    time_text((uint64_t)unix_s, text);
    return json_string(text);
}

/* A subject may be of a file from anywhere: safe_text makes it something that JSON can hold. */
static json_t *cert_json(const struct ca_cert *cert)
{
    CLEANUP(free_textp) char *subject = safe_text(cert->subject), *issuer = safe_text(cert->issuer);
    json_t *json = json_pack(
        "{s:s,s:s,s:o,s:s,s:s,s:o,s:o,s:I,s:s,s:o,s:b}", "subject", subject, "issuer", issuer,
        "names", names_json(cert), "serial", cert->serial, "fingerprint", cert->fingerprint,
        "not_before", time_json(cert->not_before), "not_after", time_json(cert->not_after),
        "days_left", (json_int_t)days_left(cert), "state", state_of(cert), "revoked_at",
        cert->revoked_at ? time_json(cert->revoked_at) : json_null(), "ca", cert->is_ca);

    if (!json)
        out_of_memory();
    return json;
}

static void cert_row(struct table *table, const struct ca_cert *cert)
{
    char names[LIMIT_CERT_NAMES * (LIMIT_PEER_ID + 2)] = "";

    for (size_t i = 0; i < LIMIT_CERT_NAMES && cert->names[i][0]; i++) {
        if (i > 0)
            strcat(names, ",");
        strcat(names, cert->names[i]);
    }
    table_cell(table, names[0] ? names : cert->subject);
    table_state(table, state_of(cert));
    table_number(table, (uint64_t)days_left(cert));
    table_time(table, (uint64_t)cert->not_after);
    table_cell(table, cert->serial);
}

static void show_certs(const struct meshcat_opts *opts, const struct ca_cert *certs, size_t n)
{
    CLEANUP(table_freep) struct table *table = NULL;
    CLEANUP(json_decrefp) json_t *all = NULL;

    if (opts->silent)
        return;
    if (opts->format == FORMAT_TABLE)
        table = TABLE("NAMES", "STATE", "DAYS", "UNTIL", "SERIAL");
    else if (opts->format == FORMAT_JSON)
        all = json_array();
    for (size_t i = 0; i < n; i++) {
        CLEANUP(json_decrefp) json_t *one = table ? NULL : cert_json(&certs[i]);

        if (table)
            cert_row(table, &certs[i]);
        else if (all)
            json_array_append(all, one);
        else
            format_line(one, 0);
    }
    if (table)
        table_print(table, stdout);
    if (all)
        format_line(all, 0);
}

/* ---- init ---- */

static int run_init(const struct meshcat_opts *opts)
{
    CLEANUP(free_textp) char *dir = safe_text(dir_of(opts));
    unsigned days = opts->days ? opts->days : CA_DAYS;
    char why[TLS_WHY] = "";
    int r = ca_init(dir_of(opts), days, why);

    if (r < 0)
        return told(opts, r, why);
    show_note(opts,
              "%s holds a CA for %u days now; keep ca-key.pem safe: who has it can be any node",
              dir, days);
    show_note(opts, "next: meshcat ca issue NODE...%s%s", opts->ca_dir ? " --dir " : "",
              opts->ca_dir ? dir : "");
    return EXIT_FOUND;
}

/* ---- issue ---- */

/* For a shell; most folders need no quotes. */
static void put_path(const char *dir, const char *file)
{
    CLEANUP(free_textp) char *safe = safe_text(dir);
    const char *plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/+,@%";
    bool quoted = safe[strspn(safe, plain)] != '\0';

    printf("%s%s/%s%s", quoted ? "'" : "", safe, file, quoted ? "'" : "");
}

static void show_settings(const char *dir, const char *node)
{
    char file[LIMIT_PEER_ID + 16];

    printf("PEER_NAME=%s PEER_TLS_CA=", node);
    put_path(dir, "ca.pem");
    fputs(" PEER_TLS_CERT=", stdout);
    snprintf(file, sizeof(file), "%s.pem", node);
    put_path(dir, file);
    fputs(" PEER_TLS_KEY=", stdout);
    snprintf(file, sizeof(file), "%s-key.pem", node);
    put_path(dir, file);
    fputs(" meshd\n", stdout);
}

static int issue_one(const struct meshcat_opts *opts, struct ca *ca, const char *const *names,
                     size_t n_names, struct ca_cert *out_cert)
{
    char why[TLS_WHY] = "";
    int r = ca_issue(ca, names, n_names, opts->days ? opts->days : CA_NODE_DAYS, why, out_cert);

    return r < 0 ? told(opts, r, why) : EXIT_FOUND;
}

/* The node, and what stands between the commas of --san. */
static int split_names(const struct meshcat_opts *opts, char *copy, const char *names[])
{
    size_t n = 1;

    for (char *next = copy; next;) {
        char *name = strsep(&next, ",");

        if (n == LIMIT_CERT_NAMES)
            return show_error(opts, EXIT_USAGE, -1, "--san: a certificate has at most %u names",
                              LIMIT_CERT_NAMES);
        names[n++] = name;
    }
    return -(int)n;
}

static int run_issue(const struct meshcat_opts *opts)
{
    CLEANUP(close_ca) struct ca *ca = NULL;
    CLEANUP(free_textp) char *copy = opts->ca_san ? must_dup(opts->ca_san) : NULL;
    size_t n = opts->n_args - 1;
    CLEANUP(free_certs) struct ca_cert *certs = must_alloc(n * sizeof(*certs));
    const char *names[LIMIT_CERT_NAMES];
    int n_names = copy ? split_names(opts, copy, names) : -1, code = EXIT_FOUND;
    char why[TLS_WHY] = "";
    int r;

    if (n_names > 0)
        return n_names; /* the exit code of what was told */
    for (size_t i = 0; i < n; i++)
        if (!ca_node_valid(opts->args[i + 1])) /* before anything is written */
            return show_error(opts, EXIT_USAGE, -1,
                              "'%.64s' cannot be a node here: a peer id is 1 to %u of A-Z a-z 0-9 "
                              ". _ -; not ca, crl or one that ends in -key",
                              opts->args[i + 1], LIMIT_PEER_ID);
    r = ca_open(dir_of(opts), why, &ca);
    if (r < 0)
        return told(opts, r, why);
    for (size_t i = 0; i < n && code == EXIT_FOUND; i++) {
        names[0] = opts->args[i + 1];
        code = issue_one(opts, ca, names, (size_t)-n_names, &certs[i]);
        if (code == EXIT_FOUND && opts->format == FORMAT_TABLE && !opts->silent)
            show_settings(dir_of(opts), names[0]);
    }
    if (code == EXIT_FOUND && format_is_json(opts))
        show_certs(opts, certs, n);
    return code;
}

/* ---- revoke, show ---- */

static int run_revoke(const struct meshcat_opts *opts)
{
    CLEANUP(close_ca) struct ca *ca = NULL;
    CLEANUP(free_textp) char *dir = safe_text(dir_of(opts));
    const char *node = opts->n_args > 1 ? opts->args[1] : NULL;
    char why[TLS_WHY] = "";
    unsigned n = 0;
    int r = ca_open(dir_of(opts), why, &ca);

    if (r == 0)
        r = ca_revoke(ca, node, opts->ca_serial, why, &n);
    if (r < 0)
        return told(opts, r, why);
    if (n == 0)
        show_note(opts, "nothing is new: all of it had been revoked, or has ended");
    else
        show_note(opts,
                  "%u revoked. Nodes refuse it once they have %s/crl.pem (PEER_TLS_CRL=%s/crl.pem) "
                  "and have read it: copy it to each",
                  n, dir, dir);
    return EXIT_FOUND;
}

static int run_show(const struct meshcat_opts *opts)
{
    CLEANUP(close_ca) struct ca *ca = NULL;
    CLEANUP(free_certs) struct ca_cert *certs = NULL;
    char why[TLS_WHY] = "";
    size_t n = 0;
    int r = ca_open(dir_of(opts), why, &ca);

    if (r == 0)
        r = ca_list(ca, why, &certs, &n);
    if (r < 0)
        return told(opts, r, why);
    if (opts->format == FORMAT_TABLE && !opts->silent)
        printf("SHA-256 of the CA: %s\n\n", certs[0].fingerprint);
    show_certs(opts, certs, n);
    return EXIT_FOUND;
}

static int run_look(const struct meshcat_opts *opts)
{
    CLEANUP(free_certs) struct ca_cert *all = NULL;
    size_t n_all = 0;

    for (size_t i = 1; i < opts->n_args; i++) {
        CLEANUP(free_certs) struct ca_cert *certs = NULL;
        char why[TLS_WHY] = "";
        size_t n = 0;
        int r = ca_look(opts->args[i], why, &certs, &n);

        if (r < 0)
            return told(opts, r, why);
        all = must_realloc(all, (n_all + n) * sizeof(*all));
        memcpy(all + n_all, certs, n * sizeof(*all));
        n_all += n;
    }
    show_certs(opts, all, n_all);
    return EXIT_FOUND;
}

/* ---- the command ---- */

/* Which words and options each action takes. */
static int check_action(const struct meshcat_opts *opts, const char *action, size_t n)
{
    bool init = strcmp(action, "init") == 0, issue = strcmp(action, "issue") == 0;
    bool revoke = strcmp(action, "revoke") == 0;

    if (format_is_message(opts))
        return show_error(opts, EXIT_USAGE, -1, "ca takes --format table, json or jsonl");
    if (init && n > 0)
        return show_error(opts, EXIT_USAGE, -1, "ca init takes no words; --dir names its folder");
    if (issue && n == 0)
        return show_error(opts, EXIT_USAGE, -1, "ca issue needs the peer id of a node, or more");
    if (issue && n > 1 && opts->ca_san)
        return show_error(opts, EXIT_USAGE, -1, "--san is for one node at a time");
    if (revoke && n != (opts->ca_serial ? 0 : 1))
        return show_error(opts, EXIT_USAGE, -1, "ca revoke takes one node, or --serial");
    if ((opts->ca_san && !issue) || (opts->ca_serial && !revoke) || (opts->days && !init && !issue))
        return show_error(opts, EXIT_USAGE, -1,
                          "--san is for issue, --serial for revoke, --days for init and issue");
    return EXIT_FOUND;
}

int run_ca(const struct meshcat_opts *opts)
{
    const char *action = opts->args[0];
    int code = check_action(opts, action, opts->n_args - 1);

    if (code != EXIT_FOUND)
        return code;
    if (strcmp(action, "init") == 0)
        return run_init(opts);
    if (strcmp(action, "issue") == 0)
        return run_issue(opts);
    if (strcmp(action, "revoke") == 0)
        return run_revoke(opts);
    if (strcmp(action, "show") == 0)
        return opts->n_args > 1 ? run_look(opts) : run_show(opts);
    return show_error(opts, EXIT_USAGE, -1,
                      "there is no ca %.60s; it is init, issue, revoke or show", action);
}
