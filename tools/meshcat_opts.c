/* meshcat_opts - the options, what each is for and takes, and what a command line comes to. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "base/limits.h"
#include "client/call.h"
#include "meshcat_args.h"
#include "tls/ca.h"
#include "wire/name.h"

#define TIMEOUT_DEFAULT_MS 5000u
#define SECONDS_MAX 600.0 /* the longest deadline a call may have */
#define TTL_MAX 86400.0   /* seconds; of mesh.proto */
#define FILTERS (CMD_INTROSPECT | CMD_SERVICES | CMD_PEERS)

#define ALL CMD_ALL
#define NODES (CMD_ALL & ~CMD_CA)    /* ca asks nobody */
#define ONE_NODE (NODES & ~CMD_DIFF) /* diff names its two as words */

/* v1 when nothing is said: more backends read it. */
static const char *const proxy_versions[] = {"v1", "v2", "off", NULL};

static const struct opt_spec specs[] = {
    {"dial", "connect", 0, OPT_DIAL, ONE_NODE, "URL",
     "ask tcp://host:port, tls://host:port or ipc:///path"},
    {"connect-ipc", NULL, 'x', OPT_IPC, ONE_NODE, "PATH", "ask on this Unix socket"},
    {"connect-local", NULL, 'l', OPT_LOCAL, ONE_NODE, "PORT", "ask tcp://127.0.0.1:PORT"},
    {"cacert", NULL, 0, OPT_CACERT, NODES, "FILE",
     "tls://: the CA of the mesh; default PEER_TLS_CA"},
    {"cert", NULL, 'E', OPT_CERT, NODES, "FILE",
     "tls://: one's own certificate; default PEER_TLS_CERT"},
    {"key", NULL, 0, OPT_KEY, NODES, "FILE",
     "tls://: its key; default: in the file of -E, else PEER_TLS_KEY"},
    {"node", NULL, 0, OPT_NODE, ONE_NODE, "ID",
     "tls://: the peer id that must answer; default: any of the mesh"},
    {"insecure", NULL, 'k', OPT_INSECURE, NODES, NULL,
     "tls://: take whoever answers, without looking at its certificate"},
    {"format", NULL, 0, OPT_FORMAT, ALL, "FORMAT", "one of those below; default table"},
    {"ascii", NULL, 'A', OPT_ASCII, ALL, NULL, "the same as --format ascii"},
    {"quoted", NULL, 'Q', OPT_QUOTED, ALL, NULL, "the same as --format quoted"},
    {"hex", NULL, 0, OPT_HEX, ALL, NULL, "the same as --format hex"},
    {"raw", NULL, 0, OPT_RAW, ALL, NULL, "the same as --format raw"},
    {"color", NULL, 0, OPT_COLOR, ALL, "WHEN", "auto (on a terminal; the default), always, never"},
    {"timeout", NULL, 0, OPT_TIMEOUT, NODES, "SECONDS",
     "for connect, send and receive in all; fractions are fine; default 5"},
    {"recv-maxsz", NULL, 'Z', OPT_RECV_MAX, NODES & ~CMD_WATCH, "BYTES",
     "the longest answer that is taken; default 16777216"},
    {"silent", "quiet", 'q', OPT_SILENT, ALL, NULL, "no data: the exit code is the answer"},
    {"verbose", NULL, 'v', OPT_VERBOSE, ALL, NULL, "say on stderr who answered what"},
    {"help", NULL, 'h', OPT_HELP, ALL, NULL, "this help, or that of a command"},
    {"version", NULL, 'V', OPT_VERSION, ALL, NULL, "the version"},
    {"name", NULL, 0, OPT_NAME, FILTERS | CMD_WATCH, "GLOB",
     "only services whose name matches (* and ?)"},
    {"peer", NULL, 0, OPT_PEER, FILTERS | CMD_WATCH, "WHO",
     "only of local, a source label, or a peer id"},
    {"state", NULL, 0, OPT_STATE, FILTERS, "STATE", "only connected, stale, draining or unhealthy"},
    {"limit", NULL, 0, OPT_LIMIT, FILTERS, "N", "at most N rows of each map"},
    {"count", NULL, 'C', OPT_COUNT, CMD_ROUNDS | CMD_WATCH, "N",
     "ask N times, default 1; watch: end after N events"},
    {"interval", NULL, 'i', OPT_INTERVAL, CMD_ROUNDS, "SECONDS",
     "wait between; default 1; without --count: until interrupted"},
    {"delay", NULL, 'd', OPT_DELAY, CMD_ROUNDS, "SECONDS", "wait before the first question"},
    {"ttl", NULL, 0, OPT_TTL, CMD_OFFER, "SECONDS", "1 to 86400; default: until withdrawn"},
    {"check", NULL, 0, OPT_CHECK, CMD_OFFER, "HOW",
     "ask the backend whether it is well: tcp, or http:/path"},
    {"check-interval", NULL, 0, OPT_CHECK_INTERVAL, CMD_OFFER, "SECONDS",
     "from one look to the next, 0.1 to 3600; default 5"},
    {"check-timeout", NULL, 0, OPT_CHECK_TIMEOUT, CMD_OFFER, "SECONDS",
     "for one look, 0.05 to 60; default 2"},
    {"check-rise", NULL, 0, OPT_CHECK_RISE, CMD_OFFER, "N",
     "good looks in a row that make it healthy again; default 2"},
    {"check-fall", NULL, 0, OPT_CHECK_FALL, CMD_OFFER, "N",
     "failed ones that make it unhealthy; default 3"},
    {"proxy-protocol", NULL, 0, OPT_PROXY, CMD_OFFER, "VERSION",
     "tell the backend first who each client is: v1 (also if left out), v2, or off (the default)"},
    {"draining", NULL, 0, OPT_DRAINING, CMD_OFFER, NULL,
     "it takes no new clients: not yet, or not any more"},
    {"lease", NULL, 0, OPT_LEASE, CMD_OFFER | CMD_WITHDRAW, "ID",
     "the lease; default meshcat:NAME to offer, any to withdraw"},
    {"data", NULL, 'D', OPT_DATA, CMD_CALL, "TEXT", "the request; without it and -F: an empty one"},
    {"file", NULL, 'F', OPT_FILE, CMD_CALL, "FILE", "the request is in FILE; - is standard input"},
    {"input", NULL, 0, OPT_INPUT, CMD_CALL, "KIND",
     "text (protobuf's text format; the default) or binary"},
    {"dump-request", NULL, 0, OPT_DUMP, CMD_CALL, "FILE",
     "write the request for any nng program (- is stdout), do not call"},
    {"from", NULL, 0, OPT_FROM, CMD_WATCH, "EPOCH:REVISION", "go on from there"},
    {"dir", NULL, 0, OPT_CA_DIR, CMD_CA, "DIR", "the folder of the CA; default meshd-ca"},
    {"days", NULL, 0, OPT_DAYS, CMD_CA, "N",
     "good for N days; default 3650 for init, 365 for issue"},
    {"san", NULL, 0, OPT_SAN, CMD_CA, "NAME[,NAME...]", "more names for the node, of issue"},
    {"serial", NULL, 0, OPT_SERIAL, CMD_CA, "HEX", "revoke this one certificate"},
};
#define N_SPECS (sizeof(specs) / sizeof(*specs))

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

