/* meshcat_opts - the command line, in the manner of nngcat.
 *
 * Long options may be abbreviated as long as only one is meant, and take their value after `=`,
 * after
 * `:` or as the next word. Short options take it glued or as the next word and are not combined.
 * Options stand before or after the command; `--` ends them.
 */
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/limits.h"
#include "meshcat.h"

#define TIMEOUT_DEFAULT_MS 5000u
#define SECONDS_MAX 600.0 /* the longest deadline a call may have */
#define TTL_MAX 86400.0   /* seconds; of mesh.proto */
#define FILTERS (CMD_INTROSPECT | CMD_SERVICES | CMD_PEERS)

enum opt_id {
    OPT_DIAL,
    OPT_IPC,
    OPT_LOCAL,
    OPT_FORMAT,
    OPT_TIMEOUT,
    OPT_SILENT,
    OPT_VERBOSE,
    OPT_HELP,
    OPT_VERSION,
    OPT_COUNT,
    OPT_INTERVAL,
    OPT_NAME,
    OPT_PEER,
    OPT_STATE,
    OPT_LIMIT,
    OPT_TTL,
    OPT_LEASE,
    OPT_N,
};

static const struct opt_spec {
    const char *name, *other; /* long names without "--"; other: a second one, or NULL */
    char letter;              /* or 0 */
    enum opt_id id;
    unsigned commands; /* which ones it is for */
    const char *value; /* what it takes, or NULL */
    const char *help;
} specs[] = {
    {"dial", "connect", 0, OPT_DIAL, CMD_ALL, "URL", "ask tcp://host:port or ipc:///path"},
    {"connect-ipc", NULL, 'x', OPT_IPC, CMD_ALL, "PATH", "ask on this Unix socket"},
    {"connect-local", NULL, 'l', OPT_LOCAL, CMD_ALL, "PORT", "ask tcp://127.0.0.1:PORT"},
    {"format", NULL, 0, OPT_FORMAT, CMD_ALL, "FORMAT", "table (the default) or json"},
    {"timeout", NULL, 0, OPT_TIMEOUT, CMD_ALL, "SECONDS",
     "for all of it: connect, send, receive; fractions are fine; default 5"},
    {"silent", "quiet", 'q', OPT_SILENT, CMD_ALL, NULL, "no data: the exit code is the answer"},
    {"verbose", NULL, 'v', OPT_VERBOSE, CMD_ALL, NULL, "say on stderr who answered what"},
    {"help", NULL, 'h', OPT_HELP, CMD_ALL, NULL, "this help, or that of a command"},
    {"version", NULL, 'V', OPT_VERSION, CMD_ALL, NULL, "the version"},
    {"name", NULL, 0, OPT_NAME, FILTERS, "GLOB", "only services whose name matches (* and ?)"},
    {"peer", NULL, 0, OPT_PEER, FILTERS, "WHO", "only of local, a source label, or a peer id"},
    {"state", NULL, 0, OPT_STATE, FILTERS, "STATE", "only connected, stale or draining"},
    {"limit", NULL, 0, OPT_LIMIT, FILTERS, "N", "at most N rows of each map"},
    {"count", NULL, 'C', OPT_COUNT, CMD_PING, "N", "ask N times; default 1"},
    {"interval", NULL, 'i', OPT_INTERVAL, CMD_PING, "SECONDS",
     "wait between; default 1; without --count: until interrupted"},
    {"ttl", NULL, 0, OPT_TTL, CMD_OFFER, "SECONDS", "1 to 86400; default: until withdrawn"},
    {"lease", NULL, 0, OPT_LEASE, CMD_OFFER | CMD_WITHDRAW, "ID",
     "the lease; default meshcat:NAME to offer, any to withdraw"},
};
#define N_SPECS (sizeof(specs) / sizeof(*specs))

struct parser {
    struct meshcat_opts *opts;
    struct meshcat_complaint *complaint;
    bool failed;
    bool seen[OPT_N];
};

/* Keeps the first complaint only: what follows it is often its echo. */
static void __attribute__((format(printf, 2, 3)))
complain(struct parser *p, const char *format, ...)
{
    va_list ap;

    if (p->failed)
        return;
    p->failed = true;
    va_start(ap, format);
    vsnprintf(p->complaint->text, sizeof(p->complaint->text), format, ap);
    va_end(ap);
}

