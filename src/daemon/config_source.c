/* config_source - flags and environment variables as sources of settings.
 *
 * getopt_long finds the flags; its table is made of the table of settings. What it would print
 * itself is told like every other error. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"

#define SEE_HELP "see meshd --help"

/* What getopt_long returns: settings count from FLAG_SETTING. */
enum { FLAG_CONFIG = 'c', FLAG_HELP = 'h', FLAG_VERSION = 'V' };
enum { FLAG_CHECK = 256, FLAG_PRINT, FLAG_LIMIT, FLAG_SETTING };

#define FLAGS_MAX (N_SETTINGS + 7)

static void options_fill(struct option options[FLAGS_MAX])
{
    static const struct option fixed[] = {
        {"config", required_argument, NULL, FLAG_CONFIG},
        {"check", optional_argument, NULL, FLAG_CHECK},
        {"print-config", no_argument, NULL, FLAG_PRINT},
        {"version", no_argument, NULL, FLAG_VERSION},
        {"help", no_argument, NULL, FLAG_HELP},
        {"limit", required_argument, NULL, FLAG_LIMIT},
    };
    size_t n = sizeof(fixed) / sizeof(fixed[0]);

    memcpy(options, fixed, sizeof(fixed));
    for (int i = 0; i < N_SETTINGS; i++) {
        /* A bare --insecure means true; --insecure=false takes back what the file says. */
        int argument = settings[i].type == &type_bool ? optional_argument : required_argument;

        if (settings[i].flag)
            options[n++] = (struct option){settings[i].flag, argument, NULL, FLAG_SETTING + i};
    }
    options[n] = (struct option){0};
}

static void give(struct config_flags *flags, struct config_reading *r, const struct setting *s,
                 const char *text)
{
    char shown[CONFIG_TEXT_MAX];

    for (size_t i = 0; i < flags->n && !s->list; i++) {
        if (flags->given[i].setting != s)
            continue;
        if (s->flag)
            snprintf(shown, sizeof(shown), "--%s", s->flag);
        else
            snprintf(shown, sizeof(shown), "--limit %s", strchr(s->key, '.') + 1);
        config_error(r, NULL, NULL, "%s: is there twice; allowed: once", shown);
        return;
    }
    flags->given[flags->n++] = (struct config_flag){s, text};
}

static void give_limit(struct config_flags *flags, struct config_reading *r, const char *arg)
{
    const char *equals = strchr(arg, '=');
    char key[64], quoted[CONFIG_TEXT_MAX];
    const struct setting *s = NULL;
    size_t len = equals ? (size_t)(equals - arg) : 0;

    if (!equals) {
        config_error(r, NULL, NULL, "--limit: %s has no '='; allowed: NAME=VALUE, " SEE_HELP,
                     config_quote(arg, quoted));
        return;
    }
    if (len < sizeof(key) - sizeof("limits.")) {
        snprintf(key, sizeof(key), "limits.%.*s", (int)len, arg);
        s = setting_find(key, strlen(key));
    }
    if (s)
        give(flags, r, s, equals + 1);
    else
        config_error(r, NULL, NULL, "--limit: %s names no limit; allowed: those in meshd --help",
                     config_quote(arg, quoted));
}

static void act(struct config_flags *flags, struct config_reading *r, enum config_action action)
{
    if (flags->action != CONFIG_RUN && flags->action != action)
        config_error(r, NULL, NULL, "--check and --print-config: one of them is meant; " SEE_HELP);
    flags->action = action;
}

static void take_file(struct config_flags *flags, struct config_reading *r, const char *file)
{
    char quoted[CONFIG_TEXT_MAX];

    if (flags->file)
        config_error(r, NULL, NULL, "%s: a second configuration file; allowed: one",
                     config_quote(file, quoted));
    else
        flags->file = file;
}

/* getopt_long's complaint: '?' for a flag that it does not know or that takes no value, ':' for one
 * without its value. optopt is the flag's number, or 0 for an unknown or ambiguous long one; only
 * of long ones is the word the one before optind. */
