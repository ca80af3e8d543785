/* known - refusals are remembered, or found again, so that they can be told. */
#include "node/known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "node/inside.h"

/* ---- refused entries ---- */

static void refused_set_clear(struct refused_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        free(set->at[i].name);
    set->n = 0;
    set->total = 0;
}

void refused_set_fini(struct refused_set *set)
{
    refused_set_clear(set);
    free(set->at);
    *set = (struct refused_set){0};
}

int refused_set_add(struct refused_set *set, const char *name, uint64_t hash, int reason)
{
    struct refused *at;
    size_t cap;
    char *copy;

    if (set->n >= REFUSED_MAX) {
        set->total++;
        return 0;
    }
    if (set->n == set->cap) {
        cap = set->cap ? set->cap * 2 : 4;
        at = realloc(set->at, cap * sizeof(*at));
        if (!at)
            return -ENOMEM;
        set->at = at;
        set->cap = cap;
    }
    copy = strndup(name, LIMIT_NAME);
    if (!copy)
        return -ENOMEM;
    set->at[set->n++] = (struct refused){.name = copy, .hash = hash, .reason = reason};
    set->total++;
    return 0;
}

struct refused *refused_set_find(const struct refused_set *set, const char *name)
{
    /* What is remembered was cut at LIMIT_NAME bytes; what is longer is a bad name anyway. */
    for (size_t i = 0; i < set->n; i++)
        if (strncmp(set->at[i].name, name, LIMIT_NAME) == 0)
            return &set->at[i];
    return NULL;
}

void refused_set_drop(struct refused_set *set, struct refused *entry)
{
    free(entry->name);
    *entry = set->at[--set->n];
    set->total--;
}

/* ---- what is known of a list ---- */

static size_t denied_of(const struct known_list *known)
{
    return known->offered ? list_count(known->offered) - list_count(known->list) : 0;
}

void known_list_fini(struct node *n, struct known_list *known)
{
    n->denied_rows -= denied_of(known);
    list_unref(known->list);
    list_unref(known->offered);
    refused_set_fini(&known->refused);
    *known = (struct known_list){0};
}

void known_list_set(struct node *n, struct known_list *known, struct list *offered,
                    struct list *list)
{
    n->denied_rows -= denied_of(known);
    list_unref(known->list);
    list_unref(known->offered);
    known->list = list;
    known->offered = offered;
    n->denied_rows += denied_of(known);
}

size_t known_list_refused(const struct known_list *known)
{
    return known->refused.total + denied_of(known);
}

bool known_list_has_forgotten(const struct known_list *known)
{
    for (size_t i = 0; i < known->refused.n; i++)
        if (known->refused.at[i].reason == REASON(POLICY))
            return true;
    return known->refused.total > known->refused.n;
}

#define POLICY_TEXT 192u /* of a refusal: a rule's name, a peer id and a sentence around them */

struct refusals { /* being gathered */
    struct node *n;
    const struct peer *p;
    size_t count, cap;
    Meshd__V1__Refused *messages;
    char (*texts)[POLICY_TEXT];
};

static const char *refused_text(struct refusals *to, const char *name, int reason)
{
    char rule[POLICY_RULE_TEXT], *text = to->texts[to->count];

    switch (reason) {
    case REASON(BAD_NAME):
        return "not a canonical name";
    case REASON(BAD_ADDRESS):
        return "not a backend address";
    case REASON(DUPLICATE):
        return "the same name twice in one list";
    case REASON(POLICY):
        if (policy_would(to->n->policy, POLICY_REGISTER, to->p->id, name, rule))
            return "not allowed when it came";
        policy_refusal_text(POLICY_REGISTER, to->p->id, "", rule, text, POLICY_TEXT);
        return text;
    default:
        return "over the limit of services";
    }
}

static void add_refusal(struct refusals *to, const char *name, int reason)
{
    Meshd__V1__Refused *message = &to->messages[to->count];

    meshd__v1__refused__init(message);
    message->name = (char *)name;
    message->reason = (Meshd__V1__Reason)reason;
    message->text = (char *)refused_text(to, name, reason);
    to->count++;
}

static int add_denied(void *ctx, struct row *before, struct row *after)
{
    struct refusals *to = ctx;

    if (to->count == to->cap)
        return 1;
    if (!before)
        add_refusal(to, after->name, REASON(POLICY));
    return 0;
}

int known_list_refused_messages(struct node *n, const struct peer *p, size_t *out_n,
                                Meshd__V1__Refused ***out_at)
{
    const struct refused_set *set = &p->known.refused;
    struct refusals to = {.n = n, .p = p, .cap = set->n + denied_of(&p->known)};
    Meshd__V1__Refused **at;

    if (to.cap > REFUSED_NAMED_MAX)
        to.cap = REFUSED_NAMED_MAX;
    if (to.cap == 0) {
        *out_n = 0;
        *out_at = NULL;
        return 0;
    }
    at = malloc(to.cap * (sizeof(*at) + sizeof(*to.messages) + sizeof(*to.texts)));
    if (!at)
        return -ENOMEM;
    to.messages = (Meshd__V1__Refused *)(void *)(at + to.cap);
    to.texts = (char(*)[POLICY_TEXT])(void *)(to.messages + to.cap);
    for (size_t i = 0; i < set->n && to.count < to.cap; i++)
        add_refusal(&to, set->at[i].name, set->at[i].reason);
    if (p->known.offered)
        list_diff(p->known.list, p->known.offered, add_denied, &to);
    for (size_t i = 0; i < to.count; i++)
        at[i] = &to.messages[i];
    *out_n = to.count;
    *out_at = at;
    return 0;
}