/* Decimal digits with at most one point, nothing else: no exponent, no sign, no "inf". */
static bool seconds_valid(const char *text, double least, double most, double *out_seconds)
{
    size_t digits = strspn(text, "0123456789");
    size_t point = text[digits] == '.', rest = 0;
    double v = 0, scale = 1;

    if (point)
        rest = strspn(text + digits + 1, "0123456789");
    if (digits + rest == 0 || digits > 9 || text[digits + point + rest] != '\0')
        return false;
    /* By hand: strtod would read the locale's decimal comma. */
    for (size_t i = 0; i < digits; i++)
        v = v * 10 + (text[i] - '0');
    for (size_t i = 0; i < rest && i < 9; i++)
        v += (text[digits + 1 + i] - '0') * (scale /= 10);
    if (v < least || v > most)
        return false;
    *out_seconds = v;
    return true;
}

static bool number_valid(const char *text, uint32_t least, uint32_t most, uint32_t *out_number)
{
    size_t digits = strspn(text, "0123456789");
    unsigned long v;

    if (digits == 0 || digits > 10 || text[digits] != '\0')
        return false;
    v = strtoul(text, NULL, 10);
    if (v < least || v > most)
        return false;
    *out_number = (uint32_t)v;
    return true;
}

static bool printable(const char *text)
{
    while (*text >= 0x20 && *text < 0x7f)
        text++;
    return *text == '\0';
}

/* Which of the words text begins, or is: its index; -1: none, or more than one. */
static int one_of(const char *text, const char *const *words)
{
    int found = -1;

    if (text[0] == '\0')
        return -1;
    for (int i = 0; words[i]; i++) {
        if (strncmp(words[i], text, strlen(text)) == 0) {
            if (found >= 0)
                return -1;
            found = i;
        }
    }
    return found;
}

static void bad_value(struct parser *p, const struct opt_spec *spec, const char *value,
                      const char *allowed)
{
    complain(p, "--%s: '%.100s' is not allowed; it takes %s", spec->name, value, allowed);
}

static void set_seconds(struct parser *p, const struct opt_spec *spec, const char *value,
                        double most, const char *allowed, uint32_t *out_ms)
{
    double seconds;

    if (seconds_valid(value, spec->id == OPT_TTL ? 1 : 0.001, most, &seconds))
        *out_ms = (uint32_t)(seconds * 1000 + 0.5);
    else
        bad_value(p, spec, value, allowed);
}

static void set_value(struct parser *p, const struct opt_spec *spec, const char *value)
{
    static const char *const formats[] = {"table", "json", NULL};
    static const char *const states[] = {"", "connected", "stale", "draining", NULL};
    struct meshcat_opts *o = p->opts;
    uint32_t number = 0;
    int i;

    switch (spec->id) {
    case OPT_DIAL:
        o->dial = value;
        return;
    case OPT_IPC:
        if (value[0])
            o->ipc_path = value;
        else
            bad_value(p, spec, value, "the path of a Unix socket");
        return;
    case OPT_LOCAL:
        if (number_valid(value, 1, 65535, &number))
            o->local_port = (uint16_t)number;
        else
            bad_value(p, spec, value, "a port, 1 to 65535");
        return;
    case OPT_FORMAT:
        i = one_of(value, formats);
        if (i >= 0)
            o->format = i == 0 ? FORMAT_TABLE : FORMAT_JSON;
        else
            bad_value(p, spec, value, "table or json");
        return;
    case OPT_TIMEOUT:
        set_seconds(p, spec, value, SECONDS_MAX, "seconds, 0.001 to 600", &o->timeout_ms);
        return;
    case OPT_COUNT:
        if (!number_valid(value, 1, 1000000, &o->count))
            bad_value(p, spec, value, "a number, 1 to 1000000");
        return;
    case OPT_INTERVAL:
        set_seconds(p, spec, value, SECONDS_MAX, "seconds, 0.001 to 600", &o->interval_ms);
        return;
    case OPT_NAME:
        if (value[0] && strlen(value) <= LIMIT_NAME)
            o->name_glob = value;
        else
            bad_value(p, spec, value, "a pattern of 1 to 253 bytes, such as 'web*'");
        return;
    case OPT_PEER:
        if (value[0])
            o->peer = value;
        else
            bad_value(p, spec, value, "local, a source such as 192.0.2.10, or a peer id");
        return;
    case OPT_STATE:
        i = one_of(value, states);
        if (i > 0)
            o->state = (Meshd__V1__RowState)i; /* the words stand in the order of the enum */
        else
            bad_value(p, spec, value, "connected, stale or draining");
        return;
    case OPT_LIMIT:
        if (!number_valid(value, 1, UINT_MAX, &o->limit))
            bad_value(p, spec, value, "a number from 1");
        return;
    case OPT_TTL:
        set_seconds(p, spec, value, TTL_MAX, "seconds, 1 to 86400", &number);
        o->ttl_ms = number;
        return;
    case OPT_LEASE:
        if (value[0] && strlen(value) <= LIMIT_PEER_ID && printable(value))
            o->lease = value;
        else
            bad_value(p, spec, value, "1 to 64 printable ASCII characters");
        return;
    case OPT_SILENT:
    case OPT_VERBOSE:
    case OPT_HELP:
    case OPT_VERSION:
    case OPT_N:
        return; /* flags */
    }
}