/* Which of the words text begins, or is: its index; -1: none, or more than one. A word that begins
 * the others counts: "j" is json and not jsonl. */
static int one_of(const char *text, const char *const *words)
{
    int found = -1;

    if (text[0] == '\0')
        return -1;
    for (int i = 0; words[i]; i++) {
        if (strncmp(words[i], text, strlen(text)) != 0)
            continue;
        if (found < 0)
            found = i;
        else if (strncmp(words[i], words[found], strlen(words[found])) != 0)
            return -1;
    }
    return found;
}

/* EPOCH:REVISION, both not 0. */
static bool place_valid(const char *text, uint64_t *out_epoch, uint64_t *out_revision)
{
    uint64_t *const out[2] = {out_epoch, out_revision};

    for (int i = 0; i < 2; i++) {
        uint64_t v = 0;
        size_t digits = 0;

        for (; *text >= '0' && *text <= '9'; text++, digits++) {
            if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
                __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
                return false;
        }
        if (digits == 0 || v == 0 || *text++ != (i == 0 ? ':' : '\0'))
            return false;
        *out[i] = v;
    }
    return true;
}

static void bad_value(struct parser *p, const struct opt_spec *spec, const char *value,
                      const char *allowed)
{
    complain(p, "--%s: '%.100s' is not allowed; it takes %s", spec->name, value, allowed);
}

