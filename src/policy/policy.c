/* policy - the rules in force, behind a lock that is held for one look; and what they refused. */
#include "policy/policy.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/lock.h"

struct globs {
    const char **at;
    size_t n;
};

struct rule {
    char name[POLICY_RULE_TEXT];
    bool link, lookup, introspect;
    struct globs peers, registers, forwards, offers;
};

struct rules { /* in one piece, with their globs and texts behind it */
    size_t n;
    struct rule at[];
};

struct policy_keeper {
    struct rwlock lock;  /* of rules */
    struct rules *rules; /* NULL: none */
    /* The lock is for those who have rules: everybody asks, on every thread. */
    atomic_size_t n_rules;
    atomic_uint_fast64_t denied[N_POLICY_ACTIONS];
    void (*tell)(void *ctx, enum policy_action action, const char *subject, const char *name,
                 const char *rule); /* or NULL */
    void *tell_ctx;
};

const char *policy_action_text(enum policy_action action)
{
    static const char *const texts[N_POLICY_ACTIONS] = {[POLICY_LINK] = "link",
                                                        [POLICY_REGISTER] = "register",
                                                        [POLICY_FORWARD] = "forward",
                                                        [POLICY_LOOKUP] = "lookup",
                                                        [POLICY_INTROSPECT] = "introspect",
                                                        [POLICY_OFFER] = "offer"};

    return texts[action];
}

/* ---- the rules ---- */

struct sizes {
    size_t globs, bytes;
};

static int add_sizes(struct sizes *sizes, const char *const *globs, size_t n)
{
    if (n > LIMIT_POLICY_GLOBS)
        return -E2BIG;
    sizes->globs += n;
    for (size_t i = 0; i < n; i++)
        sizes->bytes += strlen(globs[i]) + 1;
    return 0;
}

static int rule_sizes(struct sizes *sizes, const struct policy_rule *rule)
{
    int r = strlen(rule->name) < POLICY_RULE_TEXT ? 0 : -E2BIG;

    if (r == 0)
        r = add_sizes(sizes, rule->peers, rule->n_peers);
    if (r == 0)
        r = add_sizes(sizes, rule->register_names, rule->n_register);
    if (r == 0)
        r = add_sizes(sizes, rule->forward_names, rule->n_forward);
    if (r == 0)
        r = add_sizes(sizes, rule->offer_names, rule->n_offer);
    return r;
}

struct room { /* for what is copied */
    const char **globs;
    char *text;
};

static struct globs copy_globs(struct room *room, const char *const *globs, size_t n)
{
    struct globs out = {.at = room->globs, .n = n};

    for (size_t i = 0; i < n; i++) {
        size_t size = strlen(globs[i]) + 1;

        *room->globs++ = memcpy(room->text, globs[i], size);
        room->text += size;
    }
    return out;
}

static int rules_new(const struct policy_rule *from, size_t n, struct rules **out_rules)
{
    struct sizes sizes = {0};
    struct rules *rules;
    struct room room;
    int r = n > LIMIT_POLICY_RULES ? -E2BIG : 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = rule_sizes(&sizes, &from[i]);
    if (r < 0)
        return r;
    if (n == 0) {
        *out_rules = NULL;
        return 0;
    }
    rules = calloc(1, sizeof(*rules) + n * sizeof(*rules->at) + sizes.globs * sizeof(*room.globs) +
                          sizes.bytes);
    if (!rules)
        return -ENOMEM;
    rules->n = n;
    room.globs = (const char **)(void *)&rules->at[n];
    room.text = (char *)(room.globs + sizes.globs);
    for (size_t i = 0; i < n; i++) {
        struct rule *to = &rules->at[i];

        memcpy(to->name, from[i].name, strlen(from[i].name) + 1);
        to->link = from[i].link;
        to->lookup = from[i].lookup;
        to->introspect = from[i].introspect;
        to->peers = copy_globs(&room, from[i].peers, from[i].n_peers);
        to->registers = copy_globs(&room, from[i].register_names, from[i].n_register);
        to->forwards = copy_globs(&room, from[i].forward_names, from[i].n_forward);
        to->offers = copy_globs(&room, from[i].offer_names, from[i].n_offer);
    }
    *out_rules = rules;
    return 0;
}

static bool matches(const struct globs *globs, const char *text)
{
    for (size_t i = 0; i < globs->n; i++)
        if (policy_glob(globs->at[i], text))
            return true;
    return false;
}

static bool is_about(const struct rule *rule, const char *subject)
{
    if (subject[0] != '@')
        return matches(&rule->peers, subject);
    for (size_t i = 0; i < rule->peers.n; i++)
        if (strcmp(rule->peers.at[i], subject) == 0)
            return true;
    return false;
}