static void set_flag(struct meshcat_opts *o, enum opt_id id)
{
    o->silent |= id == OPT_SILENT;
    o->verbose |= id == OPT_VERBOSE;
    o->help |= id == OPT_HELP;
    o->version |= id == OPT_VERSION;
}

/* value: NULL when none came. */
static void set_option(struct parser *p, const struct opt_spec *spec, const char *value)
{
    bool *seen = &p->seen[spec->id];

    if (!spec->value) {
        set_flag(p->opts, spec->id); /* saying it twice means the same */
        return;
    }
    if (*seen)
        complain(p, "--%s is given twice; give it once", spec->name);
    *seen = true;
    set_value(p, spec, value);
}

static bool begins(const char *name, const char *text, size_t len)
{
    return name && strncmp(name, text, len) == 0;
}

/* The option that text[0..len) names or abbreviates; NULL after a complaint. */
static const struct opt_spec *find_long(struct parser *p, const char *text, size_t len)
{
    const struct opt_spec *found = NULL;
    char meant[128] = "";
    size_t n = 0, at = 0;

    for (size_t i = 0; i < N_SPECS; i++) {
        const char *names[2] = {specs[i].name, specs[i].other};
        bool counted = false;

        for (size_t k = 0; k < 2; k++) {
            if (!begins(names[k], text, len))
                continue;
            if (names[k][len] == '\0')
                return &specs[i]; /* said in full, even if another one begins so too */
            at += (size_t)snprintf(meant + at, at < sizeof(meant) ? sizeof(meant) - at : 0,
                                   "%s--%s", at ? ", " : "", names[k]);
            if (at > sizeof(meant))
                at = sizeof(meant);
            n += !counted;
            counted = true;
            found = &specs[i];
        }
    }
    if (n == 0)
        complain(p, "there is no option --%.*s; see meshcat --help", len > 60 ? 60 : (int)len,
                 text);
    if (n > 1)
        complain(p, "--%.*s may mean %s; write more of it", len > 60 ? 60 : (int)len, text, meant);
    return n == 1 ? found : NULL;
}

/* Reads the option at argv[*i], and its value if that is the next word. */
static void long_option(struct parser *p, int argc, char **argv, int *i)
{
    const char *text = argv[*i] + 2;
    size_t len = strcspn(text, "=:");
    const struct opt_spec *spec = find_long(p, text, len);

    if (!spec)
        return;
    if (!spec->value) {
        if (text[len])
            complain(p, "--%s takes no value", spec->name);
        set_option(p, spec, NULL);
        return;
    }
    if (text[len]) {
        set_option(p, spec, text + len + 1);
        return;
    }
    if (*i + 1 >= argc) {
        complain(p, "--%s needs a value: %s", spec->name, spec->value);
        return;
    }
    set_option(p, spec, argv[++*i]);
}