/* ---- values, by what they are ---- */

static void set_seconds(struct parser *p, const struct opt_spec *spec, const char *value)
{
    static const struct range {
        enum opt_id id; /* OPT_N: all others */
        double least, most;
        const char *allowed;
    } ranges[] = {
        {OPT_TTL, 1, TTL_MAX, "seconds, 1 to 86400"},
        {OPT_CHECK_INTERVAL, 0.1, 3600, "seconds, 0.1 to 3600"},
        {OPT_CHECK_TIMEOUT, 0.05, 60, "seconds, 0.05 to 60"},
        {OPT_N, 0.001, SECONDS_MAX, "seconds, 0.001 to 600"},
    };
    const struct range *range = ranges;
    struct meshcat_opts *o = p->opts;
    double seconds;
    uint32_t ms;

    while (range->id != OPT_N && range->id != spec->id)
        range++;
    if (!seconds_valid(value, range->least, range->most, &seconds)) {
        bad_value(p, spec, value, range->allowed);
        return;
    }
    ms = (uint32_t)(seconds * 1000 + 0.5);
    if (spec->id == OPT_TIMEOUT)
        o->timeout_ms = ms;
    else if (spec->id == OPT_INTERVAL)
        o->interval_ms = ms;
    else if (spec->id == OPT_DELAY)
        o->delay_ms = ms;
    else if (spec->id == OPT_CHECK_INTERVAL)
        o->offer.check_interval_ms = ms;
    else if (spec->id == OPT_CHECK_TIMEOUT)
        o->offer.check_timeout_ms = ms;
    else
        o->ttl_ms = ms;
}

static void set_number(struct parser *p, const struct opt_spec *spec, const char *value)
{
    struct meshcat_opts *o = p->opts;
    uint32_t port = 0;

    if (spec->id == OPT_LOCAL && !number_valid(value, 1, 65535, &port))
        bad_value(p, spec, value, "a port, 1 to 65535");
    else if (spec->id == OPT_LOCAL)
        o->local_port = (uint16_t)port;
    else if (spec->id == OPT_RECV_MAX && !number_valid(value, 1, CALL_MESSAGE_MAX, &o->recv_max))
        bad_value(p, spec, value, "a number of bytes, 1 to 16777216");
    else if (spec->id == OPT_COUNT && !number_valid(value, 1, 1000000, &o->count))
        bad_value(p, spec, value, "a number, 1 to 1000000");
    else if (spec->id == OPT_LIMIT && !number_valid(value, 1, UINT_MAX, &o->limit))
        bad_value(p, spec, value, "a number from 1");
    else if (spec->id == OPT_DAYS && !number_valid(value, 1, CA_DAYS_MAX, &o->days))
        bad_value(p, spec, value, "days, 1 to 36500");
    else if (spec->id == OPT_CHECK_RISE && !number_valid(value, 1, 100, &o->offer.check_rise))
        bad_value(p, spec, value, "a number, 1 to 100");
    else if (spec->id == OPT_CHECK_FALL && !number_valid(value, 1, 100, &o->offer.check_fall))
        bad_value(p, spec, value, "a number, 1 to 100");
    else if (spec->id == OPT_FROM && !place_valid(value, &o->from_epoch, &o->from_revision))
        bad_value(p, spec, value, "EPOCH:REVISION, as a synced line of watch has it");
}

