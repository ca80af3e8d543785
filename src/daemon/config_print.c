/* config_print - the settings in force as YAML, and the help: both follow the table. */
#include <string.h>
#include "daemon/config_parts.h"

void config_print(const struct config *config, FILE *out)
{
    const char *section = "", *name, *dot;
    size_t len, section_len = 0;

    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        dot = strchr(s->key, '.');
        len = dot ? (size_t)(dot - s->key) : 0;
        name = dot ? dot + 1 : s->key;
        if (dot && (len != section_len || memcmp(section, s->key, len) != 0))
            fprintf(out, "%.*s:\n", (int)len, s->key);
        section = s->key;
        section_len = len;
        fprintf(out, "%s%s:%s", dot ? "  " : "", name, s->list ? "" : " ");
        s->type->print(s, config, out);
        fputc('\n', out);
    }
}

static void help_setting(const struct setting *s, FILE *out)
{
    bool optional = s->type == &type_bool;
    char allowed[CONFIG_TEXT_MAX];

    if (s->flag)
        fprintf(out, "  --%s%s%s%s%s\n", s->flag, optional ? "[=" : " ", s->arg,
                optional ? "]" : "", s->list ? "  (as often as wanted)" : "");
    else if (s->list)
        fprintf(out, "  %s:  (a list in the file; neither flag nor variable)\n", s->key);
    else
        fprintf(out, "  --limit %s=VALUE\n", strchr(s->key, '.') + 1);
    fprintf(out, "      %s; default: %s\n", s->what, s->def ? s->def : s->def_text);
    if (s->env)
        fprintf(out, "      variable: %s%s; ", s->env, s->list ? " (comma separated)" : "");
    fprintf(out, "%sfile: %s\n", s->env ? "" : "      ", s->key);
    config_allowed(s, allowed);
    fprintf(out, "      allowed: %s\n", allowed);
}

void config_help(FILE *out)
{
    fputs(
        "meshd - one node of a mesh: offers services, learns those of its peers, answers who "
        "has what, carries clients to it\n"
        "\n"
        "usage: meshd [-c FILE] [SETTING]...\n"
        "       meshd --check [FILE]      reads the settings, tells what is wrong, ends: 0 or 2\n"
        "       meshd --print-config      prints the settings in force as YAML\n"
        "       meshd -V, --version       meshd -h, --help\n"
        "\n"
        "Flags win over variables, these over the file, that over the defaults. An empty variable "
        "is unset.\n"
        "A list replaces that of the weaker source whole. No file is normal.\n"
        "\n"
        "  -c, --config FILE\n"
        "      a YAML file of settings; variable: MESHD_CONFIG; default: none\n",
        out);
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++)
        help_setting(s, out);
}
