/* meshcat_args - see meshcat_args.h. */
#include "meshcat_args.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Keeps the first complaint only: what follows it is often its echo. */
void complain(struct parser *p, const char *format, ...)
{
    va_list ap;

    if (p->failed)
        return;
    p->failed = true;
    va_start(ap, format);
    vsnprintf(p->complaint->text, sizeof(p->complaint->text), format, ap);
    va_end(ap);
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

    for (size_t i = 0; i < p->n_specs; i++) {
        const char *names[2] = {p->specs[i].name, p->specs[i].other};
        bool counted = false;

        for (size_t k = 0; k < 2; k++) {
            if (!begins(names[k], text, len))
                continue;
            if (names[k][len] == '\0')
                return &p->specs[i]; /* said in full, even if another one begins so too */
            at += (size_t)snprintf(meant + at, at < sizeof(meant) ? sizeof(meant) - at : 0,
                                   "%s--%s", at ? ", " : "", names[k]);
            if (at > sizeof(meant))
                at = sizeof(meant);
            n += !counted;
            counted = true;
            found = &p->specs[i];
        }
    }
    if (n == 0)
        complain(p, "there is no option --%.*s; see meshcat --help", len > 60 ? 60 : (int)len,
                 text);
    if (n > 1)
        complain(p, "--%.*s may mean %s; write more of it", len > 60 ? 60 : (int)len, text, meant);
    return n == 1 ? found : NULL;
}

static bool among(const char *word, const char *const *words)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
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
        p->set(p, spec, NULL);
        return;
    }
    if (text[len]) {
        p->set(p, spec, text + len + 1);
        return;
    }
    if (spec->id == p->lone && (*i + 1 >= argc || !among(argv[*i + 1], p->lone_values))) {
        p->set(p, spec, p->lone_values[0]);
        return;
    }
    if (*i + 1 >= argc) {
        complain(p, "--%s needs a value: %s", spec->name, spec->value);
        return;
    }
    p->set(p, spec, argv[++*i]);
}

static void short_option(struct parser *p, int argc, char **argv, int *i)
{
    const char *text = argv[*i] + 1;
    const struct opt_spec *spec = NULL;

    for (size_t k = 0; k < p->n_specs; k++) {
        if (p->specs[k].letter && p->specs[k].letter == text[0])
            spec = &p->specs[k];
    }
    if (!spec) {
        complain(p, "there is no option -%.1s; see meshcat --help", text);
        return;
    }
    if (!spec->value) {
        if (text[1])
            complain(p, "-%c takes no value, and options are not combined; write them one by one",
                     spec->letter);
        p->set(p, spec, NULL);
        return;
    }
    if (text[1]) {
        p->set(p, spec, text + 1);
        return;
    }
    if (*i + 1 >= argc) {
        complain(p, "-%c needs a value: %s", spec->letter, spec->value);
        return;
    }
    p->set(p, spec, argv[++*i]);
}

void args_read(struct parser *p, int argc, char **argv)
{
    bool options = true;

    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (options && strncmp(argv[i], "--", 2) == 0)
            long_option(p, argc, argv, &i);
        else if (options && argv[i][0] == '-' && argv[i][1])
            short_option(p, argc, argv, &i);
        else
            p->word(p, argv[i]);
    }
}