/* The words stand in the order of their enums. */
static void set_choice(struct parser *p, const struct opt_spec *spec, const char *value)
{
    static const char *const formats[] = {"table", "json",   "jsonl", "text", "raw",
                                          "hex",   "quoted", "ascii", NULL};
    static const char *const whens[] = {"auto", "always", "never", NULL};
    static const char *const inputs[] = {"text", "binary", NULL};
    static const char *const versions[] = {"off", "v1", "v2", NULL};
    static const char *const states[] = {"", "connected", "stale", "draining", "unhealthy", NULL};
    static const struct {
        enum opt_id id;
        const char *const *words;
        const char *allowed;
    } choices[] = {
        {OPT_FORMAT, formats, "table, json, jsonl, text, raw, hex, quoted or ascii"},
        {OPT_COLOR, whens, "auto, always or never"},
        {OPT_INPUT, inputs, "text or binary"},
        {OPT_PROXY, versions, "off, v1 or v2"},
        {OPT_STATE, states, "connected, stale, draining or unhealthy"},
    };
    struct meshcat_opts *o = p->opts;
    size_t which = 0;
    int i;

    while (choices[which].id != spec->id)
        which++;
    i = one_of(value, choices[which].words);
    if (i < 0)
        bad_value(p, spec, value, choices[which].allowed);
    else if (spec->id == OPT_FORMAT)
        o->format = (enum meshcat_format)i;
    else if (spec->id == OPT_COLOR)
        o->color = (enum meshcat_color)i;
    else if (spec->id == OPT_INPUT)
        o->binary_input = i == 1;
    else if (spec->id == OPT_PROXY)
        o->offer.proxy_protocol = i;
    else
        o->state = (Meshd__V1__RowState)i;
}

/* A text that may not be any text. */
static void set_text(struct parser *p, const struct opt_spec *spec, const char *value)
{
    struct meshcat_opts *o = p->opts;
    size_t len = strlen(value);

    if (spec->id == OPT_IPC && len == 0)
        bad_value(p, spec, value, "the path of a Unix socket");
    else if (spec->id == OPT_IPC)
        o->ipc_path = value;
    else if (spec->id == OPT_CA_DIR && len == 0)
        bad_value(p, spec, value, "the path of a folder");
    else if (spec->id == OPT_CA_DIR)
        o->ca_dir = value;
    else if (spec->id == OPT_NAME && (len == 0 || len > LIMIT_NAME))
        bad_value(p, spec, value, "a pattern of 1 to 253 bytes, such as 'web*'");
    else if (spec->id == OPT_NAME)
        o->name_glob = value;
    else if (spec->id == OPT_PEER && len == 0)
        bad_value(p, spec, value, "local, a source such as 192.0.2.10, or a peer id");
    else if (spec->id == OPT_PEER)
        o->peer = value;
    else if (len == 0 || len > LIMIT_PEER_ID || !printable(value))
        bad_value(p, spec, value, "1 to 64 printable ASCII characters");
    else
        o->lease = value;
}

static void set_check(struct parser *p, const struct opt_spec *spec, const char *value)
{
    const char *path, *why;

    if (check_parse(value, &path, &why) < 0)
        complain(p, "--%s: '%.100s' %s; it takes tcp, or http:/path", spec->name, value, why);
    else
        p->opts->offer.check = value;
}

static void set_tls(struct parser *p, const struct opt_spec *spec, const char *value)
{
    struct mesh_tls *tls = &p->opts->tls;

    p->opts->tls_given = true;
    if (spec->id == OPT_NODE && !peer_id_valid(value, strlen(value)))
        bad_value(p, spec, value, "a peer id, 1 to 64 letters, digits, dots, - and _");
    else if (spec->id == OPT_NODE)
        tls->node = value;
    else if (value[0] == '\0')
        bad_value(p, spec, value, "a file");
    else if (spec->id == OPT_CACERT)
        tls->ca = value;
    else if (spec->id == OPT_CERT)
        tls->cert = value;
    else
        tls->key = value;
}