static bool rule_allows(const struct rule *rule, enum policy_action action, const char *name)
{
    switch (action) {
    case POLICY_LINK:
        return rule->link;
    case POLICY_REGISTER:
        return matches(&rule->registers, name);
    case POLICY_FORWARD:
        return matches(&rule->forwards, name);
    case POLICY_LOOKUP:
        return rule->lookup;
    case POLICY_INTROSPECT:
        return rule->introspect;
    default:
        return matches(&rule->offers, name);
    }
}

/* ---- who keeps them ---- */

int policy_keeper_new(const struct policy_rule *rules, size_t n, struct policy_keeper **out_keeper)
{
    struct policy_keeper *keeper = calloc(1, sizeof(*keeper));
    int r;

    if (!keeper)
        return -ENOMEM;
    r = rules_new(rules, n, &keeper->rules);
    if (r < 0) {
        free(keeper);
        return r;
    }
    rwlock_init(&keeper->lock);
    atomic_init(&keeper->n_rules, n);
    *out_keeper = keeper;
    return 0;
}

void policy_keeper_free(struct policy_keeper *keeper)
{
    if (!keeper)
        return;
    rwlock_fini(&keeper->lock);
    free(keeper->rules);
    free(keeper);
}

int policy_keeper_set(struct policy_keeper *keeper, const struct policy_rule *rules, size_t n)
{
    struct rules *fresh, *old;
    int r = rules_new(rules, n, &fresh);

    if (r < 0)
        return r;
    rwlock_write(&keeper->lock);
    old = keeper->rules;
    keeper->rules = fresh;
    atomic_store(&keeper->n_rules, n);
    rwlock_write_done(&keeper->lock);
    free(old);
    return 0;
}

void policy_keeper_tell(struct policy_keeper *keeper,
                        void (*tell)(void *ctx, enum policy_action action, const char *subject,
                                     const char *name, const char *rule),
                        void *ctx)
{
    keeper->tell = tell;
    keeper->tell_ctx = ctx;
}

/* ---- questions ---- */

static void copy_name(char out_rule[POLICY_RULE_TEXT], const char *name)
{
    memcpy(out_rule, name, strlen(name) + 1);
}

/* Whom no rule is about. */
static bool by_default(bool any_rules, enum policy_action action, const char *subject,
                       char out_rule[POLICY_RULE_TEXT])
{
    if (strcmp(subject, POLICY_LOCAL) == 0 || (!any_rules && action != POLICY_OFFER))
        return true;
    copy_name(out_rule, POLICY_DEFAULT);
    return false;
}

bool policy_would(struct policy_keeper *keeper, enum policy_action action, const char *subject,
                  const char *name, char out_rule[POLICY_RULE_TEXT])
{
    const struct rules *rules;
    const struct rule *rule = NULL;
    bool allowed;

    if (!keeper || atomic_load_explicit(&keeper->n_rules, memory_order_relaxed) == 0)
        return by_default(false, action, subject, out_rule);
    rwlock_read(&keeper->lock);
    rules = keeper->rules;
    for (size_t i = 0; rules && !rule && i < rules->n; i++)
        if (is_about(&rules->at[i], subject))
            rule = &rules->at[i];
    if (rule) {
        allowed = rule_allows(rule, action, name);
        if (!allowed)
            copy_name(out_rule, rule->name);
    } else {
        allowed = by_default(rules != NULL, action, subject, out_rule);
    }
    rwlock_read_done(&keeper->lock);
    return allowed;
}

bool policy_allows(struct policy_keeper *keeper, enum policy_action action, const char *subject,
                   const char *name, char out_rule[POLICY_RULE_TEXT])
{
    if (policy_would(keeper, action, subject, name, out_rule))
        return true;
    if (!keeper)
        return false;
    atomic_fetch_add_explicit(&keeper->denied[action], 1, memory_order_relaxed);
    if (keeper->tell)
        keeper->tell(keeper->tell_ctx, action, subject, name, out_rule);
    return false;
}

void policy_counters(struct policy_keeper *keeper, struct policy_counters *out_counters)
{
    *out_counters = (struct policy_counters){0};
    if (!keeper)
        return;
    out_counters->rules = atomic_load(&keeper->n_rules);
    for (int i = 0; i < N_POLICY_ACTIONS; i++)
        out_counters->denied[i] = atomic_load(&keeper->denied[i]);
}

void policy_refusal_text(enum policy_action action, const char *subject, const char *name,
                         const char *rule, char *out, size_t size)
{
    static const char *const words[N_POLICY_ACTIONS] = {
        [POLICY_LINK] = "have a link with this node",     [POLICY_REGISTER] = "register this name",
        [POLICY_FORWARD] = "be forwarded to this name",   [POLICY_LOOKUP] = "look names up",
        [POLICY_INTROSPECT] = "see what this node knows", [POLICY_OFFER] = "offer this name",
    };

    snprintf(out, size, "policy rule '%s' does not let %s %s%s%.*s", rule, subject, words[action],
             *name ? ": " : "", (int)LIMIT_NAME, name);
}
