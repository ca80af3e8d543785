/* meshcat_args - options and words of a command line, in the manner of nngcat.
 *
 * Long options may be abbreviated as long as only one is meant, and take their value after `=`,
 * after `:` or as the next word. Short options take it glued or as the next word and are not
 * combined. Options stand before, between and behind the words; `--` ends them.
 */
#ifndef MESHCAT_ARGS_H
#define MESHCAT_ARGS_H

#include "meshcat.h"

enum opt_id {
    OPT_DIAL,
    OPT_IPC,
    OPT_LOCAL,
    OPT_CACERT,
    OPT_CERT,
    OPT_KEY,
    OPT_NODE,
    OPT_INSECURE,
    OPT_FORMAT,
    OPT_ASCII,
    OPT_QUOTED,
    OPT_HEX,
    OPT_RAW,
    OPT_COLOR,
    OPT_TIMEOUT,
    OPT_RECV_MAX,
    OPT_SILENT,
    OPT_VERBOSE,
    OPT_HELP,
    OPT_VERSION,
    OPT_COUNT,
    OPT_INTERVAL,
    OPT_DELAY,
    OPT_NAME,
    OPT_PEER,
    OPT_STATE,
    OPT_LIMIT,
    OPT_TTL,
    OPT_LEASE,
    OPT_CHECK,
    OPT_CHECK_INTERVAL,
    OPT_CHECK_TIMEOUT,
    OPT_CHECK_RISE,
    OPT_CHECK_FALL,
    OPT_PROXY,
    OPT_DRAINING,
    OPT_DATA,
    OPT_FILE,
    OPT_INPUT,
    OPT_DUMP,
    OPT_FROM,
    OPT_CA_DIR,
    OPT_DAYS,
    OPT_SAN,
    OPT_SERIAL,
    OPT_N,
};

struct opt_spec {
    const char *name, *other; /* long names without "--"; other: a second one, or NULL */
    char letter;              /* or 0 */
    enum opt_id id;
    unsigned commands; /* which ones it is for */
    const char *value; /* what it takes, or NULL */
    const char *help;
};

struct parser {
    const struct opt_spec *specs;
    size_t n_specs;
    /* Called with each option, whose value is NULL when it takes none, and each other word. */
    void (*set)(struct parser *p, const struct opt_spec *spec, const char *value);
    void (*word)(struct parser *p, char *word);
    /* The option whose value may be left out, which means the first of these (they end with NULL):
     * the next word is its value only if it is one of them. */
    enum opt_id lone;
    const char *const *lone_values;
    struct meshcat_opts *opts;
    struct meshcat_complaint *complaint;
    bool failed, asked; /* asked: the command has come */
    bool seen[OPT_N];
};

/* Reads all that stands behind argv[0]. Goes on after a complaint. */
void args_read(struct parser *p, int argc, char **argv);
/* Keeps the first complaint only. */
void complain(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