static void set_value(struct parser *p, const struct opt_spec *spec, const char *value)
{
    struct meshcat_opts *o = p->opts;

    switch (spec->id) {
    case OPT_DIAL:
        o->dial = value;
        return;
    case OPT_CACERT:
    case OPT_CERT:
    case OPT_KEY:
    case OPT_NODE:
        set_tls(p, spec, value);
        return;
    case OPT_DATA:
        o->data = value;
        return;
    case OPT_FILE:
        o->file = value;
        return;
    case OPT_DUMP:
        o->dump = value;
        return;
    case OPT_SAN:
        o->ca_san = value;
        return;
    case OPT_SERIAL:
        o->ca_serial = value;
        return;
    case OPT_FORMAT:
    case OPT_COLOR:
    case OPT_INPUT:
    case OPT_PROXY:
    case OPT_STATE:
        set_choice(p, spec, value);
        return;
    case OPT_TIMEOUT:
    case OPT_INTERVAL:
    case OPT_DELAY:
    case OPT_TTL:
    case OPT_CHECK_INTERVAL:
    case OPT_CHECK_TIMEOUT:
        set_seconds(p, spec, value);
        return;
    case OPT_CHECK:
        set_check(p, spec, value);
        return;
    case OPT_LOCAL:
    case OPT_RECV_MAX:
    case OPT_CHECK_RISE:
    case OPT_CHECK_FALL:
    case OPT_COUNT:
    case OPT_LIMIT:
    case OPT_DAYS:
    case OPT_FROM:
        set_number(p, spec, value);
        return;
    case OPT_IPC:
    case OPT_CA_DIR:
    case OPT_NAME:
    case OPT_PEER:
    case OPT_LEASE:
        set_text(p, spec, value);
        return;
    case OPT_ASCII:
    case OPT_QUOTED:
    case OPT_HEX:
    case OPT_RAW:
    case OPT_INSECURE:
    case OPT_DRAINING:
    case OPT_SILENT:
    case OPT_VERBOSE:
    case OPT_HELP:
    case OPT_VERSION:
    case OPT_N:
        return; /* flags */
    }
}

/* A flag that names a format. */
static void set_format(struct parser *p, const struct opt_spec *spec)
{
    static const struct {
        enum opt_id id;
        enum meshcat_format format;
    } formats[] = {
        {OPT_ASCII, FORMAT_ASCII},
        {OPT_QUOTED, FORMAT_QUOTED},
        {OPT_HEX, FORMAT_HEX},
        {OPT_RAW, FORMAT_RAW},
    };

    for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
        if (formats[i].id != spec->id)
            continue;
        if (p->seen[OPT_FORMAT] && p->opts->format != formats[i].format)
            complain(p, "--%s comes beside another format; give one", spec->name);
        p->seen[OPT_FORMAT] = true;
        p->opts->format = formats[i].format;
    }
}

static void set_flag(struct meshcat_opts *o, enum opt_id id)
{
    o->tls.insecure |= id == OPT_INSECURE;
    o->tls_given |= id == OPT_INSECURE;
    o->offer.draining |= id == OPT_DRAINING;
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
        *seen = true; /* saying it twice means the same */
        set_format(p, spec);
        set_flag(p->opts, spec->id);
        return;
    }
    if (*seen)
        complain(p, "--%s is given twice; give it once", spec->name);
    *seen = true;
    set_value(p, spec, value);
}

