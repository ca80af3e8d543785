/* config_policy - the list of rules: who may do what (policy/policy.h). */
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"

enum {
    FIELD_RULE,
    FIELD_PEERS,
    FIELD_LINK,
    FIELD_REGISTER,
    FIELD_FORWARD,
    FIELD_LOOKUP,
    FIELD_INTROSPECT,
    FIELD_OFFER
};

static const char id_bytes[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

static const char *rule_name(const char *text, struct config_rule *rule)
{
    size_t len = strlen(text);

    if (len == 0 || len >= sizeof(rule->name) || text[strspn(text, id_bytes)])
        return "is no name of a rule";
    if (strcmp(text, POLICY_DEFAULT) == 0)
        return "is what whom no rule is about is told";
    memcpy(rule->name, text, len + 1);
    return NULL;
}

static const char *peer_glob(const char *text)
{
    size_t len = strlen(text);

    if (text[0] == '@')
        return strcmp(text, POLICY_LOCAL) == 0 || strcmp(text, POLICY_ANONYMOUS) == 0
                   ? NULL
                   : "begins with @ and is neither @local nor @anonymous";
    for (const char *c = text; *c; c++)
        if (*c != '*' && *c != '?' && !strchr(id_bytes, *c))
            return "has what no peer id has";
    return len == 0              ? "has an empty place"
           : len > LIMIT_PEER_ID ? "is longer than any peer id"
                                 : NULL;
}

static const char *name_glob_text(const char *text)
{
    size_t len = strlen(text);

    if (text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._-*?")])
        return "has what no service's name has (names are lower case)";
    return len == 0 ? "has an empty place" : len > LIMIT_NAME ? "is longer than any name" : NULL;
}

static const char *add_glob(struct config_globs *globs, const char *text)
{
    char **at = globs->at, *copy;

    if (globs->n == LIMIT_POLICY_GLOBS)
        return "is one too many";
    if ((globs->n & (globs->n - 1)) == 0) { /* room for a power of two */
        at = reallocarray(at, globs->n ? 2 * globs->n : 1, sizeof(*at));
        if (!at)
            return config_no_memory;
        globs->at = at;
    }
    copy = strdup(text);
    if (!copy)
        return config_no_memory;
    at[globs->n++] = copy;
    return NULL;
}

/* One, or several with commas between. */
static const char *add_globs(struct config_globs *globs, const char *text,
                             const char *(*wrong)(const char *text))
{
    char copy[CONFIG_TEXT_MAX], *next = copy, *one;
    const char *why = NULL;

    snprintf(copy, sizeof(copy), "%s", text);
    while (!why && (one = config_next_word(&next)) != NULL) {
        why = wrong(one);
        if (!why)
            why = add_glob(globs, one);
    }
    return why;
}

static const char *yes_or_no(const char *text, bool *out)
{
    *out = strcmp(text, "true") == 0;
    return *out || strcmp(text, "false") == 0 ? NULL : "is neither true nor false";
}

static const char *rule_from_field(unsigned field, const char *text, void *item)
{
    struct config_rule *rule = item;

    switch (field) {
    case FIELD_RULE:
        return rule_name(text, rule);
    case FIELD_PEERS:
        return add_globs(&rule->peers, text, peer_glob);
    case FIELD_LINK:
        return yes_or_no(text, &rule->link);
    case FIELD_REGISTER:
        return add_globs(&rule->registers, text, name_glob_text);
    case FIELD_FORWARD:
        return add_globs(&rule->forwards, text, name_glob_text);
    case FIELD_LOOKUP:
        return yes_or_no(text, &rule->lookup);
    case FIELD_INTROSPECT:
        return yes_or_no(text, &rule->introspect);
    default:
        return add_globs(&rule->offers, text, name_glob_text);
    }
}

static const char *rule_check(const void *item)
{
    return ((const struct config_rule *)item)->peers.n
               ? NULL
               : "has no peers; allowed: at least one glob of peer ids, @local or @anonymous";
}

static void globs_fini(struct config_globs *globs)
{
    for (size_t i = 0; i < globs->n; i++)
        free(globs->at[i]);
    free(globs->at);
}

static void rule_fini(void *item)
{
    struct config_rule *rule = item;

    globs_fini(&rule->peers);
    globs_fini(&rule->registers);
    globs_fini(&rule->forwards);
    globs_fini(&rule->offers);
}

static int rule_compare(const void *a, const void *b)
{
    const struct config_rule *left = a, *right = b;

    return strcmp(left->name, right->name);
}

static void rule_label(const void *item, char out[CONFIG_TEXT_MAX])
{
    snprintf(out, CONFIG_TEXT_MAX, "%s", ((const struct config_rule *)item)->name);
}

static void rule_field_text(unsigned field, const void *item, char out[CONFIG_TEXT_MAX])
{
    const struct config_rule *rule = item;
    bool yes = field == FIELD_LINK     ? rule->link
               : field == FIELD_LOOKUP ? rule->lookup
                                       : rule->introspect;

    snprintf(out, CONFIG_TEXT_MAX, "%s", field == FIELD_RULE ? rule->name : yes ? "true" : "");
}

static const char *rule_field_at(unsigned field, const void *item, size_t index)
{
    const struct config_rule *rule = item;
    const struct config_globs *globs = field == FIELD_PEERS      ? &rule->peers
                                       : field == FIELD_REGISTER ? &rule->registers
                                       : field == FIELD_FORWARD  ? &rule->forwards
                                                                 : &rule->offers;

    return index < globs->n ? globs->at[index] : NULL;
}

#define YES_OR_NO "true or false"
#define NAME_GLOBS                                                                                 \
    "a list, or a text with commas between, of at most 256 globs of a-z 0-9 . _ - * ?"

const struct list_type list_policy = {
    .id = LIST_POLICY,
    .item_size = sizeof(struct config_rule),
    .items_at = offsetof(struct config, rules),
    .n_at = offsetof(struct config, n_rules),
    .n_required = 2,
    .fields = {{"rule", "1 to 64 characters of A-Z a-z 0-9 . _ -, not default"},
               {"peers",
                "a list, or a text with commas between, of 1 to 256 globs of A-Z a-z 0-9 . _ - * "
                "?, @local, @anonymous"},
               {"link", YES_OR_NO},
               {"register", NAME_GLOBS},
               {"forward", NAME_GLOBS},
               {"lookup", YES_OR_NO},
               {"introspect", YES_OR_NO},
               {"offer", NAME_GLOBS}},
    .many = 1u << FIELD_PEERS | 1u << FIELD_REGISTER | 1u << FIELD_FORWARD | 1u << FIELD_OFFER,
    .from_field = rule_from_field,
    .fini = rule_fini,
    .check = rule_check,
    .compare = rule_compare,
    .label = rule_label,
    .field_text = rule_field_text,
    .field_at = rule_field_at,
};