static void complain(struct config_reading *r, int complaint, char *const *argv)
{
    char letter[] = {'-', (char)optopt, '\0'}, quoted[CONFIG_TEXT_MAX];
    const char *word = argv[optind - 1];

    if (complaint == ':')
        config_error(r, NULL, NULL, "%s needs a value; " SEE_HELP, config_quote(word, quoted));
    else if (optopt >= FLAG_CHECK || optopt == FLAG_HELP || optopt == FLAG_VERSION)
        config_error(r, NULL, NULL, "%s takes no value; " SEE_HELP, config_quote(word, quoted));
    else
        config_error(r, NULL, NULL, "unknown flag %s; " SEE_HELP,
                     config_quote(optopt ? letter : word, quoted));
}

int config_flags_init(struct config_flags *flags, struct config_reading *r, int argc,
                      char *const *argv)
{
    struct option options[FLAGS_MAX];
    char quoted[CONFIG_TEXT_MAX];
    int c;

    *flags = (struct config_flags){.action = CONFIG_RUN};
    flags->given = calloc((size_t)argc + 1, sizeof(*flags->given));
    if (!flags->given)
        return -ENOMEM;
    options_fill(options);
    opterr = 0;
    optind = 0; /* glibc: begin anew */
    while ((c = getopt_long(argc, argv, ":c:hV", options, NULL)) != -1) {
        const char *text = optarg ? optarg : "true"; /* that of --insecure alone */

        switch (c) {
        case FLAG_HELP:
        case FLAG_VERSION:
            flags->action = c == FLAG_HELP ? CONFIG_HELP : CONFIG_VERSION;
            return 0;
        case FLAG_CONFIG:
            take_file(flags, r, text);
            break;
        case FLAG_CHECK:
            act(flags, r, CONFIG_CHECK);
            if (optarg)
                take_file(flags, r, text);
            break;
        case FLAG_PRINT:
            act(flags, r, CONFIG_PRINT);
            break;
        case FLAG_LIMIT:
            give_limit(flags, r, text);
            break;
        case ':':
        case '?':
            complain(r, c, argv);
            break;
        default:
            give(flags, r, &settings[c - FLAG_SETTING], text);
        }
    }
    for (; optind < argc; optind++) {
        if (flags->action == CONFIG_CHECK)
            take_file(flags, r, argv[optind]);
        else
            config_error(r, NULL, NULL, "unexpected argument %s; " SEE_HELP,
                         config_quote(argv[optind], quoted));
    }
    return 0;
}

void config_flags_apply(const struct config_flags *flags, struct config_reading *r)
{
    bool begun[N_SETTINGS] = {false};

    for (size_t i = 0; i < flags->n; i++) {
        const struct setting *s = flags->given[i].setting;
        struct where where = {.kind = WHERE_FLAG, .name = s->flag ? s->flag : "limit"};

        if (!s->list) {
            config_set(r, s, flags->given[i].text, &where);
            continue;
        }
        if (!begun[s - settings])
            config_list_begin(r, s);
        begun[s - settings] = true;
        config_add(r, s, flags->given[i].text, &where);
    }
    for (int i = 0; i < N_SETTINGS; i++) {
        if (begun[i])
            config_list_end(r, &settings[i]);
    }
}

void config_flags_fini(struct config_flags *flags) { free(flags->given); }

/* "a, b": each entry without the white space around it. */
static void env_list(struct config_reading *r, const struct setting *s, const char *value)
{
    char *copy = strdup(value);
    struct where where = {.kind = WHERE_ENV, .name = s->env};
    char *next = copy, *entry;

    if (!copy) {
        r->no_memory = true;
        return;
    }
    config_list_begin(r, s);
    while ((entry = config_next_word(&next)) != NULL) {
        where.entry++;
        config_add(r, s, entry, &where);
    }
    config_list_end(r, s);
    free(copy);
}

void config_env(struct config_reading *r)
{
    const char *value;

    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        struct where where = {.kind = WHERE_ENV, .name = s->env};

        value = s->env ? getenv(s->env) : NULL;
        if (!value || !*value)
            continue;
        if (s->list)
            env_list(r, s, value);
        else
            config_set(r, s, value, &where);
    }
}