static void set_word(struct parser *p, char *word)
{
    if (p->asked) { /* a word of the command: those gather where argv began */
        p->opts->args[p->opts->n_args++] = word;
        return;
    }
    p->asked = true;
    for (const struct meshcat_cmd *cmd = meshcat_cmds; cmd->name; cmd++) {
        if (strcmp(cmd->name, word) == 0)
            p->opts->cmd = cmd;
    }
    if (!p->opts->cmd)
        complain(p, "there is no command '%.60s'; meshcat --help lists them", word);
}

/* Which formats a command has. */
static void check_formats(struct parser *p)
{
    struct meshcat_opts *o = p->opts;

    if (o->cmd->bit == CMD_PING && o->format == FORMAT_JSON && o->interval_ms && !o->count)
        complain(p, "JSON is one document, so it needs an end; give --count too, or take jsonl");
    if (o->cmd->bit == CMD_DIFF && o->format >= FORMAT_TEXT)
        complain(p, "diff shows no message of a node; it takes --format table, json or jsonl");
    if (o->cmd->bit == CMD_CALL && !p->seen[OPT_FORMAT])
        o->format = FORMAT_TEXT;
    else if (o->cmd->bit == CMD_CALL && o->format == FORMAT_TABLE)
        complain(p, "call knows no table for its answer; it takes --format text, json, raw ...");
}

/* What only the whole line shows. */
static void check_whole(struct parser *p)
{
    struct meshcat_opts *o = p->opts;

    if (p->seen[OPT_DIAL] + p->seen[OPT_IPC] + p->seen[OPT_LOCAL] > 1)
        complain(p, "more than one node to ask; give one of --dial, -x and -l");
    if (o->tls.insecure && (o->tls.ca || o->tls.node))
        complain(p, "-k takes whoever answers; give it, or --cacert and --node");
    if (o->data && o->file)
        complain(p, "the request is given twice; give --data or --file");
    if (o->name_glob && o->cmd && o->cmd->bit == CMD_WATCH && o->n_args > 0)
        complain(p, "the name is given twice; give it as a word or with --name");
    if (!p->seen[OPT_CHECK] && (p->seen[OPT_CHECK_INTERVAL] || p->seen[OPT_CHECK_TIMEOUT] ||
                                p->seen[OPT_CHECK_RISE] || p->seen[OPT_CHECK_FALL]))
        complain(p, "nothing says how to check; give --check tcp or --check http:/path too");
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
    check_formats(p);
}

int opts_parse(int argc, char **argv, struct meshcat_opts *out_opts,
               struct meshcat_complaint *out_complaint)
{
    struct parser p = {
        .specs = specs,
        .lone = OPT_PROXY,
        .lone_values = proxy_versions,
        .n_specs = N_SPECS,
        .set = set_option,
        .word = set_word,
        .opts = out_opts,
        .complaint = out_complaint,
    };

    *out_opts = (struct meshcat_opts){
        .timeout_ms = TIMEOUT_DEFAULT_MS,
        .recv_max = CALL_MESSAGE_MAX,
        .tls.size = sizeof(struct mesh_tls),
        .offer.size = sizeof(struct mesh_offer),
        .args = argv + 1,
    };
    out_complaint->text[0] = '\0';
    args_read(&p, argc, argv);
    check_whole(&p);
    return p.failed ? EXIT_USAGE : 0;
}

void opts_help(FILE *out, unsigned commands, bool common)
{
    for (size_t i = 0; i < N_SPECS; i++) {
        const struct opt_spec *s = &specs[i];
        char letter[4] = "", other[24] = "", left[80];

        if (!(s->commands & commands) ||
            common != ((s->commands | CMD_DIFF | CMD_WATCH | CMD_CA) == CMD_ALL))
            continue;
        if (s->letter)
            snprintf(letter, sizeof(letter), "-%c,", s->letter);
        if (s->other)
            snprintf(other, sizeof(other), "|--%s", s->other);
        snprintf(left, sizeof(left), "%3s --%s%s %s", letter, s->name, other,
                 s->value ? s->value : "");
        fprintf(out, "  %-32s %s\n", left, s->help);
    }
}