static void short_option(struct parser *p, int argc, char **argv, int *i)
{
    const char *text = argv[*i] + 1;
    const struct opt_spec *spec = NULL;

    for (size_t k = 0; k < N_SPECS; k++) {
        if (specs[k].letter && specs[k].letter == text[0])
            spec = &specs[k];
    }
    if (!spec) {
        complain(p, "there is no option -%.1s; see meshcat --help", text);
        return;
    }
    if (!spec->value) {
        if (text[1])
            complain(p, "-%c takes no value, and options are not combined; write them one by one",
                     spec->letter);
        set_option(p, spec, NULL);
        return;
    }
    if (text[1]) {
        set_option(p, spec, text + 1);
        return;
    }
    if (*i + 1 >= argc) {
        complain(p, "-%c needs a value: %s", spec->letter, spec->value);
        return;
    }
    set_option(p, spec, argv[++*i]);
}

static void set_command(struct parser *p, const char *word)
{
    for (const struct meshcat_cmd *cmd = meshcat_cmds; cmd->name; cmd++) {
        if (strcmp(cmd->name, word) == 0)
            p->opts->cmd = cmd;
    }
    if (!p->opts->cmd)
        complain(p, "there is no command '%.60s'; meshcat --help lists them", word);
}

/* What only the whole line shows. */
static void check_whole(struct parser *p)
{
    struct meshcat_opts *o = p->opts;

    if (p->seen[OPT_DIAL] + p->seen[OPT_IPC] + p->seen[OPT_LOCAL] > 1)
        complain(p, "more than one node to ask; give one of --dial, -x and -l");
    if (o->help || o->version)
        return;
    if (!o->cmd) {
        complain(p, "a command is missing; meshcat --help lists them");
        return;
    }
    for (size_t i = 0; i < N_SPECS; i++) {
        if (p->seen[specs[i].id] && !(specs[i].commands & o->cmd->bit))
            complain(p, "--%s is not an option of %s; see meshcat %s --help", specs[i].name,
                     o->cmd->name, o->cmd->name);
    }
    if (o->n_args < o->cmd->args_least)
        complain(p, "%s needs %s; see meshcat %s --help", o->cmd->name, o->cmd->args, o->cmd->name);
    if (o->n_args > o->cmd->args_most)
        complain(p, "%s takes %s, '%.60s' is too much; see meshcat %s --help", o->cmd->name,
                 o->cmd->args[0] ? o->cmd->args : "no words", o->args[o->cmd->args_most],
                 o->cmd->name);
    if (o->cmd->bit == CMD_PING && o->format == FORMAT_JSON && o->interval_ms && !o->count)
        complain(p, "JSON is one document, so it needs an end; give --count too");
}

int opts_parse(int argc, char **argv, struct meshcat_opts *out_opts,
               struct meshcat_complaint *out_complaint)
{
    struct parser p = {.opts = out_opts, .complaint = out_complaint};
    bool options = true, asked = false;
    int kept = 1;

    *out_opts = (struct meshcat_opts){.timeout_ms = TIMEOUT_DEFAULT_MS};
    out_complaint->text[0] = '\0';
    out_opts->args = argv + 1;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && strncmp(argv[i], "--", 2) == 0) {
            long_option(&p, argc, argv, &i);
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            short_option(&p, argc, argv, &i);
        } else if (!asked) {
            asked = true;
            set_command(&p, argv[i]);
        } else {
            argv[kept++] = argv[i];
            out_opts->n_args++;
        }
    }
    check_whole(&p);
    return p.failed ? EXIT_USAGE : 0;
}

void opts_help(FILE *out, unsigned commands, bool common)
{
    for (size_t i = 0; i < N_SPECS; i++) {
        const struct opt_spec *s = &specs[i];
        char letter[4] = "", other[24] = "", left[80];

        if (!(s->commands & commands) || common != (s->commands == CMD_ALL))
            continue;
        if (s->letter)
            snprintf(letter, sizeof(letter), "-%c,", s->letter);
        if (s->other)
            snprintf(other, sizeof(other), "|--%s", s->other);
        snprintf(left, sizeof(left), "%3s --%s%s %s", letter, s->name, other,
                 s->value ? s->value : "");
        fprintf(out, "  %-30s %s\n", left, s->help);
    }
}
